"""How a network is compared with another one."""
import pytest
import torch
from single_thread import single_thread  # noqa: F401  for all tests here
from torch import nn

SIZES = ((64, 32), (57, 35))


@pytest.fixture(scope='session')
def run_network():
    """The maps of a network by a fixed random state, and, where it trains, the gradients of their sum of squares."""

    def run(model: nn.Module, image: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        torch.manual_seed(1)
        maps = model(image)
        if model.training:
            model.zero_grad()
            sum(x.square().sum() for x in maps).backward()
        return maps, {name: parameter.grad for name, parameter in model.named_parameters()
                      if parameter.grad is not None}

    return run


@pytest.fixture(scope='session')
def compare_networks(run_network):
    """Assert that two networks have the same state dict, maps, gradients and running statistics."""

    def compare(ours: nn.Module, theirs: nn.Module, training: bool, in_channels: int = 3) -> None:
        torch.manual_seed(0)
        for tensor in theirs.state_dict().values():  # fresh norms would hide a wrong order of them
            if tensor.dim() == 1:
                nn.init.uniform_(tensor, 0.5, 1.5)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        ours.train(training), theirs.train(training)
        for size in SIZES:
            image = torch.randn(2, in_channels, *size)
            torch.testing.assert_close(run_network(ours, image), run_network(theirs, image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())

    return compare

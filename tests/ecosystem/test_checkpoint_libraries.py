"""Checkpoints by safetensors, the Hugging Face hub, accelerate and torch's distributed checkpoints, by one process."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conv_layers import make_features, make_layer, randomize
from torch import nn


def network(name: str, seed: int = 0) -> nn.Module:
    return randomize(nn.Sequential(nn.Conv2d(8, 8, 1), make_layer(name), nn.BatchNorm2d(8)), seed).eval()


def assert_same(loaded: nn.Module, saved: nn.Module) -> None:
    torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), rtol=0, atol=0)
    x = make_features()
    torch.testing.assert_close(loaded.eval()(x), saved.eval()(x), rtol=0, atol=0)


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(make_features(seed=3)).square().mean().backward()
    optimizer.step()


def test_safetensors(name, tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    saved, loaded = network(name), network(name, 2)
    safetensors.save_model(saved, str(tmp_path / 'model.safetensors'))
    assert safetensors.load_model(loaded, str(tmp_path / 'model.safetensors'), strict=True) == (set(), [])
    assert_same(loaded, saved)
    safetensors.save_file(saved.state_dict(), str(tmp_path / 'state.safetensors'))
    assert safetensors.load_file(str(tmp_path / 'state.safetensors')).keys() == saved.state_dict().keys()


def test_the_mixin_of_the_hub(name, tmp_path):
    hub = pytest.importorskip('huggingface_hub')
    pytest.importorskip('safetensors')

    class Network(nn.Module, hub.PyTorchModelHubMixin):

        def __init__(self, name: str, seed: int) -> None:
            super().__init__()
            self.body = network(name, seed)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    saved = Network(name=name, seed=0)
    saved.body[0].weight.data.add_(1)
    saved.save_pretrained(tmp_path)
    assert_same(Network.from_pretrained(tmp_path, strict=True), saved)


@pytest.mark.one_at_a_time('name', 'safe')
@pytest.mark.parametrize('safe', [True, False], ids=['safetensors', 'pickle'])
def test_accelerate(name, safe, tmp_path):
    """Model, optimizer and temperature are those of the save, and training goes on as it would have."""
    accelerate = pytest.importorskip('accelerate')
    accelerator = accelerate.Accelerator(cpu=True)
    model = network(name).train()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9))
    train(model, optimizer)
    accelerator.save_state(str(tmp_path), safe_serialization=safe)
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, optimizer)
    further = {key: value.clone() for key, value in model.state_dict().items()}
    randomize(model, 5)
    accelerator.load_state(str(tmp_path))
    torch.testing.assert_close(model.state_dict(), saved, rtol=0, atol=0)
    train(model, optimizer)
    torch.testing.assert_close(model.state_dict(), further, rtol=0, atol=0)


def test_distributed_checkpoints(name, tmp_path: Path):
    """By one process, which needs no group; names of the optimizer's state are those of the parameters."""
    state_dict = pytest.importorskip('torch.distributed.checkpoint.state_dict')
    from torch.distributed import checkpoint
    if not hasattr(checkpoint, 'save'):
        pytest.skip('torch 2.1 has no checkpoint.save')
    saved, loaded = network(name), network(name, 2)
    optimizers = [torch.optim.SGD(model.parameters(), 0.01, momentum=0.9) for model in (saved, loaded)]
    train(saved, optimizers[0])
    model_state, optimizer_state = state_dict.get_state_dict(saved, optimizers[0])
    assert model_state.keys() == saved.state_dict().keys()
    assert optimizer_state['state'].keys() == dict(saved.named_parameters()).keys()
    checkpoint.save(dict(model=model_state, optimizer=optimizer_state), checkpoint_id=str(tmp_path / 'checkpoint'))
    train(loaded, optimizers[1])
    state = dict(zip(('model', 'optimizer'), state_dict.get_state_dict(loaded, optimizers[1])))
    checkpoint.load(state, checkpoint_id=str(tmp_path / 'checkpoint'))
    state_dict.set_state_dict(loaded, optimizers[1], model_state_dict=state['model'],
                              optim_state_dict=state['optimizer'])
    assert_same(loaded, saved)
    for model, optimizer in zip((saved, loaded), optimizers):
        train(model, optimizer)
    assert_same(loaded, saved)

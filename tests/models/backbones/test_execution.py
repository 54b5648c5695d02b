"""How whole networks execute: compiled, in mixed precision, in another memory format, by every plan."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from one_graph import needs_one_graph
from torch import nn

from dynconv_mm.functional import PLANS, use_plan
from dynconv_mm.layers import ODConv2d, TemperatureMixin
from dynconv_mm.models.backbones import (
    CondConvResNet,
    DyConvMobileNetV2,
    ODConvMobileNetV2,
    ODConvResNet,
)

THIN = dict(stem_channels=8, base_channels=8, out_indices=(1, 3))
NETWORKS = {
    'ODConvResNet 1x': partial(ODConvResNet, depth=18, kernel_num=1, **THIN),
    'ODConvResNet 3x': partial(ODConvResNet, depth=18, kernel_num=3, **THIN),
    'ODConvMobileNetV2 1x': partial(ODConvMobileNetV2, widen_factor=0.1, kernel_num=1, out_indices=(2, 7)),
    'ODConvMobileNetV2 3x': partial(ODConvMobileNetV2, widen_factor=0.1, kernel_num=3, out_indices=(2, 7)),
}
COMPARED = {
    'CondConvResNet': partial(CondConvResNet, depth=18, kernel_num=3, **THIN),
    'DyConvMobileNetV2': partial(DyConvMobileNetV2, widen_factor=0.1, kernel_num=3, out_indices=(2, 7)),
}


@pytest.fixture(params=NETWORKS)
def odconv(request) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


@pytest.fixture(params=NETWORKS | COMPARED)
def network(request) -> nn.Module:
    torch.manual_seed(0)
    return (NETWORKS | COMPARED)[request.param]()


def images(batch: int, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def set_temperature(model: nn.Module, temperature: float) -> None:
    for module in model.modules():
        if isinstance(module, TemperatureMixin):
            module.temperature.fill_(temperature)


def assert_close(actual, expected, tolerance: float = 1e-4) -> None:
    for one, other in zip(actual, expected):
        assert one.shape == other.shape
        error = (one.double() - other.double()).abs().max() / other.double().abs().max()
        assert error < tolerance


@pytest.mark.slow
@needs_one_graph
@pytest.mark.parametrize(('name', 'training'), [('ODConvResNet 3x', True), ('ODConvMobileNetV2 1x', False)])
def test_compiled_once_for_any_batch_size_and_changing_temperature(name, training):
    """As one graph, and with the gradients of the network that is not compiled."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> nn.Module:
        graphs.append(graph)
        return graph

    torch.manual_seed(0)
    model = NETWORKS[name]().train(training)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    # not 3, which torch takes for the number of channels
    for batch, temperature in ((5, 30.), (5, 15.), (6, 15.), (4, 1.)):
        set_temperature(model, temperature)
        outputs, gradients = [], []
        for run in (compiled, model):
            with torch.set_grad_enabled(training):
                outputs.append(run(images(batch)))
                if training:
                    loss = sum(y.square().mean() for y in outputs[-1])
                    gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        assert_close(*outputs)
        assert_close(*gradients or ((), ()), 1e-2)
    assert len(graphs) == 1


def test_mixed_precision(odconv):
    """Maps in bfloat16, near those of float32; attentions from features of float32."""
    odconv.eval()
    seen = set()
    for module in odconv.modules():
        if isinstance(module, ODConv2d):
            module.attention.register_forward_hook(lambda module, inputs, outputs: seen.update(
                alpha.dtype for alpha in outputs.values()))
    with torch.no_grad():
        expected = odconv(images(3))
        with torch.autocast('cpu', torch.bfloat16):
            actual = odconv(images(3))
    assert seen == {torch.float32}
    assert_close(actual, expected, 0.1)


def test_training_in_mixed_precision(network):
    network.train()
    with torch.autocast('cpu', torch.bfloat16):
        loss = sum(y.float().square().mean() for y in network(images(3)))
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all(), name


def test_channels_last_in_channels_last_out(network):
    network.eval()
    expected = network(images(2))
    network.to(memory_format=torch.channels_last)
    actual = network(images(2).contiguous(memory_format=torch.channels_last))
    for y in actual:
        assert y.is_contiguous(memory_format=torch.channels_last)
    assert_close(actual, expected)


@pytest.mark.one_at_a_time('network', 'plan')
@pytest.mark.parametrize('plan', PLANS)
def test_every_plan_gives_the_same_maps(network, plan):
    network.double().eval()
    with torch.no_grad():
        with use_plan('grouped'):
            expected = network(images(3).double())
        with use_plan(plan):
            actual = network(images(3).double())
    assert_close(actual, expected, 1e-9)

"""What DyConv2d and CondConv2d share: initialisation, plans, copies, types, devices, batches, compilation."""
from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from one_graph import needs_one_graph
from torch import Tensor, nn

from dynconv_mm.functional import PLANS
from dynconv_mm.functional.operator import Backend
from dynconv_mm.layers import CondConv2d, DyConv2d, ODConv2d
from dynconv_mm.layers.conv_norm import conv_norm
from dynconv_mm.layers.mixture_conv import MixtureConv2d

LAYERS = [DyConv2d, CondConv2d]
SMALL = dict(in_channels=6, out_channels=4, kernel_size=3, kernel_num=3)


@pytest.fixture(params=LAYERS, ids=lambda layer: layer.__name__)
def kind(request) -> type[MixtureConv2d]:
    return request.param


def make_input(batch: int = 3) -> Tensor:
    return torch.randn(batch, 6, 8, 7, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def layer(kind, make_random) -> MixtureConv2d:
    return make_random(kind(**SMALL, padding=1).double())


def test_registered(kind):
    built = MODELS.build(dict(type=kind.__name__, in_channels=6, out_channels=4, kernel_size=3))
    assert type(built) is kind and built.kernel_num == {DyConv2d: 4, CondConv2d: 8}[kind]


def test_a_base_needs_attentions():
    base = MixtureConv2d(6, 4, 3, 1, 0, 1, 1, True, 'zeros', 2, 'auto')
    with pytest.raises(NotImplementedError):
        base(torch.randn(1, 6, 5, 5))


@pytest.mark.parametrize('groups', [1, 4])
def test_initialisation(kind, groups):
    """Every kernel as if it were alone; init_weights draws all of it anew."""
    torch.manual_seed(0)
    layer = kind(64, 32, 3, groups=groups, kernel_num=3)
    for _ in range(2):
        before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
        for kernel in layer.weight.detach():
            standard, tolerance = kernel / math.sqrt(2 / (32 * 9)), 5 / math.sqrt(kernel.numel())
            assert abs(standard.std() - 1) < tolerance and abs(standard.mean()) < tolerance
        assert all(not value.any() for name, value in before.items() if name.endswith('bias'))
        layer.init_weights()
        same = {name for name, parameter in layer.named_parameters() if torch.equal(parameter, before[name])}
        assert same == {name for name in before if name.endswith('bias')}


def test_the_plan_is_the_one_asked_for(kind, monkeypatch):
    monkeypatch.setitem(PLANS, 'mine', Backend(lambda mixture: mixture.input + 1))
    x = make_input()
    assert torch.equal(kind(**SMALL, plan='mine').double()(x), x + 1)


def test_extra_repr(kind):
    assert kind(8, 6, 3, 2, kernel_num=2, bias=False, plan='grouped').extra_repr() == (
        "8, 6, kernel_size=(3, 3), stride=(2, 2), bias=False, kernel_num=2, plan='grouped'")


# Batches.


def test_a_sample_does_not_see_the_others(layer):
    x = make_input()
    torch.testing.assert_close(torch.cat([layer.train()(sample[None]) for sample in x]), layer(x))


@pytest.mark.parametrize('training', [True, False])
def test_an_empty_batch(layer, training):
    x = make_input(0).requires_grad_()
    y = layer.train(training)(x)
    assert y.shape == (0, 4, 8, 7)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in layer.parameters())


# Copies, types, devices, memory formats.


def through_state_dict(layer: MixtureConv2d) -> MixtureConv2d:
    other = type(layer)(**SMALL, padding=1).double()
    other.load_state_dict(layer.state_dict(), strict=True)
    return other


@pytest.mark.parametrize('make_copy', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)),
                                       through_state_dict], ids=['deepcopy', 'pickle', 'state_dict'])
def test_copies_are_equal_and_independent(layer, make_copy):
    x = make_input()
    other, expected = make_copy(layer), layer(x)
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1)
    assert torch.equal(other(x), expected) and not torch.equal(layer(x), expected)


def test_bfloat16(layer):
    x = make_input()
    expected, actual = layer(x), layer.bfloat16()(x.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert (actual - expected).abs().max() < .05 * expected.abs().max()


def test_autocast(kind, make_random):
    layer, x = make_random(kind(**SMALL, bias=False)), make_input().float().requires_grad_()
    expected = layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        actual = layer(x)
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).abs().max() < .05 * expected.abs().max()
    actual.float().square().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


@pytest.mark.parametrize('dtype', [None, torch.float64])
@pytest.mark.parametrize('device', [None, 'meta'])
def test_device_and_dtype(kind, device, dtype):
    layer = kind(**SMALL, device=device, dtype=dtype)
    assert {(tensor.device.type, tensor.dtype) for tensor in layer.state_dict().values()} == {
        (device or 'cpu', dtype or torch.float32)}
    x = torch.empty(2, 6, 5, 5, device=device, dtype=dtype)
    assert layer(x).shape == (2, 4, 3, 3) and layer(x).device == x.device


def test_memory_format(layer):
    x = make_input()
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    assert layer.weight.shape == (3, 4, 6, 3, 3)
    assert layer.weight[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)


@needs_one_graph
def test_compiled_as_one_graph(layer):
    x = make_input().requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    inputs = [x, *layer.parameters()]
    results = [(y, *torch.autograd.grad(y.square().sum(), inputs)) for y in (compiled(x), layer(x))]
    torch.testing.assert_close(*results)


def test_gradient_of_gradient(kind, make_random):
    layer = make_random(kind(2, 2, 2, kernel_num=2).double())
    x = torch.randn(2, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradgradcheck(layer, x)


def test_every_parameter_learns(layer):
    optimizer, x, target = torch.optim.SGD(layer.parameters(), .01), make_input(), torch.randn(3, 4, 8, 7).double()
    before, losses = copy.deepcopy(layer.state_dict()), []
    for _ in range(5):
        loss = nn.functional.mse_loss(layer(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    after = layer.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == [
        name for name in before if name == 'temperature']


@pytest.mark.parametrize('kind', [*LAYERS, ODConv2d], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize('gradients', [False, True])
def test_attention_hook(kind, gradients):
    """It sees the attentions of every call, also of one whose norm is folded, and changes no output."""
    layer, norm = kind(6, 4, 3, padding=1).eval(), nn.BatchNorm2d(4).eval()
    seen = []
    with torch.set_grad_enabled(gradients):
        for x in (make_input(1).float(), make_input(3).float()):
            expected, of_norm = layer(x), conv_norm(layer, norm, x)
            handle = layer.register_attention_hook(lambda *call: seen.append(call))
            torch.testing.assert_close(layer(x), expected)
            torch.testing.assert_close(conv_norm(layer, norm, x), of_norm)
            handle.remove()
            layer(x)
            attentions = layer.compute_attentions(x)
            assert len(seen) == 2
            for owner, found in seen:
                assert owner is layer and found.keys() == attentions.keys()
                for name, values in found.items():
                    torch.testing.assert_close(values, attentions[name])
            seen.clear()


def test_attention_hook_of_shared_routing_weights():
    layer, weights, seen = CondConv2d(**SMALL, routing=False), torch.rand(2, 3), []
    layer.register_attention_hook(lambda owner, attentions: seen.append(attentions['kernel']))
    layer(make_input(2).float(), weights)
    assert seen == [weights]


def test_an_attention_hook_may_remove_itself():
    layer, seen = ODConv2d(6, 4, 3), []

    def once(owner, attentions):
        seen.append('once')
        handle.remove()

    handle = layer.register_attention_hook(once)
    layer.register_attention_hook(lambda owner, attentions: seen.append('always'))
    for _ in range(2):
        layer(torch.randn(2, 6, 7, 7))
    assert seen == ['once', 'always', 'always']

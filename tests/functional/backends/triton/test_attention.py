"""The kernels compute ODConv's attentions as torch does, and their gradients, where nothing but they could tell."""
from __future__ import annotations

import copy
import sys

import pytest
import torch

pytest.importorskip('triton', '3.6', reason='the kernels need Triton 3.6 or newer, which this torch does not bring')

from dynconv_mm.functional import enable_numba, enable_triton
from dynconv_mm.functional.backends.triton import attention as kernels
from dynconv_mm.layers import ODConv2d


@pytest.fixture
def served(monkeypatch) -> list[bool]:
    """Whether the kernel served each call."""
    served, run = [], kernels.attention

    def attention(call):
        attentions = run(call)
        served.append(attentions is not None)
        return attentions

    monkeypatch.setattr(kernels, 'attention', attention)
    return served


def make(make_random, device: str, dtype: torch.dtype = torch.float64, **arguments) -> ODConv2d:
    layer = make_random(ODConv2d(**{**dict(in_channels=5, out_channels=70, kernel_size=3, kernel_num=3,
                                           min_channels=7), **arguments}))
    for norm in (module for module in layer.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(.5, 2)
    layer.temperature.fill_(3.)
    return layer.to(device, dtype).eval()


@pytest.mark.parametrize('arguments', [
    {}, dict(norm_cfg=None), dict(norm_cfg=dict(type='BN', affine=False)), dict(attentions=('channel', )),
    dict(kernel_size=1, kernel_num=1), dict(spatial_activation='softmax'), dict(share_attention=False),
    dict(in_channels=6, out_channels=6, groups=6)], ids=str)
@torch.no_grad()
def test_values(make_random, device, served, arguments):
    layer = make(make_random, device, torch.float64 if device == 'cpu' else torch.float32, **arguments)
    x = torch.randn(19, layer.in_channels, 3, 4, device=device, dtype=layer.weight.dtype)
    with enable_triton(False):
        expected = layer.compute_attentions(x)
    with enable_triton(), enable_numba(False):
        actual = layer.compute_attentions(x)
    assert served == [True] and actual.keys() == expected.keys() and expected
    for name, attention in expected.items():
        torch.testing.assert_close(actual[name], attention, rtol=1e-5, atol=1e-9 if device == 'cpu' else 1e-5)


TRAINED = [
    {}, dict(norm_cfg=None), dict(norm_cfg=dict(type='LN')), dict(attentions=('channel', )), dict(min_channels=40),
    dict(kernel_size=1, kernel_num=1), dict(spatial_activation='softmax'), dict(share_attention=False)]


@pytest.mark.parametrize('training', [True, False], ids=['training', 'eval'])
@pytest.mark.parametrize('arguments', TRAINED, ids=str)
def test_gradients(make_random, device, served, arguments, training):
    dtype, close = (torch.float64, dict(rtol=1e-7, atol=1e-9)) if device == 'cpu' else \
        (torch.float32, dict(rtol=1e-3, atol=1e-4))
    layer = make(make_random, device, dtype, **arguments).train(training)
    fast = copy.deepcopy(layer)
    inputs, upstream = torch.randn(19, 5, 3, 4, device=device, dtype=dtype), {}
    results = []
    for module, enabled in ((layer, False), (fast, True)):
        x = inputs.clone().requires_grad_()
        with enable_triton(enabled), enable_numba(False):
            attentions = module.compute_attentions(x)
        for name, attention in attentions.items():
            upstream.setdefault(name, torch.randn_like(attention))
        loss = sum((attention * upstream[name]).sum() for name, attention in attentions.items())
        loss.backward()
        results.append({**attentions, 'input': x.grad, **{name: parameter.grad for name, parameter
                                                          in module.attention.named_parameters()},
                        **dict(module.attention.named_buffers())})
    assert served == [True] and results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=lambda text, name=name: f'{name}: {text}', **close)


def test_gradients_of_what_is_asked_for_alone(make_random, device, served):
    layer = make(make_random, device, torch.float64 if device == 'cpu' else torch.float32)
    for parameter in layer.attention.parameters():
        parameter.requires_grad_(parameter is layer.attention.channel_fc.weight)
    x = torch.randn(3, 5, 3, 4, device=device, dtype=layer.weight.dtype)
    gradients = []
    for enabled in (False, True):
        with enable_triton(enabled), enable_numba(False):
            attentions = layer.compute_attentions(x)
        total = attentions['channel'].square().sum()
        gradients += torch.autograd.grad(total, layer.attention.channel_fc.weight)
    assert served == [True]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_second_derivatives(make_random, device, served):
    layer = make(make_random, device, torch.float64 if device == 'cpu' else torch.float32, kernel_num=2).train()
    x = torch.randn(4, 5, 3, 4, device=device, dtype=layer.weight.dtype, requires_grad=True)
    seconds = []
    for enabled in (False, True):
        with enable_triton(enabled), enable_numba(False):
            attentions = layer.compute_attentions(x)
        total = sum(attention.square().sum() for attention in attentions.values())
        gradient, = torch.autograd.grad(total, x, create_graph=True)
        seconds.append(torch.autograd.grad(gradient.square().sum(), [x, layer.attention.channel_fc.weight]))
    assert served == [True]
    for actual, expected in zip(*reversed(seconds)):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


def test_second_derivatives_with_frozen_heads(make_random, device):
    """Of several outputs, some then depend on nothing that needs a gradient."""
    layer = make(make_random, device, torch.float64 if device == 'cpu' else torch.float32).train()
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_('channel_fc' in name)
    x, weight = torch.randn(4, 5, 3, 4, device=device, dtype=layer.weight.dtype), layer.attention.channel_fc.weight
    seconds = []
    for enabled in (False, True):
        with enable_triton(enabled), enable_numba(False):
            attention = layer.compute_attentions(x)['channel']
        gradient, = torch.autograd.grad(attention.square().sum(), weight, create_graph=True)
        seconds += torch.autograd.grad(gradient.square().sum(), weight)
    torch.testing.assert_close(*seconds, rtol=1e-3, atol=1e-6)


def test_precision_under_autocast(make_random, device, served, monkeypatch):
    """That of the parameters, also where torch computes the heads."""
    layer = make(make_random, device, torch.float32)
    x = torch.randn(3, 5, 3, 4, device=device)
    expected = layer.compute_attentions(x)
    layer.temperature.requires_grad_()
    calls = []
    monkeypatch.setitem(attention_backends(device), 'triton', lambda call: calls.append(call))
    with enable_triton(), enable_numba(False):
        layer.compute_attentions(x)
    with torch.autocast(device, torch.bfloat16):
        actual = kernels.attention(calls[0])
    assert served == [True]
    for name, attention in expected.items():
        assert actual[name].dtype == torch.float32
        torch.testing.assert_close(actual[name], attention, rtol=1e-5, atol=1e-5)


def attention_backends(device):
    module = sys.modules['dynconv_mm.functional.attention']  # the package has a function of that name
    return module.BACKENDS if device == 'cpu' else module.GPU_BACKENDS


def test_what_is_left_to_modules_and_to_torch(make_random, device, served):
    dtype = torch.float64 if device == 'cpu' else torch.float32
    layer = make(make_random, device, dtype)
    x = torch.randn(2, 5, 3, 4, device=device, dtype=dtype)
    with enable_triton(), enable_numba(False):
        layer.temperature.requires_grad_()
        sum(attention.sum() for attention in layer.compute_attentions(x).values()).backward()
        assert layer.temperature.grad.abs() > 0
        layer.temperature.requires_grad_(False)
        with torch.no_grad():
            calls = []
            layer.attention.fc.register_forward_hook(lambda *arguments: calls.append(arguments))
            layer.compute_attentions(x)
            assert len(calls) == 1
            for other in (make(make_random, device, dtype, norm_cfg=dict(type='LN')),
                          make(make_random, device, dtype).train()):  # all but their heads
                other.compute_attentions(x)
            assert served == [True] * 4
            for other in (make(make_random, device, dtype, spatial_pool_size=2),
                          make(make_random, device, dtype, spatial_activation='softmax', share_attention=False)):
                other.compute_attentions(x)
            make(make_random, device, dtype).compute_attentions(x[:0])
            assert served[4:] == [False] * 3

"""The compiled depthwise convolution is torch's where it serves, forward and backward, and leaves the rest to it."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional import enable_numba, use_plan
from dynconv_mm.functional.backends.numba import depthwise, mixture_conv, threads
from dynconv_mm.functional.backends.numba.depthwise import convolve, refuses
from dynconv_mm.functional.conv import CONV, Conv
from dynconv_mm.functional.operator import execute
from dynconv_mm.functional.sample_conv import SAMPLE_CONV, SampleConv
from dynconv_mm.layers import DyConv2d, ODConv2d
from dynconv_mm.layers.static_conv import StaticConv2d


def reference(call: Conv | SampleConv) -> Tensor:
    """Sample by sample, by torch."""
    x, weight, bias, *geometry = call[:7]
    kernels = weight if weight.dim() == 5 else weight.expand(len(x), -1, -1, -1, -1)
    return torch.cat([F.conv2d(sample[None], kernel, bias, *geometry) for sample, kernel in zip(x, kernels)])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_equal_to_torch(data):
    """Odd sizes, strides, paddings and dilations that differ in both directions, outputs and all gradients."""
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(*[st.integers(low, high)] * 2))

    batch, channels = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 5))
    kernel_size, stride, padding, dilation = pair(1, 7), pair(1, 3), pair(0, 4), pair(1, 3)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel_size, padding, dilation)]
    size = [low + more for low, more in zip(least, pair(0, data.draw(st.sampled_from([9, 50]))))]
    of_samples = data.draw(st.booleans())
    x = torch.randn(batch, channels, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(*[batch] * of_samples, channels, 1, *kernel_size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(channels, dtype=torch.float64, requires_grad=True) if data.draw(st.booleans()) else None
    kind, operator = (SampleConv, SAMPLE_CONV) if of_samples else (Conv, CONV)
    call = kind(x, weight, bias, stride, padding, dilation, channels)
    assert refuses(call) is None
    actual, expected = execute(operator, operator.backends['numba'], call), reference(call)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    tensors, upstream = [tensor for tensor in (x, weight, bias) if tensor is not None], torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, tensors, upstream),
                               torch.autograd.grad(expected, tensors, upstream), rtol=0, atol=1e-11)


def make(dtype: torch.dtype = torch.float32) -> SampleConv:
    return SampleConv(torch.randn(2, 6, 9, 8, dtype=dtype), torch.randn(2, 6, 1, 3, 5, dtype=dtype),
                      torch.randn(6, dtype=dtype), (1, 2), (1, 2), (1, 1), 6)


@pytest.mark.parametrize('operator', [CONV, SAMPLE_CONV], ids=['one kernel', 'of each sample'])
def test_gradcheck(operator):
    x, weight, bias, *geometry = make(torch.float64)
    kind, weight = (SampleConv, weight) if operator is SAMPLE_CONV else (Conv, weight[0])
    tensors = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    function = lambda *tensors: operator(kind(*tensors, *geometry))  # noqa: E731
    assert operator.choose(kind(*tensors, *geometry), 'auto', True) is operator.backends['numba']
    assert torch.autograd.gradcheck(function, tensors) and torch.autograd.gradgradcheck(function, tensors)


def test_in_threads(monkeypatch):
    call = make()
    tensors = [tensor.requires_grad_() for tensor in call[:3]]

    def results() -> list[Tensor]:
        y = SAMPLE_CONV(call)
        return [y, *torch.autograd.grad(y.square().sum(), tensors)]

    expected = results()
    torch.testing.assert_close(expected[0], reference(call))
    monkeypatch.setattr(threads, 'WORTH_A_THREAD', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 5)
    assert all(map(torch.equal, results(), expected))


def test_nan_stays_where_it_belongs():
    call = make()
    call.input[1, 4, 3, 7] = torch.nan
    call.input.requires_grad_(), call.weight.requires_grad_()
    y = SAMPLE_CONV(call)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, 4, 2:5, 3:] = True
    assert torch.equal(y.isnan(), expected)
    of_x, of_weight = torch.autograd.grad(y, (call.input, call.weight), torch.ones_like(y))
    assert not of_x.isnan().any() and of_weight.isnan().flatten(2).any(2).nonzero().tolist() == [[1, 4]]


def test_inputs_that_no_output_meets():
    x = torch.randn(1, 2, 9, 9, requires_grad=True)
    y = SAMPLE_CONV(SampleConv(x, torch.randn(1, 2, 1, 1, 1), None, (4, 4), (0, 0), (1, 1), 2))
    y.sum().backward()
    assert x.grad.count_nonzero() == y.numel() == 18


@pytest.mark.parametrize('change', [
    dict(input=torch.randn(2, 6, 9, 8).bfloat16(), weight=torch.randn(2, 6, 1, 3, 5).bfloat16(), bias=None),
    dict(input=torch.randn(2, 6, 9, 8).contiguous(memory_format=torch.channels_last)),
    dict(input=torch.randn(0, 6, 9, 8)), dict(input=torch.randn(2, 6, 9, 16)[..., ::2]),
    dict(input=torch.randn(2, 6, 9, 0)), dict(groups=3), dict(groups=1),
    dict(input=torch.randn(8, 512, 7, 7), weight=torch.randn(8, 512, 1, 3, 5), bias=None, groups=512),
    dict(input=torch.randn(8, 512, 15, 15), weight=torch.randn(8, 512, 1, 3, 5), stride=(2, 2), groups=512)])
def test_what_is_refused(change):
    assert refuses(make()) is None
    assert refuses(make()._replace(**change)) is not None


@torch.no_grad()
def test_other_types_are_left_to_torch():
    assert convolve(make()) is not None
    for weight in (torch.randn(2, 6, 1, 3, 5).double(), torch.randn(2, 6, 1, 3, 5, device='meta')):
        assert convolve(make()._replace(weight=weight)) is None


def test_other_orders_in_memory():
    """Of gradients and kernels."""
    call = make()
    tensors = [tensor.requires_grad_() for tensor in call[:3]]
    y = SAMPLE_CONV(call)
    upstream = torch.randn_like(y)
    expected = torch.autograd.grad(y, tensors, upstream)
    swapped = call.weight.detach().transpose(3, 4).contiguous().transpose(3, 4).requires_grad_()
    y = SAMPLE_CONV(call._replace(weight=swapped))
    actual = torch.autograd.grad(y, [tensors[0], swapped, tensors[2]],
                                 upstream.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected)


def test_the_switch():
    with enable_numba(False):
        assert refuses(make()) is not None


def test_autocast():
    """What torch gives has another type there."""
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert StaticConv2d(6, 6, 3, 1, 1, groups=6)(make().input).dtype is torch.bfloat16


@pytest.fixture
def serves(monkeypatch) -> list[bool]:
    """Whether it served, call by call."""
    calls = []

    def watched(call: Conv | SampleConv) -> Tensor | None:
        y = convolve(call)
        calls.append(y is not None)
        return y

    for module in (depthwise, mixture_conv):
        monkeypatch.setattr(module, 'convolve', watched)
    return calls


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('make_layer', [
    lambda: ODConv2d(8, 8, 3, padding=1, groups=8), lambda: ODConv2d(8, 8, 3, padding=1, groups=8, kernel_num=3),
    lambda: DyConv2d(8, 8, 5, padding=2, groups=8, kernel_num=3), lambda: StaticConv2d(8, 8, 3, 1, 1, groups=8),
], ids=['ODConv 1x', 'ODConv', 'DyConv', 'StaticConv2d'])
def test_layers(make_layer, batch, serves):
    layer, x = make_layer().eval(), torch.randn(batch, 8, 34, 33)
    with enable_numba(False), use_plan('grouped'):
        expected = layer(x)
    assert not any(serves)
    with torch.no_grad(), use_plan('numba'):
        torch.testing.assert_close(layer(x), expected)
    assert serves[-1]


@pytest.mark.parametrize(('size', 'learns', 'served'), [(32, False, False), (33, False, True), (32, True, True)])
def test_small_maps_go_to_torch_but_for_gradients(size, learns, served, serves):
    with torch.set_grad_enabled(learns):
        StaticConv2d(8, 8, 3, 1, 1, groups=8)(torch.randn(1, 8, size, 32))
    assert bool(serves) == served


def test_not_where_channels_have_several_kernels(serves):
    layer, x = ODConv2d(4, 8, 3, padding=1, groups=4).eval(), torch.randn(1, 4, 14, 13)
    with enable_numba(False):
        expected = layer(x)
    with torch.no_grad(), use_plan('numba'):
        torch.testing.assert_close(layer(x), expected)
    assert not serves


@pytest.mark.parametrize('kernel_num', [1, 3])
def test_in_training(kernel_num, serves):
    layer, x = ODConv2d(8, 8, 3, 2, 1, groups=8, kernel_num=kernel_num).double(), torch.randn(3, 8, 14, 13).double()
    results = []
    for numba, plan in ((False, 'grouped'), (True, 'fold')):
        with enable_numba(numba), use_plan(plan):
            y = layer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), layer.parameters())])
        assert serves == [True] * numba
    torch.testing.assert_close(*results)


@torch.no_grad()
def test_a_single_map_without_a_batch_is_torchs():
    layer, x = StaticConv2d(6, 6, 3, 1, 1, groups=6), torch.randn(6, 6, 8)
    torch.testing.assert_close(layer(x), layer(x[None])[0])

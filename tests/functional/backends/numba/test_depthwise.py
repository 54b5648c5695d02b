"""depthwise_conv2d is torch's depthwise convolution where it serves, and leaves the rest to it."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional import enable_numba, use_plan
from dynconv_mm.functional.backends.numba import depthwise, mixture_conv, threads
from dynconv_mm.functional.backends.numba.depthwise import depthwise_conv2d
from dynconv_mm.layers import DyConv2d, ODConv2d
from dynconv_mm.layers.static_conv import StaticConv2d


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int],
              dilation: tuple[int, int]) -> Tensor:
    """Sample by sample, by torch."""
    kernels = weight.view(-1, x.shape[1], *weight.shape[1:]).expand(len(x), -1, -1, -1, -1)
    return torch.cat([F.conv2d(sample[None], kernel, bias, 1, padding, dilation, x.shape[1])
                      for sample, kernel in zip(x, kernels)])


@settings(max_examples=100, deadline=None)
@given(st.data())
@torch.no_grad()
def test_equal_to_torch(data):
    batch, channels = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 5))
    size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    kernel_size = data.draw(st.tuples(*[st.sampled_from([1, 3, 5, 7])] * 2))
    dilation = data.draw(st.tuples(*[st.integers(1, 3)] * 2))
    padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel_size))
    kernels = channels * (batch if data.draw(st.booleans()) else 1)
    x = torch.randn(batch, channels, *size, dtype=torch.float64)
    weight = torch.randn(kernels, 1, *kernel_size, dtype=torch.float64)
    bias = torch.randn(channels, dtype=torch.float64) if data.draw(st.booleans()) else None
    actual = depthwise_conv2d(x, weight, bias, (1, 1), padding, dilation)
    torch.testing.assert_close(actual, reference(x, weight, bias, padding, dilation), rtol=0, atol=1e-12)


def make(dtype: torch.dtype = torch.float32) -> tuple:
    return (torch.randn(2, 6, 9, 8, dtype=dtype), torch.randn(12, 1, 3, 5, dtype=dtype), torch.randn(6, dtype=dtype),
            (1, 1), (1, 2), (1, 1))


@torch.no_grad()
def test_in_threads(monkeypatch):
    arguments = make()
    expected = depthwise_conv2d(*arguments)
    torch.testing.assert_close(expected, reference(*arguments[:3], *arguments[4:]))
    monkeypatch.setattr(threads, 'WORTH_A_THREAD', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 5)
    assert torch.equal(depthwise_conv2d(*arguments), expected)


@torch.no_grad()
def test_nan_stays_where_it_belongs():
    x, weight, bias, *geometry = make()
    x[1, 4, 3, 7] = torch.nan
    y = depthwise_conv2d(x, weight, bias, *geometry)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, 4, 2:5, 5:] = True
    assert torch.equal(y.isnan(), expected)


@pytest.mark.parametrize('change', [
    dict(stride=(1, 2)), dict(padding=(1, 1)), dict(padding=(0, 0)), dict(dilation=(2, 1)),
    dict(x=torch.randn(2, 6, 9, 8).bfloat16(), weight=torch.randn(6, 1, 3, 5).bfloat16(), bias=None),
    dict(x=torch.randn(2, 6, 9, 8).contiguous(memory_format=torch.channels_last)),
    dict(x=torch.randn(0, 6, 9, 8)), dict(x=torch.randn(2, 6, 9, 16)[..., ::2]),
    dict(x=torch.randn(8, 512, 7, 7), weight=torch.randn(512, 1, 3, 5), bias=None),
    dict(weight=torch.randn(12, 1, 3, 5).double()), dict(weight=torch.randn(6, 1, 3, 5, device='meta'))])
@torch.no_grad()
def test_what_is_left_to_torch(change):
    names = ('x', 'weight', 'bias', 'stride', 'padding', 'dilation')
    assert depthwise_conv2d(**dict(zip(names, make()))) is not None
    assert depthwise_conv2d(**{**dict(zip(names, make())), **change}) is None


def test_the_switch():
    with torch.no_grad(), enable_numba(False):
        assert depthwise_conv2d(*make()) is None


def test_autocast():
    """What torch gives has another type there."""
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert StaticConv2d(6, 6, 3, 1, 1, groups=6)(make()[0]).dtype is torch.bfloat16


@pytest.fixture
def serves(monkeypatch) -> list[bool]:
    """Whether it served, call by call."""
    calls = []

    def watched(*arguments) -> Tensor | None:
        y = depthwise_conv2d(*arguments)
        calls.append(y is not None)
        return y

    for module in (depthwise, mixture_conv):
        monkeypatch.setattr(module, 'depthwise_conv2d', watched)
    return calls


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('make_layer', [
    lambda: ODConv2d(8, 8, 3, padding=1, groups=8), lambda: ODConv2d(8, 8, 3, padding=1, groups=8, kernel_num=3),
    lambda: DyConv2d(8, 8, 5, padding=2, groups=8, kernel_num=3), lambda: StaticConv2d(8, 8, 3, 1, 1, groups=8),
], ids=['ODConv 1x', 'ODConv', 'DyConv', 'StaticConv2d'])
def test_layers(make_layer, batch, serves):
    layer, x = make_layer().eval(), torch.randn(batch, 8, 14, 13)
    with enable_numba(False), use_plan('grouped'):
        expected = layer(x)
    assert not any(serves)
    with torch.no_grad(), use_plan('numba'):
        torch.testing.assert_close(layer(x), expected)
    assert serves[-1]


def test_not_where_channels_have_several_kernels(serves):
    layer, x = ODConv2d(4, 8, 3, padding=1, groups=4).eval(), torch.randn(1, 4, 14, 13)
    with enable_numba(False):
        expected = layer(x)
    with torch.no_grad(), use_plan('numba'):
        torch.testing.assert_close(layer(x), expected)
    assert not serves


def test_a_training_goes_without(serves):
    """Numba's memory is not worth it there."""
    layer, x = ODConv2d(8, 8, 3, padding=1, groups=8, kernel_num=2), torch.randn(3, 8, 14, 13)
    with use_plan('per_sample'):
        layer(x).sum().backward()
    assert not any(serves)


@torch.no_grad()
def test_a_single_map_without_a_batch_is_torchs():
    layer, x = StaticConv2d(6, 6, 3, 1, 1, groups=6), torch.randn(6, 6, 8)
    torch.testing.assert_close(layer(x), layer(x[None])[0])

"""What compilers record is the equation, for one image and for several."""
from __future__ import annotations

import itertools
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixture_cases import Case, assert_agree, cases, reference
from one_graph import needs_one_graph
from torch import nn

from dynconv_mm.functional import enable_numba, mixture_conv2d, operator, sample_conv2d
from dynconv_mm.layers import ODConv2d

ALL = dict.fromkeys(('kernel', 'spatial', 'channel', 'filter'), 'shared')
SMALL = dict(stride=(1, 2), padding=(1, 0), dilation=(1, 1))


@settings(deadline=None, max_examples=60)
@given(case=cases(batch=st.sampled_from([1, 1, 2])))
@example(Case(1, 1, 1, 5, 40, (3, 3), (4, 7), SMALL, ALL, True, {}))  # one kernel, columns smaller
@example(Case(1, 1, 1, 5, 40, (3, 3), (4, 7), SMALL, {**ALL, 'filter': 'absent'}, False, {}))
@example(Case(1, 3, 1, 5, 40, (3, 3), (4, 7), SMALL, ALL, True, {}))
@example(Case(1, 3, 1, 5, 4, (1, 1), (4, 7), SMALL, {**ALL, 'spatial': 'absent'}, True, {}))
@example(Case(1, 3, 6, 1, 1, (3, 5), (8, 9), SMALL, {**ALL, 'filter': 'absent'}, True, {}))
@example(Case(1, 2, 1, 3, 4, (3, 3), (8, 9), SMALL, {**ALL, 'channel': 'own'}, True, {}))
def test_mixture_conv(case):
    tensors = case.make_tensors()
    expected = case.call(reference, tensors)
    with mock.patch.object(operator, 'is_recorded', lambda: True):
        actual = case.call(mixture_conv2d, tensors)
    assert_agree(actual, expected, 1e-9, 'output')
    weights = torch.randn(expected.shape, dtype=expected.dtype)
    for name, ours, theirs in zip(tensors, *(torch.autograd.grad((y * weights).sum(), list(tensors.values()))
                                             for y in (actual, expected))):
        assert_agree(ours, theirs, 1e-9, f'gradient of {name}')


@needs_one_graph
@pytest.mark.parametrize('batch', [1, 3])
def test_sample_conv(batch):
    torch.manual_seed(batch)
    x, kernels, bias = (torch.randn(shape, dtype=torch.float64)
                        for shape in ((batch, 6, 10, 13), (batch, 4, 3, 3, 2), (4, )))
    geometry = dict(stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    compiled = torch.compile(sample_conv2d, fullgraph=True, backend='eager')
    expected = torch.cat([nn.functional.conv2d(image[None], kernel, bias, **geometry)
                          for image, kernel in zip(x, kernels)])
    torch.testing.assert_close(compiled(x, kernels, bias, **geometry), expected, rtol=1e-9, atol=1e-9)


@needs_one_graph
def test_sizes_are_compiled_once():
    """But for batches of one image, which torch compiles apart; so it would square images of the first call."""
    torch.compiler.reset()
    network = nn.Sequential(ODConv2d(3, 8, 3, padding=1, kernel_num=1), ODConv2d(8, 8, 3, padding=1, groups=8),
                            ODConv2d(8, 40, 3, stride=2), ODConv2d(40, 4, 1)).eval()
    from torch._dynamo.testing import CompileCounter
    counter = CompileCounter()
    compiled = torch.compile(network, fullgraph=True, backend=counter, dynamic=True)
    with torch.no_grad(), enable_numba(False):
        for batch, size in itertools.product((2, 7, 1), ((16, 20), (33, 21), (8, 40))):
            x = torch.randn(batch, 3, *size)
            torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 2


@pytest.mark.slow
@needs_one_graph
def test_frozen_by_inductor(monkeypatch):
    """The weights as constants, laid out for the machine."""
    from torch._inductor import config
    monkeypatch.setattr(config, 'freezing', True)
    torch.compiler.reset()
    network = nn.Sequential(ODConv2d(8, 20, 3, padding=1, kernel_num=1), nn.BatchNorm2d(20), nn.ReLU(),
                            ODConv2d(20, 12, 1)).eval()
    x = torch.randn(1, 8, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network, fullgraph=True)(x), network(x), rtol=1e-4, atol=1e-5)

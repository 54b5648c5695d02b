"""Strides, paddings and dilations that no convolution has are refused before anything is computed."""
from __future__ import annotations

import pytest
import torch

from dynconv_mm.functional import involution2d, mixture_conv2d, sample_conv2d, use_plan
from dynconv_mm.functional.mixture_conv import PLANS

CALLS = {
    'mixture_conv2d': lambda **window: mixture_conv2d(torch.randn(2, 4, 9, 9), torch.randn(2, 4, 1, 3, 3), groups=4,
                                                      kernel_attention=torch.rand(2, 2), **window),
    'sample_conv2d': lambda **window: sample_conv2d(torch.randn(2, 4, 9, 9), torch.randn(2, 6, 4, 3, 3), **window),
    'involution2d': lambda **window: involution2d(torch.randn(2, 4, 9, 9), torch.randn(2, 2, 3, 3, 5, 5), **window),
}


@pytest.mark.parametrize(('name', 'value'), [
    ('padding', -1), ('padding', (0, -1)), ('padding', 'same'), ('padding', (1, )), ('stride', 0),
    ('stride', (1, 1, 1)), ('dilation', 0), ('dilation', [1, -1]),
])
@pytest.mark.parametrize('call', CALLS)
def test_bad_windows(call, name, value):
    with pytest.raises(ValueError, match=f'{name} must be an int or two ints of at least [01]'):
        CALLS[call](**{name: value})


@pytest.mark.parametrize('plan', ['auto', *PLANS])
def test_a_kernel_that_is_larger_than_the_map(plan):
    x, weight, attention = torch.randn(2, 4, 3, 3), torch.randn(2, 6, 4, 5, 5), torch.rand(2, 2)
    with pytest.raises((RuntimeError, ValueError), match='[Kk]ernel|serve'):
        mixture_conv2d(x, weight, kernel_attention=attention, plan=plan)


@pytest.mark.parametrize('kernel_size', [(1, 1), (3, 3)])
@pytest.mark.parametrize('batch', [1, 2])
def test_maps_without_a_pixel(batch, kernel_size):
    with pytest.raises(RuntimeError) as expected:
        torch.nn.functional.conv2d(torch.randn(batch, 4, 0, 5), torch.randn(6, 4, *kernel_size))
    for plan in ('auto', 'grouped', 'numba'):
        with pytest.raises(RuntimeError) as actual, use_plan(plan):
            mixture_conv2d(torch.randn(batch, 4, 0, 5), torch.randn(2, 6, 4, *kernel_size),
                           kernel_attention=torch.rand(batch, 2))
        assert str(actual.value) == str(expected.value)

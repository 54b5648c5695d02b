"""Fourier transforms of kernels and features, and the same as products."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dynconv_mm.functional import frequency
from dynconv_mm.functional.frequency import (
    BANDS,
    FREQUENCY_KERNELS,
    FrequencyBands,
    FrequencyKernels,
    coefficient_groups,
    frequency_bands,
    frequency_kernels,
)

SIZES = [(6, 7, 4), (17, 34, 5), (96, 98, 16), (51, 54, 7), (1, 3, 1), (64, 128, 64)]
MAPS = [(9, 7), (12, 10), (40, 36), (3, 1), (2, 3), (65, 64), (7, 130)]


def make_kernels(rows: int, columns: int, n: int, batch: int = 3) -> FrequencyKernels:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns // 2 + 1, 2, generator=generator).double().requires_grad_()
    attention = torch.rand(batch, n, generator=generator).double().requires_grad_()
    return FrequencyKernels(attention, weight, coefficient_groups(rows, columns, n), columns)


def make_bands(height: int, width: int) -> FrequencyBands:
    generator = torch.Generator().manual_seed(0)
    return FrequencyBands(torch.randn(2, 3, height, width, generator=generator).double().requires_grad_(),
                          torch.rand(2, len(BANDS), height, width, generator=generator).double().requires_grad_())


@pytest.mark.parametrize(('rows', 'columns', 'n'), SIZES)
def test_groups(rows, columns, n):
    groups = coefficient_groups(rows, columns, n)
    assert groups.shape == (rows, columns // 2 + 1) and groups.dtype == torch.uint8
    counts = groups.flatten().long().bincount(minlength=n)
    assert len(counts) == n and counts.max() - counts.min() <= 1
    row, column = torch.arange(rows).double()[:, None], torch.arange(columns // 2 + 1).double()
    distance = (torch.minimum(row, rows - row) / rows)**2 + (column / columns)**2
    for i in range(1, n):
        assert distance[groups == i - 1].max() <= distance[groups == i].min() + 1e-12


@pytest.mark.parametrize(('rows', 'columns', 'n'), SIZES)
@pytest.mark.parametrize('name', ['mixture', 'kernels_by_products'])
def test_ways_to_make_kernels(name, rows, columns, n, assert_equal_in_value_and_gradient):
    call = make_kernels(rows, columns, n)
    gains = call.attention[:, call.groups.long()]

    def literal():
        return torch.fft.irfft2(gains * torch.view_as_complex(call.weight), s=(rows, columns))

    assert_equal_in_value_and_gradient(lambda: getattr(frequency, name)(call), literal,
                                       dict(attention=call.attention, weight=call.weight))
    torch.testing.assert_close(frequency_kernels(*call, scale=3.), 3 * literal())


@pytest.mark.parametrize(('batch', 'name'), [(1, 'fft'), (4, 'fft'), (5, 'mixture')])
def test_a_mixture_is_for_more_samples_than_groups(batch, name):
    call = make_kernels(6, 7, 4, batch)
    assert FREQUENCY_KERNELS.choose(call, 'auto', False) is FREQUENCY_KERNELS.backends[name]


@pytest.mark.parametrize('half', [False, True])
def test_masks_are_resized_as_torch_does(half):
    grid = torch.arange(33) if half else torch.minimum(torch.arange(64), 64 - torch.arange(64))
    for last in BANDS:
        mask = (grid <= last).float()[None, None]
        for length in range(1, 400):
            expected = F.interpolate(mask, size=length, mode='nearest')[0, 0]
            assert torch.equal(frequency._kept(length, half, last, mask), expected), (length, last)


@pytest.mark.parametrize(('height', 'width'), MAPS)
def test_bands_by_products(height, width, assert_equal_in_value_and_gradient):
    call = make_bands(height, width)
    assert_equal_in_value_and_gradient(lambda: frequency.bands_by_products(call), lambda: frequency_bands(*call),
                                       dict(x=call.input, gates=call.gates))


def test_bands_that_all_count_are_the_features():
    x = torch.randn(2, 3, 9, 7)
    assert torch.equal(frequency_bands(x, torch.ones(2, len(BANDS), 9, 7)), x)

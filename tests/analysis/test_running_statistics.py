"""Statistics over batches are those of all samples together."""
import math

import numpy as np
import pytest
import torch

from dynconv_mm.analysis.running_statistics import RunningStatistics


@pytest.mark.parametrize('sizes', [(7, ), (1, 1, 1, 1), (3, 0, 5, 1), (16, 9)], ids=str)
@pytest.mark.parametrize('offset', [0., 1e6])  # sums of squares would lose all digits of the variance
def test_two_passes(sizes, offset):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(size, 2, 3, generator=generator, dtype=torch.float64) + offset for size in sizes]
    statistics = RunningStatistics()
    for batch in batches:
        statistics.update(batch)
    values = torch.cat(batches).numpy()
    mean = values.sum(0) / len(values)
    assert statistics.count == len(values)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-15)
    np.testing.assert_allclose(statistics.variance, ((values - mean)**2).sum(0) / len(values), rtol=1e-9, atol=1e-18)
    np.testing.assert_array_equal(statistics.minimum, values.min(0))
    np.testing.assert_array_equal(statistics.maximum, values.max(0))
    summary = statistics.summary()
    assert summary['mean'] == pytest.approx(values.mean(), rel=1e-14)
    assert summary['std'] == pytest.approx(values.std(), rel=1e-9)
    assert (summary['min'], summary['max']) == (values.min(), values.max())


def test_histogram():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(20, 5, generator=generator)
    values[0, :2] = torch.tensor([0., 1.])  # both limits count
    statistics = RunningStatistics(bins=8)
    for batch in values.split(3):
        statistics.update(batch)
    np.testing.assert_array_equal(statistics.histogram, np.histogram(values.numpy(), 8, (0, 1))[0])
    assert statistics.histogram.sum() == 100


def test_single_values():
    statistics = RunningStatistics()
    statistics.update(torch.tensor([1., 2.]))
    statistics.update(torch.tensor([6.]))
    assert statistics.summary() == dict(mean=3., std=math.sqrt(14 / 3), min=1., max=6.)


def test_memory_does_not_grow():
    statistics = RunningStatistics(bins=4)
    for _ in range(3):
        statistics.update(torch.rand(50, 6))
        held = sum(value.numel() for value in vars(statistics).values() if isinstance(value, torch.Tensor))
        assert held == 4 * 6 + 4


def test_halves_are_counted_in_double_precision():
    statistics = RunningStatistics()
    for _ in range(3000):
        statistics.update(torch.full((1, 1), 0.1, dtype=torch.bfloat16))
    assert statistics.mean.item() == pytest.approx(torch.tensor(0.1, dtype=torch.bfloat16).item(), rel=1e-14)


@pytest.mark.parametrize('values', [torch.tensor([[1.1]]), torch.tensor([[-0.1]]), torch.tensor([[math.nan]])], ids=str)
def test_beyond_the_limits(values):
    with pytest.raises(ValueError, match='must lie from 0.0 to 1.0'):
        RunningStatistics(bins=3).update(values)


def test_bad_arguments():
    for bins in (-1, 2.5, True):
        with pytest.raises(ValueError, match='bins'):
            RunningStatistics(bins)
    with pytest.raises(ValueError, match='low must be below high'):
        RunningStatistics(2, 1., 1.)
    statistics = RunningStatistics()
    statistics.update(torch.rand(2, 3))
    with pytest.raises(ValueError, match='shape'):
        statistics.update(torch.rand(2, 4))

"""The compiled involution serves what it says, and nothing reaches a result that does not belong to it.

That it is the equation, tests/functional/test_involution.py shows.
"""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynconv_mm.functional import enable_numba, involution2d
from dynconv_mm.functional.backends.numba import involution, threads
from dynconv_mm.layers import Involution2d

GEOMETRY = dict(stride=(1, 2), padding=(1, 2), dilation=(1, 1))


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor]:
    """Features, kernels and gradients, of two blocks of rows."""
    x = torch.randn(3, 10, 15, 59, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 5, 15, 30, dtype=torch.float64, requires_grad=True)
    return x, weight, torch.randn(3, 10, 15, 30, dtype=torch.float64)


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """The names of the functions that run."""
    names, run = [], involution._run

    def watched(name: str, *arguments) -> Tensor:
        names.append(name)
        return run(name, *arguments)

    monkeypatch.setattr(involution, '_run', watched)
    return names


def results(x: Tensor, weight: Tensor, grad: Tensor) -> list[Tensor]:
    """Output and gradients."""
    y = involution2d(x, weight, **GEOMETRY)
    return [y, *torch.autograd.grad(y, (x, weight), grad)]


def test_runs_forward_and_backward(tensors, runs):
    results(*tensors)
    assert sorted(runs) == ['involve', 'involve_gradients', 'kernel_gradients']
    runs.clear()
    with enable_numba(False):
        results(*tensors)
    assert not runs


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_types(tensors, runs, dtype):
    expected = results(*tensors)
    runs.clear()
    x, weight, grad = (tensor.detach().to(dtype).requires_grad_() for tensor in tensors)
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2
    for actual, wanted in zip(results(x, weight, grad.detach()), expected):
        assert (actual - wanted).abs().max() < tolerance * wanted.abs().max()
    assert len(runs) == 3


def test_other_orders_in_memory(tensors, runs):
    x, weight, grad = tensors
    expected = results(x, weight, grad)
    assert len(runs) == 3
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    first = weight.detach().permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2).requires_grad_()
    for actual in (results(last, weight, grad), results(x, first, grad),
                   results(x, weight, grad.transpose(2, 3).contiguous().transpose(2, 3))):
        torch.testing.assert_close(actual, expected)
    assert len(runs) == 12


@pytest.mark.parametrize('number', [2, 3, 8])
def test_in_threads(tensors, monkeypatch, number):
    expected = results(*tensors)
    monkeypatch.setattr(threads, 'WORTH_A_THREAD', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: number)
    torch.testing.assert_close(results(*tensors), expected, rtol=0, atol=0)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    def kernel(first: int, last: int) -> None:
        if first:
            raise MemoryError('none left')

    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    with pytest.raises(MemoryError, match='none left'):
        threads.in_threads(kernel, (), 2, 10 * threads.WORTH_A_THREAD)


def test_nan_stays_where_it_belongs(tensors):
    """It reaches those outputs and gradients that meet it, and no others."""
    x, weight, grad = (tensor.detach().clone() for tensor in tensors)
    x[1, 7, 6, 58] = weight[0, 1, 2, 4, 14, 29] = grad[2, 3, 0, 29] = torch.nan
    results_ = []
    for numba in (True, False):
        with enable_numba(numba):
            results_.append(results(x.clone().requires_grad_(), weight.clone().requires_grad_(), grad))
    for actual, expected in zip(*results_):
        assert actual.isnan().any() and torch.equal(actual.isnan(), expected.isnan())


def test_inputs_that_no_output_meets():
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(1, 1, 1, 1, 3, 3, dtype=torch.float64)
    involution2d(x, weight, stride=3).sum().backward()
    assert torch.equal(x.grad[0, 0].nonzero(), torch.cartesian_prod(*[torch.arange(0, 8, 3)] * 2))


def test_in_the_layer(runs):
    layer, x = Involution2d(32, 32, 3).eval(), torch.randn(2, 32, 6, 5)
    y = layer(x)
    assert runs == ['involve']
    with enable_numba(False):
        torch.testing.assert_close(layer(x), y)

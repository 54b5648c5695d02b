"""The kernels that are put together of cells by a compiled function are those of plain torch, and so are gradients."""
from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynconv_mm.functional import cell_conv, cell_conv2d, enable_numba
from dynconv_mm.functional.backends.numba import threads
from dynconv_mm.functional.backends.numba.cell_conv import assemble


def mixed(attention: Tensor, cells: Tensor, group_channels: int, kernel_size: tuple[int, int]) -> Tensor:
    """The kernels by KernelWarehouse's Eq. 1, one part after the other."""
    n, cell_out, cell_in = cells.shape[:3]
    across, area = group_channels // cell_in, kernel_size[0] * kernel_size[1]
    down = attention.shape[1] // (area * across)
    kernels = torch.zeros(len(attention), down * cell_out, group_channels, area, dtype=cells.dtype)
    parts = [(element, o, i) for element in range(area) for o in range(down) for i in range(across)]
    for sample, kernel in enumerate(kernels):
        for number, (element, o, i) in enumerate(parts):
            kernel[o * cell_out:(o + 1) * cell_out, i * cell_in:(i + 1) * cell_in, element] = sum(
                attention[sample, number, j] * cells[j, :, :, 0, 0] for j in range(n))
    return kernels.unflatten(-1, kernel_size)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.tuples(st.integers(1, 3), st.integers(1, 3)),
       st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_the_kernels(batch, n, kernel_size, parts, cell):
    cells = torch.randn(n, *cell, 1, 1, dtype=torch.float64)
    attention = torch.randn(batch, n, kernel_size[0] * kernel_size[1] * parts[0] * parts[1],
                            dtype=torch.float64).transpose(1, 2)  # not as the compiled function reads it
    actual = assemble(attention, cells, parts[1] * cell[1], kernel_size)
    torch.testing.assert_close(actual, mixed(attention, cells, parts[1] * cell[1], kernel_size), rtol=0, atol=1e-12)


def test_in_threads_and_blocks(monkeypatch):
    cells, attention = torch.randn(13, 43, 60, 1, 1), torch.randn(2, 4 * 3 * 2, 13)  # 17 rows of 60 elements at a time
    expected = cell_conv.assemble(attention, cells, 180, (2, 1))
    torch.testing.assert_close(assemble(attention, cells, 180, (2, 1)), expected)
    monkeypatch.setattr(threads, 'WORTH_A_THREAD', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 5)
    torch.testing.assert_close(assemble(attention, cells, 180, (2, 1)), expected)


def test_values_and_gradients_with_and_without(monkeypatch):
    monkeypatch.setitem(cell_conv.KERNEL_ELEMENTS, True, 700)  # a sample at a time
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True)
               for shape in ((3, 12, 9, 7), (5, 4, 3, 1, 1), (8, ), (3, 24, 5))]
    results = []
    for enabled in (True, False):
        with enable_numba(enabled):
            x, cells, bias, attention = tensors
            y = cell_conv2d(x, cells, bias, attention=attention, kernel_size=(3, 2), stride=2, padding=1, groups=2)
            results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    assert cell_conv.CELL_CONV.choose(cell_conv.CellConv(x, cells, bias, attention, (3, 2), (2, 2), (1, 1), (1, 1), 2),
                                      'auto', True) is cell_conv.CELL_CONV.backends['numba']

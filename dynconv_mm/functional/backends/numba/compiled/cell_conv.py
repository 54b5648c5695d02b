"""Kernels that are put together of mixtures of cells."""
from __future__ import annotations

import numpy as np

from .common import compiled, pointer

ELEMENTS, SUMS = 2**10, 2**16  # of a cell that are mixed at once, and with all mixtures of them: they stay in the cache


@compiled
def mix_cells(zero, cells, attention, batch, n, area, out_parts, in_parts, cell_out, cell_in, kernels, first, last):
    """Σ_j α_ij E_j in the order of kernels, for the rows of cells from ``first`` to before ``last``. A cell is read
    from memory once for all mixtures.

    Shape:
        cells [n, cell_out, cell_in], attention [batch, area · out_parts · in_parts, n]; the result: kernels
        [batch, out_parts · cell_out, in_parts · cell_in, area].
    """
    all_cells, alpha, result = pointer(cells, zero), pointer(attention, zero), pointer(kernels, zero)
    size, channels = cell_out * cell_in, in_parts * cell_in
    mixtures = batch * area * out_parts * in_parts
    rows = max(1, min(ELEMENTS, SUMS // mixtures) // cell_in)
    sums = np.empty((mixtures, rows * cell_in), type(zero))
    for row in range(first, last, rows):
        start, count = row * cell_in, min(rows, last - row) * cell_in
        sums[:] = zero
        # four at a time, as each sum is read and written for them; those that there are not count nothing
        for j in range(0, n, 4):
            e0 = j * size + start
            e1 = e0 + (size if j + 1 < n else 0)
            e2 = e0 + (2 * size if j + 2 < n else 0)
            e3 = e0 + (3 * size if j + 3 < n else 0)
            for i in range(mixtures):
                at, total = i * n + j, sums[i]
                a0 = alpha[at]
                a1 = alpha[at + 1] if j + 1 < n else zero
                a2 = alpha[at + 2] if j + 2 < n else zero
                a3 = alpha[at + 3] if j + 3 < n else zero
                for c in range(count):
                    total[c] += (a0 * all_cells[e0 + c] + a1 * all_cells[e1 + c]
                                 + a2 * all_cells[e2 + c] + a3 * all_cells[e3 + c])
        for part in range(batch * out_parts * in_parts):
            sample, part_of_sample = part // (out_parts * in_parts), part % (out_parts * in_parts)
            of_out, of_in = part_of_sample // in_parts, part_of_sample % in_parts
            mixture = sample * area * out_parts * in_parts + part_of_sample
            for r in range(count // cell_in):
                filter_ = (sample * out_parts + of_out) * cell_out + row + r
                to = (filter_ * channels + of_in * cell_in) * area
                for element in range(area):
                    total = sums[mixture + element * out_parts * in_parts, r * cell_in:(r + 1) * cell_in]
                    for c in range(cell_in):
                        result[to + c * area + element] = total[c]

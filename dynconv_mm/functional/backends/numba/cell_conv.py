"""The kernels of KernelWarehouse on a CPU, by a compiled function that reads each cell once for all of its mixtures."""
from __future__ import annotations

import functools

from torch import Tensor

from ... import cell_conv
from ...geometry import IntPair
from ...operator import Backend, scratch
from . import ZEROS, addresses, load, refuses
from .threads import in_threads


def assemble(attention: Tensor, cells: Tensor, group_channels: int, kernel_size: IntPair) -> Tensor:
    """As :func:`dynconv_mm.functional.cell_conv.assemble`, in memory that the next call overwrites."""
    cell_out, cell_in = cells.shape[1:3]
    batch, mixtures, n = attention.shape
    area, in_parts = kernel_size[0] * kernel_size[1], group_channels // cell_in
    out_parts = mixtures // (area * in_parts)
    tensors = [attention.contiguous(), cells.contiguous()]
    at = addresses(cells.dtype, *[(tensor, tensor.numel()) for tensor in tensors])
    if at is None:  # parts of different types or devices are torch's to refuse
        return cell_conv.assemble(attention, cells, group_channels, kernel_size)
    kernels = scratch('kernels', (batch, out_parts * cell_out, group_channels, *kernel_size), cells)
    in_threads(load('cell_conv').mix_cells, (*tensors, kernels), cell_out, kernels.numel() * n, ZEROS[cells.dtype],
               at[1], at[0], batch, n, area, out_parts, in_parts, cell_out, cell_in, kernels.data_ptr())
    return kernels


cell_conv.CELL_CONV.backends['numba'] = Backend(
    functools.partial(cell_conv.forward, make_kernels=assemble), lambda call: refuses(call.input, 'cell_conv'),
    functools.partial(cell_conv.backward, make_kernels=assemble))

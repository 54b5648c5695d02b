"""Position-varying convolution on the CPU, as embedding bags and small matrix products.

With the channels of a group side by side in memory, an output position is a weighted sum of kernel_size² short rows
of the padded input, which is what ``embedding_bag`` computes, with the sum kept in registers. One sample is worked on
at a time, so that its buffers stay in the cache.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..involution import INVOLUTION, Involution, accumulation_dtype
from ..operator import Backend
from .products import empty_output

TILE = 4  # outputs along each dimension of one matrix product: more waste more of their products, fewer are more calls


def forward(call: Involution) -> Tensor:
    """The outputs."""
    input, weight, stride, padding, dilation = call
    groups, kernel_height, kernel_width, out_height, out_width = weight.shape[1:]
    output = empty_output(call)
    table, inside = _padded_table(input, padding)
    bags = _bags(_steps(out_height, stride[0], kernel_height, dilation[0]),
                 _steps(out_width, stride[1], kernel_width, dilation[1]), table.shape[1], groups)
    for x, w, y in zip(input, _positions_first(weight), output):
        inside.copy_(_channels_side_by_side(x))
        _write(y, _weighted_sums(bags, table, groups, w.to(table.dtype).reshape(bags.shape)))
    return output


def backward(call: Involution, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of input and weight, each if needed."""
    return grad_input(call, grad) if needed[0] else None, grad_weight(call, grad) if needed[1] else None


def grad_input(call: Involution, grad: Tensor) -> Tensor:
    """A position of the input sums up the gradients of those outputs that it took part in.

    Which elements of the kernel they are repeats with the stride, so each remainder of the position by the stride
    (phase) has its bags.
    """
    input, weight, stride, padding, dilation = call
    groups, kernel_height, kernel_width, out_height, out_width = weight.shape[1:]
    rows = _phases(input.shape[2], kernel_height, stride[0], padding[0], dilation[0])
    columns = _phases(input.shape[3], kernel_width, stride[1], padding[1], dilation[1])
    margins = [max(phase.margin(size) for phase in phases) for phases, size in ((rows, out_height),
                                                                               (columns, out_width))]
    table, inside = _padded_table(grad, margins)
    kernels = table.new_zeros(out_height, out_width + 2 * margins[1], *weight.shape[1:4])
    parts = [(row, column, _bags(row.steps(margins[0]), column.steps(margins[1]), table.shape[1], groups),
              table.new_zeros(row.length, column.length, groups, len(row.taps), len(column.taps)))
             for row in rows for column in columns if row.taps and column.taps]
    result = torch.zeros_like(input)
    whole = len(parts) == 1 == stride[0] * stride[1]
    for gradient, w, out in zip(grad, _positions_first(weight), result):
        inside.copy_(_channels_side_by_side(gradient))
        kernels[:, margins[1]:margins[1] + out_width] = w
        for row, column, bags, turned in parts:
            for i, positions, outputs in row.overlaps(out_height):
                turned[positions, :, :, i] = column.turned(kernels[outputs, ..., row.taps[i], :], margins[1])
            sums = _weighted_sums(bags, table, groups, turned.view(bags.shape))
            if whole:
                _write(out, sums)
            else:
                part = out[:, row.first::stride[0], column.first::stride[1]]
                part.copy_(sums.view(row.length, column.length, -1).permute(2, 0, 1))
    return result


def grad_weight(call: Involution, grad: Tensor) -> Tensor:
    """The inner product, over a group's channels, of an output's gradient and each input that it was made of.

    The outputs of a tile times all inputs that they meet is a matrix product; each output takes its own window of
    it.
    """
    input, weight, stride, padding, dilation = call
    groups, kernel_height, kernel_width, out_height, out_width = weight.shape[1:]
    result = torch.empty_like(weight)
    tile_rows, tile_columns = (-(-size // TILE) for size in (out_height, out_width))
    extent = [(TILE - 1) * s + (k - 1) * d + 1 for s, k, d in zip(stride, (kernel_height, kernel_width), dilation)]
    least = [(tiles - 1) * TILE * s + size for tiles, s, size in zip((tile_rows, tile_columns), stride, extent)]
    table, inside = _padded_table(input, padding, least)
    inputs = table[:least[0], :least[1]].unfold(0, extent[0], TILE * stride[0]).unfold(
        1, extent[1], TILE * stride[1]).unflatten(2, (groups, -1)).permute(0, 1, 2, 4, 5, 3)
    gradients, gradients_inside = _padded_table(grad, (0, 0), (tile_rows * TILE, tile_columns * TILE))
    outputs = gradients.view(tile_rows, TILE, tile_columns, TILE, groups, -1).permute(0, 2, 4, 1, 3, 5)
    products = table.new_empty(tile_columns * groups, TILE**2, extent[0] * extent[1])
    windows = products.as_strided((TILE, tile_columns, TILE, groups, kernel_height, kernel_width),
                                  (products.stride(1) * TILE + stride[0] * extent[1], products.stride(0) * groups,
                                   products.stride(1) + stride[1], products.stride(0), dilation[0] * extent[1],
                                   dilation[1]))
    for x, gradient, out in zip(input, grad, _positions_first(result)):
        inside.copy_(_channels_side_by_side(x))
        gradients_inside.copy_(_channels_side_by_side(gradient))
        for row in range(tile_rows):
            torch.bmm(outputs[row].reshape(*products.shape[:2], -1),
                      inputs[row].reshape(len(products), products.shape[2], -1).transpose(1, 2), out=products)
            strip = out[row * TILE:(row + 1) * TILE]
            if out_width % TILE == 0:
                strip.unflatten(1, (-1, TILE)).copy_(windows[:len(strip)])
            else:
                strip.copy_(windows[:len(strip)].flatten(1, 2)[:, :out_width])
    return result


def _positions_first(weight: Tensor) -> Tensor:
    """[batch, out_height, out_width, groups, kernel_height, kernel_width]"""
    return weight.permute(0, 4, 5, 1, 2, 3)


def _padded_table(features: Tensor, padding: Sequence[int], least: Sequence[int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """A buffer for one padded sample, [height, width, channels] of at least that size, and its part inside."""
    channels, *sizes = features.shape[1:]
    height, width = (max(size + 2 * p, wanted) for size, p, wanted in zip(sizes, padding, least))
    table = features.new_zeros(height, width, channels, dtype=accumulation_dtype(features.dtype))
    return table, table[padding[0]:padding[0] + sizes[0], padding[1]:padding[1] + sizes[1]]


def _channels_side_by_side(sample: Tensor) -> Tensor:
    """[channels, height, width] as [height, width, channels] in memory; a copy of a matrix is the quickest way."""
    return sample.permute(1, 2, 0).flatten(0, 1).contiguous().unflatten(0, sample.shape[1:])


def _write(sample: Tensor, rows: Tensor) -> None:
    """Rows [height * width * groups, channels / groups] into a sample [channels, height, width]."""
    if sample.is_contiguous():  # again as a matrix
        sample.flatten(1).copy_(rows.view(-1, len(sample)).t())
    else:
        sample.permute(1, 2, 0).copy_(rows.view(*sample.shape[1:], -1))


def _steps(length: int, stride: int, kernel_size: int, dilation: int) -> Tensor:
    """[length, kernel_size]: where, along one dimension, the kernel's elements lie for each output."""
    return torch.arange(length, dtype=torch.int32)[:, None] * stride + torch.arange(kernel_size,
                                                                                    dtype=torch.int32) * dilation


def _bags(rows: Tensor, columns: Tensor, width: int, groups: int) -> Tensor:
    """The rows of a table that each position and group sums up, from those along each dimension.

    Args:
        rows (Tensor[height, kernel_height]), columns (Tensor[width, kernel_width]): positions in the table.
        width (int): width of the table.

    Returns:
        Tensor[height * width * groups, kernel_height * kernel_width]
    """
    positions = rows[:, None, None, :, None] * width + columns[None, :, None, None, :]
    group = torch.arange(groups, dtype=torch.int32)[:, None, None]
    return (positions * groups + group).flatten(3).flatten(0, 2)


def _weighted_sums(bags: Tensor, table: Tensor, groups: int, weight: Tensor) -> Tensor:
    return F.embedding_bag(bags, table.view(-1, table.shape[2] // groups), mode='sum', per_sample_weights=weight)


class _Phase(NamedTuple):
    """Along one dimension, the input positions first, first + stride, … and what outputs they took part in.

    The m-th of them lies under element ``taps[n]`` of the kernel of output m + ``offset`` + n·``increment``.
    """

    first: int
    length: int
    taps: range
    offset: int
    increment: int

    def offsets(self) -> list[int]:
        return [self.offset + n * self.increment for n in range(len(self.taps))]

    def margin(self, out_size: int) -> int:
        """How far beyond the first or the last output they reach."""
        return max([0, *(-offset for offset in self.offsets()),
                    *(self.length + offset - out_size for offset in self.offsets())])

    def steps(self, margin: int) -> Tensor:
        """[length, number of taps]: the outputs, counted with a margin before them."""
        return torch.arange(self.length, dtype=torch.int32)[:, None] + torch.tensor(
            [offset + margin for offset in self.offsets()], dtype=torch.int32)

    def overlaps(self, out_size: int) -> list[tuple[int, slice, slice]]:
        """For each tap: its number, the positions for which there is such an output, and these outputs."""
        overlaps = []
        for number, offset in enumerate(self.offsets()):
            start, stop = max(0, -offset), min(self.length, out_size - offset)
            if start < stop:
                overlaps.append((number, slice(start, stop), slice(start + offset, stop + offset)))
        return overlaps

    def turned(self, kernels: Tensor, margin: int) -> Tensor:
        """Kernels [rows, margin + outputs + margin, groups, elements] as seen from the positions: [rows, length,
        groups, number of taps]."""
        rows, _, groups, _ = kernels.shape
        per_row, per_output, per_group, per_element = kernels.stride()
        per_tap = self.increment * per_output + self.taps.step * per_element if len(self.taps) > 1 else 0
        return kernels.as_strided(
            (rows, self.length, groups, len(self.taps)), (per_row, per_output, per_group, per_tap),
            kernels.storage_offset() + (self.offset + margin) * per_output + self.taps.start * per_element)


def _phases(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> list[_Phase]:
    common = math.gcd(stride, dilation)
    phases = []
    for first in range(min(stride, size)):
        # from the last to the first, so that their outputs follow each other
        last = max((tap for tap in range(kernel_size) if (first + padding - tap * dilation) % stride == 0), default=-1)
        phases.append(_Phase(first, -(-(size - first) // stride), range(last, -1, -stride // common),
                             (first + padding - last * dilation) // stride, dilation // common))
    return phases


INVOLUTION.backends['embedding_bag'] = Backend(
    forward, lambda call: None if call.input.is_cpu else 'other devices than the CPU', backward)

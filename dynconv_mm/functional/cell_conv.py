"""Convolution of every sample with a kernel put together of mixtures of cells (KernelWarehouse, ICML 2024)."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .geometry import IntPair, check_input, pair, window
from .operator import Backend, Operator
from .sample_conv import KERNEL_ELEMENTS, SAMPLE_CONV, SampleConv, convolve_samples_backward


class CellConv(NamedTuple):
    """The arguments of :func:`cell_conv2d`, checked."""

    input: Tensor
    cells: Tensor
    bias: Tensor | None
    attention: Tensor
    kernel_size: IntPair
    stride: IntPair
    padding: IntPair
    dilation: IntPair
    groups: int


def cell_conv2d(input: Tensor, cells: Tensor, bias: Tensor | None = None, *, attention: Tensor,
                kernel_size: int | IntPair, stride: int | IntPair = 1, padding: int | IntPair = 0,
                dilation: int | IntPair = 1, groups: int = 1) -> Tensor:
    r"""Convolve sample b by the kernel whose m parts are :math:`\sum_j \alpha_{bij} E_j` (KernelWarehouse, Eq. 1).

    The parts are ordered by kernel element, output channels and input channels, the last ones fastest.

    Args:
        input (Tensor[batch, in_channels, height, width]): features; the batch may be empty.
        cells (Tensor[n, cell_out, cell_in, 1, 1]): the cells E_j; their sizes divide the kernel's channels.
        bias (Tensor[out_channels], optional): added to the result, the same for all samples.
        attention (Tensor[batch, m, n]): α; m · cell_out · cell_in is the number of a kernel's elements.
        kernel_size, stride, padding, dilation, groups: as in :class:`torch.nn.Conv2d`.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> x, cells, attention = torch.randn(2, 8, 9, 9), torch.randn(5, 6, 4, 1, 1), torch.randn(2, 36, 5)
        >>> cell_conv2d(x, cells, attention=attention, kernel_size=3).shape  # 36 = 3·3 · 12/6 · 8/4
        torch.Size([2, 12, 7, 7])
    """
    check_input(input)
    if cells.dim() != 5:
        raise ValueError(f'cells must be [n, cell_out, cell_in, 1, 1], but their shape is {tuple(cells.shape)}')
    kernel_size = pair('kernel_size', kernel_size, 1)
    call = CellConv(input, cells, bias, attention, kernel_size, *window(stride, padding, dilation), groups)
    each = kernel_size[0] * kernel_size[1] * (input.shape[1] // groups // cells.shape[2])  # parts of an output channel
    if input.shape[1] % (groups * cells.shape[2]) or attention.dim() != 3 or attention.shape[1] % each \
            or attention.shape[0] != input.shape[0] or attention.shape[2] != cells.shape[0]:
        raise ValueError(f'attention must be [batch={input.shape[0]}, a multiple of {each}, n={cells.shape[0]}], and '
                         f'the channels of a group a multiple of {cells.shape[2]}, but its shape is '
                         f'{tuple(attention.shape)}, and there are {input.shape[1]} channels in {groups} groups')
    return CELL_CONV(call)


def assemble(attention: Tensor, cells: Tensor, group_channels: int, kernel_size: IntPair) -> Tensor:
    """The kernels, Tensor[batch, out_channels, group_channels, kernel_height, kernel_width], of attentions."""
    cell_out, cell_in = cells.shape[1:3]
    mixtures = (attention @ cells.flatten(1)).unflatten(1, (*kernel_size, -1, group_channels // cell_in))
    return mixtures.unflatten(-1, (cell_out, cell_in)).permute(0, 3, 5, 4, 6, 1, 2).flatten(3, 4).flatten(1, 2)


def disassemble(kernels: Tensor, cells: Tensor) -> Tensor:
    """The parts, Tensor[batch, m, cell_out · cell_in], of kernels: the inverse of what orders them."""
    cell_out, cell_in = cells.shape[1:3]
    parts = kernels.unflatten(2, (-1, cell_in)).unflatten(1, (-1, cell_out))
    return parts.permute(0, 5, 6, 1, 3, 2, 4).flatten(5, 6).flatten(1, 4)


def reference(call: CellConv, make_kernels: Callable[..., Tensor] = assemble) -> Tensor:
    """The equation: all kernels, and a convolution by them."""
    x, cells, bias, attention, kernel_size, *geometry, groups = call
    kernels = make_kernels(attention, cells, x.shape[1] // groups, kernel_size)
    return SAMPLE_CONV(SampleConv(x, kernels, bias, *geometry, groups))


def forward(call: CellConv, make_kernels: Callable[..., Tensor] = assemble) -> Tensor:
    """By kernels that are made for a few samples at a time. No gradients are recorded."""
    parts = [reference(part, make_kernels) for part in _parts(call)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def backward(call: CellConv, grad: Tensor, needed: tuple[bool, ...],
             make_kernels: Callable[..., Tensor] = assemble) -> tuple[Tensor | None, ...]:
    """The gradients of the tensors, each if needed; the kernels are made anew."""
    x, cells, _, _, kernel_size, *geometry, groups = call
    parts = _parts(call)
    of_cells, of_input, of_attention = None, [], []
    for part, grad_part in zip(parts, grad.split(len(parts[0].input))):
        kernels = make_kernels(part.attention, cells, x.shape[1] // groups, kernel_size)
        grad_x, grad_kernels = convolve_samples_backward(grad_part, part.input, kernels, needed[0],
                                                         needed[1] or needed[3], *geometry, groups)
        of_input.append(grad_x)
        if grad_kernels is not None:
            mixtures = disassemble(grad_kernels, cells)
            of_attention.append(mixtures @ cells.flatten(1).t() if needed[3] else None)
            if needed[1]:
                of_part = part.attention.flatten(0, 1).t() @ mixtures.flatten(0, 1)
                of_cells = of_part if of_cells is None else of_cells.add_(of_part)
    return (torch.cat(of_input) if needed[0] else None, of_cells.view_as(cells) if needed[1] else None,
            grad.sum((0, 2, 3)) if needed[2] else None, torch.cat(of_attention) if needed[3] else None)


def _parts(call: CellConv) -> list[CellConv]:
    """The call, so many samples at a time."""
    kernel = call.attention.shape[1] * math.prod(call.cells.shape[1:])
    samples = max(1, KERNEL_ELEMENTS[call.input.is_cpu] // kernel)
    if len(call.input) <= samples:
        return [call]
    return [call._replace(input=x, attention=attention)
            for x, attention in zip(call.input.split(samples), call.attention.split(samples))]


CELL_CONV = Operator(4, reference, lambda call, needs_grad: ('numba', 'parts'))
CELL_CONV.backends['parts'] = Backend(forward, backward=backward)

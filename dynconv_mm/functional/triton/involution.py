"""Position-varying convolution, in which each program keeps its sums in registers and copies no input."""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .common import (
    ACCUMULATORS,
    IntPair,
    block,
    empty_like_format,
    output_position,
    output_size,
    runs_on,
    share_of_program,
    window_position,
)


@triton.jit
def _forward(x, x_strides, weight, weight_strides, y, y_strides, height, width, pixels, out_width,
             GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr,
             KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
             STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
             DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, ACC: tl.constexpr,
             BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A block of outputs of one sample and group."""
    c, p, group, sample = share_of_program(GROUP_CHANNELS, pixels, GROUPS, BLOCK_C, BLOCK_P)
    channel = (group * GROUP_CHANNELS + c).to(tl.int64)
    c_inside, p_inside = c < GROUP_CHANNELS, p < pixels
    out_row, out_column = p // out_width, p % out_width
    x += sample * x_strides[0]
    weight += (sample * weight_strides[0] + group.to(tl.int64) * weight_strides[1]
               + out_row.to(tl.int64) * weight_strides[3] + out_column.to(tl.int64) * weight_strides[4])
    total = tl.zeros([BLOCK_C, BLOCK_P], ACC)
    for tap in range(KERNEL_HEIGHT * KERNEL_WIDTH):
        row, row_inside = window_position(out_row, tap // KERNEL_WIDTH, STRIDE_H, PADDING_H, DILATION_H, height)
        column, column_inside = window_position(out_column, tap % KERNEL_WIDTH, STRIDE_W, PADDING_W, DILATION_W, width)
        inside = p_inside & row_inside & column_inside
        kernel = tl.load(weight, inside, 0.)
        weight += weight_strides[2]
        place = row.to(tl.int64) * x_strides[2] + column.to(tl.int64) * x_strides[3]
        tile = tl.load(x + channel[:, None] * x_strides[1] + place[None, :], c_inside[:, None] & inside[None, :], 0.)
        total += kernel.to(ACC)[None, :] * tile.to(ACC)
    place = out_row.to(tl.int64) * y_strides[2] + out_column.to(tl.int64) * y_strides[3]
    tl.store(y + sample * y_strides[0] + channel[:, None] * y_strides[1] + place[None, :],
             total.to(y.dtype.element_ty), c_inside[:, None] & p_inside[None, :])


@triton.jit
def _input_gradient(dy, dy_strides, weight, weight_strides, dx, dx_strides, pixels, width, out_height, out_width,
                    GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr,
                    KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
                    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
                    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, ACC: tl.constexpr,
                    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A block of the input's gradient of one sample and group."""
    c, p, group, sample = share_of_program(GROUP_CHANNELS, pixels, GROUPS, BLOCK_C, BLOCK_P)
    channel = (group * GROUP_CHANNELS + c).to(tl.int64)
    c_inside, p_inside = c < GROUP_CHANNELS, p < pixels
    row, column = p // width, p % width
    dy += sample * dy_strides[0]
    weight += sample * weight_strides[0] + group.to(tl.int64) * weight_strides[1]
    total = tl.zeros([BLOCK_C, BLOCK_P], ACC)
    for tap in range(KERNEL_HEIGHT * KERNEL_WIDTH):
        out_row, row_inside = output_position(row, tap // KERNEL_WIDTH, STRIDE_H, PADDING_H, DILATION_H, out_height)
        out_column, column_inside = output_position(column, tap % KERNEL_WIDTH, STRIDE_W, PADDING_W, DILATION_W,
                                                    out_width)
        inside = p_inside & row_inside & column_inside
        out_row, out_column = out_row.to(tl.int64), out_column.to(tl.int64)
        kernel = tl.load(weight + out_row * weight_strides[3] + out_column * weight_strides[4], inside, 0.)
        weight += weight_strides[2]
        place = out_row * dy_strides[2] + out_column * dy_strides[3]
        tile = tl.load(dy + channel[:, None] * dy_strides[1] + place[None, :], c_inside[:, None] & inside[None, :], 0.)
        total += kernel.to(ACC)[None, :] * tile.to(ACC)
    place = row.to(tl.int64) * dx_strides[2] + column.to(tl.int64) * dx_strides[3]
    tl.store(dx + sample * dx_strides[0] + channel[:, None] * dx_strides[1] + place[None, :],
             total.to(dx.dtype.element_ty), c_inside[:, None] & p_inside[None, :])


@triton.jit
def _weight_gradient(x, x_strides, dy, dy_strides, dweight, dweight_strides, height, width, pixels, out_width,
                     GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr,
                     KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
                     STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
                     DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, ACC: tl.constexpr,
                     BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """All taps of the kernels' gradient at a block of positions of one sample and group."""
    _, p, group, sample = share_of_program(1, pixels, GROUPS, 1, BLOCK_P)
    p_inside = p < pixels
    out_row, out_column = p // out_width, p % out_width
    x += sample * x_strides[0]
    dy_place = out_row.to(tl.int64) * dy_strides[2] + out_column.to(tl.int64) * dy_strides[3]
    dy += sample * dy_strides[0]
    dweight += (sample * dweight_strides[0] + group.to(tl.int64) * dweight_strides[1]
                + out_row.to(tl.int64) * dweight_strides[3] + out_column.to(tl.int64) * dweight_strides[4])
    for tap in range(KERNEL_HEIGHT * KERNEL_WIDTH):
        row, row_inside = window_position(out_row, tap // KERNEL_WIDTH, STRIDE_H, PADDING_H, DILATION_H, height)
        column, column_inside = window_position(out_column, tap % KERNEL_WIDTH, STRIDE_W, PADDING_W, DILATION_W, width)
        inside = p_inside & row_inside & column_inside
        place = row.to(tl.int64) * x_strides[2] + column.to(tl.int64) * x_strides[3]
        total = tl.zeros([BLOCK_P], ACC)
        for first in range(0, GROUP_CHANNELS, BLOCK_C):
            c = first + tl.arange(0, BLOCK_C)
            channel = (group * GROUP_CHANNELS + c).to(tl.int64)
            both = (c < GROUP_CHANNELS)[:, None] & inside[None, :]
            x_tile = tl.load(x + channel[:, None] * x_strides[1] + place[None, :], both, 0.)
            dy_tile = tl.load(dy + channel[:, None] * dy_strides[1] + dy_place[None, :], both, 0.)
            total += tl.sum(x_tile.to(ACC) * dy_tile.to(ACC), 0)
        tl.store(dweight, total.to(dweight.dtype.element_ty), p_inside)
        dweight += dweight_strides[2]


class _Involution(torch.autograd.Function):

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, kernel_size: IntPair, stride: IntPair, padding: IntPair,
                dilation: IntPair) -> Tensor:
        ctx.save_for_backward(x, weight)
        dtype, groups = torch.promote_types(x.dtype, weight.dtype), weight.shape[1]
        ctx.constants = constants = dict(
            GROUPS=groups, GROUP_CHANNELS=x.shape[1] // groups, KERNEL_HEIGHT=kernel_size[0],
            KERNEL_WIDTH=kernel_size[1], STRIDE_H=stride[0], STRIDE_W=stride[1], PADDING_H=padding[0],
            PADDING_W=padding[1], DILATION_H=dilation[0], DILATION_W=dilation[1], ACC=ACCUMULATORS[dtype])
        y = empty_like_format(x, *x.shape[:2], *weight.shape[3:], dtype=dtype)
        pixels = y.shape[2] * y.shape[3]
        blocks = _blocks(constants, pixels)
        with torch.cuda.device_of(x):
            _forward[_grid(x, constants, blocks, pixels)](x, x.stride(), weight, weight.stride(), y, y.stride(),
                                                          *x.shape[2:], pixels, y.shape[3], **constants, **blocks)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), constants = ctx.saved_tensors, ctx.constants
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = empty_like_format(x, *x.shape, dtype=x.dtype)
            pixels = x.shape[2] * x.shape[3]
            blocks = _blocks(constants, pixels)
            with torch.cuda.device_of(x):
                _input_gradient[_grid(x, constants, blocks, pixels)](
                    dy, dy.stride(), weight, weight.stride(), dx, dx.stride(), pixels, x.shape[3], *dy.shape[2:],
                    **constants, **blocks)
        if ctx.needs_input_grad[1]:
            dweight = torch.empty_like(weight, memory_format=torch.contiguous_format)
            pixels = dy.shape[2] * dy.shape[3]
            blocks = _blocks(constants, pixels)
            programs = len(x) * constants['GROUPS'] * triton.cdiv(pixels, blocks['BLOCK_P'])
            with torch.cuda.device_of(x):
                _weight_gradient[(programs, )](x, x.stride(), dy, dy.stride(), dweight, dweight.stride(),
                                               *x.shape[2:], pixels, dy.shape[3], **constants, **blocks)
        return dx, dweight, None, None, None, None


def _blocks(constants: dict, pixels: int) -> dict[str, int]:
    channels = block(constants['GROUP_CHANNELS'], 16)
    return dict(BLOCK_C=channels, BLOCK_P=block(pixels, 1024 // channels))


def _grid(x: Tensor, constants: dict, blocks: dict, pixels: int) -> tuple[int]:
    return (len(x) * constants['GROUPS'] * triton.cdiv(pixels, blocks['BLOCK_P'])
            * triton.cdiv(constants['GROUP_CHANNELS'], blocks['BLOCK_C']), )


def serves(input: Tensor, weight: Tensor) -> bool:
    """Whether :func:`triton_involution2d` takes these: not an empty batch, on CUDA or in the interpreter."""
    return len(input) > 0 and runs_on(input, weight)


@torch.compiler.disable  # not tried in a compiled graph
def triton_involution2d(input: Tensor, weight: Tensor, kernel_size: IntPair, stride: IntPair, padding: IntPair,
                        dilation: IntPair) -> Tensor:
    r"""Convolve each position with its own kernel (Involution, CVPR 2021, Eq. 4).

    .. math:: y_{bchw} = \sum_{ij} H_{b,g(c),ij,hw}\, x_{b,c,s h + d i - p,s w + d j - p}

    Sums are taken in float32 (float64 for float64 tensors), also under autocast. It is differentiable once.
    ``torch.compile`` breaks its graph here.

    Args:
        input (Tensor[batch, channels, height, width]): features, for which :func:`serves` holds.
        weight (Tensor[batch, groups, kernel_height * kernel_width, out_height, out_width]): the kernels H, row by
            row.
        kernel_size, stride, padding, dilation (tuple[int, int]): as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, channels, out_height, out_width], in the memory format of ``input``

    Raises:
        ValueError: the tensors do not fit each other.
    """
    expected = (len(input), kernel_size[0] * kernel_size[1],
                *output_size(input.shape[2:], kernel_size, stride, padding, dilation))
    if weight.dim() != 5 or (weight.shape[0], *weight.shape[2:]) != expected:
        raise ValueError(f'weight must be [{expected[0]}, groups, {", ".join(map(str, expected[1:]))}], but its shape '
                         f'is {tuple(weight.shape)}')
    if input.shape[1] % weight.shape[1]:
        raise ValueError(f'the groups of weight, {weight.shape[1]}, must divide the channels of input, '
                         f'{input.shape[1]}')
    return _Involution.apply(input, weight, kernel_size, stride, padding, dilation)

"""Position-varying convolution, in which each program keeps its sums in registers and copies no input."""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...involution import Involution
from ..products import empty_output
from .common import ACCUMULATORS, block, output_position, share_of_program, tile_of, window_position


@triton.jit
def _forward(x, x_strides, weight, weight_strides, y, y_strides, height, width, pixels, out_width,
             GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, GEOMETRY: tl.constexpr, ACC: tl.constexpr,
             BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A block of outputs of one sample and group."""
    c, p, group, sample = share_of_program(GROUP_CHANNELS, pixels, GROUPS, BLOCK_C, BLOCK_P)
    channel = (group * GROUP_CHANNELS + c).to(tl.int64)
    c_inside, p_inside = c < GROUP_CHANNELS, p < pixels
    out_row, out_column = p // out_width, p % out_width
    weight += (sample * weight_strides[0] + group.to(tl.int64) * weight_strides[1]
               + out_row.to(tl.int64) * weight_strides[4] + out_column.to(tl.int64) * weight_strides[5])
    total = tl.zeros([BLOCK_C, BLOCK_P], ACC)
    for tap in range(GEOMETRY[0] * GEOMETRY[1]):
        row, column, inside = window_position(out_row, out_column, tap, GEOMETRY, height, width)
        inside &= p_inside
        kernel = tl.load(weight + tap // GEOMETRY[1] * weight_strides[2] + tap % GEOMETRY[1] * weight_strides[3],
                         inside, 0.)
        tile = tl.load(tile_of(x, x_strides, sample, channel, row, column), c_inside[:, None] & inside[None, :], 0.)
        total += kernel.to(ACC)[None, :] * tile.to(ACC)
    tl.store(tile_of(y, y_strides, sample, channel, out_row, out_column), total.to(y.dtype.element_ty),
             c_inside[:, None] & p_inside[None, :])


@triton.jit
def _input_gradient(dy, dy_strides, weight, weight_strides, dx, dx_strides, pixels, width, out_height, out_width,
                    GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, GEOMETRY: tl.constexpr, ACC: tl.constexpr,
                    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A block of the input's gradient of one sample and group."""
    c, p, group, sample = share_of_program(GROUP_CHANNELS, pixels, GROUPS, BLOCK_C, BLOCK_P)
    channel = (group * GROUP_CHANNELS + c).to(tl.int64)
    c_inside, p_inside = c < GROUP_CHANNELS, p < pixels
    row, column = p // width, p % width
    weight += sample * weight_strides[0] + group.to(tl.int64) * weight_strides[1]
    total = tl.zeros([BLOCK_C, BLOCK_P], ACC)
    for tap in range(GEOMETRY[0] * GEOMETRY[1]):
        out_row, out_column, inside = output_position(row, column, tap, GEOMETRY, out_height, out_width)
        inside &= p_inside
        kernel = tl.load(weight + tap // GEOMETRY[1] * weight_strides[2] + tap % GEOMETRY[1] * weight_strides[3]
                         + out_row.to(tl.int64) * weight_strides[4] + out_column.to(tl.int64) * weight_strides[5],
                         inside, 0.)
        tile = tl.load(tile_of(dy, dy_strides, sample, channel, out_row, out_column),
                       c_inside[:, None] & inside[None, :], 0.)
        total += kernel.to(ACC)[None, :] * tile.to(ACC)
    tl.store(tile_of(dx, dx_strides, sample, channel, row, column), total.to(dx.dtype.element_ty),
             c_inside[:, None] & p_inside[None, :])


@triton.jit
def _weight_gradient(x, x_strides, dy, dy_strides, dweight, dweight_strides, height, width, pixels, out_width,
                     GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, GEOMETRY: tl.constexpr, ACC: tl.constexpr,
                     BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """All taps of the kernels' gradient at a block of positions of one sample and group."""
    _, p, group, sample = share_of_program(1, pixels, GROUPS, 1, BLOCK_P)
    p_inside = p < pixels
    out_row, out_column = p // out_width, p % out_width
    dweight += (sample * dweight_strides[0] + group.to(tl.int64) * dweight_strides[1]
                + out_row.to(tl.int64) * dweight_strides[4] + out_column.to(tl.int64) * dweight_strides[5])
    for tap in range(GEOMETRY[0] * GEOMETRY[1]):
        row, column, inside = window_position(out_row, out_column, tap, GEOMETRY, height, width)
        inside &= p_inside
        total = tl.zeros([BLOCK_P], ACC)
        for first in range(0, GROUP_CHANNELS, BLOCK_C):
            c = first + tl.arange(0, BLOCK_C)
            channel = (group * GROUP_CHANNELS + c).to(tl.int64)
            both = (c < GROUP_CHANNELS)[:, None] & inside[None, :]
            x_tile = tl.load(tile_of(x, x_strides, sample, channel, row, column), both, 0.)
            dy_tile = tl.load(tile_of(dy, dy_strides, sample, channel, out_row, out_column), both, 0.)
            total += tl.sum(x_tile.to(ACC) * dy_tile.to(ACC), 0)
        tl.store(dweight + tap // GEOMETRY[1] * dweight_strides[2] + tap % GEOMETRY[1] * dweight_strides[3],
                 total.to(dweight.dtype.element_ty), p_inside)


def forward(call: Involution) -> Tensor:
    """The outputs."""
    input, weight, output = call.input, call.weight, empty_output(call)
    pixels = output[0, 0].numel()
    constants = _constants(call, pixels)
    with torch.cuda.device_of(input):
        _forward[_grid(input, constants, pixels)](input, input.stride(), weight, weight.stride(), output,
                                                  output.stride(), *input.shape[2:], pixels, output.shape[3],
                                                  **constants)
    return output


def backward(call: Involution, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of input and weight, each if needed."""
    return _grad_input(call, grad) if needed[0] else None, _grad_weight(call, grad) if needed[1] else None


def _grad_input(call: Involution, grad: Tensor) -> Tensor:
    input, weight, result = call.input, call.weight, torch.empty_like(call.input)
    pixels = input[0, 0].numel()
    constants = _constants(call, pixels)
    with torch.cuda.device_of(input):
        _input_gradient[_grid(input, constants, pixels)](grad, grad.stride(), weight, weight.stride(), result,
                                                         result.stride(), pixels, input.shape[3], *grad.shape[2:],
                                                         **constants)
    return result


def _grad_weight(call: Involution, grad: Tensor) -> Tensor:
    input, result = call.input, torch.empty_like(call.weight)
    pixels = grad[0, 0].numel()
    constants = _constants(call, pixels)
    programs = len(input) * constants['GROUPS'] * triton.cdiv(pixels, constants['BLOCK_P'])
    with torch.cuda.device_of(input):
        _weight_gradient[(programs, )](input, input.stride(), grad, grad.stride(), result, result.stride(),
                                       *input.shape[2:], pixels, grad.shape[3], **constants)
    return result


def _constants(call: Involution, pixels: int) -> dict:
    """What a kernel is compiled for; a block has at most 16 channels of a group and 1024 elements."""
    input, weight, stride, padding, dilation = call
    group_channels = input.shape[1] // weight.shape[1]
    channels = block(group_channels, 16)
    return dict(GROUPS=weight.shape[1], GROUP_CHANNELS=group_channels,
                GEOMETRY=(*weight.shape[2:4], *stride, *padding, *dilation), ACC=ACCUMULATORS[input.dtype],
                BLOCK_C=channels, BLOCK_P=block(pixels, 1024 // channels))


def _grid(input: Tensor, constants: dict, pixels: int) -> tuple[int]:
    return (len(input) * constants['GROUPS'] * triton.cdiv(pixels, constants['BLOCK_P'])
            * triton.cdiv(constants['GROUP_CHANNELS'], constants['BLOCK_C']), )

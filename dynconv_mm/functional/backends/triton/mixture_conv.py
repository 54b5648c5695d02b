r"""A mixture of kernels as an implicit matrix product.

.. math:: y_b = \alpha^f_b \odot (\tilde W_b * x_b) + bias, \quad
    \tilde W_b = \sum_i \alpha^w_{bi} \odot \alpha^s_{bi} \odot \alpha^c_{bi} \odot \alpha^f_{bi} \odot W_i

One kernel, ``_pack``, writes :math:`\tilde W_b` in the order in which the product reads it, in one pass; another one
multiplies. Where there is one W and it is larger than the features, no sample gets a kernel of its own: α_c scales the
features beforehand and α_s the tiles of features in registers. α_f, the bias and a batch norm are applied to the sums
before they are stored. The input's gradient is the same product with the transposed kernels.

The gradients of the weight and of all attentions are contractions of one tensor, the gradient of
:math:`\tilde W_b`. A program computes a tile of it for one sample after the other, and contracts it at once; that of a
depthwise convolution is small, and autograd contracts it.
What programs have in common is added up by torch afterwards, not atomically: the same call gives the same bits.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...mixture_conv import Mixture, sample_kernels
from ...operator import REMEMBERED, is_channels_last
from .common import (
    ACCUMULATORS,
    Launch,
    accumulator,
    block,
    matmul,
    output_position,
    precision,
    widened,
    window_position,
)

PROGRAMS = 512
"""Where the weight's gradient has fewer tiles, several programs share a tile's samples, up to about this number."""
KERNEL_BYTES = 2**30
"""No more memory is taken for the samples' kernels at once."""


@triton.jit
def _pack(weight, attention, spatial, channel, filter_, kernels, batch, samples,
          KERNELS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
          AREA: tl.constexpr, OWN_SPATIAL: tl.constexpr, OWN_CHANNEL: tl.constexpr, OWN_FILTER: tl.constexpr,
          TRANSPOSED: tl.constexpr, ACC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_E: tl.constexpr):
    """A block of elements of the kernels of ``samples`` samples: [tap, output, channel], or, ``TRANSPOSED``,
    [tap, channel, output], within each group. ``CHANNELS`` and ``OUTPUTS`` are those of a group."""
    SIZE: tl.constexpr = AREA * GROUPS * CHANNELS * OUTPUTS
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    inside = e < SIZE
    if TRANSPOSED:
        o, c = e % OUTPUTS, e // OUTPUTS % CHANNELS
    else:
        c, o = e % CHANNELS, e // CHANNELS % OUTPUTS
    group, tap = e // (CHANNELS * OUTPUTS) % GROUPS, e // (CHANNELS * OUTPUTS * GROUPS)
    out, in_ = group * OUTPUTS + o, group * CHANNELS + c
    n = tl.arange(0, BLOCK_N)
    n_inside = n < KERNELS
    both = n_inside[:, None] & inside[None, :]
    bank = tl.load(weight + n.to(tl.int64)[:, None] * SIZE + ((out * CHANNELS + c) * AREA + tap)[None, :], both, 0.
                   ).to(ACC)
    first = tl.program_id(1) * samples
    for sample in range(first, tl.minimum(first + samples, batch)):
        of_kernel = (sample * KERNELS + n)[:, None]
        mixed = bank
        if attention is not None:
            mixed = mixed * tl.load(attention + sample * KERNELS + n, n_inside, 0.).to(ACC)[:, None]
        if OWN_SPATIAL:
            mixed = mixed * tl.load(spatial + of_kernel * AREA + tap[None, :], both, 0.).to(ACC)
        if OWN_CHANNEL:
            mixed = mixed * tl.load(channel + of_kernel * (GROUPS * CHANNELS) + in_[None, :], both, 0.).to(ACC)
        if OWN_FILTER:
            mixed = mixed * tl.load(filter_ + of_kernel * (GROUPS * OUTPUTS) + out[None, :], both, 0.).to(ACC)
        total = tl.sum(mixed, 0)
        if spatial is not None and not OWN_SPATIAL:
            total *= tl.load(spatial + sample * AREA + tap, inside, 0.).to(ACC)
        if channel is not None and not OWN_CHANNEL:
            total *= tl.load(channel + sample * (GROUPS * CHANNELS) + in_, inside, 0.).to(ACC)
        if filter_ is not None and not OWN_FILTER:
            total *= tl.load(filter_ + sample * (GROUPS * OUTPUTS) + out, inside, 0.).to(ACC)
        tl.store(kernels + tl.cast(sample, tl.int64) * SIZE + e, total.to(kernels.dtype.element_ty), inside)


@triton.jit
def _scale(x, factors, y, pixels, CHANNELS: tl.constexpr, LAST: tl.constexpr, BLOCK_P: tl.constexpr,
           BLOCK_C: tl.constexpr):
    """A sample's features times a factor for each channel."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    p_blocks = tl.cdiv(pixels, BLOCK_P)
    sample, p = tl.program_id(0) // p_blocks, tl.program_id(0) % p_blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    if LAST:
        place = (p * CHANNELS)[:, None] + c[None, :]
    else:
        place = p[:, None] + (c * pixels)[None, :]
    place += tl.cast(sample, tl.int64) * CHANNELS * pixels
    inside = (p < pixels)[:, None] & (c < CHANNELS)[None, :]
    factor = tl.load(factors + sample * CHANNELS + c, c < CHANNELS, 0.)
    tl.store(y + place, tl.load(x + place, inside, 0.) * factor.to(x.dtype.element_ty)[None, :], inside)


@triton.jit
def _finish(total, scale, bias, mean, var, norm_weight, norm_bias, sample, out, o_inside, OUT_CHANNELS: tl.constexpr,
            EPS: tl.constexpr, FLAT: tl.constexpr, ACC: tl.constexpr):
    """Sums [p, o] times the scale of their sample, plus the bias, normalised; ``FLAT``: a sample for each p."""
    if scale is not None:
        if FLAT:
            factor = tl.load(scale + sample[:, None] * OUT_CHANNELS + out[None, :], o_inside[None, :], 0.).to(ACC)
        else:
            factor = tl.load(scale + sample * OUT_CHANNELS + out, o_inside, 0.).to(ACC)[None, :]
        total *= factor
    if bias is not None:
        total += tl.load(bias + out, o_inside, 0.).to(ACC)[None, :]
    if mean is not None:
        factor = tl.rsqrt(tl.load(var + out, o_inside, 1.).to(ACC) + EPS)
        if norm_weight is not None:
            factor *= tl.load(norm_weight + out, o_inside, 0.).to(ACC)
        total = (total - tl.load(mean + out, o_inside, 0.).to(ACC)[None, :]) * factor[None, :]
        if norm_bias is not None:
            total += tl.load(norm_bias + out, o_inside, 0.).to(ACC)[None, :]
    return total


@triton.jit
def _place(p, tap, GEOMETRY: tl.constexpr, TRANSPOSED: tl.constexpr, width, in_height, in_width):
    """Which pixel of the map that is read meets pixel ``p`` of the one that is written, and whether any."""
    if TRANSPOSED:
        row, column, inside = output_position(p // width, p % width, tap, GEOMETRY, in_height, in_width)
    else:
        row, column, inside = window_position(p // width, p % width, tap, GEOMETRY, in_height, in_width)
    return row * in_width + column, inside


@triton.jit
def _multiply(x, kernels, spatial, scale, bias, mean, var, norm_weight, norm_bias, y,
              batch, in_height, in_width, in_pixels, width, pixels, kernel_size,
              GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, GEOMETRY: tl.constexpr,
              TRANSPOSED: tl.constexpr, POINTWISE: tl.constexpr, FLAT: tl.constexpr, X_LAST: tl.constexpr,
              Y_LAST: tl.constexpr, EPS: tl.constexpr, ACC: tl.constexpr, WIDENED: tl.constexpr,
              PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr):
    """A block of pixels and outputs. ``CHANNELS`` are those of a group that are summed up, ``OUTPUTS`` those that are
    written; ``FLAT``: the pixels of all samples in a row, by the kernels of sample 0; ``X_LAST`` and ``Y_LAST``:
    channels last, else contiguous."""
    program = tl.program_id(0)
    o_blocks: tl.constexpr = (OUTPUTS + BLOCK_O - 1) // BLOCK_O
    o, program = program % o_blocks * BLOCK_O + tl.arange(0, BLOCK_O), program // o_blocks
    group, program = program % GROUPS, program // GROUPS
    if FLAT:
        p = program * BLOCK_P + tl.arange(0, BLOCK_P)
        p_inside, sample, p = p < batch * pixels, p // pixels, p % pixels
    else:
        p_blocks = tl.cdiv(pixels, BLOCK_P)
        p, sample = program % p_blocks * BLOCK_P + tl.arange(0, BLOCK_P), program // p_blocks
        p_inside = p < pixels
    out, o_inside, far = group * OUTPUTS + o, o < OUTPUTS, tl.cast(sample, tl.int64)
    x += far * (GROUPS * CHANNELS) * in_pixels
    kernels += group * (OUTPUTS * CHANNELS)
    if not FLAT:
        kernels += far * kernel_size
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    total = tl.zeros([BLOCK_P, BLOCK_O] if X_LAST else [BLOCK_O, BLOCK_P], ACC)
    for step in range(GEOMETRY[0] * GEOMETRY[1] * c_blocks):
        tap, c = step // c_blocks, step % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
        c_inside = c < CHANNELS
        if POINTWISE:
            place, shown = p, p_inside
        else:
            place, shown = _place(p, tap, GEOMETRY, TRANSPOSED, width, in_height, in_width)
            shown &= p_inside
        kernel = kernels + (tap * (GROUPS * OUTPUTS * CHANNELS) + o[:, None] * CHANNELS + c[None, :])
        k_tile = tl.load(kernel, o_inside[:, None] & c_inside[None, :], 0.)
        if spatial is not None:
            factor = tl.load(spatial + sample * (GEOMETRY[0] * GEOMETRY[1]) + tap + tl.zeros_like(p), p_inside, 0.
                             ).to(x.dtype.element_ty)
        if X_LAST:
            tile = tl.load((x + place * (GROUPS * CHANNELS))[:, None] + (group * CHANNELS + c)[None, :],
                           shown[:, None] & c_inside[None, :], 0.)
            if spatial is not None:
                tile *= factor[:, None]
            total = matmul(tile, tl.trans(k_tile), total, WIDENED, PRECISION)
        else:
            tile = tl.load((x + (group * CHANNELS + c) * in_pixels)[:, None] + place[None, :],
                           c_inside[:, None] & shown[None, :], 0.)
            if spatial is not None:
                tile *= factor[None, :]
            total = matmul(k_tile, tile, total, WIDENED, PRECISION)
    if not X_LAST:
        total = tl.trans(total)
    total = _finish(total, scale, bias, mean, var, norm_weight, norm_bias, sample, out, o_inside, GROUPS * OUTPUTS,
                    EPS, FLAT, ACC)
    y += far * (GROUPS * OUTPUTS) * pixels
    if Y_LAST:
        address = (y + p * (GROUPS * OUTPUTS))[:, None] + out[None, :]
    else:
        address = (y + p)[:, None] + (out * pixels)[None, :]
    tl.store(address, total.to(y.dtype.element_ty), p_inside[:, None] & o_inside[None, :])


@triton.jit
def _depthwise(x, kernels, scale, bias, mean, var, norm_weight, norm_bias, y,
               in_height, in_width, in_pixels, width, pixels, kernel_size,
               CHANNELS: tl.constexpr, GEOMETRY: tl.constexpr, TRANSPOSED: tl.constexpr, LAST: tl.constexpr,
               EPS: tl.constexpr, ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """A block of pixels and channels of a depthwise convolution."""
    program = tl.program_id(0)
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    c, program = program % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C), program // c_blocks
    p_blocks = tl.cdiv(pixels, BLOCK_P)
    p, sample = program % p_blocks * BLOCK_P + tl.arange(0, BLOCK_P), program // p_blocks
    c_inside, p_inside, far = c < CHANNELS, p < pixels, tl.cast(sample, tl.int64)
    x += far * CHANNELS * in_pixels
    kernels += far * kernel_size + c
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for tap in tl.static_range(GEOMETRY[0] * GEOMETRY[1]):
        place, shown = _place(p, tap, GEOMETRY, TRANSPOSED, width, in_height, in_width)
        if LAST:
            address = (x + place * CHANNELS)[:, None] + c[None, :]
        else:
            address = (x + place)[:, None] + (c * in_pixels)[None, :]
        tile = tl.load(address, (shown & p_inside)[:, None] & c_inside[None, :], 0.)
        total += tile.to(ACC) * tl.load(kernels + tap * CHANNELS, c_inside, 0.).to(ACC)[None, :]
    total = _finish(total, scale, bias, mean, var, norm_weight, norm_bias, sample, c, c_inside, CHANNELS, EPS, False,
                    ACC)
    y += far * CHANNELS * pixels
    if LAST:
        address = (y + p * CHANNELS)[:, None] + c[None, :]
    else:
        address = (y + p)[:, None] + (c * pixels)[None, :]
    tl.store(address, total.to(y.dtype.element_ty), p_inside[:, None] & c_inside[None, :])


@triton.jit
def _depthwise_gradient(x, dy, dkernels, height, width, in_pixels, out_width, pixels,
                        CHANNELS: tl.constexpr, GEOMETRY: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
                        BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr):
    """The gradient of one sample's depthwise kernels: all taps of a block of channels."""
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    c, sample = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C), tl.program_id(0) // c_blocks
    c_inside, t, far = c < CHANNELS, tl.arange(0, BLOCK_T), tl.cast(sample, tl.int64)
    area: tl.constexpr = GEOMETRY[0] * GEOMETRY[1]
    x += far * CHANNELS * in_pixels
    dy += far * CHANNELS * pixels
    total = tl.zeros([BLOCK_T, BLOCK_C], ACC)
    for first in range(0, pixels, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        p_inside = p < pixels
        if LAST:
            address = (dy + p * CHANNELS)[:, None] + c[None, :]
        else:
            address = (dy + p)[:, None] + (c * pixels)[None, :]
        dy_tile = tl.load(address, p_inside[:, None] & c_inside[None, :], 0.).to(ACC)
        for tap in tl.static_range(area):
            place, shown = _place(p, tap, GEOMETRY, False, out_width, height, width)
            if LAST:
                address = (x + place * CHANNELS)[:, None] + c[None, :]
            else:
                address = (x + place)[:, None] + (c * in_pixels)[None, :]
            tile = tl.load(address, (shown & p_inside)[:, None] & c_inside[None, :], 0.).to(ACC)
            total += tl.where((t == tap)[:, None], tl.sum(tile * dy_tile, 0)[None, :], 0.)
    tl.store(dkernels + far * (CHANNELS * area) + c[None, :] * area + t[:, None], total,
             (t < area)[:, None] & c_inside[None, :])


@triton.jit
def _weight_gradient(x, dy, weight, taps, channel, filter_, dweight, dtaps, dchannel, dfilter,
                     samples, samples_a_split, height, width, in_pixels, out_width, pixels,
                     GROUPS: tl.constexpr, KERNELS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
                     GEOMETRY: tl.constexpr, POINTWISE: tl.constexpr, LAST: tl.constexpr, OWN_CHANNEL: tl.constexpr,
                     OWN_FILTER: tl.constexpr, ACC: tl.constexpr, WIDENED: tl.constexpr, PRECISION: tl.constexpr,
                     BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr):
    """All that follows from the gradient of one tile of the samples' kernels, at one tap, for a split of the samples.

    With G the gradient of a sample's kernel, T its taps, C and F its channel and filter attention:
    dW = Σ_b T C F G, dT = Σ_oc C F W G, dC = T Σ_o F W G and dF = T Σ_c C W G. What programs add to the same place lies
    side by side: dtaps is [sample, n, tap, part], dchannel [sample, 1 or n, channel, part], dfilter the same.
    """
    program = tl.program_id(0)
    o_blocks: tl.constexpr = (OUTPUTS + BLOCK_O - 1) // BLOCK_O
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    area: tl.constexpr = GEOMETRY[0] * GEOMETRY[1]
    o_block, program = program % o_blocks, program // o_blocks
    c_block, program = program % c_blocks, program // c_blocks
    tap, program = program % area, program // area
    group, split = program % GROUPS, program // GROUPS
    o, c = o_block * BLOCK_O + tl.arange(0, BLOCK_O), c_block * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.arange(0, BLOCK_N)
    o_inside, c_inside, n_inside = o < OUTPUTS, c < CHANNELS, n < KERNELS
    inside = n_inside[:, None, None] & o_inside[None, :, None] & c_inside[None, None, :]
    out, in_ = group * OUTPUTS + o, group * CHANNELS + c
    SIZE: tl.constexpr = GROUPS * OUTPUTS * CHANNELS * area
    element = n.to(tl.int64)[:, None, None] * SIZE + ((out[:, None] * CHANNELS + c[None, :]) * area + tap)[None, :, :]
    kernels = tl.load(weight + element, inside, 0.).to(ACC)
    total = tl.zeros([BLOCK_N, BLOCK_O, BLOCK_C], ACC)
    part = (group * o_blocks + o_block) * c_blocks + c_block
    parts: tl.constexpr = GROUPS * o_blocks * c_blocks
    for sample in range(split * samples_a_split, tl.minimum((split + 1) * samples_a_split, samples)):
        far = tl.cast(sample, tl.int64)
        x_sample = x + far * (GROUPS * CHANNELS) * in_pixels
        dy_sample = dy + far * (GROUPS * OUTPUTS) * pixels
        gradient = tl.zeros([BLOCK_O, BLOCK_C], ACC)
        for first in range(0, pixels, BLOCK_P):
            p = first + tl.arange(0, BLOCK_P)
            if POINTWISE:
                place, shown = p, p < pixels
            else:
                place, shown = _place(p, tap, GEOMETRY, False, out_width, height, width)
                shown &= p < pixels
            if LAST:
                dy_tile = tl.load((dy_sample + out)[:, None] + (p * (GROUPS * OUTPUTS))[None, :],
                                  o_inside[:, None] & (p < pixels)[None, :], 0.)
                x_tile = tl.load((x_sample + place * (GROUPS * CHANNELS))[:, None] + in_[None, :],
                                 shown[:, None] & c_inside[None, :], 0.)
            else:
                dy_tile = tl.load((dy_sample + out * pixels)[:, None] + p[None, :],
                                  o_inside[:, None] & (p < pixels)[None, :], 0.)
                x_tile = tl.load((x_sample + place)[:, None] + (in_ * in_pixels)[None, :],
                                 shown[:, None] & c_inside[None, :], 0.)
            gradient = matmul(dy_tile, x_tile, gradient, WIDENED, PRECISION)
        of_kernel = sample * KERNELS + n
        t = tl.load(taps + of_kernel * area + tap, n_inside, 0.).to(ACC)
        per_kernel = kernels * gradient[None, :, :]
        per_weight = t[:, None, None] * gradient[None, :, :]
        if channel is not None:
            row = of_kernel if OWN_CHANNEL else sample + tl.zeros_like(n)  # a shared attention is the same for all n
            by_channel = tl.load(channel + row[:, None] * (GROUPS * CHANNELS) + in_[None, :],
                                 n_inside[:, None] & c_inside[None, :], 0.).to(ACC)
            per_weight *= by_channel[:, None, :]
        if filter_ is not None:
            row = of_kernel if OWN_FILTER else sample + tl.zeros_like(n)
            by_filter = tl.load(filter_ + row[:, None] * (GROUPS * OUTPUTS) + out[None, :],
                                n_inside[:, None] & o_inside[None, :], 0.).to(ACC)
            per_weight *= by_filter[:, :, None]
            of_filter = per_kernel
            if channel is not None:
                of_filter = of_filter * by_channel[:, None, :]
            of_filter = t[:, None] * tl.sum(of_filter, 2)
            place = c_block * area + tap
            if OWN_FILTER:
                tl.store(dfilter + (of_kernel[:, None] * (GROUPS * OUTPUTS) + out[None, :]) * (c_blocks * area) + place,
                         of_filter, n_inside[:, None] & o_inside[None, :])
            else:
                tl.store(dfilter + (sample * (GROUPS * OUTPUTS) + out) * (c_blocks * area) + place,
                         tl.sum(of_filter, 0), o_inside)
            per_kernel *= by_filter[:, :, None]
        of_channel = tl.sum(per_kernel, 1)
        of_taps = of_channel
        if channel is not None:
            of_taps = of_channel * by_channel
            of_channel = of_channel * t[:, None]
            place = o_block * area + tap
            if OWN_CHANNEL:
                tl.store(dchannel + (of_kernel[:, None] * (GROUPS * CHANNELS) + in_[None, :]) * (o_blocks * area)
                         + place, of_channel, n_inside[:, None] & c_inside[None, :])
            else:
                tl.store(dchannel + (sample * (GROUPS * CHANNELS) + in_) * (o_blocks * area) + place,
                         tl.sum(of_channel, 0), c_inside)
        tl.store(dtaps + (of_kernel * area + tap) * parts + part, tl.sum(of_taps, 1), n_inside)
        total += per_weight
    tl.store(dweight + tl.cast(split, tl.int64) * (KERNELS * SIZE) + element, total, inside)


def forward(m: Mixture) -> Tensor:
    """The output.

    Sums are taken in float32 (float64 for float64 inputs), products in the input's type. float32 products obey
    ``torch.backends.cudnn.allow_tf32``, as those of torch's convolutions do.

    Returns:
        Tensor[batch, out_channels, out_height, out_width], of the input's type and memory format

    Raises:
        ValueError: the padded input is smaller than the kernel.
    """
    x = m.input
    size = m.output_size
    if min(size) < 1:
        raise ValueError(f'input must not be smaller than the kernel, but its size is {tuple(x.shape[2:])} with kernel '
                         f'size {tuple(m.weight.shape[3:])}')
    last = is_channels_last(x)
    y = torch.empty((x.shape[0], m.weight.shape[1], *size), dtype=x.dtype, device=x.device,
                    memory_format=torch.channels_last if last else torch.contiguous_format)
    _convolve(m, x, y, False)
    return y


def backward(m: Mixture, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of the tensors that need one."""
    x, last = m.input, is_channels_last(m.input)
    grads: list[Tensor | None] = [None] * 7
    if needed[0]:
        grads[0] = torch.empty(x.shape, dtype=x.dtype, device=x.device,
                               memory_format=torch.channels_last if last else torch.contiguous_format)
        _convolve(m, grad, grads[0], True)
    if needed[2]:
        grads[2] = grad.sum((0, 2, 3), dtype=accumulator(grad.dtype)).to(m.bias.dtype)
    if any(needed[i] for i in (1, 3, 4, 5, 6)):
        if _is_depthwise(m):
            _differentiate_depthwise(m, grad, needed, grads)
        else:
            _differentiate_weight(m, grad, needed, grads)
    return tuple(grads)


# Launches.


class _Recipe(NamedTuple):
    """How to convolve calls of certain sizes and types."""

    samples: int  # at a time
    one_kernel: bool  # for all samples, with the attentions outside of it
    x_last: bool
    kernel_shape: tuple[int, int]
    scale: Launch
    pack: Launch
    multiply: Launch


_recipes: dict[tuple, _Recipe] = {}


def _convolve(m: Mixture, x: Tensor, y: Tensor, transposed: bool) -> None:
    """Write into ``y`` the convolution of ``x``, or, transposed, its input's gradient of ``x``."""
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        with torch.cuda.device_of(x):
            return _convolve(m, x, y, transposed)
    last, norm = is_channels_last(y), None if transposed else m.norm
    of_norm = (None, ) * 5 if norm is None else norm
    key: list = [x.shape, x.dtype, x.device, y.shape, last, m[7:12], transposed, precision(x.dtype), of_norm[4]]
    tensors = []
    for tensor in (*m[1:7], *of_norm[:4]):
        if tensor is not None:
            key += tensor.dtype, tensor.shape
            if not tensor.is_contiguous():
                tensor = tensor.contiguous()
        else:
            key.append(None)
        tensors.append(tensor)
    key = tuple(key)
    recipe = _recipes.get(key)
    if recipe is None:
        if len(_recipes) >= REMEMBERED:
            _recipes.clear()
        recipe = _recipes[key] = _make_recipe(m, x, y, transposed, last)
    batch = x.shape[0]
    if batch > recipe.samples:
        for start in range(0, batch, recipe.samples):
            part = slice(start, start + recipe.samples)
            attentions = [None if tensor is None else tensor[part] for tensor in m[3:7]]
            _convolve(Mixture(m.input[part], m.weight, m.bias, *attentions, *m[7:]), x[part], y[part], transposed)
        return None
    weight, bias, attention, spatial, channel, filter_, *of_norm = tensors
    x = x.contiguous(memory_format=torch.channels_last if recipe.x_last else torch.contiguous_format)
    before, scale = (filter_, channel) if transposed else (channel, filter_)
    kernels = torch.empty(recipe.kernel_shape, dtype=x.dtype, device=x.device)
    if recipe.one_kernel:
        if before is not None:
            scaled = torch.empty_like(x)
            recipe.scale(x, before, scaled)
            x = scaled
        recipe.pack(weight, None, None, None, None, kernels)
    elif transposed:
        recipe.pack(weight, attention, spatial, channel, filter_, kernels)
        spatial = scale = None
    else:
        own = filter_ is not None and filter_.dim() == 3
        recipe.pack(weight, attention, spatial, channel, filter_ if own else None, kernels)
        spatial, scale = None, None if own else filter_
    last_steps = (scale, None, *(None, ) * 4) if transposed else (scale, bias, *of_norm)
    if recipe.multiply.kernel is _depthwise:
        recipe.multiply(x, kernels, *last_steps, y)
    else:
        recipe.multiply(x, kernels, spatial, *last_steps, y)
    return None


def _is_depthwise(m: Mixture) -> bool:
    return m.groups > 1 and m.weight.shape[2] == 1 and m.weight.shape[1] == m.groups


def _make_recipe(m: Mixture, x: Tensor, y: Tensor, transposed: bool, last: bool) -> _Recipe:
    n, out_channels, channels, *kernel_size = m.weight.shape
    batch, outputs, area = len(x), out_channels // m.groups, kernel_size[0] * kernel_size[1]
    size = out_channels * channels * area
    depthwise = _is_depthwise(m)
    before = m.filter_attention if transposed else m.channel_attention
    one = n == 1 and m.kernel_attention is None and m.shares_attention and not depthwise and (
        m.spatial_attention is before is None or takes_one_kernel(size, x))
    samples = batch if one else max(1, min(batch, KERNEL_BYTES // (size * x.dtype.itemsize)))
    kernels = 1 if one else samples
    own = [not one and attention is not None and attention.dim() == 3 for attention in m[4:7]]
    n_block = triton.next_power_of_2(n)
    e_block = block(size, max(64, 4096 // max(4, n_block)), 16)
    e_blocks = triton.cdiv(size, e_block)
    at_once = max(1, min(kernels, kernels * e_blocks // (2 * PROGRAMS)))  # the bank is read once for all of these
    acc = ACCUMULATORS[x.dtype]
    pack = Launch(_pack, (e_blocks, triton.cdiv(kernels, at_once), 1), (kernels, at_once), dict(
        KERNELS=n, GROUPS=m.groups, CHANNELS=channels, OUTPUTS=outputs, AREA=area, OWN_SPATIAL=own[0],
        OWN_CHANNEL=own[1], OWN_FILTER=own[2], TRANSPOSED=transposed, ACC=acc, BLOCK_N=n_block, BLOCK_E=e_block),
        num_warps=4)
    geometry = (*kernel_size, *m.stride, *m.padding, *m.dilation)
    pointwise = geometry[:6] == (1, 1, 1, 1, 0, 0)
    pixels, width = y.shape[2] * y.shape[3], y.shape[3]
    x_last = last or not pointwise and not depthwise
    scale = _scaling(x, x_last)
    common = dict(EPS=0. if m.norm is None or transposed else m.norm.eps, ACC=acc)
    stride, size_in = 0 if one else size, (*x.shape[2:], x.shape[2] * x.shape[3])
    if depthwise:
        blocks, options = depthwise_blocks(x, out_channels, pixels, last)
        programs = samples * triton.cdiv(pixels, blocks['BLOCK_P']) * triton.cdiv(out_channels, blocks['BLOCK_C'])
        multiply = Launch(_depthwise, (programs, 1, 1), (*size_in, width, pixels, stride), dict(
            CHANNELS=out_channels, GEOMETRY=geometry, TRANSPOSED=transposed, LAST=last, **common, **blocks), **options)
        return _Recipe(samples, one, last, (kernels, size), scale, pack, multiply)
    summed, written = (outputs, channels) if transposed else (channels, outputs)
    flat = one and last
    rows = samples * pixels if flat else pixels
    blocks, options = product_blocks(x, rows, summed, written, x_last)
    programs = (1 if flat else samples) * m.groups * triton.cdiv(rows, blocks['BLOCK_P']) * triton.cdiv(
        written, blocks['BLOCK_O'])
    multiply = Launch(_multiply, (programs, 1, 1), (samples, *size_in, width, pixels, stride), dict(
        GROUPS=m.groups, CHANNELS=summed, OUTPUTS=written, GEOMETRY=geometry, TRANSPOSED=transposed,
        POINTWISE=pointwise, FLAT=flat, X_LAST=x_last, Y_LAST=last, EPS=common['EPS'], ACC=acc,
        WIDENED=widened(x.dtype), PRECISION=precision(x.dtype), **blocks), **options)
    return _Recipe(samples, one, x_last, (kernels, size), scale, pack, multiply)


def _scaling(x: Tensor, last: bool) -> Launch:
    """Of features that lie in memory so."""
    batch, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    p = block(pixels, 32 if last else 1024)
    c = block(channels, 128 if last else max(1, 1024 // p))
    return Launch(_scale, (batch * triton.cdiv(pixels, p), triton.cdiv(channels, c), 1), (pixels, ), dict(
        CHANNELS=channels, LAST=last, BLOCK_P=p, BLOCK_C=c), num_warps=4)


def takes_one_kernel(size: int, x: Tensor) -> bool:
    """Whether kernels of that size are too large to be made for each sample of the features that are read."""
    return size > x[0].numel()


def product_blocks(x: Tensor, rows: int, channels: int, outputs: int,
                   last: bool) -> tuple[dict[str, int], dict[str, int]]:
    """The tiles of a product, and the warps and stages of a program."""
    half = x.dtype.itemsize == 2
    few = channels <= 64  # few steps: what counts is how many programs are under way
    o, p, c = block(outputs, 128, 16), block(rows, 128, 16), block(channels, 64 if half else 32, 16)
    if few and o == 128 or not half and not last:
        p = min(p, 64)
    if few and not half and not last:
        o, c = min(o, 64), block(channels, 64, 16)
    blocks = dict(BLOCK_P=p, BLOCK_O=o, BLOCK_C=c)
    return blocks, _options(x, blocks, 8 if p * o > 8192 or not half and p * o > 4096 else 4)


def _options(x: Tensor, blocks: dict[str, int], warps: int) -> dict[str, int]:
    """Stages of tiles, 4 at most: as many as leave room for two programs on a processor, but 2 where one can hold
    them."""
    stage = (blocks['BLOCK_P'] + blocks['BLOCK_O']) * blocks['BLOCK_C'] * x.dtype.itemsize
    memory = 99 * 1024
    if x.is_cuda:
        memory = getattr(torch.cuda.get_device_properties(x.device), 'shared_memory_per_block_optin', memory)
    return dict(num_warps=warps, num_stages=max(1, min(2, memory // stage), min(4, memory // (2 * stage))))


def depthwise_blocks(x: Tensor, channels: int, pixels: int, last: bool) -> tuple[dict[str, int], dict[str, int]]:
    """The tiles of a depthwise convolution, and the warps of a program."""
    if last:
        blocks = dict(BLOCK_P=block(pixels, 32), BLOCK_C=block(channels, 32))
        return blocks, dict(num_warps=2)
    blocks = dict(BLOCK_P=block(pixels, 256))
    return dict(blocks, BLOCK_C=block(channels, max(1, 1024 // blocks['BLOCK_P']))), dict(num_warps=4)


# Gradients of the weight and the attentions.


def _differentiate_depthwise(m: Mixture, grad: Tensor, needed: tuple[bool, ...], grads: list[Tensor | None]) -> None:
    x, last = m.input, is_channels_last(m.input)
    order = torch.channels_last if last else torch.contiguous_format
    x, dy = x.contiguous(memory_format=order), grad.contiguous(memory_format=order)
    batch, channels, pixels, area = len(x), x.shape[1], dy.shape[2] * dy.shape[3], math.prod(m.weight.shape[3:])
    dkernels = torch.empty(batch, *m.weight.shape[1:], dtype=accumulator(x.dtype), device=x.device)
    blocks, options = depthwise_blocks(x, channels, pixels, last)
    with torch.cuda.device_of(x):
        _depthwise_gradient[(batch * triton.cdiv(channels, blocks['BLOCK_C']), )](
            x, dy, dkernels, *x.shape[2:], x.shape[2] * x.shape[3], dy.shape[3], pixels, CHANNELS=channels,
            GEOMETRY=(*m.weight.shape[3:], *m.stride, *m.padding, *m.dilation), LAST=last, ACC=ACCUMULATORS[x.dtype],
            BLOCK_T=triton.next_power_of_2(area), **blocks, **options)
    others = [index for index in (1, 3, 4, 5, 6) if needed[index]]
    leaves = [m[index].detach().to(dkernels.dtype).requires_grad_() for index in others]
    tensors = list(m)
    for index in (1, 3, 4, 5, 6):
        tensors[index] = None if m[index] is None else m[index].to(dkernels.dtype)
    for index, leaf in zip(others, leaves):
        tensors[index] = leaf
    with torch.enable_grad():
        kernels = sample_kernels(Mixture(*tensors))
    for index, gradient in zip(others, torch.autograd.grad(kernels, leaves, dkernels)):
        grads[index] = gradient.to(m[index].dtype)


def _differentiate_weight(m: Mixture, grad: Tensor, needed: tuple[bool, ...], grads: list[Tensor | None]) -> None:
    weight, channel, filter_ = (None if m[i] is None else m[i].contiguous() for i in (1, 5, 6))
    n, out_channels, channels, *kernel_size = weight.shape
    geometry = (*kernel_size, *m.stride, *m.padding, *m.dilation)
    pointwise, last = geometry[:6] == (1, 1, 1, 1, 0, 0), is_channels_last(m.input)
    order = torch.channels_last if last or not pointwise else torch.contiguous_format
    x, dy = m.input.contiguous(memory_format=order), grad.contiguous(memory_format=order)
    batch, pixels, area, outputs = len(x), dy.shape[2] * dy.shape[3], math.prod(kernel_size), out_channels // m.groups
    blocks, options = gradient_blocks(x, n, outputs, channels, pixels)
    o_blocks, c_blocks = triton.cdiv(outputs, blocks['BLOCK_O']), triton.cdiv(channels, blocks['BLOCK_C'])
    tiles = m.groups * area * o_blocks * c_blocks
    samples_a_split = triton.cdiv(batch, min(batch, triton.cdiv(PROGRAMS, tiles)))
    splits = triton.cdiv(batch, samples_a_split)
    taps = _taps(m)

    def parts(*size: int) -> Tensor:
        return torch.empty(size, dtype=accumulator(x.dtype), device=x.device)

    dweight = parts(splits, *weight.shape)
    dtaps = parts(batch, n, area, m.groups * o_blocks * c_blocks)
    dchannel = None if channel is None else parts(*channel.shape, o_blocks * area)
    dfilter = None if filter_ is None else parts(*filter_.shape, c_blocks * area)
    with torch.cuda.device_of(x):
        _weight_gradient[(splits * tiles, )](
            x, dy, weight, taps, channel, filter_, dweight, dtaps, dchannel, dfilter, batch, samples_a_split,
            *x.shape[2:], x.shape[2] * x.shape[3], dy.shape[3], pixels, GROUPS=m.groups, KERNELS=n, CHANNELS=channels, OUTPUTS=outputs,
            GEOMETRY=geometry, POINTWISE=pointwise, LAST=order is torch.channels_last,
            OWN_CHANNEL=channel is not None and channel.dim() == 3, OWN_FILTER=filter_ is not None and filter_.dim() == 3,
            ACC=ACCUMULATORS[x.dtype], WIDENED=widened(x.dtype), PRECISION=precision(x.dtype),
            BLOCK_N=triton.next_power_of_2(n), **blocks, **options)
    if needed[1]:
        grads[1] = dweight.sum(0).to(weight.dtype)
    if needed[3] or needed[4]:
        dtaps = dtaps.sum(3)
    if needed[3]:
        of_taps = dtaps if m.spatial_attention is None else dtaps * _per_kernel(m.spatial_attention)
        grads[3] = of_taps.sum(2).to(m.kernel_attention.dtype)
    if needed[4]:
        of_taps = dtaps if m.kernel_attention is None else dtaps * m.kernel_attention[:, :, None]
        of_taps = of_taps.sum(1) if m.spatial_attention.dim() == 2 else of_taps
        grads[4] = of_taps.to(m.spatial_attention.dtype)
    for index, gradient in ((5, dchannel), (6, dfilter)):
        if needed[index]:
            grads[index] = gradient.sum(-1).to(m[index].dtype)


def _taps(m: Mixture) -> Tensor:
    """α_w · α_s, Tensor[batch, n, kernel area]."""
    batch, n, area = len(m.input), len(m.weight), math.prod(m.weight.shape[3:])
    taps = m.input.new_ones(1, 1, 1, dtype=accumulator(m.input.dtype))
    if m.kernel_attention is not None:
        taps = taps * m.kernel_attention[:, :, None]
    if m.spatial_attention is not None:
        taps = taps * _per_kernel(m.spatial_attention)
    return taps.expand(batch, n, area).contiguous()


def _per_kernel(attention: Tensor) -> Tensor:
    """[batch, 1 or n, length]"""
    return attention[:, None] if attention.dim() == 2 else attention


def gradient_blocks(x: Tensor, n: int, outputs: int, channels: int,
                    pixels: int) -> tuple[dict[str, int], dict[str, int]]:
    """The tile of the weight's gradient, of which all n kernels' are in registers at once, and the warps of a
    program."""
    most = 64 if n == 1 else 32 if n <= 4 else 16
    return (dict(BLOCK_O=block(outputs, most, 16), BLOCK_C=block(channels, most, 16), BLOCK_P=block(pixels, 64, 16)),
            dict(num_warps=8 if n > 1 else 4))

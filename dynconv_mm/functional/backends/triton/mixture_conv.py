r"""A mixture of kernels as an implicit matrix product.

.. math:: y_b = \alpha^f_b \odot (\tilde W_b * x_b) + bias, \quad
    \tilde W_b = \sum_i \alpha^w_{bi} \odot \alpha^s_{bi} \odot \alpha^c_{bi} \odot \alpha^f_{bi} \odot W_i

One kernel, ``_pack``, writes :math:`\tilde W_b` in the order in which the product reads it, in one pass; another
one multiplies. Where there is one W and it is larger than the features, no sample gets a kernel of its own: α_c scales
the features beforehand and α_s the tiles of features in registers. α_f, the bias and a batch norm are applied to the
sums before they are stored. The input's gradient is the same product with the transposed kernels.

The gradients of the weight and of all attentions but α_c are contractions of one tensor, the gradient of
:math:`\tilde W_b`, which is written once and read once. α_c scales the features, and its gradient is that of a scale.
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
from ...operator import is_channels_last
from .common import (
    ACCUMULATORS,
    PROGRAMS,
    Launch,
    Remembered,
    accumulator,
    block,
    matmul,
    normalized,
    output_position,
    precision,
    scaled,
    widened,
    window_position,
)

PACKED, PACKED_SAMPLES = 8192, 4
"""Elements, and samples among them, that a program of ``_pack`` mixes at once."""
KERNEL_BYTES = 2**30
"""No more memory is taken for the samples' kernels at once, nor for their gradients."""


# a batch of another size is no reason to compile again
@triton.jit(do_not_specialize=['batch', 'samples'])
def _pack(weight, attention, spatial, channel, filter_, kernels, batch, samples,
          KERNELS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
          AREA: tl.constexpr, OWN_SPATIAL: tl.constexpr, OWN_CHANNEL: tl.constexpr, OWN_FILTER: tl.constexpr,
          TRANSPOSED: tl.constexpr, ACC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr,
          BLOCK_E: tl.constexpr):
    """A block of elements of the kernels of ``samples`` samples: [tap, output, channel], or, ``TRANSPOSED``,
    [tap, channel, output], within each group. ``CHANNELS`` and ``OUTPUTS`` are those of a group."""
    SIZE: tl.constexpr = AREA * GROUPS * CHANNELS * OUTPUTS
    tap, e = tl.program_id(2), tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)  # e counts within the tap
    inside = e < GROUPS * CHANNELS * OUTPUTS
    if TRANSPOSED:
        o, c = e % OUTPUTS, e // OUTPUTS % CHANNELS
    else:
        c, o = e % CHANNELS, e // CHANNELS % OUTPUTS
    group = e // (CHANNELS * OUTPUTS)
    out, in_ = group * OUTPUTS + o, group * CHANNELS + c
    n = tl.arange(0, BLOCK_N)
    n_inside = n < KERNELS
    both = n_inside[:, None] & inside[None, :]
    bank = tl.load(weight + n.to(tl.int64)[:, None] * SIZE + ((out * CHANNELS + c) * AREA + tap)[None, :], both, 0.
                   ).to(ACC)[:, None, :]
    first = tl.program_id(1) * samples
    last = tl.minimum(first + samples, batch)
    for start in range(first, last, BLOCK_S):  # several at once: loads wait for the stores before them
        sample = start + tl.arange(0, BLOCK_S)
        s_inside = sample < last
        of_kernel, shown = sample[None, :] * KERNELS + n[:, None], n_inside[:, None] & s_inside[None, :]
        all_shown, s_shown = both[:, None, :] & s_inside[None, :, None], s_inside[:, None] & inside[None, :]
        factor = tl.where(shown, 1., 0.).to(ACC)
        if attention is not None:
            factor = tl.load(attention + of_kernel, shown, 0.).to(ACC)
        if OWN_SPATIAL:
            factor *= tl.load(spatial + of_kernel * AREA + tap, shown, 0.).to(ACC)
        mixed = bank * factor[:, :, None]
        if OWN_CHANNEL:
            mixed *= tl.load(channel + of_kernel[:, :, None] * (GROUPS * CHANNELS) + in_[None, None, :], all_shown, 0.
                             ).to(ACC)
        if OWN_FILTER:
            mixed *= tl.load(filter_ + of_kernel[:, :, None] * (GROUPS * OUTPUTS) + out[None, None, :], all_shown, 0.
                             ).to(ACC)
        total = tl.sum(mixed, 0)
        if spatial is not None and not OWN_SPATIAL:
            total *= tl.load(spatial + sample * AREA + tap, s_inside, 0.).to(ACC)[:, None]
        if channel is not None and not OWN_CHANNEL:
            total *= tl.load(channel + sample[:, None] * (GROUPS * CHANNELS) + in_[None, :], s_shown, 0.).to(ACC)
        if filter_ is not None and not OWN_FILTER:
            total *= tl.load(filter_ + sample[:, None] * (GROUPS * OUTPUTS) + out[None, :], s_shown, 0.).to(ACC)
        place = sample.to(tl.int64)[:, None] * SIZE + (tap * (GROUPS * CHANNELS * OUTPUTS) + e)[None, :]
        tl.store(kernels + place, total.to(kernels.dtype.element_ty), s_shown)


@triton.jit
def _scale(x, factors, y, pixels, CHANNELS: tl.constexpr, LAST: tl.constexpr, WIDENED: tl.constexpr,
           BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """A sample's features times a factor for each channel."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    p_blocks = tl.cdiv(pixels, BLOCK_P)
    sample, p = tl.program_id(0) // p_blocks, tl.program_id(0) % p_blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    place = (p * CHANNELS)[:, None] + c[None, :] if LAST else p[:, None] + (c * pixels)[None, :]
    place += tl.cast(sample, tl.int64) * CHANNELS * pixels
    inside = (p < pixels)[:, None] & (c < CHANNELS)[None, :]
    factor = tl.load(factors + sample * CHANNELS + c, c < CHANNELS, 0.)
    tl.store(y + place, scaled(tl.load(x + place, inside, 0.), factor[None, :], WIDENED), inside)


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
    return normalized(total, mean, var, norm_weight, norm_bias, out, o_inside, EPS, ACC)


@triton.jit
def _place(p, tap, GEOMETRY: tl.constexpr, TRANSPOSED: tl.constexpr, width, in_height, in_width):
    """Which pixel of the map that is read meets pixel ``p`` of the one that is written, and whether any."""
    if TRANSPOSED:
        row, column, inside = output_position(p // width, p % width, tap, GEOMETRY, in_height, in_width)
    else:
        row, column, inside = window_position(p // width, p % width, tap, GEOMETRY, in_height, in_width)
    return row * in_width + column, inside


@triton.jit(do_not_specialize=['batch'])
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
            factor = tl.load(spatial + sample * (GEOMETRY[0] * GEOMETRY[1]) + tap + tl.zeros_like(p), p_inside, 0.)
        if X_LAST:
            tile = tl.load((x + place * (GROUPS * CHANNELS))[:, None] + (group * CHANNELS + c)[None, :],
                           shown[:, None] & c_inside[None, :], 0.)
            if spatial is not None:
                tile = scaled(tile, factor[:, None], WIDENED)
            total = matmul(tile, tl.trans(k_tile), total, WIDENED, PRECISION)
        else:
            tile = tl.load((x + (group * CHANNELS + c) * in_pixels)[:, None] + place[None, :],
                           c_inside[:, None] & shown[None, :], 0.)
            if spatial is not None:
                tile = scaled(tile, factor[None, :], WIDENED)
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
    address = (y + p * CHANNELS)[:, None] + c[None, :] if LAST else (y + p)[:, None] + (c * pixels)[None, :]
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
        address = (dy + p * CHANNELS)[:, None] + c[None, :] if LAST else (dy + p)[:, None] + (c * pixels)[None, :]
        dy_tile = tl.load(address, p_inside[:, None] & c_inside[None, :], 0.).to(ACC)
        for tap in tl.static_range(area):
            place, shown = _place(p, tap, GEOMETRY, False, out_width, height, width)
            if LAST:
                address = (x + place * CHANNELS)[:, None] + c[None, :]
            else:
                address = (x + place)[:, None] + (c * in_pixels)[None, :]
            tile = tl.load(address, (shown & p_inside)[:, None] & c_inside[None, :], 0.).to(ACC)
            total += tl.where((t == tap)[:, None], tl.sum(tile * dy_tile, 0)[None, :], 0.)
    tl.store(dkernels + far * (CHANNELS * area) + t[:, None] * CHANNELS + c[None, :], total,
             (t < area)[:, None] & c_inside[None, :])


@triton.jit
def _kernel_gradient(x, dy, dkernels, height, width, in_pixels, out_width, pixels,
                     GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, GEOMETRY: tl.constexpr,
                     POINTWISE: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr, WIDENED: tl.constexpr,
                     PRECISION: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A tile of the gradient of one sample's kernel at one tap: [tap, output, channel]."""
    program = tl.program_id(0)
    o_blocks: tl.constexpr = (OUTPUTS + BLOCK_O - 1) // BLOCK_O
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    area: tl.constexpr = GEOMETRY[0] * GEOMETRY[1]
    o, program = program % o_blocks * BLOCK_O + tl.arange(0, BLOCK_O), program // o_blocks
    c, program = program % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C), program // c_blocks
    tap, program = program % area, program // area
    group, far = program % GROUPS, tl.cast(program // GROUPS, tl.int64)
    o_inside, c_inside, out, in_ = o < OUTPUTS, c < CHANNELS, group * OUTPUTS + o, group * CHANNELS + c
    x += far * (GROUPS * CHANNELS) * in_pixels
    dy += far * (GROUPS * OUTPUTS) * pixels
    total = tl.zeros([BLOCK_O, BLOCK_C], ACC)
    for first in range(0, pixels, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        if POINTWISE:
            place, shown = p, p < pixels
        else:
            place, shown = _place(p, tap, GEOMETRY, False, out_width, height, width)
            shown &= p < pixels
        if LAST:
            dy_tile = tl.load((dy + out)[:, None] + (p * (GROUPS * OUTPUTS))[None, :],
                              o_inside[:, None] & (p < pixels)[None, :], 0.)
            x_tile = tl.load((x + place * (GROUPS * CHANNELS))[:, None] + in_[None, :],
                             shown[:, None] & c_inside[None, :], 0.)
        else:
            dy_tile = tl.load((dy + out * pixels)[:, None] + p[None, :], o_inside[:, None] & (p < pixels)[None, :], 0.)
            x_tile = tl.load((x + place)[:, None] + (in_ * in_pixels)[None, :], shown[:, None] & c_inside[None, :], 0.)
        total = matmul(dy_tile, x_tile, total, WIDENED, PRECISION)
    place = (tap * (GROUPS * OUTPUTS) + out[:, None]) * CHANNELS + c[None, :]
    tl.store(dkernels + far * (area * GROUPS * OUTPUTS * CHANNELS) + place, total.to(dkernels.dtype.element_ty),
             o_inside[:, None] & c_inside[None, :])


@triton.jit(do_not_specialize=['batch'])
def _contract(dkernels, weight, attention, spatial, channel, filter_, dweight, products, batch,
              KERNELS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUT_CHANNELS: tl.constexpr,
              AREA: tl.constexpr, ACC: tl.constexpr, WIDENED: tl.constexpr, PRECISION: tl.constexpr,
              BLOCK_N: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr):
    """What follows from the gradients G of a block of samples' kernels at one tap and output, [sample, channel].

    ``products``, [sample, n, tap, output], is the sum of W α_c G over the channels; ``dweight``, [block of samples, n,
    output, channel, tap], that of α_w α_s α_c α_f G over the samples.
    """
    program = tl.program_id(0)
    out, tap = program % OUT_CHANNELS, program // OUT_CHANNELS % AREA
    b_block = program // (OUT_CHANNELS * AREA)
    b, n = b_block * BLOCK_B + tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_N)
    b_inside, n_inside = b < batch, n < KERNELS
    both = b_inside[:, None] & n_inside[None, :]
    scale = tl.where(both, 1., 0.).to(ACC)
    if attention is not None:
        scale *= tl.load(attention + b[:, None] * KERNELS + n[None, :], both, 0.).to(ACC)
    if spatial is not None:
        scale *= tl.load(spatial + b * AREA + tap, b_inside, 0.).to(ACC)[:, None]
    if filter_ is not None:
        scale *= tl.load(filter_ + b * OUT_CHANNELS + out, b_inside, 0.).to(ACC)[:, None]
    scale = tl.trans(scale).to(dkernels.dtype.element_ty)
    total = tl.zeros([BLOCK_B, BLOCK_N], ACC)
    rows = dkernels + b.to(tl.int64) * (AREA * OUT_CHANNELS * CHANNELS) + (tap * OUT_CHANNELS + out) * CHANNELS
    group_start = out // (OUT_CHANNELS // GROUPS) * CHANNELS
    for first in range(0, CHANNELS, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        c_inside = c < CHANNELS
        shown = b_inside[:, None] & c_inside[None, :]
        tile = tl.load(rows[:, None] + c[None, :], shown, 0.)
        if channel is not None:
            factor = tl.load(channel + (b * (GROUPS * CHANNELS) + group_start)[:, None] + c[None, :], shown, 0.)
            tile = scaled(tile, factor, WIDENED)
        element = (n.to(tl.int64) * (OUT_CHANNELS * CHANNELS * AREA))[:, None] + (
            (out * CHANNELS + c) * AREA + tap)[None, :]
        inside = n_inside[:, None] & c_inside[None, :]
        kernels = tl.load(weight + element, inside, 0.).to(tile.dtype)
        total = matmul(tile, tl.trans(kernels), total, WIDENED, PRECISION)
        of_weight = matmul(scale, tile, tl.zeros([BLOCK_N, BLOCK_C], ACC), WIDENED, PRECISION)
        tl.store(dweight + tl.cast(b_block, tl.int64) * (KERNELS * OUT_CHANNELS * CHANNELS * AREA) + element,
                 of_weight.to(dweight.dtype.element_ty), inside)
    tl.store(products + ((b[:, None] * KERNELS + n[None, :]) * AREA + tap).to(tl.int64) * OUT_CHANNELS + out, total,
             both)


@triton.jit
def _attention_gradients(products, attention, spatial, filter_, dattention, dspatial, dfilter,
                         KERNELS: tl.constexpr, OUT_CHANNELS: tl.constexpr, AREA: tl.constexpr, ACC: tl.constexpr,
                         BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_O: tl.constexpr):
    """A sample's gradients of α_w, α_s and α_f, from the ``products`` of :func:`_contract`."""
    sample, n, t = tl.program_id(0), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_T)
    n_inside, t_inside = n < KERNELS, t < AREA
    inside = n_inside[:, None] & t_inside[None, :]
    of_kernel = tl.where(n_inside, 1., 0.).to(ACC)
    if attention is not None:
        of_kernel = tl.load(attention + sample * KERNELS + n, n_inside, 0.).to(ACC)
    of_tap = tl.where(t_inside, 1., 0.).to(ACC)
    if spatial is not None:
        of_tap = tl.load(spatial + sample * AREA + t, t_inside, 0.).to(ACC)
    rows = tl.zeros([BLOCK_N, BLOCK_T], ACC)
    products += tl.cast(sample, tl.int64) * (KERNELS * AREA * OUT_CHANNELS)
    place = (n[:, None] * AREA + t[None, :]) * OUT_CHANNELS
    for first in range(0, OUT_CHANNELS, BLOCK_O):
        o = first + tl.arange(0, BLOCK_O)
        o_inside = o < OUT_CHANNELS
        tile = tl.load(products + place[:, :, None] + o[None, None, :], inside[:, :, None] & o_inside[None, None, :],
                       0.)
        if dfilter is not None:
            total = tl.sum(tl.sum(tile * (of_kernel[:, None] * of_tap[None, :])[:, :, None], 0), 0)
            tl.store(dfilter + sample * OUT_CHANNELS + o, total.to(dfilter.dtype.element_ty), o_inside)
        if filter_ is not None:
            tile *= tl.load(filter_ + sample * OUT_CHANNELS + o, o_inside, 0.).to(ACC)[None, None, :]
        rows += tl.sum(tile, 2)
    if dattention is not None:
        total = tl.sum(rows * of_tap[None, :], 1)
        tl.store(dattention + sample * KERNELS + n, total.to(dattention.dtype.element_ty), n_inside)
    if dspatial is not None:
        total = tl.sum(rows * of_kernel[:, None], 0)
        tl.store(dspatial + sample * AREA + t, total.to(dspatial.dtype.element_ty), t_inside)


@triton.jit
def _scale_gradient(x, gradient, channel, dchannel, pixels, CHANNELS: tl.constexpr, LAST: tl.constexpr,
                    ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """The gradient of α_c, and, in the place of the scaled features' gradient, that of the features."""
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    c, sample = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C), tl.program_id(0) // c_blocks
    start = tl.cast(sample, tl.int64) * CHANNELS * pixels
    factor = tl.load(channel + sample * CHANNELS + c, c < CHANNELS, 0.).to(ACC)
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for first in range(0, pixels, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        place = (p * CHANNELS)[:, None] + c[None, :] if LAST else p[:, None] + (c * pixels)[None, :]
        inside = (p < pixels)[:, None] & (c < CHANNELS)[None, :]
        tile = tl.load(gradient + start + place, inside, 0.).to(ACC)
        total += tl.load(x + start + place, inside, 0.).to(ACC) * tile
        tl.store(gradient + start + place, (tile * factor[None, :]).to(gradient.dtype.element_ty), inside)
    tl.store(dchannel + sample * CHANNELS + c, tl.sum(total, 0).to(dchannel.dtype.element_ty), c < CHANNELS)


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
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        with torch.cuda.device_of(x):
            return backward(m, grad, needed)
    order = torch.channels_last if last else torch.contiguous_format
    grads: list[Tensor | None] = [None] * 7
    apart = m.shares_attention and not _is_depthwise(m)
    of_channel = needed[5] and apart
    if needed[0] or of_channel:
        grads[0] = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=order)
        _convolve(m._replace(channel_attention=None) if of_channel else m, grad, grads[0], True)
    if of_channel:
        grads[5] = _differentiate_scale(x.contiguous(memory_format=order), grads[0], m.channel_attention, last)
        grads[0] = grads[0] if needed[0] else None
    if needed[2]:
        grads[2] = grad.sum((0, 2, 3), dtype=accumulator(grad.dtype)).to(m.bias.dtype)
    if any(needed[i] for i in (1, 3, 4, 6)) or needed[5] and not apart:
        if apart:
            _differentiate_mixture(m, grad, needed, grads)
        else:
            _differentiate_kernels(m, _kernel_gradients(m, grad), needed, grads)
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


_recipes: dict[tuple, _Recipe] = Remembered()


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
        recipe = _recipes[key] = _make_recipe(m, x, y, transposed, last)
    batch = x.shape[0]
    if batch > recipe.samples:
        for start in range(0, batch, recipe.samples):
            part = slice(start, start + recipe.samples)
            _convolve(_samples(m, part), x[part], y[part], transposed)
        return None
    weight, bias, attention, spatial, channel, filter_, *of_norm = tensors
    x = x.contiguous(memory_format=torch.channels_last if recipe.x_last else torch.contiguous_format)
    before, scale = (filter_, channel) if transposed else (channel, filter_)
    kernels = torch.empty(recipe.kernel_shape, dtype=x.dtype, device=x.device)
    if recipe.one_kernel:
        if before is not None:
            features, x = x, torch.empty_like(x)
            recipe.scale(features, before, x)
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


def _is_pointwise(m: Mixture) -> bool:
    return (*m.weight.shape[3:], *m.stride, *m.padding) == (1, 1, 1, 1, 0, 0)


def _samples(m: Mixture, part: slice) -> Mixture:
    """The same for some of the samples."""
    attentions = [None if tensor is None else tensor[part] for tensor in m[3:7]]
    return Mixture(m.input[part], m.weight, m.bias, *attentions, *m[7:])


def _make_recipe(m: Mixture, x: Tensor, y: Tensor, transposed: bool, last: bool) -> _Recipe:
    n, out_channels, channels, *kernel_size = m.weight.shape
    batch, outputs, area = len(x), out_channels // m.groups, kernel_size[0] * kernel_size[1]
    size = out_channels * channels * area
    depthwise = _is_depthwise(m)
    before = m.filter_attention if transposed else m.channel_attention
    one = n == 1 and m.kernel_attention is None and m.shares_attention and not depthwise and (
        m.spatial_attention is before is None or takes_one_kernel(size, x))
    samples = batch if one else _samples_at_once(batch, size * x.dtype.itemsize)
    kernels = 1 if one else samples
    own = [not one and attention is not None and attention.dim() == 3 for attention in m[4:7]]
    n_block = triton.next_power_of_2(n)
    e_block = block(size // area, max(64, PACKED // (max(4, n_block) * PACKED_SAMPLES)), 16)
    e_blocks = triton.cdiv(size // area, e_block)
    at_once = max(1, min(kernels, kernels * e_blocks * area // PROGRAMS))  # the bank is read once for all of these
    s_block = block(at_once, PACKED_SAMPLES)
    acc = ACCUMULATORS[x.dtype]
    pack = Launch(_pack, (e_blocks, triton.cdiv(kernels, at_once), area), (kernels, at_once), dict(
        KERNELS=n, GROUPS=m.groups, CHANNELS=channels, OUTPUTS=outputs, AREA=area, OWN_SPATIAL=own[0],
        OWN_CHANNEL=own[1], OWN_FILTER=own[2], TRANSPOSED=transposed, ACC=acc, BLOCK_N=n_block, BLOCK_S=s_block,
        BLOCK_E=e_block),
        num_warps=4)
    geometry = (*kernel_size, *m.stride, *m.padding, *m.dilation)
    pointwise = _is_pointwise(m)
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
        CHANNELS=channels, LAST=last, WIDENED=widened(x.dtype), BLOCK_P=p, BLOCK_C=c), num_warps=4)


def _samples_at_once(batch: int, kernel_bytes: int) -> int:
    """How many of a batch, in about equal parts."""
    parts = triton.cdiv(batch, max(1, KERNEL_BYTES // kernel_bytes))
    return triton.cdiv(batch, parts)


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


def _differentiate_scale(x: Tensor, gradient: Tensor, channel: Tensor, last: bool) -> Tensor:
    """The gradient of α_c; that of the scaled features becomes, in place, that of the features."""
    channel = channel.contiguous()
    key = (x.shape, x.dtype, x.device, channel.dtype, last)
    found = _scale_gradients.get(key)
    if found is None:
        batch, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        c = block(channels, 64 if last else 4)
        found = _scale_gradients[key] = Launch(_scale_gradient, (batch * triton.cdiv(channels, c), 1, 1), (pixels, ),
                                               dict(CHANNELS=channels, LAST=last, ACC=ACCUMULATORS[x.dtype],
                                                    BLOCK_P=block(pixels, 32 if last else 512), BLOCK_C=c))
    dchannel = torch.empty_like(channel)
    found(x, gradient, channel, dchannel)
    return dchannel


_scale_gradients: dict[tuple, Launch] = Remembered()


def _kernel_gradients(m: Mixture, grad: Tensor) -> Tensor:
    """Of the convolution of sample b of the features by a kernel of its own.

    Returns:
        Tensor[batch, kernel area, out_channels, in_channels / groups], of the input's type; a depthwise one's of the
        accumulators'
    """
    out_channels, channels, *kernel_size = m.weight.shape[1:]
    depthwise, order = _is_depthwise(m), _order_of_gradients(m)
    x, dy = m.input.contiguous(memory_format=order), grad.contiguous(memory_format=order)
    result = torch.empty(len(x), math.prod(kernel_size), out_channels, channels, device=x.device,
                         dtype=accumulator(x.dtype) if depthwise else x.dtype)
    key = (x.shape, x.dtype, x.device, dy.shape, order, m.weight.shape, m[7:11], precision(x.dtype))
    found = _kernel_launches.get(key)
    if found is None:
        found = _kernel_launches[key] = _make_kernel_launch(m, dy, order)
    found(x, dy, result)
    return result


_kernel_launches: dict[tuple, Launch] = Remembered()


def _order_of_gradients(m: Mixture) -> torch.memory_format:
    """In which both maps are read."""
    last = is_channels_last(m.input) or not (_is_pointwise(m) or _is_depthwise(m))
    return torch.channels_last if last else torch.contiguous_format


def _make_kernel_launch(m: Mixture, dy: Tensor, order: torch.memory_format) -> Launch:
    out_channels, channels, *kernel_size = m.weight.shape[1:]
    x, outputs, pixels, area = m.input, out_channels // m.groups, dy.shape[2] * dy.shape[3], math.prod(kernel_size)
    geometry, last = (*kernel_size, *m.stride, *m.padding, *m.dilation), order is torch.channels_last
    sizes, acc = (*x.shape[2:], x.shape[2] * x.shape[3], dy.shape[3], pixels), ACCUMULATORS[x.dtype]
    if _is_depthwise(m):
        c = block(out_channels, 32 if last else 16)
        return Launch(_depthwise_gradient, (len(x) * triton.cdiv(out_channels, c), 1, 1), sizes, dict(
            CHANNELS=out_channels, GEOMETRY=geometry, LAST=last, ACC=acc, BLOCK_P=block(pixels, 128 if last else 64),
            BLOCK_C=c, BLOCK_T=triton.next_power_of_2(area)))
    half = x.dtype.itemsize == 2
    o, c = block(outputs, 128 if half else 64, 16), block(channels, 64, 16)
    programs = len(x) * m.groups * area * triton.cdiv(outputs, o) * triton.cdiv(channels, c)
    return Launch(_kernel_gradient, (programs, 1, 1), sizes, dict(
        GROUPS=m.groups, CHANNELS=channels, OUTPUTS=outputs, GEOMETRY=geometry,
        POINTWISE=_is_pointwise(m), LAST=last, ACC=acc, WIDENED=widened(x.dtype),
        PRECISION=precision(x.dtype), BLOCK_O=o, BLOCK_C=c, BLOCK_P=block(pixels, 64 if half else 32, 16)),
        num_warps=4, num_stages=3)


class _Contraction(NamedTuple):
    """How to contract the kernels' gradients of calls of certain sizes and types."""

    samples: int  # at a time
    blocks: int  # of samples, whose sums are written apart
    contract: Launch
    attentions: Launch


_contractions: dict[tuple, _Contraction] = Remembered()


def _differentiate_mixture(m: Mixture, grad: Tensor, needed: tuple[bool, ...], grads: list[Tensor | None]) -> None:
    """The gradients of the weight and, from attentions that all kernels share, of α_w, α_s and α_f."""
    x, weight = m.input, m.weight.contiguous()
    key: list = [x.shape, x.dtype, x.device, weight.shape, weight.dtype, m.groups, precision(x.dtype)]
    attentions = []
    for tensor, needs in zip(m[3:7], needed[3:7]):
        key.append(None if tensor is None else (tensor.dtype, needs))
        attentions.append(tensor if tensor is None else tensor.contiguous())
    key = tuple(key)
    recipe = _contractions.get(key)
    if recipe is None:
        recipe = _contractions[key] = _make_contraction(m)
    if len(x) > recipe.samples:
        _differentiate_parts(m, grad, needed, grads, recipe.samples)
        return
    attention, spatial, channel, filter_ = attentions
    acc, (n, out_channels, _, *kernel_size) = accumulator(x.dtype), weight.shape
    dkernels = _kernel_gradients(m, grad)
    dweight = torch.empty(recipe.blocks, *weight.shape, dtype=weight.dtype if recipe.blocks == 1 else acc,
                          device=x.device)
    products = torch.empty(len(x), n, math.prod(kernel_size), out_channels, dtype=acc, device=x.device)
    recipe.contract(dkernels, weight, attention, spatial, channel, filter_, dweight, products)
    if needed[1]:
        grads[1] = dweight[0] if recipe.blocks == 1 else dweight.sum(0).to(weight.dtype)
    for index, tensor in ((3, attention), (4, spatial), (6, filter_)):
        if needed[index]:
            grads[index] = torch.empty_like(tensor)
    if needed[3] or needed[4] or needed[6]:
        recipe.attentions(products, attention, spatial, filter_, grads[3], grads[4], grads[6])


def _differentiate_parts(m: Mixture, grad: Tensor, needed: tuple[bool, ...], grads: list[Tensor | None],
                         samples: int) -> None:
    """The same for so many samples at a time."""
    parts: list[list[Tensor | None]] = []
    wide = m._replace(weight=m.weight.to(accumulator(m.input.dtype)))  # its gradients are added up in that type
    for start in range(0, len(m.input), samples):
        part = slice(start, start + samples)
        parts.append([None] * 7)
        _differentiate_mixture(_samples(wide, part), grad[part], needed, parts[-1])
    if needed[1]:
        total = parts[0][1]
        for own in parts[1:]:
            total += own[1]
        grads[1] = total.to(m.weight.dtype)
    for index in (3, 4, 6):
        if needed[index]:
            grads[index] = torch.cat([own[index] for own in parts])


def _make_contraction(m: Mixture) -> _Contraction:
    n, out_channels, channels, *kernel_size = m.weight.shape
    x, area = m.input, math.prod(kernel_size)
    samples = _samples_at_once(len(x), m.weight[0].numel() * x.dtype.itemsize)
    b = block(len(x), 128 if x.dtype.itemsize == 2 else 64, 16)
    blocks, n_block = triton.cdiv(len(x), b), triton.next_power_of_2(n)
    contract = Launch(_contract, (out_channels * area * blocks, 1, 1), (len(x), ), dict(
        KERNELS=n, GROUPS=m.groups, CHANNELS=channels, OUT_CHANNELS=out_channels, AREA=area,
        ACC=ACCUMULATORS[x.dtype], WIDENED=widened(x.dtype), PRECISION=precision(x.dtype),
        BLOCK_N=max(16, n_block), BLOCK_B=b, BLOCK_C=block(channels, 64, 16)), num_warps=4, num_stages=2)
    t_block = triton.next_power_of_2(area)
    attentions = Launch(_attention_gradients, (len(x), 1, 1), (), dict(
        KERNELS=n, OUT_CHANNELS=out_channels, AREA=area, ACC=ACCUMULATORS[x.dtype], BLOCK_N=n_block, BLOCK_T=t_block,
        BLOCK_O=block(out_channels, max(16, 4096 // (n_block * t_block)))), num_warps=4)
    return _Contraction(samples, blocks, contract, attentions)


def _differentiate_kernels(m: Mixture, dkernels: Tensor, needed: tuple[bool, ...], grads: list[Tensor | None]) -> None:
    """From gradients of all samples' kernels, which autograd contracts: of attentions that each kernel has of its own,
    and of depthwise kernels, which are small."""
    dtype = accumulator(m.input.dtype)
    kernels_shape = m.input.shape[0], *m.weight.shape[1:]
    dkernels = dkernels.movedim(1, -1).reshape(kernels_shape).to(dtype)
    others = [index for index in (1, 3, 4, 5, 6) if needed[index]]
    tensors = [value.to(dtype) if index in (1, 3, 4, 5, 6) and value is not None else value
               for index, value in enumerate(m)]
    leaves = [tensors[index].detach().requires_grad_() for index in others]
    for index, leaf in zip(others, leaves):
        tensors[index] = leaf
    with torch.enable_grad():
        kernels = sample_kernels(Mixture(*tensors))
    for index, gradient in zip(others, torch.autograd.grad(kernels, leaves, dkernels)):
        grads[index] = gradient.to(m[index].dtype)

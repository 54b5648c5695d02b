"""Attentions in three launches, for inference: a mean, a product, and a norm with all heads.

Each of some 15 operators takes longer to be called than to compute.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention import Attention, parameters_of
from ...batch_norm import NO_NORM, batch_norm_of
from ...operator import REMEMBERED, is_channels_last, is_inference
from .common import ACCUMULATORS, Launch, block, normalized, runs_on

MOST_HEADS = 4
# The widest hidden vector that a program holds, and how many outputs it computes.
MOST_HIDDEN = 256
BLOCK_L = 64


@triton.jit
def _pool(x, pooled, pixels, CHANNELS: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr, BLOCK_P: tl.constexpr,
          BLOCK_C: tl.constexpr):
    """A sample's mean over the pixels, for a block of channels."""
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    c, sample = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C), tl.program_id(0) // c_blocks
    x += tl.cast(sample, tl.int64) * CHANNELS * pixels
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for first in range(0, pixels, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        address = (x + p * CHANNELS)[:, None] + c[None, :] if LAST else (x + p)[:, None] + (c * pixels)[None, :]
        total += tl.load(address, (p < pixels)[:, None] & (c < CHANNELS)[None, :], 0.).to(ACC)
    tl.store(pooled + sample * CHANNELS + c, (tl.sum(total, 0) / pixels).to(pooled.dtype.element_ty), c < CHANNELS)


@triton.jit(do_not_specialize=['batch'])
def _squeeze(pooled, weight, bias, hidden, batch, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, ACC: tl.constexpr,
             BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    """The first fully connected layer for a block of samples and of its outputs."""
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    total = tl.zeros([BLOCK_B, BLOCK_H], ACC)
    for first in range(0, CHANNELS, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        tile = tl.load(pooled + b[:, None] * CHANNELS + c[None, :], (b < batch)[:, None] & (c < CHANNELS)[None, :], 0.)
        fc = tl.load(weight + h[:, None] * CHANNELS + c[None, :], (h < HIDDEN)[:, None] & (c < CHANNELS)[None, :], 0.)
        total = tl.dot(tile.to(ACC), tl.trans(fc.to(ACC)), total, input_precision='ieee', out_dtype=ACC)
    if bias is not None:
        total += tl.load(bias + h, h < HIDDEN, 0.).to(ACC)[None, :]
    tl.store(hidden + b[:, None] * HIDDEN + h[None, :], total.to(hidden.dtype.element_ty),
             (b < batch)[:, None] & (h < HIDDEN)[None, :])


@triton.jit
def _head(hidden, weight, bias, temperature, y, b, batch, first, LENGTH: tl.constexpr, SOFTMAX: tl.constexpr,
          HIDDEN: tl.constexpr, ACC: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr):
    """A block of one attention of hidden vectors [b, h]."""
    h, length = tl.arange(0, BLOCK_H), first * BLOCK_L + tl.arange(0, BLOCK_L)
    inside = length < LENGTH
    tile = tl.load(weight + length[:, None] * HIDDEN + h[None, :], inside[:, None] & (h < HIDDEN)[None, :], 0.)
    logits = tl.dot(hidden, tl.trans(tile.to(ACC)), input_precision='ieee', out_dtype=ACC)
    if bias is not None:
        logits += tl.load(bias + length, inside, 0.).to(ACC)[None, :]
    logits /= tl.load(temperature).to(ACC)
    if SOFTMAX:
        logits = tl.where(inside[None, :], logits, -float('inf'))
        power = tl.exp(logits - tl.max(logits, 1)[:, None])
        result = power / tl.sum(power, 1)[:, None]
    else:
        result = 1 / (1 + tl.exp(-logits))
    tl.store(y + b[:, None] * LENGTH + length[None, :], result.to(y.dtype.element_ty),
             (b < batch)[:, None] & inside[None, :])


@triton.jit(do_not_specialize=['batch'])
def _attend(hidden, mean, var, norm_weight, norm_bias, temperature, weight0, bias0, y0, weight1, bias1, y1,
            weight2, bias2, y2, weight3, bias3, y3, batch,
            HIDDEN: tl.constexpr, EPS: tl.constexpr, LENGTHS: tl.constexpr, SOFTMAX: tl.constexpr,
            BLOCKS: tl.constexpr, ACC: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
            BLOCK_L: tl.constexpr):
    """The norm, the activation, and one block of one head for some samples; ``BLOCKS``: where each head's begin."""
    b, h = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_H)
    h_inside = h < HIDDEN
    values = tl.load(hidden + b[:, None] * HIDDEN + h[None, :], (b < batch)[:, None] & h_inside[None, :], 0.).to(ACC)
    values = normalized(values, mean, var, norm_weight, norm_bias, h, h_inside, EPS, ACC)
    values = tl.where(h_inside[None, :], tl.maximum(values, 0.), 0.)
    part = tl.program_id(1)
    if part < BLOCKS[1]:
        _head(values, weight0, bias0, temperature, y0, b, batch, part, LENGTHS[0], SOFTMAX[0], HIDDEN, ACC, BLOCK_H,
              BLOCK_L)
    if LENGTHS[1] > 0:  # noqa: SIM102 (the outer one is decided by the compiler)
        if (part >= BLOCKS[1]) & (part < BLOCKS[2]):
            _head(values, weight1, bias1, temperature, y1, b, batch, part - BLOCKS[1], LENGTHS[1], SOFTMAX[1], HIDDEN,
                  ACC, BLOCK_H, BLOCK_L)
    if LENGTHS[2] > 0:  # noqa: SIM102 (the outer one is decided by the compiler)
        if (part >= BLOCKS[2]) & (part < BLOCKS[3]):
            _head(values, weight2, bias2, temperature, y2, b, batch, part - BLOCKS[2], LENGTHS[2], SOFTMAX[2], HIDDEN,
                  ACC, BLOCK_H, BLOCK_L)
    if LENGTHS[3] > 0:  # noqa: SIM102 (the outer one is decided by the compiler)
        if part >= BLOCKS[3]:
            _head(values, weight3, bias3, temperature, y3, b, batch, part - BLOCKS[3], LENGTHS[3], SOFTMAX[3], HIDDEN,
                  ACC, BLOCK_H, BLOCK_L)


class _Launches(NamedTuple):
    """The three, for calls of certain sizes and types."""

    pool: Launch
    squeeze: Launch
    attend: Launch


_launches: dict[tuple, _Launches] = {}


def attention(call: Attention) -> dict[str, Tensor] | None:
    """The attentions of a call, or None where the kernels do not serve."""
    x, fc, norm, heads, temperature, pool_size = call
    of_norm, own = NO_NORM if norm is None else batch_norm_of(norm), parameters_of(fc)
    if of_norm is None or own is None or pool_size > 1 or len(heads) > MOST_HEADS or x.shape[0] == 0:
        return None
    tensors, lengths, softmax = [own['weight'], own['bias'], *of_norm[:4], temperature], [], []
    hidden_channels = own['weight'].shape[0]
    for head in heads.values():
        of_head = parameters_of(head.fc)
        if of_head is None:
            return None
        length = of_head['weight'].shape[0]
        if head.softmax and (length > BLOCK_L or head.copies > 1):
            return None
        tensors += of_head['weight'], of_head['bias']
        lengths.append(length)
        softmax.append(head.softmax)
    if hidden_channels > MOST_HIDDEN or not is_inference(x, *tensors):
        return None
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        with torch.cuda.device_of(x):
            return attention(call)
    shape = x.shape
    batch, channels = shape[:2]
    last = not x.is_contiguous() and is_channels_last(x)
    if not last:
        x = x.contiguous()
    key: list = [shape, last, x.dtype, x.device, hidden_channels, of_norm[4], *lengths, *softmax]
    for index, tensor in enumerate(tensors):
        if tensor is None:
            key.append(None)
        else:
            key.append(tensor.dtype)
            if not tensor.is_contiguous():
                tensors[index] = tensor.contiguous()
    key = tuple(key)
    launches = _launches.get(key)
    if launches is None:
        if not runs_on(x, *tensors):
            return None
        if len(_launches) >= REMEMBERED:
            _launches.clear()
        launches = _launches[key] = _make_launches(x, last, temperature.dtype, hidden_channels, lengths, softmax,
                                                   of_norm[4])
    # one piece of memory for both: an allocation takes as long as a small kernel
    inner = temperature.new_empty(batch * (channels + hidden_channels))
    pooled, hidden = inner[:batch * channels], inner[batch * channels:]
    launches.pool(x, pooled)
    launches.squeeze(pooled, *tensors[:2], hidden)
    results, arguments = {}, tensors[2:7]
    for index, (name, head) in enumerate(heads.items()):
        result = temperature.new_empty(batch, lengths[index])
        arguments += tensors[7 + 2 * index], tensors[8 + 2 * index], result
        results[name] = result if head.copies == 1 else result.unflatten(1, (head.copies, -1))
    launches.attend(hidden, *arguments, *[None] * (3 * (MOST_HEADS - len(heads))))
    return results


def _make_launches(x: Tensor, last: bool, dtype: torch.dtype, hidden: int, lengths: list[int], softmax: list[bool],
                   eps: float) -> _Launches:
    batch, channels, *size = x.shape
    pixels, missing, acc = size[0] * size[1], MOST_HEADS - len(lengths), ACCUMULATORS[dtype]
    c = block(channels, 64 if last else 4)
    p = block(pixels, 64 if last else 512)
    pool = Launch(_pool, (batch * triton.cdiv(channels, c), 1, 1), (pixels, ), dict(
        CHANNELS=channels, LAST=last, ACC=acc, BLOCK_P=p, BLOCK_C=c), num_warps=4)
    samples, outputs = triton.cdiv(batch, 16), block(hidden, 16, 16)
    squeeze = Launch(_squeeze, (samples, triton.cdiv(hidden, outputs), 1), (batch, ), dict(
        CHANNELS=channels, HIDDEN=hidden, ACC=acc, BLOCK_B=16, BLOCK_H=outputs, BLOCK_C=block(channels, 128, 16)),
        num_warps=4)
    starts = [0]
    for length in [*lengths, *[0] * missing]:
        starts.append(starts[-1] + triton.cdiv(length, BLOCK_L))
    attend = Launch(_attend, (samples, starts[-1], 1), (batch, ), dict(
        HIDDEN=hidden, EPS=eps, LENGTHS=(*lengths, *[0] * missing), SOFTMAX=(*softmax, *[False] * missing),
        BLOCKS=tuple(starts[:4]), ACC=acc, BLOCK_B=16, BLOCK_H=block(hidden, MOST_HIDDEN, 16), BLOCK_L=BLOCK_L),
        num_warps=4)
    return _Launches(pool, squeeze, attend)

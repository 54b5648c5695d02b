"""Attentions in few launches, as each of some 15 operators takes longer to be called than to compute.

In inference they are three: a mean, a product, and a norm with all heads. Where gradients are needed, all heads are
one, and two backward; the norm, which may be any module, is called as it is.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from ...attention import Attention, normalized_vector, parameters_of
from ...batch_norm import NO_NORM, batch_norm_of
from ...operator import Backend, Operator, full_precision, is_channels_last, is_inference
from .common import ACCUMULATORS, PROGRAMS, Launch, Remembered, accumulator, block, normalized, runs_on

MOST_HEADS = 4
# The widest hidden vector that a program holds, and how many outputs it computes.
MOST_HIDDEN = 256
BLOCK_L = 64
MOST_PARTS = 8
"""In which the pixels are added up, where there are few samples and channels."""


@triton.jit
def _pool(x, pooled, pixels, CHANNELS: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr, PARTS: tl.constexpr,
          BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """A part of a sample's mean over the pixels, for a block of channels: [sample, part, channel]."""
    c_blocks: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    c, row = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C), tl.program_id(0) // c_blocks
    x += tl.cast(row // PARTS, tl.int64) * CHANNELS * pixels
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for first in range(row % PARTS * BLOCK_P, pixels, PARTS * BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        address = (x + p * CHANNELS)[:, None] + c[None, :] if LAST else (x + p)[:, None] + (c * pixels)[None, :]
        total += tl.load(address, (p < pixels)[:, None] & (c < CHANNELS)[None, :], 0.).to(ACC)
    tl.store(pooled + row * CHANNELS + c, (tl.sum(total, 0) / pixels).to(pooled.dtype.element_ty), c < CHANNELS)


@triton.jit(do_not_specialize=['batch'])
def _squeeze(pooled, weight, bias, hidden, batch, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, PARTS: tl.constexpr,
             ACC: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    """The first fully connected layer for a block of samples and of its outputs."""
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    total = tl.zeros([BLOCK_B, BLOCK_H], ACC)
    for first in range(0, CHANNELS, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        shown = (b < batch)[:, None] & (c < CHANNELS)[None, :]
        tile = tl.load(pooled + (b * (PARTS * CHANNELS))[:, None] + c[None, :], shown, 0.)
        for part in tl.static_range(1, PARTS):
            tile += tl.load(pooled + (b * (PARTS * CHANNELS) + part * CHANNELS)[:, None] + c[None, :], shown, 0.)
        fc = tl.load(weight + h[:, None] * CHANNELS + c[None, :], (h < HIDDEN)[:, None] & (c < CHANNELS)[None, :], 0.)
        total = tl.dot(tile.to(ACC), tl.trans(fc.to(ACC)), total, input_precision='ieee', out_dtype=ACC)
    if bias is not None:
        total += tl.load(bias + h, h < HIDDEN, 0.).to(ACC)[None, :]
    tl.store(hidden + b[:, None] * HIDDEN + h[None, :], total.to(hidden.dtype.element_ty),
             (b < batch)[:, None] & (h < HIDDEN)[None, :])


@triton.jit
def _activated(hidden, weight, bias, temperature, index, h, length, SOFTMAX: tl.constexpr, HIDDEN: tl.constexpr,
               ACC: tl.constexpr):
    """A block of one attention, [b, index], of hidden vectors [b, h]; it has ``length`` elements."""
    inside = index < length
    tile = tl.load(weight + index[:, None] * HIDDEN + h[None, :], inside[:, None] & (h < HIDDEN)[None, :], 0.)
    logits = tl.dot(hidden, tl.trans(tile.to(ACC)), input_precision='ieee', out_dtype=ACC)
    if bias is not None:
        logits += tl.load(bias + index, inside, 0.).to(ACC)[None, :]
    logits /= tl.load(temperature).to(ACC)
    if SOFTMAX:
        logits = tl.where(inside[None, :], logits, -float('inf'))
        power = tl.exp(logits - tl.max(logits, 1)[:, None])
        result = power / tl.sum(power, 1)[:, None]
    else:
        result = 1 / (1 + tl.exp(-logits))
    return result


@triton.jit
def _head(hidden, weight, bias, temperature, y, b, batch, part, length, SOFTMAX: tl.constexpr, HIDDEN: tl.constexpr,
          ACC: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr):
    """A block of one attention of hidden vectors [b, h]."""
    h, index = tl.arange(0, BLOCK_H), part * BLOCK_L + tl.arange(0, BLOCK_L)
    result = _activated(hidden, weight, bias, temperature, index, h, length, SOFTMAX, HIDDEN, ACC)
    tl.store(y + b[:, None] * length + index[None, :], result.to(y.dtype.element_ty),
             (b < batch)[:, None] & (index < length)[None, :])


# lengths are no constants: else each layer of a network would have kernels of its own to compile
@triton.jit(do_not_specialize=['batch', 'length0', 'length1', 'length2', 'length3'])
def _attend(hidden, mean, var, norm_weight, norm_bias, temperature, weight0, bias0, y0, weight1, bias1, y1,
            weight2, bias2, y2, weight3, bias3, y3, batch, length0, length1, length2, length3,
            HIDDEN: tl.constexpr, EPS: tl.constexpr, SOFTMAX: tl.constexpr, ACC: tl.constexpr, BLOCK_B: tl.constexpr,
            BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr):
    """The norm, the activation, and one block of one head for some samples."""
    b, h = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_H)
    h_inside = h < HIDDEN
    values = tl.load(hidden + b[:, None] * HIDDEN + h[None, :], (b < batch)[:, None] & h_inside[None, :], 0.).to(ACC)
    values = normalized(values, mean, var, norm_weight, norm_bias, h, h_inside, EPS, ACC)
    values = tl.where(h_inside[None, :], tl.maximum(values, 0.), 0.)
    part = tl.program_id(1)
    if part < tl.cdiv(length0, BLOCK_L):
        _head(values, weight0, bias0, temperature, y0, b, batch, part, length0, SOFTMAX[0], HIDDEN, ACC, BLOCK_H,
              BLOCK_L)
    if weight1 is not None:
        part -= tl.cdiv(length0, BLOCK_L)
        if (part >= 0) & (part < tl.cdiv(length1, BLOCK_L)):
            _head(values, weight1, bias1, temperature, y1, b, batch, part, length1, SOFTMAX[1], HIDDEN, ACC, BLOCK_H,
                  BLOCK_L)
    if weight2 is not None:
        part -= tl.cdiv(length1, BLOCK_L)
        if (part >= 0) & (part < tl.cdiv(length2, BLOCK_L)):
            _head(values, weight2, bias2, temperature, y2, b, batch, part, length2, SOFTMAX[2], HIDDEN, ACC, BLOCK_H,
                  BLOCK_L)
    if weight3 is not None:
        part -= tl.cdiv(length2, BLOCK_L)
        if part >= 0:
            _head(values, weight3, bias3, temperature, y3, b, batch, part, length3, SOFTMAX[3], HIDDEN, ACC, BLOCK_H,
                  BLOCK_L)


@triton.jit
def _head_gradient(hidden, weight, bias, temperature, dy, dlogits, dweight, dbias, batch, part, length, total,
                   SOFTMAX: tl.constexpr, HIDDEN: tl.constexpr, ACC: tl.constexpr, BLOCK_B: tl.constexpr,
                   BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr):
    """The gradients of a block of one attention's weight, bias and logits, [b, total]."""
    h, index = tl.arange(0, BLOCK_H), part * BLOCK_L + tl.arange(0, BLOCK_L)
    inside, h_inside = index < length, h < HIDDEN
    of_weight, of_bias = tl.zeros([BLOCK_L, BLOCK_H], ACC), tl.zeros([BLOCK_L], ACC)
    for start in range(0, batch, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        shown = (b < batch)[:, None] & inside[None, :]
        values = tl.load(hidden + b[:, None] * HIDDEN + h[None, :], (b < batch)[:, None] & h_inside[None, :], 0.)
        values = tl.maximum(values.to(ACC), 0.)
        result = _activated(values, weight, bias, temperature, index, h, length, SOFTMAX, HIDDEN, ACC)
        gradient = tl.load(dy + b[:, None] * length + index[None, :], shown, 0.).to(ACC)
        if SOFTMAX:
            gradient = result * (gradient - tl.sum(result * gradient, 1)[:, None])
        else:
            gradient *= result * (1 - result)
        gradient = tl.where(shown, gradient / tl.load(temperature).to(ACC), 0.)
        tl.store(dlogits + b[:, None] * total + index[None, :], gradient, shown)
        of_weight = tl.dot(tl.trans(gradient), values, of_weight, input_precision='ieee', out_dtype=ACC)
        of_bias += tl.sum(gradient, 0)
    tl.store(dweight + index[:, None] * HIDDEN + h[None, :], of_weight.to(dweight.dtype.element_ty),
             inside[:, None] & h_inside[None, :])
    if dbias is not None:
        tl.store(dbias + index, of_bias.to(dbias.dtype.element_ty), inside)


@triton.jit(do_not_specialize=['batch', 'length0', 'length1', 'length2', 'length3'])
def _heads_gradient(hidden, temperature, weight0, bias0, dy0, dweight0, dbias0, weight1, bias1, dy1, dweight1, dbias1,
                    weight2, bias2, dy2, dweight2, dbias2, weight3, bias3, dy3, dweight3, dbias3, dlogits,
                    batch, length0, length1, length2, length3, HIDDEN: tl.constexpr, SOFTMAX: tl.constexpr,
                    ACC: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr):
    """One block of one head, for all samples."""
    part, total = tl.program_id(0), length0 + length1 + length2 + length3
    if part < tl.cdiv(length0, BLOCK_L):
        _head_gradient(hidden, weight0, bias0, temperature, dy0, dlogits, dweight0, dbias0, batch, part, length0, total,
                       SOFTMAX[0], HIDDEN, ACC, BLOCK_B, BLOCK_H, BLOCK_L)
    if weight1 is not None:
        part -= tl.cdiv(length0, BLOCK_L)
        if (part >= 0) & (part < tl.cdiv(length1, BLOCK_L)):
            _head_gradient(hidden, weight1, bias1, temperature, dy1, dlogits + length0, dweight1, dbias1, batch, part,
                           length1, total, SOFTMAX[1], HIDDEN, ACC, BLOCK_B, BLOCK_H, BLOCK_L)
    if weight2 is not None:
        part -= tl.cdiv(length1, BLOCK_L)
        if (part >= 0) & (part < tl.cdiv(length2, BLOCK_L)):
            _head_gradient(hidden, weight2, bias2, temperature, dy2, dlogits + length0 + length1, dweight2, dbias2,
                           batch, part, length2, total, SOFTMAX[2], HIDDEN, ACC, BLOCK_B, BLOCK_H, BLOCK_L)
    if weight3 is not None:
        part -= tl.cdiv(length2, BLOCK_L)
        if part >= 0:
            _head_gradient(hidden, weight3, bias3, temperature, dy3, dlogits + length0 + length1 + length2, dweight3,
                           dbias3, batch, part, length3, total, SOFTMAX[3], HIDDEN, ACC, BLOCK_B, BLOCK_H, BLOCK_L)


@triton.jit
def _through_head(gradient, dlogits, weight, b, h, batch, length, total, HIDDEN: tl.constexpr, ACC: tl.constexpr,
                  BLOCK_L: tl.constexpr):
    """What an attention's logits add to the gradient of the hidden vectors."""
    for first in range(0, length, BLOCK_L):
        index = first + tl.arange(0, BLOCK_L)
        inside = index < length
        tile = tl.load(dlogits + b[:, None] * total + index[None, :], (b < batch)[:, None] & inside[None, :], 0.)
        fc = tl.load(weight + index[:, None] * HIDDEN + h[None, :], inside[:, None] & (h < HIDDEN)[None, :], 0.)
        gradient = tl.dot(tile, fc.to(ACC), gradient, input_precision='ieee', out_dtype=ACC)
    return gradient


@triton.jit(do_not_specialize=['batch', 'length0', 'length1', 'length2', 'length3'])
def _hidden_gradient(dlogits, hidden, weight0, weight1, weight2, weight3, dhidden,
                     batch, length0, length1, length2, length3, HIDDEN: tl.constexpr, ACC: tl.constexpr,
                     BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr):
    """The gradient of a block of what comes out of the norm, through the activation."""
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    gradient, total = tl.zeros([BLOCK_B, BLOCK_H], ACC), length0 + length1 + length2 + length3
    gradient = _through_head(gradient, dlogits, weight0, b, h, batch, length0, total, HIDDEN, ACC, BLOCK_L)
    if weight1 is not None:
        dlogits += length0
        gradient = _through_head(gradient, dlogits, weight1, b, h, batch, length1, total, HIDDEN, ACC, BLOCK_L)
    if weight2 is not None:
        dlogits += length1
        gradient = _through_head(gradient, dlogits, weight2, b, h, batch, length2, total, HIDDEN, ACC, BLOCK_L)
    if weight3 is not None:
        dlogits += length2
        gradient = _through_head(gradient, dlogits, weight3, b, h, batch, length3, total, HIDDEN, ACC, BLOCK_L)
    place, shown = b[:, None] * HIDDEN + h[None, :], (b < batch)[:, None] & (h < HIDDEN)[None, :]
    gradient = tl.where(tl.load(hidden + place, shown, 0.) > 0, gradient, 0.)
    tl.store(dhidden + place, gradient.to(dhidden.dtype.element_ty), shown)


class Heads(NamedTuple):
    """The arguments of all heads of an attention: the hidden vectors before their activation, and so on."""

    hidden: Tensor
    temperature: Tensor
    weight0: Tensor
    bias0: Tensor | None
    weight1: Tensor | None
    bias1: Tensor | None
    weight2: Tensor | None
    bias2: Tensor | None
    weight3: Tensor | None
    bias3: Tensor | None
    softmax: tuple[bool, ...]
    """Of each head that there is."""


def _reference(call: Heads) -> tuple[Tensor, ...]:
    hidden, temperature, attentions = F.relu(call.hidden), call.temperature, []
    for index, softmax in enumerate(call.softmax):
        weight, bias = call[2 + 2 * index:4 + 2 * index]
        logits = F.linear(hidden, weight.flatten(1), bias) / temperature
        attentions.append(logits.softmax(-1) if softmax else logits.sigmoid())
    return tuple(attentions)


class _Launches(NamedTuple):
    """The three, for calls of certain sizes and types."""

    parts: int
    pool: Launch
    squeeze: Launch
    attend: Launch


class _HeadLaunches(NamedTuple):
    """Those of heads alone, forward and backward."""

    attend: Launch
    heads: Launch
    hidden: Launch
    total: int  # logits of all


_launches: dict[tuple, _Launches] = Remembered()
_head_launches: dict[tuple, _HeadLaunches] = Remembered()


def attention(call: Attention) -> dict[str, Tensor] | None:
    """The attentions of a call, or None where the kernels do not serve."""
    x, fc, norm, heads, temperature, pool_size = call
    if pool_size > 1 or len(heads) > MOST_HEADS or x.shape[0] == 0 or not heads:
        return None
    of_heads, lengths, softmax = [], [], []
    for head in heads.values():
        of_head = parameters_of(head.fc)
        if of_head is None:
            return None
        weight = of_head['weight']
        if head.softmax and (len(weight) > BLOCK_L or head.copies > 1) or weight.shape[1] > MOST_HIDDEN:
            return None
        of_heads += weight, of_head['bias']
        lengths.append(len(weight))
        softmax.append(head.softmax)
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        with torch.cuda.device_of(x):
            return attention(call)
    of_norm, own = NO_NORM if norm is None else batch_norm_of(norm), parameters_of(fc)
    if own is not None and of_norm is not None:
        tensors = [own['weight'], own['bias'], *of_norm[:4], temperature, *of_heads]
        if is_inference(x, *tensors):
            return _infer(call, tensors, of_norm[4], lengths, softmax)
    missing = [None] * (2 * (MOST_HEADS - len(heads)))
    with full_precision(x):
        results = HEADS.run(Heads(normalized_vector(call, False), temperature, *of_heads, *missing, tuple(softmax)),
                            'triton')
    return {name: result if head.copies == 1 else result.unflatten(1, (head.copies, -1))
            for (name, head), result in zip(heads.items(), results)}


def _infer(call: Attention, tensors: list[Tensor | None], eps: float, lengths: list[int],
           softmax: list[bool]) -> dict[str, Tensor] | None:
    """All that is in an attention, by three launches."""
    x, heads, temperature = call.input, call.heads, call.temperature
    shape, hidden_channels = x.shape, tensors[0].shape[0]
    batch, channels = shape[:2]
    last = not x.is_contiguous() and is_channels_last(x)
    if not last:
        x = x.contiguous()
    key: list = [shape, last, x.dtype, x.device, hidden_channels, eps, *lengths, *softmax]
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
        launches = _launches[key] = _make_launches(x, last, temperature.dtype, hidden_channels, lengths, softmax, eps)
    # one piece of memory for both: an allocation takes as long as a small kernel
    inner = temperature.new_empty(batch * (launches.parts * channels + hidden_channels))
    pooled, hidden = inner[:batch * launches.parts * channels], inner[batch * launches.parts * channels:]
    launches.pool(x, pooled)
    launches.squeeze(pooled, *tensors[:2], hidden)
    results, arguments = {}, tensors[2:7]
    for index, (name, head) in enumerate(heads.items()):
        result = temperature.new_empty(batch, lengths[index])
        arguments += tensors[7 + 2 * index], tensors[8 + 2 * index], result
        results[name] = result if head.copies == 1 else result.unflatten(1, (head.copies, -1))
    launches.attend(hidden, *arguments, *[None] * (3 * (MOST_HEADS - len(heads))))
    return results


def _attend_heads(call: Heads) -> tuple[Tensor, ...]:
    hidden, of_heads, launches = _prepared(call)
    results = tuple([call.temperature.new_empty(len(hidden), len(of_heads[2 * index]))
                     for index in range(len(call.softmax))])
    arguments: list[Tensor | None] = []
    for index in range(MOST_HEADS):
        arguments += *of_heads[2 * index:2 * index + 2], results[index] if index < len(results) else None
    launches.attend(hidden, *[None] * 4, call.temperature, *arguments)
    return results


def _differentiate_heads(call: Heads, grads: tuple[Tensor, ...], needed: tuple[bool, ...]) -> list[Tensor | None]:
    hidden, of_heads, launches = _prepared(call)
    dlogits = torch.empty(len(hidden), launches.total, dtype=accumulator(hidden.dtype), device=hidden.device)
    result: list[Tensor | None] = [torch.empty_like(hidden), None]
    arguments: list[Tensor | None] = []
    for index in range(MOST_HEADS):
        weight, bias = own = of_heads[2 * index:2 * index + 2]
        of_own = [None if tensor is None else torch.empty_like(tensor) for tensor in own]
        arguments += weight, bias, grads[index].contiguous() if index < len(grads) else None, *of_own
        result += of_own
    launches.heads(hidden, call.temperature, *arguments, dlogits)
    launches.hidden(dlogits, hidden, *of_heads[::2], result[0])
    return [gradient if needs else None for gradient, needs in zip(result, needed)]


def _refuses_heads(call: Heads) -> str | None:
    if call.temperature.requires_grad:
        return 'a temperature that is learned'
    return None if runs_on(*call[:-1]) else 'tensors that are not on a GPU, or of another type'


HEADS = Operator(2 + 2 * MOST_HEADS, _reference)
HEADS.backends['triton'] = Backend(_attend_heads, _refuses_heads, _differentiate_heads)


def _prepared(call: Heads) -> tuple[Tensor, list[Tensor | None], _HeadLaunches]:
    """The hidden vectors and the heads' tensors as the kernels read them, and the launches."""
    hidden = call.hidden.contiguous()
    key: list = [hidden.shape, hidden.dtype, hidden.device, call.temperature.dtype, call.softmax]
    of_heads: list[Tensor | None] = []
    for tensor in call[2:-1]:
        key.append(None if tensor is None else (tensor.dtype, tensor.shape))
        of_heads.append(tensor if tensor is None else tensor.contiguous())
    key = tuple(key)
    launches = _head_launches.get(key)
    if launches is None:
        launches = _head_launches[key] = _make_head_launches(call)
    return hidden, of_heads, launches


def _make_launches(x: Tensor, last: bool, dtype: torch.dtype, hidden: int, lengths: list[int], softmax: list[bool],
                   eps: float) -> _Launches:
    batch, channels, *size = x.shape
    pixels, acc = size[0] * size[1], ACCUMULATORS[dtype]
    c = block(channels, 64 if last else 4)
    p = block(pixels, 64 if last else 512)
    programs = batch * triton.cdiv(channels, c)
    parts = max(1, min(MOST_PARTS, PROGRAMS // programs, triton.cdiv(pixels, p)))
    pool = Launch(_pool, (programs * parts, 1, 1), (pixels, ), dict(
        CHANNELS=channels, LAST=last, ACC=acc, PARTS=parts, BLOCK_P=p, BLOCK_C=c), num_warps=4)
    samples, outputs = triton.cdiv(batch, 16), block(hidden, 16, 16)
    squeeze = Launch(_squeeze, (samples, triton.cdiv(hidden, outputs), 1), (batch, ), dict(
        CHANNELS=channels, HIDDEN=hidden, PARTS=parts, ACC=acc, BLOCK_B=16, BLOCK_H=outputs,
        BLOCK_C=block(channels, 128, 16)), num_warps=4)
    return _Launches(parts, pool, squeeze, _make_attend(batch, acc, hidden, lengths, softmax, eps))


def _make_attend(batch: int, acc: tl.dtype, hidden: int, lengths: list[int], softmax: list[bool],
                 eps: float) -> Launch:
    blocks, missing = sum(triton.cdiv(length, BLOCK_L) for length in lengths), MOST_HEADS - len(lengths)
    return Launch(_attend, (triton.cdiv(batch, 16), blocks, 1), (batch, *lengths, *[0] * missing), dict(
        HIDDEN=hidden, EPS=eps, SOFTMAX=(*softmax, *[False] * missing), ACC=acc, BLOCK_B=16,
        BLOCK_H=block(hidden, MOST_HIDDEN, 16), BLOCK_L=BLOCK_L), num_warps=4)


def _make_head_launches(call: Heads) -> _HeadLaunches:
    (batch, channels), acc, softmax = call.hidden.shape, ACCUMULATORS[call.hidden.dtype], list(call.softmax)
    lengths = [len(weight) for weight in call[2:-1:2] if weight is not None]
    missing = MOST_HEADS - len(lengths)
    numbers, h_block = (batch, *lengths, *[0] * missing), block(channels, MOST_HIDDEN, 16)
    # what a program adds up is as large for wide vectors as for narrow ones, but a softmax is in one piece
    most = BLOCK_L if h_block <= 64 else 2048 // h_block
    l_block = max([16, most, *[block(length, BLOCK_L) for length, is_one in zip(lengths, softmax) if is_one]])
    heads = Launch(_heads_gradient, (sum(triton.cdiv(length, l_block) for length in lengths), 1, 1), numbers, dict(
        HIDDEN=channels, SOFTMAX=(*softmax, *[False] * missing), ACC=acc, BLOCK_B=16, BLOCK_H=h_block,
        BLOCK_L=l_block), num_warps=4)
    h = block(channels, 32, 16)
    of_hidden = Launch(_hidden_gradient, (triton.cdiv(batch, 16), triton.cdiv(channels, h), 1), numbers, dict(
        HIDDEN=channels, ACC=acc, BLOCK_B=16, BLOCK_H=h, BLOCK_L=BLOCK_L), num_warps=4)
    return _HeadLaunches(_make_attend(batch, acc, channels, lengths, softmax, 0.), heads, of_hidden, sum(lengths))

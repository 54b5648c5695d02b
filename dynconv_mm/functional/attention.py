"""Attentions of features: pool → FC → norm → ReLU → one FC a head → sigmoid or softmax."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from . import kernel_switches
from .batch_norm import FORWARDS
from .geometry import IntPair, check_input, pair
from .operator import (
    Backend,
    Operator,
    autocast_dtype,
    check_dtype,
    export_target,
    is_compiling,
    is_known,
    is_plain,
    is_recorded,
    warn,
)


class Head(NamedTuple):
    """What makes one attention of the hidden vector."""

    fc: nn.Module
    """From Tensor[batch, hidden_channels] to Tensor[batch, copies * length]."""
    softmax: bool = False
    """Whether softmax over the attention's length is its activation, else sigmoid."""
    copies: int = 1
    """For how many kernels it makes an attention of their own."""


class Attention(NamedTuple):
    """The arguments of :func:`attention`."""

    input: Tensor
    fc: nn.Module
    norm: nn.Module | None
    heads: Mapping[str, Head]
    temperature: Tensor
    pool_size: int


def attention(input: Tensor, in_channels: int, fc: nn.Module, norm: nn.Module | None, heads: Mapping[str, Head],
              temperature: Tensor, pool_size: int = 1) -> dict[str, Tensor]:
    """The attentions of features.

    Under autocast they are computed in the parameters' precision.

    Args:
        input (Tensor[batch, in_channels, height, width]): features.
        in_channels (int): channels that they must have.
        fc (Module): from Tensor[batch, in_channels, pool_size, pool_size] to Tensor[batch, hidden_channels].
        norm (Module, optional): of the hidden vector, see :func:`normalize_hidden`.
        heads (Mapping[str, Head]): by the attention's name.
        temperature (Tensor[]): τ, by which all logits are divided.
        pool_size (int): the features are averaged to this many pixels squared. Default: 1.

    Returns:
        dict[str, Tensor]: by name, Tensor[batch, length] or, of a head with copies, Tensor[batch, copies, length].

    Raises:
        ValueError: the features are no batch of maps, or have other channels.
    """
    casts, recorded = autocast_dtype(input) is not None, is_recorded()
    if not recorded:
        if not isinstance(input, Tensor) or input.dim() != 4 or input.shape[1] != in_channels:
            check_input(input, in_channels)  # which says what is wrong
        if input.dtype is not temperature.dtype:
            check_dtype(input, temperature)
    call = Attention(input, fc, norm, heads, temperature, pool_size)
    if casts and (recorded or input.is_cpu):
        with torch.autocast(input.device.type, enabled=False):
            return _attention(call, recorded, False)
    return _attention(call, recorded, casts)


def _attention(call: Attention, recorded: bool, casts: bool) -> dict[str, Tensor]:
    """The attentions of a call, by a backend where one takes it."""
    input = call.input
    if recorded:
        return _reference(call, True) if export_target() is None else _by_one_product(call)
    enabled = kernel_switches.in_this_thread.get()
    for name, backend in (BACKENDS if input.is_cpu else GPU_BACKENDS).items():
        if name in (kernel_switches.in_all_threads if enabled is None else enabled):
            attentions = backend(call)
            if attentions is not None:
                return attentions
    if casts:
        with torch.autocast(input.device.type, enabled=False):
            return _reference(call, False)
    return _reference(call, False)


BACKENDS: dict[str, Callable[[Attention], dict[str, Tensor] | None]] = {}
"""Ways to compute attentions, by the switch that they are on with; each takes a call, and returns None where it refuses
it."""
GPU_BACKENDS: dict[str, Callable[[Attention], dict[str, Tensor] | None]] = {}
"""The same for tensors that are not on the CPU."""


def hidden_vector(input: Tensor, fc: nn.Module, norm: nn.Module, temperature: Tensor) -> Tensor:
    """pool → FC → norm → ReLU, for attentions of another form; arguments as of :func:`attention`.

    Returns:
        Tensor[batch, hidden_channels]
    """
    return _hidden(Attention(input, fc, norm, {}, temperature, 1), False)


def _reference(call: Attention, recorded: bool) -> dict[str, Tensor]:
    hidden = _hidden(call, recorded)
    attentions = {}
    for name, (head_fc, softmax, copies) in call.heads.items():
        logits = head_fc(hidden) / call.temperature
        if copies > 1:
            logits = logits.unflatten(1, (copies, -1))
        attentions[name] = logits.softmax(-1) if softmax else logits.sigmoid()
    return attentions


def _hidden(call: Attention, recorded: bool) -> Tensor:
    """What all heads see."""
    return F.relu(normalized_vector(call, recorded))


def normalized_vector(call: Attention, recorded: bool) -> Tensor:
    """Pool → FC → norm."""
    input, fc, norm, _, temperature, pool_size = call
    dtype = temperature.dtype  # that of the parameters, which a wrapper may hold
    if pool_size > 1 or recorded:  # in a graph as what tools know to count
        pooled = adaptive_avg_pool2d(input, pool_size).to(dtype)
    elif input.dtype is dtype:
        pooled = _average(Average(input, dtype))
    else:
        pooled = AVERAGE.run(Average(input, dtype), 'expanded')
    hidden = fc(pooled)
    return hidden if norm is None else normalize_hidden(norm, hidden)


class Average(NamedTuple):
    """The arguments of the average over the pixels."""

    input: Tensor
    dtype: torch.dtype
    """Of the result."""


def _average(call: Average) -> Tensor:
    total = call.input.sum((2, 3), dtype=torch.promote_types(call.dtype, torch.float32))  # a mean's gradient is a map
    return (total / (call.input.shape[2] * call.input.shape[3])).to(call.dtype)


def _spread(call: Average, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor]:
    """The input's gradient, which is the same for all pixels: no map is written, as torch does to change the type."""
    pixels = call.input.shape[2] * call.input.shape[3]
    return ((grad / pixels).to(call.input.dtype)[:, :, None, None].expand_as(call.input), )


AVERAGE = Operator(1, _average)
AVERAGE.backends['expanded'] = Backend(_average, backward=_spread)


def _by_one_product(call: Attention) -> dict[str, Tensor]:
    """The heads by one product, whose matrix becomes a constant of the graph, and one sigmoid."""
    parameters = [parameters_of(head.fc) for head in call.heads.values()]
    if any(own is None or own['bias'] is None for own in parameters):
        return _reference(call, True)
    weight = torch.cat([own['weight'].flatten(1) for own in parameters])
    bias = torch.cat([own['bias'] for own in parameters])
    logits = F.linear(_hidden(call, True), weight / call.temperature, bias / call.temperature)
    lengths = [len(own['bias']) for own in parameters]
    own_parts, gate_parts = (values.split(lengths, 1) for values in (logits, logits.sigmoid()))
    attentions = {}
    for (name, head), own, gate in zip(call.heads.items(), own_parts, gate_parts):
        values = own if head.softmax else gate
        if head.copies > 1:
            values = values.unflatten(1, (head.copies, -1))
        attentions[name] = values.softmax(-1) if head.softmax else values
    return attentions


def parameters_of(fc: nn.Module) -> dict[str, Tensor | None] | None:
    """Those of a fully connected layer, if to call it is to apply them, and nothing else."""
    own = fc._parameters
    plain = type(fc).forward is fully_connected and {'weight', 'bias'} <= own.keys() and is_plain(fc)
    return own if plain else None


def fully_connected(fc: nn.Module, x: Tensor) -> Tensor:
    """A fully connected layer over pooled features, with a convolution's weight shape.

    Args:
        fc (Module): has a ``weight``, Tensor[out_channels, in_channels, p, p], and a ``bias``, Tensor[out_channels] or
            None.
        x (Tensor[batch, in_channels, p, p] or Tensor[batch, in_channels]): features.

    Returns:
        Tensor[batch, out_channels]
    """
    x, weight = x.flatten(1), fc.weight.flatten(1)
    if x.dtype is not weight.dtype:
        check_dtype(x, weight)
    if is_compiling() and is_known(x.shape[0] == 1):  # to call the library takes longer than this
        y = (weight * x).sum(1)[None]
        return y if fc.bias is None else y + fc.bias
    return F.linear(x, weight, fc.bias)


def normalize_hidden(norm: nn.Module, hidden: Tensor) -> Tensor:
    """Apply a norm to what is inside an attention.

    A batch norm in training needs two values a channel. Where it gets fewer (the last, odd batch of an
    epoch), it uses its running statistics instead and leaves them as they are.

    Args:
        norm (nn.Module): the norm, or what ``convert_sync_batchnorm`` or torchvision's and timm's freezing made of it.
        hidden (Tensor[batch, channels] | Tensor[batch, channels, height, width]): what to normalise.

    Returns:
        Tensor: of the same shape.
    """
    if isinstance(norm, _BatchNorm) and norm.training and isinstance(hidden, Tensor) and not _is_synchronised(norm):
        values = hidden.numel() // hidden.shape[1]
        if values == 1:
            warn(SINGLE_SAMPLE)
        if values < 2:
            return _normalize_by_running_statistics(norm, hidden)
    if not isinstance(norm, _BatchNorm) and type(norm).__name__ == 'FrozenBatchNorm2d':  # which takes maps alone
        return norm(hidden.reshape(*hidden.shape[:2], -1, 1)).reshape(hidden.shape)
    return norm(hidden)


def _normalize_by_running_statistics(norm: _BatchNorm, hidden: Tensor) -> Tensor:
    if type(norm).forward in FORWARDS and is_plain(norm):
        return F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    norm.training = False  # of this module alone, which its hooks and its own forward see
    try:
        return norm(hidden)
    finally:
        norm.training = True


def adaptive_avg_pool2d(x: Tensor, size: int | IntPair) -> Tensor:
    """:func:`torch.nn.functional.adaptive_avg_pool2d`, which can be exported for maps of any size.

    Args:
        x (Tensor[batch, channels, height, width]): features.
        size (int | tuple[int, int]): height and width of the result.

    Returns:
        Tensor[batch, channels, pooled_height, pooled_width]
    """
    if size in (1, (1, 1)) or not is_recorded():
        return F.adaptive_avg_pool2d(x, size)
    return _average_by_products(x, size)


def _average_by_products(x: Tensor, size: int | IntPair) -> Tensor:
    """As ONNX has no operator for it where the size of the map is open."""
    rows, columns = (_averages(length, cells, x) for length, cells in zip(x.shape[2:], pair('size', size, 1)))
    return rows @ x @ columns.transpose(0, 1)


def _averages(length: int, size: int, like: Tensor) -> Tensor:
    """Tensor[size, length]: row i averages the pixels ⌊i·length / size⌋ to ⌈(i+1)·length / size⌉ − 1."""
    cell, pixel = torch.arange(size, device=like.device)[:, None], torch.arange(length, device=like.device)
    inside = torch.logical_and((pixel + 1) * size > cell * length, pixel * size < (cell + 1) * length)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def _is_synchronised(norm: _BatchNorm) -> bool:
    return (isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized()
            and distributed.get_world_size(norm.process_group) > 1)


SINGLE_SAMPLE = ('An attention got a single sample in training, over which batch norm cannot take statistics: it uses '
                 'its running statistics in such steps. If that is not just the odd last batch of an epoch, raise the '
                 "batch size or use norm_cfg=dict(type='LN').")

"""Convolution with a mixture of kernels that differs from sample to sample.

CondConv (NeurIPS 2019), DyConv (CVPR 2020) and ODConv (ICLR 2022) are this one operator with
different attentions; ODConv's Eq. 2 is its most general form.
"""
from __future__ import annotations

import warnings

import torch
from torch import Tensor

from .autocast import autocast_dtype
from .mixture import ATTENTIONS, Mixture, simplify
from .plans import FRUGAL_PLAN, PLANS, choose_plan
from .sample_conv import IntPair, is_channels_last, pair
from .tracing import is_exported, is_traced


def mixture_conv2d(input: Tensor,
                   weight: Tensor,
                   bias: Tensor | None = None,
                   *,
                   kernel_attention: Tensor | None = None,
                   spatial_attention: Tensor | None = None,
                   channel_attention: Tensor | None = None,
                   filter_attention: Tensor | None = None,
                   stride: int | IntPair = 1,
                   padding: int | IntPair = 0,
                   dilation: int | IntPair = 1,
                   groups: int = 1,
                   plan: str = 'auto') -> Tensor:
    r"""Convolve each sample with its own mixture of kernels (ODConv, Eq. 2).

    .. math:: y_b = \Big(\sum_i \alpha^w_{bi} \odot \alpha^f_{bi} \odot \alpha^c_{bi} \odot \alpha^s_{bi}
        \odot W_i\Big) * x_b

    An attention that is left out counts as 1. The spatial, channel and filter attention are either shared
    by the n kernels or given for each.

    Args:
        input (Tensor[batch, in_channels, height, width]): features; the batch may be empty.
        weight (Tensor[n, out_channels, in_channels / groups, kernel_height, kernel_width]): the kernels W_i.
        bias (Tensor[out_channels], optional): added to the result, not scaled by any attention.
        kernel_attention (Tensor[batch, n], optional): α_w.
        spatial_attention (Tensor[batch, (n,) kernel_height * kernel_width], optional): α_s, row by row.
        channel_attention (Tensor[batch, (n,) in_channels], optional): α_c.
        filter_attention (Tensor[batch, (n,) out_channels], optional): α_f.
        stride, padding, dilation, groups: as in :func:`torch.nn.functional.conv2d`.
        plan (str): how to execute it, one of :data:`~dynconv_mm.functional.PLANS`, or 'auto'. Every plan
            gives the same numbers.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]

    Raises:
        ValueError: a tensor's shape does not fit the others, or ``plan`` is unknown or
            cannot serve the call.

    Example:
        >>> x, weight = torch.randn(2, 8, 9, 9), torch.randn(4, 6, 8, 3, 3)
        >>> attention = torch.softmax(torch.randn(2, 4), dim=1)
        >>> mixture_conv2d(x, weight, kernel_attention=attention, padding=1).shape
        torch.Size([2, 6, 9, 9])
    """
    m = Mixture(input, weight, bias, kernel_attention, spatial_attention, channel_attention, filter_attention,
                pair(stride), pair(padding), pair(dilation), groups)
    _check_shapes(m)
    dtype = autocast_dtype(input)
    if dtype is not None:
        with torch.autocast(input.device.type, enabled=False):
            return _execute(_cast(m, dtype), plan)
    return _execute(m, plan)


def _execute(m: Mixture, plan: str) -> Tensor:
    m = simplify(m)
    name = choose_plan(m, plan)
    if not is_exported() and m.input.shape[0] == 0:
        return _empty_batch(m)
    y = _run(m, name)
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last(m.input) else y


def _run(m: Mixture, name: str) -> Tensor:
    """Execute a plan; where memory runs out, once more by the plan that needs least."""
    if is_traced() or name == FRUGAL_PLAN:
        return PLANS[name].execute(m)
    try:
        return PLANS[name].execute(m)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        warnings.warn(f"out of memory in plan {name!r} for input {tuple(m.input.shape)} and weight "
                      f"{tuple(m.weight.shape)}: trying {FRUGAL_PLAN!r}, which is slower. Reduce the batch size, "
                      f"or set plan={FRUGAL_PLAN!r} to go without the attempt.", stacklevel=4)
    return PLANS[FRUGAL_PLAN].execute(m)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(error, torch.cuda.OutOfMemoryError) or 'DefaultCPUAllocator' in str(error)


def _cast(m: Mixture, dtype: torch.dtype) -> Mixture:
    """All tensors in one dtype, as autocast has it for a convolution."""
    return m._replace(**{name: value.to(dtype) for name, value in m._asdict().items() if isinstance(value, Tensor)})


def _check_shapes(m: Mixture) -> None:
    if m.input.dim() != 4:
        raise ValueError(f'input must be [batch, channels, height, width], but its shape is '
                         f'{tuple(m.input.shape)}')
    if m.weight.dim() != 5:
        raise ValueError(f'weight must be [n, out_channels, in_channels / groups, kernel_height, '
                         f'kernel_width], but its shape is {tuple(m.weight.shape)}')
    batch, channels = m.input.shape[:2]
    n, out_channels, group_channels, kernel_height, kernel_width = m.weight.shape
    if channels != group_channels * m.groups or out_channels % m.groups:
        raise ValueError(f'input has {channels} channels, and weight of shape {tuple(m.weight.shape)} with '
                         f'groups={m.groups} takes {group_channels * m.groups}; out_channels must be '
                         f'divisible by groups')
    if m.bias is not None and m.bias.shape != (out_channels,):
        raise ValueError(f'bias must be [{out_channels}], but its shape is {tuple(m.bias.shape)}')
    expected = (('spatial_attention', m.spatial_attention, kernel_height * kernel_width),
                ('channel_attention', m.channel_attention, channels),
                ('filter_attention', m.filter_attention, out_channels))
    for name, attention, length in expected:
        # two comparisons: torch 2.1 cannot compile `shape not in (…)`
        if attention is not None and attention.shape != (batch, length) and attention.shape != (batch, n, length):
            raise ValueError(f'{name} must be [{batch}, {length}] or [{batch}, {n}, {length}], but its '
                             f'shape is {tuple(attention.shape)}')
    if m.kernel_attention is not None and m.kernel_attention.shape != (batch, n):
        raise ValueError(f'kernel_attention must be [{batch}, {n}], but its shape is '
                         f'{tuple(m.kernel_attention.shape)}')


def _empty_batch(m: Mixture) -> Tensor:
    """No samples, no kernels to mix: an empty map of the right shape, with zero gradients for all inputs."""
    output = torch.nn.functional.conv2d(m.input, m.weight.sum(0), m.bias, m.stride, m.padding, m.dilation,
                                        m.groups)
    attentions = (getattr(m, name) for name in ATTENTIONS)
    return output + sum(attention.sum() for attention in attentions if attention is not None)

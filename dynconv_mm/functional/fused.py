"""Small operations that follow one another as one, for inference on a CPU.

A network for one image spends more time in calling them than they take. Each function here does several by one of the
Numba kernels, and returns None where these do not serve: without Numba, with gradients, on another device, for types
other than float32 and float64, while a call is being compiled or exported, and while somebody watches the operators.
"""
from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .depthwise import conv2d
from .numba import ZEROS, numba_kernels
from .numba.serving import addresses, kernels_for, sample_rows
from .sample_conv import is_channels_last
from .workspace import workspace

# Kernels up to so many elements are scaled in less time than it takes to call the operators that go without.
LARGE_KERNEL = 2**17
# The kernels run in one thread. Where torch has more, larger products are left to it.
SERIAL_PRODUCTS = 2**18


class Norm(NamedTuple):
    """A batch norm in eval mode over c channels; ``mean`` None is none, and then ``shift`` a bias."""

    mean: Tensor | None  # [c]
    variance: Tensor | None  # [c]
    gain: Tensor | None  # [c]
    shift: Tensor | None  # [c]
    eps: float


NO_NORM = Norm(None, None, None, None, 0.)


class Attention(NamedTuple):
    """What attentions are made of: mean → FC → norm → ReLU → FC, divided by the temperature → sigmoid."""

    fc: Tensor  # [hidden_channels, in_channels, 1, 1]
    norm: Norm
    heads: Tensor  # [logits, hidden_channels, 1, 1]
    bias: Tensor  # [logits]
    temperature: Tensor  # []


def fused_attention(x: Tensor, attention: Attention, kernel_num: int) -> Tensor | None:
    """The attentions of features.

    Args:
        x (Tensor[batch, in_channels, height, width]): features.
        attention (Attention): what makes them.
        kernel_num (int): how many of the last logits go through a softmax in place of the sigmoid.

    Returns:
        Tensor[batch, logits], or None where the kernels do not serve.
    """
    kernels = kernels_for(x, 'kernels')
    if kernels is None:
        return None
    batch = x.shape[0]
    logits = attention.heads.shape[0]
    if torch.get_num_threads() > 1 and batch * (attention.fc.numel() + attention.heads.numel()) > SERIAL_PRODUCTS:
        return None
    attentions = x.new_empty(batch, logits)
    pooled, pixels = _pooled(x)
    arguments = _attention_arguments(pooled, pixels, attention)
    if arguments is None:
        return None
    kernels.attend(ZEROS[x.dtype], arguments[0], batch, *arguments[1:-1], kernel_num, arguments[-1],
                   attentions.data_ptr())
    return attentions


def fused_scale_and_shift(norm: Norm) -> Tensor | None:
    """A batch norm as ``scale * x + shift``.

    Returns:
        Tensor[2, channels]: scale and shift, or None where the kernels do not serve.
    """
    mean = norm.mean
    kernels = kernels_for(mean, 'kernels')
    if kernels is None:
        return None
    channels = mean.shape[0]
    at = addresses(mean.dtype, *((tensor, channels) for tensor in norm[:4]))
    if at is None:
        return None
    affine = mean.new_empty(2, channels)
    kernels.scale_and_shift(ZEROS[mean.dtype], *at, norm.eps, channels, affine.data_ptr())
    return affine


def fuses_kernels(batch: int, weight: Tensor) -> bool:
    """Whether :func:`fused_kernels` is for calls with this batch and weight."""
    if kernels_for(weight, 'kernels') is None:
        return False
    return torch.get_num_threads() == 1 or batch * weight.numel() <= SERIAL_PRODUCTS


def fused_kernels(batch: int, weight: Tensor, kernel_attention: Tensor | None, spatial_attention: Tensor | None,
                  channel_attention: Tensor | None, filter_attention: Tensor | None, groups: int) -> Tensor | None:
    """Each sample's kernel with all of its attentions. The next call may overwrite it.

    Args:
        batch (int): samples.
        weight, kernel_attention, spatial_attention, channel_attention, filter_attention, groups: as in
            :func:`~dynconv_mm.functional.mixture_conv2d`. Without ``kernel_attention`` there is one kernel; the others
            are shared by all.

    Returns:
        Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width], or None where the kernels do
        not serve.
    """
    if not fuses_kernels(batch, weight):
        return None
    n, out_channels, channels, height, width = weight.shape
    bank = addresses(weight.dtype, (weight, weight.numel()))
    rows = [sample_rows(attention, weight.dtype)
            for attention in (kernel_attention, spatial_attention, channel_attention, filter_attention)]
    if bank is None or None in rows:
        return None
    mixed = workspace('kernels', (batch, *weight.shape[1:]), weight)
    kernels = numba_kernels('kernels')
    kernels.mix_and_scale(ZEROS[weight.dtype], *bank, batch, n, groups, out_channels // groups, channels,
                          height * width, *itertools.chain(*rows), mixed.data_ptr())
    return mixed


def attended_conv2d(x: Tensor, attention: Attention, starts: dict[str, int], weight: Tensor, bias: Tensor | None,
                    norm: Norm | None, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
                    groups: int) -> Tensor | None:
    """Convolve one sample with the mixture of kernels that it attends to, and apply a norm.

    Args:
        x (Tensor[1, in_channels, height, width]): features.
        attention (Attention): what makes the attentions.
        starts (dict[str, int]): where the logits of the 'channel', 'filter', 'spatial' and 'kernel' attention begin,
            those that there are; those of the last go up to the end.
        weight (Tensor[n, out_channels, in_channels / groups, kernel_height, kernel_width]): the kernels.
        bias (Tensor[out_channels], optional): of the convolution.
        norm (Norm, optional): behind the convolution.
        stride, padding, dilation, groups: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[1, out_channels, out_height, out_width], or None where the kernels do not serve or are not best.
    """
    norm = norm or NO_NORM
    n, out_channels, group_channels, height, width = weight.shape
    if x.dim() != 4 or x.shape[0] != 1 or x.shape[1] != group_channels * groups or not fuses_kernels(1, weight) \
            or n > 1 and 'kernel' not in starts:
        return None
    # one large kernel is better left as it is: its columns are scaled, or the features before and after
    area = height * width
    large = n == 1 and weight.numel() > LARGE_KERNEL + area * x.numel()
    if large and ('spatial' in starts or is_channels_last(x)):
        return None
    pooled, pixels = _pooled(x)
    arguments = _attention_arguments(pooled, pixels, attention)
    around = addresses(x.dtype, (weight, weight.numel()), *((tensor, out_channels) for tensor in (*norm[:4], bias)))
    if arguments is None or around is None:
        return None
    logits = attention.bias.shape[0]
    attentions = workspace('attentions', (1, logits, 1, 1), x)
    scale, offset = workspace('scales', (out_channels,), x), workspace('offsets', (out_channels,), x)
    kernels = numba_kernels('kernels')
    arguments = (ZEROS[x.dtype], *arguments, logits - starts.get('kernel', logits), starts.get('filter', -1),
                 out_channels, *around[1:5], norm.eps, around[5], attentions.data_ptr(), scale.data_ptr(),
                 offset.data_ptr())
    if large:
        kernels.attend_and_scale(*arguments)
        if 'channel' in starts:
            x = x * attentions.narrow(1, starts['channel'], x.shape[1])
        y = F.conv2d(x, weight[0], None, stride, padding, dilation, groups)
        return torch.addcmul(offset[:, None, None], y, scale[:, None, None])
    kernel = workspace('kernels', weight.shape[1:], weight)
    kernels.attended_kernel(*arguments, starts.get('channel', -1), starts.get('spatial', -1), around[0], n, groups,
                            area, kernel.data_ptr())
    return conv2d(x, kernel, offset, stride, padding, dilation, groups)


def _pooled(x: Tensor) -> tuple[Tensor, int]:
    """Features whose average over so many pixels a row the kernels are to take: averaged here where that is better."""
    if not x.is_contiguous() or torch.get_num_threads() > 1 and x.numel() > SERIAL_PRODUCTS:
        return x.mean((2, 3)), 1
    return x, x.shape[2] * x.shape[3]


def _attention_arguments(x: Tensor, pixels: int, attention: Attention) -> tuple | None:
    """What the kernels take of features and an attention; None unless they serve."""
    fc, norm, heads, bias, temperature = attention
    logits, hidden = heads.shape[:2]
    channels = x.shape[1]
    at = addresses(x.dtype, (x, x.numel()), (fc, hidden * channels), *((tensor, hidden) for tensor in norm[:4]),
                   (heads, logits * hidden), (bias, logits), (temperature, 1))
    if at is None:
        return None
    return (at[0], channels, pixels, at[1], hidden, *at[2:6], norm.eps, at[6], at[7], logits, at[8])

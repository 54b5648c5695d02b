"""Convolution with a mixture of kernels that differs from sample to sample.

CondConv (NeurIPS 2019), DyConv (CVPR 2020) and ODConv (ICLR 2022) are this one operator with
different attentions; ODConv's Eq. 2 is its most general form.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from .batch_norm import BatchNorm, scale_and_shift
from .cost_model import cheapest
from .geometry import IntPair, check_input, output_size, window
from .operator import Operator
from .sample_conv import grouped_conv


def mixture_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, kernel_attention: Tensor | None = None,
                   spatial_attention: Tensor | None = None, channel_attention: Tensor | None = None,
                   filter_attention: Tensor | None = None, stride: int | IntPair = 1, padding: int | IntPair = 0,
                   dilation: int | IntPair = 1, groups: int = 1, norm: BatchNorm | None = None,
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
        norm (BatchNorm, optional): a batch norm by running statistics, applied to the result without a pass of
            its own.
        plan (str): how to execute it, one of :data:`~dynconv_mm.functional.PLANS`, or 'auto'. Every plan
            gives the same numbers. What is compiled or exported has a form of its own.

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
    if not (type(stride) is type(padding) is type(dilation) is tuple
            and len(stride) == len(padding) == len(dilation) == 2
            and min(stride) > 0 <= min(padding) and min(dilation) > 0):
        stride, padding, dilation = window(stride, padding, dilation)
    shares_attention = ((spatial_attention is None or spatial_attention.dim() == 2)
                        and (channel_attention is None or channel_attention.dim() == 2)
                        and (filter_attention is None or filter_attention.dim() == 2))
    m = Mixture(input, weight, bias, kernel_attention, spatial_attention, channel_attention, filter_attention,
                stride, padding, dilation, groups, shares_attention, norm)
    _check_shapes(m)
    if plan != 'auto':
        check_plan(plan)
    if shares_attention and (kernel_attention is None or weight.shape[0] == 1):
        m = _as_one_kernel(m)
    return MIXTURE_CONV(m, plan)


class Mixture(NamedTuple):
    """The arguments of :func:`mixture_conv2d`, checked."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    kernel_attention: Tensor | None
    spatial_attention: Tensor | None
    channel_attention: Tensor | None
    filter_attention: Tensor | None
    stride: IntPair
    padding: IntPair
    dilation: IntPair
    groups: int
    shares_attention: bool
    """Whether all kernels have the same spatial, channel and filter attention, so that these leave the sum."""
    norm: BatchNorm | None = None

    @property
    def output_size(self) -> IntPair:
        """Height and width of the output."""
        return output_size(self.input.shape[2:], self.weight.shape[3:], self.stride, self.padding, self.dilation)


# The equation.


def sample_kernels(m: Mixture) -> Tensor:
    """Each sample's kernel with all of its attentions, in operations that autograd knows.

    Returns:
        Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]
    """
    batch = m.input.shape[0]
    n, out_channels, group_channels, kernel_height, kernel_width = m.weight.shape

    def factor(attention: Tensor | None, own: bool, *shape: int) -> Tensor | None:
        """An attention to be multiplied with the kernels, of each kernel's own ones or of the shared ones."""
        if attention is None or (attention.dim() == 3) != own:
            return None
        return attention.reshape(batch, n if own else 1, *shape)

    shapes = ((1, 1, 1, kernel_height, kernel_width), (m.groups, 1, group_channels, 1, 1),
              (m.groups, out_channels // m.groups, 1, 1, 1))
    attentions = m.spatial_attention, m.channel_attention, m.filter_attention
    own = [factor(attention, True, *shape) for attention, shape in zip(attentions, shapes)]
    bank = m.weight.reshape(1, n, m.groups, -1, group_channels, kernel_height, kernel_width)
    for scale in own:
        bank = bank if scale is None else bank * scale
    if m.kernel_attention is None:
        kernels = bank.sum(1, keepdim=True).expand(batch, -1, -1, -1, -1, -1, -1)
    elif m.shares_attention:
        kernels = (m.kernel_attention @ bank.reshape(n, -1)).reshape(batch, 1, *bank.shape[2:])
    else:
        kernels = (bank * m.kernel_attention.reshape(batch, n, 1, 1, 1, 1, 1)).sum(1, keepdim=True)
    column = None  # α_s ⊗ α_c, small beside the kernels
    for attention, shape in zip(attentions[:2], shapes):
        scale = factor(attention, False, *shape)
        column = scale if column is None else column if scale is None else column * scale
    for scale in (column, factor(m.filter_attention, False, *shapes[2])):
        kernels = kernels if scale is None else kernels * scale
    return kernels.reshape(batch, *m.weight.shape[1:])


def reference(m: Mixture) -> Tensor:
    """The equation: one kernel for each sample, one convolution with ``batch * groups`` groups."""
    if m.input.shape[0] == 0:  # no kernels to mix: zero gradients for all tensors
        y = F.conv2d(m.input, m.weight.sum(0), m.bias, *m[7:11])
        return y + sum(attention.sum() for attention in m[3:7] if attention is not None)
    return grouped_conv(m.input, sample_kernels(m), m.bias, *m[7:11])


def _as_one_kernel(m: Mixture) -> Mixture:
    """An equal mixture in which kernels that need no mixing are one, and one kernel has no attention of its own."""
    if m.kernel_attention is None:
        return m if m.weight.shape[0] == 1 else m._replace(weight=m.weight.sum(0, keepdim=True))
    filter_ = m.kernel_attention.expand(-1, m.weight.shape[1])
    if m.filter_attention is not None:
        filter_ = m.filter_attention * filter_
    return m._replace(kernel_attention=None, filter_attention=filter_)


def _fold_norm(m: Mixture) -> Mixture:
    """An equal mixture without a norm: its filter attention is scaled, its bias shifted."""
    scale, shift = scale_and_shift(m.norm, m.bias)
    filter_ = scale.expand(m.input.shape[0], -1) if m.filter_attention is None else m.filter_attention * scale
    return m._replace(filter_attention=filter_, bias=shift, norm=None)


# The choice of a plan.


MIXTURE_CONV = Operator(7, reference, cheapest, frugal='per_sample', fold_norm=_fold_norm)
PLANS = MIXTURE_CONV.backends
"""The ways to execute :func:`mixture_conv2d`, by name."""


def check_plan(plan: str) -> None:
    """Raise a ValueError that names the plans there are unless ``plan`` is one of them or 'auto'."""
    if not isinstance(plan, str) or plan not in ('auto', *PLANS):
        raise ValueError(f"plan must be 'auto' or one of {sorted(PLANS)}, but is {plan!r}")


@contextmanager
def use_plan(plan: str) -> Iterator[None]:
    """Execute all mixtures by one plan within the block, in this thread; those that it cannot serve, as their layers
    say. What is compiled or exported is not affected. Where ``torch.utils.checkpoint`` is to compute something again,
    put the backward pass into the block too.

    Example:
        >>> with use_plan('grouped'):
        ...     model(images)

    Raises:
        ValueError: ``plan`` is unknown.
    """
    check_plan(plan)
    token = MIXTURE_CONV.plan_for_all.set(None if plan == 'auto' else plan)
    try:
        yield
    finally:
        MIXTURE_CONV.plan_for_all.reset(token)


def _check_shapes(m: Mixture) -> None:
    if not isinstance(m.input, Tensor) or m.input.dim() != 4:
        check_input(m.input)  # which says what is wrong
    if m.weight.dim() != 5:
        raise ValueError(f'weight must be [n, out_channels, in_channels / groups, kernel_height, '
                         f'kernel_width], but its shape is {tuple(m.weight.shape)}')
    batch, channels = m.input.shape[:2]
    n, out_channels, group_channels, kernel_height, kernel_width = m.weight.shape
    if channels != group_channels * m.groups or out_channels % m.groups:
        raise ValueError(f'input and weight must fit: Given groups={m.groups}, weight of size {list(m.weight.shape)}, '
                         f'expected input{list(m.input.shape)} to have {group_channels * m.groups} channels, but got '
                         f'{channels} channels instead, and out_channels must be divisible by groups')
    if m.bias is not None and m.bias.shape != (out_channels,):
        raise ValueError(f'bias must be [{out_channels}], but its shape is {tuple(m.bias.shape)}')
    for name, attention, length in (('spatial_attention', m.spatial_attention, kernel_height * kernel_width),
                                    ('channel_attention', m.channel_attention, channels),
                                    ('filter_attention', m.filter_attention, out_channels)):
        # two comparisons: torch 2.1 cannot compile `shape not in (…)`
        if attention is not None and attention.shape != (batch, length) and attention.shape != (batch, n, length):
            raise ValueError(f'{name} must be [{batch}, {length}] or [{batch}, {n}, {length}], but its '
                             f'shape is {tuple(attention.shape)}')
    if m.kernel_attention is not None and m.kernel_attention.shape != (batch, n):
        raise ValueError(f'kernel_attention must be [{batch}, {n}], but its shape is '
                         f'{tuple(m.kernel_attention.shape)}')

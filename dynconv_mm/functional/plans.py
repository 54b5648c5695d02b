"""The equal ways to execute a mixture of kernels, and the choice among them.

A plan is a function of a :class:`Mixture`. To add one, write it and enter it in :data:`PLANS`; all plans
must agree in outputs and gradients.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Mixture(NamedTuple):
    """The arguments of :func:`~dynconv_mm.functional.mixture_conv2d`, checked."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    kernel_attention: Tensor | None
    spatial_attention: Tensor | None
    channel_attention: Tensor | None
    filter_attention: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


Plan = Callable[[Mixture], Tensor]


def grouped(m: Mixture) -> Tensor:
    """One kernel for each sample and a convolution with ``batch * groups`` groups, as everybody does it.

    What all kernels share leaves the sum: α_c scales the input's channels, α_f the output's, and α_s the
    mixed kernel. What each kernel has of its own is multiplied into the kernels before they are added up.
    """
    x, mixed = m.input, _mixed_kernels(m)
    if _is_shared(m.channel_attention):
        x = x * m.channel_attention[:, :, None, None]
    y = _grouped_conv(m, x, mixed)
    if _is_shared(m.filter_attention):
        y = y * m.filter_attention[:, :, None, None]
    return _add_bias(y, m.bias)


def _grouped_conv(m: Mixture, x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve sample b of ``x`` by ``kernels[b]``."""
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels.reshape(-1, *kernels.shape[2:]), None, m.stride, m.padding,
                 m.dilation, len(x) * m.groups)
    return y.view(len(x), -1, *y.shape[2:])


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias[:, None, None]


def _is_shared(attention: Tensor | None) -> bool:
    return attention is not None and attention.dim() == 2


def _mixed_kernels(m: Mixture) -> Tensor:
    """Each sample's sum of the kernels times all that is their own, times the α_s that they share.

    Returns:
        Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]
    """
    batch = m.input.shape[0]
    n, out_channels, group_channels, kernel_height, kernel_width = m.weight.shape
    if _is_shared(m.spatial_attention):
        scale = m.spatial_attention.view(batch, 1, 1, kernel_height, kernel_width)
        return _mixed_kernels(m._replace(spatial_attention=None)) * scale
    own = [None if attention is None or _is_shared(attention) else attention
           for attention in (m.spatial_attention, m.channel_attention, m.filter_attention)]
    if own == [None, None, None]:
        if m.kernel_attention is None:
            return m.weight.sum(0).expand(batch, -1, -1, -1, -1)
        return (m.kernel_attention @ m.weight.flatten(1)).view(batch, *m.weight.shape[1:])
    spatial, channel, filter_ = own
    kernels = m.weight.view(1, n, m.groups, -1, group_channels, kernel_height, kernel_width)
    if spatial is not None:
        kernels = kernels * spatial.view(batch, n, 1, 1, 1, kernel_height, kernel_width)
    if channel is not None:
        kernels = kernels * channel.view(batch, n, m.groups, 1, group_channels, 1, 1)
    if filter_ is not None:
        kernels = kernels * filter_.view(batch, n, m.groups, -1, 1, 1, 1)
    if m.kernel_attention is not None:
        kernels = kernels * m.kernel_attention.view(batch, n, 1, 1, 1, 1, 1)
    return kernels.sum(1).view(batch, *m.weight.shape[1:])


PLANS: dict[str, Plan] = {'grouped': grouped}


def check_plan(plan: str) -> None:
    """Raise a ValueError that names the plans there are unless ``plan`` is one of them or 'auto'."""
    if plan not in ('auto', *PLANS):
        raise ValueError(f"plan must be 'auto' or one of {sorted(PLANS)}, but is {plan!r}")


def choose_plan(m: Mixture, plan: str = 'auto') -> Plan:
    """The plan that is to execute ``m``.

    Args:
        m (Mixture): the call.
        plan (str): a name in :data:`PLANS`, or 'auto' for the choice made here.

    Raises:
        ValueError: ``plan`` is unknown.
    """
    check_plan(plan)
    return PLANS['grouped' if plan == 'auto' else plan]

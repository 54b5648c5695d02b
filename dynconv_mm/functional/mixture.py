"""A mixture of kernels that differs from sample to sample: its arguments, and the kernels it comes to."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .fused import fused_kernels
from .tracing import is_traced
from .workspace import workspace

ATTENTIONS = ('kernel_attention', 'spatial_attention', 'channel_attention', 'filter_attention')


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

    @property
    def shares_attention(self) -> bool:
        """Whether all kernels have the same spatial, channel and filter attention, so that these leave the sum."""
        return not any(is_own(attention) for attention in self[4:7])

    @property
    def kernel_size(self) -> tuple[int, int]:
        return tuple(self.weight.shape[3:])

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a dense 1×1 convolution."""
        return self.kernel_size == (1, 1) and self.groups == 1

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel sees one input channel."""
        return self.groups > 1 and self.weight.shape[2] == 1

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        return tuple((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
                     for size, padding, dilation, kernel, stride in zip(self.input.shape[2:], self.padding,
                                                                        self.dilation, self.kernel_size, self.stride))


def is_shared(attention: Tensor | None) -> bool:
    """Whether an attention is given, and the same for all kernels."""
    return attention is not None and attention.dim() == 2


def is_own(attention: Tensor | None) -> bool:
    """Whether an attention is given for each kernel by itself."""
    return attention is not None and attention.dim() == 3


def simplify(m: Mixture) -> Mixture:
    """An equal mixture in which kernels that need no mixing are one, and one kernel has no attention of its own."""
    if not m.shares_attention:
        return m
    if m.kernel_attention is None:
        return m if m.weight.shape[0] == 1 else m._replace(weight=m.weight.sum(0, keepdim=True))
    if m.weight.shape[0] > 1:
        return m
    filter_ = m.kernel_attention.expand(-1, m.weight.shape[1])
    if m.filter_attention is not None:
        filter_ = m.filter_attention * filter_
    return m._replace(kernel_attention=None, filter_attention=filter_)


def mixed_kernels(m: Mixture) -> Tensor:
    """Each sample's sum of the kernels times all that is their own: what is shared is left out.

    Where no gradients are recorded, the next call may overwrite the result.

    Returns:
        Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]
    """
    batch = m.input.shape[0]
    n, out_channels, group_channels, kernel_height, kernel_width = m.weight.shape
    own = [attention if is_own(attention) else None for attention in m[4:7]]
    if own == [None, None, None]:
        if m.kernel_attention is None:
            kernel = m.weight[0] if n == 1 else m.weight.sum(0)
            return kernel.expand(batch, -1, -1, -1, -1)
        bank = m.weight.flatten(1)
        if torch.is_grad_enabled() or is_traced():
            return (m.kernel_attention @ bank).reshape(batch, *m.weight.shape[1:])
        out = workspace('kernels', (batch, bank.shape[1]), bank)
        return torch.mm(m.kernel_attention, bank, out=out).reshape(batch, *m.weight.shape[1:])
    spatial, channel, filter_ = own
    kernels = m.weight.reshape(1, n, m.groups, -1, group_channels, kernel_height, kernel_width)
    if spatial is not None:
        kernels = kernels * spatial.reshape(batch, n, 1, 1, 1, kernel_height, kernel_width)
    if channel is not None:
        kernels = kernels * channel.reshape(batch, n, m.groups, 1, group_channels, 1, 1)
    if filter_ is not None:
        kernels = kernels * filter_.reshape(batch, n, m.groups, -1, 1, 1, 1)
    if m.kernel_attention is not None:
        kernels = kernels * m.kernel_attention.reshape(batch, n, 1, 1, 1, 1, 1)
    return kernels.sum(1).reshape(batch, *m.weight.shape[1:])


def scaled_kernels(m: Mixture, fuse: bool = True) -> Tensor:
    """Each sample's kernel with all of its attentions, those that all kernels share too.

    Where no gradients are recorded, the next call may overwrite the result.

    Args:
        m (Mixture): the call.
        fuse (bool): whether a Numba kernel may do it. A training does without, to which it brings little, and the
            compiler in memory a hundred MB. Default: True.

    Returns:
        Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]
    """
    if fuse and m.shares_attention and (m.weight.shape[0] == 1 or m.kernel_attention is not None):
        kernels = fused_kernels(m.input.shape[0], m.weight, *m[3:7], m.groups)
        if kernels is not None:
            return kernels
    kernels = mixed_kernels(m)
    batch, out_channels, group_channels = kernels.shape[:3]
    column = None  # α_s ⊗ α_c, small beside the kernels
    if is_shared(m.spatial_attention):
        column = m.spatial_attention.reshape(batch, 1, 1, 1, *m.kernel_size)
    if is_shared(m.channel_attention):
        channel = m.channel_attention.reshape(batch, m.groups, 1, group_channels, 1, 1)
        column = channel if column is None else column * channel
    filter_ = m.filter_attention.view(batch, out_channels, 1, 1, 1) if is_shared(m.filter_attention) else None
    if column is not None and m.groups == 1:
        column = column[:, 0]
    elif column is not None:
        column = column.expand(-1, m.groups, out_channels // m.groups, -1, -1, -1)
        column = column.reshape(batch, out_channels, *column.shape[3:])
    if torch.is_grad_enabled() or is_traced():
        for scale in (column, filter_):
            kernels = kernels if scale is None else kernels * scale
        return kernels
    # in place, but for the first time where the kernel is the layer's own
    target = kernels if m.kernel_attention is not None else None
    for scale in (column, filter_):
        if scale is not None:
            target = workspace('kernels', kernels.shape, kernels) if target is None else target
            kernels = torch.mul(kernels, scale, out=target)
    return kernels


def select(m: Mixture, start: int, stop: int) -> Mixture:
    """The mixture of some of the samples."""
    parts = {name: value[start:stop] for name in ('input', *ATTENTIONS)
             if isinstance(value := getattr(m, name), torch.Tensor)}
    return m._replace(**parts)

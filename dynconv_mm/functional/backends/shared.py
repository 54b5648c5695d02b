"""One kernel for all samples, between a scaling of the input and one of the output."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..mixture_conv import MIXTURE_CONV, Mixture
from ..operator import Backend


def shared(m: Mixture) -> Tensor:
    """One ordinary convolution."""
    return scaled_output(m, F.conv2d(scaled_input(m), m.weight[0], None, *m[7:11]))


def refuses(m: Mixture) -> str | None:
    """Why one convolution for all samples, between scalings of the channels, cannot serve, or None."""
    if m.kernel_attention is not None:
        return 'kernels that are mixed'
    return needs_no_spatial(m)


def needs_shared_attentions(m: Mixture) -> str | None:
    """Why attentions cannot be taken out of the sum over the kernels, or None."""
    return None if m.shares_attention else 'attentions that each kernel has of its own'


def needs_no_spatial(m: Mixture) -> str | None:
    """The same for backends that cannot scale the elements of a kernel either."""
    return needs_shared_attentions(m) or (None if m.spatial_attention is None else 'a spatial attention')


def without_scalings(m: Mixture) -> Mixture:
    """The mixture that is left between :func:`scaled_input` and :func:`scaled_output`; its bias is not."""
    channel, filter_ = (None if attention is None or attention.dim() == 2 else attention
                        for attention in (m.channel_attention, m.filter_attention))
    return m._replace(channel_attention=channel, filter_attention=filter_, bias=None)


def scaled_input(m: Mixture) -> Tensor:
    """The input times the α_c that all kernels share."""
    channel = m.channel_attention
    return m.input if channel is None or channel.dim() == 3 else m.input * channel[:, :, None, None]


def scaled_output(m: Mixture, y: Tensor) -> Tensor:
    """Fresh products ``y``, Tensor[batch, out_channels, height, width], times the α_f that all kernels share, plus the
    bias."""
    filter_, bias = m.filter_attention, m.bias
    if filter_ is None or filter_.dim() == 3:
        return y if bias is None else y + bias[:, None, None]
    scale = filter_[:, :, None, None]
    if bias is not None:
        return torch.addcmul(bias[:, None, None], y, scale)
    return y * scale if y.requires_grad or scale.requires_grad else y.mul_(scale)


MIXTURE_CONV.backends['shared'] = Backend(shared, refuses)

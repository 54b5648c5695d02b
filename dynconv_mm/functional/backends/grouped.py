"""One kernel for each sample and a convolution with ``batch * groups`` groups, as everybody does it."""
from __future__ import annotations

from torch import Tensor

from ..mixture_conv import MIXTURE_CONV, Mixture, sample_kernels
from ..operator import Backend
from ..sample_conv import grouped_conv
from .shared import scaled_input, scaled_output


def grouped(m: Mixture) -> Tensor:
    """What all kernels share leaves the sum: α_c scales the input's channels and α_f the output's."""
    channel, filter_ = (attention if attention is not None and attention.dim() == 3 else None
                        for attention in (m.channel_attention, m.filter_attention))
    kernels = sample_kernels(m._replace(channel_attention=channel, filter_attention=filter_))
    return scaled_output(m, grouped_conv(scaled_input(m), kernels, None, *m[7:11]))


MIXTURE_CONV.backends['grouped'] = Backend(grouped)

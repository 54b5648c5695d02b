"""The kernels of all samples by one compiled function, then their convolution, for inference on a CPU."""
from __future__ import annotations

import torch
from torch import Tensor

from ...mixture_conv import MIXTURE_CONV, Mixture
from ...operator import Backend, scratch
from ...sample_conv import convolve_samples
from ..shared import needs_shared_attentions
from . import SERIAL_PRODUCTS, ZEROS, addresses, load
from . import refuses as refuses_features
from .depthwise import depthwise_conv2d


def mixture_conv(m: Mixture) -> Tensor:
    """Attentions are folded into the kernels, which lie in memory that the next call overwrites."""
    kernels = sample_kernels(m)
    if kernels is None:  # parts of different types or devices are torch's to refuse
        return MIXTURE_CONV.reference(m)
    if m.groups > 1 and m.weight.shape[2] == 1 and m.weight.shape[1] == m.groups:
        y = depthwise_conv2d(m.input, kernels.flatten(0, 1), m.bias, *m[7:10])
        if y is not None:
            return y
    return convolve_samples(m.input, kernels, m.bias, *m[7:11])


def sample_kernels(m: Mixture) -> Tensor | None:
    """Each sample's kernel with all of its attentions.

    Returns:
        Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width], or None unless all tensors are
        of the features' type and lie on the CPU.
    """
    batch, dtype, weight = m.input.shape[0], m.input.dtype, m.weight.contiguous()
    bank = addresses(dtype, (weight, weight.numel()))
    rows, attentions = [], list(m[3:7])  # held until the kernels are made: copies would end with the loop
    for index, attention in enumerate(attentions):
        if attention is None:
            rows += [0, 0]
            continue
        if attention.dtype is not dtype or not attention.is_cpu:
            return None
        if attention.stride(1) != 1 or attention.is_neg():
            attention = attentions[index] = attention.resolve_neg().contiguous()
        rows += [attention.data_ptr(), attention.stride(0)]
    if bank is None:
        return None
    n, out_channels, channels, height, width = weight.shape
    mixed = scratch('kernels', (batch, out_channels, channels, height, width), weight)
    load('mixture_conv').mix_and_scale(ZEROS[dtype], *bank, batch, n, m.groups, out_channels // m.groups, channels,
                                           height * width, *rows, mixed.data_ptr())
    return mixed


def refuses(m: Mixture) -> str | None:
    """Attentions of each kernel, and what is better left to several threads."""
    if torch.get_num_threads() > 1 and m.input.shape[0] * m.weight.numel() > SERIAL_PRODUCTS:
        return 'large kernels beside several threads of torch'
    return needs_shared_attentions(m) or refuses_features(m.input, 'mixture_conv')


MIXTURE_CONV.backends['numba'] = Backend(mixture_conv, refuses, None)

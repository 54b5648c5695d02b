"""The kernels of all samples by one compiled function, then their convolution, for inference on a CPU."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...mixture_conv import MIXTURE_CONV, Mixture
from ...operator import Backend, scratch
from ...sample_conv import SampleConv, convolve_samples
from ..shared import needs_shared_attentions
from . import ZEROS, addresses, load
from . import refuses as refuses_features
from .depthwise import convolve
from .depthwise import refuses as refuses_depthwise
from .threads import in_threads


def mixture_conv(m: Mixture) -> Tensor:
    """Attentions and a norm are folded into the kernels, which lie in memory that the next call overwrites."""
    made = make_kernels(m)
    if made is None:  # parts of different types or devices are torch's to refuse
        return MIXTURE_CONV.reference(MIXTURE_CONV.without_norm(m))
    kernels, bias = made
    if m.groups > 1:
        call = SampleConv(m.input, kernels.unflatten(0, (-1, m.weight.shape[1])), bias, *m[7:11])
        y = convolve(call) if refuses_depthwise(call) is None else None
        if y is not None:
            return y
    if len(m.input) == 1:
        return F.conv2d(m.input, kernels, bias, *m[7:11])
    return convolve_samples(m.input, kernels.unflatten(0, (-1, m.weight.shape[1])), bias, *m[7:11])


def make_kernels(m: Mixture) -> tuple[Tensor, Tensor | None] | None:
    """Each sample's kernel with all of its attentions and the scale of the norm, and the bias.

    Returns:
        tuple: Tensor[batch * out_channels, in_channels / groups, kernel_height, kernel_width] and Tensor[out_channels]
        or None; None unless all tensors are of the features' type and lie on the CPU.
    """
    x, weight, bias = m[:3]
    batch, dtype = x.shape[0], x.dtype
    if not weight.is_contiguous():
        weight = weight.contiguous()
    n, out_channels, channels, height, width = weight.shape
    of_norm = (None, None, None, None, 0.) if m.norm is None else m.norm
    at = addresses(dtype, (weight, weight.numel()), *[(tensor, out_channels) for tensor in of_norm[:4]],
                   (bias, out_channels))
    rows, attentions = [], list(m[3:7])  # held until the kernels are made: copies would end with the loop
    for index, attention in enumerate(attentions):
        if attention is None:
            rows += [0, 0]
            continue
        if attention.dtype is not dtype or not attention.is_cpu:
            return None
        if attention.stride(1) != 1:
            attention = attentions[index] = attention.contiguous()
        rows += [attention.data_ptr(), attention.stride(0)]
        if not rows[-2]:  # as in addresses()
            return None
    if at is None:
        return None
    mixed = scratch('kernels', (batch * out_channels, channels, height, width), weight)
    offset = bias if m.norm is None else scratch('offset', (out_channels, ), weight)
    in_threads(load('mixture_conv').mix_and_scale, (weight, *attentions, *of_norm[:4], bias, mixed, offset),
               out_channels, batch * weight.numel(), ZEROS[dtype], at[0], batch, n, m.groups, out_channels // m.groups,
               channels, height * width, *rows, *at[1:], of_norm[4], mixed.data_ptr(),
               0 if m.norm is None else offset.data_ptr())
    return mixed, offset


def refuses(m: Mixture) -> str | None:
    """Why the compiled function does not serve a call, or None."""
    return needs_shared_attentions(m) or refuses_features(m.input, 'mixture_conv')


MIXTURE_CONV.backends['numba'] = Backend(mixture_conv, refuses, None, takes_norm=True)

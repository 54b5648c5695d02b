"""Depthwise convolution without gradients on a CPU, where a compiled function is faster than torch's."""
from __future__ import annotations

import functools

import torch
from torch import Tensor

from ...conv import CONV, Conv
from ...geometry import IntPair
from ...operator import Backend, Operator
from ...sample_conv import SAMPLE_CONV, SampleConv
from . import ZEROS, addresses, load
from . import refuses as refuses_features
from .threads import in_threads

# Torch convolves small maps side by side, which takes it some 0.2 ms to prepare.
SMALL_MAP, MANY_NUMBERS = 128, 2**16


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair,
                     dilation: IntPair) -> Tensor | None:
    """Convolve each channel by its kernel.

    Args:
        x (Tensor[batch, channels, height, width]): features.
        weight (Tensor[channels or batch * channels, 1, kernel_height, kernel_width]): the kernels, for all samples or
            each by itself.
        bias (Tensor[channels], optional): added, the same for all samples.
        stride, padding, dilation: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, channels, height, width], or None where the compiled function does not serve, or torch's is best:
        for outputs of another size, and for many small maps.
    """
    kernel_size = weight.shape[2:]
    keeping = tuple([d * (k - 1) for d, k in zip(dilation, kernel_size)])
    batch, channels, height, width = x.shape
    if stride != (1, 1) or keeping != (2 * padding[0], 2 * padding[1]) or refuses_features(x, 'depthwise') \
            or not x.numel() or height * width < SMALL_MAP and x.numel() > MANY_NUMBERS:
        return None
    kernels = weight.shape[0]
    at = addresses(x.dtype, (x, x.numel()), (weight, kernels * kernel_size.numel()), (bias, channels))
    if at is None:
        return None
    output = torch.empty_like(x)
    in_threads(load('depthwise').convolve_maps, (x, weight, bias, output), batch * channels,
               x.numel() * kernel_size.numel(), ZEROS[x.dtype], *at, output.data_ptr(), kernels, channels,
               (height, width, *kernel_size, *dilation))
    return output


def _convolve(operator: Operator, call: Conv | SampleConv) -> Tensor:
    y = depthwise_conv2d(call.input, call.weight.flatten(0, -4), *call[2:6])
    return operator.reference(call) if y is None else y


def refuses(call: Conv | SampleConv) -> str | None:
    """Why the compiled function does not serve a call, or None: it is for depthwise convolutions."""
    depthwise = call.input.dim() == 4 and 1 < call.groups == call.input.shape[1] == call.weight.shape[-4]
    return refuses_features(call.input, 'depthwise') if depthwise else 'a convolution that is not depthwise'


for _operator in (CONV, SAMPLE_CONV):
    _operator.backends['numba'] = Backend(functools.partial(_convolve, _operator), refuses, None)

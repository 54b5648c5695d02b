"""Depthwise convolution on a CPU, forward and backward, where a compiled function is faster than torch's."""
from __future__ import annotations

import functools

import torch
from torch import Tensor

from ...conv import CONV, Conv
from ...geometry import output_size
from ...operator import Backend, Operator
from ...sample_conv import SAMPLE_CONV, SampleConv
from . import ZEROS, addresses, load
from . import refuses as refuses_features
from .threads import in_threads

# Torch convolves small maps side by side, which takes it some 0.2 ms to prepare.
SMALL_MAP, MANY_NUMBERS = 128, 2**16


def convolve(call: Conv | SampleConv) -> Tensor | None:
    """The outputs of a call that is not refused, or None where not all of its tensors are of the features' type."""
    x, weight, bias = call[:3]
    batch, channels, *size = x.shape
    kernel_size, kernels = weight.shape[-2:], weight.shape[:-3].numel()
    out_size = output_size(size, kernel_size, *call[3:6])
    at = addresses(x.dtype, (x, x.numel()), (weight, weight.numel()), (bias, channels))
    if at is None:
        return None
    output = x.new_empty(batch, channels, *out_size)
    in_threads(load('depthwise').convolve_maps, (x, weight, bias, output), batch * channels,
               output.numel() * kernel_size.numel(), ZEROS[x.dtype], *at, output.data_ptr(), kernels, channels,
               (*size, *kernel_size, *call.stride, *call.dilation, *call.padding, *out_size))
    return output


def _convolve(operator: Operator, call: Conv | SampleConv) -> Tensor:
    y = convolve(call)
    return operator.reference(call) if y is None else y


def _differentiate(call: Conv | SampleConv, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of input, weight and bias, each if needed."""
    tensors = [tensor.contiguous() for tensor in (grad, call.input, call.weight)]
    x, weight = tensors[1:]
    kernel_size = weight.shape[-2:]
    kernels, maps = weight.shape[:-3].numel(), x.shape[:2].numel()
    of_maps = x.new_empty(maps, *weight.shape[-3:])  # each map's kernel
    tensors += torch.zeros_like(x), of_maps
    at = addresses(x.dtype, *[(tensor, tensor.numel()) for tensor in tensors])
    if at is None:
        raise RuntimeError('a depthwise convolution needs tensors with memory, and that of one of them was freed')
    geometry = (*x.shape[2:], *kernel_size, *call.stride, *call.dilation, *call.padding, *grad.shape[2:])
    in_threads(load('depthwise').convolve_gradients, tensors, maps, 2 * grad.numel() * kernel_size.numel(),
               ZEROS[x.dtype], *at, kernels, geometry)
    of_weight = of_maps.view(-1, *weight.shape[-4:]).sum(0) if kernels < maps else of_maps.view_as(weight)
    return tensors[3], of_weight, grad.sum((0, 2, 3)) if needed[2] else None


def refuses(call: Conv | SampleConv) -> str | None:
    """Why the compiled functions do not serve a call, or None: for other convolutions, and where torch's are best."""
    x, weight = call[:2]
    if x.dim() != 4 or not 1 < call.groups == x.shape[1] == weight.shape[-4]:
        return 'a convolution that is not depthwise'
    height, width = output_size(x.shape[2:], weight.shape[-2:], *call[3:6])
    if not x.is_contiguous() or not x.numel() or min(height, width) < 1 \
            or height * width < SMALL_MAP and len(x) * x.shape[1] * height * width > MANY_NUMBERS:
        return 'many small maps, none, or maps of another memory format'
    return refuses_features(x, 'depthwise')


for _operator in (CONV, SAMPLE_CONV):
    _operator.backends['numba'] = Backend(functools.partial(_convolve, _operator), refuses, _differentiate)

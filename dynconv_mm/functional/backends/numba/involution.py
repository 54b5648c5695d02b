"""Involution, forward and backward, by compiled functions that work on blocks of rows in the cache."""
from __future__ import annotations

import torch
from torch import Tensor

from ...involution import INVOLUTION, Involution, accumulation_dtype
from ...operator import Backend
from ..products import empty_output
from . import ZEROS, addresses, load, refuses
from .threads import in_threads


def forward(call: Involution) -> Tensor:
    """The outputs."""
    return _run('involve', call.input, call.weight, empty_output(call), call)


def backward(call: Involution, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of input and weight, each if needed."""
    return (_run('involve_gradients', grad, call.weight, torch.zeros_like(call.input), call) if needed[0] else None,
            _run('kernel_gradients', grad, call.input, torch.empty_like(call.weight), call) if needed[1] else None)


def _run(name: str, first: Tensor, second: Tensor, result: Tensor, call: Involution) -> Tensor:
    """Call a compiled function with two tensors and its result, copies where they are not as it reads them."""
    input, weight, stride, padding, dilation = call
    dtype = accumulation_dtype(input.dtype)
    tensors = [tensor.to(dtype).contiguous() for tensor in (first, second)]
    out = torch.zeros_like(result, dtype=dtype, memory_format=torch.contiguous_format) \
        if result.dtype != dtype or not result.is_contiguous() else result
    batch, groups, *kernel_size = weight.shape[:4]
    geometry = (*input.shape[2:], *kernel_size, *stride, *dilation, *padding, *weight.shape[4:])
    channels = input.shape[1] // groups
    tensors.append(out)
    at = addresses(dtype, *[(tensor, tensor.numel()) for tensor in tensors])
    if at is None:
        raise RuntimeError(f'{name} needs tensors with memory, and that of one of them was freed')
    in_threads(getattr(load('involution'), name), tensors, batch * groups, weight.numel() * channels, ZEROS[dtype], *at,
               channels, geometry)
    return result if out is result else result.copy_(out)


INVOLUTION.backends['numba'] = Backend(
    forward, lambda call: refuses(call.input, 'involution', accumulation_dtype(call.input.dtype)), backward)

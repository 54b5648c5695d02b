"""Involution, forward and backward, by compiled functions that work on blocks of rows in the cache."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...involution import INVOLUTION, Involution
from ...operator import Backend
from .. import embedding_bag
from ..products import empty_output
from . import ZEROS, addresses, load
from . import refuses as refuses_features
from .threads import in_threads


def forward(call: Involution) -> Tensor:
    """The outputs."""
    output = empty_output(call)
    done = _run('involve', call.input, call.weight, output, call)
    return output if done else embedding_bag.forward(call)


def backward(call: Involution, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of input and weight, each if needed."""
    return grad_input(call, grad) if needed[0] else None, grad_weight(call, grad) if needed[1] else None


def grad_input(call: Involution, grad: Tensor) -> Tensor:
    """The gradient of the input."""
    result = torch.zeros_like(call.input)
    done = _run('involve_gradients', grad.contiguous(), call.weight, result, call)
    return result if done else embedding_bag.grad_input(call, grad)


def grad_weight(call: Involution, grad: Tensor) -> Tensor:
    """The gradient of the weight."""
    result = torch.empty_like(call.weight)
    done = _run('kernel_gradients', grad.contiguous(), call.input, result, call)
    return result if done else embedding_bag.grad_weight(call, grad)


def _run(name: str, first: Tensor, second: Tensor, result: Tensor, call: Involution) -> bool:
    """Call a compiled function with two tensors and its result; False where they do not lie as it reads them."""
    input, weight, stride, padding, dilation = call
    at = addresses(input.dtype, *[(tensor, tensor.numel()) for tensor in (first, second, result)])
    if at is None:
        return False
    batch, groups, *kernel_size = weight.shape[:4]
    geometry = (*input.shape[2:], *kernel_size, *stride, *dilation, *padding, *weight.shape[4:])
    channels = input.shape[1] // groups
    in_threads(getattr(load('involution'), name), batch * groups, weight.numel() * channels, ZEROS[input.dtype],
               *at, channels, geometry)
    return True


INVOLUTION.backends['numba'] = Backend(forward, lambda call: refuses_features(call.input, 'involution'), backward)

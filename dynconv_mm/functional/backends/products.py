"""Involution on any device: one pass over the features for each of the k² shifts, written into one result."""
from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import without_padding, zeros_padded
from ..involution import INVOLUTION, Involution, accumulation_dtype, padded_groups, shifts
from ..operator import Backend, is_channels_last


def forward(call: Involution) -> Tensor:
    """The outputs."""
    input, weight, stride, padding, dilation = call
    padded = padded_groups(input, weight.shape[1], padding)
    output = torch.zeros(*padded.shape[:3], *weight.shape[4:], dtype=accumulation_dtype(input.dtype),
                         device=input.device)
    for i, j, window in shifts(weight, stride, dilation):
        output.addcmul_(padded[window], weight[:, :, None, i, j])
    return empty_output(call).copy_(output.flatten(1, 2))


def backward(call: Involution, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of input and weight, each if needed."""
    return grad_input(call, grad) if needed[0] else None, grad_weight(call, grad) if needed[1] else None


def grad_input(call: Involution, grad: Tensor) -> Tensor:
    """The gradient of the input."""
    input, weight, stride, padding, dilation = call
    grad = grad.unflatten(1, (weight.shape[1], -1))
    padded = zeros_padded(input, padding).to(accumulation_dtype(input.dtype)).unflatten(1, (weight.shape[1], -1))
    for i, j, window in shifts(weight, stride, dilation):
        padded[window].addcmul_(grad, weight[:, :, None, i, j])
    return torch.empty_like(input).copy_(without_padding(padded.flatten(1, 2), padding))


def grad_weight(call: Involution, grad: Tensor) -> Tensor:
    """The gradient of the weight."""
    input, weight, stride, padding, dilation = call
    grad, padded = grad.unflatten(1, (weight.shape[1], -1)), padded_groups(input, weight.shape[1], padding)
    result, dtype = torch.empty_like(weight), accumulation_dtype(input.dtype)
    for i, j, window in shifts(weight, stride, dilation):
        result[:, :, i, j] = (padded[window].to(dtype) * grad).sum(2)
    return result


def empty_output(call: Involution) -> Tensor:
    """Memory for the output, in the input's memory format."""
    x = call.input
    return torch.empty(*x.shape[:2], *call.weight.shape[4:], dtype=x.dtype, device=x.device,
                       memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)


INVOLUTION.backends['products'] = Backend(forward, backward=backward)

"""A kernel for each sample with the attentions multiplied into it, so that the input itself need not be scaled.

Kernels are made for a few samples at a time, and anew in the backward pass, so that no more are kept.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..mixture_conv import MIXTURE_CONV, Mixture, sample_kernels
from ..operator import Backend, execute, scratch
from ..sample_conv import (
    KERNEL_ELEMENTS,
    SAMPLE_CONV,
    SampleConv,
    convolve_samples,
    convolve_samples_backward,
    grouped_conv,
)
from .shared import scaled_input, scaled_output, without_scalings


def fold(m: Mixture) -> Tensor:
    """Where the features are smaller than the kernels, α_c scales the input and α_f the output instead. Kernels of
    depthwise convolutions are small and kept."""
    if m.groups > 1 and m.weight.shape[2] == 1:
        return SAMPLE_CONV(SampleConv(m.input, sample_kernels(m), m.bias, *m[7:11]))
    batch, kernel, folded = m.input.shape[0], math.prod(m.weight.shape[1:]), m
    channel, filter_ = m.channel_attention, m.filter_attention
    if channel is not None and channel.dim() == 2 and m.input.numel() < batch * kernel:
        folded = folded._replace(input=m.input * channel[:, :, None, None], channel_attention=None)
    pixels = math.prod(m.input.shape[2:]) // math.prod(m.stride)
    filter_after = filter_ is not None and filter_.dim() == 2 and m.weight.shape[1] * pixels < kernel
    if filter_after:
        folded = folded._replace(filter_attention=None, bias=None)
    y = execute(MIXTURE_CONV, KERNELS, folded)
    if not filter_after:
        return y
    scale = filter_[:, :, None, None]
    return y * scale if m.bias is None else torch.addcmul(m.bias[:, None, None], y, scale)


def grouped(m: Mixture) -> Tensor:
    """As released code does it: all kernels at once, and one convolution with ``batch * groups`` groups between the
    scalings that all kernels share."""
    kernels = sample_kernels(without_scalings(m))
    return scaled_output(m, grouped_conv(scaled_input(m), kernels, None, *m[7:11]))


def convolve(m: Mixture, samples: int) -> Tensor:
    """Convolve by kernels made for so many samples at a time. No gradients are recorded."""
    if m.input.shape[0] == 1:
        return F.conv2d(m.input, _kernels(m)[0], m.bias, *m[7:11])
    parts = [convolve_samples(part.input, _kernels(part), m.bias, *m[7:11]) for part in _parts(m, samples)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def differentiate(m: Mixture, grad: Tensor, needed: tuple[bool, ...], samples: int) -> tuple[Tensor | None, ...]:
    """The gradients of :func:`convolve`, for those of the tensors that need one."""
    grads: list[list[Tensor]] = [[] for _ in needed]
    others = [index for index in range(1, 7) if needed[index] and index != 2]  # what kernels are made of
    for part, grad_part in zip(_parts(m, samples), grad.split(samples)):
        leaves = [part[index].detach().requires_grad_() for index in others]
        with torch.enable_grad():
            tensors = list(part)
            for index, leaf in zip(others, leaves):
                tensors[index] = leaf
            kernels = sample_kernels(Mixture(*tensors))
        of_input, of_kernels = convolve_samples_backward(grad_part, part.input, kernels.detach(), needed[0],
                                                         bool(others), *m[7:11])
        if needed[0]:
            grads[0].append(of_input)
        if needed[2]:
            grads[2].append(grad_part.sum((0, 2, 3)))
        if others:
            for index, gradient in zip(others, torch.autograd.grad(kernels, leaves, of_kernels)):
                if grads[index] and index == 1:
                    grads[1][0].add_(gradient)
                else:
                    grads[index].append(gradient)
    return tuple(None if not parts else sum(parts) if index == 2 else parts[0] if len(parts) == 1 else torch.cat(parts)
                 for index, parts in enumerate(grads))


def _parts(m: Mixture, samples: int) -> list[Mixture]:
    """The mixture, so many samples at a time."""
    batch = m.input.shape[0]
    if batch <= samples:
        return [m]
    per_sample = (0, 3, 4, 5, 6)  # features and attentions
    return [Mixture(*(value[start:start + samples] if index in per_sample and value is not None else value
                      for index, value in enumerate(m))) for start in range(0, batch, samples)]


def _kernels(m: Mixture) -> Tensor:
    """:func:`~dynconv_mm.functional.mixture_conv.sample_kernels` in memory that the next call overwrites."""
    batch, weight = m.input.shape[0], m.weight
    if not m.shares_attention:
        return sample_kernels(m)
    _, out_channels, group_channels, *kernel_size = weight.shape
    spatial, channel, filter_ = m[4:7]
    column = None  # α_s ⊗ α_c, small beside the kernels
    if spatial is not None:
        column = spatial.reshape(batch, 1, 1, 1, *kernel_size)
    if channel is not None:
        channel = channel.reshape(batch, m.groups, 1, group_channels, 1, 1)
        column = channel if column is None else column * channel
    shape = batch, column.shape[1] if column is not None else 1, -1, group_channels, *kernel_size
    if m.kernel_attention is None:
        kernels, target = weight.expand(batch, -1, -1, -1, -1), None
    else:
        bank = weight.flatten(1)
        kernels = target = torch.mm(m.kernel_attention, bank, out=scratch('kernels', (batch, bank.shape[1]), bank))
    for scale in (column, None if filter_ is None else filter_.reshape(batch, shape[1], -1, 1, 1, 1)):
        if scale is not None:
            kernels = kernels.reshape(shape)
            if target is None:
                target = scratch('kernels', kernels.shape, kernels)
            kernels = torch.mul(kernels, scale, out=target.view(kernels.shape))
    return kernels.reshape(batch, *weight.shape[1:])


def _samples_at_once(m: Mixture) -> int:
    return max(1, KERNEL_ELEMENTS[m.input.is_cpu] // math.prod(m.weight.shape[1:]))


KERNELS = Backend(lambda m: convolve(m, _samples_at_once(m)),
                  backward=lambda m, grad, needed: differentiate(m, grad, needed, _samples_at_once(m)))
MIXTURE_CONV.backends['fold'] = Backend(fold)
MIXTURE_CONV.backends['per_sample'] = Backend(lambda m: convolve(m, 1),
                                              backward=lambda m, grad, needed: differentiate(m, grad, needed, 1))
MIXTURE_CONV.backends['grouped'] = Backend(grouped)

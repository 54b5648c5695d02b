"""Convolution of every sample with a kernel of its own."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import IntPair, check_input, pad_zeros, window, without_padding, zeros_padded
from .operator import Backend, Operator, is_channels_last

KERNEL_ELEMENTS = {True: 2**22, False: 2**28}
"""Of the kernels that are made at once, by whether they are on the CPU: no more than glibc allocates without mapping
memory anew (32 MiB of float32); a GPU needs many samples to be busy, and its allocator keeps memory."""


class SampleConv(NamedTuple):
    """The arguments of :func:`sample_conv2d`, checked."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: IntPair
    padding: IntPair
    dilation: IntPair
    groups: int


def sample_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int | IntPair = 1,
                  padding: int | IntPair = 0, dilation: int | IntPair = 1, groups: int = 1) -> Tensor:
    """Convolve sample b of ``input`` by ``weight[b]``.

    Args:
        input (Tensor[batch, in_channels, height, width]): features; the batch may be empty.
        weight (Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]): the kernels.
        bias (Tensor[out_channels], optional): added to the result, the same for all samples.
        stride, padding, dilation, groups: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, out_channels, out_height, out_width], in the memory format of ``input``

    Raises:
        ValueError: ``input`` is no batch of maps, or ``weight`` does not hold one kernel for each sample or has the
            wrong number of channels.
    """
    check_input(input)
    if weight.dim() != 5 or weight.shape[0] != input.shape[0]:
        raise ValueError(f'weight must be [batch={input.shape[0]}, out_channels, in_channels / groups, kernel_height, '
                         f'kernel_width], but its shape is {tuple(weight.shape)}')
    if input.shape[1] != weight.shape[2] * groups or weight.shape[1] % groups:
        raise ValueError(f'input has {input.shape[1]} channels, and weight of shape {tuple(weight.shape)} with '
                         f'groups={groups} takes {weight.shape[2] * groups}; out_channels must be divisible by groups')
    if bias is not None and bias.shape != (weight.shape[1], ):
        raise ValueError(f'bias must be [{weight.shape[1]}], but its shape is {tuple(bias.shape)}')
    return SAMPLE_CONV(SampleConv(input, weight, bias, *window(stride, padding, dilation), groups))


def grouped_conv(x: Tensor, kernels: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair,
                 dilation: IntPair, groups: int) -> Tensor:
    """The equation, as one convolution with ``batch * groups`` groups; arguments are those of
    :func:`sample_conv2d`."""
    batch = x.shape[0]
    if batch == 0:
        return F.conv2d(x, kernels.sum(0), bias, stride, padding, dilation, groups)
    if batch == 1:
        return F.conv2d(x, kernels[0], bias, stride, padding, dilation, groups)
    if bias is not None:
        bias = bias.repeat(batch)
    y = F.conv2d(x.reshape(1, batch * x.shape[1], *x.shape[2:]), kernels.flatten(0, 1), bias, stride, padding,
                 dilation, batch * groups)
    return y.reshape(batch, kernels.shape[1], *y.shape[2:])


def convolve_samples(x: Tensor, kernels: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair,
                     dilation: IntPair, groups: int) -> Tensor:
    """:func:`~dynconv_mm.functional.sample_conv2d`, dense 1×1 kernels of several samples as matrix products."""
    if x.shape[0] == 1 or groups > 1 or kernels.shape[3] * kernels.shape[4] > 1:
        return grouped_conv(x, kernels, bias, stride, padding, dilation, groups)
    return pointwise_product(kernels[..., 0, 0], pointwise_columns(x, stride, padding), bias)


def convolve_samples_backward(grad: Tensor, x: Tensor, kernels: Tensor, needs_x: bool, needs_kernels: bool,
                              stride: IntPair, padding: IntPair, dilation: IntPair,
                              groups: int) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of :func:`convolve_samples` for ``x`` and for ``kernels``, each if needed.

    Args:
        grad (Tensor[batch, out_channels, out_height, out_width]): gradient of the output.
    """
    if kernels.shape[3] * kernels.shape[4] == groups == 1:
        grad_x = grad_kernels = None
        if needs_kernels:
            pixels = pointwise_columns(x, stride, padding).flatten(2)
            grad_kernels = torch.bmm(grad.flatten(2), pixels.transpose(1, 2)).view_as(kernels)
        if needs_x:
            grad_x = pointwise_product(kernels[..., 0, 0].transpose(1, 2), grad)
            if stride != (1, 1) or padding != (0, 0):
                whole = zeros_padded(x, padding)
                whole[:, :, ::stride[0], ::stride[1]] = grad_x
                grad_x = without_padding(whole, padding)
        return grad_x, grad_kernels
    batch = len(x)
    grad_x, grad_kernels, _ = torch.ops.aten.convolution_backward(
        grad.reshape(1, -1, *grad.shape[2:]), x.reshape(1, -1, *x.shape[2:]), kernels.flatten(0, 1), None,
        stride, padding, dilation, False, (0, 0), batch * groups, (needs_x, needs_kernels, False))
    return (grad_x.view_as(x) if needs_x else None, grad_kernels.view_as(kernels) if needs_kernels else None)


def pointwise_columns(x: Tensor, stride: IntPair, padding: IntPair) -> Tensor:
    """The pixels that a 1×1 convolution sees.

    Returns:
        Tensor[batch, channels, out_height, out_width]
    """
    x = pad_zeros(x, padding)
    return x if stride == (1, 1) else x[:, :, ::stride[0], ::stride[1]]


def pointwise_product(kernels: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply every pixel of sample b by ``kernels[b]``.

    A matrix product in the memory format that ``x`` has: on a CPU up to twice as fast as the library's 1×1
    convolution, which reorders its operands.

    Args:
        kernels (Tensor[batch or 1, out_channels, channels]): a matrix for each sample or one for all.
        x (Tensor[batch, channels, height, width]): features.
        bias (Tensor[out_channels], optional): added.

    Returns:
        Tensor[batch, out_channels, height, width]
    """
    batch, _, height, width = x.shape
    kernels = kernels.expand(batch, -1, -1)
    if is_channels_last(x):
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        weights = kernels.transpose(1, 2)
        y = torch.bmm(pixels, weights) if bias is None else torch.baddbmm(bias, pixels, weights)
        return y.view(batch, height, width, -1).permute(0, 3, 1, 2)
    y = torch.bmm(kernels, x.flatten(2))
    if bias is not None:
        y.add_(bias[:, None])  # baddbmm would first write the bias to the whole result
    return y.view(batch, -1, height, width)


SAMPLE_CONV = Operator(3, lambda call: grouped_conv(*call), lambda call, needs_grad: ('numba', 'products'))
SAMPLE_CONV.backends['products'] = Backend(lambda call: convolve_samples(*call))

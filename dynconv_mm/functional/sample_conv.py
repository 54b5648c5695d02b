"""Convolution of every sample with a kernel of its own."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from . import portable
from .tracing import is_exported, is_traced

IntPair = tuple[int, int]


def pair(value: int | IntPair) -> IntPair:
    """One int as two."""
    return (value, value) if isinstance(value, int) else tuple(value)


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies in memory with its channels last, and not with them first at the same time."""
    if is_exported():  # what memory looks like is the runtime's business
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def empty_like_format(like: Tensor, *size: int, dtype: torch.dtype) -> Tensor:
    """An empty Tensor[size] in the memory format of ``like``, as torch's convolutions return it."""
    return torch.empty(size, dtype=dtype, device=like.device,
                       memory_format=torch.channels_last if is_channels_last(like) else torch.contiguous_format)


def output_size(size: IntPair, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> IntPair:
    """Height and width of a convolution's output.

    Raises:
        ValueError: the padded input is smaller than the kernel.
    """
    out = tuple((s + 2 * p - d * (k - 1) - 1) // t + 1
                for s, k, t, p, d in zip(size, kernel_size, stride, padding, dilation))
    if min(out) < 1:
        raise ValueError(f'input must not be smaller than the kernel: its size is {size[0]}×{size[1]}, with kernel '
                         f'size {tuple(kernel_size)}, padding {padding} and dilation {dilation}')
    return out


def pointwise_columns(x: Tensor, stride: IntPair, padding: IntPair) -> Tensor:
    """The pixels that a 1×1 convolution sees.

    Returns:
        Tensor[batch, channels, out_height, out_width]
    """
    if padding != (0, 0):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
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
    pixels = x.flatten(2)
    if bias is None or torch.is_grad_enabled():
        y = torch.bmm(kernels, pixels) if bias is None else torch.baddbmm(bias[:, None], kernels, pixels)
    else:  # baddbmm would first write the bias to the whole result
        y = torch.bmm(kernels, pixels).add_(bias[:, None])
    return y.view(batch, -1, height, width)


def grouped_conv(x: Tensor, kernels: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair,
                 dilation: IntPair, groups: int) -> Tensor:
    """Convolve sample b of ``x`` by ``kernels[b]``: one convolution with ``batch * groups`` groups."""
    if is_exported():
        return portable.sample_conv(x, kernels, bias, stride, padding, dilation, groups)
    batch = x.shape[0]
    if batch == 1:
        return F.conv2d(x, kernels[0], bias, stride, padding, dilation, groups)
    if bias is not None:
        bias = bias.repeat(batch)
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels.reshape(-1, *kernels.shape[2:]), bias, stride, padding,
                 dilation, batch * groups)
    return y.view(batch, -1, *y.shape[2:])


def sample_conv2d(input: Tensor,
                  weight: Tensor,
                  bias: Tensor | None = None,
                  *,
                  stride: int | IntPair = 1,
                  padding: int | IntPair = 0,
                  dilation: int | IntPair = 1,
                  groups: int = 1) -> Tensor:
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
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    if input.dim() != 4:
        raise ValueError(f'input must be [batch, in_channels, height, width], but its shape is {tuple(input.shape)}')
    if weight.dim() != 5 or weight.shape[0] != input.shape[0]:
        raise ValueError(f'weight must be [batch={input.shape[0]}, out_channels, in_channels / groups, kernel_height, '
                         f'kernel_width], but its shape is {tuple(weight.shape)}')
    if input.shape[1] != weight.shape[2] * groups or weight.shape[1] % groups:
        raise ValueError(f'input has {input.shape[1]} channels, and weight of shape {tuple(weight.shape)} with '
                         f'groups={groups} takes {weight.shape[2] * groups}; out_channels must be divisible by groups')
    if not is_exported() and input.shape[0] == 0:
        return F.conv2d(input, weight.sum(0), bias, stride, padding, dilation, groups)
    one = not is_traced() and input.shape[0] == 1  # an ordinary convolution
    if not one and groups == 1 and tuple(weight.shape[3:]) == (1, 1):
        return pointwise_product(weight[..., 0, 0], pointwise_columns(input, stride, padding), bias)
    y = grouped_conv(input, weight, bias, stride, padding, dilation, groups)
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last(input) else y


def sample_conv2d_backward(grad: Tensor, input: Tensor, weight: Tensor, needs_input: bool, needs_weight: bool, *,
                           stride: IntPair, padding: IntPair, dilation: IntPair,
                           groups: int) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of :func:`sample_conv2d` for ``input`` and for ``weight``, each if needed.

    Args:
        grad (Tensor[batch, out_channels, out_height, out_width]): gradient of the output.
        input, weight, stride, padding, dilation, groups: as given to :func:`sample_conv2d`.
        needs_input, needs_weight (bool): which are needed.
    """
    if tuple(weight.shape[3:]) == (1, 1) and groups == 1:
        grad_input = grad_weight = None
        if needs_weight:
            pixels = pointwise_columns(input, stride, padding).flatten(2)
            grad_weight = torch.bmm(grad.flatten(2), pixels.transpose(1, 2)).view_as(weight)
        if needs_input:
            grad_input = pointwise_product(weight[..., 0, 0].transpose(1, 2), grad)
            if stride != (1, 1) or padding != (0, 0):
                batch, channels, height, width = input.shape
                whole = grad.new_zeros(batch, channels, height + 2 * padding[0], width + 2 * padding[1])
                whole[:, :, ::stride[0], ::stride[1]] = grad_input
                grad_input = whole[:, :, padding[0]:padding[0] + height, padding[1]:padding[1] + width]
        return grad_input, grad_weight
    batch = len(input)
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad.reshape(1, -1, *grad.shape[2:]), input.reshape(1, -1, *input.shape[2:]), weight.flatten(0, 1), None,
        stride, padding, dilation, False, (0, 0), batch * groups, (needs_input, needs_weight, False))
    return (grad_input.view_as(input) if needs_input else None,
            grad_weight.view_as(weight) if needs_weight else None)

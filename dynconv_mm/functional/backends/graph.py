"""Operators in terms that every compiler and runtime knows, for batches and maps of any size: what a graph holds.

Nothing here depends on a size that is only known at run time, such as the number of groups of a convolution, or on
whether gradients are recorded, and nothing writes to a tensor.
"""
from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import IntPair, pad_zeros
from ..involution import Involution
from ..mixture_conv import Mixture, sample_kernels
from ..sample_conv import pointwise_columns
from .shared import scaled_input, without_scalings


def mixture_conv(m: Mixture) -> Tensor:
    """One kernel for all samples by an ordinary convolution between scalings, other kernels as :func:`sample_conv`."""
    if not m.shares_attention:
        return sample_conv(m.input, sample_kernels(m), m.bias, *m[7:11])
    x = scaled_input(m)
    if m.kernel_attention is None and m.spatial_attention is None:
        y = F.conv2d(x, m.weight[0], None, *m[7:11])
    else:
        kernels = sample_kernels(without_scalings(m))
        y = sample_conv(x, kernels, None, *m[7:11])
    return scaled_output(m, y)


def scaled_output(m: Mixture, y: Tensor) -> Tensor:
    """``y`` times the α_f that all kernels share, plus the bias; ``y`` stays as it is."""
    y = y if m.filter_attention is None else y * m.filter_attention[:, :, None, None]
    return y if m.bias is None else y + m.bias[:, None, None]


def sample_conv(x: Tensor, kernels: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair, dilation: IntPair,
                groups: int) -> Tensor:
    """Convolve sample b of ``x`` by ``kernels[b]``: a depthwise convolution as a sum of shifted products, others as
    matrix products over the columns of the input.

    Args:
        x (Tensor[batch, in_channels, height, width]): features.
        kernels (Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]): the kernels.
        bias (Tensor[out_channels], optional): added.
        stride, padding, dilation, groups: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    batch = x.shape[0]
    out_channels, group_channels, kernel_height, kernel_width = kernels.shape[1:]
    x = pad_zeros(x, padding)
    rows = views(x, 2, kernel_height, stride[0], dilation[0])
    if groups > 1 and group_channels == 1:
        values = kernels.reshape(batch, groups, -1, 1, kernel_height, kernel_width, 1, 1)
        products = [window[:, :, None] * values[:, :, :, 0, i, j] for i, row in enumerate(rows)
                    for j, window in enumerate(views(row, 3, kernel_width, stride[1], dilation[1]))]
        y = functools.reduce(torch.add, products)
        height, width = y.shape[3:]
    else:
        if kernel_height * kernel_width == 1:
            columns = pointwise_columns(x, stride, (0, 0))
        else:
            columns = torch.stack(views(torch.stack(rows, 2), 4, kernel_width, stride[1], dilation[1]), 3)
        height, width = columns.shape[-2:]
        length = group_channels * kernel_height * kernel_width
        y = torch.matmul(kernels.reshape(batch, groups, out_channels // groups, length),
                         columns.reshape(batch, groups, length, height * width))
    y = y.reshape(batch, out_channels, height, width)
    return y if bias is None else y + bias[:, None, None]


def involution(call: Involution) -> Tensor:
    """For each row of the kernel a sum of shifted products."""
    input, weight, stride, padding, dilation = call
    batch, channels = input.shape[:2]
    groups, kernel_height, kernel_width = weight.shape[1:4]
    columns = torch.stack(views(pad_zeros(input, padding), 3, kernel_width, stride[1], dilation[1]), 2)
    rows = views(columns, 3, kernel_height, stride[0], dilation[0])
    shape = batch, groups, channels // groups, kernel_width, *rows[0].shape[3:]
    y = sum((row.reshape(shape) * weight[:, :, None, i]).sum(3) for i, row in enumerate(rows))
    return y.reshape(batch, channels, *y.shape[3:])


def views(x: Tensor, dim: int, size: int, stride: int, dilation: int) -> list[Tensor]:
    """What each element of a kernel sees along a dimension; counted from both ends, so that no length enters."""
    before = (slice(None), ) * dim
    return [x[(*before, slice(i * dilation, (i - size + 1) * dilation or None, stride))] for i in range(size)]


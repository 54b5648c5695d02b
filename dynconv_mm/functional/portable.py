"""Operators in terms that every runtime knows, for batches and maps of any size: what an exported graph holds.

Nothing here depends on a size that is only known at run time, such as the number of groups of a convolution, writes
to a part of a tensor, or is an operator of this package.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_conv(x: Tensor, kernels: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
                dilation: tuple[int, int], groups: int) -> Tensor:
    """Convolve sample b of ``x`` by ``kernels[b]``: matrix products over the columns of the input.

    Args:
        x (Tensor[batch, in_channels, height, width]): features.
        kernels (Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]): the kernels.
        bias (Tensor[out_channels], optional): added.
        stride, padding, dilation, groups: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    batch = kernels.shape[0]
    out_channels, _, kernel_height, kernel_width = kernels.shape[1:]
    rows = torch.stack(_views(_pad(x, padding), 2, kernel_height, stride[0], dilation[0]), 2)
    columns = torch.stack(_views(rows, 4, kernel_width, stride[1], dilation[1]), 3)
    height, width = columns.shape[4:]
    length = x.shape[1] // groups * kernel_height * kernel_width
    y = torch.matmul(kernels.reshape(batch, groups, out_channels // groups, length),
                     columns.reshape(batch, groups, length, height * width))
    y = y.reshape(batch, out_channels, height, width)
    return y if bias is None else y + bias[:, None, None]


def involution(input: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int],
               dilation: tuple[int, int]) -> Tensor:
    """See :func:`~dynconv_mm.functional.involution2d`: for each row of the kernel a sum of shifted products."""
    batch, channels = input.shape[:2]
    groups, kernel_height, kernel_width = weight.shape[1:4]
    columns = torch.stack(_views(_pad(input, padding), 3, kernel_width, stride[1], dilation[1]), 2)
    rows = _views(columns, 3, kernel_height, stride[0], dilation[0])
    shape = batch, groups, channels // groups, kernel_width, *rows[0].shape[3:]
    y = sum((row.reshape(shape) * weight[:, :, None, i]).sum(3) for i, row in enumerate(rows))
    return y.reshape(batch, channels, *y.shape[3:])


def adaptive_avg_pool2d(x: Tensor, size: int) -> Tensor:
    """:func:`torch.nn.functional.adaptive_avg_pool2d` to ``size`` pixels squared, as two matrix products."""
    rows, columns = (_averages(length, size, x) for length in x.shape[2:])
    return rows @ x @ columns.transpose(0, 1)


def _pad(x: Tensor, padding: tuple[int, int]) -> Tensor:
    return x if padding == (0, 0) else F.pad(x, (padding[1], padding[1], padding[0], padding[0]))


def _views(x: Tensor, dim: int, size: int, stride: int, dilation: int) -> list[Tensor]:
    """What each element of a kernel sees along a dimension; counted from both ends, so that no length enters."""
    before = (slice(None), ) * dim
    return [x[(*before, slice(i * dilation, (i - size + 1) * dilation or None, stride))] for i in range(size)]


def _averages(length: int, size: int, like: Tensor) -> Tensor:
    """Tensor[size, length]: row i averages the pixels ⌊i·length / size⌋ to ⌈(i+1)·length / size⌉ − 1."""
    cell, pixel = torch.arange(size, device=like.device)[:, None], torch.arange(length, device=like.device)
    inside = ((pixel + 1) * size > cell * length) & (pixel * size < (cell + 1) * length)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)

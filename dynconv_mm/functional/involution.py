"""Convolution whose kernel differs from position to position and is shared by groups of channels.

Involution (CVPR 2021, Eq. 4) and the local spatial-adaptive branch of DCDC (Eq. 5) are this operator with kernels
predicted in different ways. It is computed as a sum of shifted products, without k² copies of the input.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .geometry import IntPair, check_input, output_size, pad_zeros, window
from .operator import Operator


class Involution(NamedTuple):
    """The arguments of :func:`involution2d`, checked."""

    input: Tensor
    weight: Tensor
    stride: IntPair
    padding: IntPair
    dilation: IntPair


def involution2d(input: Tensor, weight: Tensor, *, stride: int | IntPair = 1, padding: int | IntPair = 0,
                 dilation: int | IntPair = 1) -> Tensor:
    r"""Convolve each position by its own kernel (Involution, Eq. 4).

    .. math:: y_{bchw} = \sum_{ij} W_{b g(c) ij hw} \, x_{b c,\, s h + d i - p,\, s w + d j - p}

    The channels are split into G groups of neighbours, g(c) = ⌊c·G/C⌋, each with its own kernels. Half precision is
    summed up in float32. CUDA tensors are computed by Triton where :func:`~dynconv_mm.functional.enable_triton` asks
    for it; CPU tensors by Numba where it is installed (:func:`~dynconv_mm.functional.enable_numba`).

    Args:
        input (Tensor[batch, channels, height, width]): features; the batch may be empty.
        weight (Tensor[batch, groups, kernel_height, kernel_width, out_height, out_width]): the kernels, of the
            input's dtype unless autocast casts both.
        stride, padding, dilation: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, channels, out_height, out_width], in the input's memory format

    Raises:
        ValueError: the tensors do not fit together; nothing is cropped.

    Example:
        >>> x, weight = torch.randn(2, 8, 9, 9), torch.randn(2, 4, 3, 3, 5, 5)
        >>> involution2d(x, weight, stride=2, padding=1).shape
        torch.Size([2, 8, 5, 5])
    """
    call = Involution(input, weight, *window(stride, padding, dilation))
    _check(call)
    return INVOLUTION(call)


def _check(call: Involution) -> None:
    input, weight, stride, padding, dilation = call
    check_input(input)
    if weight.dim() != 6:
        raise ValueError(f'weight must be [batch, groups, kernel_height, kernel_width, out_height, out_width], but '
                         f'its shape is {tuple(weight.shape)}')
    batch, channels, height, width = input.shape
    kernel_batch, groups, *kernel_size, out_height, out_width = weight.shape
    if kernel_batch != batch:
        raise ValueError(f'weight has kernels for a batch of {kernel_batch}, and input is a batch of {batch}')
    if groups == 0 or channels % groups:
        raise ValueError(f'input has {channels} channels, which the {groups} groups of weight do not divide')
    expected = output_size((height, width), kernel_size, stride, padding, dilation)
    if min(expected) < 1:
        raise ValueError(f'input must not be smaller than the kernel: its size is {height}×{width}, with kernel '
                         f'size {tuple(kernel_size)}, padding {padding} and dilation {dilation}')
    if (out_height, out_width) != expected:
        raise ValueError(f'weight has kernels for {out_height}×{out_width} positions, and a {height}×{width} input '
                         f'with kernel size {tuple(kernel_size)}, stride {stride}, padding {padding} and dilation '
                         f'{dilation} has {expected[0]}×{expected[1]}')


def reference(call: Involution) -> Tensor:
    """The equation: a product with the features for each of the k² shifts."""
    input, weight, stride, padding, dilation = call
    dtype = accumulation_dtype(input.dtype)
    padded = padded_groups(input, weight.shape[1], padding)
    y = sum(padded[window].to(dtype) * weight[:, :, None, i, j].to(dtype)
            for i, j, window in shifts(weight, stride, dilation))
    return y.flatten(1, 2).to(input.dtype)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which products are summed up."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def padded_groups(input: Tensor, groups: int, padding: IntPair) -> Tensor:
    """Padded features as [batch, groups, channels / groups, height, width]."""
    return pad_zeros(input, padding).unflatten(1, (groups, -1))


def shifts(weight: Tensor, stride: IntPair, dilation: IntPair) -> Iterator[tuple[int, int, tuple]]:
    """For each element (i, j) of the kernel: i, j and the rows and columns of the padded input that it meets."""
    return element_shifts(weight.shape[2:4], weight.shape[4:], stride, dilation)


def element_shifts(kernel_size: IntPair, out_size: IntPair, stride: IntPair,
                   dilation: IntPair) -> Iterator[tuple[int, int, tuple]]:
    """:func:`shifts` by the sizes."""
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            yield i, j, (..., slice(top, top + (out_size[0] - 1) * stride[0] + 1, stride[0]),
                         slice(left, left + (out_size[1] - 1) * stride[1] + 1, stride[1]))


INVOLUTION = Operator(2, reference, lambda call, needs_grad: ('triton', 'numba', 'products'))


class FactoredInvolution(NamedTuple):
    """The arguments of :func:`factored_involution2d`, checked."""

    input: Tensor
    weight: Tensor
    factors: Tensor
    stride: IntPair
    padding: IntPair
    dilation: IntPair


def factored_involution2d(input: Tensor, weight: Tensor, factors: Tensor, *, stride: int | IntPair = 1,
                          padding: int | IntPair = 0, dilation: int | IntPair = 1) -> Tensor:
    r"""Convolve each position and channel by the product of the position's kernel and the channel's (DDF, Eq. 1).

    .. math:: y_{bchw} = \sum_{ij} F_{b c ij} W_{b g(c) ij hw} \, x_{b c,\, s h + d i - p,\, s w + d j - p}

    The products are never held all at once.

    Args:
        input, weight, stride, padding, dilation: as of :func:`involution2d`.
        factors (Tensor[batch, channels, kernel_height, kernel_width]): F.

    Returns:
        Tensor[batch, channels, out_height, out_width], in the input's memory format

    Raises:
        ValueError: the tensors do not fit together; nothing is cropped.
    """
    call = FactoredInvolution(input, weight, factors, *window(stride, padding, dilation))
    _check(Involution(input, weight, *call[3:]))
    expected = (*input.shape[:2], *weight.shape[2:4])
    if factors.shape != expected:
        raise ValueError(f'factors must be [batch, channels, kernel_height, kernel_width] = {tuple(expected)}, but its '
                         f'shape is {tuple(factors.shape)}')
    return FACTORED_INVOLUTION(call)


def _factored_reference(call: FactoredInvolution) -> Tensor:
    input, weight, factors, stride, padding, dilation = call
    dtype = accumulation_dtype(input.dtype)
    padded = padded_groups(input, weight.shape[1], padding)
    factors = factors.unflatten(1, (weight.shape[1], -1))[..., None, None].to(dtype)
    y = sum(padded[window].to(dtype) * (factors[:, :, :, i, j] * weight[:, :, None, i, j].to(dtype))
            for i, j, window in shifts(weight, stride, dilation))
    return y.flatten(1, 2).to(input.dtype)


def _multiplied_out(call: FactoredInvolution) -> Tensor:
    """For other runtimes: an involution with a kernel for each channel."""
    groups = call.weight.shape[1]
    factors = call.factors.unflatten(1, (groups, -1))[..., None, None]
    return INVOLUTION.exported(Involution(call.input, (factors * call.weight[:, :, None]).flatten(1, 2), *call[3:]))


FACTORED_INVOLUTION = Operator(3, _factored_reference)
FACTORED_INVOLUTION.exported = _multiplied_out

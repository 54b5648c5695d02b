"""Sizes, strides and padding of convolutions."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

IntPair = tuple[int, int]


def pair(value: int | IntPair) -> IntPair:
    """One int as two."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def check_window(stride: IntPair, padding: IntPair, dilation: IntPair) -> None:
    """Raise a ValueError that names the argument unless these are a convolution's."""
    for name, value, least in (('stride', stride, 1), ('padding', padding, 0), ('dilation', dilation, 1)):
        if len(value) != 2 or isinstance(value[0], str) or min(value) < least:
            raise ValueError(f'{name} must be an int or two ints of at least {least}, but is {value}')


def output_size(size: IntPair, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> IntPair:
    """Height and width of a convolution's output."""
    return tuple([(s + 2 * p - d * (k - 1) - 1) // t + 1
                  for s, k, t, p, d in zip(size, kernel_size, stride, padding, dilation)])


def pad_zeros(x: Tensor, padding: IntPair) -> Tensor:
    """``x``, Tensor[batch, channels, height, width], with its padding; itself where there is none."""
    return x if padding == (0, 0) else F.pad(x, (padding[1], padding[1], padding[0], padding[0]))


def zeros_padded(x: Tensor, padding: IntPair) -> Tensor:
    """Zeros of the size that ``x``, Tensor[batch, channels, height, width], has with its padding."""
    batch, channels, height, width = x.shape
    return x.new_zeros(batch, channels, height + 2 * padding[0], width + 2 * padding[1])


def without_padding(x: Tensor, padding: IntPair) -> Tensor:
    """``x``, Tensor[batch, channels, height, width], less its padding: a view."""
    height, width = x.shape[2:]
    return x[:, :, padding[0]:height - padding[0], padding[1]:width - padding[1]]

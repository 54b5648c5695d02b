"""Sizes and strides of convolutions."""
from __future__ import annotations

IntPair = tuple[int, int]


def pair(value: int | IntPair) -> IntPair:
    """One int as two."""
    return (value, value) if isinstance(value, int) else tuple(value)


def output_size(size: IntPair, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> IntPair:
    """Height and width of a convolution's output."""
    return tuple([(s + 2 * p - d * (k - 1) - 1) // t + 1
                  for s, k, t, p, d in zip(size, kernel_size, stride, padding, dilation)])

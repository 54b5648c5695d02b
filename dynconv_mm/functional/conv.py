"""An ordinary convolution, and the batch norm behind it."""
from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from .batch_norm import BatchNorm, scale_and_shift
from .geometry import IntPair
from .operator import Operator, is_recorded


class Conv(NamedTuple):
    """The arguments of :func:`torch.nn.functional.conv2d`."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: IntPair
    padding: IntPair
    dilation: IntPair
    groups: int


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair, dilation: IntPair,
           groups: int, norm: BatchNorm | None = None) -> Tensor:
    """:func:`torch.nn.functional.conv2d`, and a batch norm; by a scaled kernel where that is smaller than the output.

    Args:
        input, weight, bias, stride, padding, dilation, groups: as there.
        norm (BatchNorm, optional): behind the convolution.
    """
    if norm is None:
        return CONV(Conv(input, weight, bias, stride, padding, dilation, groups))
    pixels = input.shape[0] * input.shape[2] * input.shape[3] // math.prod(stride)
    if is_recorded() or weight.numel() > pixels * weight.shape[0]:
        y = CONV(Conv(input, weight, bias, stride, padding, dilation, groups))
        return F.batch_norm(y, *norm[:4], eps=norm.eps)
    scale, shift = scale_and_shift(norm, bias)
    return CONV(Conv(input, weight * scale[:, None, None, None], shift, stride, padding, dilation, groups))


CONV = Operator(3, lambda call: F.conv2d(*call))

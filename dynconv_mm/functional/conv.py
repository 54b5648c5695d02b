"""An ordinary convolution, and the batch norm behind it."""
from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from .batch_norm import BatchNorm, scale_and_shift
from .geometry import IntPair, window
from .operator import Backend, Operator


class Conv(NamedTuple):
    """The arguments of :func:`conv2d`."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: IntPair
    padding: IntPair
    dilation: IntPair
    groups: int
    norm: BatchNorm | None = None


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair, dilation: IntPair,
           groups: int, norm: BatchNorm | None = None) -> Tensor:
    """:func:`torch.nn.functional.conv2d`, and a batch norm; by a scaled kernel where that is smaller than the output.

    Args:
        input, weight, bias, stride, padding, dilation, groups: as there.
        norm (BatchNorm, optional): behind the convolution.
    """
    return CONV(Conv(input, weight, bias, *window(stride, padding, dilation), groups, norm))


def _fold_norm(call: Conv) -> Conv:
    scale, shift = scale_and_shift(call.norm, call.bias)
    return call._replace(weight=call.weight * scale[:, None, None, None], bias=shift, norm=None)


def _norm_after(call: Conv) -> Tensor:
    return F.batch_norm(F.conv2d(*call[:7]), *call.norm[:4], eps=call.norm.eps)


def _refuses_norm_after(call: Conv) -> str | None:
    outputs = call.input.numel() * len(call.weight) // (call.weight.shape[1] * call.groups * math.prod(call.stride))
    small = call.norm is None or call.weight.numel() <= outputs
    return 'a kernel that is smaller than the output' if small else None


def _rank(call: Conv, needs_grad: bool) -> tuple[str, ...]:
    """Torch's depthwise convolutions are as fast on small maps, but for their gradients."""
    small = call.input.shape[2:].numel() <= SMALL_MAP
    return ('norm_after', ) if small and not needs_grad else ('norm_after', 'numba')


SMALL_MAP = 32 * 32
CONV = Operator(3, lambda call: F.conv2d(*call[:7]), _rank, fold_norm=_fold_norm)
CONV.backends['norm_after'] = Backend(_norm_after, _refuses_norm_after, takes_norm=True)

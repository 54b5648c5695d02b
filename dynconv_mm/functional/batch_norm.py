"""A batch norm by running statistics as a scaling of the channels."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .operator import is_plain


class BatchNorm(NamedTuple):
    """A batch norm in eval mode over c channels."""

    running_mean: Tensor  # [c]; None in NO_NORM alone
    running_var: Tensor  # [c]; the same
    weight: Tensor | None  # [c]
    bias: Tensor | None  # [c]
    eps: float


def scale_and_shift(norm: BatchNorm, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A batch norm, and the bias of the convolution before it, as a scale and a shift of that convolution's output.

    Args:
        norm (BatchNorm): over c channels.
        bias (Tensor[c], optional): of the convolution.

    Returns:
        tuple[Tensor[c], Tensor[c]]
    """
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = norm.weight * scale
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return scale, -mean * scale if norm.bias is None else norm.bias - mean * scale


def batch_norm_of(norm: nn.Module) -> BatchNorm | None:
    """What a norm computes with, if to call it is to apply a batch norm by running statistics, and nothing else; of an
    ``Identity`` :data:`NO_NORM`."""
    forward = type(norm).forward
    if forward not in FORWARDS or not is_plain(norm):
        return None
    if forward is nn.Identity.forward:
        return NO_NORM
    statistics, affine = norm._buffers, norm._parameters
    mean, var = statistics.get('running_mean'), statistics.get('running_var')
    # parameters may be elsewhere: where FSDP or a parametrization holds them
    if norm.training or mean is None or var is None or not {'weight', 'bias'} <= affine.keys() \
            or not isinstance(norm.eps, float):
        return None
    return BatchNorm(mean, var, affine['weight'], affine['bias'], norm.eps)


FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward, nn.Identity.forward)
NO_NORM = BatchNorm(None, None, None, None, 0.)

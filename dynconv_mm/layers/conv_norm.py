"""A convolution and the batch norm behind it in one pass, where that gives the same."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..functional.batch_norm import NO_NORM, batch_norm_of
from ..functional.operator import is_plain
from .mixture_conv import MixtureConv2d
from .static_conv import StaticConv2d
from .we import WEConv2d


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor, *shared: Tensor) -> Tensor:
    """``norm(conv(x, *shared))``.

    A layer of this package gets a batch norm by running statistics as an argument, which saves a pass over its output.
    Not so where somebody could tell the difference: where a hook sees the output, or the convolution or the norm is
    wrapped, patched, parametrized, of a class with a forward of its own or of another precision.

    Args:
        conv, norm (Module): a convolution and its norm.
        x (Tensor[batch, in_channels, height, width]): features.
        shared (Tensor): what the convolutions of a block share, such as routing weights.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    if type(conv).forward in FORWARDS_WITH_NORM and is_plain(conv) and isinstance(x, Tensor):
        of_norm, weight = batch_norm_of(norm), conv._parameters.get('weight')
        # of maps, and in one precision: torch computes a norm beside half precision in float32
        if weight is not None and of_norm is not None and of_norm is not NO_NORM \
                and not isinstance(norm, NO_MAPS) \
                and of_norm.running_mean.shape == (conv.out_channels, ) \
                and of_norm.running_mean.dtype == weight.dtype in (torch.float32, torch.float64):
            return conv(x, *shared, norm=of_norm)
    return norm(conv(x, *shared))


NO_MAPS = (nn.BatchNorm1d, nn.BatchNorm3d)
FORWARDS_WITH_NORM = (MixtureConv2d.forward, StaticConv2d.forward, WEConv2d.forward)

"""What averages features, so that others can find it."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..functional.attention import adaptive_avg_pool2d
from ..functional.geometry import IntPair

torch.fx.wrap('adaptive_avg_pool2d')


class PoolsFeatures:
    """Marks a module that uses nothing of its features, its first argument, but averages: given these in the features'
    place, Tensor[batch, channels, *pool_size], it puts out the same."""

    pool_size: int | IntPair = 1
    """The features are averaged to so many pixels, squared or in height and width."""


class AveragePool2d(nn.Module, PoolsFeatures):
    """:class:`torch.nn.AdaptiveAvgPool2d`, which can be exported for maps of any size.

    Args:
        pool_size (int | tuple[int, int]): height and width of the result.

    Shape:
        input Tensor[batch, channels, height, width], output Tensor[batch, channels, pooled_height, pooled_width]
    """

    def __init__(self, pool_size: int | IntPair) -> None:
        super().__init__()
        self.pool_size = pool_size

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, self.pool_size)

    def extra_repr(self) -> str:
        return f'{self.pool_size}'

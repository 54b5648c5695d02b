"""A convolution, its norm and its activation."""
from __future__ import annotations

from mmcv.cnn import ConvModule
from torch import Tensor

from .norm_folding import conv_norm


class ConvNormAct(ConvModule):
    """mmcv's ``ConvModule``, whose convolution takes what a block shares and may take over its norm in eval mode."""

    def forward(self, x: Tensor, *shared: Tensor) -> Tensor:
        x = conv_norm(self.conv, self.norm, x, *shared) if self.with_norm else self.conv(x, *shared)
        return self.activate(x) if self.with_activation else x

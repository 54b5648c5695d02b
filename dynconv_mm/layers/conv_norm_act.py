"""A convolution, its norm and its activation."""
from __future__ import annotations

from torch import Tensor

from ..compat.openmmlab import ConvModule
from .conv_norm import conv_norm

ORDER = ('conv', 'norm', 'act')


class ConvNormAct(ConvModule):
    """mmcv's ``ConvModule``, whose convolution takes what a block shares and may take over its norm in eval mode."""

    def forward(self, x: Tensor, *shared: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        if self.order == ORDER and self.with_norm and norm and activate and not self.with_explicit_padding:
            x = conv_norm(self.conv, self.norm, x, *shared)
            return self.activate(x) if self.with_activation else x
        norm = norm and self.with_norm
        together = norm and self.order.index('norm') == self.order.index('conv') + 1
        for step in self.order:
            if step == 'conv':
                if self.with_explicit_padding:
                    x = self.padding_layer(x)
                x = conv_norm(self.conv, self.norm, x, *shared) if together else self.conv(x, *shared)
            elif step == 'norm':
                x = self.norm(x) if norm and not together else x
            elif activate and self.with_activation:
                x = self.activate(x)
        return x

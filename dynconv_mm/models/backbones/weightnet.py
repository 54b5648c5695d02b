"""The networks of WeightNet (ECCV 2020), as ODConv's Table 2 compares with them."""
from __future__ import annotations

from mmengine.registry import MODELS
from torch import nn

from ...layers.weightnet import WeightNetReduction, hidden_width
from .base import ConvPlace
from .resnet import ResNet


@MODELS.register_module()
class WeightNetResNet(ResNet):
    """ResNet whose convolutions are :class:`WeightNetConv2d`, but for the stem, for mmpretrain and mmdet alike (ODConv,
    Table 2).

    Those of a block's residual path share the reduced averages of the block's input; the shortcut's has its own.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
            ``frozen_stages``, ``norm_eval``, …).
        multiplier, group_multiplier: as of :class:`WeightNetConv2d`.

    Example:
        >>> backbone = WeightNetResNet(depth=18, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def __init__(self, *args, multiplier: int = 2, group_multiplier: int = 2, **kwargs) -> None:
        self.weightnet_cfg = dict(type='WeightNetConv2d', multiplier=multiplier, group_multiplier=group_multiplier)
        self._hidden_channels = 0
        super().__init__(*args, **kwargs)

    def make_routing(self, in_channels: int, stage: int, block: int) -> nn.Module:
        """The reduction of a block's input, for the block that is built next."""
        self._hidden_channels = hidden_width(in_channels)
        return WeightNetReduction(in_channels, self._hidden_channels)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """WeightNet everywhere but at the stem."""
        if place.role == 'stem':
            return self.conv_cfg
        if not place.in_block:
            return self.weightnet_cfg
        return dict(self.weightnet_cfg, routing=False, hidden_channels=self._hidden_channels)

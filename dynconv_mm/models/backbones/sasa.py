"""SA-ResNet (Stand-alone self-attention, NeurIPS 2019, Table 1; DCDC, 2022, Table I)."""
from __future__ import annotations

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import nn

from ...layers.involution import check_odd
from ...layers.sasa import AttentionStem
from .base import ConvPlace
from .resnet import BottleneckResNet


@MODELS.register_module()
class SAResNet(BottleneckResNet):
    """ResNet of attention alone, for mmpretrain and mmdet alike: :class:`StandAloneSelfAttention2d` in place of the 3×3
    convolutions of its bottlenecks, and behind an :class:`~dynconv_mm.layers.sasa.AttentionStem` a 4×4 max pooling.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …), but for ``deep_stem``; ``depth`` is 26, 38, 50, 101 or 152.
        kernel_size (int): of the windows in the blocks, odd. Default: 7.
        heads (int): of the attentions in the blocks; the stem's has 4. Default: 8.

    Example:
        >>> backbone = SAResNet(depth=26, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self, *args, kernel_size: int = 7, heads: int = 8, **kwargs) -> None:
        check_odd('kernel_size', kernel_size)
        self.kernel_size = kernel_size
        self.attention_cfg = dict(type='StandAloneSelfAttention2d', heads=heads)
        super().__init__(*args, deep_stem=True, **kwargs)

    def _make_stem(self, in_channels: int, stem_channels: int) -> None:
        self.stem = nn.Sequential(AttentionStem(in_channels, stem_channels),
                                  build_norm_layer(self.norm_cfg, stem_channels)[1], nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(kernel_size=4, stride=4)

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """Attention in all blocks."""
        return self.attention_cfg

    def middle_shape(self, planes: int) -> dict:
        """Windows of ``kernel_size``."""
        return dict(kernel_size=self.kernel_size)

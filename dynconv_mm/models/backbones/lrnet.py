"""LR-Net (Local relation networks, ICCV 2019; DCDC, 2022, Table I)."""
from __future__ import annotations

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import nn

from ...layers.conv_arguments import check_positive_int
from ...layers.involution import check_odd
from .base import ConvPlace
from .resnet import BottleneckResNet, ConvShape, bottleneck_convs


def _inner_channels(planes: int) -> int:
    return max(1, planes * 25 // 16)


@MODELS.register_module()
class LRNet(BottleneckResNet):
    """ResNet of :class:`LocalRelation2d` layers in place of the 7×7 and 3×3 convolutions, for mmpretrain and mmdet
    alike.

    The stem is a 1×1 convolution and a local relation of stride 2. Inside, bottlenecks are 25/16 as wide as ResNet's.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …), but for ``deep_stem``; ``depth`` is 26 (2, 2, 2, 2), 50, 101 or 152.
        base_channels (int): ResNet's inner channels of the first stage, of which there are here 25/16. Default: 64.
        kernel_size (int): of the windows, odd. Default: 7.
        group_channels (int): channels that share weights; where it does not divide a layer's, as in the first stage,
            it is the next smaller number that does. Default: 8.
        similarity (str): as of :class:`LocalRelation2d`.

    Example:
        >>> backbone = LRNet(depth=26, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    arch_settings = {26: (bottleneck_convs, (2, 2, 2, 2)),
                     **{depth: BottleneckResNet.arch_settings[depth] for depth in (50, 101, 152)}}

    def __init__(self, *args, base_channels: int = 64, kernel_size: int = 7, group_channels: int = 8,
                 similarity: str = 'absolute', **kwargs) -> None:
        check_odd('kernel_size', kernel_size)
        check_positive_int('group_channels', group_channels)
        self.base_channels = base_channels
        self.kernel_size = kernel_size
        self.group_channels = group_channels
        self.similarity = similarity
        super().__init__(*args, base_channels=base_channels, deep_stem=True, **kwargs)

    def _relation_cfg(self, channels: int) -> dict:
        group = next(size for size in range(self.group_channels, 0, -1) if channels % size == 0)
        return dict(type='LocalRelation2d', group_channels=group, similarity=self.similarity)

    def _make_stem(self, in_channels: int, stem_channels: int) -> None:
        self.stem = nn.Sequential(
            build_conv_layer(self.conv_cfg_at(ConvPlace('stem', 0)), in_channels, stem_channels, 1, bias=False),
            build_norm_layer(self.norm_cfg, stem_channels)[1], nn.ReLU(inplace=True),
            build_conv_layer(self._relation_cfg(stem_channels), stem_channels, stem_channels, self.kernel_size,
                             stride=2, bias=False),
            build_norm_layer(self.norm_cfg, stem_channels)[1], nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def make_convs(self, planes: int, stride: int, dilation: int) -> list[ConvShape]:
        """Those of a bottleneck, wider inside."""
        first, second, third = super().make_convs(planes, stride, dilation)
        return [first._replace(out_channels=second.out_channels), second, third]

    def middle_shape(self, planes: int) -> dict:
        """Windows of ``kernel_size``, and more channels."""
        return dict(kernel_size=self.kernel_size, out_channels=_inner_channels(planes))

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """Local relation, whose groups fit the channels of the stage."""
        return self._relation_cfg(_inner_channels(self.base_channels * 2**(place.stage - 1)))

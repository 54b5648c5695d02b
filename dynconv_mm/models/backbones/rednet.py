"""RedNet (Involution, CVPR 2021, Table 1)."""
from __future__ import annotations

from mmcv.cnn import ConvModule, build_conv_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import nn

from ...layers.involution import check_odd
from .base import ConvPlace
from .resnet import BottleneckResNet


class InvolutionStemResNet(BottleneckResNet):
    """ResNet of bottleneck blocks behind a stem of a 3×3 convolution, an involution and a 3×3 convolution.

    The parameter names are those of the released RedNets. The convolution in the middle of the stem is at
    ``STEM_MIDDLE``, of which :meth:`middle_cfg_at` is asked too.
    """

    STEM_MIDDLE = ConvPlace('stem', 0, 1)

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, deep_stem=True, **kwargs)

    def _make_stem(self, in_channels: int, stem_channels: int) -> None:
        middle = stem_channels // 2
        common = dict(kernel_size=3, padding=1, conv_cfg=self.conv_cfg_at(ConvPlace('stem', 0)),
                      norm_cfg=self.norm_cfg)
        self.stem = nn.Sequential(
            ConvModule(in_channels, middle, stride=2, **common),
            build_conv_layer(self.conv_cfg_at(self.STEM_MIDDLE), middle, middle, kernel_size=3, padding=1, bias=False),
            build_norm_layer(self.norm_cfg, middle)[1], nn.ReLU(inplace=True),
            ConvModule(middle, stem_channels, **common))
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """The layer in the middle of each block and of the stem."""
        return self.middle_cfg_at(place) if place == self.STEM_MIDDLE else super().conv_cfg_at(place)


@MODELS.register_module()
class RedNet(InvolutionStemResNet):
    """ResNet whose bottlenecks have an involution for their 3×3 convolution, for mmpretrain and mmdet alike.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …), but for ``deep_stem``; ``depth`` is 26, 38, 50, 101 or 152.
        kernel_size (int): of the involutions in the blocks, odd; that of the stem is 3×3. Default: 7.
        group_channels (int), reduction (float): as of :class:`Involution2d`.

    Example:
        >>> backbone = RedNet(depth=26, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self, *args, kernel_size: int = 7, group_channels: int = 16, reduction: float = 1 / 4,
                 **kwargs) -> None:
        check_odd('kernel_size', kernel_size)
        self.kernel_size = kernel_size
        self.involution_cfg = dict(type='Involution2d', group_channels=group_channels, reduction=reduction)
        super().__init__(*args, **kwargs)

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """Involution in all blocks and the stem."""
        return dict(self.involution_cfg, norm_cfg=self.norm_cfg)

    def middle_shape(self, planes: int) -> dict:
        """Windows of ``kernel_size``."""
        return dict(kernel_size=self.kernel_size)

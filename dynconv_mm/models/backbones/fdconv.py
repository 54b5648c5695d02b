"""The networks of FDConv (CVPR 2025)."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace, batch_norm_cfg
from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet


class FDConvRule:
    """Every convolution of a residual path is an :class:`FDConv2d`, but for depthwise ones.

    So the stem, shortcuts and the last convolution are static, and so are those of ``static_channels`` or fewer.

    Args:
        kernel_num, reduction, static_channels: as of :class:`FDConv2d`.
        freeze_attention (bool): whether attentions, and what weights the bands, are frozen with their stage, and their
            norms with ``norm_eval``. The released detectors, which start from static weights, let them learn in frozen
            stages too. Default: False.
    """

    def __init__(self, *args, kernel_num: int = 64, reduction: float = 1 / 16, static_channels: int = 16,
                 freeze_attention: bool = False, **kwargs) -> None:
        self.fdconv_cfg = dict(type='FDConv2d', kernel_num=kernel_num, reduction=reduction,
                               static_channels=static_channels)
        super().__init__(*args, freeze_attention=freeze_attention, **kwargs)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """FDConv on the residual path."""
        if not place.in_block or place.role == 'depthwise':
            return self.conv_cfg
        return dict(self.fdconv_cfg, norm_cfg=batch_norm_cfg(self.norm_cfg))


@MODELS.register_module()
class FDConvResNet(FDConvRule, ResNet):
    """ResNet with FDConv, for mmpretrain and mmdet alike.

    Takes the arguments of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
    ``frozen_stages``, ``norm_eval``, …) and, by name, those of :class:`FDConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = FDConvResNet(depth=18, base_channels=32, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    """


@MODELS.register_module()
class FDConvMobileNetV2(FDConvRule, MobileNetV2):
    """MobileNetV2 whose 1×1 convolutions within blocks are FDConv, for mmpretrain and mmdet alike.

    Takes the arguments of :class:`~dynconv_mm.models.backbones.mobilenet_v2.MobileNetV2`
    (``widen_factor``, ``out_indices``, …) and, by name, those of :class:`FDConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = FDConvMobileNetV2(out_indices=(1, 2, 4, 7)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 32, 8, 8), (1, 96, 4, 4), (1, 1280, 2, 2)]
    """

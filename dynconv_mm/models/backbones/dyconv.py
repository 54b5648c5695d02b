"""The networks of DyConv (CVPR 2020), as ODConv's Tables 1 and 2 compare with them."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace
from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet


class DyConvRule:
    """Every convolution is a :class:`DyConv2d`, but the first.

    Args:
        kernel_num, reduction, temperature, attention, plan: as of :class:`DyConv2d`.
    """

    def __init__(self,
                 *args,
                 kernel_num: int = 4,
                 reduction: float = 1 / 4,
                 temperature: float = 1.,
                 attention: bool = True,
                 plan: str = 'auto',
                 **kwargs) -> None:
        self.dyconv_cfg = dict(type='DyConv2d', kernel_num=kernel_num, reduction=reduction, temperature=temperature,
                               attention=attention, plan=plan)
        super().__init__(*args, **kwargs)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """DyConv everywhere but at the first convolution."""
        return self.conv_cfg if place.role == 'stem' else self.dyconv_cfg


@MODELS.register_module()
class DyConvResNet(DyConvRule, ResNet):
    """ResNet with DyConv, for mmpretrain and mmdet alike (ODConv, Table 2).

    Takes the arguments of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
    ``frozen_stages``, ``norm_eval``, …) and, by name, those of :class:`DyConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = DyConvResNet(depth=18, kernel_num=2, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """


@MODELS.register_module()
class DyConvMobileNetV2(DyConvRule, MobileNetV2):
    """MobileNetV2 with DyConv, for mmpretrain and mmdet alike (ODConv, Table 1).

    Takes the arguments of :class:`~dynconv_mm.models.backbones.mobilenet_v2.MobileNetV2`
    (``widen_factor``, ``out_indices``, …) and, by name, those of :class:`DyConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = DyConvMobileNetV2(kernel_num=2, out_indices=(1, 2, 4, 7)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 32, 8, 8), (1, 96, 4, 4), (1, 1280, 2, 2)]
    """

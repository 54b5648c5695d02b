"""ResNets whose 3×3 convolutions are depthwise dynamic ones (DCDC, 2022, Table II)."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace
from .resnet import BottleneckResNet


class DepthwiseResNet(BottleneckResNet):
    """ResNet of bottlenecks whose middle convolution is a depthwise one of ``depthwise_cfg``."""

    depthwise_cfg: dict  # of a layer that computes its attention from its own input

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """The same in all blocks."""
        return self.depthwise_cfg

    def middle_shape(self, planes: int) -> dict:
        """A group for each channel."""
        return dict(groups=planes)


@MODELS.register_module()
class DwCondConvResNet(DepthwiseResNet):
    """ResNet whose bottlenecks have a depthwise :class:`CondConv2d` for their 3×3 convolution, for mmpretrain and mmdet
    alike (DCDC, Table II).

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …); ``depth`` is 26, 38, 50, 101 or 152.
        kernel_num, plan: as of :class:`CondConv2d`.

    Example:
        >>> backbone = DwCondConvResNet(depth=26, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self, *args, kernel_num: int = 8, plan: str = 'auto', **kwargs) -> None:
        self.depthwise_cfg = dict(type='CondConv2d', kernel_num=kernel_num, plan=plan)
        super().__init__(*args, **kwargs)


@MODELS.register_module()
class DwWeightNetResNet(DepthwiseResNet):
    """ResNet whose bottlenecks have a depthwise :class:`WeightNetConv2d` for their 3×3 convolution, for mmpretrain and
    mmdet alike (DCDC, Table II).

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …); ``depth`` is 26, 38, 50, 101 or 152.
        multiplier, group_multiplier: as of :class:`WeightNetConv2d`.

    Example:
        >>> backbone = DwWeightNetResNet(depth=26, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self, *args, multiplier: int = 2, group_multiplier: int = 2, **kwargs) -> None:
        self.depthwise_cfg = dict(type='WeightNetConv2d', multiplier=multiplier, group_multiplier=group_multiplier)
        super().__init__(*args, **kwargs)

"""DDF-ResNet (Decoupled dynamic filter, CVPR 2021; DCDC, 2022, Tables I and II)."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace
from .resnet import BottleneckResNet


@MODELS.register_module()
class DDFResNet(BottleneckResNet):
    """ResNet whose bottlenecks have a :class:`DDFConv2d` for their 3×3 convolution, for mmpretrain and mmdet alike.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …); ``depth`` is 26, 38, 50, 101 or 152.
        heads, combine, reduction: as of :class:`DDFConv2d`.

    Example:
        >>> backbone = DDFResNet(depth=26, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self, *args, heads: int = 1, combine: str = 'mul', reduction: float = 0.2, **kwargs) -> None:
        self.ddf_cfg = dict(type='DDFConv2d', heads=heads, combine=combine, reduction=reduction)
        super().__init__(*args, **kwargs)

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """DDF in all blocks."""
        return self.ddf_cfg

"""The networks of weight excitation (ECCV 2020), as ODConv's Table 2 compares with them."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace
from .resnet import ResNet


@MODELS.register_module()
class WEResNet(ResNet):
    """ResNet all of whose convolutions are :class:`WEConv2d`, for mmpretrain and mmdet alike (ODConv, Table 2).

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
            ``frozen_stages``, ``norm_eval``, …).
        reduction, location, magnitude: as of :class:`WEConv2d`.

    Example:
        >>> backbone = WEResNet(depth=18, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def __init__(self, *args, reduction: float = 1 / 16, location: bool = True, magnitude: bool = True,
                 **kwargs) -> None:
        self.we_cfg = dict(type='WEConv2d', reduction=reduction, location=location, magnitude=magnitude)
        super().__init__(*args, **kwargs)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """Weight excitation everywhere."""
        return self.we_cfg

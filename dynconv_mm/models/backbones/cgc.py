"""The networks of context-gated convolution (ECCV 2020), as ODConv's Table 2 compares with them."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace, batch_norm_cfg
from .resnet import ResNet


@MODELS.register_module()
class CGCResNet(ResNet):
    """ResNet whose convolutions of more than one kernel element, the stem's too, are :class:`CGConv2d`, for mmpretrain
    and mmdet alike (ODConv, Table 2).

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
            ``frozen_stages``, ``norm_eval``, …).
        group_channels: as of :class:`CGConv2d`.

    Example:
        >>> backbone = CGCResNet(depth=18, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def __init__(self, *args, group_channels: int = 16, **kwargs) -> None:
        self.cgc_cfg = dict(type='CGConv2d', group_channels=group_channels)
        super().__init__(*args, **kwargs)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """Context gating but in 1×1 convolutions."""
        if place.role == 'downsample' or place.kernel_size == 1:
            return self.conv_cfg
        return dict(self.cgc_cfg, norm_cfg=batch_norm_cfg(self.norm_cfg))

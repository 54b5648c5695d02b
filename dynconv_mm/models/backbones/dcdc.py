"""DCDC-ResNet (DCDC, 2022, Tables I, III and IV)."""
from __future__ import annotations

from mmengine.registry import MODELS

from .base import ConvPlace
from .rednet import InvolutionStemResNet


@MODELS.register_module()
class DCDCResNet(InvolutionStemResNet):
    """ResNet whose bottlenecks have a DCDC for their 3×3 convolution, for mmpretrain and mmdet alike.

    The stem is RedNet's, with a plain 3×3 involution: the parameter counts of the paper's tables settle it.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``out_indices``,
            ``frozen_stages``, ``norm_eval``, …), but for ``deep_stem``; ``depth`` is 26, 38, 50, 101 or 152.
        lsa_kernel_size, lsa_dw_kernel_size, lsa_depth, gsi_kernel_size, gsi_ratio, gsi, reduction,
            group_channels: as of :class:`DCDC2d`. With ``gsi='conv_large'`` the stem's involution has a static
            3×3 convolution beside it too.

    Example:
        >>> backbone = DCDCResNet(depth=26, gsi_ratio=2., out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self,
                 *args,
                 lsa_kernel_size: int = 7,
                 lsa_dw_kernel_size: int | None = 3,
                 lsa_depth: int = 2,
                 gsi_kernel_size: int = 1,
                 gsi_ratio: float = 1.,
                 gsi: str = 'dynamic',
                 reduction: float = 1 / 4,
                 group_channels: int = 16,
                 **kwargs) -> None:
        self.dcdc_cfg = dict(type='DCDC2d', lsa_kernel_size=lsa_kernel_size, lsa_dw_kernel_size=lsa_dw_kernel_size,
                             lsa_depth=lsa_depth, gsi_kernel_size=gsi_kernel_size, gsi_ratio=gsi_ratio, gsi=gsi,
                             reduction=reduction, group_channels=group_channels)
        super().__init__(*args, **kwargs)

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """DCDC in all blocks, an involution in the stem."""
        if place != self.STEM_MIDDLE:
            return dict(self.dcdc_cfg, norm_cfg=self.norm_cfg)
        if self.dcdc_cfg['gsi'] == 'conv_large':  # so Table III's 14.32M; without it they are 14.31M
            return dict(self.dcdc_cfg, norm_cfg=self.norm_cfg, lsa_kernel_size=3, lsa_dw_kernel_size=None)
        return dict(type='Involution2d', group_channels=self.dcdc_cfg['group_channels'],
                    reduction=self.dcdc_cfg['reduction'], norm_cfg=self.norm_cfg)

"""The networks of CondConv (NeurIPS 2019), as ODConv's Tables 1 and 2 compare with them."""
from __future__ import annotations

from mmengine.registry import MODELS
from torch import nn

from ...layers.condconv import CondConvRouting
from ...layers.conv_arguments import check_positive_int
from .base import ConvPlace
from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet


class CondConvRule:
    """The convolutions of the last residual blocks are :class:`CondConv2d`, but the 1×1 ones of shortcuts.

    Those of one block share the routing weights of the block's input. The classifier that belongs to it is
    ``CondConvLinearClsHead``.

    Args:
        kernel_num, attention, plan: as of :class:`CondConv2d`.
        dynamic_blocks (int): number of the last residual blocks whose convolutions are replaced. Default:
            :attr:`default_dynamic_blocks`.

    Raises:
        ValueError: ``dynamic_blocks`` is not from 1 to the number of blocks; and as :class:`CondConv2d`.
    """

    default_dynamic_blocks: int

    def __init__(self,
                 *args,
                 kernel_num: int = 8,
                 dynamic_blocks: int | None = None,
                 attention: bool = True,
                 plan: str = 'auto',
                 **kwargs) -> None:
        self.dynamic_blocks = self.default_dynamic_blocks if dynamic_blocks is None else dynamic_blocks
        check_positive_int('dynamic_blocks', self.dynamic_blocks)
        check_positive_int('kernel_num', kernel_num)
        self.condconv_cfg = dict(type='CondConv2d', kernel_num=kernel_num, routing=False, attention=attention,
                                 plan=plan)
        super().__init__(*args, **kwargs)
        if self.dynamic_blocks > sum(self.stage_blocks):
            raise ValueError(f'dynamic_blocks must be at most {sum(self.stage_blocks)}, the number of residual blocks, '
                             f'but is {self.dynamic_blocks}')

    def is_dynamic_block(self, stage: int, block: int) -> bool:
        """Whether a block, counted from 0 in a stage, counted from 1, is one of the last ``dynamic_blocks``."""
        return self.is_in_last_blocks(stage, block, self.dynamic_blocks)

    def is_dynamic(self, place: ConvPlace) -> bool:
        """Whether the convolution at ``place`` is a :class:`CondConv2d`."""
        return place.in_block and self.is_dynamic_block(place.stage, place.block)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """CondConv in the last ``dynamic_blocks`` blocks; its routing weights are the block's."""
        return self.condconv_cfg if self.is_dynamic(place) else self.conv_cfg

    def make_routing(self, in_channels: int, stage: int, block: int) -> nn.Module | None:
        """A dynamic block's routing function, which all of its convolutions share; none without attention."""
        if self.condconv_cfg['attention'] and self.is_dynamic_block(stage, block):
            return CondConvRouting(in_channels, self.condconv_cfg['kernel_num'])
        return None


@MODELS.register_module()
class CondConvResNet(CondConvRule, ResNet):
    """ResNet with CondConv in its last 3 blocks, for mmpretrain and mmdet alike (ODConv, Table 2).

    Takes the arguments of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
    ``frozen_stages``, ``norm_eval``, …) and, by name, those of :class:`CondConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = CondConvResNet(depth=18, kernel_num=2, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    default_dynamic_blocks = 3


@MODELS.register_module()
class CondConvMobileNetV2(CondConvRule, MobileNetV2):
    """MobileNetV2 with CondConv in its last 6 blocks, for mmpretrain and mmdet alike (ODConv, Table 1).

    Takes the arguments of :class:`~dynconv_mm.models.backbones.mobilenet_v2.MobileNetV2`
    (``widen_factor``, ``out_indices``, …) and, by name, those of :class:`CondConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = CondConvMobileNetV2(kernel_num=2, out_indices=(1, 2, 4, 7)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 32, 8, 8), (1, 96, 4, 4), (1, 1280, 2, 2)]
    """

    default_dynamic_blocks = 6

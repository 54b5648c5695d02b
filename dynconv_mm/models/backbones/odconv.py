"""The networks of ODConv (ICLR 2022, Tables 1 to 3)."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.registry import MODELS

from ...layers.conv_arguments import check_bool
from ...layers.odconv import ATTENTIONS, ODConv2d
from ...layers.placement import parse_placement
from .base import ConvPlace, batch_norm_cfg
from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet


class ODConvRule:
    """Every convolution is an :class:`ODConv2d`, by default but the first and the 1×1 ones of shortcuts.

    Args:
        kernel_num, reduction, min_channels, attentions, spatial_activation, share_attention,
            spatial_pool_size, temperature, plan: as of :class:`ODConv2d`.
        attention_norm_cfg (dict, optional): ``norm_cfg`` of the attentions. Default: the network's where
            that is a batch norm, else BN.
        dynamic_stem (bool): whether the first convolution, or those of a deep stem, are dynamic too, whatever
            ``placement`` is. The paper leaves the first layer static (3.2). Default: False.
        dynamic_shortcuts (bool): whether the 1×1 convolutions of shortcuts are dynamic too, whatever ``placement`` is:
            the text names all layers but the first (3.2), the released code leaves them static. Default: False.
        placement (str): of these convolutions, those that are dynamic (Table 9): 'all'; '1x1' or '3x3', those of
            that kernel size; 'last_6_blocks', those in the last 6 (or another number of) residual blocks.
            Default: 'all'.

    Raises:
        ValueError: ``dynamic_stem`` or ``dynamic_shortcuts`` is no bool; ``placement`` is none of these, or no
            convolution has that place; and as :class:`ODConv2d`.
    """

    def __init__(self,
                 *args,
                 kernel_num: int = 4,
                 reduction: float = 1 / 16,
                 min_channels: int = 16,
                 attentions: Sequence[str] = ATTENTIONS,
                 spatial_activation: str = 'sigmoid',
                 share_attention: bool = True,
                 spatial_pool_size: int = 1,
                 temperature: float = 1.,
                 attention_norm_cfg: dict | None = None,
                 placement: str = 'all',
                 dynamic_stem: bool = False,
                 dynamic_shortcuts: bool = False,
                 plan: str = 'auto',
                 **kwargs) -> None:
        for name, value in (('dynamic_stem', dynamic_stem), ('dynamic_shortcuts', dynamic_shortcuts)):
            check_bool(name, value)
        self.dynamic_roles = {'stem': dynamic_stem, 'downsample': dynamic_shortcuts}
        self.placement = parse_placement(placement)
        self.odconv_cfg = dict(type='ODConv2d', kernel_num=kernel_num, reduction=reduction,
                               min_channels=min_channels, attentions=attentions,
                               spatial_activation=spatial_activation, share_attention=share_attention,
                               spatial_pool_size=spatial_pool_size, temperature=temperature, plan=plan)
        self.attention_norm_cfg = attention_norm_cfg
        super().__init__(*args, **kwargs)
        blocks = sum(self.stage_blocks)
        if (self.placement.last_blocks or 0) > blocks:
            raise ValueError(f'placement must name at most {blocks} blocks, as many as there are, but is {placement!r}')
        if not any(isinstance(module, ODConv2d) for module in self.modules()):
            raise ValueError(f'placement is {placement!r}, and this {type(self).__name__} has no such convolution')

    def is_dynamic(self, place: ConvPlace) -> bool:
        """Whether the convolution at ``place`` is an :class:`ODConv2d`."""
        if place.role in self.dynamic_roles:
            return self.dynamic_roles[place.role]
        size, last_blocks = self.placement
        if last_blocks is not None:
            return place.in_block and self.is_in_last_blocks(place.stage, place.block, last_blocks)
        return size is None or size == (place.kernel_size, place.kernel_size)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        if not self.is_dynamic(place):
            return self.conv_cfg
        norm_cfg = batch_norm_cfg(self.norm_cfg) if self.attention_norm_cfg is None else self.attention_norm_cfg
        return dict(self.odconv_cfg, norm_cfg=norm_cfg)


@MODELS.register_module()
class ODConvResNet(ODConvRule, ResNet):
    """ResNet with ODConv, for mmpretrain and mmdet alike (ODConv, Tables 2 and 3).

    Takes the arguments of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
    ``frozen_stages``, ``norm_eval``, …) and, by name, those of :class:`ODConvRule` (``kernel_num``,
    ``reduction``, …).

    Example:
        >>> backbone = ODConvResNet(depth=18, kernel_num=1, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """


@MODELS.register_module()
class ODConvMobileNetV2(ODConvRule, MobileNetV2):
    """MobileNetV2 with ODConv, for mmpretrain and mmdet alike (ODConv, Table 1).

    Takes the arguments of :class:`~dynconv_mm.models.backbones.mobilenet_v2.MobileNetV2`
    (``widen_factor``, ``out_indices``, …) and, by name, those of :class:`ODConvRule` (``kernel_num``, …).

    Example:
        >>> backbone = ODConvMobileNetV2(kernel_num=1, out_indices=(1, 2, 4, 7)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 32, 8, 8), (1, 96, 4, 4), (1, 1280, 2, 2)]
    """

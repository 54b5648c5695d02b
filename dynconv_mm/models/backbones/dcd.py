"""The networks of DCD (ICLR 2021, Table 4), as released and as its equations have them."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.registry import MODELS

from ...layers.conv_arguments import check_bool
from .base import ConvPlace, batch_norm_cfg
from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet, basic_convs


class DCDRule:
    """Convolutions of the blocks are :class:`DCDConv2d`; which ones, a network says.

    Args:
        variant (str, optional), squeeze_ratio (int, optional): as of :class:`DCDConv2d`. Default: those of the
            released network.
        channel_attention, fusion, latent_multiplier, blocks: as of :class:`DCDConv2d`.
        residual_norm_cfg (dict, optional): its ``norm_cfg``. Default: the network's where that is a batch norm,
            else BN.
    """

    def __init__(self,
                 *args,
                 variant: str | None = None,
                 squeeze_ratio: int | None = None,
                 channel_attention: bool = True,
                 fusion: str | None = 'channel',
                 latent_multiplier: float = 1.,
                 blocks: int = 1,
                 residual_norm_cfg: dict | None = None,
                 **kwargs) -> None:
        self.variant = variant
        self.squeeze_ratio = squeeze_ratio
        self.residual_norm_cfg = residual_norm_cfg
        self.dcd_cfg = dict(type='DCDConv2d', channel_attention=channel_attention, fusion=fusion,
                            latent_multiplier=latent_multiplier, blocks=blocks)
        super().__init__(*args, **kwargs)

    def is_dynamic(self, place: ConvPlace) -> bool:
        """Whether the convolution at ``place`` is a DCD."""
        raise NotImplementedError

    def released_sizes(self) -> dict:
        """``variant`` and ``squeeze_ratio`` of the released network."""
        raise NotImplementedError

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """DCD where the network is dynamic; depthwise convolutions always by Eq. 8."""
        if not self.is_dynamic(place):
            return self.conv_cfg
        cfg = {**self.dcd_cfg, **self.released_sizes()}
        cfg.update((name, getattr(self, name)) for name in ('variant', 'squeeze_ratio')
                   if getattr(self, name) is not None)
        if place.role == 'depthwise':  # Eq. 8, which was not released
            cfg.update(variant='paper', blocks=1)
        norm_cfg = batch_norm_cfg(self.norm_cfg) if self.residual_norm_cfg is None else self.residual_norm_cfg
        return dict(cfg, norm_cfg=norm_cfg)


@MODELS.register_module()
class DCDResNet(DCDRule, ResNet):
    """ResNet with DCD, for mmpretrain and mmdet alike; every convolution but the first and, by default, the
    1×1 ones of shortcuts is dynamic.

    Takes the arguments of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
    ``frozen_stages``, ``norm_eval``, …) and, by name, those of :class:`DCDRule` (``variant``,
    ``squeeze_ratio``, …).

    Args:
        dynamic_shortcuts (bool): whether the 1×1 convolutions of shortcuts are dynamic too: the text names all
            convolutional layers (5), the released code leaves them static. Default: False.

    Raises:
        ValueError: ``dynamic_shortcuts`` is no bool; and as :class:`DCDConv2d`.

    Example:
        >>> backbone = DCDResNet(depth=18, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def __init__(self, *args, dynamic_shortcuts: bool = False, **kwargs) -> None:
        check_bool('dynamic_shortcuts', dynamic_shortcuts)
        self.dynamic_shortcuts = dynamic_shortcuts
        super().__init__(*args, **kwargs)

    def is_dynamic(self, place: ConvPlace) -> bool:
        """All but the first convolution and, unless ``dynamic_shortcuts``, the 1×1 ones of shortcuts."""
        return place.role != 'stem' and (place.role != 'downsample' or self.dynamic_shortcuts)

    def released_sizes(self) -> dict:
        """By the kind of block: the released ResNet-18 and -34 have rules of their own."""
        basic = self.arch_settings[self.depth][0] is basic_convs
        return dict(variant='basic' if basic else 'bottleneck', squeeze_ratio=16)


@MODELS.register_module()
class DCDMobileNetV2(DCDRule, MobileNetV2):
    """MobileNetV2 with DCD, for mmpretrain and mmdet alike; the 1×1 convolutions of its blocks are dynamic, but
    not in the first stage, whose expand ratio is 1. The squeeze ratio is 16, and 8 up to a width of 0.5.

    Takes the arguments of :class:`~dynconv_mm.models.backbones.mobilenet_v2.MobileNetV2` (``widen_factor``,
    ``out_indices``, …) and, by name, those of :class:`DCDRule` (``variant``, ``squeeze_ratio``, …).

    Args:
        dynamic_layers (Sequence[str]): convolutions that are dynamic, out of 'pointwise', the 1×1 ones from the
            second stage on, as released; 'all_pointwise', those of the first stage and the last one too, as the
            text has it (5); and 'depthwise', which is always Eq. 8 (Table 3b). Default: ('pointwise', ).

    Example:
        >>> backbone = DCDMobileNetV2(out_indices=(1, 2, 4, 7)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 32, 8, 8), (1, 96, 4, 4), (1, 1280, 2, 2)]
    """

    def __init__(self, *args, dynamic_layers: Sequence[str] = ('pointwise', ), **kwargs) -> None:
        if isinstance(dynamic_layers, str) or not isinstance(dynamic_layers, Sequence) \
                or any(name not in ('pointwise', 'all_pointwise', 'depthwise') for name in dynamic_layers):
            raise ValueError("dynamic_layers must be a sequence out of 'pointwise', 'all_pointwise' and 'depthwise', "
                             f'but is {dynamic_layers!r}')
        self.dynamic_layers = tuple(dynamic_layers)
        super().__init__(*args, **kwargs)

    def is_dynamic(self, place: ConvPlace) -> bool:
        """The convolutions of ``dynamic_layers``."""
        if place.role in ('stem', 'depthwise'):
            return place.role in self.dynamic_layers
        if 'all_pointwise' in self.dynamic_layers:
            return True
        return place.role != 'last' and place.stage > 1 and 'pointwise' in self.dynamic_layers

    def released_sizes(self) -> dict:
        """By the width."""
        return dict(variant='mobilenet', squeeze_ratio=16 if self.widen_factor > 0.5 else 8)

"""Feature pyramid with dynamic output convolutions, as DCDC's and Involution's detectors have it (DCDC, Table V)."""
from __future__ import annotations

from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN
from torch import Tensor

from ...functional.geometry import check_input
from ...layers.conv_arguments import check_module_cfg, check_positive_int


class DynamicFPN(FPN):
    """mmdet's ``FPN`` whose 3×3 output convolutions are of another type.

    The 1×1 lateral convolutions and those of the extra levels stay as they are. Parameter names are those of ``FPN``
    but within the output convolutions (``fpn_convs.<level>.conv.…``).

    Args:
        fpn_conv_cfg (dict): type and arguments of the output convolutions, such as ``dict(type='DCDC2d')`` or
            ``dict(type='Involution2d', kernel_size=7)``; ``kernel_size``, an odd int, is 3 unless given.
        **kwargs: of ``FPN``: ``in_channels``, ``out_channels``, ``num_outs`` …

    Raises:
        ValueError: ``fpn_conv_cfg`` is no dict with a type, channels or levels are no positive ints, or ``FPN``
            refuses its arguments.
    """

    def __init__(self, fpn_conv_cfg: dict, **kwargs) -> None:
        check_module_cfg('fpn_conv_cfg', fpn_conv_cfg, "dict(type='DCDC2d')")
        for name in ('out_channels', 'num_outs'):
            if name in kwargs:
                check_positive_int(name, kwargs[name])
        in_channels = kwargs.get('in_channels', [1])
        if not isinstance(in_channels, list) or not in_channels:
            raise ValueError(f'in_channels must be a list of the channels of each level, but is {in_channels!r}')
        for channels in in_channels:
            check_positive_int('each of in_channels', channels)
        try:
            super().__init__(**kwargs)
        except AssertionError as error:
            raise ValueError(
                f'FPN refuses in_channels, num_outs, start_level, end_level or add_extra_convs of {kwargs!r}: num_outs '
                'must be at least the number of levels from start_level to end_level') from error
        conv_cfg = dict(fpn_conv_cfg)
        kernel_size = conv_cfg.pop('kernel_size', 3)
        for level in range(len(self.lateral_convs)):  # the levels behind these are RetinaNet's extra ones
            static = self.fpn_convs[level]
            self.fpn_convs[level] = ConvModule(self.out_channels, self.out_channels, kernel_size,
                                               padding=kernel_size // 2, conv_cfg=conv_cfg, norm_cfg=static.norm_cfg,
                                               act_cfg=static.act_cfg, inplace=False)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of ``num_outs`` levels, of those of the backbone's stages.

        Raises:
            ValueError: there are not as many maps as ``in_channels`` says, or one has other channels.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'inputs must be {len(self.in_channels)} maps, one for each of in_channels='
                             f"{self.in_channels}, but are {len(inputs)}: set the backbone's out_indices")
        for x, channels in zip(inputs, self.in_channels):
            check_input(x, channels)
        return super().forward(inputs)

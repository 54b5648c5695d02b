"""MobileNetV2 (Sandler et al., CVPR 2018), whose convolutions a method can replace."""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ...functional.geometry import check_input
from ...layers.conv_arguments import check_module_cfg, check_positive_int
from ...layers.conv_norm_act import ConvNormAct
from .base import CheckpointedBlock, ConvPlace, StagedBackbone, refuse_unknown

torch.fx.wrap('check_input')


def make_divisible(channels: float, divisor: int = 8) -> int:
    """``channels`` rounded to a multiple of ``divisor``, but by no more than 10% down."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class InvertedResidual(CheckpointedBlock):
    """1×1 expansion (unless the ratio is 1), depthwise 3×3, linear 1×1 projection.

    Args:
        backbone (MobileNetV2): says how convolutions and norms are built.
        in_channels, out_channels (int): channels.
        stride (int): of the depthwise convolution.
        expand_ratio (int): the inner channels are the input's times this.
        stage, block (int): where it stands.
    """

    def __init__(self, backbone: MobileNetV2, in_channels: int, out_channels: int, stride: int, expand_ratio: int,
                 stage: int, block: int) -> None:
        super().__init__()
        self.with_cp = backbone.with_cp
        self.routing = backbone.make_routing(in_channels, stage, block)
        self.use_res_connect = stride == 1 and in_channels == out_channels
        hidden = in_channels * expand_ratio
        convs = [('depthwise', hidden, hidden, dict(kernel_size=3, stride=stride, padding=1, groups=hidden)),
                 ('project', hidden, out_channels, dict(kernel_size=1, act_cfg=None))]
        if expand_ratio != 1:
            convs.insert(0, ('expand', in_channels, hidden, dict(kernel_size=1)))
        self.conv = nn.Sequential(*(backbone.make_conv(ConvPlace(role, stage, block), *channels, **arguments)
                                    for role, *channels, arguments in convs))

    def _residual(self, x: Tensor) -> Tensor:
        out, shared = x, self._shared_arguments(x)
        for conv in self.conv:
            out = conv(out, *shared)
        return x + out if self.use_res_connect else out

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x)


class MobileNetV2(StagedBackbone):
    """MobileNetV2 backbone; parameter names are mmpretrain's.

    Args:
        widen_factor (float): multiplies the channels. Default: 1.
        in_channels (int): channels of the image. Default: 3.
        out_indices (Sequence[int]): stages, counted from 0, whose maps are returned; 7 is the last 1×1
            convolution. Default: (7, ).
        frozen_stages (int): -1 none, 0 the stem, i the stem and the first i stages. Default: -1.
        conv_cfg (dict, optional): of the static convolutions.
        norm_cfg (dict): of the norms. Default: BN.
        act_cfg (dict): of the activations. Default: ReLU6.
        norm_eval (bool): keep batch norms, those in attentions too, in eval mode. Default: False.
        freeze_attention (bool): whether ``frozen_stages`` freezes the attentions of its dynamic convolutions, as in
            the papers' detectors. With False, all attentions and their norms train, whatever ``frozen_stages`` and
            ``norm_eval`` say: those that ``tools/model_converters/warm_start.py`` made have learned nothing yet.
            Default: True.
        with_cp (bool): compute activations again in the backward pass to save memory. Default: False.
        init_cfg (dict | list[dict], optional): initialisation. Default: Kaiming.

    Shape:
        input Tensor[batch, in_channels, height, width]; output a tuple of maps, one for each of
        ``out_indices``.

    Raises:
        ValueError: an argument is not one of the above.
    """

    # expand ratio, channels, blocks, stride of stages 1 to 7 (Table 2)
    arch_settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                     (6, 320, 1, 1))

    def __init__(self,
                 widen_factor: float = 1.,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (7, ),
                 frozen_stages: int = -1,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict = dict(type='BN', requires_grad=True),
                 act_cfg: dict = dict(type='ReLU6'),
                 norm_eval: bool = False,
                 freeze_attention: bool = True,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None,
                 **unknown) -> None:
        refuse_unknown(type(self), unknown)
        if isinstance(widen_factor, bool) or not isinstance(widen_factor, (int, float)) \
                or not 0 < widen_factor < math.inf:
            raise ValueError(f'widen_factor must be a positive number, but is {widen_factor!r}')
        check_positive_int('in_channels', in_channels)
        check_module_cfg('act_cfg', act_cfg, "dict(type='ReLU6')", optional=True)
        super().__init__(out_indices, frozen_stages, conv_cfg, norm_cfg, norm_eval, freeze_attention, with_cp, init_cfg,
                         len(self.arch_settings) + 1)
        self.widen_factor = widen_factor
        self.in_channels = in_channels
        self.act_cfg = act_cfg
        self.stage_blocks = tuple(blocks for _, _, blocks, _ in self.arch_settings)
        channels = make_divisible(32 * widen_factor)
        self.conv1 = self.make_conv(ConvPlace('stem', 0), in_channels, channels, kernel_size=3, stride=2, padding=1)
        for stage, (expand_ratio, base_channels, blocks, stride) in enumerate(self.arch_settings, 1):
            out_channels = make_divisible(base_channels * widen_factor)
            layer = []
            for block in range(blocks):
                layer.append(InvertedResidual(self, channels, out_channels, stride if block == 0 else 1,
                                              expand_ratio, stage, block))
                channels = out_channels
            self.stages.append(f'layer{stage}')
            self.add_module(self.stages[-1], nn.Sequential(*layer))
        self.feat_dim = int(1280 * max(widen_factor, 1))
        self.stages.append('conv2')
        self.conv2 = self.make_conv(ConvPlace('last', len(self.stages)), channels, self.feat_dim, kernel_size=1)
        self._freeze_stages()

    def make_conv(self, place: ConvPlace, in_channels: int, out_channels: int, **arguments) -> ConvNormAct:
        """A convolution with its norm and activation."""
        place = place._replace(kernel_size=arguments['kernel_size'])
        return ConvNormAct(in_channels, out_channels, conv_cfg=self.conv_cfg_at(place), norm_cfg=self.norm_cfg,
                           **{'act_cfg': self.act_cfg, **arguments})

    def stem_modules(self) -> Iterable[nn.Module]:
        """The first convolution with its norm."""
        return [self.conv1]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_input(x, self.in_channels)
        return self._run_stages(self.conv1(x))

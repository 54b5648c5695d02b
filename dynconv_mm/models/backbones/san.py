"""Self-attention networks (Exploring self-attention for image recognition, CVPR 2020; DCDC, 2022, Table I)."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...functional.geometry import check_input
from ...layers.conv_arguments import check_positive_int
from ...layers.involution import check_odd
from .base import CheckpointedBlock, ConvPlace, StagedBackbone, check_depth

torch.fx.wrap('check_input')


class SelfAttentionBlock(CheckpointedBlock):
    """Norm, ReLU, pairwise self-attention, norm, ReLU and 1×1 convolution, beside the identity.

    Args:
        backbone (SAN): says how layers and norms are built.
        channels (int): channels of input and output.
        kernel_size (int): of the attention's window.
        stage, block (int): where it stands.
    """

    def __init__(self, backbone: SAN, channels: int, kernel_size: int, stage: int, block: int) -> None:
        super().__init__()
        self.with_cp = backbone.with_cp
        self.routing = None
        middle = max(1, channels // 4)
        self.bn1 = build_norm_layer(backbone.norm_cfg, channels)[1]
        self.sam = build_conv_layer(backbone.conv_cfg_at(ConvPlace('sam', stage, block, kernel_size)), channels, middle,
                                    kernel_size, bias=False)
        self.bn2 = build_norm_layer(backbone.norm_cfg, middle)[1]
        self.conv = build_conv_layer(backbone.conv_cfg_at(ConvPlace('conv', stage, block)), middle, channels, 1)
        self.relu = nn.ReLU(inplace=True)

    def _residual(self, x: Tensor) -> Tensor:
        out = self.sam(self.relu(self.bn1(x)))
        return x + self.conv(self.relu(self.bn2(out)))

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x)


@MODELS.register_module()
class SAN(StagedBackbone):
    """Self-attention network with the pairwise attention of :class:`PairwiseSelfAttention2d`, for mmpretrain and mmdet.

    A 1×1 convolution at full size, then five stages, each of a 2×2 max pooling, a 1×1 convolution, blocks, and a norm.

    Args:
        depth (int): 10, 15 or 19.
        in_channels (int): channels of the image. Default: 3.
        base_channels (int): channels of the stem and the first stage, a multiple of 4 · ``group_channels``; the others
            have 4, 8, 16 and 32 times as many. Default: 64.
        num_stages (int): number of stages, 1 to 5. Default: 5.
        kernel_size (int): of the windows, odd; that of the first stage is 3. Default: 7.
        group_channels (int), reduction (float): as of :class:`PairwiseSelfAttention2d`. Default: 8 and 1/16.
        out_indices (Sequence[int]): stages, counted from 0, whose maps are returned, of stride 2, 4, 8, 16 and 32.
            Default: the last.
        frozen_stages (int): -1 none, 0 the stem, i the stem and the first i stages. Default: -1.
        conv_cfg (dict, optional): of the static convolutions.
        norm_cfg, norm_eval, freeze_attention, with_cp, init_cfg: as of
            :class:`~dynconv_mm.models.backbones.resnet.ResNet`.

    Shape:
        input Tensor[batch, in_channels, height, width], at least as large as the stride; output a tuple of maps, one
        for each of ``out_indices``.

    Raises:
        ValueError: an argument is not one of the above.

    Example:
        >>> backbone = SAN(depth=10, out_indices=(1, 2, 3, 4)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    arch_settings = {10: (2, 1, 2, 4, 1), 15: (3, 2, 3, 5, 2), 19: (3, 3, 4, 6, 3)}

    def __init__(self,
                 depth: int,
                 in_channels: int = 3,
                 base_channels: int = 64,
                 num_stages: int = 5,
                 kernel_size: int = 7,
                 group_channels: int = 8,
                 reduction: float = 1 / 16,
                 out_indices: Sequence[int] | None = None,
                 frozen_stages: int = -1,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict = dict(type='BN', requires_grad=True),
                 norm_eval: bool = False,
                 freeze_attention: bool = True,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        if isinstance(num_stages, bool) or not isinstance(num_stages, int) or num_stages not in range(1, 6):
            raise ValueError(f'num_stages must be an int from 1 to 5, but is {num_stages!r}')
        super().__init__((num_stages - 1, ) if out_indices is None else out_indices, frozen_stages, conv_cfg, norm_cfg,
                         norm_eval, freeze_attention, with_cp, init_cfg, num_stages)
        check_depth(depth, self.arch_settings)
        check_positive_int('in_channels', in_channels)
        check_positive_int('base_channels', base_channels)
        check_positive_int('group_channels', group_channels)
        if base_channels % (4 * group_channels):
            raise ValueError(f'base_channels must be a multiple of 4 * group_channels={4 * group_channels}, but is '
                             f'{base_channels}')
        check_odd('kernel_size', kernel_size)
        self.depth = depth
        self.in_channels = in_channels
        self.sam_cfg = dict(type='PairwiseSelfAttention2d', group_channels=group_channels, reduction=reduction,
                            norm_cfg=norm_cfg)
        self.stage_blocks = self.arch_settings[depth][:num_stages]
        self.conv_in = build_conv_layer(self.conv_cfg_at(ConvPlace('stem', 0)), in_channels, base_channels, 1,
                                        bias=False)
        self.bn_in = build_norm_layer(norm_cfg, base_channels)[1]
        self.relu = nn.ReLU(inplace=True)
        channels = base_channels
        for stage, blocks in enumerate(self.stage_blocks, 1):
            planes = base_channels if stage == 1 else base_channels * 2**stage
            transition = build_conv_layer(self.conv_cfg_at(ConvPlace('downsample', stage)), channels, planes, 1,
                                          bias=False)
            window = 3 if stage == 1 else kernel_size
            self.stages.append(f'layer{stage}')
            self.add_module(self.stages[-1], nn.Sequential(
                nn.MaxPool2d(2), transition,
                *(SelfAttentionBlock(self, planes, window, stage, block) for block in range(blocks)),
                build_norm_layer(norm_cfg, planes)[1], nn.ReLU(inplace=True)))
            channels = planes
        self.feat_dim = channels
        self._freeze_stages()

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """Pairwise self-attention in each block."""
        return self.sam_cfg if place.role == 'sam' else self.conv_cfg

    def stem_modules(self) -> Iterable[nn.Module]:
        """The convolution at full size and its norm."""
        return [self.conv_in, self.bn_in]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_input(x, self.in_channels)
        return self._run_stages(self.relu(self.bn_in(self.conv_in(x))))

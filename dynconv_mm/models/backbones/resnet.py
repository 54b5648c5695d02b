"""ResNet (He et al., CVPR 2016), whose convolutions a method can replace."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule, build_conv_layer, build_norm_layer, build_plugin_layer
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...functional.geometry import check_input
from ...layers.conv_arguments import check_bool, check_positive_int
from ...layers.conv_norm import conv_norm
from .base import CheckpointedBlock, ConvPlace, StagedBackbone, check_depth, refuse_unknown

torch.fx.wrap('check_input')

# blocks of each stage by depth; 26 and 38 are RedNet's (DCDC, Table I)
BOTTLENECKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ConvShape(NamedTuple):
    """A convolution of a residual block, without its input channels."""

    kernel_size: int
    out_channels: int
    stride: int
    dilation: int
    groups: int = 1


def basic_convs(planes: int, stride: int, dilation: int, style: str) -> list[ConvShape]:
    """The convolutions of a basic block (ResNet-18, -34)."""
    return [ConvShape(3, planes, stride, dilation), ConvShape(3, planes, 1, 1)]


def bottleneck_convs(planes: int, stride: int, dilation: int, style: str) -> list[ConvShape]:
    """The convolutions of a bottleneck block (ResNet-50 and deeper)."""
    first, second = (1, stride) if style == 'pytorch' else (stride, 1)
    return [ConvShape(1, planes, first, 1), ConvShape(3, planes, second, dilation), ConvShape(1, 4 * planes, 1, 1)]


class ResidualBlock(CheckpointedBlock):
    """Convolutions, each with its norm, beside a shortcut.

    Args:
        backbone (ResNet): says how convolutions and norms are built.
        in_channels (int): channels of the input.
        convs (list[ConvShape]): the convolutions in order.
        stride (int): stride of the whole block.
        stage, block (int): where it stands.
        drop_path_rate (float): stochastic depth.
    """

    def __init__(self, backbone: ResNet, in_channels: int, convs: list[ConvShape], stride: int, stage: int,
                 block: int, drop_path_rate: float) -> None:
        super().__init__()
        self.with_cp = backbone.with_cp
        self.routing = backbone.make_routing(in_channels, stage, block)
        channels, self._norms, self._plugins = in_channels, [], []
        for number, conv in enumerate(convs, 1):
            padding = conv.dilation * (conv.kernel_size - 1) // 2
            self.add_module(
                f'conv{number}',
                build_conv_layer(backbone.conv_cfg_at(ConvPlace(f'conv{number}', stage, block, conv.kernel_size)),
                                 channels, conv.out_channels, conv.kernel_size, stride=conv.stride, padding=padding,
                                 dilation=conv.dilation, groups=conv.groups, bias=False))
            name, norm = build_norm_layer(backbone.norm_cfg, conv.out_channels, postfix=number)
            self.add_module(name, norm)
            self._norms.append(name)
            channels = conv.out_channels
            self._plugins.append([self._add_plugin(plugin['cfg'], channels) for plugin in backbone.plugins
                                  if plugin['position'] == f'after_conv{number}'
                                  and plugin.get('stages', backbone.all_stages)[stage - 1]])
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = backbone.make_downsample(in_channels, channels, stride, ConvPlace('downsample', stage,
                                                                                               block))
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def _add_plugin(self, cfg: dict, channels: int) -> str:
        cfg = dict(cfg)
        name, plugin = build_plugin_layer(cfg, postfix=cfg.pop('postfix', ''), in_channels=channels)
        if hasattr(self, name):
            raise ValueError(f"plugins has two named {name!r} in one block; give one's cfg a postfix, such as "
                             "postfix='_2'")
        self.add_module(name, plugin)
        return name

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the addition."""
        return getattr(self, self._norms[-1])

    def _residual(self, x: Tensor) -> Tensor:
        out, shared = x, self._shared_arguments(x)
        for number, (norm, plugins) in enumerate(zip(self._norms, self._plugins), 1):
            out = conv_norm(getattr(self, f'conv{number}'), getattr(self, norm), out, *shared)
            if number < len(self._norms):
                out = self.relu(out)
            for plugin in plugins:
                out = getattr(self, plugin)(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.drop_path(out) + shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self._run(x))


@MODELS.register_module('StaticResNet')
class ResNet(StagedBackbone):
    """ResNet backbone; parameter names are torchvision's.

    Other packages have a ``ResNet``, so that in the registry it is called ``StaticResNet``: with ``plugins`` it is the
    network that dynamic convolutions are compared with (ODConv, Tables 2 and 3).

    Args:
        depth (int): 10, 18 or 34, of basic blocks, or 26, 38, 50, 101 or 152, of bottlenecks.
        in_channels (int): channels of the image. Default: 3.
        stem_channels (int): output channels of the stem. Default: 64.
        base_channels (int): inner channels of the first stage. Default: 64.
        num_stages (int): number of stages, 1 to 4. Default: 4.
        strides, dilations (Sequence[int]): of the first block and of each stage.
        out_indices (Sequence[int]): stages, counted from 0, whose maps are returned. Default: (3, ).
        style (str): 'pytorch', a bottleneck's stride is in its 3×3 convolution, or 'caffe', in its first 1×1.
        deep_stem (bool): three 3×3 convolutions in place of the 7×7 one. Default: False.
        avg_down (bool): a shortcut's stride is an average pooling. Default: False.
        frozen_stages (int): -1 none, 0 the stem, i the stem and the first i stages. Default: -1.
        conv_cfg (dict, optional): of the static convolutions.
        norm_cfg (dict): of the norms. Default: BN.
        norm_eval (bool): keep batch norms, those in attentions too, in eval mode. Default: False.
        freeze_attention (bool): whether ``frozen_stages`` freezes the attentions of its dynamic convolutions, as in
            the papers' detectors. With False, all attentions and their norms train, whatever ``frozen_stages`` and
            ``norm_eval`` say: those that ``tools/model_converters/warm_start.py`` made have learned nothing yet.
            Default: True.
        with_cp (bool): compute activations again in the backward pass to save memory. Default: False.
        zero_init_residual (bool): start with the last norm of each block at 0. Default: True.
        drop_path_rate (float): stochastic depth rate of the last block, rising linearly. Default: 0.
        plugins (Sequence[dict], optional): modules inserted into the blocks, as in mmdet: each a dict of ``cfg``
            (its registry name as ``type``, its arguments, ``postfix`` of its name; it gets ``in_channels``),
            ``position`` ('after_conv1', …: behind that convolution's norm and activation, the last one's norm
            alone) and ``stages`` (a bool for each stage; default: all). For example ``DynConvSELayer``,
            ``DynConvCBAM``, ``DynConvECALayer``, mmcv's ``ContextBlock``. Default: None.
        contract_dilation (bool): whether the first block of a stage has half the stage's dilation, ⌊d / 2⌋, as in
            mmseg. Default: False.
        multi_grid (Sequence[int], optional): dilation of each block of the last stage (DeepLabv3, §3.2.1), in place of
            that stage's, as in mmseg. Default: None.
        init_cfg (dict | list[dict], optional): initialisation. Default: Kaiming.

    Shape:
        input Tensor[batch, in_channels, height, width]; output a tuple of maps, one for each of
        ``out_indices``.

    Raises:
        ValueError: an argument is not one of the above.
    """

    arch_settings = {
        10: (basic_convs, (1, 1, 1, 1)),  # DCD, Table 4b
        18: (basic_convs, (2, 2, 2, 2)),
        34: (basic_convs, (3, 4, 6, 3)),
        **{depth: (bottleneck_convs, blocks) for depth, blocks in BOTTLENECKS.items()},
    }

    def __init__(self,
                 depth: int,
                 in_channels: int = 3,
                 stem_channels: int = 64,
                 base_channels: int = 64,
                 num_stages: int = 4,
                 strides: Sequence[int] = (1, 2, 2, 2),
                 dilations: Sequence[int] = (1, 1, 1, 1),
                 out_indices: Sequence[int] = (3, ),
                 style: str = 'pytorch',
                 deep_stem: bool = False,
                 avg_down: bool = False,
                 frozen_stages: int = -1,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict = dict(type='BN', requires_grad=True),
                 norm_eval: bool = False,
                 freeze_attention: bool = True,
                 with_cp: bool = False,
                 zero_init_residual: bool = True,
                 drop_path_rate: float = 0.,
                 plugins: Sequence[dict] | None = None,
                 contract_dilation: bool = False,
                 multi_grid: Sequence[int] | None = None,
                 init_cfg: dict | list[dict] | None = None,
                 **unknown) -> None:
        refuse_unknown(type(self), unknown)
        if isinstance(num_stages, bool) or not isinstance(num_stages, int) or num_stages not in range(1, 5):
            raise ValueError(f'num_stages must be 1, 2, 3 or 4, but is {num_stages!r}')
        super().__init__(out_indices, frozen_stages, conv_cfg, norm_cfg, norm_eval, freeze_attention, with_cp, init_cfg,
                         num_stages)
        check_depth(depth, self.arch_settings)
        for name, value in (('in_channels', in_channels), ('stem_channels', stem_channels),
                            ('base_channels', base_channels)):
            check_positive_int(name, value)
        for name, values in (('strides', strides), ('dilations', dilations)):
            if not isinstance(values, Sequence) or len(values) < num_stages:
                raise ValueError(f'{name} must have a value for each of num_stages={num_stages}, but is {values!r}')
            for value in values:
                check_positive_int(f'each of {name}', value)
        if style not in ('pytorch', 'caffe'):
            raise ValueError(f"style must be 'pytorch' or 'caffe', but is {style!r}")
        if isinstance(drop_path_rate, bool) or not isinstance(drop_path_rate, (int, float)) \
                or not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), but is {drop_path_rate!r}')
        check_bool('contract_dilation', contract_dilation)
        self.depth = depth
        self.in_channels = in_channels
        self.style = style
        self.deep_stem = deep_stem
        self.avg_down = avg_down
        self.zero_init_residual = zero_init_residual
        blocks = self.arch_settings[depth][1]
        self.stage_blocks = blocks[:num_stages]
        grid = self._check_multi_grid(multi_grid)
        self.all_stages = (True, ) * num_stages
        self.plugins = self._check_plugins(plugins, len(self.make_convs(1, 1, 1)))
        self._make_stem(in_channels, stem_channels)

        rates = torch.linspace(0, drop_path_rate, sum(blocks), device='cpu').tolist()  # on meta there are none
        channels = stem_channels
        for stage in range(1, num_stages + 1):
            layer = []
            for block in range(blocks[stage - 1]):
                stride, dilation = strides[stage - 1] if block == 0 else 1, dilations[stage - 1]
                if grid is not None and stage == num_stages:
                    dilation = grid[block]
                elif contract_dilation and block == 0 and dilation > 1:
                    dilation //= 2
                convs = self.make_convs(base_channels * 2**(stage - 1), stride, dilation)
                layer.append(ResidualBlock(self, channels, convs, stride, stage, block, rates.pop(0)))
                channels = convs[-1].out_channels
            self.stages.append(f'layer{stage}')
            self.add_module(self.stages[-1], nn.Sequential(*layer))
        self.feat_dim = channels
        self._freeze_stages()

    def _check_plugins(self, plugins: Sequence[dict] | None, convs: int) -> tuple[dict, ...]:
        if plugins is not None and (isinstance(plugins, str) or not isinstance(plugins, Sequence)):
            raise ValueError(f'plugins must be None or a sequence of dicts, but is {plugins!r}')
        positions = [f'after_conv{number}' for number in range(1, convs + 1)]
        for plugin in plugins or ():
            if not isinstance(plugin, dict) or not {'cfg', 'position'} <= set(plugin) <= {'cfg', 'position', 'stages'}:
                raise ValueError("plugins must be dicts of 'cfg', 'position' and, optionally, 'stages', but one is "
                                 f'{plugin!r}')
            if plugin['position'] not in positions:
                raise ValueError(f"plugins of depth={self.depth} must have a position out of {positions}, but one's "
                                 f"is {plugin['position']!r}")
            if len(plugin.get('stages', self.all_stages)) != len(self.all_stages):
                raise ValueError(f"plugins must have a bool for each of num_stages={len(self.all_stages)} in 'stages', "
                                 f"but one's is {plugin['stages']!r}")
        return tuple(plugins or ())

    def _check_multi_grid(self, multi_grid: Sequence[int] | None) -> Sequence[int] | None:
        if multi_grid is not None:
            blocks = self.stage_blocks[-1]
            if not isinstance(multi_grid, Sequence) or len(multi_grid) < blocks:
                raise ValueError(f'multi_grid must be None or a dilation for each of the {blocks} blocks of the last '
                                 f'stage, but is {multi_grid!r}')
            for dilation in multi_grid:
                check_positive_int('each of multi_grid', dilation)
        return multi_grid

    def make_convs(self, planes: int, stride: int, dilation: int) -> list[ConvShape]:
        """The convolutions of a block; a network with others overrides this."""
        return self.arch_settings[self.depth][0](planes, stride, dilation, self.style)

    def _make_stem(self, in_channels: int, stem_channels: int) -> None:
        conv_cfg = self.conv_cfg_at(ConvPlace('stem', 0))
        if self.deep_stem:
            middle = stem_channels // 2
            common = dict(kernel_size=3, padding=1, conv_cfg=conv_cfg, norm_cfg=self.norm_cfg)
            self.stem = nn.Sequential(ConvModule(in_channels, middle, stride=2, **common),
                                      ConvModule(middle, middle, **common),
                                      ConvModule(middle, stem_channels, **common))
        else:
            self.conv1 = build_conv_layer(conv_cfg, in_channels, stem_channels, kernel_size=7, stride=2, padding=3,
                                          bias=False)
            self.norm1_name, norm = build_norm_layer(self.norm_cfg, stem_channels, postfix=1)
            self.add_module(self.norm1_name, norm)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def stem_modules(self) -> Iterable[nn.Module]:
        """The first convolution and its norm, or those of a deep stem."""
        return [self.stem] if self.deep_stem else [self.conv1, getattr(self, self.norm1_name)]

    def make_downsample(self, in_channels: int, out_channels: int, stride: int, place: ConvPlace) -> nn.Sequential:
        """The shortcut of a block that changes size or channels."""
        pool = []
        if self.avg_down and stride != 1:
            pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)]
            stride = 1
        conv = build_conv_layer(self.conv_cfg_at(place), in_channels, out_channels, kernel_size=1, stride=stride,
                                bias=False)
        return nn.Sequential(*pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; weights loaded by it are left as they are."""
        fresh = not self.is_init and not self.initial_checkpoints()
        super().init_weights()
        if fresh and self.zero_init_residual:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    nn.init.zeros_(module.last_norm.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_input(x, self.in_channels)
        x = self.stem(x) if self.deep_stem else self.relu(getattr(self, self.norm1_name)(self.conv1(x)))
        return self._run_stages(self.maxpool(x))


class BottleneckResNet(ResNet):
    """ResNet of bottlenecks, in the middle of which a method's layer takes the place of the 3×3 convolution.

    A subclass says which layer, in :meth:`middle_cfg_at`, and, where it differs, of which shape.
    """

    arch_settings = {depth: (bottleneck_convs, blocks) for depth, blocks in BOTTLENECKS.items()}

    def middle_cfg_at(self, place: ConvPlace) -> dict:
        """The ``conv_cfg`` of the layer at ``place``."""
        raise NotImplementedError

    def middle_shape(self, planes: int) -> dict:
        """What differs from ResNet's in the shape of the layer in a block of ``planes`` inner channels."""
        return {}

    def make_convs(self, planes: int, stride: int, dilation: int) -> list[ConvShape]:
        """Those of a bottleneck, the second of the layer's shape."""
        first, second, third = super().make_convs(planes, stride, dilation)
        return [first, second._replace(**self.middle_shape(planes)), third]

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """The layer in the middle of each block."""
        return self.middle_cfg_at(place) if place.role == 'conv2' else self.conv_cfg

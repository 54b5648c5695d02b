"""Which network weights belong to, by their names and shapes."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models import (
    SAN,
    DCDMobileNetV2,
    DCDResNet,
    FDConvMobileNetV2,
    FDConvResNet,
    KWMobileNetV2,
    KWResNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
)
from ..models.backbones import MobileNetV2, ResNet
from ..models.backbones.mobilenet_v2 import make_divisible
from ..models.backbones.resnet import basic_convs
from .checkpoint_file import CheckpointError
from .convnext_names import is_convnext

BACKBONES = {'odconv': (ODConvResNet, ODConvMobileNetV2), 'dcd': (DCDResNet, DCDMobileNetV2), 'rednet': (RedNet, None),
             'kw': (KWResNet, KWMobileNetV2), 'fdconv': (FDConvResNet, FDConvMobileNetV2), 'san': (SAN, None),
             'static': (None, MobileNetV2)}  # ResNet, MobileNetV2
METHODS = tuple(BACKBONES)
WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25, 1.4)
#: of KernelWarehouse, by how many times the static parameters there are
KW_RATIOS = {'1d4': dict(cell_num_ratio=1 / 4, cell_in_ratio=1 / 2, cell_out_ratio=1 / 2),
             '1d2': dict(cell_num_ratio=1 / 2, cell_in_ratio=1 / 2, cell_out_ratio=1 / 2),
             '1': {}, '2': dict(cell_num_ratio=2.), '4': dict(cell_num_ratio=4.)}
#: what its classifier is built with where it is made of cells too, and the name of that in the release
KW_CLASSIFIER = dict(cell_num_ratio=1 / 2, cell_in_ratio=1 / 40, reduction=1 / 32)
KW_CLASSIFIER_NAME = 'classifier.1.conv'
#: what makes its ConvNeXt of mmpretrain's
KW_CONVNEXT = dict(op=dict(type='KWConv2d', norm_cfg=dict(type='LN')), include=['*', 'downsample_layers.0'],
                   keep_function=False)
NUM_CLASSES = {True: 80, False: 1000}  # of the detectors' configs, of the classifiers'


@dataclass(frozen=True)
class Architecture:
    """A network of a release.

    Attributes:
        method (str): one of :data:`METHODS`.
        depth (int, optional): of a ResNet, RedNet or SAN.
        widen_factor (float, optional): of a MobileNetV2.
        arch (str, optional): of a ConvNeXt, which is mmpretrain's with :data:`KW_CONVNEXT`: 'tiny'.
        kernel_num (int, optional): n of ODConv.
        ratio (str, optional): of KernelWarehouse, a key of :data:`KW_RATIOS`.
        extra (dict): the backbone's other arguments that are not its defaults.
        detector (str, optional): 'faster-rcnn' or 'mask-rcnn'.
        num_classes (int, optional): of the classifier or the detector; None for a backbone alone.
    """

    method: str
    depth: int | None = None
    widen_factor: float | None = None
    arch: str | None = None
    kernel_num: int | None = None
    ratio: str | None = None
    extra: dict = field(default_factory=dict)
    detector: str | None = None
    num_classes: int | None = None

    @property
    def backbone_class(self) -> type:
        """The class of the backbone, a ResNet, MobileNetV2 or the like."""
        return BACKBONES[self.method][self.depth is None]

    @property
    def backbone_arguments(self) -> dict:
        """What the backbone is built with."""
        sizes = {**dict(depth=self.depth, widen_factor=self.widen_factor, kernel_num=self.kernel_num), **self.extra}
        return {name: value for name, value in sizes.items() if value is not None}

    @property
    def name(self) -> str:
        """As configs and checkpoints are named, such as ``odconv4x-resnet50`` or ``dcd-mobilenet-v2-w100``."""
        if self.method in ('rednet', 'san'):
            return f'{self.method}{self.depth}'
        prefix = dict(odconv=f'odconv{self.kernel_num}x-', dcd='dcd-', kw=f'kw{self.ratio}x-', fdconv='fdconv-',
                      static='')[self.method]
        if self.arch is not None:
            return f'{prefix}convnext-{self.arch}'
        return prefix + (f'mobilenet-v2-w{round(100 * self.widen_factor):03d}' if self.depth is None
                         else f'resnet{self.depth}')

    @property
    def config(self) -> str:
        """The config for it, below ``configs/`` or, with a ``::``, of another package; it may not exist."""
        if self.detector is not None:
            short = self.name.replace('-resnet', '-r').replace('-w100', '')
            return f'{self.method}/{self.detector}_{short}_fpn_1x_coco.py'
        if self.method == 'static':
            return 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'
        recipe = '32xb128-300e' if self.method == 'kw' and self.widen_factor is None else '8xb32'
        return f'{self.method}/{self.name}_{recipe}_in1k.py'

    @property
    def options(self) -> dict:
        """What the config needs as ``--cfg-options`` besides."""
        options = {} if self.method == 'kw' else {f'model.backbone.{name}': value for name, value in self.extra.items()}
        if self.method == 'static' and self.widen_factor != 1:
            options['model.backbone.widen_factor'] = self.widen_factor
        if self.num_classes not in (None, NUM_CLASSES[self.detector is not None]):
            heads = {None: ['head'], 'faster-rcnn': ['roi_head.bbox_head'],
                     'mask-rcnn': ['roi_head.bbox_head', 'roi_head.mask_head']}[self.detector]
            options.update((f'model.{head}.num_classes', self.num_classes) for head in heads)
        return options


def recognise(weights: Mapping[str, Tensor]) -> Architecture:
    """The network whose backbone comes nearest to weights; whether they fit is :func:`check_fit`'s to say.

    Args:
        weights (Mapping[str, Tensor]): of a backbone, by this package's names.

    Raises:
        CheckpointError: they are of none of the released networks.
    """
    method = _method(weights)
    if method == 'kw' and is_convnext(weights):
        return Architecture(method, arch='tiny', ratio='1')
    if any(name.startswith(('conv1.conv.', 'conv2.conv.')) for name in weights):
        size = dict(widen_factor=_widen_factor(weights))
    elif method == 'san' or any(re.match(r'(conv1|stem\.1|layer1\.0)\.', name) for name in weights):
        size = dict(depth=_depth(weights, method))
    else:
        shown = ', '.join(list(weights)[:5]) or 'none'
        raise CheckpointError('the weights are of neither a ResNet, RedNet, SAN nor MobileNetV2: their names are '
                              f'{shown} …')
    if method == 'static' and 'depth' in size:
        raise CheckpointError('the weights are of a static ResNet, without dynamic convolutions: mmdet and mmpretrain '
                              'load such files as they are; docs/warm_start.md starts dynamic networks from them')
    if method == 'odconv':
        size['kernel_num'] = next(value.shape[0] for value in weights.values() if value.dim() == 5)
    if method == 'kw':
        ratio, extra = _ratio(weights, size)
        return Architecture(method, **size, ratio=ratio, extra=extra)
    return Architecture(method, **size, extra=_extra(weights, method, 'depth' in size))


def _method(weights: Mapping[str, Tensor]) -> str:
    if any(name.startswith('warehouse_manager.') for name in weights):
        return 'kw'
    is_mixture = any(value.dim() == 5 for value in weights.values())
    if is_mixture and any(re.search(r'attention\.(channel|filter|spatial|kernel)_fc\.', name) for name in weights):
        return 'odconv'
    if any(name.endswith('.dft_weight') for name in weights):
        return 'fdconv'
    if is_mixture or any('.lsa.' in name for name in weights):
        raise CheckpointError('the weights are of a dynamic network, but of none of ODConv, DCD, RedNet, SAN, '
                              'KernelWarehouse and FDConv, of which there are official releases')
    if any('.sam.conv_w.' in name for name in weights):
        if not any('.sam.conv_p.' in name for name in weights):
            raise CheckpointError('the weights are of a patchwise SAN; only the pairwise one is built here')
        return 'san'
    if any('.fc_phi.' in name for name in weights):
        return 'dcd'
    if any(re.fullmatch(r'layer\d\.\d+\.conv2\.conv1\.conv\.weight', name) for name in weights):
        return 'rednet'
    return 'static'


def kw_arguments(ratio: str, depth: int | None) -> dict:
    """What a KernelWarehouse of a release is built with, beside its size.

    Args:
        ratio (str): a key of :data:`KW_RATIOS`.
        depth (int, optional): of a ResNet; of a MobileNetV2 None.
    """
    others = {('1d2', 50): dict(nonlocal_basis_ratio=1 / 16), ('4', None): dict(share_pointwise=False),
              ('1d2', None): dict(reduction=1 / 32, share_pointwise=False, static_pointwise=5)}
    return {**KW_RATIOS[ratio], **others.get((ratio, depth), {})}


def _ratio(weights: Mapping[str, Tensor], size: dict) -> tuple[str, dict]:
    """Of a KernelWarehouse the ratio whose cells these are, and the backbone's arguments."""
    cells = {name: value.shape for name, value in weights.items() if name.startswith('warehouse_manager.')}
    for ratio in KW_RATIOS:
        arguments = kw_arguments(ratio, size.get('depth'))
        with torch.device('meta'):
            network = BACKBONES['kw']['depth' not in size](**size, **arguments)
        if cells == {name: value.shape for name, value in network.state_dict().items() if name in cells}:
            return ratio, arguments
    shown = ', '.join(str(list(shape)) for shape in cells.values())
    raise CheckpointError(f'the weights are of a KernelWarehouse whose cells are of none of the released ratios '
                          f'({", ".join(KW_RATIOS)}): they are {shown}')


def _depth(weights: Mapping[str, Tensor], method: str) -> int:
    if method == 'san':  # a stage's other modules are its convolution and norm
        blocks = [len({name.split('.')[1] for name in weights if re.match(rf'layer{stage}\.\d+\.sam\.', name)})
                  for stage in range(1, 6)]
        return _nearest(blocks, SAN.arch_settings)
    blocks = [len({name.split('.')[1] for name in weights if name.startswith(f'layer{stage}.')})
              for stage in range(1, 5)]
    is_basic = not any(re.match(r'layer\d\.\d+\.conv3\.', name) for name in weights)
    network = RedNet if method == 'rednet' else ResNet
    depths = {depth: stages for depth, (convs, stages) in network.arch_settings.items()
              if (convs is basic_convs) == is_basic}
    if not depths:
        raise CheckpointError(f'the weights have blocks of two convolutions, which no {network.__name__} has')
    return _nearest(blocks, depths)


def _nearest(blocks: list[int], depths: Mapping[int, tuple[int, ...]]) -> int:
    return min(depths, key=lambda depth: sum(abs(a - b) for a, b in zip(blocks, depths[depth])))


def _widen_factor(weights: Mapping[str, Tensor]) -> float:
    found = {stage: value.shape[0] for stage in range(1, 8)
             if (value := weights.get(f'layer{stage}.0.conv.{1 if stage == 1 else 2}.bn.weight')) is not None
             and value.dim() == 1}

    def distance(width: float) -> int:
        return sum(abs(make_divisible(MobileNetV2.arch_settings[stage - 1][1] * width) - channels)
                   for stage, channels in found.items())

    return min(WIDTHS, key=distance)


def _extra(weights: Mapping[str, Tensor], method: str, is_resnet: bool) -> dict:
    """ODConv's and FDConv's reduction, FDConv's n and the squeeze ratio of DCD's MobileNetV2, which the released code
    takes as options."""
    if method in ('odconv', 'fdconv'):
        kernel_nums = {len(value) for name, value in weights.items() if name.endswith('.attention.kernel_fc.bias')}
        own = {} if method == 'odconv' or kernel_nums <= {64} else dict(kernel_num=min(kernel_nums))
        fcs = [value for name, value in weights.items() if name.endswith('.attention.fc.weight') and value.dim() == 4]
        hidden, channels = max((value.shape[:2] for value in fcs), key=lambda shape: shape[1], default=(16, 16))
        return own if hidden == max(channels // 16, 16) else dict(own, reduction=hidden / channels)
    if method == 'dcd' and not is_resnet:
        fc, phi = (weights.get(f'layer7.0.conv.0.conv.{name}.weight') for name in ('fc.0', 'fc_phi'))
        if fc is not None and phi is not None and fc.dim() == phi.dim() == 2:
            ratio = max(fc.shape[1], phi.shape[0]) // fc.shape[0]
            return {} if ratio == (16 if _widen_factor(weights) > 0.5 else 8) else dict(squeeze_ratio=ratio)
    return {}

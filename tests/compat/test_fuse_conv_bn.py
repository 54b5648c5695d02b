"""mmcv's fuse_conv_bn changes no output of networks of static and dynamic convolutions."""
from __future__ import annotations

import copy
import subprocess
import sys

import mmcv.cnn
import mmcv.cnn.utils
import pytest
import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm import (
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DyConv2d,
    FDConv2d,
    Involution2d,
    KWConv2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
    dynamicize,
)
from dynconv_mm.models import (
    SAN,
    CGCResNet,
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DDFResNet,
    DwCondConvResNet,
    DwWeightNetResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    FDConvMobileNetV2,
    FDConvResNet,
    KWResNet,
    LRNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    SAResNet,
    WeightNetResNet,
    WEResNet,
)
from dynconv_mm.models.backbones import MobileNetV2, ResNet

RESNET = dict(depth=50, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
MOBILENET = dict(widen_factor=.25, out_indices=(1, 2, 4, 7))
SMALL_BOTTLENECKS = dict(depth=26, base_channels=8, out_indices=(0, 1, 2, 3))
SMALL = dict(SMALL_BOTTLENECKS, group_channels=4)
# and the norms behind convolutions that cannot take them: involutions', and those of kernels in the Fourier domain
BACKBONES = {
    'resnet': (ResNet, RESNET, 0), 'mobilenet': (MobileNetV2, MOBILENET, 0),
    'odconv-resnet': (ODConvResNet, dict(RESNET, kernel_num=2), 0),
    'odconv-resnet18': (ODConvResNet, dict(RESNET, depth=18, kernel_num=1), 0),
    'odconv-mobilenet': (ODConvMobileNetV2, dict(MOBILENET, kernel_num=2), 0),
    'dyconv-resnet': (DyConvResNet, RESNET, 0), 'dyconv-mobilenet': (DyConvMobileNetV2, MOBILENET, 0),
    'condconv-resnet': (CondConvResNet, dict(RESNET, kernel_num=3), 0),
    'condconv-mobilenet': (CondConvMobileNetV2, dict(MOBILENET, kernel_num=3), 0),
    'dcd-resnet': (DCDResNet, RESNET, 0), 'dcd-resnet18': (DCDResNet, dict(RESNET, depth=18), 0),
    'dcd-mobilenet': (DCDMobileNetV2, MOBILENET, 0),
    'dcd-paper': (DCDResNet, dict(RESNET, depth=18, variant='paper'), 0),
    'rednet': (RedNet, SMALL, 9), 'dcdc': (DCDCResNet, SMALL, 9),
    'weightnet-resnet': (WeightNetResNet, RESNET, 0), 'dw-condconv': (DwCondConvResNet, RESNET, 0),
    'dw-weightnet': (DwWeightNetResNet, RESNET, 0),
    'ddf-resnet': (DDFResNet, SMALL_BOTTLENECKS, 8),
    'lrnet': (LRNet, dict(SMALL_BOTTLENECKS, kernel_size=3), 9),
    'sa-resnet': (SAResNet, dict(SMALL_BOTTLENECKS, kernel_size=3, heads=4), 9),
    'san': (SAN, dict(depth=10, base_channels=32, kernel_size=3, out_indices=(0, 2, 4)), 25),
    'kw-resnet': (KWResNet, RESNET, 50),  # whose cells are of several layers
    'fdconv-resnet': (FDConvResNet, dict(SMALL_BOTTLENECKS, kernel_num=4, static_channels=4), 24),
    'fdconv-mobilenet': (FDConvMobileNetV2, dict(MOBILENET, kernel_num=4), 13),
    'we-resnet': (WEResNet, RESNET, 0), 'cgc-resnet': (CGCResNet, dict(RESNET, group_channels=4), 0),
}
OPS = {
    'ODConv2d': dict(kernel_num=2), 'DyConv2d': dict(kernel_num=2), 'CondConv2d': dict(kernel_num=2), 'DCDConv2d': {},
    'Involution2d': dict(group_channels=2, kernel_size=3), 'DCDC2d': dict(group_channels=2),
    'WEConv2d': {}, 'CGConv2d': {}, 'WeightNetConv2d': {},
}
SIZE_KEEPING = ('Involution2d', 'DCDC2d')
# with arguments, and whether the 3×3 convolutions are grouped
NETWORKS = {
    'mmdet.ResNet': (dict(depth=50, base_channels=8, stem_channels=8, norm_eval=False), False),
    'mmdet.CSPDarknet': (dict(widen_factor=.125, deepen_factor=.33), False),
    'mmpretrain.MobileNetV2': (dict(widen_factor=.25), True),
    'mmpretrain.RegNet': (dict(arch='regnetx_400mf'), True),
}


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in eval mode, its statistics those of the images, its norms with parameters of their own.

    Those within an attention are weak: an untrained network would make much of each rounding.
    """
    outer = outer_norms(model)
    for name, norm in model.named_modules():
        if isinstance(norm, _BatchNorm):
            norm.momentum = None  # statistics of all images
            nn.init.uniform_(norm.weight, *(.5, 1.5) if name in outer else (.05, .15))
            nn.init.normal_(norm.bias, std=.1)
    model.train()
    model(images)
    model.eval()
    return model


def outer_norms(model: nn.Module) -> list[str]:
    """The names of the batch norms that are not within an attention or a dynamic branch."""
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)
            and not any(isinstance(model.get_submodule(parent), (ODConv2d, DCDConv2d, Involution2d, DCDC2d, CGConv2d,
                                                               PairwiseSelfAttention2d, FDConv2d, KWConv2d))
                        for parent in parents(name))]


def parents(name: str) -> list[str]:
    parts = name.split('.')
    return ['.'.join(parts[:length]) for length in range(1, len(parts))]


def assert_same(model: nn.Module, images: Tensor) -> nn.Module:
    """The fused model, whose outputs are those of the model itself."""
    model = settle(model.double(), images.double())
    fused = mmcv.cnn.fuse_conv_bn(copy.deepcopy(model))
    for x in (images[:1].double(), images.double()):
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients):
                expected, found = model(x), fused(x)
            for theirs, ours in zip(*(maps if isinstance(maps, tuple) else (maps, ) for maps in (expected, found))):
                assert theirs.isfinite().all() and theirs.abs().max() > .1
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * theirs.abs().max().item())
    return fused


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones(name):
    network, arguments, left = BACKBONES[name]
    fused = assert_same(network(**arguments), torch.randn(8, 3, 64, 64))
    assert len(outer_norms(fused)) == left


def test_a_norm_of_a_dynamic_convolution_behind_a_static_one():
    """Which mmcv's own folds into the static one."""
    for layer in (ODConv2d(8, 8, 3), DyConv2d(8, 8, 3), CondConv2d(8, 8, 3), DCDConv2d(8, 8, 3), Involution2d(
            8, 8, 3, group_channels=4), DCDC2d(8, 8, 3, group_channels=4), WEConv2d(8, 8, 3), CGConv2d(8, 8, 3)):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.ReLU(),
                              nn.BatchNorm2d(4))
        fused = assert_same(model, torch.randn(5, 3, 12, 11))
        assert isinstance(fused[2], nn.BatchNorm2d if isinstance(layer, (Involution2d, DCDC2d)) else nn.Identity)
        assert isinstance(fused[5], nn.BatchNorm2d)  # the activation between


def test_dynamicized_by_default():
    """The first convolution stays static."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    dynamicize(model)
    assert outer_norms(assert_same(model, torch.randn(5, 3, 12, 11))) == []


@pytest.mark.parametrize(('network', 'op'), [
    pytest.param(network, op, marks=[] if network == 'mmdet.ResNet' or op == 'ODConv2d' else pytest.mark.slow)
    for network, (_, grouped) in NETWORKS.items() for op in OPS
    if not (grouped and op in SIZE_KEEPING)])  # which take the place of no grouped convolution
def test_dynamicized_models(network, op):
    arguments, _ = NETWORKS[network]
    pytest.importorskip(network.partition('.')[0])
    from mmengine.registry import MODELS
    model = MODELS.build(dict(type=network, **arguments))
    dynamicize(model, dict(type=op, **OPS[op]), placement='3x3', keep_function=op not in SIZE_KEEPING)
    assert_same(model, torch.randn(8, 3, 64, 64))


def test_norms_within_attentions():
    """Those directly behind a fully connected layer."""
    model = nn.Sequential(ODConv2d(8, 6, 3), KWConv2d(6, 6, 3, cell_num_ratio=1), FDConv2d(6, 8, 3, kernel_num=4),
                          ODConv2d(8, 8, 1))
    model[3].attention.fc.register_forward_hook(lambda module, inputs, output: 2 * output)
    fused = assert_same(model, 100 * torch.randn(8, 8, 12, 11))
    assert [name for name, module in fused.named_modules() if isinstance(module, _BatchNorm)] == ['3.attention.bn']


@pytest.mark.parametrize('make', [
    lambda: DCDConv2d(8, 6, 3, padding=1, fusion=None), lambda: DCDConv2d(8, 6, 3, channel_attention=False, bias=False),
    lambda: DCDConv2d(8, 6, 3, channel_attention=False, fusion=None),
    lambda: DCDConv2d(8, 6, 3, variant='paper', fusion='joint'), lambda: DCDConv2d(8, 6, 1, blocks=2),
    lambda: DCDConv2d(8, 8, 3, groups=8, variant='paper'), lambda: DCDConv2d(8, 6, 1, variant='mobilenet'),
    lambda: ODConv2d(8, 6, 3, share_attention=False, bias=False), lambda: ODConv2d(8, 6, 3, groups=2, kernel_num=1),
    lambda: ODConv2d(8, 8, 1, groups=8, kernel_num=1, attentions=()), lambda: CondConv2d(8, 6, 3, padding='same'),
    lambda: DyConv2d(8, 6, 3, padding=1, padding_mode='reflect'), lambda: WEConv2d(8, 6, 3, groups=2),
    lambda: CGConv2d(8, 6, 3, groups=2, bias=False), lambda: WeightNetConv2d(8, 6, 3, multiplier=4)])
@pytest.mark.parametrize('affine', [True, False])
def test_layers(make, affine):
    layer = make().double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=.3)
    norm = nn.BatchNorm2d(layer.out_channels, affine=affine).double().eval()
    for tensor in (norm.running_mean, norm.running_var, *norm.parameters()):
        nn.init.uniform_(tensor, .5, 2)
    x = torch.randn(3, 8, 7, 6, dtype=torch.float64)
    expected = norm(layer(x))
    layer.requires_grad_(False)
    assert layer.fuse_batch_norm(norm)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


class ActivatedConv(ODConv2d):
    """With an activation of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class ActivatedNorm(nn.BatchNorm2d):
    """As timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Wrapper(nn.Module):
    """As torch's of checkpointing, it has the attributes of what it wraps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).relu()


class SharedConv(nn.Module):
    """A convolution for maps of several sizes, each with a norm of its own, as in mmdet's RetinaSepBNHead."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 4, 3)
        self.levels = nn.ModuleList([nn.Sequential(conv, nn.BatchNorm2d(4)) for _ in range(2)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(level(x * number) for number, level in enumerate(self.levels, 1))


@pytest.mark.parametrize(('make', 'left'), [
    (lambda: nn.Sequential(type('Subclass', (ODConv2d, ), {})(3, 4, 3), nn.BatchNorm2d(4)), 0),
    (lambda: nn.Sequential(ActivatedConv(3, 4, 3), nn.BatchNorm2d(4)), 1),
    (lambda: nn.Sequential(ODConv2d(3, 4, 3), ActivatedNorm(4)), 1),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), ActivatedNorm(4)), 1),
    (lambda: nn.Sequential(Wrapper(ODConv2d(3, 4, 3)), nn.BatchNorm2d(4)), 1),
    (lambda: nn.Sequential(ODConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 1),
    (lambda: nn.Sequential(ConvModule(3, 4, 3, conv_cfg=dict(type='ODConv2d'), norm_cfg=dict(type='BN'))), 0),
    (lambda: nn.Sequential(ConvModule(3, 3, 3, norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act'))), 1),
    (lambda: nn.Sequential(ConvModule(3, 4, 3, norm_cfg=dict(type='BN'), order=('conv', 'act', 'norm'))), 1),
    (lambda: nn.Sequential(ConvModule(3, 4, 3, conv_cfg=dict(type='ConvWS'), norm_cfg=dict(type='BN'))), 1),
    (SharedConv, 2),
    (lambda: dynamicized(SharedConv()), 2),
], ids=['subclass', 'overridden', 'activated-norm', 'activated-norm-static', 'wrapped', 'two-norms', 'conv-module',
        'norm-first', 'norm-last', 'weight-standardised', 'shared', 'shared-dynamic'])
def test_where_the_order_is_not_plain(make, left):
    fused = assert_same(make(), torch.randn(5, 3, 12, 11))
    assert len(outer_norms(fused)) == left


def dynamicized(model: nn.Module) -> nn.Module:
    dynamicize(model, include='*')
    return model


@pytest.mark.parametrize('dynamic', [False, True])
def test_a_detector(dynamic):
    """RTMDet, whose head has the convolutions in common for all levels, and norms for each."""
    pytest.importorskip('mmdet')
    from mmengine.config import Config
    from mmengine.registry import MODELS
    config = Config.fromstring("_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'", '.py')
    config.model.data_preprocessor.batch_augments = None
    config.model.backbone.init_cfg = None
    model = MODELS.build(dict(config.model, _scope_='mmdet'))
    if dynamic:
        dynamicize(model, dict(type='ODConv2d', kernel_num=2), placement='3x3')
    left = len(model.bbox_head.cls_convs) * 2 * config.model.bbox_head.stacked_convs
    assert len(outer_norms(assert_same(Levels(model), torch.randn(4, 3, 64, 64)))) == left


class Levels(nn.Module):
    """A detector up to the maps of its head."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores, boxes = self.detector(x, mode='tensor')
        return (*scores, *boxes)


def test_it_is_mmcvs():
    own = sys.modules['mmcv.cnn.utils.fuse_conv_bn']
    assert own.fuse_conv_bn is mmcv.cnn.utils.fuse_conv_bn is mmcv.cnn.fuse_conv_bn
    for user in ('mmdet.utils.benchmark', 'mmpretrain.models.backbones.levit'):
        pytest.importorskip(user.partition('.')[0])
        assert __import__(user, fromlist=['_']).fuse_conv_bn is mmcv.cnn.fuse_conv_bn


def test_names_that_were_imported_before():
    """By that name all of it; by another, and in a detector's way: all but the module that it is called with."""
    program = '''
import torch
from torch import nn
from mmcv.cnn import fuse_conv_bn
held = [fuse_conv_bn]
import mmcv.cnn, dynconv_mm
assert fuse_conv_bn is mmcv.cnn.fuse_conv_bn and fuse_conv_bn is not held[0]
layers = nn.Sequential(nn.Conv2d(3, 4, 1), dynconv_mm.ODConv2d(4, 4, 1), nn.BatchNorm2d(4))
nn.init.uniform_(layers[2].running_mean)
model, x = nn.ModuleDict(dict(backbone=layers)).eval(), torch.randn(2, 3, 5, 5)
expected = layers(x)
held[0](model)
torch.testing.assert_close(layers(x), expected)
assert isinstance(layers[2], nn.Identity)
'''
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('part', [0, 1], ids=['conv', 'norm'])
@pytest.mark.parametrize('conv', [nn.Conv2d(4, 6, 3), ODConv2d(4, 6, 3), DCDConv2d(4, 6, 3)],
                         ids=lambda conv: type(conv).__name__)
def test_hooks_keep_their_modules(conv, part):
    model, x = nn.Sequential(copy.deepcopy(conv), nn.BatchNorm2d(6)).eval(), torch.randn(2, 4, 7, 7)
    model[part].register_forward_hook(lambda module, inputs, output: 2 * output)
    expected = model(x)
    torch.testing.assert_close(mmcv.cnn.fuse_conv_bn(model)(x), expected)

"""Official checkpoints fit this package's models strictly, compute the same, and come back under the same names."""
from __future__ import annotations

import argparse
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from dynconv_mm import KWConv2d, build_warehouses
from dynconv_mm.analysis.complexity import build_on_meta
from dynconv_mm.conversion import CheckpointError, from_released, read_checkpoint, to_released
from dynconv_mm.layers import DCDConv2d, ODConv2d, PairwiseSelfAttention2d, TemperatureMixin
from dynconv_mm.models import (
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvResNet,
    KWResNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    heads,
)
from dynconv_mm.models.backbones import MobileNetV2

RELEASES = {  # of tests/data: the name that they have in configs/
    'odconv1x_resnet18': 'odconv1x-resnet18', 'odconv4x_resnet50': 'odconv4x-resnet50',
    'odconv1x_mobilenetv2_050': 'odconv1x-mobilenet-v2-w050', 'odconv4x_mobilenetv2_100': 'odconv4x-mobilenet-v2-w100',
    'dcd_resnet18': 'dcd-resnet18', 'dcd_resnet50': 'dcd-resnet50', 'dcd_mobilenetv2_100': 'dcd-mobilenet-v2-w100',
    'rednet26': 'rednet26', 'rednet50': 'rednet50', 'static_mobilenetv2_100': 'mobilenet-v2-w100',
    'kw1d4x_resnet18': 'kw1d4x-resnet18', 'kw1x_resnet18': 'kw1x-resnet18', 'kw1d2x_resnet50': 'kw1d2x-resnet50',
    'kw4x_resnet50': 'kw4x-resnet50', 'kw1d2x_mobilenetv2_100': 'kw1d2x-mobilenet-v2-w100',
    'kw1x_mobilenetv2_100': 'kw1x-mobilenet-v2-w100', 'kw1x_convnext_tiny': 'kw1x-convnext-tiny',
}
FIELDS = dict(epoch=100, acc=torch.tensor(70.25), best_acc=torch.tensor(70.5), arch='net')


@pytest.fixture
def release(released_shapes):
    """An official checkpoint, on the meta device."""

    def make(name: str) -> dict:
        shapes = released_shapes(name)
        if name.startswith('rednet'):
            shapes = {f'backbone.{key}': shape for key, shape in shapes.items()}
            shapes.update({'head.fc.weight': [1000, 2048], 'head.fc.bias': [1000]})
            return dict(meta=dict(CLASSES=('cat', 'dog')), state_dict=on_meta(shapes), optimizer=dict(state={}))
        if name.startswith('kw'):
            return dict(epoch=299, model=on_meta(shapes), optimizer=dict(state={}, param_groups=[]))
        weights = {f'module.{key}': value for key, value in on_meta(shapes).items()}
        return dict(FIELDS, state_dict=weights, optimizer=dict(state={}, param_groups=[]))

    return make


def on_meta(shapes: dict) -> dict:
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def meta_weights(network, **kwargs) -> dict:
    with torch.device('meta'):
        return network(**kwargs).state_dict()


def classifier(backbone: dict, features: int = 512, classes: int = 1000) -> dict:
    """A plain official file: a backbone of the meta device and a linear classifier."""
    return {**backbone, **on_meta({'fc.weight': [classes, features], 'fc.bias': [classes]})}


SMALL = partial(meta_weights, ODConvResNet, depth=18, kernel_num=1)


# Every release, into the models of the configs.


@pytest.mark.parametrize('name', RELEASES)
def test_released_checkpoints(name, release, root):
    pytest.importorskip('mmpretrain')
    official = release(name)
    converted, architecture, remarks = from_released(official)
    assert architecture.name == RELEASES[name]
    assert architecture.num_classes == 1000 and not architecture.options
    assert remarks == ('optimizer was left out', )
    base = architecture.config if '::' in architecture.config else root / 'configs' / architecture.config
    config = Config.fromstring(f'_base_ = {str(base)!r}', '.py')
    model = build_on_meta(config)
    expected = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in converted['state_dict'].items()} == expected
    temperatures = [value for key, value in converted['state_dict'].items() if key.endswith('.temperature')]
    assert len(temperatures) == sum(isinstance(module, TemperatureMixin) for module in model.modules())
    assert all(value == (0 if name.startswith('kw') else 1) for value in temperatures)

    back = to_released(converted).checkpoint
    wrapper = 'model' if name.startswith('kw') else 'state_dict'
    given = official[wrapper]
    assert {key: value.shape for key, value in back[wrapper].items()} == {
        key: value.shape for key, value in given.items()}
    assert all(back[wrapper][key] is value for key, value in given.items() if not key.endswith('.gamma'))
    if name.startswith('rednet'):
        assert back['meta'] == official['meta']
    elif name.startswith('kw'):
        assert back.keys() == {'epoch', 'model'} and back['epoch'] == 299
    else:
        assert {field: back[field] for field in FIELDS} == FIELDS

    # without what the official file had beside its weights: as a checkpoint that was trained here
    trained = dict(meta=dict(epoch=3), state_dict=converted['state_dict'], message_hub={}, param_schedulers=[])
    back = to_released(trained).checkpoint
    assert back[wrapper].keys() == given.keys()
    if name.startswith('rednet'):
        assert back == dict(meta=dict(epoch=3), state_dict=given)
    elif name.startswith('kw'):
        assert back.keys() == {'epoch', 'model'} and back['epoch'] == 3
    else:
        assert back.keys() == {'epoch', 'state_dict', 'acc', 'best_acc', 'optimizer'} and back['epoch'] == 3


# The same outputs as the networks that the releases are of, put together from torchvision's.


def randomise(model: nn.Module, from_batch: bool) -> None:
    """Weights, and the statistics of norms: those of a batch, without which DCD's features grow, or any."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0, 0].numel() if parameter.dim() == 5 else parameter[0].numel()
            nn.init.normal_(parameter, std=(2 / fan_in)**0.5)
        else:
            nn.init.normal_(parameter, mean=float(name.endswith('weight')), std=0.1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    if from_batch:
        with torch.no_grad():
            model.train()(torch.randn(8, 3, 64, 64))
    model.eval()


def replace(model: nn.Module, layer, kept: tuple[str, ...]) -> None:
    """Put ``layer`` in place of a torchvision model's convolutions, but those whose names start as one of ``kept``."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and not name.startswith(kept) and '.downsample.' not in name:
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child,
                    layer(module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,
                          groups=module.groups, bias=False))


def original(name: str) -> nn.Module:
    if name == 'san10':
        return OriginalSAN()
    if name == 'kw1x-convnext-tiny':
        return OriginalConvNeXt()
    models = pytest.importorskip('torchvision.models')
    if name.startswith('dcd'):
        model = models.resnet18()
        replace(model, partial(DCDConv2d, variant='basic'), ('conv1', ))
        model.fc = nn.Identity()
        head = heads.DCDLinearClsHead(num_classes=1000, in_channels=512)
        model.classifier = nn.Sequential(nn.Dropout(0.1), head)
        model.forward = lambda x: head((models.ResNet.forward(model, x), ))  # it takes what a backbone puts out
        return model
    if 'resnet' in name:
        model = getattr(models, name.partition('-')[2])()
        kept = ('conv1', )
    else:
        model = models.mobilenet_v2(width_mult=int(name[-3:]) / 100)
        kept = ('features.0.', )
    if name.startswith('odconv'):
        replace(model, partial(ODConv2d, kernel_num=int(name[6])), kept)
    return model


class OriginalSAN(nn.Module):
    """SAN-10 under the released names, from the equations of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.bn_in, channels = nn.Conv2d(3, 64, 1, bias=False), nn.BatchNorm2d(64), 64
        for stage, blocks in enumerate((2, 1, 2, 4, 1)):
            planes = 64 if stage == 0 else 128 * 2**stage
            self.add_module(f'conv{stage}', nn.Conv2d(channels, planes, 1, bias=False))
            self.add_module(f'layer{stage}', nn.Sequential(*(nn.ModuleDict(dict(
                bn1=nn.BatchNorm2d(planes),
                sam=PairwiseSelfAttention2d(planes, planes // 4, 3 if stage == 0 else 7, bias=False),
                bn2=nn.BatchNorm2d(planes // 4), conv=nn.Conv2d(planes // 4, planes, 1))) for _ in range(blocks))))
            self.add_module(f'bn{stage}', nn.BatchNorm2d(planes))
            channels = planes
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn_in(self.conv_in(x)).relu()
        for stage in range(5):
            x = getattr(self, f'conv{stage}')(nn.functional.max_pool2d(x, 2))
            for block in getattr(self, f'layer{stage}'):
                inner = block.sam(block.bn1(x).relu())
                x = x + block.conv(block.bn2(inner).relu())
            x = getattr(self, f'bn{stage}')(x).relu()
        return self.fc(x.mean((2, 3)))


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of a map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, 3)).movedim(3, 1)


class OriginalConvNeXt(nn.Module):
    """ConvNeXt-T of KernelWarehouse under the released names, from the equations of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        conv, norm = partial(KWConv2d, norm_cfg=dict(type='LN')), partial(ChannelNorm, eps=1e-6)
        widths = (96, 192, 384, 768)
        self.downsample_layers = nn.ModuleList([nn.Sequential(conv(3, 96, 4, 4, warehouse='stem'), norm(96)), *(
            nn.Sequential(norm(before), conv(before, width, 2, 2, warehouse=f'to {width}'))
            for before, width in zip(widths, widths[1:]))])
        self.stages = nn.ModuleList(nn.ModuleList(nn.ModuleDict(dict(
            dwconv=conv(width, width, 7, padding=3, groups=width, warehouse=f'depthwise {width}'), norm=norm(width),
            pwconv1=conv(width, 4 * width, 1, warehouse=f'pointwise {width}'),
            pwconv2=conv(4 * width, width, 1, warehouse=f'pointwise {width}'))) for _ in range(depth))
            for width, depth in zip(widths, (3, 3, 9, 3)))
        for stage, width in zip(self.stages, widths):
            for block in stage:
                block.gamma = nn.Parameter(torch.ones(1, width, 1, 1))
        self.norm, self.head = nn.LayerNorm(768, eps=1e-6), nn.Linear(768, 1000)
        build_warehouses(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = downsample(x)
            for block in stage:
                inner = block.pwconv1(block.norm(block.dwconv(x)))
                x = x + block.gamma * block.pwconv2(nn.functional.gelu(inner))
        return self.head(self.norm(x.mean((2, 3))))


@pytest.mark.parametrize('name', ['odconv2x-resnet18', 'odconv1x-resnet50', 'odconv4x-mobilenet-v2-w050',
                                  'dcd-resnet18', 'mobilenet-v2-w100', 'san10', 'kw1x-convnext-tiny'])
def test_same_outputs(name, root):
    pytest.importorskip('mmpretrain')
    model = original(name)
    randomise(model, from_batch=name.startswith('dcd'))
    prefix, wrapper = ('', 'model') if name.startswith('kw') else ('module.', 'state_dict')
    official = {prefix + key: value for key, value in model.state_dict().items() if not key.endswith('.temperature')}
    converted, architecture, _ = from_released({**FIELDS, wrapper: official})
    assert architecture.name == name
    base = architecture.config if '::' in architecture.config else root / 'configs' / architecture.config
    init_default_scope('mmpretrain')
    ours = MODELS.build(Config.fromstring(f'_base_ = {str(base)!r}', '.py').model).eval()
    ours.load_state_dict(converted['state_dict'], strict=True)
    image = torch.randn(2, 3, 97, 64, dtype=torch.double)
    with torch.no_grad():
        logits, expected = ours.double()(image), model.double()(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)

    back = to_released(converted).checkpoint  # DCD behind a dropout too
    assert back[wrapper].keys() == official.keys()
    assert all(torch.equal(back[wrapper][key], value) for key, value in official.items())
    if name.startswith('kw'):
        return
    parameters = [nn.Parameter(value) for key, value in official.items()
                  if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
    torch.optim.SGD(parameters, lr=0.1).load_state_dict(back['optimizer'])  # the original code does, even to evaluate


# Variants of the releases.


@pytest.mark.parametrize(('network', 'kwargs', 'features', 'name', 'extra'), [
    (ODConvResNet, dict(depth=18, kernel_num=8), 512, 'odconv8x-resnet18', {}),
    (ODConvResNet, dict(depth=34, kernel_num=2), 512, 'odconv2x-resnet34', {}),
    (ODConvResNet, dict(depth=18, kernel_num=4, reduction=1 / 4), 512, 'odconv4x-resnet18', dict(reduction=1 / 4)),
    (ODConvMobileNetV2, dict(widen_factor=0.75, kernel_num=1), 1280, 'odconv1x-mobilenet-v2-w075', {}),
    (ODConvMobileNetV2, dict(widen_factor=0.35, kernel_num=4), 1280, 'odconv4x-mobilenet-v2-w035', {}),
    (RedNet, dict(depth=38), 2048, 'rednet38', {}), (RedNet, dict(depth=152), 2048, 'rednet152', {}),
])
def test_sizes_are_recognised(network, kwargs, features, name, extra):
    """By our names, which are those of the releases but for MobileNetV2's, and with another number of classes."""
    converted, architecture, _ = from_released(classifier(meta_weights(network, **kwargs), features, classes=7))
    assert architecture.name == name and architecture.extra == extra
    assert architecture.options == {**{f'model.backbone.{key}': value for key, value in extra.items()},
                                    'model.head.num_classes': 7}
    assert converted['state_dict']['head.fc.weight'].shape == (7, features)


@pytest.mark.parametrize(('width', 'ratio', 'extra'), [(1.0, 16, {}), (1.0, 8, dict(squeeze_ratio=8)), (0.5, 8, {}),
                                                       (0.75, 16, {}), (0.35, 16, dict(squeeze_ratio=16))])
def test_squeeze_ratio_is_recognised(width, ratio, extra):
    weights = meta_weights(DCDMobileNetV2, widen_factor=width, squeeze_ratio=ratio)
    architecture = from_released(weights, backbone_only=True).architecture
    assert architecture.extra == extra
    assert architecture.name == f'dcd-mobilenet-v2-w{round(100 * width):03d}' and architecture.num_classes is None


def test_dcd_resnets_are_told_apart():
    for depth in (34, 101):
        weights = meta_weights(DCDResNet, depth=depth)
        assert from_released(weights, backbone_only=True).architecture.name == f'dcd-resnet{depth}'


def test_averages_of_hooks():
    """mmcv 1.x kept the other set of weights in the same model, mmengine keeps it beside."""
    weights = {f'backbone.{key}': value for key, value in meta_weights(RedNet, depth=26).items()}
    weights.update(on_meta({'head.fc.weight': [1000, 2048], 'head.fc.bias': [1000]}))
    shadows = {'ema_' + key.replace('.', '_'): torch.empty_like(value) for key, value in weights.items()}
    for given in (dict(state_dict={**weights, **shadows}), dict(state_dict=weights, ema_state_dict=shadows)):
        converted, _, remarks = from_released(given)
        assert all(converted['state_dict'][key] is value for key, value in weights.items())
        assert len(converted['state_dict']) == len(weights)
        assert len(remarks) == 1 and 'left out' in remarks[0]


def test_temperature_of_an_unfinished_annealing():
    weights = from_released(classifier(SMALL())).checkpoint['state_dict']
    weights.update({key: torch.tensor(15.5) for key in weights if key.endswith('.temperature')})
    official, _, remarks = to_released(weights)
    assert len(remarks) == 1 and '15.5' in remarks[0]
    assert not any('temperature' in key for key in official['state_dict'])


# Detectors.


@pytest.fixture
def detector(root):
    """The weights of a config's detector under the names of mmdet 2.x and the official backbones."""
    pytest.importorskip('mmdet.models')

    def make(config: str, release_weights: dict) -> dict:
        init_default_scope('mmdet')
        with torch.device('meta'):
            model = MODELS.build(Config.fromfile(root / 'configs' / config).model)
        rest = {key: value for key, value in model.state_dict().items() if not key.startswith('backbone.')}
        return {**{f'backbone.{key.removeprefix("module.")}': value for key, value in release_weights.items()}, **rest}

    return make


@pytest.mark.parametrize(('config', 'name'), [
    ('odconv/faster-rcnn_odconv4x-r50_fpn_1x_coco.py', 'odconv4x_resnet50'),
    ('odconv/faster-rcnn_odconv4x-mobilenet-v2_fpn_1x_coco.py', 'odconv4x_mobilenetv2_100'),
])
def test_detectors(config, name, release, detector, root):
    """The original backbones carry their classifier along."""
    weights = detector(config, release(name)['state_dict'])
    converted, architecture, remarks = from_released(dict(meta=dict(epoch=12), state_dict=weights))
    assert architecture.config == config and architecture.num_classes == 80 and not architecture.options
    assert len(remarks) == 1 and 'classifier' in remarks[0]
    with torch.device('meta'):
        model = MODELS.build(Config.fromfile(root / 'configs' / config).model)
    assert {key: value.shape for key, value in converted['state_dict'].items()} == {
        key: value.shape for key, value in model.state_dict().items()}
    back = to_released(converted).checkpoint
    unused = {key for key in weights if key.startswith(('backbone.fc.', 'backbone.classifier.'))}
    assert back['meta'] == dict(epoch=12)
    assert back['state_dict'].keys() == weights.keys() - unused
    assert all(value is weights[key] for key, value in back['state_dict'].items())


def test_detector_of_other_classes(release, detector):
    weights = detector('odconv/mask-rcnn_odconv1x-mobilenet-v2_fpn_1x_coco.py',
                       meta_weights(ODConvMobileNetV2, kernel_num=1))
    for module, rows in (('bbox_head.fc_cls', 4), ('bbox_head.fc_reg', 12), ('mask_head.conv_logits', 3)):
        for part in ('weight', 'bias'):
            key = f'roi_head.{module}.{part}'
            weights[key] = torch.empty(rows, *weights[key].shape[1:], device='meta')
    architecture = from_released(weights).architecture
    assert architecture.options == {f'model.roi_head.{head}.num_classes': 3 for head in ('bbox_head', 'mask_head')}
    alone, architecture, _ = from_released(weights, backbone_only=True)
    assert architecture.detector is None and all(key.startswith('backbone.') for key in alone['state_dict'])


# What does not fit is refused.


@pytest.mark.parametrize('convert', [from_released, to_released])
def test_a_partial_match(convert):
    weights = classifier(SMALL())
    if convert is to_released:
        weights = from_released(weights).checkpoint['state_dict']
    prefix = 'backbone.' if convert is to_released else ''
    del weights[f'{prefix}layer2.0.bn1.weight']
    weights[f'{prefix}layer5.0.bn1.weight'] = torch.empty(3, device='meta')
    weights[f'{prefix}layer1.1.conv2.weight'] = torch.empty(1, 64, 64, 5, 5, device='meta')
    with pytest.raises(CheckpointError) as raised:
        convert(weights)
    message = str(raised.value)
    assert 'do not fit odconv1x-resnet18' in message
    assert 'missing (1): backbone.layer2.0.bn1.weight' in message
    assert 'unexpected (1): backbone.layer5.0.bn1.weight' in message
    assert 'backbone.layer1.1.conv2.weight: [1, 64, 64, 5, 5] instead of [1, 64, 64, 3, 3]' in message


@pytest.mark.parametrize('gone', ['layer4.', 'layer1.', 'conv1.', 'fc.bias', 'fc.weight', 'layer3.0.conv1.attention.'])
def test_missing_parts(gone):
    weights = {key: value for key, value in classifier(SMALL()).items() if not key.startswith(gone)}
    with pytest.raises(CheckpointError, match=rf'missing \(\d+\): (backbone|head)\.{gone}'):
        from_released(weights)


def retinanet() -> dict:
    weights = {f'backbone.{key}': value for key, value in SMALL().items()}
    return {**weights, 'bbox_head.retina_cls.weight': torch.empty(1, device='meta')}


def static_detector() -> dict:
    weights = {f'backbone.{key}': value for key, value in meta_weights(MobileNetV2).items()}
    return {**weights, 'rpn_head.rpn_cls.weight': torch.empty(1, device='meta')}


def twice_named() -> dict:
    return {**meta_weights(ODConvMobileNetV2, kernel_num=1), 'features.0.0.weight': torch.empty(1, device='meta')}


@pytest.mark.parametrize(('weights', 'words'), [
    (lambda: SMALL(), 'without a classifier.*--backbone-only'),
    (lambda: classifier({**SMALL(), **on_meta({'classifier.1.weight': [1000, 512]})}), 'two classifiers'),
    (static_detector, 'static MobileNetV2'),
    (retinanet, 'neither a classifier nor a Faster or Mask R-CNN.*bbox_head'),
    (lambda: classifier(meta_weights(DyConvResNet, depth=18)), 'of none of ODConv, DCD, RedNet, SAN, Kern'),
    (lambda: classifier(meta_weights(DCDCResNet, depth=26)), 'of none of ODConv, DCD, RedNet, SAN, Kern'),
    (lambda: classifier(on_meta({'layer0.0.sam.conv_w.0.weight': [170], 'conv0.weight': [64, 64, 1, 1]})),
     'of a patchwise SAN; only the pairwise one'),
    (lambda: on_meta({'a': [2], 'b.weight': [3]}), 'of neither a ResNet, RedNet, SAN nor MobileNetV2.*a, b.weight'),
    (twice_named, 'modules twice'),
], ids=['no classifier', 'two classifiers', 'static', 'retinanet', 'dyconv', 'dcdc', 'patchwise', 'others', 'twice'])
def test_other_weights(weights, words):
    with pytest.raises(CheckpointError, match=words):
        from_released(weights())


def test_a_static_resnet():
    models = pytest.importorskip('torchvision.models')
    with pytest.raises(CheckpointError, match='static ResNet'):
        from_released(models.resnet18().state_dict())


@pytest.mark.parametrize('method', ['dcd', 'rednet', 'static'])
def test_another_method(method):
    with pytest.raises(CheckpointError, match=f"odconv1x-resnet18, whose method is 'odconv', not '{method}'"):
        from_released(classifier(SMALL()), method)
    assert from_released(classifier(SMALL()), 'odconv').architecture.method == 'odconv'


def test_an_unknown_method():
    with pytest.raises(ValueError, match="method must be 'auto' or one of .* but is 'dyconv'"):
        from_released(classifier(SMALL()), 'dyconv')


# KernelWarehouse.


def test_a_file_with_the_options_of_a_training(released_shapes, tmp_path):
    """Its ``argparse.Namespace`` is read as data, whatever it is called with; code in it is refused."""
    weights = {name: torch.zeros(shape) for name, shape in released_shapes('kw1d4x_resnet18').items()}
    path = tmp_path / 'kw.pth'
    torch.save(dict(model=weights, args=argparse.Namespace(lr=4e-3, model='kw1d4x_resnet18', betas=[0.9, 0.95]),
                    epoch=299), path)
    converted, architecture, remarks = from_released(read_checkpoint(path))
    assert architecture.name == 'kw1d4x-resnet18' and remarks == ('args was left out', )
    assert converted['meta']['official']['fields'] == dict(epoch=299)
    torch.save(dict(model=weights, args=argparse.Namespace(run=print)), path)
    with pytest.raises(CheckpointError, match='was refused'):
        read_checkpoint(path)


def test_a_kernel_warehouse_of_no_released_ratio():
    weights = meta_weights(KWResNet, depth=18, cell_num_ratio=3.)
    with pytest.raises(CheckpointError, match=r'none of the released ratios \(1d4, 1d2, 1, 2, 4\): they are \[168, 64'):
        from_released(classifier(weights))


def test_a_kernel_warehouse_in_mid_annealing():
    weights = {f'backbone.{name}': value for name, value in meta_weights(KWResNet, depth=18).items()}
    weights.update(on_meta({'head.fc.weight': [10, 512], 'head.fc.bias': [10]}))
    weights.update({name: torch.tensor(.25) for name in weights if name.endswith('.temperature')})
    converted, architecture, remarks = to_released(dict(state_dict=weights, meta=dict(epoch=5)))
    assert architecture.options == {'model.head.num_classes': 10}
    assert converted['model']['fc.weight'].shape == (10, 512) and 'the temperature is 0.25' in remarks[0]

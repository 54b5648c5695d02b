"""DCD's networks have the released parameters and names, the rows of the paper's tables, and work in mmpretrain and
mmdet."""
import re
from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.layers import DCDConv2d
from dynconv_mm.models import DCDMobileNetV2, DCDResNet, heads

SMALL_R18 = partial(DCDResNet, depth=18, stem_channels=8, base_channels=8)
SMALL_R50 = partial(DCDResNet, depth=50, stem_channels=8, base_channels=8)
SMALL_MOBILENET = partial(DCDMobileNetV2, widen_factor=0.25)


def on_meta(network, **kwargs) -> nn.Module:
    with torch.device('meta'):
        return network(**kwargs)


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


# Parameters, in millions.


@pytest.mark.parametrize(('network', 'kwargs', 'expected'), [  # ODConv, Tables 1 and 2
    (DCDResNet, dict(depth=18), 14.70), (DCDResNet, dict(depth=50), 29.84),
    (DCDMobileNetV2, dict(widen_factor=1.0), 5.72), (DCDMobileNetV2, dict(widen_factor=0.75), 4.08),
    (DCDMobileNetV2, dict(widen_factor=0.5), 3.06)])
def test_parameters_of_the_released_models(network, kwargs, expected):
    pytest.importorskip('mmpretrain')
    model = on_meta(network, **kwargs)
    head = on_meta(heads.DCDLinearClsHead, num_classes=1000, in_channels=model.feat_dim)
    assert round(millions(model) + millions(head), 2) == expected


STATIC = dict(fusion=None, channel_attention=False)
FUSION_ALONE = dict(channel_attention=False)


@pytest.mark.parametrize(('kwargs', 'expected'), [
    (STATIC, 2.0), (dict(fusion=None), 2.4), (FUSION_ALONE, 2.7), (dict(), 2.9),  # DCD, Table 1a
    *((dict(latent_multiplier=multiplier), expected)  # Table 2
      for multiplier, expected in ((.25, 2.4), (.5, 2.5), (.75, 2.6), (1., 2.9))),
    *((dict(FUSION_ALONE, blocks=blocks), expected) for blocks, expected in ((1, 2.7), (2, 2.6), (4, 2.5), (8, 2.5))),
    *((dict(blocks=blocks), expected) for blocks, expected in ((2, 2.8), (4, 2.7), (8, 2.7))),  # Table 3a
])
def test_ablations_of_mobilenet(kwargs, expected):
    """The paper's rows, to the printed digit, with the sizes of the released build."""
    model = on_meta(DCDMobileNetV2, widen_factor=0.5, **kwargs)
    assert round(millions(model) + 1281 * 1000 / 1e6, 1) == expected


@pytest.mark.parametrize(('kwargs', 'expected'), [(STATIC, 11.1), (dict(), 14.0)])
def test_ablations_of_resnet(kwargs, expected):
    """Table 1b counts without the classifier, and cuts digits off; its other rows are in docs/paper_tables.md."""
    assert int(millions(on_meta(DCDResNet, depth=18, **kwargs)) * 10) / 10 == expected


# Names.


def our_name(name: str) -> str:
    """The released MobileNetV2's names in mmpretrain's, which ours has."""
    starts = (1, 2, 4, 7, 11, 14, 17, 18)  # first blocks of the stages
    if match := re.fullmatch(r'features\.0\.(\d)\.(.*)', name):
        return f'conv1.{("conv", "bn")[int(match[1])]}.{match[2]}'
    if match := re.fullmatch(r'conv\.(\d)\.(.*)', name):
        return f'conv2.{("conv", "bn")[int(match[1])]}.{match[2]}'
    if match := re.fullmatch(r'features\.(\d+)\.conv\.(\d)\.(.*)', name):
        block, index = int(match[1]), int(match[2])
        stage = max(i for i, start in enumerate(starts, 1) if start <= block)
        return f'layer{stage}.{block - starts[stage - 1]}.conv.{index // 3}.{("conv", "bn")[index % 3]}.{match[3]}'
    return name


@pytest.mark.parametrize(('release', 'network', 'kwargs'), [
    ('dcd_resnet18', DCDResNet, dict(depth=18)), ('dcd_resnet50', DCDResNet, dict(depth=50)),
    ('dcd_mobilenetv2_100', DCDMobileNetV2, dict())])
def test_names_and_shapes_of_the_released_models(release, network, kwargs, released_shapes):
    pytest.importorskip('mmpretrain')
    released = {our_name(name): shape for name, shape in released_shapes(release).items()}
    model = on_meta(network, **kwargs)
    head = on_meta(heads.DCDLinearClsHead, num_classes=1000, in_channels=model.feat_dim)
    ours = {**model.state_dict(), **{f'classifier.0.{name}': value for name, value in head.state_dict().items()}}
    assert {name: list(value.shape) for name, value in ours.items()} == released


# Which convolutions are dynamic, and how.


@pytest.mark.parametrize(('network', 'kwargs', 'dynamic', 'static'), [
    (DCDResNet, dict(depth=18), 16, {'conv1', *(f'layer{i}.0.downsample.0' for i in (2, 3, 4))}),
    (DCDResNet, dict(depth=50), 48, {'conv1', *(f'layer{i}.0.downsample.0' for i in (1, 2, 3, 4))}),
    (DCDMobileNetV2, dict(), 32, {'conv1.conv', 'conv2.conv', 'layer1.0.conv.0.conv', 'layer1.0.conv.1.conv'}),
    (DCDResNet, dict(depth=18, dynamic_shortcuts=True), 19, {'conv1'}),
    (DCDResNet, dict(depth=50, dynamic_shortcuts=True), 52, {'conv1'}),
    (DCDResNet, dict(depth=50, dynamic_shortcuts=True, variant='paper'), 52, {'conv1'}),
    (DCDMobileNetV2, dict(dynamic_layers=('all_pointwise', )), 34, {'conv1.conv', 'layer1.0.conv.0.conv'}),
    (DCDMobileNetV2, dict(dynamic_layers=('all_pointwise', 'depthwise'), variant='paper'), 51, {'conv1.conv'}),
    (DCDMobileNetV2, dict(dynamic_layers=('depthwise', 'pointwise')), 49,
     {'conv1.conv', 'conv2.conv', 'layer1.0.conv.1.conv'}),
])
def test_dynamic_convolutions(network, kwargs, dynamic, static):
    modules = dict(on_meta(network, **kwargs).named_modules())
    assert sum(isinstance(module, DCDConv2d) for module in modules.values()) == dynamic
    own = {name for name, module in modules.items() if isinstance(module, nn.Conv2d)}
    assert {name for name in own if not re.fullmatch(r'layer[2-7]\.\d\.conv\.1\.conv', name)} == static


def layers(model: nn.Module) -> list[DCDConv2d]:
    return [module for module in model.modules() if isinstance(module, DCDConv2d)]


@pytest.mark.parametrize(('network', 'variant', 'squeeze_ratio'), [
    (SMALL_R18, 'basic', 16), (SMALL_R50, 'bottleneck', 16), (SMALL_MOBILENET, 'mobilenet', 8),
    (partial(DCDMobileNetV2, widen_factor=0.5), 'mobilenet', 8),
    (partial(DCDMobileNetV2, widen_factor=0.75), 'mobilenet', 16)])
def test_released_sizes(network, variant, squeeze_ratio):
    for own, expected in (({}, (variant, squeeze_ratio)), (dict(variant='paper', squeeze_ratio=4), ('paper', 4))):
        assert {(layer.variant, layer.squeeze_ratio) for layer in layers(on_meta(network, **own))} == {expected}


def test_arguments_reach_every_layer():
    for network in (SMALL_R18, SMALL_MOBILENET):
        for layer in layers(network(blocks=2, latent_multiplier=.5, channel_attention=False)):
            assert (layer.blocks, layer.latent_multiplier, layer.fc_scale) == (2, .5, None)
    assert {layer.fusion for layer in layers(SMALL_R18(variant='paper', fusion=None))} == {None}


def test_depthwise_layers_are_of_the_paper():
    found = layers(SMALL_MOBILENET(dynamic_layers=['depthwise'], variant='mobilenet', blocks=2))
    assert len(found) == 17
    assert {(layer.variant, layer.fusion, layer.blocks, layer.squeeze_ratio) for layer in found} == {
        ('paper', 'kernel', 1, 8)}


@pytest.mark.parametrize(('network', 'name', 'value'), [
    *((network, name, value) for network in (SMALL_R18, SMALL_MOBILENET) for name, value in (
        ('variant', 'resnet'), ('squeeze_ratio', 0), ('channel_attention', None), ('fusion', 'all'),
        ('latent_multiplier', 0.), ('blocks', 3), ('residual_norm_cfg', dict(type='LN')), ('out_indices', (9, )))),
    (SMALL_R18, 'fusion', 'joint'), (SMALL_R18, 'dynamic_shortcuts', 1),
    *((SMALL_MOBILENET, 'dynamic_layers', value) for value in ('pointwise', ('stem', ), None))])
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name.replace('residual_', '')):
        network(**{name: value})


@pytest.mark.parametrize(('norm_cfg', 'residual_norm_cfg', 'kind', 'eps'), [
    (dict(type='BN', eps=1e-3), None, nn.BatchNorm2d, 1e-3),
    (dict(type='SyncBN', eps=1e-3), None, nn.SyncBatchNorm, 1e-3),
    (dict(type='GN', num_groups=4), None, nn.BatchNorm2d, 1e-5),
    (dict(type='BN'), dict(type='GN', num_groups=1), nn.GroupNorm, 1e-5),
])
@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_residual_norm(network, norm_cfg, residual_norm_cfg, kind, eps):
    norms = [norm for layer in layers(network(norm_cfg=norm_cfg, residual_norm_cfg=residual_norm_cfg))
             for norm in (layer.bn1, layer.bn2)]
    assert norms and all(isinstance(norm, kind) and norm.eps == eps for norm in norms)


# In mmpretrain and mmdet.

BACKBONES = {
    'resnet18': dict(type='DCDResNet', depth=18, stem_channels=8, base_channels=8),
    'resnet50': dict(type='DCDResNet', depth=50, stem_channels=8, base_channels=8),
    'mobilenet': dict(type='DCDMobileNetV2', widen_factor=0.25),
    'paper': dict(type='DCDMobileNetV2', widen_factor=0.25, variant='paper',
                  dynamic_layers=('all_pointwise', 'depthwise')),
    'shortcuts': dict(type='DCDResNet', depth=18, stem_channels=8, base_channels=8, dynamic_shortcuts=True),
}


@pytest.mark.parametrize('backbone', BACKBONES)
def test_classifier_trains_every_parameter(backbone):
    registry = pytest.importorskip('mmpretrain.registry').MODELS
    structures = pytest.importorskip('mmpretrain.structures')
    torch.manual_seed(0)
    channels = dict(resnet18=64, resnet50=256, shortcuts=64).get(backbone, 1280)
    model = registry.build(dict(
        type='ImageClassifier', backbone=BACKBONES[backbone], neck=dict(type='GlobalAveragePooling'),
        head=dict(type='DCDLinearClsHead', dropout=0.1, num_classes=5, in_channels=channels,
                  loss=dict(type='CrossEntropyLoss'))))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.  # one step gives the statistics, without which features grow, and Φ(x) with them
    image = torch.randn(4, 3, 64, 64)
    samples = [structures.DataSample().set_gt_label(label) for label in range(4)]
    model.train()(image, samples, mode='loss')['loss'].backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]
    scores = torch.stack([sample.pred_score for sample in model.eval()(image, mode='predict')])
    torch.testing.assert_close(scores.sum(1), torch.ones(4))


@pytest.mark.parametrize(('backbone', 'out_indices', 'channels'), [
    ('resnet18', (0, 1, 2, 3), [8, 16, 32, 64]),
    ('mobilenet', (1, 2, 4, 7), [8, 8, 24, 1280]),
])
def test_detector_neck(backbone, out_indices, channels):
    pytest.importorskip('mmdet.models')
    registry = pytest.importorskip('mmdet.registry').MODELS
    model = MODELS.build(dict(BACKBONES[backbone], out_indices=out_indices, norm_eval=True, frozen_stages=1))
    neck = registry.build(dict(type='FPN', in_channels=channels, out_channels=16, num_outs=5))
    maps = neck(model(torch.randn(2, 3, 64, 64)))
    strides = (4, 8, 16, 32, 64)
    assert [tuple(x.shape) for x in maps] == [(2, 16, 64 // stride, 64 // stride) for stride in strides]

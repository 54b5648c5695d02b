"""DyConv's networks have the parameters that ODConv's tables report, and replace every convolution but the first."""
from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from dynconv_mm.layers import DyConv2d
from dynconv_mm.models import DyConvMobileNetV2, DyConvResNet

SMALL_R18 = partial(DyConvResNet, depth=18, kernel_num=2, stem_channels=8, base_channels=8)
SMALL_MOBILENET = partial(DyConvMobileNetV2, widen_factor=0.25, kernel_num=2)


def on_meta(network, **kwargs) -> nn.Module:
    with torch.device('meta'):
        return network(**kwargs)


@pytest.mark.parametrize(('network', 'kwargs', 'millions'), [
    (DyConvResNet, dict(depth=18), 45.47),  # ODConv, Table 2
    (DyConvResNet, dict(depth=50), 100.88),
    (DyConvMobileNetV2, dict(widen_factor=1.), 12.40),  # ODConv, Table 1
    (DyConvMobileNetV2, dict(widen_factor=0.75), 7.95),
    (DyConvMobileNetV2, dict(widen_factor=0.5), 4.57),
])
def test_parameters(network, kwargs, millions):
    model = on_meta(network, **kwargs)
    classifier = 1000 * model.feat_dim + 1000
    assert round((sum(parameter.numel() for parameter in model.parameters()) + classifier) / 1e6, 2) == millions


@pytest.mark.parametrize(('network', 'kwargs', 'dynamic', 'static'), [
    (DyConvResNet, dict(depth=18), 16 + 3, {'conv1'}),
    (DyConvResNet, dict(depth=50), 48 + 4, {'conv1'}),
    (DyConvResNet, dict(depth=18, deep_stem=True, avg_down=True), 16 + 3, {f'stem.{i}.conv' for i in range(3)}),
    (DyConvMobileNetV2, dict(), 51, {'conv1.conv'}),
])
def test_all_but_the_stem_are_dynamic(network, kwargs, dynamic, static):
    modules = dict(on_meta(network, **kwargs).named_modules())
    assert sum(isinstance(module, DyConv2d) for module in modules.values()) == dynamic
    assert {name for name, module in modules.items() if isinstance(module, nn.Conv2d)} == static


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_arguments_reach_every_layer(network):
    kwargs = dict(kernel_num=3, temperature=7., plan='grouped')
    for layer in network(**kwargs, reduction=1.).modules():
        if isinstance(layer, DyConv2d):
            assert {name: getattr(layer, name) for name in kwargs} == kwargs
            assert len(layer.attention.fc1.weight) == layer.in_channels


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_without_attention(network):
    """ODConv, 3.1."""
    model = network(attention=False)
    assert sum(isinstance(module, DyConv2d) for module in model.modules()) > 15
    assert not [name for name in model.state_dict() if 'attention' in name]
    assert model(torch.randn(2, 3, 32, 32))[-1].isfinite().all()


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
@pytest.mark.parametrize(('name', 'value'), [
    ('kernel_num', 0), ('reduction', 2), ('temperature', 0.), ('plan', 'quick'), ('out_indices', (9, )),
    ('attention', None),
])
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name):
        network(**{name: value})


@pytest.mark.parametrize(('kind', 'kwargs', 'channels'), [
    ('DyConvResNet', dict(depth=18, stem_channels=8, base_channels=8), 64),
    ('DyConvMobileNetV2', dict(widen_factor=0.25), 1280),
])
def test_classifier_trains_every_parameter(kind, kwargs, channels):
    registry = pytest.importorskip('mmpretrain.registry').MODELS
    structures = pytest.importorskip('mmpretrain.structures')
    torch.manual_seed(0)
    # reduction=1, since a hidden width of 2 may be dead in a batch
    model = registry.build(dict(
        type='ImageClassifier', backbone=dict(type=kind, reduction=1, **kwargs), neck=dict(type='GlobalAveragePooling'),
        head=dict(type='DropoutLinearClsHead', dropout=0.1, num_classes=5, in_channels=channels,
                  loss=dict(type='CrossEntropyLoss'))))
    samples = [structures.DataSample().set_gt_label(label) for label in range(4)]
    model.train()(torch.randn(4, 3, 64, 64), samples, mode='loss')['loss'].backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()]


def test_registered():
    assert MODELS.get('DyConvResNet') is DyConvResNet and MODELS.get('DyConvMobileNetV2') is DyConvMobileNetV2

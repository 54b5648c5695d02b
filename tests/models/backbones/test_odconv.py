"""ODConv's networks have the paper's parameters, the released models' names, and work in mmpretrain and mmdet."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from dynconv_mm.layers import ODConv2d
from dynconv_mm.models import ODConvMobileNetV2, ODConvResNet
from dynconv_mm.models.backbones import MobileNetV2

SMALL_R18 = partial(ODConvResNet, depth=18, kernel_num=2, stem_channels=8, base_channels=8)
SMALL_MOBILENET = partial(ODConvMobileNetV2, widen_factor=0.25, kernel_num=2)


def on_meta(network, **kwargs) -> nn.Module:
    with torch.device('meta'):
        return network(**kwargs)


# Parameters, in millions, as the paper prints them (tables of ODConv, ICLR 2022).

RESNET, MOBILENET = ODConvResNet, ODConvMobileNetV2
QUARTER = dict(depth=18, kernel_num=1, reduction=1 / 4)


@pytest.mark.parametrize(('network', 'kwargs', 'millions'), [
    *((RESNET, dict(depth=18, kernel_num=n), millions)
      for n, millions in ((1, 11.94), (2, 22.93), (3, 33.92), (4, 44.90), (8, 88.84))),  # Tables 2 and 6
    (RESNET, dict(depth=18, kernel_num=1, reduction=1 / 8), 12.15),  # Table 5
    (RESNET, QUARTER, 12.58),
    (RESNET, dict(QUARTER, kernel_num=4), 45.54),
    *((RESNET, dict(QUARTER, attentions=attentions), millions)  # Table 7
      for attentions, millions in ((['spatial'], 11.98), (['channel'], 12.26), (['filter'], 12.28),
                                   (['spatial', 'channel'], 12.27))),
    (RESNET, dict(depth=18, kernel_num=4, share_attention=False), 45.43),  # Table 12
    (RESNET, dict(QUARTER, spatial_pool_size=3), 14.85),  # Table 16
    (RESNET, dict(depth=50, kernel_num=1), 28.64),  # Table 2
    (RESNET, dict(depth=50, kernel_num=4), 90.67),
    (RESNET, dict(depth=101, kernel_num=1), 50.82),
    (RESNET, dict(depth=101, kernel_num=2), 90.44),
    *((MOBILENET, dict(widen_factor=width, kernel_num=n), millions) for width, n, millions in (
        (1.0, 1, 4.94), (1.0, 4, 11.51),  # Table 1, which prints 11.52 for 11.512
        (0.75, 1, 3.51), (0.75, 4, 7.50), (0.5, 1, 2.43), (0.5, 4, 4.44))),
])
def test_parameters(network, kwargs, millions):
    model = on_meta(network, **kwargs)
    classifier = 1000 * model.feat_dim + 1000
    assert round((sum(parameter.numel() for parameter in model.parameters()) + classifier) / 1e6, 2) == millions


STATIC_AND_PLACED = {  # Table 9, MobileNetV2 (0.5x), n = 1
    None: 2.00, 'all': 2.43, '1x1': 2.26, '3x3': 2.17, 'last_6_blocks': 2.31,
}


def half_mobilenet(placement: str | None) -> float:
    model = on_meta(MobileNetV2 if placement is None else ODConvMobileNetV2, widen_factor=0.5,
                    **({} if placement is None else dict(kernel_num=1, placement=placement)))
    return (sum(parameter.numel() for parameter in model.parameters()) + 1281000) / 1e6


@pytest.mark.parametrize('placement', ['all', '1x1'])
def test_parameters_of_placements(placement):
    assert round(half_mobilenet(placement), 2) == STATIC_AND_PLACED[placement]


@pytest.mark.parametrize('placement', ['3x3', 'last_6_blocks'])
def test_parameters_that_placements_add(placement):
    """With a static last convolution the paper prints 0.03M more than there are, as of the static network."""
    added = half_mobilenet(placement) - half_mobilenet(None)
    assert round(added, 2) == round(STATIC_AND_PLACED[placement] - STATIC_AND_PLACED[None], 2)


# Names.


@pytest.mark.parametrize(('release', 'depth', 'kernel_num'), [('odconv1x_resnet18', 18, 1),
                                                              ('odconv4x_resnet50', 50, 4)])
def test_names_and_shapes_of_the_released_models(release, depth, kernel_num, released_shapes):
    released = released_shapes(release)
    assert released.pop('fc.weight') and released.pop('fc.bias')
    ours = {name: list(tensor.shape) for name, tensor in
            on_meta(ODConvResNet, depth=depth, kernel_num=kernel_num).state_dict().items()
            if not name.endswith('.temperature')}
    assert ours == released


NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def names_of_layer(heads: tuple[str, ...]) -> list[str]:
    return ['weight', 'temperature', 'attention.fc.weight', *(f'attention.bn.{name}' for name in NORM),
            *(f'attention.{head}_fc.{name}' for head in heads for name in ('weight', 'bias'))]


@pytest.mark.parametrize(('depth', 'kernel_num', 'heads'), [
    (18, 1, (('channel', 'filter', 'spatial'), ) * 2),
    (18, 4, (('channel', 'filter', 'spatial', 'kernel'), ) * 2),
    (50, 1, (('channel', 'filter'), ('channel', 'filter', 'spatial'), ('channel', 'filter'))),
    (50, 4, (('channel', 'filter', 'kernel'), ('channel', 'filter', 'spatial', 'kernel'),
             ('channel', 'filter', 'kernel'))),
])
def test_names_of_the_first_block(depth, kernel_num, heads):
    expected = set()
    for number, layer_heads in enumerate(heads, 1):
        expected |= {f'conv{number}.{name}' for name in names_of_layer(layer_heads)}
        expected |= {f'bn{number}.{name}' for name in NORM}
    if depth == 50:
        expected |= {'downsample.0.weight', *(f'downsample.1.{name}' for name in NORM)}
    assert set(on_meta(ODConvResNet, depth=depth, kernel_num=kernel_num).layer1[0].state_dict()) == expected


# Which convolutions are dynamic.


@pytest.mark.parametrize(('network', 'kwargs', 'dynamic', 'static'), [
    (RESNET, dict(depth=18), 16, {'conv1', *(f'layer{i}.0.downsample.0' for i in (2, 3, 4))}),
    (RESNET, dict(depth=50), 48, {'conv1', *(f'layer{i}.0.downsample.0' for i in (1, 2, 3, 4))}),
    (RESNET, dict(depth=18, deep_stem=True, avg_down=True), 16,
     {*(f'stem.{i}.conv' for i in range(3)), *(f'layer{i}.0.downsample.1' for i in (2, 3, 4))}),
    (MOBILENET, dict(), 51, {'conv1.conv'}),
])
def test_all_but_stem_and_shortcuts_are_dynamic(network, kwargs, dynamic, static):
    modules = dict(on_meta(network, **kwargs).named_modules())
    assert sum(isinstance(module, ODConv2d) for module in modules.values()) == dynamic
    assert {name for name, module in modules.items() if isinstance(module, nn.Conv2d)} == static


@pytest.mark.parametrize(('network', 'kwargs', 'added'), [
    (RESNET, dict(depth=18, dynamic_stem=True), {'conv1'}),
    (RESNET, dict(depth=18, deep_stem=True, dynamic_stem=True), {f'stem.{i}.conv' for i in range(3)}),
    (RESNET, dict(depth=18, dynamic_shortcuts=True), {f'layer{i}.0.downsample.0' for i in (2, 3, 4)}),
    (RESNET, dict(depth=50, placement='3x3', dynamic_stem=True, dynamic_shortcuts=True),
     {'conv1', *(f'layer{i}.0.downsample.0' for i in (1, 2, 3, 4))}),
    (MOBILENET, dict(dynamic_stem=True), {'conv1.conv'}),
    (MOBILENET, dict(placement='1x1', dynamic_stem=True), {'conv1.conv'}),
])
def test_dynamic_stem_and_shortcuts(network, kwargs, added):
    """Beside what is dynamic without them, whatever the placement is."""
    def dynamic(**kwargs) -> set[str]:
        return {name for name, module in on_meta(network, **kwargs).named_modules() if isinstance(module, ODConv2d)}

    without = {name: value for name, value in kwargs.items() if not name.startswith('dynamic_')}
    assert dynamic(**kwargs) - dynamic(**without) == added and dynamic(**without) < dynamic(**kwargs)


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_a_dynamic_stem_sees_the_image(network):
    """Its attentions are of the image's own channels, and learn."""
    model = network(dynamic_stem=True, dynamic_shortcuts=True, kernel_num=2).train()
    stem = model.conv1 if isinstance(model, ODConvResNet) else model.conv1.conv
    image = torch.rand(2, 3, 32, 32)
    assert stem.compute_attentions(image)['channel'].shape == (2, 3)
    model(image)[-1].square().sum().backward()
    assert all(parameter.grad is not None for parameter in stem.parameters())


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
@pytest.mark.parametrize('name', ['dynamic_stem', 'dynamic_shortcuts'])
def test_bad_switches(network, name):
    with pytest.raises(ValueError, match=f'{name} must be True or False, but is 1'):
        network(**{name: 1})


@pytest.mark.parametrize(('network', 'kwargs', 'dynamic'), [
    (RESNET, dict(depth=50, placement='1x1'), [f'layer{i}.{j}.conv{k}' for i, n in enumerate((3, 4, 6, 3), 1)
                                               for j in range(n) for k in (1, 3)]),
    (RESNET, dict(depth=50, placement='3x3'), [f'layer{i}.{j}.conv2' for i, n in enumerate((3, 4, 6, 3), 1)
                                               for j in range(n)]),
    (RESNET, dict(depth=18, placement='last_3_blocks'), [f'layer{i}.{j}.conv{k}' for i, j in ((3, 1), (4, 0), (4, 1))
                                                         for k in (1, 2)]),
    (MOBILENET, dict(placement='last_1_blocks'), [f'layer7.0.conv.{i}.conv' for i in range(3)]),
    (MOBILENET, dict(placement='1x1'), None),
])
def test_placement(network, kwargs, dynamic):
    layers = [(name, module) for name, module in on_meta(network, **kwargs).named_modules()
              if isinstance(module, ODConv2d)]
    if dynamic is None:  # 2 in each of the 16 blocks that expand, 1 in the first, and the last one
        assert len(layers) == 34 and all(layer.kernel_size == (1, 1) for _, layer in layers)
    else:
        assert [name for name, _ in layers] == dynamic


@pytest.mark.parametrize(('placement', 'words'), [
    ('5x5', 'no such convolution'), ('last_18_blocks', 'at most 17 blocks'), ('last_0_blocks', "must be 'all'"),
    ('3', "must be 'all'"), (3, "must be 'all'"), (None, "must be 'all'"),
])
def test_bad_placement(placement, words):
    with pytest.raises(ValueError, match=f'placement .*{words}'):
        on_meta(MOBILENET, placement=placement)


def test_arguments_reach_every_layer():
    kwargs = dict(kernel_num=3, spatial_activation='softmax', share_attention=False, temperature=7., plan='grouped')
    for layer in SMALL_R18(**kwargs).modules():
        if isinstance(layer, ODConv2d):
            assert {name: getattr(layer, name) for name in kwargs} == kwargs


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
@pytest.mark.parametrize(('name', 'value'), [
    ('kernel_num', 0), ('reduction', 2), ('min_channels', 0), ('attentions', ('width', )), ('temperature', 0.),
    ('spatial_activation', 'tanh'), ('spatial_pool_size', 0), ('plan', 'quick'), ('out_indices', (9, )),
])
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name):
        network(**{name: value})


# The norm of the attentions.

GN = dict(type='GN', num_groups=4)


@pytest.mark.parametrize(('norm_cfg', 'attention_norm_cfg', 'kind', 'eps'), [
    (dict(type='BN', eps=1e-3), None, nn.BatchNorm1d, 1e-3),
    (dict(type='SyncBN', eps=1e-3), None, nn.SyncBatchNorm, 1e-3),
    (GN, None, nn.BatchNorm1d, 1e-5),
    (GN, GN, nn.GroupNorm, 1e-5),
    (dict(type='BN'), dict(type='LN', eps=1e-4), nn.LayerNorm, 1e-4),
])
@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_attention_norm(network, norm_cfg, attention_norm_cfg, kind, eps):
    norms = [module.bn for name, module in network(norm_cfg=norm_cfg, attention_norm_cfg=attention_norm_cfg).
             named_modules() if name.endswith('.attention')]
    assert norms and all(isinstance(norm, kind) and norm.eps == eps for norm in norms)


def test_attention_norm_without_gradient():
    model = SMALL_R18(norm_cfg=dict(type='BN', requires_grad=False))
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if '.bn' in name)


# In mmpretrain and mmdet.

BACKBONES = {
    'resnet': dict(type='ODConvResNet', depth=18, kernel_num=2, stem_channels=8, base_channels=8),
    'mobilenet': dict(type='ODConvMobileNetV2', widen_factor=0.25, kernel_num=2),
}


@pytest.mark.parametrize('backbone', BACKBONES)
def test_classifier_trains_every_parameter(backbone):
    registry = pytest.importorskip('mmpretrain.registry').MODELS
    structures = pytest.importorskip('mmpretrain.structures')
    torch.manual_seed(0)
    channels = {'resnet': 64, 'mobilenet': 1280}[backbone]
    model = registry.build(dict(
        type='ImageClassifier', backbone=BACKBONES[backbone], neck=dict(type='GlobalAveragePooling'),
        head=dict(type='DropoutLinearClsHead', dropout=0.1, num_classes=5, in_channels=channels,
                  loss=dict(type='CrossEntropyLoss'))))
    image = torch.randn(4, 3, 64, 64)
    samples = [structures.DataSample().set_gt_label(label) for label in range(4)]
    model.train()(image, samples, mode='loss')['loss'].backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()]
    scores = torch.stack([sample.pred_score for sample in model.eval()(image, mode='predict')])
    torch.testing.assert_close(scores.sum(1), torch.ones(4))


@pytest.mark.parametrize(('backbone', 'out_indices', 'channels'), [
    ('resnet', (0, 1, 2, 3), [8, 16, 32, 64]),
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

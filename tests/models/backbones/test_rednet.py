"""RedNet and DCDC-ResNet have the papers' parameters, RedNet the released models' names; they work in OpenMMLab."""
from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from dynconv_mm.layers import DCDC2d, Involution2d
from dynconv_mm.models import DCDCResNet, RedNet

SMALL = dict(depth=26, stem_channels=16, base_channels=8, group_channels=8)
NETWORKS = [partial(RedNet, **SMALL), partial(DCDCResNet, **SMALL)]
IDS = ['rednet', 'dcdc']


def on_meta(network, **kwargs) -> nn.Module:
    with torch.device('meta'):
        return network(**kwargs)


# Parameters, in millions and as they are printed (Involution; DCDC, Tables I, III and IV).


@pytest.mark.parametrize(('network', 'kwargs', 'printed'), [
    *((RedNet, dict(depth=depth), printed) for depth, printed in (
        (26, '9.23'), (38, '12.39'), (50, '15.54'), (101, '25.65'), (152, '33.98'))),
    *((DCDCResNet, dict(depth=depth), printed) for depth, printed in (
        (26, '9.36'), (38, '12.58'), (50, '15.8'), (101, '26.19'))),
    *((DCDCResNet, dict(depth=26, **kwargs), printed) for kwargs, printed in (
        (dict(gsi='none'), '9.26'), (dict(gsi='conv_small'), '9.34'), (dict(gsi='conv_large'), '14.32'),
        (dict(lsa_dw_kernel_size=5), '9.39'), (dict(lsa_dw_kernel_size=7), '9.45'),
        (dict(gsi_kernel_size=3), '9.61'), (dict(gsi_kernel_size=5), '10.12'),
        (dict(gsi_ratio=1.5), '9.46'), (dict(gsi_ratio=2.), '9.64'),
        (dict(lsa_dw_kernel_size=7, gsi_ratio=2.), '9.74'), (dict(gsi_kernel_size=7, gsi_ratio=2.), '21.88'))),
])
def test_parameters(network, kwargs, printed):
    model = on_meta(network, **kwargs)
    count = sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000
    assert f'{count / 1e6:.{len(printed.partition(".")[2])}f}' == printed


# Names.


@pytest.mark.parametrize('depth', [26, 50])
def test_names_and_shapes_of_the_released_models(depth, released_shapes):
    ours = {name: list(tensor.shape) for name, tensor in on_meta(RedNet, depth=depth).state_dict().items()}
    assert ours == released_shapes(f'rednet{depth}')


# Which convolutions are dynamic.


@pytest.mark.parametrize(('network', 'layer', 'blocks'), [(RedNet, Involution2d, 8), (DCDCResNet, DCDC2d, 8)])
def test_the_middle_of_each_block(network, layer, blocks):
    model = on_meta(network, depth=26)
    middles = [module.conv2 for stage in model.stages for module in getattr(model, stage)]
    assert len(middles) == blocks and all(type(middle) is layer for middle in middles)
    lsas = middles if network is RedNet else [middle.lsa for middle in middles]
    assert {middle.kernel_size for middle in lsas} == {(7, 7)}
    assert [middle.stride for middle in middles] == [(1, 1), (2, 2), (1, 1), (2, 2), (1, 1), (1, 1), (1, 1), (2, 2)]
    assert type(model.stem[1]) is Involution2d and model.stem[1].kernel_size == (3, 3)


def test_arguments_reach_every_layer():
    involutions = [module for module in NETWORKS[0](kernel_size=5, reduction=1 / 2).modules()
                   if isinstance(module, Involution2d)]
    assert {module.kernel_size for module in involutions} == {(3, 3), (5, 5)}
    assert {(module.group_channels, module.reduction) for module in involutions} == {(8, 1 / 2)}
    layers = [module for module in NETWORKS[1](lsa_kernel_size=5, lsa_dw_kernel_size=5, lsa_depth=1, gsi_ratio=2.,
                                               gsi_kernel_size=3).modules()
              if isinstance(module, DCDC2d)]
    assert {(module.lsa.kernel_size, module.lsa.dw_kernel_size, module.lsa.depth, module.gsi.kernel_size)
            for module in layers} == {((5, 5), 5, 1, 3)}


@pytest.mark.parametrize(('network', 'name', 'value'), [
    (NETWORKS[0], 'kernel_size', 4), (NETWORKS[0], 'group_channels', 16), (NETWORKS[0], 'reduction', 2),
    (NETWORKS[0], 'depth', 18), (NETWORKS[1], 'depth', 18), (NETWORKS[1], 'gsi', 'static'),
    (NETWORKS[1], 'lsa_kernel_size', 2), (NETWORKS[1], 'gsi_ratio', 0),
    (NETWORKS[1], 'out_indices', (9, )),
], ids=lambda value: str(value) if isinstance(value, (str, int)) else '')
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name):
        network(**{name: value})


@pytest.mark.parametrize('network', NETWORKS, ids=IDS)
def test_maps_and_gradients(network):
    """At odd sizes, and with every parameter learning."""
    torch.manual_seed(0)
    model = network(out_indices=(0, 1, 2, 3)).train()
    maps = model(torch.randn(2, 3, 75, 97))
    assert [tuple(x.shape[1:]) for x in maps] == [(32, 19, 25), (64, 10, 13), (128, 5, 7), (256, 3, 4)]
    model.init_weights()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # zero_init_residual would hide the layers behind zeros
    sum(x.square().sum() for x in model(torch.randn(2, 3, 75, 97))).backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]


@pytest.mark.parametrize('network', NETWORKS, ids=IDS)
def test_frozen_stages_and_norm_eval(network):
    model = network(frozen_stages=1, norm_eval=True).train()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(('stem.', 'layer1.'))}
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize('network', NETWORKS, ids=IDS)
@pytest.mark.parametrize('options', [dict(with_cp=True), dict(style='caffe'), dict(avg_down=True),
                                     dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))], ids=str)
def test_options_of_resnet(network, options):
    model = network(**options).train()
    y, = model(torch.randn(2, 3, 64, 64))
    assert y.shape == (2, 256, *(2 * [8 if 'strides' in options else 2]))
    y.sum().backward()


@pytest.mark.parametrize('kind', ['RedNet', 'DCDCResNet'])
def test_detector_neck(kind):
    registry = pytest.importorskip('mmdet.registry').MODELS
    pytest.importorskip('mmdet.models')
    model = MODELS.build(dict(SMALL, type=kind, out_indices=(0, 1, 2, 3), frozen_stages=1, norm_eval=True))
    neck = registry.build(dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=16, num_outs=5))
    maps = neck(model(torch.randn(2, 3, 64, 64)))
    assert [tuple(x.shape) for x in maps] == [(2, 16, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32, 64)]

"""A layer that took over a static one's weights computes what that does, and learns from there."""
from __future__ import annotations

import pytest
import torch
from mmcv.cnn import build_conv_layer
from torch import Tensor, nn

from dynconv_mm import (
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DyConv2d,
    FDConv2d,
    Involution2d,
    ODConv2d,
    WEConv2d,
    WeightNetConv2d,
)
from dynconv_mm.conversion import init_from_static
from dynconv_mm.layers.condconv import CondConvLinear, CondConvRouting
from dynconv_mm.layers.static_conv import StaticConv2d
from dynconv_mm.layers.temperature import TemperatureMixin
from dynconv_mm.models import heads

KINDS = {
    'odconv1x': (ODConv2d, dict(kernel_num=1)),
    'odconv3x': (ODConv2d, dict(kernel_num=3)),
    'odconv-softmax': (ODConv2d, dict(spatial_activation='softmax')),
    'odconv-unshared': (ODConv2d, dict(kernel_num=3, share_attention=False, spatial_activation='softmax')),
    'odconv-no-kernel-attention': (ODConv2d, dict(kernel_num=3, attentions=('channel', 'spatial'))),
    'odconv-filter': (ODConv2d, dict(kernel_num=2, attentions=('filter', ), norm_cfg=None)),
    'odconv-no-attention': (ODConv2d, dict(kernel_num=3, attentions=())),
    'odconv-pooled': (ODConv2d, dict(spatial_pool_size=3, norm_cfg=dict(type='LN'))),
    'dyconv': (DyConv2d, dict(kernel_num=3)),
    'condconv': (CondConv2d, dict(kernel_num=5)),
    'dcd-bottleneck': (DCDConv2d, dict(variant='bottleneck', squeeze_ratio=2)),
    'dcd-basic': (DCDConv2d, dict(variant='basic')),
    'dcd-mobilenet': (DCDConv2d, dict(variant='mobilenet')),
    'dcd-paper': (DCDConv2d, dict(variant='paper')),
    'dcd-joint': (DCDConv2d, dict(variant='paper', fusion='joint')),
    'dcd-blocks': (DCDConv2d, dict(variant='basic', blocks=2, channel_attention=False)),
    'dcd-scale': (DCDConv2d, dict(fusion=None)),
    'cgc': (CGConv2d, dict(group_channels=3)),
    'weightnet': (WeightNetConv2d, dict()),
    'weightnet-sum': (WeightNetConv2d, dict(multiplier=6)),
    'we': (WEConv2d, dict(reduction=1 / 2)),
    'we-location': (WEConv2d, dict(magnitude=False)),
    'we-magnitude': (WEConv2d, dict(location=False)),
    'fdconv': (FDConv2d, dict(kernel_num=3, static_channels=3)),
    'static': (StaticConv2d, {}),
    'conv2d': (nn.Conv2d, {}),
}
SMALL = dict(in_channels=6, out_channels=4, kernel_size=3)
GEOMETRIES = [
    dict(),
    dict(stride=(2, 3), padding=(2, 1), dilation=(1, 2), bias=False),
    dict(groups=2, padding=1),
    dict(out_channels=6, groups=6, padding=1, stride=2),
    dict(kernel_size=1, bias=False),
    dict(kernel_size=(1, 5), padding=(0, 2), padding_mode='reflect'),
    dict(padding='same', kernel_size=5),
]
CASES = [(name, geometry) for name in KINDS for geometry in GEOMETRIES
         if not (name == 'dcd-joint' and geometry.get('kernel_size') == 1)
         and not (name == 'fdconv' and 'groups' in geometry)]  # which has no kernel elements to join


def make_pair(kind: type[nn.Module], options: dict, **geometry) -> tuple[nn.Module, nn.Module, Tensor]:
    """A static layer, a dynamic one whose every parameter and statistic is random, and an input, in float64."""
    torch.manual_seed(0)
    arguments = {**SMALL, **geometry}
    static, dynamic = nn.Conv2d(**arguments).double(), kind(**arguments, **options).double()
    for value in (*static.parameters(), *dynamic.parameters()):
        nn.init.normal_(value)
    for name, value in dynamic.named_buffers():
        if 'running' in name:
            nn.init.uniform_(value, .5, 2)
    return static, dynamic, torch.randn(5, 6, 9, 11, dtype=torch.float64)


@pytest.mark.parametrize(('name', 'geometry'), CASES, ids=str)
def test_the_same_function(name, geometry):
    static, dynamic, x = make_pair(*KINDS[name], **geometry)
    assert (dynamic(x) - static(x)).abs().max() > 1e-3
    init_from_static(static, dynamic, noise=.1)
    for temperature in (1., 30., .1):
        if isinstance(dynamic, TemperatureMixin):
            dynamic.set_temperature(temperature)
        for mode in (True, False):
            torch.testing.assert_close(dynamic.train(mode)(x), static(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', [name for name in KINDS if 'static' not in name and 'conv2d' not in name
                                  and 'no-attention' not in name])
def test_every_parameter_learns(name):
    """After a few steps towards another function, all have moved, and the output differs with the input."""
    static, dynamic, x = make_pair(*KINDS[name], padding=1)
    for norm in dynamic.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(norm.weight)
    init_from_static(static, dynamic, noise=.1)
    before = {key: value.clone() for key, value in dynamic.named_parameters()}
    target = torch.randn(5, 4, 9, 11, dtype=torch.float64)
    optimizer = torch.optim.SGD(dynamic.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        (dynamic(x) - target).pow(2).mean().backward()
        optimizer.step()
    for key, value in dynamic.named_parameters():
        assert value.isfinite().all() and not value.equal(before[key]), key


def test_noise():
    static, dynamic, _ = make_pair(DyConv2d, dict(kernel_num=4), in_channels=64, out_channels=32)
    init_from_static(static, dynamic)
    assert all(kernel.equal(static.weight) for kernel in dynamic.weight)
    init_from_static(static, dynamic, noise=.02)
    torch.testing.assert_close(dynamic.weight.mean(0), static.weight, rtol=0, atol=1e-12)
    relative = (dynamic.weight - static.weight).pow(2).mean().sqrt() / static.weight.pow(2).mean().sqrt()
    assert .0195 < relative < .0205


def test_a_bias_that_the_static_layer_lacks_is_zero():
    _, dynamic, x = make_pair(ODConv2d, {})
    static = nn.Conv2d(6, 4, 3, bias=False).double()
    init_from_static(static, dynamic)
    torch.testing.assert_close(dynamic(x), static(x), rtol=0, atol=1e-12)


def test_shared_routing():
    static, dynamic, x = make_pair(CondConv2d, dict(kernel_num=5, routing=False))
    routing = CondConvRouting(6, 5).double()
    init_from_static(static, dynamic, noise=.1)
    assert routing.neutralize_attention() == 2.5
    torch.testing.assert_close(dynamic(x, routing(x)), static(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize('make', [lambda: CondConvLinear(6, 5, 3), lambda: nn.Linear(6, 5)], ids=['condconv', 'plain'])
def test_linear(make):
    static, dynamic, x = nn.Linear(6, 5).double(), make().double(), torch.randn(4, 6, dtype=torch.float64)
    init_from_static(static, dynamic, noise=.1)
    torch.testing.assert_close(dynamic(x), static(x), rtol=0, atol=1e-12)


def test_dcd_classifier():
    pytest.importorskip('mmpretrain')
    static, head = nn.Linear(6, 5).double(), heads.DCDLinearClsHead(num_classes=5, in_channels=6).double()
    init_from_static(static, head)
    x = torch.randn(4, 6, dtype=torch.float64)
    for mode in (True, False):
        torch.testing.assert_close(head.train(mode)((x, )), static(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(('options', 'named'), [
    (dict(in_channels=12), 'in_channels'), (dict(out_channels=8), 'out_channels'),
    (dict(kernel_size=5), 'kernel_size'), (dict(stride=2), 'stride'), (dict(padding=1), 'padding'),
    (dict(dilation=2), 'dilation'), (dict(groups=2), 'groups'),
    (dict(padding_mode='reflect'), 'padding_mode'), (dict(bias=False), 'bias')], ids=str)
def test_a_mismatch_is_named(options, named):
    dynamic = ODConv2d(**{**SMALL, **options})
    before = {key: value.clone() for key, value in dynamic.state_dict().items()}
    with pytest.raises(ValueError, match=f'^{named} must be'):
        init_from_static(nn.Conv2d(**SMALL), dynamic)
    assert all(value.equal(before[key]) for key, value in dynamic.state_dict().items())


def test_equal_paddings_of_other_names():
    init_from_static(nn.Conv2d(6, 4, 3, padding='same'), ODConv2d(6, 4, 3, padding=1))
    init_from_static(nn.Conv2d(6, 4, 3, padding='valid'), ODConv2d(6, 4, 3))
    with pytest.raises(ValueError, match='padding'):  # one side is longer
        init_from_static(nn.Conv2d(6, 4, 4, padding='same'), ODConv2d(6, 4, 4, padding=1))


@pytest.mark.parametrize('kind', [Involution2d, DCDC2d])
def test_impossible(kind):
    with pytest.raises(ValueError, match=f'{kind.__name__} cannot start as a static convolution'):
        init_from_static(nn.Conv2d(32, 32, 3, padding=1), kind(32, 32, 3, padding=1))


def test_other_types():
    conv = nn.Conv2d(**SMALL)
    with pytest.raises(ValueError, match='static must be a plain Conv2d.*ConvTranspose2d'):
        init_from_static(nn.ConvTranspose2d(6, 4, 3), ODConv2d(**SMALL))
    with pytest.raises(ValueError, match='static must be a plain Conv2d.*ConvWS2d'):  # standardises its kernel
        init_from_static(build_conv_layer(dict(type='ConvWS'), 6, 4, 3), ODConv2d(**SMALL))
    with pytest.raises(ValueError, match='dynamic must be a convolution of this package.*ReLU'):
        init_from_static(conv, nn.ReLU())
    with pytest.raises(ValueError, match='dynamic must be a CondConvLinear.*Conv2d'):
        init_from_static(nn.Linear(6, 4), conv)
    with pytest.raises(ValueError, match='out_features and in_features'):
        init_from_static(nn.Linear(6, 4), CondConvLinear(6, 5))


@pytest.mark.parametrize('noise', [-.1, float('nan'), float('inf'), '1', True])
def test_bad_noise(noise):
    with pytest.raises(ValueError, match='noise'):
        init_from_static(nn.Conv2d(**SMALL), ODConv2d(**SMALL), noise=noise)

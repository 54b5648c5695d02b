"""ConvNormAct computes what mmcv's ConvModule does, whatever its order and padding."""
from __future__ import annotations

import itertools

import pytest
import torch
from conv_layers import LAYERS, make_features, make_layer, randomize
from mmcv.cnn import ConvModule

from dynconv_mm.layers.conv_norm_act import ConvNormAct
from dynconv_mm.layers.static_conv import STATIC_CONV_CFG

ORDERS = list(itertools.permutations(('conv', 'norm', 'act')))
BN = dict(type='BN')
CONV_CFGS = {'Conv2d': None, 'StaticConv2d': STATIC_CONV_CFG, 'ODConv2d': dict(type='ODConv2d', kernel_num=2),
             'DyConv2d': dict(type='DyConv2d')}
OPTIONS = {
    'bias, no norm': dict(norm_cfg=None),
    'no activation': dict(norm_cfg=BN, act_cfg=None),
    'GN': dict(norm_cfg=dict(type='GN', num_groups=2)),
    'norm and bias': dict(norm_cfg=BN, bias=True),
    'stride, dilation': dict(norm_cfg=BN, stride=2, padding=2, dilation=2),
}


def compare(training: bool, name: str, **options) -> None:
    pair = []
    for kind in (ConvModule, ConvNormAct):
        options = {'padding': 1, 'norm_cfg': BN, **options}
        pair.append(randomize(kind(8, 8, 3, conv_cfg=CONV_CFGS[name], **options)).double().train(training))
    theirs, ours = pair
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for batch, gradients in itertools.product([1, 2], [True, False]):
        x = make_features(batch, dtype=torch.float64)
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(ours(x.clone()), theirs(x.clone()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())  # the norm's statistics


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('padding_mode', ['zeros', 'circular', 'reflect', 'replicate'])
@pytest.mark.parametrize('name', CONV_CFGS)
def test_padding_modes(name, padding_mode, training):
    compare(training, name, padding_mode=padding_mode)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect'])
@pytest.mark.parametrize('order', ORDERS, ids='-'.join)
@pytest.mark.parametrize('name', CONV_CFGS)
def test_orders(name, order, padding_mode, training):
    compare(training, name, order=order, padding_mode=padding_mode, inplace=False)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('name', CONV_CFGS)
def test_options(name, options, training):
    compare(training, name, **OPTIONS[options])


@pytest.mark.parametrize('order', ORDERS, ids='-'.join)
def test_what_a_block_shares_reaches_the_convolution(order):
    """Routing weights, in each order."""
    module = ConvNormAct(8, 8, 3, padding=1, norm_cfg=BN, order=order, inplace=False,
                         conv_cfg=dict(type='CondConv2d', kernel_num=3, routing=False))
    randomize(module).double().eval()
    x, routing = make_features(dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    steps = dict(conv=lambda x: module.conv(x, routing), norm=module.norm, act=module.activate)
    expected = x
    for step in order:
        expected = steps[step](expected)
    torch.testing.assert_close(module(x, routing), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('name', LAYERS)
def test_each_layer_before_its_norm(name):
    pair = []
    for kind in (ConvModule, ConvNormAct):
        pair.append(kind(8, 8, 3, padding=1, norm_cfg=BN))
        pair[-1].conv = make_layer(name)
        randomize(pair[-1]).double().eval()
    x = make_features(dtype=torch.float64)
    torch.testing.assert_close(pair[1](x), pair[0](x), rtol=1e-9, atol=1e-9)

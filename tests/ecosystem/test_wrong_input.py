"""Input that does not fit is refused at once, in words that say what to do; channels in torch's words."""
from __future__ import annotations

import itertools
import re

import pytest
import torch
from conv_layers import CHANNELS, make_features, make_layer
from mmcv.cnn import ConvModule
from thin_networks import BACKBONES
from torch import nn

from dynconv_mm.layers import KWLinear
from dynconv_mm.layers.condconv import CondConvLinear
from dynconv_mm.layers.static_conv import StaticConv2d
from dynconv_mm.models import CBAM, ECALayer, SELayer

#: what makes it of features, and what the message has to say
WRONG = {
    'an array': (lambda x: x.numpy(), 'must be a Tensor.*of type ndarray'),
    'a list': (lambda x: [x], 'must be a Tensor.*of type list'),
    'nothing': (lambda x: None, 'must be a Tensor.*of type NoneType'),
    'no batch': (lambda x: x[0], r'height, width\], but its shape is \[\d+, \d+, \d+\].*input\[None\]'),
    'a vector': (lambda x: x.mean((2, 3)), r'height, width\], but its shape is \[2, \d+\]'),
    'a video': (lambda x: x[:, :, None], r'its shape is \[2, \d+, 1, \d+, \d+\]: frames of a video'),
    'integers': (lambda x: x.byte(), 'torch.uint8.*convert'),
    'channels last': (lambda x: x.permute(0, 2, 3, 1), r'input\.permute\(0, 3, 1, 2\)'),
}
OTHER_TYPE = {
    'double': (lambda x: x.double(), 'dtype of weight, torch.float32, but has torch.float64: convert it'),
    'half': (lambda x: x.half(), 'dtype of weight, torch.float32, but has torch.float16: convert it'),
}
FEATURE_ATTENTION = (SELayer, CBAM, ECALayer)
LINEAR = (KWLinear, CondConvLinear)
HEADS = ('DropoutLinearClsHead', 'CondConvLinearClsHead', 'DCDLinearClsHead', 'KWLinearClsHead')


def torch_says(channels: int, batch: int) -> str:
    """The end of its message, which is what was expected and what it got."""
    with pytest.raises(RuntimeError) as error:
        nn.Conv2d(CHANNELS, CHANNELS, 3)(torch.randn(batch, channels, 9, 7))
    return re.search(r'expected input.*', str(error.value))[0]


@pytest.mark.one_at_a_time('name', 'training', 'grad_mode')
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_a_layer_on_other_channels(layer, training, grad_mode):
    layer.train(training)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for channels, batch in itertools.product([4, 16, 1], [1, 2]):
        message = torch_says(channels, batch)
        assert message.endswith(f'to have 8 channels, but got {channels} channels instead')
        with pytest.raises(ValueError, match=f'{re.escape(message)}; .*in_channels={channels}'):
            layer(torch.randn(batch, channels, 9, 7))
    torch.testing.assert_close(layer.state_dict(), before)  # no statistics of what was refused


@pytest.mark.parametrize('kind', [*WRONG, *OTHER_TYPE])
def test_a_layer(name, kind):
    make, message = {**WRONG, **OTHER_TYPE}[kind]
    for options in ({}, dict(padding_mode='circular'), dict(stride=2)):
        if 'LS' in name and 'stride' in options or 'DCDC' in name and 'padding_mode' in options:
            continue  # which it has not
        layer = make_layer(name, **options).train()
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            layer(make(make_features()))
        torch.testing.assert_close(layer.state_dict(), before)


@pytest.mark.parametrize('kind', WRONG)
def test_feature_attention(kind):
    make, message = WRONG[kind]
    for layer in FEATURE_ATTENTION:
        with pytest.raises(ValueError, match=message):
            layer(CHANNELS)(make(make_features()))
        with pytest.raises(ValueError, match=r'to have 6 channels, but got 8 channels.*in_channels=8'):
            layer(6)(make_features())


@pytest.mark.parametrize('backbone', BACKBONES)
def test_a_backbone(backbone):
    image, network = torch.randn(2, 3, 32, 40), BACKBONES[backbone]()
    for make, message in WRONG.values():
        with pytest.raises(ValueError, match=message):
            network(make(image))
    with pytest.raises(ValueError, match='to have 3 channels, but got 4 channels instead; .*in_channels=4'):
        network(torch.randn(2, 4, 32, 40))
    with pytest.raises((ValueError, RuntimeError), match='(?i)double.*float|float64.*float32'):  # torch's of its own
        network(image.double())


@pytest.mark.parametrize('layer', LINEAR)
def test_fully_connected(layer):
    for x, what in ((torch.randn(2, 5), r'\[2, 5\]'), (torch.randn(8), r'\[8\]'), (torch.randn(2, 8, 1, 1), r'2, 8, 1'),
                    (torch.ones(2, 8).int(), 'int32'), ([1.] * 8, 'of type list')):
        with pytest.raises(ValueError, match=rf'\[batch, in_features=8\], but is .*{what}'):
            layer(8, 4)(x)


@pytest.mark.parametrize('head', HEADS)
def test_a_head(head):
    pytest.importorskip('mmpretrain')
    from dynconv_mm.models import heads
    arguments = dict(dropout=0.) if head.startswith('Dropout') else {}
    with pytest.raises(ValueError, match=r'\[batch, in_channels=8\], but is .*\[2, 5\]'):
        getattr(heads, head)(num_classes=3, in_channels=8, **arguments)((torch.randn(2, 5), ))


def test_a_neck():
    pytest.importorskip('mmdet')
    from dynconv_mm.models.necks import DynamicFPN
    neck = DynamicFPN(fpn_conv_cfg=dict(type='DCDC2d'), in_channels=[8, 16], out_channels=16, num_outs=2)
    maps = torch.randn(2, 8, 8, 8), torch.randn(2, 16, 4, 4)
    with pytest.raises(ValueError, match=r'2 maps, one for each of in_channels=\[8, 16\], but are 1: .*out_indices'):
        neck(maps[:1])
    with pytest.raises(ValueError, match='to have 16 channels, but got 8 channels instead'):
        neck((maps[0], maps[0]))


@pytest.mark.parametrize('name', ['ODConv2d 1x', 'ODConv2d 4x', 'DyConv2d', 'CondConv2d'])
def test_a_grouped_layer_on_other_channels(name):
    with pytest.raises(ValueError, match='to have 8 channels, but got 4 channels instead'):
        make_layer(name, groups=4)(torch.randn(2, 4, 9, 7))


@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect'])
def test_a_static_convolution_within_a_layer(padding_mode):
    with pytest.raises((ValueError, RuntimeError), match='to have 8 channels, but got 4 channels instead'):
        StaticConv2d(8, 8, 3, padding=1, padding_mode=padding_mode)(torch.randn(2, 4, 9, 7))


@pytest.mark.parametrize('kind', ['Involution2d', 'DCDC2d'])
def test_a_padding_layer_before_a_layer_that_pads_itself(kind):
    """mmcv then gives the convolution no padding; the message says which argument made it so."""
    with pytest.raises(ValueError, match='padding_mode'):
        ConvModule(16, 16, 3, padding=1, padding_mode='reflect', conv_cfg=dict(type=kind))

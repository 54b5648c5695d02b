"""Features that do not fit are refused in torch's words."""
from __future__ import annotations

import itertools
import re

import pytest
import torch
from conv_layers import CHANNELS, make_layer
from mmcv.cnn import ConvModule
from torch import nn

from dynconv_mm.layers.static_conv import StaticConv2d


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
        with pytest.raises(ValueError, match=re.escape(message)):
            layer(torch.randn(batch, channels, 9, 7))
    torch.testing.assert_close(layer.state_dict(), before)  # no statistics of what was refused


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

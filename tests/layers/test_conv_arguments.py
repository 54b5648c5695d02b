"""The attributes are those of ``nn.Conv2d``, which ``ConvModule`` and others read."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from dynconv_mm.layers.conv_arguments import ConvArguments

ATTRIBUTES = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups', 'padding_mode',
              'transposed', 'output_padding')


def make_layer(kernel_size, stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros') -> ConvArguments:
    layer = ConvArguments()
    layer._init_conv_arguments(4, 6, kernel_size, stride, padding, dilation, groups, padding_mode)
    return layer


@pytest.mark.parametrize('arguments', [
    (3,), ((3, 1), (2, 1), (1, 0), (1, 2), 2, 'reflect'), (3, 1, 'same', 2), (2, 2, 'valid')], ids=str)
def test_attributes_are_those_of_conv2d(arguments):
    layer, conv = make_layer(*arguments), nn.Conv2d(4, 6, *arguments[:5], True, *arguments[5:])
    assert {name: getattr(layer, name) for name in ATTRIBUTES} == {name: getattr(conv, name) for name in ATTRIBUTES}
    assert not isinstance(layer, nn.Conv2d)  # or init_cfg=dict(layer='Conv2d') would re-initialise the kernels


def test_lists_of_a_config_become_tuples():
    layer = make_layer([3, 1], [2, 1], [1, 0], [1, 2])
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 1), (2, 1), (1, 0), (1, 2))


@pytest.mark.parametrize(('padding', 'left'), [(0, (0, 0)), ((1, 2), (1, 2)), ('same', (2, 1)), ('valid', (0, 0))])
def test_zeros_are_left_to_the_convolution(padding, left):
    x = torch.ones(1, 4, 5, 5)
    padded, rest = make_layer((5, 3), padding=padding)._pad(x)
    assert padded is x and rest == left

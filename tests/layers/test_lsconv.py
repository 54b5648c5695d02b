"""LSConv2d is the paper's equation, with interleaved groups."""
from __future__ import annotations

import pytest
import torch
from conv_layers import randomize
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.layers import LSConv2d

SMALL = dict(in_channels=12, out_channels=12, group_channels=4, large_kernel_size=5)
OPTIONS = [dict(), dict(kernel_size=(3, 5), bias=False), dict(dilation=(2, 1)), dict(padding='same'), dict(padding=1),
           dict(padding_mode='reflect'), dict(group_channels=1), dict(group_channels=12, large_kernel_size=(1, 3))]


def make_layer(**options) -> LSConv2d:
    return randomize(LSConv2d(**{**SMALL, **options}).double().eval())


def make_input(batch: int = 2) -> Tensor:
    return torch.randn(batch, 12, 9, 7, generator=torch.Generator().manual_seed(1)).double()


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def literal(layer: LSConv2d, x: Tensor) -> Tensor:
    """Eq. 5 to 8, channel by channel."""
    kernels = normalise(layer.conv1.norm, F.conv2d(x, layer.conv1.conv.weight)).clamp(min=0)
    size = layer.conv2.conv.kernel_size
    kernels = normalise(layer.conv2.norm, F.conv2d(kernels, layer.conv2.conv.weight, groups=6,
                                                   padding=(size[0] // 2, size[1] // 2)))
    kernels = normalise(layer.conv3.norm, F.conv2d(kernels, layer.conv3.conv.weight)).clamp(min=0)
    kernels = F.conv2d(kernels, layer.conv4.weight, layer.conv4.bias)
    groups, area = 12 // layer.group_channels, layer.kernel_size[0] * layer.kernel_size[1]
    values = kernels.reshape(len(x), groups, -1)
    values = (values - values.mean(2, keepdim=True)) / torch.sqrt(values.var(2, unbiased=False, keepdim=True)
                                                                 + layer.kernel_norm.eps)
    kernels = values.view(kernels.shape) * layer.kernel_norm.weight[:, None, None] + layer.kernel_norm.bias[:, None,
                                                                                                           None]
    kernels = kernels.view(len(x), groups, area, -1)
    padding = [d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size)]
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]),
                   'constant' if layer.padding_mode == 'zeros' else layer.padding_mode)
    columns = F.unfold(padded, layer.kernel_size, layer.dilation).view(len(x), 12, area, -1)
    sums = torch.stack([(kernels[:, c % groups] * columns[:, c]).sum(1) for c in range(12)], 1)
    y = x + normalise(layer.norm, sums.view(x.shape))
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equation(options, assert_equal_in_value_and_gradient):
    layer, x = make_layer(**options), make_input().requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x),
                                       {'x': x, **dict(layer.named_parameters())})


def test_structure():
    layer = LSConv2d(64, 64, bias=False)
    assert sum(parameter.numel() for parameter in layer.parameters()) == (
        64 * 32 + 64 + 32 * 49 + 64 + 32 * 32 + 64 + 32 * 72 + 72 + 144 + 128)
    assert layer.extra_repr() == ('64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False, '
                                  'group_channels=8')
    assert layer(torch.randn(0, 64, 5, 5)).shape == (0, 64, 5, 5)


BAD = [('in_channels', (0, 12., None)), ('out_channels', (0, 24)), ('kernel_size', (2, (3, 4), 0, '3', True)),
       ('stride', (0, 2)), ('padding', (0, 2, (1, 2), 'full')), ('dilation', (0, )), ('groups', (2, 12, 0)),
       ('padding_mode', ('constant', )), ('group_channels', (5, 0, 2., True)), ('large_kernel_size', (4, 0, '7')),
       ('norm_cfg', (None, 'BN', dict(type='NoNorm')))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        LSConv2d(**{**SMALL, name: value})


def test_odd_channels_are_refused():
    with pytest.raises(ValueError, match='in_channels must be even'):
        LSConv2d(9, 9, group_channels=3)

"""DDFConv2d is the release's layer and the paper's equations."""
from __future__ import annotations

import math

import pytest
import torch
from conv_layers import randomize
from golden import Golden
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional.involution import factored_involution2d
from dynconv_mm.layers import DDFConv2d

SMALL = dict(in_channels=12, out_channels=12, kernel_size=3)
RELEASED = dict(kernel_combine='combine', head='heads')  # argument names
OPTIONS = [
    dict(),
    dict(heads=3),
    dict(kernel_size=(3, 5), bias=False),
    dict(stride=2),
    dict(stride=(3, 2), kernel_size=5, heads=2),
    dict(dilation=(2, 1), reduction=1 / 2),
    dict(padding='same'),
    dict(padding=1, padding_mode='reflect'),
]


def make_layer(**options) -> DDFConv2d:
    return randomize(DDFConv2d(**{**SMALL, **options}).double())


def make_input(batch: int = 3) -> Tensor:
    return torch.randn(batch, 12, 9, 7, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize('name', ['ddf_0', 'ddf_1', 'ddf_2'])
def test_golden(name):
    golden = Golden(name)
    arguments = {RELEASED.get(key, key): value for key, value in golden.meta['args'].items()}
    golden.check(DDFConv2d(out_channels=arguments['in_channels'], bias=False, **arguments))


def standardise(kernels: Tensor) -> Tensor:
    """Of each kernel, the second dimension, over its elements, the third; with the unbiased standard deviation."""
    deviations = kernels - kernels.sum(2, keepdim=True) / kernels.shape[2]
    return deviations / (torch.sqrt(deviations.square().sum(2, keepdim=True) / (kernels.shape[2] - 1)) + 1e-10)


def literal(layer: DDFConv2d, x: Tensor) -> Tensor:
    """Eq. 1, 3 and 4 by im2col, with all kernels multiplied or added up."""
    batch, channels, area = len(x), x.shape[1], math.prod(layer.kernel_size)
    spatial, fc1, fc2 = layer.spatial_branch[0], layer.channel_branch[1], layer.channel_branch[3]
    sampled = x[:, :, ::layer.stride[0], ::layer.stride[1]]
    s = torch.einsum('oi,bihw->bohw', spatial.weight[:, :, 0, 0], sampled) + spatial.bias[:, None, None]
    s = standardise(s.view(batch, layer.heads, area, -1)) * math.sqrt(2) / math.sqrt(area)
    hidden = (x.mean((2, 3)) @ fc1.weight[:, :, 0, 0].T + fc1.bias).clamp(min=0)
    f = standardise((hidden @ fc2.weight[:, :, 0, 0].T + fc2.bias).view(batch, channels, area))
    f = f * layer.channel_branch[4].std.view(channels, area)
    s = s.repeat_interleave(channels // layer.heads, 1)
    kernels = f[..., None] * s if layer.combine == 'mul' else f[..., None] + s
    padding = [d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size)]
    if layer.padding_mode != 'zeros':
        x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), layer.padding_mode), 0
    columns = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride).view(kernels.shape)
    y = (kernels * columns).sum(2).view(batch, channels, *sampled.shape[2:])
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.parametrize('combine', ['mul', 'add'])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equations(options, combine, assert_equal_in_value_and_gradient):
    layer, x = make_layer(combine=combine, **options), make_input().requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x),
                                       {'x': x, **dict(layer.named_parameters())})


@pytest.mark.parametrize('combine', ['mul', 'add'])
def test_empty_batch_and_formats(combine):
    layer = make_layer(combine=combine)
    assert layer(make_input(0)).shape == (0, 12, 9, 7)
    y = layer(make_input().to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(make_input()))


def test_factors_that_do_not_fit_are_refused():
    x, weight = torch.randn(2, 6, 5, 5), torch.randn(2, 3, 3, 3, 5, 5)
    for shape in ((2, 3, 3, 3), (1, 6, 3, 3), (2, 6, 9)):
        with pytest.raises(ValueError, match=r'factors must be .* \(2, 6, 3, 3\)'):
            factored_involution2d(x, weight, torch.randn(shape), padding=1)


def test_structure():
    layer = DDFConv2d(64, 64, bias=False)
    assert sum(parameter.numel() for parameter in layer.parameters()) == (
        64 * 9 + 9 + 64 * 12 + 12 + 12 * 576 + 576 + 576)
    assert layer.extra_repr() == "64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False, heads=1, " \
                                 "combine='mul'"


BAD = [('in_channels', (0, 8., None)), ('out_channels', (0, 24)), ('kernel_size', (2, (3, 4), 0, '3', True, 1)),
       ('stride', (0, '2')), ('padding', (0, 2, (1, 2), 'full')), ('dilation', (0, )), ('groups', (2, 12, 0)),
       ('padding_mode', ('constant', )), ('heads', (5, 0, 2., True)), ('combine', ('sum', None)),
       ('reduction', (0, 2, '1/4', True))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        DDFConv2d(**{**SMALL, name: value})

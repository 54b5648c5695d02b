"""WeightNetConv2d is the paper's equation: two FCs, a sigmoid and a grouped FC that puts out the kernel."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.layers import WeightNetConv2d
from dynconv_mm.layers.weightnet import WeightNetReduction

SMALL = dict(in_channels=6, out_channels=4, kernel_size=3, hidden_channels=5)
OPTIONS = [
    dict(),
    dict(kernel_size=1),
    dict(multiplier=6),
    dict(multiplier=3, group_multiplier=1),
    dict(multiplier=9, group_multiplier=3),
    dict(kernel_size=(1, 5), padding=(0, 2)),
    dict(bias=False, stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    dict(groups=2),  # 27 elements: one segment
    dict(out_channels=6, groups=6, stride=2),
    dict(out_channels=12, groups=6, multiplier=4),
    dict(padding='same', kernel_size=5, dilation=2),
    dict(padding=(1, 2), padding_mode='reflect'),
]


def make_input(batch: int = 3, channels: int = 6) -> Tensor:
    return torch.randn(batch, channels, 9, 7, generator=torch.Generator().manual_seed(1)).double()


def fully_connected(fc: nn.Module, x: Tensor) -> Tensor:
    return x @ fc.weight[:, :, 0, 0].T + fc.bias


def literal(layer: WeightNetConv2d, x: Tensor, source: Tensor, reduction: nn.Module, options: dict) -> Tensor:
    """The kernels by a grouped 1×1 convolution, sample by sample, as the paper describes it."""
    options = {'multiplier': 2, 'group_multiplier': 2, **options}
    pooled = source.sum((2, 3)) / (source.shape[2] * source.shape[3])
    a = 1 / (1 + torch.exp(-fully_connected(layer.fc, fully_connected(reduction, pooled))))
    elements = layer.weight[0, 0].numel()
    segments = math.gcd(options['group_multiplier'], elements)
    each = options['multiplier'] // options['group_multiplier']
    assert a.shape[1] == layer.out_channels * segments * each
    rows = layer.weight.flatten(1).T[:, :, None, None]  # [C_out · C_in k², M / G, 1, 1]
    conv = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in options.items()
                                       if name not in ('multiplier', 'group_multiplier', 'hidden_channels')})
    samples = []
    for b in range(len(x)):
        kernel = F.conv2d(a[b:b + 1, :, None, None], rows, groups=layer.out_channels * segments)
        parameters = {'weight': kernel.view(layer.weight.shape[1:])}
        if layer.bias is not None:
            parameters['bias'] = layer.bias
        samples.append(torch.func.functional_call(conv, parameters, x[b:b + 1], strict=True))
    return torch.cat(samples)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equation(options, make_random, assert_equal_in_value_and_gradient):
    options = {**SMALL, **options}
    layer, x = make_random(WeightNetConv2d(**options).double()), make_input().requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x, x, layer.routing.fc, options),
                                       {'x': x, **dict(layer.named_parameters())})


def test_equation_with_a_shared_reduction(make_random, assert_equal_in_value_and_gradient):
    """Of other features, of other channels and size, as a block's input."""
    layer, x = make_random(WeightNetConv2d(**SMALL, routing=False).double()), make_input().requires_grad_()
    reduction = make_random(WeightNetReduction(2, 5).double())
    source = make_input(channels=2)[:, :, 1:].requires_grad_()
    assert_equal_in_value_and_gradient(
        lambda: layer(x, reduction(source)), lambda: literal(layer, x, source, reduction.fc, SMALL),
        {'x': x, 'source': source, **dict(layer.named_parameters()), **dict(reduction.named_parameters())})


@pytest.mark.parametrize('use', [lambda layer, x: layer(x), lambda layer, x: layer.compute_kernels(x)],
                         ids=['forward', 'compute_kernels'])
def test_without_any_routing_it_is_refused(use):
    with pytest.raises(ValueError, match=r'routing=False .* layer\(x, reduced\)'):
        use(WeightNetConv2d(**SMALL, routing=False), torch.randn(2, 6, 5, 5))


@pytest.mark.parametrize('shape', [(2, 7), (1, 16), (2, 16, 1)])
def test_reduced_averages_of_another_shape(shape):
    layer = WeightNetConv2d(**{**SMALL, 'hidden_channels': 16}, routing=False)
    with pytest.raises(ValueError, match=r'reduced must be (.*\[batch, hidden_channels=16\]|of 2 images)'):
        layer(torch.randn(2, 6, 5, 5), torch.randn(shape))


def test_structure():
    layer = WeightNetConv2d(64, 32, 3, bias=False)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        'weight': (1, 32, 64, 3, 3), 'routing.fc.weight': (16, 64, 1, 1), 'routing.fc.bias': (16, ),
        'fc.weight': (64, 16, 1, 1), 'fc.bias': (64, )}
    assert layer.extra_repr() == '64, 32, kernel_size=(3, 3), stride=(1, 1), bias=False'
    assert WeightNetConv2d(8, 6, 1, routing=False).extra_repr() == (
        '8, 6, kernel_size=(1, 1), stride=(1, 1), routing=False')
    assert WeightNetConv2d(512, 4, 1).routing.fc.weight.shape == (32, 512, 1, 1)
    depthwise = WeightNetConv2d(64, 64, 3, groups=64)  # FC to (M / G) · C
    assert depthwise.fc.weight.shape == (64, 16, 1, 1) and depthwise.weight.shape == (1, 64, 1, 3, 3)


def test_empty_batch():
    assert WeightNetConv2d(**SMALL)(torch.randn(0, 6, 5, 5)).shape == (0, 4, 3, 3)


BAD = [('in_channels', (0, 8., True)), ('out_channels', (0, None)), ('groups', (0, 4)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('dilation', (0, )), ('padding_mode', ('constant', )),
       ('multiplier', (0, 2.5, True, None, 3)), ('group_multiplier', (0, None, 4)), ('hidden_channels', (0, 2., True)),
       ('routing', (None, 1, 'block'))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        WeightNetConv2d(**{**SMALL, name: value})

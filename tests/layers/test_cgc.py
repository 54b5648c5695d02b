"""CGConv2d is the release's layer, and the paper's equations for maps of any size."""
from __future__ import annotations

import math

import pytest
import torch
from conv_layers import randomize
from golden import Golden
from torch import Tensor, nn
from torch.func import functional_call

from dynconv_mm.layers import CGConv2d, ODConv2d

SMALL = dict(in_channels=12, out_channels=8, kernel_size=3, group_channels=3)
OPTIONS = [
    dict(),
    dict(kernel_size=1),
    dict(group_channels=16),
    dict(kernel_size=(2, 5), padding=(0, 2)),
    dict(bias=False, stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    dict(groups=2),
    dict(out_channels=12, groups=12, stride=2),
    dict(in_channels=6, out_channels=15),
    dict(padding='same', kernel_size=5, dilation=2),
    dict(padding=(1, 2), padding_mode='reflect'),
    dict(norm_cfg=None),
]


def make_layer(**options) -> CGConv2d:
    """In float64, all of whose parameters and statistics are random."""
    return randomize(CGConv2d(**{**SMALL, **options}).double())


def make_input(channels: int = 12, batch: int = 3) -> Tensor:
    return torch.randn(batch, channels, 11, 7, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize('name', ['cgc_0', 'cgc_1'])
def test_golden(name):
    golden = Golden(name)
    layer = CGConv2d(**golden.meta['args'])
    golden.check(layer)
    assert golden.state_dict.keys() >= dict(layer.named_parameters()).keys()


def pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cell i of n averages the pixels ⌊i·length / n⌋ to ⌈(i + 1)·length / n⌉ − 1."""
    spans = [[(i * length // n, -(-(i + 1) * length // n)) for i in range(n)] for length, n in zip(x.shape[2:], size)]
    return torch.stack([x[:, :, top:bottom, left:right].mean((2, 3))
                        for top, bottom in spans[0] for left, right in spans[1]], -1)


def normalize(norm: nn.Module, hidden: Tensor, training: bool) -> Tensor:
    """Of the channels, over samples and the numbers that stand for k²."""
    if isinstance(norm, nn.Identity):
        return hidden
    mean, var = norm.running_mean, norm.running_var
    if training:
        mean, var = hidden.mean((0, 2)), hidden.var((0, 2), correction=0)
    return (hidden - mean[:, None]) / torch.sqrt(var[:, None] + 1e-5) * norm.weight[:, None] + norm.bias[:, None]


def literal(layer: CGConv2d, x: Tensor, training: bool, options: dict) -> Tensor:
    """Sample by sample and filter by filter."""
    context = pool(x, layer.kernel_size) @ layer.ce.weight.T
    inputs = normalize(layer.ce_bn, context, training).clamp(min=0) @ layer.gd.weight.T
    hidden = normalize(layer.ci_bn2, context, training).clamp(min=0)
    count = math.gcd(max(x.shape[1] // layer.group_channels, 1), x.shape[1], layer.out_channels)
    joined = torch.cat([torch.einsum('oi,bid->bod', layer.ci.weight, part) for part in hidden.chunk(count, 1)], 1)
    outputs = normalize(layer.ci_bn, joined, training).clamp(min=0) @ layer.gd2.weight.T
    samples = []
    static = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in options.items()
                                         if name not in ('group_channels', 'norm_cfg')})
    for b in range(len(x)):
        filters = []
        for o in range(layer.out_channels):
            first = o // (layer.out_channels // layer.groups) * layer.weight.shape[1]
            gate = torch.sigmoid(inputs[b, first:first + layer.weight.shape[1]] + outputs[b, o])
            filters.append(layer.weight[o] * gate.view(-1, *layer.kernel_size))
        parameters = {'weight': torch.stack(filters)}
        if layer.bias is not None:
            parameters['bias'] = layer.bias
        samples.append(functional_call(static, parameters, x[b:b + 1], strict=True))
    return torch.cat(samples)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equations(options, training, assert_equal_in_value_and_gradient):
    options = {**SMALL, **options}
    layer, x = make_layer(**options).train(training), make_input(options['in_channels']).requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x, training, options),
                                       {'x': x, **dict(layer.named_parameters())})


@pytest.mark.parametrize(('in_channels', 'out_channels', 'groups'), [
    (64, 128, 4), (64, 6, 2), (3, 64, 1), (40, 24, 2), (24, 24, 1), (15, 15, 1)])
def test_groups_of_joined_channels(in_channels, out_channels, groups):
    """16 channels each, where that divides the channels on both sides; never fewer."""
    layer = CGConv2d(in_channels, out_channels, 3)
    assert layer.ci.weight.shape == (out_channels // groups, in_channels // groups)


def test_one_sample_and_none():
    layer = make_layer(padding=1)
    for training in (True, False):
        assert layer.train(training)(make_input(batch=1)).shape == (1, 8, 11, 7)
        assert layer(make_input(batch=0)).shape == (0, 8, 11, 7)


def test_a_single_value_uses_running_statistics():
    """A norm has batch · d values of a channel: with a kernel of one element and one sample, a single one."""
    layer = make_layer(kernel_size=1).train()
    with pytest.warns(UserWarning, match='single sample'):
        y = layer(make_input(batch=1))
    torch.testing.assert_close(y, layer.eval()(make_input(batch=1)))


def test_structure():
    layer = CGConv2d(32, 64, 3, bias=False)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 32 * 64 * 9 + 3 * 5 * 9 + 2 * 64 + 128 + 512
    assert layer.extra_repr() == '32, 64, kernel_size=(3, 3), stride=(1, 1), bias=False'


@pytest.mark.parametrize('layer', [CGConv2d(32, 8, 3), ODConv2d(32, 8, 3)], ids=lambda layer: type(layer).__name__)
def test_nothing_is_shared_with_it(layer):
    name = type(layer).__name__
    with pytest.raises(ValueError, match=f'{name} takes features alone.*CondConv2d and WeightNetConv2d'):
        layer(torch.randn(1, 32, 5, 5), torch.randn(1, 4))


BAD = [('in_channels', (0, 8., True)), ('out_channels', (0, None)), ('groups', (0, 5)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('dilation', (0, )), ('padding_mode', ('constant', )),
       ('group_channels', (0, 2., True, None)), ('norm_cfg', ('BN', {}, dict(type='LN'), dict(type='BN2d')))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        CGConv2d(**{**SMALL, name: value})

"""DyConv2d is the paper's equation: attention, temperature, mixture, in values and gradients."""
from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynconv_mm.layers import DyConv2d

SMALL = dict(in_channels=6, out_channels=4, kernel_size=3, kernel_num=3)
OPTIONS = [
    dict(),
    dict(kernel_size=1),
    dict(kernel_num=1),
    dict(kernel_num=5, reduction=1),
    dict(reduction=.01),  # one hidden value
    dict(kernel_size=(1, 5), padding=(0, 2)),
    dict(bias=False, stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    dict(groups=2),
    dict(out_channels=6, groups=6),
    dict(out_channels=12, groups=6, stride=2),
    dict(padding='same', kernel_size=5, dilation=2),
    dict(padding=(1, 2), padding_mode='reflect'),
    dict(padding=2, padding_mode='circular', groups=2),
]


def make_input(batch: int = 3, channels: int = 6) -> Tensor:
    return torch.randn(batch, channels, 9, 7, generator=torch.Generator().manual_seed(1)).double()


def attention(layer: DyConv2d, x: Tensor, temperature: float) -> Tensor:
    """Eq. 5 over Fig. 3."""
    fc1, fc2 = layer.attention.fc1, layer.attention.fc2
    squeezed = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    hidden = squeezed @ fc1.weight[:, :, 0, 0].T + fc1.bias
    logits = hidden.clamp(min=0) @ fc2.weight[:, :, 0, 0].T + fc2.bias
    e = torch.exp(logits / temperature)
    return e / e.sum(1, keepdim=True)


@pytest.mark.parametrize('temperature', [1., 30.])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equation(options, temperature, make_random, mix_literally, assert_equal_in_value_and_gradient):
    options = {**SMALL, **options}
    layer, x = make_random(DyConv2d(**options).double()), make_input().requires_grad_()
    with torch.no_grad():
        layer.attention.fc1.bias.add_(1)  # else a single hidden value could be dead
    layer.set_temperature(temperature)
    inputs = {'x': x, **dict(layer.named_parameters())}
    if layer.kernel_num == 1:  # a softmax over one is 1, and nothing flows
        inputs = {name: tensor for name, tensor in inputs.items() if 'attention' not in name}
    assert_equal_in_value_and_gradient(
        lambda: layer(x),
        lambda: mix_literally(layer.weight, layer.bias, attention(layer, x, temperature), x, options), inputs)


def test_attentions_are_as_announced(make_random):
    layer, x = make_random(DyConv2d(**SMALL).double()), make_input()
    attentions = layer.compute_attentions(x)
    assert list(attentions) == ['kernel']
    torch.testing.assert_close(attentions['kernel'], attention(layer, x, 1.))
    layer.set_temperature(1e6)
    torch.testing.assert_close(layer.compute_attentions(x)['kernel'], torch.full((3, 3), 1 / 3).double(), atol=1e-4,
                               rtol=0)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_without_attention(options, make_random, mix_literally, assert_equal_in_value_and_gradient):
    """ODConv, 3.1: "removing the attention mechanism … (i.e., setting α_wi = 1)"."""
    options = {**SMALL, **options}
    layer, x = make_random(DyConv2d(**options, attention=False).double()), make_input().requires_grad_()
    ones = torch.ones(len(x), layer.kernel_num).double()
    assert_equal_in_value_and_gradient(
        lambda: layer(x), lambda: mix_literally(layer.weight, layer.bias, ones, x, options),
        {'x': x, **dict(layer.named_parameters())})
    assert set(layer.state_dict()) <= {'weight', 'bias', 'temperature'} and layer.compute_attentions(x) == {}
    assert layer.attention_modules() == [] and layer.neutralize_attention() == layer.kernel_num
    assert layer.extra_repr().endswith(', attention=False')


@pytest.mark.parametrize(('in_channels', 'reduction', 'width'), [
    (64, 1 / 4, 16), (66, 1 / 4, 16), (67, 1 / 4, 16), (3, 1 / 4, 1), (20, 1, 20), (64, 1 / 16, 4)])
def test_hidden_width(in_channels, reduction, width):
    layer = DyConv2d(in_channels, 2, 1, reduction=reduction)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        'weight': (4, 2, in_channels, 1, 1), 'bias': (2, ), 'temperature': (),
        'attention.fc1.weight': (width, in_channels, 1, 1), 'attention.fc1.bias': (width, ),
        'attention.fc2.weight': (4, width, 1, 1), 'attention.fc2.bias': (4, )}


def test_state_dict_without_temperature_loads_at_1():
    layer, state = DyConv2d(**SMALL, temperature=30.), DyConv2d(**SMALL).state_dict()
    assert layer.temperature == 30
    del state['temperature']
    layer.load_state_dict(state, strict=True)
    assert layer.temperature == 1


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_valid_arguments_work(data):
    groups = data.draw(st.sampled_from([1, 2, 3]))
    channels = [groups * data.draw(st.integers(1, 3)) for _ in range(2)]
    kernel_size = data.draw(st.tuples(*[st.integers(1, 3)] * 2))
    layer = DyConv2d(*channels, kernel_size, data.draw(st.integers(1, 2)), data.draw(st.integers(0, 2)),
                     groups=groups, bias=data.draw(st.booleans()), kernel_num=data.draw(st.integers(1, 5)),
                     reduction=data.draw(st.floats(1e-3, 1)), temperature=data.draw(st.floats(.1, 100)))
    x = torch.randn(data.draw(st.integers(0, 3)), channels[0], 7, 5)
    static = torch.nn.Conv2d(*channels, kernel_size, layer.stride, layer.padding, groups=groups)
    assert layer(x).shape == static(x).shape and layer(x).isfinite().all()


BAD = [('in_channels', (0, 8., True)), ('out_channels', (0, None)), ('groups', (0, 4)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('dilation', (0, )), ('padding_mode', ('constant', )),
       ('kernel_num', (0, -1, 2.5, True, None)), ('reduction', (0, -.1, 1.5, 4, math.nan, '1/4', True)),
       ('temperature', (0, -1, math.inf, math.nan, '30', True, None)), ('attention', (None, 1, 'no')),
       ('plan', ('fast', None, ['grouped']))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        DyConv2d(**{**SMALL, name: value})

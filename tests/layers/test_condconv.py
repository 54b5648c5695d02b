"""CondConv2d and CondConvLinear are the paper's equations, with their own routing or with a shared one."""
from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynconv_mm.layers import CondConv2d
from dynconv_mm.layers.condconv import CondConvLinear, CondConvRouting

SMALL = dict(in_channels=6, out_channels=4, kernel_size=3, kernel_num=5)
OPTIONS = [
    dict(),
    dict(kernel_size=1),
    dict(kernel_num=1),
    dict(kernel_size=(1, 5), padding=(0, 2)),
    dict(bias=False, stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    dict(groups=2),
    dict(out_channels=6, groups=6),
    dict(out_channels=12, groups=6, stride=2),
    dict(padding='same', kernel_size=5, dilation=2),
    dict(padding=(1, 2), padding_mode='reflect'),
]


def make_input(batch: int = 3, channels: int = 6) -> Tensor:
    return torch.randn(batch, channels, 9, 7, generator=torch.Generator().manual_seed(1)).double()


def route(routing: CondConvRouting, x: Tensor) -> Tensor:
    """r(x) = sigmoid(GAP(x) R), §3."""
    pooled = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    return 1 / (1 + torch.exp(-(pooled @ routing.fc.weight[:, :, 0, 0].T + routing.fc.bias)))


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equation_with_its_own_routing(options, make_random, mix_literally, assert_equal_in_value_and_gradient):
    options = {**SMALL, **options}
    layer, x = make_random(CondConv2d(**options).double()), make_input().requires_grad_()
    assert_equal_in_value_and_gradient(
        lambda: layer(x), lambda: mix_literally(layer.weight, layer.bias, route(layer.routing, x), x, options),
        {'x': x, **dict(layer.named_parameters())})
    torch.testing.assert_close(layer.compute_attentions(x), dict(kernel=route(layer.routing, x)))


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equation_with_shared_routing(options, make_random, mix_literally, assert_equal_in_value_and_gradient):
    """The routing weights come from other features, of other channels and size, as those of a block's input."""
    options = {**SMALL, **options}
    layer, x = make_random(CondConv2d(**options, routing=False).double()), make_input().requires_grad_()
    routing = make_random(CondConvRouting(2, options['kernel_num']).double())
    source = make_input(channels=2)[:, :, 1:].requires_grad_()
    assert set(dict(layer.named_parameters())) <= {'weight', 'bias'}
    assert_equal_in_value_and_gradient(
        lambda: layer(x, routing(source)),
        lambda: mix_literally(layer.weight, layer.bias, route(routing, source), x, options),
        {'x': x, 'source': source, **dict(layer.named_parameters()), **dict(routing.named_parameters())})


@pytest.mark.parametrize('routing', [True, False])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_without_attention(options, routing, make_random, mix_literally, assert_equal_in_value_and_gradient):
    """ODConv, 3.1: "removing the attention mechanism … (i.e., setting α_wi = 1)", whatever the layer is given."""
    options = {**SMALL, **options}
    layer = make_random(CondConv2d(**options, routing=routing, attention=False).double())
    x, ones = make_input().requires_grad_(), torch.ones(3, layer.kernel_num).double()
    assert_equal_in_value_and_gradient(
        lambda: layer(x), lambda: mix_literally(layer.weight, layer.bias, ones, x, options),
        {'x': x, **dict(layer.named_parameters())})
    assert torch.equal(layer(x, ones / 2), layer(x))
    assert set(layer.state_dict()) <= {'weight', 'bias'} and layer.attention_modules() == []
    assert layer.neutralize_attention() == layer.kernel_num and layer.extra_repr().endswith(', attention=False')


def test_linear_without_attention(make_random, assert_equal_in_value_and_gradient):
    layer = make_random(CondConvLinear(7, 4, kernel_num=3, attention=False).double())
    x = torch.randn(5, 7).double().requires_grad_()

    def literal() -> Tensor:
        return torch.stack([sum(layer.weight[i] @ x[b] for i in range(3)) + layer.bias for b in range(5)])

    assert_equal_in_value_and_gradient(lambda: layer(x), literal, {'x': x, **dict(layer.named_parameters())})
    assert layer.neutralize_attention() == 3 and layer.extra_repr() == '7, 4, kernel_num=3, attention=False'


def test_given_weights_stand_in_for_its_own(make_random):
    layer, x = make_random(CondConv2d(**SMALL).double()), make_input()
    torch.testing.assert_close(layer(x, layer.routing(x)), layer(x))
    assert not torch.allclose(layer(x, layer.routing(x) / 2), layer(x))


@pytest.mark.parametrize('use', [lambda layer, x: layer(x), lambda layer, x: layer.compute_attentions(x)],
                         ids=['forward', 'compute_attentions'])
def test_without_any_routing_it_is_refused(use):
    with pytest.raises(ValueError, match=r'routing=False .* layer\(x, routing_weights\)'):
        use(CondConv2d(**SMALL, routing=False), torch.randn(2, 6, 5, 5))


@pytest.mark.parametrize('shape', [(3, 4), (2, 5), (5, ), (3, 5, 1)], ids=str)
def test_routing_weights_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r'kernel_attention must be \[3, 5\]|routing_weights must be .*kernel_num=5'):
        CondConv2d(**SMALL, routing=False)(torch.randn(3, 6, 5, 5), torch.rand(shape))


def test_linear_equation(make_random, assert_equal_in_value_and_gradient):
    """The matrices added up for each sample, then applied: the left-hand side of what the layer computes."""
    layer = make_random(CondConvLinear(7, 4, kernel_num=3).double())
    x = torch.randn(5, 7).double().requires_grad_()

    def literal() -> Tensor:
        r = route(layer.routing, x[:, :, None, None])
        return torch.stack([sum(r[b, i] * layer.weight[i] for i in range(3)) @ x[b] + layer.bias for b in range(5)])

    assert_equal_in_value_and_gradient(lambda: layer(x), literal, {'x': x, **dict(layer.named_parameters())})
    assert layer(x[:0]).shape == (0, 4)


def test_structure():
    layer = CondConv2d(64, 32, 3, bias=False)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        'weight': (8, 32, 64, 3, 3), 'routing.fc.weight': (8, 64, 1, 1), 'routing.fc.bias': (8, )}
    assert layer.extra_repr() == '64, 32, kernel_size=(3, 3), stride=(1, 1), bias=False, kernel_num=8'
    assert CondConv2d(8, 6, 1, kernel_num=2, routing=False, plan='grouped').extra_repr() == (
        "8, 6, kernel_size=(1, 1), stride=(1, 1), kernel_num=2, plan='grouped', routing=False")
    linear = CondConvLinear(2048, 1000)
    assert {name: tuple(tensor.shape) for name, tensor in linear.state_dict().items()} == {
        'weight': (8, 1000, 2048), 'bias': (1000, ), 'routing.fc.weight': (8, 2048, 1, 1), 'routing.fc.bias': (8, )}
    assert linear.extra_repr() == '2048, 1000, kernel_num=8'


def test_initialisation_of_routing():
    """Xavier-uniform: within ±sqrt(6 / (C + n)), and of that uniform distribution's variance."""
    torch.manual_seed(0)
    for routing in (CondConvRouting(512, 8), CondConv2d(512, 4, 1).routing, CondConvLinear(512, 4).routing):
        limit = math.sqrt(6 / (512 + 8))
        assert routing.fc.weight.abs().max() <= limit
        assert abs(routing.fc.weight.std() / (limit / math.sqrt(3)) - 1) < .05
        assert not routing.fc.bias.any()


def test_initialisation_of_linear():
    torch.manual_seed(0)
    layer = CondConvLinear(64, 50)
    assert all(abs(matrix.std() / .01 - 1) < .06 and abs(matrix.mean()) < .001 for matrix in layer.weight)
    assert not layer.bias.any()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_valid_arguments_work(data):
    groups = data.draw(st.sampled_from([1, 2, 3]))
    channels = [groups * data.draw(st.integers(1, 3)) for _ in range(2)]
    kernel_size = data.draw(st.tuples(*[st.integers(1, 3)] * 2))
    kernel_num, routing = data.draw(st.integers(1, 9)), data.draw(st.booleans())
    layer = CondConv2d(*channels, kernel_size, data.draw(st.integers(1, 2)), data.draw(st.integers(0, 2)),
                       groups=groups, bias=data.draw(st.booleans()), kernel_num=kernel_num, routing=routing)
    x = torch.randn(data.draw(st.integers(0, 3)), channels[0], 7, 5)
    y = layer(x) if routing else layer(x, torch.rand(len(x), kernel_num))
    static = torch.nn.Conv2d(*channels, kernel_size, layer.stride, layer.padding, groups=groups)
    assert y.shape == static(x).shape and y.isfinite().all()


BAD = [('in_channels', (0, 8., True)), ('out_channels', (0, None)), ('groups', (0, 4)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('dilation', (0, )), ('padding_mode', ('constant', )),
       ('kernel_num', (0, -1, 2.5, True, None)), ('routing', (None, 1, 'block')),
       ('attention', (None, 1, 'no')),       ('plan', ('fast', None, ['grouped']))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        CondConv2d(**{**SMALL, name: value})


@pytest.mark.parametrize('name', ['in_features', 'out_features', 'kernel_num'])
@pytest.mark.parametrize('value', [0, 2.5, True, None])
def test_bad_arguments_of_linear_are_refused(name, value):
    with pytest.raises(ValueError, match=f'{name} must be a positive int'):
        CondConvLinear(**{**dict(in_features=4, out_features=3), name: value})


def test_linear_under_autocast():
    layer, x = CondConvLinear(6, 5), torch.randn(2, 6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer(x).dtype == torch.nn.functional.linear(x, layer.weight[0]).dtype == torch.bfloat16


def test_bad_attention_of_linear_is_refused():
    with pytest.raises(ValueError, match='attention must be True or False'):
        CondConvLinear(4, 3, attention=None)

"""A parameter has one name: that of the state dict."""
from __future__ import annotations

import pytest
import torch
from conv_layers import ODCONVS, make_layer, randomize
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.func import functional_call

HEADS = ('channel_fc', 'filter_fc', 'spatial_fc', 'kernel_fc')


def optimized(model: nn.Module, custom_keys: dict) -> dict[int, float]:
    """The learning rate that mmengine gives each parameter, by its identity."""
    constructor = DefaultOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.)), dict(custom_keys=custom_keys))
    return {id(parameter): group['lr'] for group in constructor(model).optimizer.param_groups
            for parameter in group['params']}


def test_the_state_dict_holds_parameters_and_buffers(layer):
    state = layer.state_dict(keep_vars=True)
    named = dict(layer.named_parameters()) | dict(layer.named_buffers())
    assert state.keys() == named.keys()
    assert all(state[key] is tensor for key, tensor in named.items())


def test_a_functional_call_by_a_state_dict(layer, x, grad_mode):
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    expected = layer(x)
    randomize(layer, 2)
    assert not torch.allclose(layer(x), expected)
    torch.testing.assert_close(functional_call(layer, state, x, strict=True), expected)


def test_gradients_of_a_functional_call(layer, x):
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    learned = {key: state[key].requires_grad_() for key, _ in layer.named_parameters()}
    gradients = torch.autograd.grad(functional_call(layer, state, x).square().sum(), list(learned.values()))
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(gradients, expected)


def test_each_name_of_a_state_dict_is_a_custom_key(layer):
    state, own = layer.state_dict(keep_vars=True), {id(parameter) for parameter in layer.parameters()}
    for key in state.keys() - dict(layer.named_buffers()):
        rates = optimized(layer, {key: dict(lr_mult=0.5)})
        assert rates.keys() == own
        assert rates.get(id(state[key])) == 0.5, key


@pytest.mark.parametrize('name', ODCONVS)
def test_the_heads_of_the_reference_are_custom_keys(name):
    layer = make_layer(name)
    heads = HEADS[:3] if name == 'ODConv2d 1x' else HEADS
    for head in heads:
        rates = optimized(nn.Sequential(nn.Conv2d(3, 8, 1), layer), {head: dict(lr_mult=0.5)})
        slow = {key for key, parameter in layer.named_parameters() if rates[id(parameter)] == 0.5}
        assert slow == {f'attention.{head}.weight', f'attention.{head}.bias'}


@pytest.mark.parametrize('name', ODCONVS)
def test_state_dicts_have_the_names_and_shapes_of_the_reference(name):
    """So that what was saved before loads."""
    copies = 4 if 'own' in name else 1
    lengths = dict(channel_fc=8 * copies, filter_fc=8 * copies, spatial_fc=9 * copies)
    if name != 'ODConv2d 1x':
        lengths['kernel_fc'] = 4
    shapes = {'weight': (1 if name == 'ODConv2d 1x' else 4, 8, 8, 3, 3), 'bias': (8, ), 'temperature': (),
              'attention.fc.weight': (16, 8, 1, 1), 'attention.bn.num_batches_tracked': ()}
    shapes |= {f'attention.bn.{part}': (16, ) for part in ('weight', 'bias', 'running_mean', 'running_var')}
    for head, length in lengths.items():
        shapes |= {f'attention.{head}.weight': (length, 16, 1, 1), f'attention.{head}.bias': (length, )}
    layer = make_layer(name)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == shapes
    values = {key: torch.full(shape, 2. + index) for index, (key, shape) in enumerate(shapes.items())}
    layer.load_state_dict(values, strict=True)
    assert all(value.eq(values[key]).all() for key, value in layer.state_dict().items())

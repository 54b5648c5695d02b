"""Incomplete and unfit state dicts are loaded and reported as torch does."""
from __future__ import annotations

import re

import pytest
import torch
from conv_layers import LAYERS, make_layer, randomize
from torch import Tensor, nn

from dynconv_mm.layers import TemperatureMixin

TEMPERED = [name for name in LAYERS if isinstance(make_layer(name), TemperatureMixin)]


def other_state(layer: nn.Module) -> dict[str, Tensor]:
    """One of which every tensor differs from the layer's."""
    return {key: value + 3 for key, value in layer.state_dict().items()}


def assert_loaded(layer: nn.Module, before: dict[str, Tensor], state: dict[str, Tensor], spared: set[str]) -> None:
    for key, value in layer.state_dict().items():
        torch.testing.assert_close(value, (before if key in spared else state)[key], msg=key)


def test_what_is_missing_is_named_and_the_rest_loaded(layer):
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for missing in before.keys() - {'temperature'}:
        layer.load_state_dict(before)
        state = other_state(layer)
        del state[missing]
        given = dict(state)
        result = layer.load_state_dict(state, strict=False)
        # torch sets the batches that a norm has counted to 0 where a state dict without a version lacks them
        assert result.missing_keys == ([] if missing.endswith('num_batches_tracked') else [missing])
        assert result.unexpected_keys == []
        assert state == given
        if not missing.endswith('num_batches_tracked'):
            assert_loaded(layer, before, state, {missing})
            with pytest.raises(RuntimeError, match=f'Missing key.*"{re.escape(missing)}"'):
                layer.load_state_dict(state)


def test_a_whole_part_that_is_missing(layer):
    """As ``kernel_fc`` of a checkpoint of one kernel."""
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for part in {key.rpartition('.')[0] for key, _ in layer.named_parameters()} - {''}:
        layer.load_state_dict(before)
        missing = {key for key in before if key.startswith(f'{part}.')}
        state = {key: value for key, value in other_state(layer).items() if key not in missing}
        result = layer.load_state_dict(state, strict=False)
        counted = {key for key in missing if key.endswith('num_batches_tracked')}
        assert set(result.missing_keys) == missing - counted and result.unexpected_keys == []
        assert_loaded(layer, before, state, missing)


def test_what_is_unexpected_is_named(layer):
    for part in {key.rpartition('.')[0] for key in layer.state_dict()}:
        key = f'{part}.extra'.lstrip('.')
        result = layer.load_state_dict({**layer.state_dict(), key: torch.zeros(2)}, strict=False)
        assert result.unexpected_keys == [key] and result.missing_keys == []


def test_a_wrong_shape_is_reported_and_the_rest_loaded(layer):
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for misfit, own in before.items():
        if own.dim() == 0:
            continue
        layer.load_state_dict(before)
        wrong = own.new_zeros(own.shape[0] + 1, *own.shape[1:])
        state = {**other_state(layer), misfit: wrong}
        message = (f'size mismatch for {misfit}: copying a param with shape {wrong.shape} from checkpoint, the shape '
                   f'in current model is {own.shape}.')
        with pytest.raises(RuntimeError) as error:
            layer.load_state_dict(state, strict=False)
        assert str(error.value).count('size mismatch') == 1 and message in str(error.value)
        assert_loaded(layer, before, state, {misfit})


@pytest.mark.parametrize('name', TEMPERED)
@pytest.mark.parametrize('prefix', ['', '0.'], ids=['alone', 'in a model'])
def test_a_load_of_other_things_keeps_the_temperature(name, prefix):
    layer = make_layer(name)
    model = nn.Sequential(layer, nn.Conv2d(8, 4, 1)) if prefix else layer
    layer.set_temperature(.75)
    for state in ({}, {'1.bias': torch.ones(4)} if prefix else {}):
        result = model.load_state_dict(state, strict=False)
        assert layer.temperature == .75 and result.unexpected_keys == []


@pytest.mark.parametrize('name', TEMPERED)
@pytest.mark.parametrize('prefix', ['', '0.'], ids=['alone', 'in a model'])
def test_a_reference_without_a_temperature_loads_as_trained(name, prefix):
    layer = make_layer(name)
    model = nn.Sequential(layer) if prefix else layer
    state = {key: value for key, value in randomize(make_layer(name), 2).state_dict().items() if key != 'temperature'}
    layer.set_temperature(.75)
    model.load_state_dict({prefix + key: value for key, value in state.items()}, strict=True)
    trained = 0 if name.startswith('KW') else 1
    assert layer.temperature == trained
    assert_loaded(layer, {'temperature': torch.tensor(float(trained))}, state, {'temperature'})


@pytest.mark.parametrize('name', TEMPERED)
def test_a_saved_temperature_is_loaded(name):
    layer, other = make_layer(name), make_layer(name)
    other.set_temperature(.75)
    layer.load_state_dict(other.state_dict())
    assert layer.temperature == .75

"""The temperature is saved and loaded with its module, and 1 where a state dict has none."""
from __future__ import annotations

import math

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict as mmengine_load
from torch import nn

from dynconv_mm.layers import TemperatureMixin
from dynconv_mm.layers.temperature import check_temperature


class Layer(TemperatureMixin):

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self._init_temperature(temperature)


def make_model(temperature: float) -> nn.Module:
    """A model with a temperature at its root and one further down."""
    model = Layer(temperature)
    model.stage = nn.Sequential(nn.Linear(1, 1), Layer(temperature))
    return model


def temperatures(model: nn.Module) -> list[float]:
    return [module.temperature.item() for module in model.modules() if isinstance(module, TemperatureMixin)]


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, mmengine_load])
@pytest.mark.parametrize(('without', 'expected'), [
    ((), [7, 7]), (('temperature',), [1, 7]), (('temperature', 'stage.1.temperature'), [1, 1])])
def test_loading(load, without, expected):
    state = make_model(7).state_dict()
    for key in without:
        del state[key]
    keys, model = list(state), make_model(30)
    load(model, state, strict=True)
    assert temperatures(model) == expected
    assert list(state) == keys  # the caller's dict is the caller's


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, mmengine_load])
def test_loading_stays_strict_about_the_rest(load):
    state = make_model(7).state_dict()
    del state['stage.1.temperature'], state['stage.1.weight']
    with pytest.raises(RuntimeError, match=r'stage\.1\.weight'):
        load(make_model(30), state, strict=True)


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, mmengine_load])
def test_a_part_of_a_state_dict_leaves_the_temperature(load):
    model, state = make_model(30), make_model(7).state_dict()
    load(model, {'stage.0.bias': state['stage.0.bias'], 'stage.1.weight': state['stage.1.weight']}, strict=False)
    assert temperatures(model) == [30, 1]
    load(model, {'stage.0.weight': state['stage.0.weight']}, strict=False)
    assert temperatures(model) == [30, 1]


def test_loading_onto_the_meta_device():
    model, state = make_model(30).to('meta'), make_model(7).state_dict()
    del state['stage.1.temperature']
    model.load_state_dict(state, assign=True)
    assert temperatures(model) == [7, 1]


def test_setting_keeps_the_buffer():
    layer = Layer(30)
    buffer = layer.temperature
    layer.set_temperature(2.5)
    assert layer.temperature is buffer and buffer.item() == 2.5 and not buffer.requires_grad


@pytest.mark.parametrize('temperature', [0, -1, math.inf, math.nan, '1', True, None])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match='start must be a positive number'):
        check_temperature(temperature, 'start')
    layer = Layer(30)
    with pytest.raises(ValueError, match='temperature must be a positive number'):
        layer.set_temperature(temperature)
    assert temperatures(layer) == [30]

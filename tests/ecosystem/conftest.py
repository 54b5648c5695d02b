"""The layers that each test of this folder is run with."""
from __future__ import annotations

import pytest
import torch
from conv_layers import LAYERS, make_features, make_layer
from single_thread import single_thread  # noqa: F401  for all tests here
from torch import Tensor, nn


@pytest.fixture(params=LAYERS)
def name(request) -> str:
    """Of a layer."""
    return request.param


@pytest.fixture
def layer(name) -> nn.Module:
    """It, in eval mode."""
    return make_layer(name).eval()


@pytest.fixture
def x() -> Tensor:
    """Features of two images."""
    return make_features()


@pytest.fixture(params=[True, False], ids=['grad', 'no_grad'])
def grad_mode(request):
    """With gradients and without."""
    with torch.set_grad_enabled(request.param):
        yield request.param

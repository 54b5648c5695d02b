"""With these rates, one step moves the kernels of a warm start to what it makes of the static kernel."""
from __future__ import annotations

import pytest
import torch
from model_state import model_state
from torch import nn

from dynconv_mm import CGConv2d, CondConv2d, DCDConv2d, DyConv2d, ODConv2d, WeightNetConv2d
from dynconv_mm.conversion import init_from_static, kernel_rates
from dynconv_mm.layers.condconv import CondConvLinear

LAYERS = {
    'odconv1x': (lambda: ODConv2d(6, 4, 3, kernel_num=1), 64.),
    'odconv3x': (lambda: ODConv2d(6, 4, 3, kernel_num=3), 192.),
    'odconv2x-pointwise': (lambda: ODConv2d(6, 4, 1, kernel_num=2), 32.),
    'odconv-softmax': (lambda: ODConv2d(6, 4, 3, kernel_num=1, spatial_activation='softmax'), 16. * 81),
    'odconv-no-kernel-attention': (lambda: ODConv2d(6, 4, 3, kernel_num=3, attentions=('channel', )), 4 / 3),
    'dyconv': (lambda: DyConv2d(6, 4, 3, kernel_num=4), 4.),
    'condconv': (lambda: CondConv2d(6, 4, 3, kernel_num=8), .5),
    'cgc': (lambda: CGConv2d(6, 4, 3, norm_cfg=None), 4.),
    'weightnet': (lambda: WeightNetConv2d(6, 4, 3, multiplier=6), 3 / 1.5**2),
    'condconv-linear': (lambda: CondConvLinear(6, 4, 8), .5),
}


@pytest.mark.parametrize(('optimizer', 'tolerance'), [(torch.optim.SGD, 1e-10), (torch.optim.Adam, 1e-4)])
@pytest.mark.parametrize('name', LAYERS)
def test_a_step(name, optimizer, tolerance):
    torch.manual_seed(0)
    dynamic, linear = LAYERS[name][0]().double(), name == 'condconv-linear'
    static = (nn.Linear(6, 4) if linear else nn.Conv2d(6, 4, dynamic.kernel_size)).double()
    init_from_static(static, dynamic)
    rates = kernel_rates(nn.ModuleDict(dict(layer=dynamic)), adaptive=optimizer is torch.optim.Adam)
    x = torch.randn(3, 6, dtype=torch.float64) if linear else torch.randn(3, 6, 7, 5, dtype=torch.float64)
    before = static(x).detach()
    for layer, rate in ((static, 1.), (dynamic, rates['layer.weight'])):
        layer(x).pow(2).mean().backward()
        optimizer([layer.weight], lr=.01 * rate).step()
    assert (static(x) - before).abs().max() > 1e-3
    torch.testing.assert_close(dynamic(x), static(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize('name', LAYERS)
def test_values(name):
    make, rate = LAYERS[name]
    assert kernel_rates(nn.ModuleDict(dict(layer=make())))['layer.weight'] == pytest.approx(rate)


def test_static_kernels_learn_as_they_do():
    assert kernel_rates(nn.Sequential(nn.Conv2d(6, 4, 3), DCDConv2d(6, 4, 3))) == {}


@pytest.mark.parametrize('name', LAYERS)
def test_the_model_stays_as_it_is(name):
    model = nn.ModuleDict(dict(layer=LAYERS[name][0]())).eval()
    model.layer.register_forward_hook(print)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    before = model_state(model)
    assert kernel_rates(model) == {'layer.weight': pytest.approx(LAYERS[name][1])}
    assert model_state(model) == before

"""Layers by kind, wherever they are."""
from torch import nn

from dynconv_mm import ODConv2d
from dynconv_mm.analysis.find_layers import find_layers


def test_find_layers():
    model = nn.Sequential(nn.ReLU(), nn.Sequential(ODConv2d(2, 3, 1)))
    assert find_layers(model, ODConv2d) == {'1.0': model[1][0]}

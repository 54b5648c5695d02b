"""CGCResNet: which convolutions are gated, and the parameters that ODConv's Table 2 prints."""
import pytest
import torch
from torch import nn

from dynconv_mm.layers import CGConv2d
from dynconv_mm.models import CGCResNet


@pytest.mark.parametrize(('depth', 'printed', 'ours'), [(18, 11.69, 11.722), (50, 25.59, 25.590)])
def test_parameters(depth, printed, ours):
    """ResNet18's printed figure is that of the static network: its layers of C = 512 alone add 8000 parameters."""
    with torch.device('meta'):
        model = CGCResNet(depth=depth)
    count = sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000
    assert round(count / 1e6, 3) == ours and abs(ours - printed) < .04


@pytest.mark.parametrize(('options', 'gated'), [
    (dict(depth=18), 17), (dict(depth=50), 17), (dict(depth=50, deep_stem=True, avg_down=True), 19)], ids=str)
def test_convolutions_of_more_than_one_element(options, gated):
    model = CGCResNet(stem_channels=8, base_channels=8, group_channels=4, **options)
    layers = [module for module in model.modules() if isinstance(module, CGConv2d)]
    assert len(layers) == gated and all(layer.kernel_size > (1, 1) for layer in layers)
    assert all(conv.kernel_size == (1, 1) for conv in model.modules() if isinstance(conv, nn.Conv2d))
    assert {layer.group_channels for layer in layers} == {4}


def test_maps_that_are_no_squares():
    model = CGCResNet(depth=18, stem_channels=8, base_channels=8, out_indices=(0, 3)).train()
    maps = model(torch.randn(2, 3, 75, 97))
    assert [tuple(x.shape[2:]) for x in maps] == [(19, 25), (3, 4)]
    sum(x.square().sum() for x in maps).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(('name', 'value'), [('group_channels', 0), ('depth', 19)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        CGCResNet(**{'depth': 18, name: value})

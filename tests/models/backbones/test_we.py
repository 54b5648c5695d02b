"""WEResNet: all convolutions are excited, with nearly the parameters that ODConv's Table 2 prints."""
import pytest
import torch
from torch import nn

from dynconv_mm.layers import WEConv2d
from dynconv_mm.models import WEResNet


@pytest.mark.parametrize(('depth', 'printed', 'ours'), [(18, 11.90, 11.846), (50, 28.10, 28.059)])
def test_parameters(depth, printed, ours):
    """The table quotes the paper of weight excitation, whose code is not public. Of what was tried (3×3 convolutions
    alone, without the stem or the shortcuts, FCs without biases), every convolution and FCs with biases is nearest."""
    with torch.device('meta'):
        model = WEResNet(depth=depth)
    count = sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000
    assert round(count / 1e6, 3) == ours and abs(ours - printed) < .06


@pytest.mark.parametrize('options', [dict(depth=18), dict(depth=50, deep_stem=True, avg_down=True)], ids=str)
def test_all_convolutions(options):
    model = WEResNet(stem_channels=8, base_channels=8, reduction=1 / 2, location=True, magnitude=False, **options)
    layers = [module for module in model.modules() if isinstance(module, WEConv2d)]
    assert len(layers) == (20 if options['depth'] == 18 else 55)
    assert not any(isinstance(module, nn.Conv2d) for module in model.modules())
    assert all(not layer.magnitude and len(layer.location.fc1.weight) == max(layer.in_channels // 2, 1)
               for layer in layers)


@pytest.mark.parametrize(('name', 'value'), [('reduction', 2), ('location', None), ('depth', 19)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        WEResNet(**{'depth': 18, name: value})

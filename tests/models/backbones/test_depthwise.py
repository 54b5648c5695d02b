"""ResNets with depthwise dynamic convolutions: where these stand, and the parameters that DCDC's Table II prints."""
from functools import partial

import pytest
import torch

from dynconv_mm.layers import CondConv2d, WeightNetConv2d
from dynconv_mm.models import DwCondConvResNet, DwWeightNetResNet

SMALL = dict(depth=26, stem_channels=8, base_channels=8)
NETWORKS = [(partial(DwCondConvResNet, kernel_num=3, **SMALL), CondConv2d),
            (partial(DwWeightNetResNet, multiplier=4, **SMALL), WeightNetConv2d)]


@pytest.mark.parametrize(('network', 'printed', 'ours'), [
    (DwCondConvResNet, '14.5', 14.542),
    (DwWeightNetResNet, '14.4', 14.448),  # cut off, not rounded
])
def test_parameters(network, printed, ours):
    with torch.device('meta'):
        model = network(depth=50)
    count = sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000
    assert round(count / 1e6, 3) == ours and f'{ours:.3f}'.startswith(printed)


@pytest.mark.parametrize(('network', 'layer'), NETWORKS)
def test_the_middle_of_each_block(network, layer):
    model = network(out_indices=(0, 1, 2, 3))
    middles = [block.conv2 for stage in model.stages for block in getattr(model, stage)]
    assert len(middles) == 8 == sum(isinstance(module, layer) for module in model.modules())
    for middle in middles:
        assert middle.groups == middle.in_channels == middle.out_channels and middle.routing is not None
        assert middle.kernel_size == (3, 3) and len(middle.weight) == (3 if layer is CondConv2d else 2)
    maps = model.train()(torch.randn(2, 3, 75, 97))
    assert [tuple(x.shape[1:]) for x in maps] == [(32, 19, 25), (64, 10, 13), (128, 5, 7), (256, 3, 4)]
    sum(x.square().sum() for x in maps).backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]


@pytest.mark.parametrize(('network', 'name', 'value'), [
    (NETWORKS[0][0], 'kernel_num', 0), (NETWORKS[0][0], 'plan', 'quick'), (NETWORKS[0][0], 'depth', 18),
    (NETWORKS[1][0], 'multiplier', 5), (NETWORKS[1][0], 'depth', 18)], ids=str)
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name):
        network(**{name: value})

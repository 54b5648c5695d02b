"""DDFResNet has a DDF in the middle of each block, and the parameters that DCDC's Table I prints."""
import pytest
import torch

from dynconv_mm.layers import DDFConv2d
from dynconv_mm.models import DDFResNet


@pytest.mark.parametrize(('depth', 'printed'), [(50, '16.8'), (101, '28.1')])
def test_parameters(depth, printed):
    with torch.device('meta'):
        model = DDFResNet(depth=depth)
    count = sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000
    assert f'{count / 1e6:.1f}' == printed


def test_the_middle_of_each_block():
    model = DDFResNet(depth=26, stem_channels=16, base_channels=8, heads=2, combine='add', reduction=1 / 2,
                      out_indices=(0, 1, 2, 3))
    middles = [block.conv2 for stage in model.stages for block in getattr(model, stage)]
    assert len(middles) == 8 and all(type(middle) is DDFConv2d for middle in middles)
    assert {(middle.heads, middle.combine, middle.kernel_size) for middle in middles} == {(2, 'add', (3, 3))}
    assert [len(middle.channel_branch[1].weight) for middle in middles] == [4, 8, 8, 16, 16, 16, 16, 32]
    maps = model.train()(torch.randn(2, 3, 75, 97))
    assert [tuple(x.shape[1:]) for x in maps] == [(32, 19, 25), (64, 10, 13), (128, 5, 7), (256, 3, 4)]
    sum(x.square().sum() for x in maps).backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]


@pytest.mark.parametrize(('name', 'value'), [('heads', 3), ('combine', 'sum'), ('reduction', 2), ('depth', 18)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        DDFResNet(**{'depth': 50, name: value})

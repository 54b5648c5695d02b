"""WeightNetResNet: what is dynamic, what a block shares, and nearly the parameters that ODConv's Table 2 prints."""
import pytest
import torch
from torch import nn

from dynconv_mm.layers import WeightNetConv2d
from dynconv_mm.layers.weightnet import WeightNetReduction
from dynconv_mm.models import WeightNetResNet

SMALL = dict(stem_channels=8, base_channels=8)


@pytest.mark.parametrize(('depth', 'printed', 'ours'), [(18, 11.93, 11.922), (50, 30.38, 30.303)])
def test_parameters(depth, printed, ours):
    """ODConv does not say which convolutions it replaced. Of what was tried, these, with M = G = 2, are the nearest:
    with shortcuts that share the block's reduction 11.915M and 30.216M, without the shortcuts 11.885M and 29.856M, with
    a reduction for each convolution 11.986M and 28.610M."""
    with torch.device('meta'):
        model = WeightNetResNet(depth=depth)
    count = sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000
    assert round(count / 1e6, 3) == ours and abs(ours - printed) < .08


@pytest.mark.parametrize(('options', 'dynamic', 'static'), [
    (dict(depth=18), 16 + 3, ['conv1']), (dict(depth=50, avg_down=True), 48 + 4, ['conv1']),
    (dict(depth=18, deep_stem=True), 16 + 3, [f'stem.{i}.conv' for i in range(3)])], ids=str)
def test_all_but_the_stem_are_dynamic(options, dynamic, static):
    modules = dict(WeightNetResNet(**SMALL, **options).named_modules())
    assert sum(isinstance(module, WeightNetConv2d) for module in modules.values()) == dynamic
    assert [name for name, module in modules.items() if isinstance(module, nn.Conv2d)] == static
    for name, module in modules.items():
        if isinstance(module, WeightNetConv2d):
            assert (module.routing is None) == ('downsample' not in name)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_the_convolutions_of_a_block_share_the_reduction_of_its_input(training):
    torch.manual_seed(0)
    block = WeightNetResNet(depth=50, **SMALL).get_submodule('layer2.0').train(training)
    for parameter in block.routing.parameters():
        nn.init.normal_(parameter, std=2.)
    x, seen = torch.randn(3, 32, 5, 6), []
    for name, module in block.named_modules():
        if isinstance(module, WeightNetConv2d) and 'downsample' not in name:
            module.register_forward_hook(lambda conv, inputs, output: seen.append(inputs[1]))
    block(x)
    reduced = x.mean((2, 3)) @ block.routing.fc.weight[:, :, 0, 0].T + block.routing.fc.bias
    assert type(block.routing) is WeightNetReduction and reduced.shape == (3, 16) and len(seen) == 3
    for given in seen:
        torch.testing.assert_close(given, reduced)


def test_every_parameter_learns():
    model = WeightNetResNet(depth=18, **SMALL).train()
    model(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]


@pytest.mark.parametrize(('name', 'value'), [('multiplier', 3), ('group_multiplier', 0), ('depth', 19)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        WeightNetResNet(**{'depth': 18, name: value})

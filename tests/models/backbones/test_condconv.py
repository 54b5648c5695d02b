"""CondConv's networks have the parameters that ODConv's tables report, and one routing a block."""
import copy
from functools import partial

import pytest
import torch
from torch import nn

from dynconv_mm.layers import CondConv2d
from dynconv_mm.layers.condconv import CondConvLinear, CondConvRouting
from dynconv_mm.models import CondConvMobileNetV2, CondConvResNet

SMALL_R18 = partial(CondConvResNet, depth=18, kernel_num=2, stem_channels=8, base_channels=8)
SMALL_R50 = partial(CondConvResNet, depth=50, kernel_num=2, stem_channels=8, base_channels=8)
SMALL_MOBILENET = partial(CondConvMobileNetV2, widen_factor=0.25, kernel_num=2)


def on_meta(network, **kwargs) -> nn.Module:
    with torch.device('meta'):
        return network(**kwargs)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(('network', 'kwargs', 'millions'), [
    (CondConvResNet, dict(depth=18), 81.346),  # ODConv, Table 2: 81.35
    (CondConvResNet, dict(depth=50), 129.866),  # printed 129.86
    (CondConvMobileNetV2, dict(widen_factor=1.), 22.878),  # ODConv, Table 1: 22.88
    (CondConvMobileNetV2, dict(widen_factor=0.75), 17.514),
    (CondConvMobileNetV2, dict(widen_factor=0.5), 13.614),
])
def test_parameters(network, kwargs, millions):
    backbone = on_meta(network, **kwargs)
    classifier = on_meta(CondConvLinear, in_features=backbone.feat_dim, out_features=1000)
    assert round((parameters(backbone) + parameters(classifier)) / 1e6, 3) == millions


# Which convolutions are dynamic, and what they share.


@pytest.mark.parametrize(('network', 'kwargs', 'blocks', 'convs'), [
    (CondConvResNet, dict(depth=18), ['layer3.1', 'layer4.0', 'layer4.1'], 2),
    (CondConvResNet, dict(depth=50), ['layer4.0', 'layer4.1', 'layer4.2'], 3),
    (CondConvResNet, dict(depth=18, num_stages=2, out_indices=(1, )), ['layer1.1', 'layer2.0', 'layer2.1'], 2),
    (CondConvResNet, dict(depth=18, dynamic_blocks=1), ['layer4.1'], 2),
    (CondConvMobileNetV2, dict(), ['layer5.1', 'layer5.2', 'layer6.0', 'layer6.1', 'layer6.2', 'layer7.0'], 3),
    (CondConvMobileNetV2, dict(dynamic_blocks=2), ['layer6.2', 'layer7.0'], 3),
])
def test_the_last_blocks_are_dynamic(network, kwargs, blocks, convs):
    model = on_meta(network, **kwargs)
    dynamic = [name for name, module in model.named_modules() if isinstance(module, CondConv2d)]
    assert len(dynamic) == convs * len(blocks)
    assert list(dict.fromkeys('.'.join(name.split('.')[:2]) for name in dynamic)) == blocks
    assert not [name for name in dynamic if 'downsample' in name]
    # one routing a block, at the block, once in the state dict
    assert [name for name, module in model.named_modules(remove_duplicate=False)
            if isinstance(module, CondConvRouting)] == [f'{block}.routing' for block in blocks]
    assert [name for name in model.state_dict() if 'routing' in name] == [
        f'{block}.routing.fc.{name}' for block in blocks for name in ('weight', 'bias')]


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_without_attention(network):
    """ODConv, 3.1: n kernels in the same places, and no routing."""
    model, weighted = network(attention=False), network()
    names = {name for name, module in model.named_modules() if isinstance(module, CondConv2d)}
    assert names == {name for name, module in weighted.named_modules() if isinstance(module, CondConv2d)} and names
    assert set(weighted.state_dict()) - set(model.state_dict()) == {
        name for name in weighted.state_dict() if 'routing' in name}
    assert model(torch.randn(2, 3, 32, 32))[-1].isfinite().all()
    with pytest.raises(ValueError, match='attention must be True or False'):
        network(attention='no')


def test_all_blocks_can_be_dynamic():
    modules = list(on_meta(CondConvMobileNetV2, dynamic_blocks=17).modules())
    assert sum(isinstance(module, CondConv2d) for module in modules) == 50  # all but the first and the last
    assert sum(isinstance(module, CondConvRouting) for module in modules) == 17


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize(('network', 'block'), [(SMALL_R18, 'layer4.0'), (SMALL_R50, 'layer4.1'),
                                                (SMALL_MOBILENET, 'layer6.0'), (SMALL_MOBILENET, 'layer6.1')])
def test_the_convolutions_of_a_block_share_the_routing_of_its_input(network, block, training):
    """A block is the static block whose kernels are mixed by r(block's input), sample by sample in eval mode."""
    torch.manual_seed(0)
    block = network().get_submodule(block).train(training)
    for name, parameter in block.named_parameters():
        if name.startswith('routing'):
            nn.init.normal_(parameter, std=2.)  # weights that differ from sample to sample
    in_channels = block.routing.fc.weight.shape[1]
    x = torch.randn(3, in_channels, 5, 6)
    seen = []
    for module in block.modules():
        if isinstance(module, CondConv2d):
            module.register_forward_hook(lambda conv, inputs, output: seen.append((conv, *inputs, output)))
    block(x)
    weights = torch.sigmoid(x.mean((2, 3)) @ block.routing.fc.weight[:, :, 0, 0].T + block.routing.fc.bias)
    assert weights.std(0).min() > .01
    assert len(seen) == sum(isinstance(module, CondConv2d) for module in block.modules())
    for conv, features, routing_weights, output in seen:
        torch.testing.assert_close(routing_weights, weights)
        for b in range(3):
            kernel = sum(weights[b, i] * conv.weight[i] for i in range(2))
            expected = nn.functional.conv2d(features[b:b + 1], kernel, None, conv.stride, conv.padding, 1, conv.groups)
            torch.testing.assert_close(output[b:b + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('network', [SMALL_R18, SMALL_R50, SMALL_MOBILENET])
def test_with_equal_experts_it_is_the_static_network(network, training):
    """Kernels that add up to a static one at r = 1/2: then maps are those of the static network."""
    torch.manual_seed(0)
    model = network()
    static = network.func.__mro__[2](**{name: value for name, value in network.keywords.items()
                                        if name != 'kernel_num'})
    state = {name: value for name, value in static.state_dict().items()}
    for name, parameter in model.named_parameters():
        if 'routing' in name:
            state[name] = torch.zeros_like(parameter)
        elif parameter.dim() == 5:
            state[name] = state[name][None].expand_as(parameter)  # n/2 = 1 of it
    model.load_state_dict(state)
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.train(training)(image), static.train(training)(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
def test_copies(network):
    model = network().eval()
    twin, image = copy.deepcopy(model), torch.randn(2, 3, 64, 64)
    assert torch.equal(twin(image)[0], model(image)[0])


@pytest.mark.parametrize('network', [SMALL_R18, SMALL_MOBILENET])
@pytest.mark.parametrize(('name', 'value'), [
    ('kernel_num', 0), ('kernel_num', 2.), ('dynamic_blocks', 0), ('dynamic_blocks', 18), ('dynamic_blocks', True),
    ('dynamic_blocks', '3'), ('plan', 'quick'), ('out_indices', (9, )),
])
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name):
        network(**{name: value})


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(('kind', 'kwargs', 'channels'), [
    ('CondConvResNet', dict(depth=18, stem_channels=8, base_channels=8), 64),
    ('CondConvMobileNetV2', dict(widen_factor=0.25), 1280),
])
def test_classifier_trains_every_parameter(kind, kwargs, channels, with_cp):
    registry = pytest.importorskip('mmpretrain.registry').MODELS
    structures = pytest.importorskip('mmpretrain.structures')
    torch.manual_seed(0)
    model = registry.build(dict(
        type='ImageClassifier', backbone=dict(type=kind, with_cp=with_cp, **kwargs),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='CondConvLinearClsHead', num_classes=5, in_channels=channels,
                  loss=dict(type='CrossEntropyLoss'))))
    samples = [structures.DataSample().set_gt_label(label) for label in range(4)]
    image = torch.randn(4, 3, 64, 64)
    model.train()(image, samples, mode='loss')['loss'].backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()]
    scores = torch.stack([sample.pred_score for sample in model.eval()(image, mode='predict')])
    torch.testing.assert_close(scores.sum(1), torch.ones(4))

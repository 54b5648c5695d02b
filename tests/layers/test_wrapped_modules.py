"""What is done to a layer, its norm or a part of its attention holds in eval mode as it does in training."""
from __future__ import annotations

import pytest
import torch
from conv_layers import CHANNELS, LAYERS, make_features, make_layer, randomize
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from wrapped import CHANGES, BatchNormAct, global_hooks

from dynconv_mm.layers import DCDConv2d
from dynconv_mm.layers.conv_norm_act import ConvNormAct
from dynconv_mm.layers.static_conv import StaticConv2d

CONVS = [*LAYERS, 'StaticConv2d']
NO_WEIGHT = ('DCDConv2d', 'KWConv2d', 'Involution2d', 'DCDC2d', 'DDFConv2d', 'DDFConv2d add',
             'PairwiseSelfAttention2d', 'LocalRelation2d', 'StandAloneSelfAttention2d', 'FDConv2d', 'LSConv2d')
#: what a layer computes its attentions or kernels by, and that it calls
PARTS = {
    'ODConv2d 1x': ['attention', 'attention.fc', 'attention.bn', 'attention.channel_fc', 'attention.filter_fc',
                    'attention.spatial_fc'],
    'DyConv2d': ['attention', 'attention.fc1', 'attention.fc2'],
    'CondConv2d': ['routing', 'routing.fc'],
    'DCDConv2d': ['fc', 'fc.0', 'fc.1', 'fc_scale', 'fc_phi', 'bn1', 'bn2'],
    'Involution2d': ['conv1', 'conv1.conv', 'conv1.bn', 'conv2', 'conv2.conv'],
    'DCDC2d': ['lsa', 'lsa.dw1', 'lsa.dw1.conv', 'lsa.dw1.bn', 'lsa.conv2', 'gsi', 'gsi.conv1.conv', 'gsi.fc',
               'gsi.conv2.conv', 'gsi.conv2.bn'],
    'CGConv2d': ['ce', 'ce_bn', 'gd', 'ci_bn2', 'ci', 'ci_bn', 'gd2'],
    'WeightNetConv2d': ['routing', 'routing.fc', 'fc'],
    'DDFConv2d': ['channel_branch'],  # what is inside is standardised: half of it is the same
    'KWConv2d': ['attention', 'attention.fc1', 'attention.norm1', 'attention.fc2'],
    'WEConv2d': ['location', 'location.fc1', 'location.fc2'],
    'PairwiseSelfAttention2d': ['conv1', 'conv2', 'conv3', 'conv_p', 'conv_w', 'conv_w.2', 'conv_w.5'],
    'LocalRelation2d': ['query', 'key', 'geometry_prior.layers', 'proj'],
    'StandAloneSelfAttention2d': ['query', 'key', 'value', 'embedding', 'pool'],
    'FDConv2d': ['attention', 'attention.fc', 'attention.bn', 'attention.relu', 'attention.channel_fc',
                 'attention.filter_fc', 'attention.spatial_fc', 'attention.kernel_fc', 'local_attention',
                 'local_attention.norm', 'local_attention.conv', 'band_conv'],
    'LSConv2d': ['conv1', 'conv1.conv', 'conv1.bn', 'conv2', 'conv3', 'kernel_norm', 'norm'],
}
PARTS['DDFConv2d add'] = PARTS['DDFConv2d']
PARTS['ODConv2d 4x'] = PARTS['ODConv2d 4x, own attentions'] = [*PARTS['ODConv2d 1x'], 'attention.kernel_fc']


@pytest.fixture(params=[True, False], ids=['grad', 'no_grad'])
def grad_mode(request):
    with torch.set_grad_enabled(request.param):
        yield


def make_block(name: str) -> ConvNormAct:
    block = ConvNormAct(CHANNELS, CHANNELS, 3, padding=1, norm_cfg=dict(type='BN'))
    block.conv = StaticConv2d(CHANNELS, CHANNELS, 3, padding=1) if name == 'StaticConv2d' else make_layer(name)
    return randomize(block).double().eval()


def assert_called_alike(block: ConvNormAct, calls: list, batch: int) -> None:
    """Output and calls are those of convolution, norm and activation, called one after the other."""
    x = make_features(batch, dtype=torch.float64)
    expected = torch.relu(block.norm(block.conv(x)))
    by_hand, calls[:] = list(calls), []
    torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)
    assert len(by_hand) == 1
    torch.testing.assert_close(calls, by_hand, rtol=1e-9, atol=1e-9)


@pytest.mark.one_at_a_time('name', 'part', 'batch')
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', CONVS)
@pytest.mark.parametrize('part', ['conv', 'bn'])
def test_a_changed_convolution_or_norm(name, part, batch, grad_mode):
    plain = make_block(name)(make_features(batch, dtype=torch.float64))
    for change, apply in CHANGES.items():
        if change == 'parametrization' and part == 'conv' and name in NO_WEIGHT:
            continue
        block, calls = make_block(name), []
        setattr(block, part, apply(getattr(block, part), calls))
        assert_called_alike(block, calls, batch)
        assert not torch.allclose(block(make_features(batch, dtype=torch.float64)), plain), change


@pytest.mark.one_at_a_time('name', 'batch')
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', CONVS)
def test_a_norm_with_an_activation_in_it(name, batch, grad_mode):
    block, x = make_block(name), make_features(batch, dtype=torch.float64)
    norm = BatchNormAct(CHANNELS).double().eval()
    norm.load_state_dict(block.bn.state_dict())
    block.bn = norm
    torch.testing.assert_close(block(x), torch.relu(norm(block.conv(x))), rtol=1e-9, atol=1e-9)


@pytest.mark.one_at_a_time('name', 'part', 'batch')
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', CONVS)
@pytest.mark.parametrize('part', ['conv', 'bn'])
def test_hooks_of_all_modules(name, part, batch, grad_mode):
    block, calls = make_block(name), []
    with global_hooks(getattr(block, part), calls):
        assert_called_alike(block, calls, batch)


def changed(layer: nn.Module, part: str, change: str, calls: list) -> nn.Module:
    """The layer with one of its modules changed."""
    owner, _, name = part.rpartition('.')
    owner = layer.get_submodule(owner)
    setattr(owner, name, CHANGES[change](getattr(owner, name), calls))
    return layer


@pytest.mark.one_at_a_time('name', 'batch')
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', LAYERS)
def test_a_changed_part_of_an_attention(name, batch, grad_mode):
    """It is called once with what it gets in training, where norms are in eval mode too; and all ways to halve an
    output come to the same."""
    x, plain = make_features(batch, dtype=torch.float64), make_layer(name).double().eval()
    expected = plain(x)
    for part in PARTS[name]:
        outputs = {}
        for change in CHANGES.keys() - {'parametrization'}:
            if change == 'Sequential' and part == 'attention':  # which takes a temperature too
                continue
            calls = []
            layer = changed(make_layer(name).double().eval(), part, change, calls)
            outputs[change] = layer(x)
            assert len(calls) == 1, f'{part}, {change}: {len(calls)} calls'
            assert not torch.allclose(outputs[change], expected), f'{part}, {change}'
            seen = calls.pop()
            layer.train()
            for norm in layer.modules():
                if isinstance(norm, _BatchNorm):
                    norm.eval()
            with torch.enable_grad():
                torch.testing.assert_close(layer(x), outputs[change], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(calls, [seen], rtol=1e-9, atol=1e-9)
        for change in outputs.keys() & {'patched forward', 'forward hook', 'checkpoint_wrapper', 'Sequential'}:
            torch.testing.assert_close(outputs[change], outputs['subclass'], rtol=1e-9, atol=1e-9)


@pytest.mark.one_at_a_time('name', 'batch')
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', LAYERS)
def test_hooks_of_all_modules_see_the_parts(name, batch, grad_mode):
    x = make_features(batch, dtype=torch.float64)
    for part in PARTS[name]:
        layer, calls = make_layer(name).double().eval(), []
        expected = changed(make_layer(name).double().eval(), part, 'forward hook', [])(x)
        with global_hooks(layer.get_submodule(part), calls):
            torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
        assert len(calls) == 1, part


@pytest.mark.one_at_a_time('name', 'batch')
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', LAYERS)
def test_every_module_that_owns_parameters_is_called(name, batch, grad_mode):
    """Once, so that its hooks run: those of DCD's matrices too."""
    layer, called = make_layer(name).double().eval(), []
    owners = [path for path, module in layer.named_modules() if path and module._parameters
              and not isinstance(module, nn.ParameterList)]  # of cells, which is read and has nothing to call
    for path in owners:
        layer.get_submodule(path).register_forward_hook(lambda *arguments, path=path: called.append(path))
    layer(make_features(batch, dtype=torch.float64))
    assert sorted(called) == sorted(owners)


@pytest.mark.parametrize('change', [
    lambda norm, calls: norm.register_forward_hook(lambda module, inputs, output: calls.append(1)),
    lambda norm, calls: setattr(norm, 'forward', lambda x: (calls.append(1), x)[1]),
], ids=['hook', 'patch'])
def test_a_norm_of_a_single_sample_is_called(change):
    """In training, where it has no statistics to take."""
    layer, calls = make_layer('ODConv2d 4x').train(), []
    norm, means = layer.attention.bn, layer.attention.bn.running_mean.clone()
    change(norm, calls)
    with pytest.warns(UserWarning, match='single sample'):
        layer(make_features(1))
    assert len(calls) == 1 and norm.training and torch.equal(norm.running_mean, means)


def test_a_call_that_is_patched_for_all_modules(monkeypatch):
    block, x, calls = make_block('ODConv2d 4x'), make_features(1, dtype=torch.float64), []
    call = nn.Module.__call__
    monkeypatch.setattr(nn.Module, '__call__', lambda self, *args, **kwargs: (
        calls.append(type(self).__name__), call(self, *args, **kwargs))[1])
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            block(x)
    assert calls[:len(calls) // 2] == calls[len(calls) // 2:] and {'BatchNorm2d', 'FullyConnected'} <= set(calls)


def test_parts_of_a_depthwise_dcd():
    """Whose kernels no convolution takes by itself."""
    layer, calls = DCDConv2d(8, 8, 3, padding=1, groups=8, variant='paper'), []
    for name in ('conv', 'p', 'r'):
        part = nn.utils.weight_norm(layer.get_submodule(name))
        part.register_forward_hook(lambda module, inputs, output: calls.append(module))
    for _ in range(2):  # a weight that were not computed anew would have no graph the second time
        layer(torch.randn(2, 8, 7, 7)).sum().backward()
    assert calls == [layer.conv, layer.p, layer.r] * 2

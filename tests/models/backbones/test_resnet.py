"""The static ResNet is mmpretrain's: names, shapes, outputs; and it freezes as mmdet's does."""
import copy
import functools

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.models.backbones import CondConvResNet, DyConvResNet, ODConvResNet, ResNet

SMALL = dict(stem_channels=8, base_channels=8)
VARIANTS = {
    'r18': dict(depth=18),
    'r34': dict(depth=34),
    'r50': dict(depth=50),
    'caffe': dict(depth=50, style='caffe'),
    'caffe basic': dict(depth=18, style='caffe'),
    'v1c': dict(depth=18, deep_stem=True),
    'v1d': dict(depth=50, deep_stem=True, avg_down=True),
    'avg_down caffe': dict(depth=50, avg_down=True, style='caffe'),
    'dilated': dict(depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'dilated basic': dict(depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'all maps': dict(depth=18, out_indices=(0, 1, 2, 3)),
    'two maps': dict(depth=18, out_indices=(2, 0)),
    'two stages': dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1, )),
    'GN': dict(depth=18, norm_cfg=dict(type='GN', num_groups=4), deep_stem=True),
    'drop_path': dict(depth=18, drop_path_rate=0.5),
    'grey': dict(depth=18, in_channels=1),
}


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.fixture(scope='module')
def reference():
    """mmpretrain's ResNet."""
    return pytest.importorskip('mmpretrain.models').ResNet


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_names_and_shapes(reference, depth, monkeypatch):
    # mmpretrain reads the values of a linspace, which the meta device has not
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        ours, theirs = ResNet(depth), reference(depth)
    assert shapes(ours) == shapes(theirs)
    assert ours.feat_dim == theirs.feat_dim


@pytest.mark.parametrize(('depth', 'blocks', 'params'), [
    (10, (1, 1, 1, 1), None),  # DCD, Table 4b
    (26, (1, 2, 4, 1), 13.7), (38, (2, 3, 5, 2), 19.6),  # DCDC, Table I, with a classifier of 1000 classes
])
def test_depths_of_the_papers(depth, blocks, params):
    with torch.device('meta'):
        model = ResNet(depth)
        dynamic = ODConvResNet(depth, kernel_num=1)
    assert tuple(len(getattr(model, stage)) for stage in model.stages) == blocks == dynamic.stage_blocks
    assert model.feat_dim == dynamic.feat_dim == (512 if depth == 10 else 2048)
    if params is not None:
        count = sum(parameter.numel() for parameter in model.parameters()) + 2049 * 1000
        assert round(count / 1e6, 1) == params


def test_registered():
    plugins = [dict(cfg=dict(type='DynConvSELayer'), position='after_conv2')]
    model = MODELS.build(dict(type='StaticResNet', depth=10, plugins=plugins, **SMALL))
    assert type(model) is ResNet and model.layer1[0].se_layer is not None


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_outputs(reference, variant, training, compare_networks):
    kwargs = {**SMALL, **VARIANTS[variant]}
    compare_networks(ResNet(**kwargs), reference(**kwargs), training, kwargs.get('in_channels', 3))


@pytest.mark.parametrize('keys, expected', [
    (dict(contract_dilation=True, dilations=(1, 1, 2, 4)), [[1, 2, 2, 2, 2, 2], [2, 4, 4]]),
    (dict(multi_grid=(1, 2, 4), dilations=(1, 1, 1, 2)), [[1] * 6, [1, 2, 4]]),
    (dict(multi_grid=(3, 2, 1), contract_dilation=True, dilations=(1, 1, 6, 4)), [[3, 6, 6, 6, 6, 6], [3, 2, 1]]),
], ids=['contract_dilation', 'multi_grid', 'both'])
def test_dilations_of_blocks(keys, expected):
    """As mmseg's; the size of the maps and the names stay."""
    model = ODConvResNet(50, kernel_num=1, out_indices=(2, 3), strides=(1, 2, 1, 1), **SMALL, **keys)
    assert [[block.conv2.dilation[0] for block in stage] for stage in (model.layer3, model.layer4)] == expected
    assert {block.conv2.dilation for stage in (model.layer1, model.layer2) for block in stage} == {(1, 1)}
    assert [y.shape[2:] for y in model.eval()(torch.randn(1, 3, 64, 48))] == [(8, 6)] * 2
    assert model.state_dict().keys() == ODConvResNet(50, kernel_num=1, **SMALL).state_dict().keys()


@pytest.mark.parametrize('norm_eval', [False, True])
@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_freezes_as_mmdet(frozen_stages, norm_eval):
    mmdet = pytest.importorskip('mmdet.models')
    kwargs = dict(depth=18, frozen_stages=frozen_stages, norm_eval=norm_eval, **SMALL)
    states = []
    for network in (ResNet(**kwargs), mmdet.ResNet(**kwargs)):
        network.train()
        states.append(({name: parameter.requires_grad for name, parameter in network.named_parameters()},
                       {name: norm.training for name, norm in network.named_modules()
                        if isinstance(norm, _BatchNorm)}))
    assert states[0] == states[1]


def last_norms(model: ResNet) -> list[torch.Tensor]:
    return [parameter for name, parameter in model.named_parameters() if name.endswith('.bn2.weight')]


@pytest.mark.parametrize('zero', [False, True])
def test_zero_init_residual(zero):
    model = ResNet(18, zero_init_residual=zero, **SMALL)
    model.init_weights()
    assert len(last_norms(model)) == 8
    assert all((weight == (0 if zero else 1)).all() for weight in last_norms(model))


@pytest.mark.parametrize('as_list', [False, True])
def test_zero_init_residual_spares_loaded_weights(tmp_path, as_list):
    source = ResNet(18, **SMALL)
    torch.save(source.state_dict(), tmp_path / 'r18.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'r18.pth'))
    model = ResNet(18, init_cfg=[init_cfg] if as_list else init_cfg, **SMALL)
    model.init_weights()
    assert all((weight == 1).all() for weight in last_norms(model))
    assert torch.equal(model.conv1.weight, source.conv1.weight)


def test_zero_init_residual_happens_once():
    model = ResNet(18, **SMALL)
    model.init_weights()
    for weight in last_norms(model):
        torch.nn.init.ones_(weight)
    model.init_weights()
    assert all((weight == 1).all() for weight in last_norms(model))


# Plugins.


@pytest.mark.parametrize('network', [ResNet, DyConvResNet, CondConvResNet, ODConvResNet])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('kind', ['DynConvSELayer', 'DynConvCBAM', 'DynConvECALayer'])
def test_feature_attention_of_every_resnet(network, depth, kind):
    last = {18: 2, 50: 3}[depth]
    model = network(depth, **SMALL, plugins=[dict(cfg=dict(type=kind), position=f'after_conv{last}')])
    name = {'DynConvSELayer': 'se_layer', 'DynConvCBAM': 'cbam', 'DynConvECALayer': 'eca_layer'}[kind]
    assert sum(key.endswith(f'.{name}') for key, _ in model.named_modules()) == sum(model.stage_blocks)
    model(torch.randn(2, 3, 32, 32))[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# in millions, with the classifier: ODConv, Tables 2, 3 and 14
@pytest.mark.parametrize(('network', 'depth', 'kind', 'millions'), [
    (ResNet, 18, 'DynConvSELayer', 11.78), (ResNet, 18, 'DynConvCBAM', 11.78), (ResNet, 18, 'DynConvECALayer', 11.69),
    (ResNet, 50, 'DynConvSELayer', 28.07), (ResNet, 50, 'DynConvCBAM', 28.07), (ResNet, 50, 'DynConvECALayer', 25.56),
    (ResNet, 101, 'DynConvSELayer', 49.29), (ResNet, 101, 'DynConvCBAM', 49.30),
    (ResNet, 101, 'DynConvECALayer', 44.55),
    (ODConvResNet, 18, 'DynConvSELayer', 44.99),
])
def test_parameters_of_networks_with_feature_attention(network, depth, kind, millions):
    position = 'after_conv2' if depth == 18 else 'after_conv3'
    with torch.device('meta'):
        model = network(depth, plugins=[dict(cfg=dict(type=kind), position=position)])
    classifier = 1000 * model.feat_dim + 1000
    assert round((sum(parameter.numel() for parameter in model.parameters()) + classifier) / 1e6, 2) == millions


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_plugins_as_mmdet(training, compare_networks):
    """Names, places and outputs are those of mmdet's ResNet with the same plugins."""
    mmdet = pytest.importorskip('mmdet.models')
    plugins = [
        dict(cfg=dict(type='ContextBlock', ratio=1 / 4), stages=(False, True, True, False), position='after_conv3'),
        dict(cfg=dict(type='DynConvSELayer', postfix='_1'), position='after_conv1'),
        dict(cfg=dict(type='DynConvSELayer', postfix='_2'), position='after_conv2'),
        dict(cfg=dict(type='DynConvECALayer'), stages=(True, False, False, True), position='after_conv2'),
    ]
    networks = [network(depth=50, plugins=copy.deepcopy(plugins), norm_eval=False, **SMALL, out_indices=(0, 3))
                for network in (ResNet, mmdet.ResNet)]
    assert list(networks[0].layer2[0]._modules) != list(networks[0].layer1[0]._modules)
    compare_networks(*networks, training)


def test_se_as_mmpretrain():
    """Its place is that of mmpretrain's SEResNet, whose FCs have biases."""
    reference = pytest.importorskip('mmpretrain.models').SEResNet
    torch.manual_seed(0)
    theirs = reference(50, se_ratio=4, **SMALL)
    ours = ResNet(50, **SMALL, plugins=[dict(cfg=dict(type='DynConvSELayer', ratio=4), position='after_conv3')])
    state = theirs.state_dict()
    for key in list(state):
        if '.se_layer.conv' in key:
            value = state.pop(key).data
            if key.endswith('bias'):
                value.zero_()
            else:
                state[key.replace('se_layer.conv', 'se_layer.mlp.fc').replace('.conv.', '.')] = value
    ours.load_state_dict(state, strict=True)
    ours.eval(), theirs.eval()
    image = torch.randn(2, 3, 57, 35)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('plugin', 'words'), [
    (dict(cfg=dict(type='DynConvSELayer')), "'position'"),
    (dict(cfg=dict(type='DynConvSELayer'), position='after_conv1', stage=1), "'stages'"),
    ('DynConvSELayer', 'plugins must be dicts'),
    (dict(cfg=dict(type='DynConvSELayer'), position='after_conv3'), r"\['after_conv1', 'after_conv2'\]"),
    (dict(cfg=dict(type='DynConvSELayer'), position='after_conv1', stages=(True, )), 'num_stages=4'),
    (dict(cfg=dict(type='DynConvSELayer', ratio=0), position='after_conv1'), 'ratio'),
])
def test_bad_plugins(plugin, words):
    with pytest.raises(ValueError, match=words):
        ResNet(18, **SMALL, plugins=[plugin])


def test_two_plugins_of_one_name():
    plugin = dict(cfg=dict(type='DynConvECALayer'), position='after_conv1')
    with pytest.raises(ValueError, match="plugins has two named 'eca_layer' in one block; .*postfix"):
        ResNet(18, **SMALL, plugins=[plugin, plugin])
    assert plugin == dict(cfg=dict(type='DynConvECALayer'), position='after_conv1')


@pytest.mark.parametrize(('name', 'value'), [
    ('depth', 20), ('depth', '50'), ('num_stages', 0), ('num_stages', 5), ('strides', (1, 2)), ('strides', 2),
    ('multi_grid', (1, )), ('multi_grid', 2), ('contract_dilation', 1),
    ('dilations', (1, )), ('dilations', None), ('out_indices', (4, )), ('out_indices', (-1, )), ('out_indices', ()),
    ('out_indices', 3), ('out_indices', None), ('frozen_stages', -2), ('frozen_stages', 5), ('style', 'tensorflow'),
    ('drop_path_rate', 1.), ('drop_path_rate', -0.1),
])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f'^{name} must .* but is '):
        ResNet(**{'depth': 18, **SMALL, name: value})

"""The static ResNet is mmpretrain's: names, shapes, outputs; and it freezes as mmdet's does."""
import functools

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.models.backbones import ResNet

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


@pytest.mark.parametrize('depth', ResNet.arch_settings)
def test_names_and_shapes(reference, depth, monkeypatch):
    # mmpretrain reads the values of a linspace, which the meta device has not
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        ours, theirs = ResNet(depth), reference(depth)
    assert shapes(ours) == shapes(theirs)
    assert ours.feat_dim == theirs.feat_dim


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_outputs(reference, variant, training, compare_networks):
    kwargs = {**SMALL, **VARIANTS[variant]}
    compare_networks(ResNet(**kwargs), reference(**kwargs), training, kwargs.get('in_channels', 3))


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


@pytest.mark.parametrize(('name', 'value'), [
    ('depth', 20), ('depth', '50'), ('num_stages', 0), ('num_stages', 5), ('strides', (1, 2)), ('strides', 2),
    ('dilations', (1, )), ('dilations', None), ('out_indices', (4, )), ('out_indices', (-1, )), ('out_indices', ()),
    ('out_indices', 3), ('out_indices', None), ('frozen_stages', -2), ('frozen_stages', 5), ('style', 'tensorflow'),
    ('drop_path_rate', 1.), ('drop_path_rate', -0.1),
])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f'^{name} must .* but is '):
        ResNet(**{'depth': 18, **SMALL, name: value})

"""The static MobileNetV2 is mmpretrain's: names, shapes, outputs."""
import pytest

from dynconv_mm.models.backbones import MobileNetV2

VARIANTS = {
    **{f'width {width}': dict(widen_factor=width) for width in (1., 0.75, 0.5, 0.35, 1.4)},
    'all maps': dict(widen_factor=0.25, out_indices=range(8)),
    'detection': dict(widen_factor=0.25, out_indices=(1, 2, 4, 7)),
    'GN': dict(widen_factor=0.25, norm_cfg=dict(type='GN', num_groups=4)),
    'HSwish': dict(widen_factor=0.25, act_cfg=dict(type='HSwish')),
}


@pytest.fixture(scope='module')
def reference():
    """mmpretrain's MobileNetV2."""
    return pytest.importorskip('mmpretrain.models').MobileNetV2


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_outputs(reference, variant, training, compare_networks):
    ours, theirs = MobileNetV2(**VARIANTS[variant]), reference(**VARIANTS[variant])
    assert ours.feat_dim == theirs.out_channel
    compare_networks(ours, theirs, training)


def trained_names(model) -> set[str]:
    model.train()
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize('frozen_stages', range(-1, 8))
def test_freezes_as_mmpretrain(reference, frozen_stages):
    kwargs = dict(widen_factor=0.25, frozen_stages=frozen_stages)
    assert trained_names(MobileNetV2(**kwargs)) == trained_names(reference(**kwargs))


def test_grey_image():
    assert MobileNetV2(widen_factor=0.25, in_channels=1).conv1.conv.in_channels == 1


@pytest.mark.parametrize(('name', 'value'), [
    ('widen_factor', 0), ('widen_factor', -1.), ('widen_factor', '1.0'), ('widen_factor', True), ('out_indices', (8, )),
    ('out_indices', (-1, )), ('out_indices', ()), ('out_indices', 7), ('frozen_stages', -2), ('frozen_stages', 9),
])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f'^{name} must .* but is '):
        MobileNetV2(**{name: value})

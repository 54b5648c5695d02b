"""DynamicFPN is mmdet's FPN but for its output convolutions, and copies as any module does."""
import copy
import pickle
import sys
from importlib.machinery import BuiltinImporter

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

import dynconv_mm
from dynconv_mm.layers import DCDC2d, Involution2d, ODConv2d

CFG = dict(type='DynamicFPN', in_channels=[8, 16, 24], out_channels=32, num_outs=4, fpn_conv_cfg=dict(type='DCDC2d'))
INPUTS = tuple(torch.randn(2, channels, 16 // 2**i, 12 // 2**i) for i, channels in enumerate((8, 16, 24)))


@pytest.fixture
def necks():
    return pytest.importorskip('mmdet.models.necks')


@pytest.mark.parametrize(('conv_cfg', 'layer', 'kernel_size'), [
    (dict(type='DCDC2d'), DCDC2d, 3), (dict(type='Involution2d', kernel_size=7), Involution2d, 7),
    (dict(type='ODConv2d', kernel_num=2), ODConv2d, 3),
])
def test_output_convolutions(necks, conv_cfg, layer, kernel_size):
    given = dict(conv_cfg)
    neck = MODELS.build(dict(CFG, fpn_conv_cfg=conv_cfg))
    assert conv_cfg == given
    assert isinstance(neck, necks.FPN) and type(neck).__name__ == 'DynamicFPN'
    assert [(type(conv.conv), conv.conv.kernel_size) for conv in neck.fpn_convs] == [(layer, (kernel_size, ) * 2)] * 3
    assert all(type(conv.conv) is nn.Conv2d for conv in neck.lateral_convs)
    neck.init_weights()
    maps = neck(INPUTS)
    assert [tuple(x.shape) for x in maps] == [(2, 32, 16, 12), (2, 32, 8, 6), (2, 32, 4, 3), (2, 32, 2, 2)]
    sum(x.square().sum() for x in maps).backward()
    assert all(parameter.grad is not None for parameter in neck.parameters())


def test_extra_levels_stay_static(necks):
    """RetinaNet's."""
    neck = MODELS.build(dict(CFG, start_level=1, add_extra_convs='on_input'))
    assert [type(conv.conv) for conv in neck.fpn_convs] == [DCDC2d, DCDC2d, nn.Conv2d, nn.Conv2d]
    assert neck.fpn_convs[2].conv.stride == (2, 2)
    assert len(neck(INPUTS)) == 4


def test_with_a_static_convolution_it_is_fpn(necks):
    neck = MODELS.build(dict(CFG, fpn_conv_cfg=dict(type='Conv2d'), norm_cfg=dict(type='BN'),
                             act_cfg=dict(type='ReLU')))
    arguments = {name: value for name, value in CFG.items() if name not in ('type', 'fpn_conv_cfg')}
    fpn = necks.FPN(**arguments, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))
    neck.load_state_dict(fpn.state_dict(), strict=True)
    torch.testing.assert_close(neck(INPUTS), fpn(INPUTS))


@pytest.mark.parametrize('fpn_conv_cfg', [None, 'DCDC2d', dict(kernel_size=3)])
def test_bad_arguments(necks, fpn_conv_cfg):
    with pytest.raises(ValueError, match='fpn_conv_cfg must be a dict whose type is registered'):
        dynconv_mm.DynamicFPN(fpn_conv_cfg, in_channels=[8], out_channels=16, num_outs=1)


def test_channels_that_do_not_fit(necks):
    with pytest.raises(ValueError, match='group_channels must'):
        MODELS.build(dict(CFG, out_channels=24))


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_copies(necks, duplicate):
    neck = MODELS.build(CFG).eval()
    torch.testing.assert_close(duplicate(neck)(INPUTS), neck(INPUTS))


def test_it_is_the_class(necks):
    assert type(MODELS.build(CFG)) is dynconv_mm.DynamicFPN is dynconv_mm.models.necks.DynamicFPN


def test_without_mmdet(monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmdet']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [BuiltinImporter])  # finds no package
    with pytest.raises(ImportError) as missing:
        MODELS.build(CFG)
    assert 'DynamicFPN is built on mmdet, which is not installed' in str(missing.value)

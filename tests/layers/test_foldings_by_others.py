"""Others' foldings of a norm into a layer's weight give the same function, or are refused."""
from __future__ import annotations

import copy
from functools import partial

import mmcv.cnn
import pytest
import torch
from conv_layers import CHANNELS, LAYERS, make_features, make_layer, randomize
from mmcv.cnn import ConvModule
from torch import nn
from torch.fx.experimental.optimization import fuse as fuse_by_fx
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from dynconv_mm import CGConv2d, ODConv2d, WEConv2d

STATIC_KERNELS = ('CGConv2d', )  # whose outputs are scaled by their weight, and no norm
#: also those of as many kernels as outputs, so that a folding finds the shape that it expects
FOLDED = {**LAYERS, **{f'{name}, {CHANNELS} kernels': partial(LAYERS[name].func, kernel_num=CHANNELS)
                       for name in ('ODConv2d 4x', 'CondConv2d')},
          'WEConv2d, location': partial(WEConv2d, magnitude=False), 'WEConv2d, magnitude': partial(
              WEConv2d, location=False)}


def fuse_as_ultralytics(conv: nn.Module, bn: nn.Module) -> nn.Module:
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps,
                                                  bn.weight, bn.bias)
    return conv


def folding_case(name: str, bias: bool) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    layer = FOLDED[name](in_channels=CHANNELS, out_channels=CHANNELS, kernel_size=3, padding=1, bias=bias)
    return randomize(layer).eval(), randomize(nn.BatchNorm2d(CHANNELS)).eval(), make_features()


@pytest.mark.parametrize('fuse', [fuse_conv_bn_eval, fuse_as_ultralytics])
@pytest.mark.parametrize('bias', [False, True], ids=['no-bias', 'bias'])
@pytest.mark.parametrize('name', FOLDED)
@torch.no_grad()
def test_a_norm_that_is_folded(name, bias, fuse):
    layer, norm, x = folding_case(name, bias)
    expected, before = norm(layer(x)), {key: value.clone() for key, value in layer.state_dict().items()}
    try:
        fused = fuse(layer, norm)
    except (ValueError, AttributeError, RuntimeError) as error:
        assert hasattr(layer, 'fuse_batch_norm') and name not in STATIC_KERNELS
        # torch itself refuses n kernels, and what has no weight
        if hasattr(layer, 'weight') and (layer.weight.dim() == 4 or layer.weight.shape[0] in (1, CHANNELS)):
            assert 'fuse_batch_norm(norm)' in str(error)
        torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)
        torch.testing.assert_close(norm(layer(x)), expected)
    else:
        torch.testing.assert_close(fused(x), expected)


@pytest.mark.parametrize('fuse', [fuse_conv_bn_eval, fuse_as_ultralytics])
@pytest.mark.parametrize('bias', [False, True], ids=['no-bias', 'bias'])
@pytest.mark.parametrize('excitation', [{}, dict(location=False), dict(magnitude=False)],
                         ids=['both', 'magnitude', 'location'])
@torch.no_grad()
def test_kernels_of_one_element(excitation, bias, fuse):
    """Any weight is another's multiple there."""
    layer = randomize(WEConv2d(CHANNELS, CHANNELS, 1, groups=CHANNELS, bias=bias, **excitation)).eval()
    norm, x = randomize(nn.BatchNorm2d(CHANNELS)).eval(), make_features()
    expected, before = norm(layer(x)), copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=r'weight of WEConv2d cannot be set so: .* fuse_batch_norm\(norm\)'):
        fuse(layer, norm)
    torch.testing.assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)
    assert layer.fuse_batch_norm(norm)
    torch.testing.assert_close(layer(x), expected)
    other = copy.deepcopy(layer)  # static now, which may be folded into
    torch.testing.assert_close(fuse(other, norm)(x), norm(expected))


@pytest.mark.parametrize('fuse', [fuse_by_fx, mmcv.cnn.fuse_conv_bn])
@pytest.mark.parametrize('bias', [False, True], ids=['no-bias', 'bias'])
@pytest.mark.parametrize('name', FOLDED)
@torch.no_grad()
def test_a_model_whose_norms_are_folded(name, bias, fuse):
    layer, norm, x = folding_case(name, bias)
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), layer, norm).eval()
    expected = model(x)
    fused = fuse(model)
    assert isinstance(fused.get_submodule('0'), nn.Conv2d) and not isinstance(
        dict(fused.named_modules()).get('1'), nn.BatchNorm2d)
    torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', LAYERS)
@torch.no_grad()
def test_mmcvs_folding_on_the_fly(name):
    block, x = ConvModule(CHANNELS, CHANNELS, 3, padding=1, norm_cfg=dict(type='BN')), make_features()
    block.conv = make_layer(name, bias=False)
    randomize(block).eval()
    expected = block(x)
    block.turn_on_efficient_conv_bn_eval()
    with pytest.raises(ValueError, match='efficient_conv_bn_eval out'):
        block(x)
    block.turn_on_efficient_conv_bn_eval(False)
    torch.testing.assert_close(block(x), expected)


def test_what_keeps_the_function_is_not_refused():
    layer = ODConv2d(4, 6, 3, kernel_num=1)
    layer.weight = nn.Parameter(layer.weight * 2)
    layer.bias = None
    layer.fuse_batch_norm(nn.BatchNorm2d(6).eval())
    assert layer.bias.shape == (6, )
    excited = WEConv2d(4, 6, 3, bias=False).eval()
    excited.fold()
    assert fuse_conv_bn_eval(excited, nn.BatchNorm2d(6).eval()).bias is not None
    layer = CGConv2d(4, 6, 3, bias=False)
    layer.load_state_dict({**layer.state_dict()}, assign=True)
    other = WEConv2d(4, 6, 3)
    layer = WEConv2d(4, 6, 3)
    layer.weight = other.weight
    layer.load_state_dict(copy.deepcopy(layer.state_dict()), assign=True)
    with torch.device('meta'):
        WEConv2d(4, 6, 3).load_state_dict(other.state_dict(), assign=True)
    layer.load_state_dict({**layer.state_dict(), 'weight': 2 * layer.weight.detach()}, assign=True)
    single = WEConv2d(4, 4, 1, groups=4)  # of whose weight any other is a multiple
    single.load_state_dict(WEConv2d(4, 4, 1, groups=4).state_dict(), assign=True)
    with pytest.raises(ValueError, match='use load_state_dict'):
        single.weight = WEConv2d(4, 4, 1, groups=4).weight

"""Others' foldings of a norm into a layer's weight give the same function, or are refused."""
from __future__ import annotations

import pytest
import torch
from conv_layers import CHANNELS, LAYERS, make_features, make_layer, randomize
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from dynconv_mm import CGConv2d, ODConv2d, WEConv2d

STATIC_KERNELS = ('CGConv2d', )  # whose outputs are scaled by their weight, and no norm


def fuse_as_ultralytics(conv: nn.Module, bn: nn.Module) -> nn.Module:
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps,
                                                  bn.weight, bn.bias)
    return conv


@pytest.mark.parametrize('fuse', [fuse_conv_bn_eval, fuse_as_ultralytics])
@pytest.mark.parametrize('name', LAYERS)
@torch.no_grad()
def test_a_norm_that_is_folded(name, fuse):
    layer, norm, x = make_layer(name, bias=False).eval(), randomize(nn.BatchNorm2d(CHANNELS)).eval(), make_features()
    expected, before = norm(layer(x)), {key: value.clone() for key, value in layer.state_dict().items()}
    try:
        fused = fuse(layer, norm)
    except (ValueError, AttributeError, RuntimeError) as error:
        assert hasattr(layer, 'fuse_batch_norm') and name not in STATIC_KERNELS
        # torch itself refuses n kernels, and what has no weight
        if hasattr(layer, 'weight') and (layer.weight.dim() == 4 or layer.weight.shape[0] == 1):
            assert 'fuse_batch_norm(norm)' in str(error)
        if layer.bias is None and fuse is fuse_conv_bn_eval:
            torch.testing.assert_close(dict(layer.state_dict()), before)
            torch.testing.assert_close(norm(layer(x)), expected)
    else:
        torch.testing.assert_close(fused(x), expected)


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

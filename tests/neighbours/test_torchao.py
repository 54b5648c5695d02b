"""A network whose norms are folded is quantised by PT2E, which stops at a norm behind a weight that is computed."""
from __future__ import annotations

import pytest
import torch
from conv_layers import CHANNELS, make_features, make_layer, randomize
from mmcv.cnn import fuse_conv_bn
from torch import nn

pytest.importorskip('torchao', reason='needs torchao, tested with 0.18.0: pip install torchao')


@pytest.mark.parametrize('name', ['ODConv2d 1x', 'ODConv2d 4x', 'DCDConv2d', 'FDConv2d', 'KWConv2d', 'WEConv2d',
                                  'Involution2d'])
@torch.no_grad()
def test_pt2e(name):
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU(),
                          make_layer(name), nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 1))
    x = make_features(4)
    expected = randomize(model).eval()(x)
    program = torch.export.export(fuse_conv_bn(model), (x, )).module()
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program, quantizer)
    for seed in (1, 2):
        prepared(make_features(4, seed=seed))
    quantized = convert_pt2e(prepared)
    assert 'quantized_decomposed.quantize_per_tensor' in quantized.code.replace('torch.ops.', '')
    assert (quantized(x) - expected).abs().max() <= 0.05 * expected.abs().max()

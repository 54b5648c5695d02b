"""Exported networks that pnnx turns into ncnn's files compute the same there."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conv_layers import CHANNELS, make_features, make_layer
from torch import nn

from dynconv_mm.conversion.export import export

ncnn = pytest.importorskip('ncnn', reason='needs ncnn and pnnx, tested with 20261020: pip install ncnn pnnx')
pytest.importorskip('pnnx')
pytest.importorskip('onnxruntime')


def run(path: Path, x: torch.Tensor) -> np.ndarray:
    """The output of the files that pnnx writes of an ONNX graph."""
    shape = ','.join(map(str, x.shape))
    subprocess.run([Path(sys.executable).with_name('pnnx'), path.name, f'inputshape=[{shape}]f32', 'fp16=0'],
                   cwd=path.parent, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    param = path.with_suffix('.ncnn.param')
    operators = {line.split()[0] for line in param.read_text().splitlines()[2:]}
    assert not [name for name in operators if '.' in name or '::' in name]  # with which ncnn crashes
    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
        setattr(net.opt, option, False)
    assert net.load_param(str(param)) == net.load_model(str(path.with_suffix('.ncnn.bin'))) == 0
    extractor = net.create_extractor()
    extractor.input('in0', ncnn.Mat(np.ascontiguousarray(x[0])).clone())
    status, y = extractor.extract('out0')
    assert status == 0
    return np.array(y)


@pytest.mark.parametrize('name', ['ODConv2d 1x', 'ODConv2d 4x', 'DyConv2d', 'CondConv2d', 'DCDConv2d', 'CGConv2d',
                                  'WEConv2d'])
def test_what_ncnn_takes(name, tmp_path):
    layer, x = make_layer(name), make_features(1)
    model = nn.Sequential(layer, nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, 5, 1)).eval()
    path = tmp_path / 'model.onnx'
    export(model, path, input_size=x.shape[2:], in_channels=CHANNELS)
    with torch.no_grad():
        expected = model(x)[0].numpy()
    assert np.abs(run(path, x) - expected).max() <= 1e-5 * np.abs(expected).max()

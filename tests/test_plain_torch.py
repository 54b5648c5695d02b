"""Without OpenMMLab there are the layers, ``dynamicize`` and the export; they compute what they compute beside it."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conv_layers import LAYERS, make_features, make_layer

SUPPORT = Path(__file__).parent / 'support'
#: before each program: nothing of OpenMMLab can be found
WITHOUT_OPENMMLAB = ('import sys\n'
                     "for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain'): sys.modules[name] = None\n"
                     f'sys.path.insert(0, {str(SUPPORT)!r})\n')


@pytest.fixture
def run_plainly(run, tmp_path):
    """What a program prints where there is no OpenMMLab."""

    def run_program(program: str) -> str:
        done = run(sys.executable, '-W', 'ignore', '-c', WITHOUT_OPENMMLAB + program, cwd=tmp_path,
                   PYTHONPATH=str(Path(__file__).parents[1]))
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run_program


def test_what_is_imported(run_plainly):
    """Not even torch, until something is asked for."""
    said = run_plainly(
        'import dynconv_mm\n'
        "print('torch' in sys.modules)\n"
        'from dynconv_mm import ODConv2d, dynamicize\n'
        'from dynconv_mm.conversion.export import export\n'
        "print(any(name.partition('.')[0] in ('mmengine', 'mmcv', 'numba', 'rich') and module is not None\n"
        '          for name, module in sys.modules.items()))')
    assert said.split() == ['False', 'False']


def test_layers(run_plainly, tmp_path):
    run_plainly('import torch\n'
                'from conv_layers import LAYERS, make_features, make_layer\n'
                'layers = {name: make_layer(name) for name in LAYERS}\n'
                'torch.save({name: (layer.state_dict(), layer(make_features())) for name, layer in layers.items()},\n'
                "           'layers.pth')")
    plain = torch.load(tmp_path / 'layers.pth')
    assert plain.keys() == LAYERS.keys()
    for name, (state_dict, y) in plain.items():
        layer = make_layer(name)
        expected = layer(make_features())
        torch.testing.assert_close(dict(layer.state_dict()), dict(state_dict), msg=name)
        torch.testing.assert_close(y, expected, msg=name)


@pytest.mark.skipif(not hasattr(torch.compiler, 'is_exporting'), reason='torch.export needs torch >= 2.7')
def test_dynamicize_and_export(run_plainly):
    said = run_plainly(
        'import torch\n'
        'from torch import nn\n'
        'from dynconv_mm import dynamicize\n'
        'from dynconv_mm.conversion.export import export\n'
        'model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).eval()\n'
        'x = torch.randn(1, 3, 32, 32)\n'
        'y = model(x)\n'
        "report = dynamicize(model, op=dict(type='ODConv2d', kernel_num=2))\n"
        "exported = export(model, 'model.pt2', format='torch-export', input_size=(32, 32))\n"
        "program = torch.export.load('model.pt2').module()\n"
        'print(len(report.replaced), (model(x) - y).abs().max() < 1e-5, (program(x)[0] - y).abs().max() < 1e-5)')
    assert said.split()[-3:] == ['1', 'tensor(True)', 'tensor(True)']


def test_what_needs_openmmlab_says_so(run_plainly):
    said = run_plainly('import dynconv_mm\n'
                       "for name in ('ODConvResNet', 'Dynamicized', 'ODConvResNot'):\n"
                       '    try:\n'
                       '        getattr(dynconv_mm, name)\n'
                       '    except (ImportError, AttributeError) as error:\n'
                       '        print(error)')
    backbone, function, unknown = said.splitlines()
    assert backbone.startswith('ODConvResNet is built on mmengine and mmcv, which are not both installed: `pip install')
    assert function.startswith('Dynamicized is built on mmengine and mmcv')
    assert unknown == "module 'dynconv_mm' has no attribute 'ODConvResNot'"

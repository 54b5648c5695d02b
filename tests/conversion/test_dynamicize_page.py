"""The tables of docs/dynamicize.md are true, and its config trains what it says."""
from __future__ import annotations

import copy
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from dynconv_mm import ODConv2d, ODConvMobileNetV2, dynamicize
from dynconv_mm.analysis.complexity import build_on_meta
from dynconv_mm.models.backbones import MobileNetV2

PAGE = (Path(__file__).resolve().parents[2] / 'docs' / 'dynamicize.md').read_text(encoding='utf-8')
MODEL_ROWS = re.findall(r'^\| `(mm\w+)::(\S+)` \|(.*)\|$', PAGE, re.MULTILINE)


def millions(model: nn.Module) -> str:
    return f'{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f}'


def test_models_are_of_many_families():
    assert len(MODEL_ROWS) >= 6 and len({config.partition('/')[0] for _, config, _ in MODEL_ROWS}) == len(MODEL_ROWS)


@pytest.mark.parametrize(('package', 'config', 'cells'), MODEL_ROWS, ids=[row[1] for row in MODEL_ROWS])
def test_model_row(package, config, cells):
    folder = Path(pytest.importorskip(package).__file__).parent
    import_module(f'{package}.models')
    model = build_on_meta(Config.fromfile(folder / '.mim' / 'configs' / config))
    call, *figures = (cell.strip() for cell in cells.split('|'))
    arguments = eval(f'dict({call.strip("`")})')
    found = []
    for kernel_num in (1, 4):
        dynamic = copy.deepcopy(model)
        report = dynamicize(dynamic, dict(type='ODConv2d', kernel_num=kernel_num), **arguments)
        found.append(millions(dynamic))
    assert figures == [str(len(report.replaced)), str(len(report.kept)), millions(model), *found]


@pytest.mark.parametrize(('name', 'here'), re.findall(r"^\| (static|`'\w+'`) \| \S+ \| (\S+) \| \S+ \|$", PAGE,
                                                      re.MULTILINE))
def test_placement_row(name, here):
    with torch.device('meta'):
        model = MobileNetV2(0.5) if name == 'static' else \
            ODConvMobileNetV2(widen_factor=0.5, kernel_num=1, placement=name.strip("`'"))
        model.fc = nn.Linear(1280, 1000)
    assert millions(model) == here


def test_config(tmp_path):
    pytest.importorskip('mmdet.models')
    code, = (block for block in re.findall(r'^```python\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
             if '_base_' in block)
    (tmp_path / 'config.py').write_text(code)
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    assert type(model.backbone).__name__ == 'CSPDarknet'
    dynamic = [name for name, module in model.named_modules() if isinstance(module, ODConv2d)]
    assert len(dynamic) == 34 and all(name.startswith('backbone.stage') for name in dynamic)

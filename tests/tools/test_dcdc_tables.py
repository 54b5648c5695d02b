"""docs/dcdc.md is up to date, and what it counts is right."""
import pytest
import torch
from torch import nn

from dynconv_mm.layers import DCDC2d, Involution2d


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('dcdc_tables')


def test_page_is_up_to_date(tool):
    pytest.importorskip('mmdet')
    tool.main(['--check'])


def test_a_stale_page(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'render', lambda: 'new')
    monkeypatch.setattr(tool, 'PAGE', tmp_path / 'docs' / 'dcdc.md')
    with pytest.raises(SystemExit, match='not up to date; run tools/dcdc_tables.py'):
        tool.main(['--check'])
    tool.main([])
    assert tool.PAGE.read_text() == 'new'
    tool.main(['--check'])
    assert 'up to date' in capsys.readouterr().out


def test_flops_of_table_1(tool):
    for network, kwargs, _, printed in tool.TABLES['Table I']:
        assert tool.measure(network, kwargs)[1] == pytest.approx(float(printed), rel=0.02), kwargs


def on_meta(layer: nn.Module, size: int) -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(3, layer.in_channels, 1, device='meta'), layer.to('meta')), size**2


def test_an_involution_by_hand(tool):
    """32 channels at stride 2: 8×8 → 4×4 positions."""
    model, area = on_meta(Involution2d(32, 32, 7, stride=2), 8)
    predict = 32 * 8 + 8 * 49 * 2
    assert tool.count_madds(model, 8) == 3 * 32 * area + 16 * (predict + 32 * 49)


def test_a_dcdc_by_hand(tool):
    """64 channels at stride 2, c = 8, k_gsi = 3: 8×8 → 4×4 positions."""
    model, area = on_meta(DCDC2d(64, 64, stride=2, gsi_kernel_size=3), 8)
    lsa = 16 * (64 * 9 + 64 * 16 + 16 * 9 + 16 * 49 * 4 + 64 * 49)
    gsi = area * 64 * 8 + 8 * (8 * 8 * 9) + 16 * (8 * 8 * 9 + 8 * 64)
    assert tool.count_madds(model, 8) == 3 * 64 * area + lsa + gsi

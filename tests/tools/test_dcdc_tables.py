"""docs/dcdc.md is up to date, and its figures are the paper's."""
import pytest


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('dcdc_tables')


def test_page_is_up_to_date(tool):
    pytest.importorskip('mmdet')
    tool.main(['--check'])


def test_a_stale_page(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'render', lambda: 'new')
    monkeypatch.setattr(tool, 'PAGE', tmp_path / 'docs' / 'dcdc.md')
    with pytest.raises(SystemExit, match='dcdc.md is not up to date'):
        tool.main(['--check'])
    tool.main([])
    assert tool.PAGE.read_text() == 'new'
    tool.main(['--check'])
    assert 'up to date' in capsys.readouterr().out


def test_table_1(tool):
    for network, kwargs, params, flops in tool.TABLES['Table I']:
        ours = tool.measure_classifier(network, kwargs)
        digits = len(params.partition('.')[2])
        assert f'{ours.params:.{digits}f}' == params, kwargs
        assert ours.madds / 1e3 == pytest.approx(float(flops), rel=0.02), kwargs

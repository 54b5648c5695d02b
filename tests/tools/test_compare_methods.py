"""docs/comparison.md is as the script writes it, and the script accepts no difference without a reason."""
import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('compare_methods')


def test_the_page_is_up_to_date(tool):
    pytest.importorskip('mmpretrain')
    tool.main(['--check'])


def test_a_stale_page_is_noticed(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'PAGE', tmp_path / 'docs' / 'comparison.md')
    monkeypatch.setattr(tool, 'render', lambda track: 'the page\n')
    with pytest.raises(SystemExit, match='not up to date'):
        tool.main(['--check'])
    assert not tool.PAGE.exists()
    tool.main([])
    assert tool.PAGE.read_text() == 'the page\n' and 'written' in capsys.readouterr().out
    tool.main(['--check'])


@pytest.mark.parametrize('madds', [1900, 1916, 1930])
def test_small_differences_need_no_reason(tool, madds):
    assert f'{madds / 1916 - 1:+.1%}' in tool.network_section('ResNet18', {'ODConv (4×)': tool.Figure(44.9, madds)})


@pytest.mark.parametrize('madds', [1890, 1940])
def test_large_differences_need_a_reason(tool, madds, monkeypatch):
    ours = {'ODConv (4×)': tool.Figure(44.9, madds)}
    with pytest.raises(SystemExit, match='say why in NOTES'):
        tool.network_section('ResNet18', ours)
    monkeypatch.setitem(tool.NOTES, ('ResNet18', 'ODConv (4×)'), 'for a reason')
    assert 'ODConv (4×): for a reason.' in tool.network_section('ResNet18', ours)


def test_methods_without_configs_are_left_out(tool, monkeypatch):
    monkeypatch.setitem(tool.METHODS, 'none', 'none/none-{}_8xb32_in1k.py')
    assert tool.measure_network('ResNet18', 'none') is None

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
    monkeypatch.setattr(tool, 'render', lambda: 'the page\n')
    with pytest.raises(SystemExit, match='comparison.md is not up to date'):
        tool.main(['--check'])
    assert not tool.PAGE.exists()
    tool.main([])
    assert tool.PAGE.read_text() == 'the page\n' and 'written' in capsys.readouterr().out
    tool.main(['--check'])
    assert 'up to date' in capsys.readouterr().out


@pytest.mark.parametrize(('params', 'madds'), [(44.90, 1898), (44.899, 1916), (44.909, 1935)])
def test_small_differences_need_no_reason(tool, params, madds, monkeypatch):
    ours = {'ODConv (4×)': tool.Figure(params, madds)}
    assert f'{madds / 1916 - 1:+.1%}' in tool.network_section('ResNet18', ours)
    for notes in (tool.PARAMS_NOTES, tool.MADDS_NOTES):
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match='this needs no reason'):
            patch.setitem(notes, ('ResNet18', 'ODConv (4×)'), 'for a reason')
            tool.network_section('ResNet18', ours)


@pytest.mark.parametrize(('params', 'madds', 'notes'), [
    (44.90, 1896, 'MADDS_NOTES'), (44.90, 1936, 'MADDS_NOTES'),
    (44.894, 1916, 'PARAMS_NOTES'), (44.911, 1916, 'PARAMS_NOTES'),
])
def test_large_differences_need_a_reason(tool, params, madds, notes, monkeypatch):
    ours = {'ODConv (4×)': tool.Figure(params, madds)}
    with pytest.raises(SystemExit, match=f'say why in {notes}'):
        tool.network_section('ResNet18', ours)
    monkeypatch.setitem(getattr(tool, notes), ('ResNet18', 'ODConv (4×)'), 'for a reason')
    assert 'ODConv (4×): for a reason.' in tool.network_section('ResNet18', ours)


@pytest.mark.parametrize(('params', 'madds', 'exceptions', 'message'), [
    (2.05, 97.5, {}, None), (2.05, 97.5, {'row': 'L'}, 'this is no exception'), (2.13, 97., {}, 'say why'),
    (2., 98., {}, 'say why'), (2., 98., {'row': 'MAdds'}, None),
])
def test_ablations_need_a_reason_too(tool, params, madds, exceptions, message, monkeypatch):
    monkeypatch.setattr(tool, 'ABLATIONS', {'mobilenet-v2-w050': [('row', tool.Figure(2., 97.), {})]})
    monkeypatch.setattr(tool, 'EXCEPTIONS', exceptions)
    monkeypatch.setattr(tool, 'measure_ablation', lambda network, **arguments: tool.Figure(params, madds))
    if message is not None:
        with pytest.raises(SystemExit, match=message):
            tool.ablation_section()
    else:
        assert f"| row | {exceptions.get('row', '')} | 2.0 |" in tool.ablation_section()


def test_each_exception_names_a_row_and_notes(tool):
    rows = {what for rows in tool.ABLATIONS.values() for what, *_ in rows}
    for row, notes in tool.EXCEPTIONS.items():
        assert row in rows and all(f'**{note}.**' in tool.ABLATION_NOTES for note in notes.split(', '))

"""The model index, the metafiles and the tables in configs/*/README.md are as the script writes them."""
import re

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')


@pytest.fixture
def tool(load_tool):
    return load_tool('update_model_tables')


@pytest.mark.slow
def test_model_tables(tool):
    tool.main(['--check'])


def test_each_folder_of_configs_has_its_table(tool, root):
    """With a row for each config, classifiers first; but the demos, which no paper knows."""
    folders = {path.parent.name for path in root.glob('configs/*/*.py')} - {'_base_', 'demo'}
    assert folders == set(tool.METHODS)
    for method in tool.METHODS:
        table, = re.findall(r'<!-- models -->\n((?:.*\n)*?)<!-- /models -->',
                            (root / 'configs' / method / 'README.md').read_text(encoding='utf-8'))
        rows = re.findall(r'^\| \[`(.*?)`\]\((.*?)\) \|', table, re.MULTILINE)
        assert rows == [(config.stem, config.name) for config in tool.configs(method)]


def test_what_is_stale_is_noticed_and_written_anew(tool, root, tmp_path, monkeypatch, capsys):
    """Each kind of file, of a method whose networks are counted quickly."""
    monkeypatch.setattr(tool, 'METHODS', {'we': tool.METHODS['we']})
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    folder = tmp_path / 'configs' / 'we'
    folder.mkdir(parents=True)
    for file in root.glob('configs/we/*'):
        (folder / file.name).write_text(file.read_text(encoding='utf-8'), encoding='utf-8')
    assert tool.render().keys() == {tmp_path / 'model-index.yml', folder / 'metafile.yml', folder / 'README.md'}
    tool.main([])  # an index of one method
    assert capsys.readouterr().out.endswith('written: model-index.yml\n')
    tool.main(['--check'])
    assert capsys.readouterr().out.endswith('all up to date\n')

    for name, figure, wrong in (('README.md', '| 11.85 |', '| 11.86 |'), ('metafile.yml', ': 11846178', ': 11846179')):
        file = folder / name
        text = file.read_text(encoding='utf-8')
        assert text.count(figure) == 1
        file.write_text(text.replace(figure, wrong), encoding='utf-8')
        with pytest.raises(SystemExit, match=f'not up to date: configs/we/{name}; run'):
            tool.main(['--check'])
        assert wrong in file.read_text(encoding='utf-8')
        tool.main([])
        assert file.read_text(encoding='utf-8') == text

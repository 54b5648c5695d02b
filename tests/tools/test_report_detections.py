"""Bad input; drawing itself is tested after a training, in tests/e2e."""
import json

import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('report_detections')


@pytest.fixture
def arguments(tmp_path):
    for name in ('config.py', 'checkpoint.pth'):
        (tmp_path / name).touch()
    return [str(tmp_path / 'config.py'), str(tmp_path / 'checkpoint.pth'), '--test-dir', str(tmp_path / 'test'),
            '--out', str(tmp_path / 'out')]


@pytest.mark.parametrize('change, message', [
    (['--images', '0'], '--images must be at least 1'),
    (['--scale', '0'], '--scale must be at least 1'),
    (['--score-thr', '1.5'], '--score-thr must be from 0 to 1'),
])
def test_bad_option(tool, arguments, change, message, capsys):
    with pytest.raises(SystemExit):
        tool.main(arguments + change)
    assert message in capsys.readouterr().err


def test_missing_file(tool, arguments, capsys):
    with pytest.raises(SystemExit):
        tool.main(['none.py', *arguments[1:]])
    assert 'none.py does not exist' in capsys.readouterr().err


def test_foreign_folder_is_left_alone(tool, arguments, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('mine')
    with pytest.raises(SystemExit):
        tool.main(arguments)
    assert 'is no report of this tool' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'mine.txt').read_text() == 'mine'


def test_no_metrics(tool, arguments):
    with pytest.raises(SystemExit, match='no COCO metrics below'):
        tool.main(arguments)


def test_metrics(tool, tmp_path):
    values = {f'coco/{name}': 0.5 for name in tool.METRICS}
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'metrics.json').write_text(json.dumps({**values, 'coco/bbox_mAP_l': -1.0}))
    (tmp_path / 'scalars.json').write_text('{"a": 1}\n{"b": 2}\n')
    assert tool.read_metrics(tmp_path) == [['AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large'],
                                           ['0.500', '0.500', '0.500', '0.500', '0.500', '–']]


def test_panoptic_metrics(tool, tmp_path):
    values = {'coco/bbox_mAP': 0.1}
    for place, name in enumerate(('{}', '{}_th', '{}_st', 'sky_{}', 'six_{}')):
        values.update({f'coco_panoptic/{name.format(ratio)}': 10. * place + column
                       for column, ratio in enumerate(('PQ', 'SQ', 'RQ'))})
    values['coco_panoptic/six_SQ'] = float('nan')
    (tmp_path / 'metrics.json').write_text(json.dumps(values))
    assert tool.read_metrics(tmp_path) == [
        ['', 'PQ', 'SQ', 'RQ'], ['all', '0.0', '1.0', '2.0'], ['things', '10.0', '11.0', '12.0'],
        ['stuff', '20.0', '21.0', '22.0'], ['sky', '30.0', '31.0', '32.0'], ['six', '40.0', '–', '42.0']]


@pytest.mark.parametrize('titles, row, line', [(['AP', 'AP50'], ['0.500', '0.7'], 'AP 0.500'),
                                               (['', 'PQ', 'SQ'], ['all', '42.6', '70.1'], 'PQ 42.6')])
def test_headline(tool, titles, row, line):
    assert tool.headline(titles, [row, ['', '', '']]) == line

"""tools/analysis_tools/complexity.py: the table, the files, and what it says to bad input."""
from __future__ import annotations

import csv
import json

import pytest

CONFIG = 'configs/odconv/odconv1x-mobilenet-v2-w050_8xb32_in1k.py'
DETECTOR = 'configs/dcdc/mask-rcnn_dcdc-r26_dcdc-fpn_1x_coco.py'


@pytest.fixture
def tool(load_tool, root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv('COLUMNS', '200')
    return load_tool('complexity')


def test_classifiers_and_detectors(tool, tmp_path, capsys):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    tool.main([CONFIG, DETECTOR, '--csv', str(tmp_path / 'costs.csv'), '--json', str(tmp_path / 'costs.json')])
    entries = json.loads((tmp_path / 'costs.json').read_text())
    assert list(entries) == [CONFIG, DETECTOR]
    classifier, detector = entries.values()
    assert classifier['size'] == [224, 224] and detector['size'] == [800, 1280]
    assert (detector['proposals'], detector['detections'], classifier['proposals']) == (1000, 100, None)
    assert round(classifier['params'] / 1e6, 2) == 2.43 and round(detector['trainable'] / 1e6, 1) == 26.1
    assert 'layers' not in classifier
    with (tmp_path / 'costs.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    for row, entry in zip(rows, (classifier, detector)):
        assert int(row['madds']) == entry['total_madds'] == sum(int(row[kind]) for kind in entry['madds'])
        assert all(int(row[name]) == entry[name] for name in tool.PARAMS)
    output = capsys.readouterr().out
    assert 'image of 800 × 1280, 1000 proposals and 100 detections' in output
    assert f'{classifier["total_madds"] / 1e9:.3f}' in output and f'{detector["params"] / 1e6:.2f}' in output


def test_layers(tool, tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    tool.main([CONFIG, '--size', '64', '96', '--by-layer', '--csv', str(tmp_path / 'layers.csv'), '--json',
               str(tmp_path / 'costs.json'), '--cfg-options', 'model.backbone.kernel_num=2'])
    entry = json.loads((tmp_path / 'costs.json').read_text())[CONFIG]
    with (tmp_path / 'layers.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert entry['size'] == [64, 96] and len(rows) == len(entry['layers']) == 53  # 52 convolutions, a classifier
    assert sum(int(row['madds']) for row in rows) == entry['total_madds']
    assert [row['type'] for row in rows].count('ODConv2d') == 51
    first = rows[0]
    assert (first['layer'], first['type'], first['conv']) == ('backbone.conv1.conv', 'Conv2d', str(32 * 48 * 27 * 16))
    assert 'head.fc (Linear)' in capsys.readouterr().out


@pytest.mark.parametrize('width', [40, 80, 132, 300])
def test_numbers_are_never_cut(tool, monkeypatch, capsys, width):
    """Whatever the terminal's width, and where the output is none: each stands whole, in its column, on one line."""
    monkeypatch.setenv('COLUMNS', str(width))
    names = ['configs/odconv/faster-rcnn_odconv4x-r50_fpn_1x_coco.py', 'short.py']
    counts = {column: 123456789012 * (number + 1) for number, column in enumerate(tool.COLUMNS)}
    rows = {name: {**counts, 'backbone': None} for name in names}
    for columns in (tool.PARAMS, tool.LAYER_COLUMNS[1:], tool.LAYER_COLUMNS):
        text = tool.table(rows, columns, width)
        lines = text.splitlines()
        cells = [tool.cell(column, rows['short.py'][column]) for column in columns]
        assert [line.split()[-len(columns):] for line in lines if cells[-1] in line] == [cells] * len(names)
        assert all(name in text for name in names) and all(tool.COLUMNS[column] in lines[0] for column in columns)
        if width >= 80:
            assert max(map(len, lines)) <= width


def test_another_packages_config(tool, capsys):
    pytest.importorskip('mmdet')
    tool.main(['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', '--size', '100', '130'])
    assert 'image of 128 × 160' in capsys.readouterr().out


def test_layers_that_are_not_run_are_told(tool, capsys):
    pytest.importorskip('mmdet')
    tool.report({'model': dict(size=[32, 32], proposals=None, detections=None, params=1, trainable=1, backbone=None,
                               dynamic=0, madds=dict.fromkeys(tool.LAYER_COLUMNS[2:], 0), not_run=['auxiliary'])},
                by_layer=False)
    assert 'not run, so without multiply-adds: auxiliary' in capsys.readouterr().out


@pytest.mark.parametrize(('arguments', 'message'), [
    (['none.py'], 'there is no config none.py'),
    (['configs/odconv/metafile.yml', '--size', '64', '64'], 'describes no model|cannot be read'),
    (['configs/_base_/temperature_annealing.py'], 'the config describes no model'),
    (['mmdet::none/none.py'], 'mmdet::none/none.py cannot be read'),
    (['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'], 'the multiply-adds of DeformableDETR are not'),
    ([CONFIG, '--size', '8', '64'], 'size must be height and width, ints of at least 32, but is'),
    ([CONFIG, '--cfg-options', 'model.backbone.type=Nothing'], 'the model cannot be built: .*Nothing is not in'),
    ([CONFIG, '--cfg-options', 'model.backbone.in_channels=4'], 'expected input.* to have 4 channels, but got 3'),
])
def test_bad_input(tool, arguments, message):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    with pytest.raises(SystemExit, match=message):
        tool.main(arguments)


def test_a_missing_folder(tool, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main([CONFIG, '--csv', str(tmp_path / 'none' / 'costs.csv')])
    assert '--csv: no folder' in capsys.readouterr().err

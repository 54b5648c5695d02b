"""tools/analysis_tools/benchmark.py compares networks and writes what it measured."""
from __future__ import annotations

import json
import sys

import pytest
import torch

COMMAND = ['--networks', 'odconv1x-mobilenet-v2-w050', '--batches', '1', '2', '--modes', 'inference', '--size', '32',
           '--rounds', '1', '--no-memory']


@pytest.fixture
def tool(load_tool):
    threads = torch.get_num_threads()
    yield load_tool('benchmark')
    torch.set_num_threads(threads)


def test_comparison(tool, tmp_path, capsys):
    tool.main([*COMMAND, '--output', str(tmp_path / 'speed')])
    assert sorted(file.name for file in tmp_path.iterdir()) == ['speed.json', 'speed.md']
    found = json.loads((tmp_path / 'speed.json').read_text())
    assert [(row['network'], row['plan'], row['setting']['batch']) for row in found['results']] == [
        (network, plan, batch) for batch in (1, 2) for network, plan in (
            ('mobilenet-v2-w050', 'auto'), ('odconv1x-mobilenet-v2-w050', 'auto'),
            ('odconv1x-mobilenet-v2-w050', 'grouped'))]
    assert found['machine']['torch'].startswith(torch.__version__)
    table = (tmp_path / 'speed.md').read_text()
    command, = found['commands']
    assert command in table
    assert table.count('| odconv1x-mobilenet-v2-w050 | grouped |') == 2
    assert 'written: ' in capsys.readouterr().out


def test_more_is_added(tool, tmp_path, capsys):
    command = ['--networks', 'odconv1x-mobilenet-v2-w050', '--batches', '1', '--rounds', '1', '--runtime', 'folded',
               '--output', str(tmp_path / 'speed')]
    with pytest.raises(SystemExit):
        tool.main([*command, '--append'])
    assert 'speed-folded.json, but there is none' in capsys.readouterr().err
    tool.main([*command, '--size', '32'])
    first = json.loads((tmp_path / 'speed-folded.json').read_text())
    tool.main([*command, '--size', '32', '64', '--append'])
    both = json.loads((tmp_path / 'speed-folded.json').read_text())
    assert both['results'][:2] == first['results'] and len(both['results']) == 4 and len(both['commands']) == 2
    tool.main([*command, '--size', '32', '--append'])
    again = json.loads((tmp_path / 'speed-folded.json').read_text())['results']
    assert again[:2] == both['results'][2:] and [row['setting'] for row in again[2:]] == [
        row['setting'] for row in first['results']]
    page = (tmp_path / 'speed.md').read_text()
    assert all(page.count(text) == 1 for text in ('(32², folded', '(32×64, folded', '<!-- benchmark-folded -->'))
    (tmp_path / 'speed-folded.json').write_text(json.dumps(dict(both, machine=dict(processor='another'))))
    with pytest.raises(SystemExit, match='of one machine'):
        tool.main([*command, '--append'])
    assert (tmp_path / 'speed.md').read_text() == page


def test_both_modes(tool, tmp_path, monkeypatch):
    from dynconv_mm.analysis import benchmark
    asked = []
    monkeypatch.setattr(benchmark, 'compare', lambda networks, plans, setting, rounds, memory:
                        asked.append((networks, plans, setting, memory)) or [])
    tool.main(['--networks', 'odconv1x-resnet18', '--batches', '1', '--output', str(tmp_path / 'speed')])
    setting, networks = benchmark.Setting(False, 1, 1), ['odconv1x-resnet18']
    assert asked == [(networks, ['auto', 'grouped'], setting, True),
                     (networks, ['auto', 'grouped'], setting._replace(training=True, batch=8), True)]


@pytest.mark.slow
def test_exported(tool, tmp_path):
    pytest.importorskip('onnxruntime')
    (tmp_path / 'speed.md').write_text('before\n')
    tool.main(['--networks', 'odconv1x-mobilenet-v2-w050', '--runtime', 'onnxruntime', '--batches', '1', '2', '--size',
               '32', '64', '--rounds', '1', '--output', str(tmp_path / 'speed')])
    found = json.loads((tmp_path / 'speed-onnxruntime.json').read_text())
    assert [(row['network'], row['setting']['batch'], row['peak_megabytes']) for row in found['results']] == [
        (network, batch, None) for batch in (1, 2) for network in ('mobilenet-v2-w050', 'odconv1x-mobilenet-v2-w050')]
    assert found['machine']['onnxruntime']
    page = (tmp_path / 'speed.md').read_text()
    assert page.startswith('before\n<!-- benchmark-onnxruntime -->\n') and '(32×64, onnxruntime, cpu, float32)' in page


def test_exported_for_any_size(tool, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    tool.main(['--networks', 'odconv1x-mobilenet-v2-w050', '--runtime', 'onnxruntime', '--dynamic', '--batches',
               '1', '2', '--size', '64', '--rounds', '1', '--output', str(tmp_path / 'speed')])
    page = (tmp_path / 'speed.md').read_text()
    assert page.count('(64², onnxruntime, any batch and size, cpu, float32)') == 2
    with pytest.raises(SystemExit):
        tool.main([*COMMAND, '--dynamic'])
    assert '--dynamic is for --runtime onnxruntime or openvino' in capsys.readouterr().err


def test_a_runtime_that_is_not_installed(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(SystemExit):
        tool.main([*COMMAND, '--runtime', 'openvino', '--output', str(tmp_path / 'speed')])
    assert '`pip install openvino`' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_page_keeps_what_is_around_the_table(tool, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n')
    tool.main([*COMMAND, '--output', str(tmp_path / 'page')])
    text = page.read_text()
    assert text.startswith('before\n<!-- benchmark -->\n') and text.endswith('<!-- /benchmark -->\nafter\n')
    assert 'old' not in text and '| network | plan |' in text


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--batches', '0'], '--batches must be positive'),
    (['--rounds', '-1'], '--rounds must be positive'),
    (['--size', '32', '32', '32'], '--size must be one or two ints'),
    (['--runtime', 'compile', '--modes', 'training'], '--modes must be left out with --runtime compile'),
    (['--runtime', 'compile', '--dtype', 'bfloat16'], '--dtype must be left out with --runtime compile'),
    (['--networks', 'resnet18', 'retinanet_r50_fpn_1x_coco'], 'either backbones or detectors'),
    (['--networks', 'retinanet_r50_fpn_1x_coco', '--runtime', 'compile'], 'detectors run by PyTorch as they are'),
    (['--modes', 'testing'], 'invalid choice'), (['--networks', 'resnet-50'], 'network must be named as in configs'),
    (['--device', 'cuda'], 'torch finds no GPU on this machine'),
    (['--plans', 'fast'], "plan must be 'auto' or one of"), (['--output', 'missing/page'], 'no folder'),
])
def test_bad_arguments(tool, capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        tool.main([*COMMAND, *arguments])
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

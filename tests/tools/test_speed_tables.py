"""Speed as the ODConv paper has it, from measured times."""
import json

import pytest

SETTING = dict(training=False, batch=8, threads=1, device='cpu')


@pytest.fixture
def tool(load_tool):
    return load_tool('speed_tables')


@pytest.fixture
def file(tmp_path):
    """A file of the benchmark, with these results."""

    def write(*results: tuple, name: str = 'speed.json') -> str:
        rows = [dict(network=network, plan=plan, milliseconds=milliseconds, setting={**SETTING, **setting})
                for network, plan, milliseconds, setting in results]
        (tmp_path / name).write_text(json.dumps(dict(results=rows)))
        return str(tmp_path / name)

    return write


def test_images_a_second(tool, file, tmp_path, capsys):
    """Tables 8 and 9: 8 images in 160 ms are 50 a second."""
    cpu = file(('resnet50', 'auto', 160., {}), ('odconv1x-resnet50', 'auto', 200., {}),
               ('odconv1x-resnet50', 'grouped', 400., dict(batch=1, threads=2)))
    gpu = file(('odconv1x-resnet50', 'auto', 500., dict(device='cuda', batch=200, dtype='bfloat16')), name='gpu.json')
    tool.main([cpu, gpu, '--out', str(tmp_path / 'tables.md')])
    lines = (tmp_path / 'tables.md').read_text().splitlines()
    assert lines[0] == '**Inference**'
    assert lines[2] == ('| images a second | CPU, 1 thread, batch 8 | CPU, 2 threads, batch 1 '
                        '| GPU, batch 200, bfloat16 |')
    assert lines[4:7] == ['| resnet50 | 50.0 | – | – |', '| odconv1x-resnet50 | 40.0 | – | 400.0 |',
                          '| odconv1x-resnet50 (grouped) | – | 2.5 | – |']
    assert '| resnet50 | 50.0 |' in capsys.readouterr().out


def test_what_is_measured_otherwise_has_a_column_of_its_own(tool, file, capsys):
    tool.main([file(('n', 'auto', 100., {}), ('n', 'auto', 10., dict(runtime='onnxruntime')),
                    ('n', 'auto', 50., dict(size=64, width=96)))])
    out = capsys.readouterr().out
    assert '| CPU, 1 thread, batch 8 | onnxruntime, CPU, 1 thread, batch 8 | CPU, 1 thread, batch 8, 64×96 |' in out
    assert '| n | 80.0 | 800.0 | 160.0 |' in out


@pytest.mark.parametrize(('milliseconds', 'setting', 'message'), [
    (0, {}, 'milliseconds of result 0 is 0, no positive number'), ('x', {}, "milliseconds of result 0 is 'x'"),
    (1., dict(batch='8'), "batch of result 0 is '8', no positive number")])
def test_bad_numbers(tool, file, milliseconds, setting, message):
    with pytest.raises(SystemExit, match=message):
        tool.main([file(('n', 'auto', milliseconds, setting))])


@pytest.mark.parametrize('name', ['speed_tables', 'plot_curves', 'plot_costs'])
def test_a_folder_is_no_file_to_write(load_tool, name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load_tool(name).main(['--out', str(tmp_path)])
    assert f'must be a file, but {tmp_path} is a folder' in capsys.readouterr().err


def test_hours(tool, file, capsys):
    """Table 17: 0.9 s for 8 images are 135 s, 2.25 min, for 1200, and 0.375 h for 10 times as many."""
    tool.main([file(('resnet50', 'auto', 900., dict(training=True))), '--images', '1200', '--epochs', '10'])
    out = capsys.readouterr().out
    assert 'Training of 1,200 images for 10 epochs' in out and 'Inference' not in out
    assert '| network | batch (s) | epoch (min) | total (h) |' in out
    assert '| resnet50, CPU, 1 thread, batch 8 | 0.900 | 2.2 | 0.38 |' in out


def test_logged(tool, tmp_path, capsys):
    """The time that trainings took: 3600 iterations of 0.5 s are half an hour."""
    for seed in '01':
        log = tmp_path / seed / 'a' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('\n'.join(json.dumps(dict(time=.5, epoch=epoch, iter=1800 * epoch, step=1800 * epoch))
                                 for epoch in (1, 2)))
    tool.main(['--run', 'ODConv', str(tmp_path / '0'), str(tmp_path / '1')])
    out = capsys.readouterr().out
    assert '| ODConv, 1 of 2 | 0.500 | 15.0 | 0.5 |' in out and '| ODConv, 2 of 2 |' in out


@pytest.mark.parametrize('text, message', [
    ('{"results": [\n1,\n]}', r'speed\.json, line 3: expected is a JSON file of tools/analysis_tools/benchmark\.py'),
    ('{}', r'speed\.json: expected is .*, but it has none'), ('[]', 'it has none'), ('{"results": [1]}', 'it has none'),
    ('{"results": [{"network": "a", "plan": "auto", "setting": {"training": true, "batch": 1, "threads": 1}}]}',
     'but result 0 has no device, milliseconds'),
])
def test_another_format(tool, tmp_path, text, message):
    (tmp_path / 'speed.json').write_text(text)
    with pytest.raises(SystemExit, match=message):
        tool.main([str(tmp_path / 'speed.json')])


@pytest.mark.parametrize('arguments, message', [
    ([], 'name files of tools/analysis_tools/benchmark.py, or trainings by --run'), (['none.json'], r'none\.json'),
    (['--run', 'a'], '--run a names nothing'), (['--run', 'a', 'none'], "no log or folder 'none'"),
])
def test_mistakes(tool, arguments, message):
    with pytest.raises(SystemExit, match=message):
        tool.main(arguments)


@pytest.mark.parametrize('option', ['--images', '--epochs'])
def test_bad_options(tool, capsys, option):
    with pytest.raises(SystemExit):
        tool.main([option, '0'])
    assert f'{option} must be at least 1, but is 0' in capsys.readouterr().err

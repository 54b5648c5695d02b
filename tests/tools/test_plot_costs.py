"""The command line on the model index, and on a training."""
import json

import pytest

pytest.importorskip('mmpretrain')


@pytest.fixture
def tool(load_tool):
    return load_tool('plot_costs')


@pytest.fixture
def work_dir(root, tmp_path):
    """What a training of a small network leaves."""
    from mmengine.config import Config
    folder = tmp_path / 'run'
    (folder / 'a' / 'vis_data').mkdir(parents=True)
    (folder / 'a' / 'vis_data' / 'scalars.json').write_text('\n'.join(
        json.dumps({'accuracy/top1': 30. * step, 'coco/bbox_mAP': .1 * step, 'step': step}) for step in (1, 2)))
    Config.fromfile(root / 'configs/demo/resnet18-thin_digits.py').dump(folder / 'resnet18-thin_digits.py')
    return folder


def drawn(tool, monkeypatch, tmp_path, *arguments: str):
    """The points and the label that the figure is made of."""
    from dynconv_mm.analysis import result_figures
    seen = []
    draw = result_figures.trade_off_figure
    monkeypatch.setattr(result_figures, 'trade_off_figure', lambda *args: seen.append(args) or draw(*args))
    tool.main([*arguments, '--out', str(tmp_path / 'figure.png')])
    assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')
    return seen[0]


def test_papers(tool, monkeypatch, tmp_path):
    """Tables 1 and I: as printed."""
    groups, label = drawn(tool, monkeypatch, tmp_path, '--models', 'ODConv', 'odconv1x-mobilenet-v2-w???_8xb32_in1k',
                          '--models', 'DCDC', 'dcdc-resnet26_8xb32_in1k', 'dcdc-resnet50_8xb32_in1k')
    assert label == 'top-1 accuracy (%)'
    assert [point.value for point in groups['ODConv']] == [68.26, 72.43, 74.84]
    assert [(round(point.params / 1e6, 1), round(point.madds / 1e9, 1), point.value) for point in groups['DCDC']] == [
        (9.4, 1.7, 77.4), (15.8, 2.7, 78.9)]


def test_a_detector_is_counted_whole(tool, monkeypatch, tmp_path):
    """Table V prints 134.4G."""
    pytest.importorskip('mmdet')
    groups, label = drawn(tool, monkeypatch, tmp_path, '--models', 'DCDC', 'faster-rcnn_dcdc-r50_dcdc-fpn_1x_coco',
                          '--result', 'box AP')
    point, = groups['DCDC']
    assert (label, point.value) == ('box AP', 40.9) and abs(point.madds / 134.4e9 - 1) < 0.01


def test_a_training(tool, monkeypatch, tmp_path, work_dir):
    groups, _ = drawn(tool, monkeypatch, tmp_path, '--run', 'mine', str(work_dir))
    point, = groups['mine']
    assert (point.name, point.value) == ('resnet18-thin_digits', 60.) and point.params == 703_386
    together = drawn(tool, monkeypatch, tmp_path, '--run', 'mine', str(work_dir), '--metric', 'coco/bbox_mAP',
                     '--models', 'DCDC', 'faster-rcnn_dcdc-r50_dcdc-fpn_1x_coco', '--result', 'box AP')[0]
    assert together['mine'][0].value == pytest.approx(20.)  # in percent, as papers have it


@pytest.mark.parametrize('arguments, message', [
    ([], 'name networks by --models, or trainings by --run'),
    (['--models', 'a', 'vgg16'], "no network of the model index is named 'vgg16'"),
    (['--models', 'a', 'dcdc-resnet26_8xb32_in1k', '--result', 'PQ'], "a result 'PQ', but 'Top 1 Accuracy .DCDC paper"),
    (['--models', 'a', 'dcd-resnet18_8xb32_in1k'], "has 'Top 1 Accuracy .* and 'Top 1 Accuracy .*; name one"),
    (['--models', 'a'], '--models a names nothing'), (['--run', 'a', 'none'], "no log or folder 'none'"),
])
def test_mistakes(tool, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        tool.main([*arguments, '--out', str(tmp_path / 'a.png')])


def test_a_training_without_its_config(tool, tmp_path, work_dir):
    (work_dir / 'resnet18-thin_digits.py').unlink()
    with pytest.raises(SystemExit, match='with one config in it, whose network is counted, but has 0'):
        tool.main(['--run', 'a', str(work_dir), '--out', str(tmp_path / 'a.png')])

"""The command line on small logs."""
import io
import json

import pytest
from PIL import Image


@pytest.fixture
def tool(load_tool):
    return load_tool('plot_curves')


@pytest.fixture
def run_of(tmp_path):
    """The work directory of a training of some epochs, which logged by a factor that stands for its seed."""

    def make(name: str, factor: float = 1., epochs: int = 3, by_epoch: bool = True):
        lines = []
        for epoch in range(1, epochs + 1):
            place = dict(epoch=epoch) if by_epoch else {}
            lines += [{'loss': 1., 'accuracy_top-1': factor * 9 * epoch, **place, 'iter': epoch, 'step': epoch},
                      {'accuracy/top1': factor * 10 * epoch, 'coco/bbox_mAP': .1 * epoch, 'step': epoch}]
        file = tmp_path / name / '20260101_000000' / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('\n'.join(map(json.dumps, lines)))
        return str(tmp_path / name)

    return make


def drawn(tool, monkeypatch, *arguments: str):
    """The curves and labels that the figure is made of."""
    from dynconv_mm.analysis import result_figures
    seen = []
    draw = result_figures.curves_figure
    monkeypatch.setattr(result_figures, 'curves_figure', lambda *args: seen.append(args) or draw(*args))
    tool.main([*arguments])
    return seen[0]


def test_figure(tool, run_of, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'new' / 'curves.png'
    curves, *labels = drawn(tool, monkeypatch, '--run', 'ODConv', run_of('a'), run_of('b', 1.2), '--run', 'static',
                            run_of('c', .5, epochs=2), '--train-metric', 'accuracy_top-1', '--out', str(out))
    assert labels == ['epoch', 'top-1 accuracy (%)']
    assert list(curves) == ['ODConv', 'static'] and list(curves['static']) == ['validation', 'training']
    assert curves['ODConv']['validation'].mean == pytest.approx([11, 22, 33])
    assert curves['static']['training'].mean == pytest.approx([4.5, 9])
    with Image.open(io.BytesIO(out.read_bytes())) as image:
        assert image.format == 'PNG'
    assert f'written: {out}' in capsys.readouterr().out


def test_error(tool, run_of, tmp_path, monkeypatch):
    """DCD, Fig. 5: the lowest accuracy is the highest error."""
    curves, _, label = drawn(tool, monkeypatch, '--run', 'DCD', run_of('a'), run_of('b', 1.2), '--error', '--out',
                             str(tmp_path / 'a.png'))
    found = curves['DCD']['validation']
    assert label == 'top-1 error (%)'
    assert (found.mean[0], found.low[0], found.high[0]) == pytest.approx((89, 88, 90))


def test_iterations(tool, run_of, tmp_path, monkeypatch):
    labels = drawn(tool, monkeypatch, '--run', 'a', run_of('a', by_epoch=False), '--metric', 'coco/bbox_mAP', '--out',
                   str(tmp_path / 'a.png'))[1:]
    assert labels == ('iteration', 'bbox_mAP')


@pytest.mark.parametrize('change, message', [
    (['--metric', 'coco/segm_mAP'], "no 'coco/segm_mAP' was logged, but loss, accuracy_top-1, accuracy/top1"),
    (['--run', 'a', 'none'], '--run a is there twice'), (['--run', 'b'], '--run b names nothing'),
    (['--run', 'b', 'none'], "there is no log or folder 'none'"),
    (['--metric', 'coco/bbox_mAP', '--error'], '--error is 100% less the metric'),
])
def test_mistakes(tool, run_of, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        tool.main(['--run', 'a', run_of('a'), '--out', 'a.png', *change])
    assert not (tmp_path / 'a.png').exists()


def test_epochs_and_iterations_share_no_axis(tool, run_of, tmp_path):
    with pytest.raises(SystemExit, match='some trainings count epochs and some iterations'):
        tool.main(['--run', 'a', run_of('a'), '--run', 'b', run_of('b', by_epoch=False), '--out', str(tmp_path / 'c')])

"""Logs as mmengine writes them, of one training in several parts too, and logs that are none."""
import json
import math
from pathlib import Path

import pytest

from dynconv_mm.analysis.training_log import band, read_log, training_cost


def write(folder: Path, records: list[dict], start: str = '20260101_000000') -> Path:
    file = folder / start / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return file


def train(iteration: int, epoch: int, **values: float) -> dict:
    return dict(lr=0.1, loss=1., epoch=epoch, iter=iteration, step=iteration, **values)


def test_by_epoch(tmp_path):
    """A value of validation belongs to the epoch that it followed, those of training are averaged."""
    file = write(tmp_path, [train(2, 1, acc=10.), train(4, 1, acc=20.), {'top1': 40., 'time': .1, 'step': 1},
                            train(6, 2, acc=35.), {'top1': 55., 'time': .1, 'step': 2}])
    log = read_log(tmp_path)
    assert log.by_epoch and log.metrics() == ['lr', 'loss', 'acc', 'top1', 'time']
    assert log.series('top1') == {1: 40., 2: 55.} and log.series('acc') == {1: 15., 2: 35.}
    for other in (file, file.parent, file.parents[1]):
        assert read_log(other).records == log.records
    with pytest.raises(ValueError, match="no 'top5' was logged, but lr, loss, acc, top1, time"):
        log.series('top5')


def test_by_iteration(tmp_path):
    write(tmp_path, [dict(loss=3., iter=10, step=10), dict(loss=1., iter=20, step=20), dict(ap=.5, step=20)])
    log = read_log(tmp_path)
    assert not log.by_epoch and log.series('loss') == {10: 3., 20: 1.} and log.series('ap') == {20: .5}


def test_resumed(tmp_path):
    """What was trained again after a crash counts once: as it was trained last."""
    write(tmp_path, [train(2, 1), {'top1': 1., 'step': 1}, train(4, 2), {'top1': 2., 'step': 2}, train(6, 3, acc=7.)],
          '20260101_000000')
    write(tmp_path, [], '20260101_000001')  # killed before it logged
    write(tmp_path, [train(4, 2, acc=5.), {'top1': 4., 'step': 2}, train(6, 3)], '20260102_000000')
    log = read_log(tmp_path)
    assert log.series('top1') == {1: 1., 2: 4.} and log.series('acc') == {2: 5.}
    assert [record['iter'] for record in log.records if 'iter' in record] == [2, 4, 6]


@pytest.mark.parametrize('line, message', [
    ('{"mode": "train", "epoch": 1, "iter": 50}', "a 'step', but it is"),  # mmcv 1
    ('[1, 2]', "JSON object with a 'step'"), ('{"step": 1', 'it is no JSON'), ('Epoch(train) [1][10/45]', 'no JSON'),
    ('{"step": 2, "top1": "high"}', "'top1' must be a number, but is 'high'"),
    ('{"step": true}', "'step' must be a number"), ('{"step": 2, "top1": null}', "'top1' must be"),
])
def test_another_format(tmp_path, line, message):
    """The message says where, and what was expected."""
    file = tmp_path / 'a.json'
    file.write_text(f'{json.dumps(train(1, 1))}\n{line}\n')
    with pytest.raises(ValueError, match=rf'a\.json, line 2: .*{message}'):
        read_log(file)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no log or folder '.*none'"):
        read_log(tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match='has no log of mmengine, vis_data/scalars.json'):
        read_log(tmp_path)
    write(tmp_path, [])
    with pytest.raises(ValueError, match='nothing was logged'):
        read_log(tmp_path)


def logs(tmp_path, *series: dict[int, float]):
    made = []
    for number, values in enumerate(series):
        write(tmp_path / str(number), [train(1, 1), *({'top1': value, 'step': step} for step, value in values.items())])
        made.append(read_log(tmp_path / str(number)))
    return made


def test_band(tmp_path):
    """Mean and extremes of the seeds, where all have been."""
    found = band(logs(tmp_path, {1: 10., 2: 20., 3: 7.}, {1: 14., 2: 11.}, {2: 50., 1: 12.}), 'top1')
    assert found == ([1, 2], [12., 27.], [10., 11.], [14., 50.])


def test_no_band(tmp_path):
    with pytest.raises(ValueError, match='no epoch or iteration that .*0, .*1 have in common'):
        band(logs(tmp_path, {1: 1.}, {2: 1.}), 'top1')


def test_cost(tmp_path):
    """Each time stands for the iterations since the line before; validation has times that do not count."""
    write(tmp_path, [train(10, 1, time=2.), train(20, 1, time=1.), {'top1': 1., 'time': 99., 'step': 1},
                     train(40, 2, time=3.), train(50, 2, time=1.), train(70, 3, time=1.)])
    seconds = 10 * 2 + 10 * 1 + 20 * 3 + 10 * 1 + 20 * 1
    cost = training_cost(read_log(tmp_path))
    assert cost.batch_seconds == 1. and math.isclose(cost.total_hours, seconds / 3600)
    assert math.isclose(cost.epoch_minutes, seconds / 70 * 30 / 60)  # 30 iterations from 10 to 40, and from 40 to 70


def test_cost_of_one_epoch(tmp_path):
    write(tmp_path, [train(10, 1, time=2.), train(20, 1, time=1.)])
    cost = training_cost(read_log(tmp_path))
    assert math.isclose(cost.epoch_minutes, 30 / 60) and math.isclose(cost.total_hours, 30 / 3600)


def test_no_cost(tmp_path):
    write(tmp_path, [train(1, 1)])
    with pytest.raises(ValueError, match="no iteration was logged with its 'epoch' and 'time'"):
        training_cost(read_log(tmp_path))

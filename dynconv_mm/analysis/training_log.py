"""What trainings logged: the scalars that mmengine writes, by epoch or iteration."""
from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

EXPECTED = "expected is a line of mmengine's vis_data/scalars.json, a JSON object with a 'step'"


class TrainingLog(NamedTuple):
    """Of one training, its resumptions included."""

    path: Path  # as it was named
    records: list[dict]  # what was logged, in order

    @property
    def by_epoch(self) -> bool:
        """Whether epochs were counted; else iterations."""
        return any('epoch' in record for record in self.records)

    def metrics(self) -> list[str]:
        """The names of all that was logged."""
        return list(dict.fromkeys(name for record in self.records for name in record
                                  if name not in ('epoch', 'iter', 'step')))

    def series(self, metric: str) -> dict[int, float]:
        """A metric by epoch, or by iteration where no epochs were counted; of training, the mean over an epoch.

        Raises:
            ValueError: it was not logged.
        """
        values: dict[int, list[float]] = {}
        for record in self.records:
            if metric in record:
                values.setdefault(record.get('epoch', record['step']), []).append(record[metric])
        if not values:
            raise ValueError(f'{self.path}: no {metric!r} was logged, but {", ".join(self.metrics())}')
        return {place: statistics.fmean(found) for place, found in values.items()}


class Band(NamedTuple):
    """A metric of several trainings that differ in their seeds, where all of them have it."""

    places: list[int]  # epochs or iterations
    mean: list[float]
    low: list[float]
    high: list[float]


def read_log(path: str | Path) -> TrainingLog:
    """The log of a training.

    Args:
        path (str | Path): the work directory that was given to ``mim train``, where what was resumed goes on in a
            folder of its own, or one file, ``vis_data/scalars.json``.

    Raises:
        FileNotFoundError: there is no such path, or no log in it.
        ValueError: a line is of another format; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted({*path.glob('scalars.json'), *path.glob('vis_data/scalars.json'),
                        *path.glob('*/vis_data/scalars.json')})
        if not files:
            raise FileNotFoundError(f"{path} has no log of mmengine, vis_data/scalars.json in a folder named by the "
                                    "training's start")
    elif path.is_file():
        files = [path]
    else:
        raise FileNotFoundError(f'there is no log or folder {str(path)!r}')
    records: list[dict] = []
    for file in files:  # by the time of their start
        records = _resumed(records, _read(file))
    if not records:
        raise ValueError(f'{", ".join(map(str, files))}: nothing was logged')
    return TrainingLog(path, records)


def _read(file: Path) -> list[dict]:
    """The records of a file."""
    records = []
    for number, line in enumerate(file.read_text(encoding='utf-8', errors='replace').splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError:
            raise ValueError(f'{file}, line {number}: {EXPECTED}, but it is no JSON: {line[:60]!r}') from None
        if not isinstance(record, dict) or 'step' not in record:
            raise ValueError(f'{file}, line {number}: {EXPECTED}, but it is {line[:60]!r}')
        for name, value in record.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f'{file}, line {number}: {name!r} must be a number, but is {value!r}')
        records.append(record)
    return records


def _resumed(before: list[dict], after: list[dict]) -> list[dict]:
    """The records of a training that was resumed: from where it went on, the later ones count."""
    first = {trained: min((record['step'] for record in after if ('iter' in record) == trained), default=None)
             for trained in (True, False)}
    kept = []
    for record in before:
        start = first['iter' in record]
        if start is None or record['step'] < start:
            kept.append(record)
    return kept + after


def band(logs: Sequence[TrainingLog], metric: str) -> Band:
    """A metric of trainings with several seeds: mean, least and greatest at each epoch or iteration that all have.

    Raises:
        ValueError: one has not logged it, or they have no epoch or iteration in common.
    """
    series = [log.series(metric) for log in logs]
    places = sorted(set.intersection(*map(set, series)))
    if not places or len({log.by_epoch for log in logs}) > 1:
        raise ValueError(f'{metric!r} was logged at no epoch or iteration that '
                         f'{", ".join(str(log.path) for log in logs)} have in common')
    columns = [[one[place] for one in series] for place in places]
    return Band(places, *([function(values) for values in columns] for function in (statistics.fmean, min, max)))


class TrainingCost(NamedTuple):
    """What a training took, as ODConv's Table 17 has it."""

    batch_seconds: float  # the median of what was logged
    epoch_minutes: float  # of iterations alone, without validation
    total_hours: float


def training_cost(log: TrainingLog) -> TrainingCost:
    """The time that a training's iterations took, data loading included.

    Raises:
        ValueError: no times were logged, or no epochs.
    """
    trained = [record for record in log.records if {'iter', 'epoch', 'time'} <= record.keys()]
    if not trained:
        raise ValueError(f"{log.path}: no iteration was logged with its 'epoch' and 'time'")
    times = {record['iter']: record['time'] for record in trained}
    seconds, last = 0., 0
    for iteration, time in times.items():  # each time is that of the iterations since the one before
        seconds, last = seconds + (iteration - last) * time, iteration
    starts: dict[int, int] = {}  # the iteration that each epoch logged first
    for record in trained:
        starts.setdefault(record['epoch'], record['iter'])
    first_epoch, last_epoch = min(starts), max(starts)
    per_epoch = ((starts[last_epoch] - starts[first_epoch]) / (last_epoch - first_epoch)
                 if last_epoch > first_epoch else last)
    return TrainingCost(statistics.median(times.values()), seconds / last * per_epoch / 60, seconds / 3600)

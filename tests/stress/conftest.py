"""What the stress tests count, and docs/stress.md, which is written from it."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from single_thread import single_thread  # noqa: F401  for all tests here

from dynconv_mm.atomic_write import atomic_write

PAGE = """# Under stress

What the tests in `tests/stress` did in one run: how often, and in how many tests a failure showed.
They are a part of the test suite. The tests count themselves; this writes the page anew:

```bash
python -m pytest tests/stress --stress-report docs/stress.md
```

On torch {torch}: {tests} tests, {failed} failed.{skipped}

| tests | what they did | times | failures |
|---|---|---:|---:|
{rows}

What the table does not say:

- torch has `SyncBatchNorm` for GPUs alone, and `DistributedDataParallel` refuses it elsewhere. Between two processes on
  the CPU its equations stand in for it, so that what is shown is how layers and networks use it; its names, its
  conversion and its results in eval mode are torch's own.
- mmengine's `launcher='pytorch'` asks for a GPU when it opens the connection between processes, and names one when it
  wraps the model: on a CPU, open it yourself with gloo and set `model_wrapper_cfg=dict(device_ids=None, …)`, as
  [`distributed_training.py`](../tests/stress/distributed_training.py) does.
- Before torch 2.6, mmengine's own loading (`mim test`, `--resume`, `init_cfg`) runs what a checkpoint file says, and so
  does that of the onedl fork on every version, with a warning; the command lines in `tools/` refuse such files always.
- mmengine's `CheckpointHook` writes a checkpoint into its place, after it has removed the one that `max_keep_ckpts`
  does not keep. Where it was killed and `last_checkpoint` names a file that is not there or does not load, name the
  newest that does: `--resume PATH` (or `load_from=PATH resume=True`). `AtomicCheckpointHook` needs none of this.
- A norm over a map of a single pixel of a single image is refused by torch in training, as in any network; those in
  attentions use their running statistics there.
- Boxes without area give losses that are not finite: mmdet's data sets leave them out (`filter_cfg`), and so should
  others.
"""
TALLY = pytest.StashKey()
LINES = pytest.StashKey()


class Tally:
    """Times and failures of each line of the table, a line being a file of tests and what it did."""

    def __init__(self) -> None:
        self.times, self.failures, self.outcomes, self.reasons = Counter(), Counter(), Counter(), Counter()

    def page(self) -> str:
        rows = [f'| [`{file}`](../tests/stress/{file}) | {what} | {times} | {self.failures[file, what]} |'
                for (file, what), times in sorted(self.times.items())]
        skipped = ''.join(f' Skipped, {count}: {reason}.' for reason, count in sorted(self.reasons.items()))
        return PAGE.format(torch=torch.__version__.partition('+')[0], tests=sum(self.outcomes.values()),
                           failed=self.outcomes['failed'], skipped=skipped, rows='\n'.join(rows))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--stress-report', type=Path, metavar='FILE', help='write what the stress tests did to FILE')


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()
    if config.getoption('--stress-report', None) and config.getoption('numprocesses', None):
        raise pytest.UsageError('--stress-report counts in one process: leave out -n')


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = (yield).get_result()
    if report.when == 'call' or report.outcome != 'passed':
        tally = item.config.stash[TALLY]
        tally.outcomes[report.outcome] += 1
        if report.failed:
            tally.failures.update(item.stash.get(LINES, set()))
        elif report.skipped and isinstance(report.longrepr, tuple):
            tally.reasons[report.longrepr[2].removeprefix('Skipped: ')] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption('--stress-report', None)
    if path:
        with atomic_write(path) as partial:
            partial.write_text(session.config.stash[TALLY].page())


@pytest.fixture
def count(request) -> Callable[..., None]:
    """Add to a line of the table, before what it counts can fail: ``count('kills', 3)``."""

    def add(what: str, times: int = 1) -> None:
        line = request.node.path.name, what
        request.config.stash[TALLY].times[line] += times
        request.node.stash.setdefault(LINES, set()).add(line)

    return add

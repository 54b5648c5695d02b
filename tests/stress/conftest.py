"""What the stress tests count, and docs/stress.md, which is written from it."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dynconv_mm.whole_file import whole_file

PAGE = """# Under stress

What the tests in [`tests/stress`](../tests/stress) did in one run: how often, and in how many tests a failure showed.
They are a part of the test suite. The table is counted by the tests themselves; this writes it anew:

```bash
pytest tests/stress --stress-report docs/stress.md
```

On torch {torch}: {tests} tests, {failed} failed.{skipped}

| tests | what they did | times | failures |
|---|---|---:|---:|
{rows}
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
        with whole_file(path) as partial:
            partial.write_text(session.config.stash[TALLY].page())


@pytest.fixture
def count(request) -> Callable[..., None]:
    """Add to a line of the table, before what it counts can fail: ``count('kills', 3)``."""

    def add(what: str, times: int = 1) -> None:
        line = request.node.path.name, what
        request.config.stash[TALLY].times[line] += times
        request.node.stash.setdefault(LINES, set()).add(line)

    return add


@pytest.fixture(scope='package', autouse=True)
def single_thread():
    """These networks are so small that threads would spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

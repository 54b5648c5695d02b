"""Alternatives are timed in turns, and short ones for as long as a turn lasts."""
from __future__ import annotations

import time

import pytest

from dynconv_mm.analysis import timing


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that calls push on by hand."""
    now = [0.]
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
    return now


def make_call(clock: list[float], calls: list[str], name: str, *seconds: float):
    """A call that takes so long, at last again and again."""
    left = list(seconds)

    def call() -> None:
        calls.append(name)
        clock[0] += left.pop(0) if len(left) > 1 else left[0]

    return call


def test_in_turns(clock):
    calls = []
    timings = timing.time_in_turns({'a': make_call(clock, calls, 'a', 9., 9., 1., 2., 4.),
                                    'b': make_call(clock, calls, 'b', 9., 9., 3., 3., 4.)}, range(3))
    assert ''.join(calls) == 'aabb' + 'ab' * 3
    assert timings['a'].milliseconds == pytest.approx(2000) and timings['a'].ratio == 1
    assert timings['b'].milliseconds == pytest.approx(3000) and timings['b'].ratio == pytest.approx(1.5)
    assert timings['b'].quartiles == pytest.approx((1.25, 2.25))


def test_short_calls_are_repeated(clock):
    """As often as fits by the second call; a disturbed one does not count."""
    calls = []
    timings = timing.time_in_turns({'long': make_call(clock, calls, 'l', 2.),
                                    'short': make_call(clock, calls, 's', 5., .1, .1, .1, .7, .1)}, range(2), turn=.5)
    assert ''.join(calls) == 'llss' + 'lsssss' * 2
    assert timings['long'].milliseconds == pytest.approx(2000)
    assert timings['short'].milliseconds == pytest.approx(100)

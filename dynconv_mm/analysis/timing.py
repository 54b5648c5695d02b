"""Times of alternatives, taken in turns, so that what else the machine does meets all of them alike."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Of one alternative."""

    milliseconds: float  # median
    ratio: float  # median of the ratios to the first alternative in the same round
    quartiles: tuple[float, float]  # lower and upper, of these ratios


def time_in_turns(calls: dict[str, Callable[[], object]], rounds: Iterable[int],
                  turn: float = 0.) -> dict[str, Timing]:
    """Call all alternatives in each round, one after the other, and compare each with the first.

    Args:
        calls (dict[str, Callable]): the alternatives; the first is what the others are compared with.
        rounds (Iterable[int]): the rounds, such as a ``range`` or a progress bar over one. Before the first
            round each is called twice, without that counting.
        turn (float): seconds for which a short call is repeated when its turn comes; the median of these calls is its
            time in that round. Default: 0, a single call.

    Returns:
        dict[str, Timing]: by alternative.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(1000 * turn / _milliseconds(call)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in rounds:
        for name, call in calls.items():
            times[name].append(statistics.median(_milliseconds(call) for _ in range(repeats[name])))
    first = next(iter(times.values()))
    return {name: _summary(own, [a / b for a, b in zip(own, first)]) for name, own in times.items()}


def _milliseconds(call: Callable[[], object]) -> float:
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return 1000 * (time.perf_counter() - start)


def _summary(times: list[float], ratios: list[float]) -> Timing:
    quartiles = statistics.quantiles(ratios, n=4, method='inclusive') if len(ratios) > 1 else [ratios[0]] * 3
    return Timing(statistics.median(times), statistics.median(ratios), (quartiles[0], quartiles[2]))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

"""What is switched in a block ends with it, and in one thread is no other's business."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dynconv_mm.functional import enable_numba, mixture_conv2d, use_plan
from dynconv_mm.functional.kernel_switches import is_enabled

SERVES, REFUSES = 'grouped', 'bmm'  # what the two plans do with the call below


def active_plan() -> str:
    """SERVES, where that is the plan for all, otherwise REFUSES."""
    try:
        mixture_conv2d(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 2, 3, 3), plan=REFUSES)
    except ValueError:
        return REFUSES
    return SERVES


class Thread:
    """A thread that does one thing after the other, when it is told to."""

    def __init__(self) -> None:
        self.run = ThreadPoolExecutor(1)
        self.blocks = contextlib.ExitStack()

    def do(self, function, *args: object) -> object:
        return self.run.submit(function, *args).result()

    def enter(self, block, *args: object) -> None:
        self.do(lambda: self.blocks.enter_context(block(*args)))

    def leave(self) -> None:
        self.do(self.blocks.close)


@pytest.fixture
def threads() -> Iterator[tuple[Thread, Thread]]:
    with contextlib.ExitStack() as stack:
        both = Thread(), Thread()
        for thread in both:
            stack.enter_context(thread.run)
        yield both
        for thread in both:
            thread.leave()


def test_plans_within_plans():
    seen = []
    with use_plan(SERVES):
        with use_plan(REFUSES):
            with use_plan(SERVES):
                seen.append(active_plan())
            seen.append(active_plan())
            with use_plan(REFUSES):
                seen.append(active_plan())
            seen.append(active_plan())
        seen.append(active_plan())
    seen.append(active_plan())
    assert seen == [SERVES, REFUSES, REFUSES, REFUSES, SERVES, REFUSES]


def test_a_plan_within_itself_after_an_error():
    with use_plan(SERVES):
        with contextlib.suppress(KeyError), use_plan(REFUSES), use_plan(SERVES):
            raise KeyError
        assert active_plan() == SERVES
    assert active_plan() == REFUSES


def test_plans_of_two_threads(threads):
    first, second = threads
    first.enter(use_plan, SERVES)
    assert first.do(active_plan) == SERVES
    assert second.do(active_plan) == active_plan() == REFUSES
    second.enter(use_plan, REFUSES)
    assert first.do(active_plan) == SERVES
    first.leave()
    second.enter(use_plan, SERVES)
    assert (first.do(active_plan), second.do(active_plan)) == (REFUSES, SERVES)
    second.leave()
    assert first.do(active_plan) == second.do(active_plan) == active_plan() == REFUSES


@pytest.mark.parametrize('leaves_first', [0, 1], ids=['first', 'second'])
def test_numba_in_interleaved_blocks(threads, leaves_first):
    """Each thread has it off for as long as its own block lasts, and nobody longer."""
    assert is_enabled('numba')
    for thread in threads:
        thread.enter(enable_numba, False)
    assert not any(thread.do(lambda: is_enabled('numba')) for thread in threads)
    threads[leaves_first].leave()
    other = threads[1 - leaves_first]
    assert not other.do(lambda: is_enabled('numba'))
    other.leave()
    assert is_enabled('numba') and all(thread.do(lambda: is_enabled('numba')) for thread in threads)


def test_a_block_within_one_of_the_same_switch():
    switch = enable_numba(False)
    assert not is_enabled('numba')
    with switch:
        with switch:
            assert not is_enabled('numba')
        assert not is_enabled('numba')
    assert is_enabled('numba')


def test_a_switch_that_two_threads_share(threads):
    switch = enable_numba(False)
    for thread in threads:
        thread.enter(lambda: switch)
    for index, thread in enumerate(threads):
        thread.leave()
        assert [thread.do(lambda: is_enabled('numba')) for thread in threads] == [True, index == 1]
    assert is_enabled('numba')

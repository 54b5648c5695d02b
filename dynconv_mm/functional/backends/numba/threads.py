"""The Numba kernels in several threads."""
from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

WORTH_A_THREAD = 2**21  # products, a millisecond or less: about ten times what it takes to hand them over


def in_threads(kernel: Callable[..., None], tensors: Sequence[Tensor | None], parts: int, products: int,
               *arguments: object) -> None:
    """Call ``kernel(*arguments, first, last)`` for stretches of ``range(parts)``, in as many threads as torch may use.

    Args:
        kernel (Callable): a compiled function, which works on the parts from ``first`` to before ``last``.
        tensors (Sequence[Tensor]): those whose addresses are among the arguments. Each thread holds them, so that they
            do not end before it, whatever interrupts the caller.
        parts (int): how many there are.
        products (int): in all of them together; few are not worth a thread.
    """
    threads = min(torch.get_num_threads(), parts, 1 + products // WORTH_A_THREAD)
    if threads == 1:
        kernel(*arguments, 0, parts)
        return
    ends = [parts * thread // threads for thread in range(threads + 1)]
    pool = _pool(os.getpid(), threads)
    for call in [pool.submit(_call, tensors, kernel, *arguments, *ends[i:i + 2]) for i in range(threads)]:
        call.result()


def _call(tensors: Sequence[Tensor | None], kernel: Callable[..., None], *arguments: object) -> None:
    kernel(*arguments)


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of the one it was forked from did not come along."""
    return ThreadPoolExecutor(threads, thread_name_prefix='dynconv_mm')

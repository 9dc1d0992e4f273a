"""Independent pieces of an iteration side by side on the processors of a CPU.

An operation that torch splits over its threads makes them wait for each other at its end. The hidden layers of an
iteration are a hundred small operations, and where other programs want the processors, too, most of the time goes by
in these waits. Here each network is a piece, which one thread runs from its first layer to its last; threads take the
next piece when they have done one, and wait for each other once or twice in an iteration.
"""
from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

Result = TypeVar('Result')


#: Threads that torch has outside of ``lanes``.
_threads: ContextVar[int | None] = ContextVar('threads', default=None)


@contextlib.contextmanager
def lanes() -> Iterator[int]:
    """Let each of torch's operations run in one thread; gives the number of threads that they had, which run calls
    ``side_by_side``."""
    if _threads.get():
        yield _threads.get()
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    token = _threads.set(threads)
    try:
        yield threads
    finally:
        _threads.reset(token)
        torch.set_num_threads(threads)


def side_by_side(function: Callable[..., Result], *columns: Sequence[Any]) -> list[Result]:
    """Return ``function`` of each row of the columns, as ``map`` does; without gradients, and each call in one thread.

    As many calls run at once as torch has threads. The largest should come first.

    Raises:
        Exception: what a call raised; the other calls have ended then.
    """
    rows = list(enumerate(zip(*columns)))
    waiting, results = deque(rows), [None] * len(rows)

    def work() -> None:
        with torch.no_grad():
            while waiting:
                try:
                    number, row = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                results[number] = function(*row)

    with lanes() as threads:
        helpers = [_pool().submit(work) for _ in range(min(threads, len(rows)) - 1)]
        try:
            work()
        finally:
            waiting.clear()
            for helper in helpers:
                if not helper.cancel():  # it had begun
                    helper.result()
    return results


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads that help; each runs torch's operations on one processor."""
    return ThreadPoolExecutor(os.cpu_count(), 'ding_cawr', torch.set_num_threads, (1, ))


# A fork has none of the threads.
os.register_at_fork(after_in_child=_pool.cache_clear)

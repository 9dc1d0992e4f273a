"""Networks side by side on the processors of a CPU, each in one thread.

Where torch splits an operation over its threads, they wait for each other at its end. An iteration has a hundred small
operations, so on a machine with other work most of its time goes by in these waits. Here a thread runs a whole network,
takes the next one when it has done, and threads wait for each other twice in an iteration. Results do not depend on the
number of threads.
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

#: Threads that torch has outside of ``lanes``; 0 outside of it.
_threads: ContextVar[int] = ContextVar('threads', default=0)


@contextlib.contextmanager
def lanes() -> Iterator[int]:
    """Let each of torch's operations run in one thread; give the number of threads that they had, so many of which
    ``side_by_side`` takes."""
    if _threads.get():
        yield _threads.get()
        return
    threads = torch.get_num_threads()
    token = _threads.set(threads)
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
        _threads.reset(token)


def side_by_side(function: Callable[..., Result], *columns: Sequence[Any]) -> list[Result]:
    """Return ``function`` of each row of the columns, as ``map`` does, without gradients.

    As many calls run at once as torch has threads, each in one of them. The longest should come first.

    Raises:
        Exception: what a call raised; no call is running then.
    """
    rows = list(enumerate(zip(*columns)))
    waiting, results = deque(rows), [None] * len(rows)

    @torch.no_grad()
    def work() -> None:
        while waiting:
            try:
                number, row = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            results[number] = function(*row)

    with lanes() as threads:
        helpers = [_pool().submit(work) for _ in range(min(threads, len(rows)) - 1)]
        try:
            work()
        finally:
            waiting.clear()
            for helper in helpers:
                if not helper.cancel():  # it has begun
                    helper.result()
    return results


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return threads that wait for work; each runs torch's operations in one thread."""
    return ThreadPoolExecutor(os.cpu_count(), 'ding_cawr', torch.set_num_threads, (1, ))


if hasattr(os, 'register_at_fork'):  # a fork has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)

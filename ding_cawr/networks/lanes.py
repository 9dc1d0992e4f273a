"""Networks side by side on the processors of a CPU, each in one thread.

Where torch splits an operation over its threads, they wait for each other at its end. An iteration has a hundred small
operations, so on a machine with other work most of its time goes by in these waits. Here a thread runs a whole network
and then takes the next one, and threads wait for each other twice in an iteration. The results of ``side_by_side`` do
not depend on the number of threads.
"""
from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

Result = TypeVar('Result')
Calls = deque[Callable[[], Any]]

#: Threads that torch has outside of ``lanes``; 0 outside of it.
_threads: ContextVar[int] = ContextVar('threads', default=0)


@contextlib.contextmanager
def lanes() -> Iterator[int]:
    """Let each of torch's operations run in one thread; yield the number of threads that they had before, as many of
    which ``side_by_side`` uses.

    torch also gives one thread to a Python thread that begins meanwhile; ``torch.set_num_threads`` in it changes that.
    """
    if _threads.get():
        yield _threads.get()
        return
    threads = torch.get_num_threads()
    try:
        _threads.set(threads)
        torch.set_num_threads(1)
        yield threads
    finally:
        torch.set_num_threads(threads)
        _threads.set(0)


def side_by_side(function: Callable[..., Result], *columns: Sequence[Any]) -> list[Result]:
    """Return ``function`` of each row of the columns, as ``map`` does, without gradients.

    As many calls run at once as torch has threads, each in one of them. A single call may use all of them. The longest
    call should come first.

    Raises:
        Exception: what a call raised; no call is running then.
    """
    rows = list(enumerate(zip(*columns)))
    results = [None] * len(rows)

    def call(number: int, row: tuple) -> None:
        results[number] = function(*row)

    waiting = deque(functools.partial(call, *row) for row in rows)
    if len(rows) < 2:
        _work(waiting)
        return results
    with lanes() as threads, _helped(waiting) as helpers:
        for _ in range(min(threads, len(rows)) - 1):
            helpers.append(_pool().submit(_work, waiting))
    return results


@contextlib.contextmanager
def beside() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Yield a function that queues calls for a second thread. The second thread makes the calls in their order, without
    gradients. When the block ends, this thread makes the calls that are left. Without a second thread it makes all.

    Raises:
        Exception: what the block or a call raised; no call is running then.
    """
    waiting: Calls = deque()
    with lanes() as threads, _helped(waiting) as helpers:
        def later(call: Callable[[], Any]) -> None:
            waiting.append(call)
            if threads < 2:
                _work(waiting)
            elif not helpers or helpers[-1].done():
                helpers.append(_pool().submit(_work, waiting))

        yield later


@torch.no_grad()
def _work(waiting: Calls) -> None:
    """Do calls, without gradients, until none is waiting. Several threads may do so at once."""
    while waiting:
        try:
            call = waiting.popleft()
        except IndexError:  # another thread took the last one
            return
        call()


@contextlib.contextmanager
def _helped(waiting: Calls) -> Iterator[list[Future]]:
    """Yield a list for other threads' ``_work``. At the block's end do the calls that are left, and wait for the rest.

    Raises:
        Exception: what the block or a call raised; no call is running then.
    """
    helpers: list[Future] = []
    try:
        yield helpers
        _work(waiting)
    finally:
        waiting.clear()
        begun = [helper for helper in helpers if not helper.cancel()]
        _wait(begun)
    for helper in begun:
        helper.result()  # raises what its calls raised


def _wait(begun: Sequence[Future]) -> None:
    """Wait for calls that have begun, which write to memory of others; an interrupt is raised after them."""
    interrupt = None
    while not all(each.done() for each in begun):
        try:
            wait(begun)
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt:
        raise interrupt


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return threads that wait for work; each runs torch's operations in one thread."""
    return ThreadPoolExecutor(os.cpu_count(), 'ding_cawr', torch.set_num_threads, (1, ))


if hasattr(os, 'register_at_fork'):  # a fork has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)

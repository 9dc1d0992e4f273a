"""An iteration recorded once as a CUDA graph and replayed, so that its many small kernels are one launch."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

#: Calls before the recording: optimizers make their state, libraries choose their kernels.
WARM_UP = 3
#: Largest difference, relative to the largest value of a tensor, at which replay and function count as equal.
TOLERANCE = 1e-4

#: Records a function that uses these generators. Returns a replay function, and the result that each replay overwrites.
Record = Callable[[Callable[[], Any], Sequence[torch.Generator]], tuple[Callable[[], None], Any]]


def record_cuda_graph(function: Callable[[], Any], generators: Sequence[torch.Generator]) -> tuple[Callable, Any]:
    """Return a CUDA graph of a call; a replay advances the generators as a call does.

    Raises:
        RuntimeError: the call does what a graph cannot hold. The generators' states are arbitrary then.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        # The outer context takes the stream back where the inner one fails to.
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
            result = function()
    except RuntimeError:
        for generator in generators:  # theirs still count as being captured
            generator.graphsafe_set_state(torch.Generator(generator.device))
        raise
    return graph.replay, result


class Replay:
    """A function without arguments, called as it is at first and as a recording from then on.

    The first replay is compared with a call from the same state. Where they differ, or where the function cannot be
    recorded, a warning says so and the function goes on being called as it is.

    Arguments:
        function: changes only ``tensors``, in place, and ``generators``, and waits for nothing.
        tensors: gives what it changes; asked when the warm-up is over.
        generators: what it draws from.
        record: makes the recording.
    """

    def __init__(
        self, function: Callable[[], Any], tensors: Callable[[], Iterable[Tensor]],
        generators: Sequence[torch.Generator], record: Record = record_cuda_graph,
    ) -> None:
        self._function, self._tensors, self._generators, self._record = function, tensors, generators, record
        self._calls, self._replay, self._result = 0, None, None

    def __call__(self) -> Any:
        """Call the function; the next call overwrites the result."""
        self._calls += 1
        if self._calls == WARM_UP + 1:
            return self._start()
        if self._replay is None:
            return self._function()
        self._replay()
        return self._result

    def _start(self) -> Any:
        """Record the function, and compare its replay with a call from the same state."""
        before = self._snapshot()
        try:
            self._replay, self._result = self._record(self._function, self._generators)
        except RuntimeError as error:
            _warn(f'could not be recorded: {error}')
        self._restore(before)
        result = self._function()
        if self._replay is None:
            return result
        called = self._snapshot()
        self._restore(before)
        self._replay()
        if self._agrees(called):
            return self._result
        _warn('gives other results than the iteration itself')
        self._replay = self._result = None
        self._restore(called)
        return result

    def _snapshot(self) -> tuple[list[Tensor], list[Tensor]]:
        return [tensor.clone() for tensor in self._tensors()], [each.get_state() for each in self._generators]

    def _restore(self, snapshot: tuple[list[Tensor], list[Tensor]]) -> None:
        tensors, states = snapshot
        for tensor, value in zip(self._tensors(), tensors):
            tensor.copy_(value)
        for generator, state in zip(self._generators, states):
            generator.set_state(state)

    def _agrees(self, snapshot: tuple[list[Tensor], list[Tensor]]) -> bool:
        """Return whether tensors equal the snapshot up to the order of sums, and generators exactly."""
        tensors, states = snapshot
        for tensor, wanted in zip(self._tensors(), tensors):
            scale = wanted.abs().max().nan_to_num(posinf=1.0).item()
            if not torch.allclose(tensor, wanted, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True):
                return False
        return all(torch.equal(each.get_state(), state) for each, state in zip(self._generators, states))


def _warn(what: str) -> None:
    warnings.warn(f'training goes on without a CUDA graph, and slower, since the graph {what}', stacklevel=2)

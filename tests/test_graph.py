"""What a recording must not change: results, states, generators; and what happens where it cannot be had."""
import copy

import pytest
import torch

from ding_cawr.networks.graph import WARM_UP, Replay


class Counter:
    """A function with state: adds a random number to a total, and returns it."""

    def __init__(self) -> None:
        self.total, self.calls = torch.zeros(()), 0
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        self.total += torch.rand((), generator=self.generator)
        return self.total.clone()


def recorded(function, generators, spoil=lambda result: None):
    """Like a CUDA graph's, without one: the result lies in fixed memory, and recording runs nothing that lasts."""
    result = torch.full((), float('nan'))

    def replay() -> None:
        result.copy_(function())
        spoil(result)

    return replay, result


def make(counter: Counter, record=recorded, tensors=None) -> Replay:
    return Replay(counter, tensors or (lambda: [counter.total]), [counter.generator], record)


def test_results_are_those_of_the_function():
    counter, plain = Counter(), Counter()
    replay = make(counter)
    for _ in range(10):
        assert replay().item() == plain().item()
    assert counter.calls == 10 + 1  # one to compare the first replay with
    assert torch.equal(counter.generator.get_state(), plain.generator.get_state())


def test_the_function_is_called_itself_until_the_recording():
    counter, recordings = Counter(), []

    def record(function, generators):
        recordings.append(counter.calls)
        return recorded(function, generators)

    replay = make(counter, record)
    first = replay()
    for _ in range(WARM_UP + 3):
        replay()
    assert recordings == [WARM_UP]
    assert first.item() < replay().item()  # results before the recording are nobody's fixed memory


def test_a_replay_that_differs_is_dropped_with_a_warning():
    counter, plain = Counter(), Counter()

    def record(function, generators):
        return recorded(function, generators, spoil=lambda result: counter.total.add_(0.5))

    replay = make(counter, record)
    with pytest.warns(UserWarning, match='without a CUDA graph.* gives other results'):
        results = [replay().item() for _ in range(8)]
    assert results == [plain().item() for _ in range(8)]


def test_generators_that_do_not_advance_are_found():
    """A recording in which random numbers are frozen."""
    counter, plain = Counter(), Counter()

    def record(function, generators):
        replay, result = recorded(function, generators)

        def frozen() -> None:
            state = counter.generator.get_state()
            replay()
            counter.generator.set_state(state)

        return frozen, result

    replay = make(counter, record)
    with pytest.warns(UserWarning, match='gives other results'):
        assert [replay().item() for _ in range(8)] == [plain().item() for _ in range(8)]


def test_a_function_that_cannot_be_recorded_is_called_itself():
    counter, plain = Counter(), Counter()

    def record(function, generators):
        function()
        raise RuntimeError('operation not permitted when stream is capturing')

    replay = make(counter, record)
    with pytest.warns(UserWarning, match='could not be recorded: operation not permitted'):
        assert [replay().item() for _ in range(8)] == [plain().item() for _ in range(8)]


def test_rounding_is_no_difference_but_nan_is_none_either():
    for change, agrees in ((lambda total: total.mul_(1 + 1e-6), True), (lambda total: total.mul_(1.01), False)):
        counter = Counter()

        def record(function, generators, counter=counter, change=change):
            return recorded(function, generators, spoil=lambda result: change(counter.total))

        replay = make(counter, record)
        for _ in range(WARM_UP):
            replay()
        if agrees:
            replay()
        else:
            with pytest.warns(UserWarning, match='other results'):
                replay()
    counter = Counter()
    counter.total.fill_(float('nan'))
    replay = make(counter)
    for _ in range(WARM_UP + 2):  # a run that diverged is for the caller to find
        assert copy.copy(replay()).isnan()

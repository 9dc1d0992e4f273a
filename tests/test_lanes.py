"""Calls side by side in threads, and Adam by rows."""
import os
import threading
import time
import warnings
from concurrent.futures import wait

import pytest
import torch
from helpers import PATIENCE

from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.algorithms.awr.update import AWR
from ding_cawr.algorithms.base import Algorithm
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.data.buffer import PriorityBuffer, join_columns
from ding_cawr.networks.lanes import beside, lanes, side_by_side
from ding_cawr.networks.optimizers import SGD, Adam
from ding_cawr.training.loop import Training


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_in_the_order_of_the_rows(two_threads):
    assert side_by_side(lambda a, b: 10 * a + b, range(9), range(9)) == [11 * each for each in range(9)]
    assert side_by_side(lambda a: a, []) == []
    assert side_by_side(lambda _: torch.get_num_threads(), [0]) == [2]


def test_two_calls_run_at_once_and_each_in_one_thread(two_threads):
    meeting = threading.Barrier(2, timeout=PATIENCE)

    def call(number: int) -> tuple[int, int, bool]:
        meeting.wait()  # fails unless another call is there, too
        return threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    called = side_by_side(call, range(2))
    assert len({ident for ident, _, _ in called}) == 2
    assert [rest for _, *rest in called] == [[1, False]] * 2
    assert torch.get_num_threads() == 2 and torch.is_grad_enabled()


@pytest.mark.parametrize('door', ['side_by_side', 'beside'])
def test_an_interrupt_waits_for_calls_that_have_begun(two_threads, monkeypatch, door):
    begun, ended, waits = threading.Event(), threading.Event(), []

    def call(*_) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.2)
            ended.set()
        else:
            assert begun.wait(PATIENCE)

    def interrupted(futures):
        waits.append(futures)
        if len(waits) == 1:
            raise KeyboardInterrupt
        return wait(futures)

    monkeypatch.setattr('ding_cawr.networks.lanes.wait', interrupted)
    with pytest.raises(KeyboardInterrupt):
        if door == 'side_by_side':
            side_by_side(call, range(2))
        else:
            with beside() as later:
                later(call)
                assert begun.wait(PATIENCE)
    assert ended.is_set() and len(waits) == 2 and torch.get_num_threads() == 2


def test_one_thread_calls_in_turn():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        idents = side_by_side(lambda _: threading.get_ident(), range(4))
    finally:
        torch.set_num_threads(before)
    assert set(idents) == {threading.get_ident()}


@pytest.mark.parametrize('threads', [2, 3])
@pytest.mark.parametrize('wrong', [0, 1, 3])
def test_an_error_comes_out_and_no_call_is_running_then(two_threads, wrong, threads):
    torch.set_num_threads(threads)
    running = []

    def call(number: int) -> None:
        if number == wrong:
            raise IndexError(f'call {number}')
        running.append(number)
        time.sleep(0.05)
        running.remove(number)

    with pytest.raises(IndexError, match=f'call {wrong}'):
        side_by_side(call, range(4))
    assert not running and torch.get_num_threads() == threads
    assert side_by_side(lambda a: a, range(4)) == [0, 1, 2, 3]


def test_lanes_within_lanes_keep_the_threads(two_threads):
    with lanes() as outer, lanes() as inner:
        assert outer == inner == 2 and torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_calls_beside_a_block_run_in_another_thread_and_are_done_at_its_end(two_threads):
    meeting, called = threading.Barrier(2, timeout=PATIENCE), []
    with beside() as later:
        later(meeting.wait)  # fails unless this thread meets it below
        for number in range(5):
            later(lambda number=number: called.append((number, torch.get_num_threads(), torch.is_grad_enabled())))
        meeting.wait()
    assert sorted(called) == [(number, 1, False) for number in range(5)] and torch.get_num_threads() == 2


def test_calls_beside_a_block_in_one_thread_are_done_at_once():
    before, called = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with beside() as later:
            later(lambda: called.append(threading.get_ident()))
            assert called == [threading.get_ident()]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('threads', [1, 2])
@pytest.mark.parametrize('of_the_block', [False, True])
def test_an_error_beside_a_block_or_in_it_comes_out(two_threads, of_the_block, threads):
    torch.set_num_threads(threads)
    running = []

    def call() -> None:
        running.append(1)
        time.sleep(0.05)
        running.pop()
        if not of_the_block:
            raise IndexError('beside')

    with pytest.raises(IndexError, match='in it' if of_the_block else 'beside'), beside() as later:
        for _ in range(3):
            later(call)
        if of_the_block:
            raise IndexError('in it')
    assert not running and torch.get_num_threads() == threads


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork here')
def test_a_fork_has_threads_of_its_own(two_threads):
    side_by_side(lambda a: a, range(4))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # that a process of several threads is forked
        child = os.fork()
    if child == 0:
        # The first call would wait for ever for a thread that is not there.
        same = side_by_side(lambda a: a, range(4)) == [0, 1, 2, 3]
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def train(algorithm: type[Algorithm], threads: int, replicas: bool, **learn: str) -> list[torch.Tensor]:
    """Return what 5 iterations of training with so many threads change, with batches that are cut in halves."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        columns = dict(obs=torch.randn(300, 5), action=torch.rand(300, 2), reward=torch.randn(300),
                       next_obs=torch.randn(300, 5), done=torch.zeros(300))
        models = [algorithm.Model(5, 2) for _ in range(3 if replicas else 1)]
        made = algorithm(models if replicas else models[0], algorithm.Settings.read(learn))
        training = Training(made, PriorityBuffer(seed=[1, 2, 3] if replicas else 1), 150)
        training.attach(join_columns(columns))
        for _ in range(5):
            training.iterate()
        return [each.clone() for each in (*made.tensors(), *training.buffer.tensors())]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('algorithm, learn', [
    (CAWR, {}), (CAWR, dict(advantage='none', weighting='none', priority='none')), (A2PR, {}),
    (AWR, dict(returns='td')),
])
@pytest.mark.parametrize('replicas', [False, True])
def test_training_does_not_depend_on_the_number_of_threads(algorithm, learn, replicas):
    one, *others = (train(algorithm, threads, replicas, **learn) for threads in (1, 2, 4))
    assert all(torch.equal(*pair) for other in others for pair in zip(one, other))


@pytest.mark.parametrize('rates', [1e-2, dict(a=1e-2, b=3e-2), dict(a=torch.tensor(1e-2), b=3e-2)])
@pytest.mark.parametrize('by_row', [False, True])
def test_adam_is_that_of_torch(rates, by_row):
    torch.manual_seed(0)
    values = {name: torch.randn(3, 2, 40) for name in 'ab'}
    own, plain = ({name: torch.nn.Parameter(value.clone()) for name, value in values.items()} for _ in range(2))
    adam = Adam(own, rates)
    rate_of = {name: float(rates[name] if isinstance(rates, dict) else rates) for name in 'ab'}
    wanted = torch.optim.Adam([dict(params=[plain[name]], lr=rate_of[name]) for name in 'ab'])
    for _ in range(4):
        for name in 'ab':
            own[name].grad = torch.randn(3, 2, 40)
            plain[name].grad = own[name].grad.clone()
        wanted.step()
        if by_row:
            for name, row in (('b', 2), ('a', 0), ('a', 2), ('b', 0), ('b', 1), ('a', 1)):
                adam.move(name, row)
            adam.count()
        else:
            adam.step()
    for name in 'ab':
        torch.testing.assert_close(own[name], plain[name], rtol=1e-6, atol=1e-7)
        assert adam.moments[name]['step'] == 4
    assert len(adam.tensors()) == 6


def test_adam_leaves_alone_what_has_no_gradient():
    parameters = {name: torch.nn.Parameter(torch.ones(2, 4)) for name in 'ab'}
    adam = Adam(parameters, 1e-2)
    parameters['a'].grad = torch.ones(2, 4)
    adam.step()
    adam.move('b', 0)
    adam.count()
    assert torch.equal(parameters['b'].detach(), torch.ones(2, 4)) and adam.moments['b']['step'] == 0
    assert not torch.equal(parameters['a'].detach(), torch.ones(2, 4)) and adam.moments['a']['step'] == 2


def test_sgd_is_that_of_torch():
    torch.manual_seed(0)
    own, plain = ({name: torch.nn.Parameter(torch.full((2, 4), 0.5)) for name in 'ab'} for _ in range(2))
    sgd, wanted = SGD(own, 0.1, 0.9), torch.optim.SGD(list(plain.values()), lr=0.1, momentum=0.9)
    for _ in range(4):
        for name in 'ab':
            own[name].grad = torch.randn(2, 4)
            plain[name].grad = own[name].grad.clone()
        sgd.step()
        wanted.step()
    for name in 'ab':
        torch.testing.assert_close(own[name], plain[name])
    assert len(sgd.tensors()) == 2


def test_an_iteration_that_is_interrupted_leaves_a_state_that_goes_on(monkeypatch):
    """Ctrl-C in a notebook, then on: the state that is saved later can be loaded."""
    def training() -> Training:
        torch.manual_seed(0)
        columns = dict(obs=torch.randn(90, 5), action=torch.rand(90, 2), reward=torch.randn(90),
                       next_obs=torch.randn(90, 5), done=torch.zeros(90))
        model = CAWR.Model(5, 2, hidden_sizes=(16, 16))
        made = Training(CAWR(model, CAWR.Settings.read({})), PriorityBuffer(seed=1), 32)
        made.attach(join_columns(columns))
        return made

    interrupted = training()
    interrupted.iterate()
    with monkeypatch.context() as patch:
        moves = []

        def move(self: Adam, *row: object) -> None:
            moves.append(row)
            if len(moves) == 2:
                raise KeyboardInterrupt

        patch.setattr(Adam, 'move', move)
        with pytest.raises(KeyboardInterrupt):
            interrupted.iterate()
    interrupted.iterate()
    state = interrupted.state_dict()
    assert state['iteration'] == 2 and state['optimizer']['critic']['step'] == 2
    training().load_state_dict(state)

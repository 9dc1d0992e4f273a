"""Iterations over a buffer: the tensors that a recording relies on, replicas against single runs, launches."""
import functools

import pytest
import torch
from ding_cawr.ranks import ALONE, Ranks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.networks import Networks
from ding_cawr.algorithms.cawr.settings import update_settings
from ding_cawr.algorithms.cawr.update import Step, Update
from ding_cawr.config import make_config
from ding_cawr.data.buffer import AdvantagePriorityBuffer, join_columns
from ding_cawr.engine.policy import CAWRPolicy
from ding_cawr.networks.graph import Replay
from ding_cawr.training.divergence import Diverged
from ding_cawr.training.loop import Training

OBS, ACT, ROWS, N = 5, 2, 300, 32

FORMS = {
    'default': dict(trust=dict(type='linear', iterations=20, start=10)),
    'weights': dict(weighting='per_sample', priority='none', temperature=0.7),
    'released': dict(weighting='batch_mean', priority=dict(type='normal', exponent=0.6), temperature=0.5),
    'auto weights': dict(weighting='per_sample', priority='quantile', temperature='auto', policy_loss='l2'),
    'odpr': dict(priority='odpr', policy_loss='huber', temperature=1.0),
    'aw, iql': dict(priority='aw', normalize_advantage=False, weighting='per_sample', temperature=0.5,
                    cosine_iterations=40),
    'tightening': dict(policy_loss='flat', tightening=dict(convex_share=0.9, iterations=30), temperature=2.0),
}


def columns(dtype=torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        'obs': normal(ROWS, OBS), 'action': normal(ROWS, ACT).tanh(), 'reward': normal(ROWS),
        'next_obs': normal(ROWS, OBS), 'done': torch.rand(ROWS, generator=generator) < 0.1
    }


def make_model(seed: int, dtype: torch.dtype = torch.float64) -> CAWRModel:
    torch.manual_seed(seed)
    return CAWRModel(OBS, ACT, (24, 16)).to(dtype)


def make_training(seeds, learn: dict, dtype=torch.float64, ranks: Ranks = ALONE, **options) -> Training:
    """Of one seed, or of a list of them."""
    settings = update_settings({**CAWRPolicy.default_config().learn, **learn})
    models = [make_model(seed, dtype) for seed in seeds] if isinstance(seeds, list) else make_model(seeds, dtype)
    buffer = AdvantagePriorityBuffer(dict(exponent=settings.selection.exponent, seed=seeds))
    buffer.attach(join_columns(columns(dtype)))
    return Training(Update(models, settings, ranks), buffer, N, **options)


def states_close(got: dict, wanted: dict, **tolerance) -> None:
    """Nested states of tensors and numbers."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            states_close(got[name], value, **tolerance)
        elif isinstance(value, torch.Tensor):
            torch.testing.assert_close(got[name], value, msg=lambda text, name=name: f'{name}: {text}', **tolerance)
        else:
            assert got[name] == value, name


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('refresh', [None, 20])
def test_a_replica_is_the_single_run_with_its_seed(form, refresh):
    """50 iterations in float64: networks, targets, optimizers, λ, priorities and generators."""
    learn, seeds = FORMS[form], [3, 0, 11]
    refresh = None if learn.get('priority') == 'none' else refresh
    together = make_training(seeds, learn, priority_refresh=refresh)
    steps = [together.iterate() for _ in range(50)]
    for r, seed in enumerate(seeds):
        alone = make_training(seed, learn, priority_refresh=refresh)
        singles = [alone.iterate() for _ in range(50)]
        for step, single in zip(steps, singles):
            torch.testing.assert_close(step.advantage[r], single.advantage, rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(step.policy_loss[r], single.policy_loss, rtol=1e-7, atol=1e-9)
        for name, tensor in alone.update.model.state_dict().items():
            torch.testing.assert_close(
                together.update.networks.models[r].state_dict()[name], tensor, rtol=1e-7, atol=1e-9
            )
        states_close(together.state_dict(r), alone.state_dict(), rtol=1e-6, atol=1e-9)
        metrics, single = together.metrics(steps[-1]), alone.metrics(singles[-1])
        assert metrics.keys() == single.keys()
        for name, value in single.items():
            got = metrics[name][r] if isinstance(metrics[name], list) else metrics[name]
            assert got == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_a_replica_continues_as_a_single_run():
    together, alone = make_training([4, 5], FORMS['tightening']), make_training(0, FORMS['tightening'])
    for _ in range(10):
        together.iterate()
    alone.update.model.load_state_dict(together.update.networks.models[1].state_dict())
    alone.load_state_dict(together.state_dict(1))
    assert alone.iteration == 10
    for _ in range(10):
        step, single = together.iterate(), alone.iterate()
        torch.testing.assert_close(step.advantage[1], single.advantage, rtol=1e-8, atol=1e-10)


def test_a_state_into_replicas_is_refused_before_anything_is_loaded():
    together, alone = make_training([4, 5], {}), make_training(4, {})
    alone.iterate()
    before = [tensor.clone() for tensor in together.update.tensors()]
    with pytest.raises(RuntimeError, match='replicas train here'):
        together.load_state_dict(alone.state_dict())
    assert all(torch.equal(*pair) for pair in zip(together.update.tensors(), before))


def test_a_replica_that_diverges_is_named_as_any_run():
    together = make_training([4, 5], {})
    together.iterate()
    with torch.no_grad():
        next(together.update.networks.models[1].policy.parameters()).fill_(float('nan'))
    with pytest.raises(Diverged, match='policy_loss is not finite at iteration 1') as raised:
        together.iterate()
    assert raised.value.replica == 1


@pytest.mark.parametrize('seeds', [3, [3, 4]])
@pytest.mark.parametrize('replays', [False, True])
def test_without_waiting_the_first_step_that_was_not_finite_is_kept(as_if_recorded, seeds, replays):
    """As on a GPU, where it is looked for now and then: the same sentence as that of a run that looks every time."""
    waiting, watching = make_training(seeds, {}), make_training(seeds, {})
    watching._on_gpu, watching.buffer._on_cpu, watching._replays = True, False, replays
    watching._record()
    for training in (waiting, watching):
        for _ in range(7):
            training.iterate()
        training.check_finite()
        with torch.no_grad():
            training.update.networks.models[-1].value.net[-1].bias.fill_(float('inf'))
    with pytest.raises(Diverged) as wanted:
        waiting.iterate()
    for _ in range(4):
        step = watching.iterate()
    assert not step.critic_loss.isfinite().all()
    with pytest.raises(Diverged, match='value is not finite at iteration 7 in 64 of 64 samples') as got:
        watching.check_finite()
    assert (str(got.value), got.value.replica) == (str(wanted.value), wanted.value.replica)


def test_priorities_of_all_rows_that_would_not_be_finite_end_a_run_as_any(monkeypatch):
    training = make_training(3, {}, priority_refresh=2)
    training.iterate()
    judge = training.update.judge

    def spoiled(columns):
        judgement = judge(columns)
        judgement.value[[7, 9]] = torch.nan
        return judgement

    monkeypatch.setattr(training.update, 'judge', spoiled)
    with pytest.raises(Diverged, match=r'value of the whole data is not finite after iteration 1 in 2 of 300 rows, .7'):
        training.iterate()


def recorded(function, generators):
    """Like a CUDA graph's recording: results in fixed memory, filled anew by each replay."""
    fixed: list[Step] = []

    def replay() -> None:
        step = function()
        if not fixed:
            fixed.append(step)
        for kept, new in zip(tensors_of(fixed[0]), tensors_of(step)):
            kept.copy_(new)

    replay()
    return replay, fixed[0]


def tensors_of(step: Step) -> list[torch.Tensor]:
    return [*step.judgement, *(value for value in step if isinstance(value, torch.Tensor))]


@pytest.fixture
def as_if_recorded(monkeypatch):
    """Iterations are replayed as on a GPU, by ``recorded``."""
    made = []

    def replay(*arguments):
        made.append(Replay(*arguments, recorded))
        return made[-1]

    monkeypatch.setattr('ding_cawr.training.loop.Replay', replay)
    return made


def replaying(training: Training) -> Training:
    training._replays = True
    training._record()
    return training


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('seeds', [3, [3, 4]])
def test_replayed_training_is_training(as_if_recorded, form, seeds):
    """The recording calls the iteration twice and puts back ``tensors`` and ``generators`` in between. If an iteration
    changed anything else, or changed it anywhere else, later iterations would differ."""
    replayed, plain = replaying(make_training(seeds, FORMS[form])), make_training(seeds, FORMS[form])
    for _ in range(12):
        for got, wanted in zip(tensors_of(replayed.iterate()), tensors_of(plain.iterate())):
            assert torch.equal(got, wanted)
    assert as_if_recorded[-1]._result is not None


@pytest.mark.parametrize('form', ['default', 'tightening'])
def test_the_policy_alone_is_replayed_too(as_if_recorded, form):
    critics = make_training(5, {})
    critics.iterate()
    state = {'model': critics.update.model.state_dict(), **critics.state_dict()}
    replayed, plain = replaying(make_training(3, FORMS[form])), make_training(3, FORMS[form])
    for training in (replayed, plain):
        training.freeze_critics(state)
    for _ in range(8):
        for got, wanted in zip(tensors_of(replayed.iterate()), tensors_of(plain.iterate())):
            assert torch.equal(got, wanted)
    assert len(as_if_recorded) == 2 and as_if_recorded[-1]._result is not None


@pytest.mark.parametrize('change', [
    lambda training: training.attach(join_columns(columns())),
    lambda training: training.load_state_dict(training.state_dict()),
])
def test_replaced_tensors_are_recorded_anew(as_if_recorded, change):
    training = replaying(make_training(3, {}))
    for _ in range(5):
        training.iterate()
    change(training)
    assert training._iterate is as_if_recorded[-1] and training._iterate._result is None


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('seeds', [3, [3, 4]])
def test_everything_that_changes_stays_where_it_is(form, seeds):
    """A recorded graph goes on reading and writing there, also after the priorities of all rows were renewed."""
    refresh = None if FORMS[form].get('priority') == 'none' else 2
    training = make_training(seeds, FORMS[form], priority_refresh=refresh)
    for _ in range(3):
        training.iterate()

    def tensors() -> list[torch.Tensor]:
        scratch = training.update.networks._scratch
        return [*training.update.tensors(), *training.buffer.tensors(), *tree_leaves(list(scratch.values()))]

    places, before = [tensor.data_ptr() for tensor in tensors()], [tensor.clone() for tensor in tensors()]
    kept = tensors()
    for _ in range(5):
        training.iterate()
    assert [tensor.data_ptr() for tensor in tensors()] == places
    assert sum(not torch.equal(*pair) for pair in zip(kept, before)) >= len(before) // 2


@pytest.mark.parametrize('seeds', [3, [3, 4]])
def test_a_dataset_is_judged_in_chunks_of_any_size(monkeypatch, seeds):
    training = make_training(seeds, {})
    whole = training.update.judge(training.buffer.columns)
    monkeypatch.setattr('ding_cawr.algorithms.cawr.update.CHUNK', 170)
    for got, wanted in zip(training.update.judge(training.buffer.columns), whole):
        torch.testing.assert_close(got, wanted)
        assert got.shape == (*training.update.networks.lead, ROWS)


class Count(TorchDispatchMode):
    """Counts operations, those that wait for the device, and the bytes of new tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.waits, self.allocated = 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        known = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if is_tensor(tensor)}
        new = [
            tensor for tensor in tree_leaves(result)
            if is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in known
        ]
        self.allocated += sum(tensor.nbytes for tensor in new)
        self.operations += bool(new) or name.endswith('_') or 'out' in (kwargs or {}) or 'grad_input' in (kwargs or {})
        self.waits += name in ('_local_scalar_dense', 'nonzero', 'is_nonzero')
        return result


def is_tensor(value) -> bool:
    return isinstance(value, torch.Tensor)


def counted(call) -> Count:
    call()  # the first call takes memory that stays
    with Count() as count:
        call()
    return count


def default_training(seeds=3) -> Training:
    main_config, _ = make_config('hopper-medium-v2')
    return make_training(seeds, dict(main_config.policy.learn), torch.float32)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Networks as one batch, as they run there."""
    monkeypatch.setattr('ding_cawr.algorithms.cawr.update.Networks', functools.partial(Networks, as_one=True))


def test_draws_and_update_are_few_operations_and_wait_for_nothing(as_on_a_gpu):
    training = default_training()
    buffer, update = training.buffer, training.update
    draws = counted(lambda: (buffer.sample_uniform(N), buffer.sample_prioritized(N)))
    uniform, prioritized = buffer.sample_uniform(N), buffer.sample_prioritized(N)
    step = counted(lambda: update.step(uniform.batch, prioritized.batch))
    priorities = counted(lambda: buffer.update_priority(uniform.indices, torch.ones(N)))
    print(draws.operations, step.operations, priorities.operations, step.allocated)
    assert draws.operations <= 12 and step.operations <= 135 and priorities.operations <= 8
    assert draws.waits == step.waits == 0


def test_operations_do_not_grow_with_the_rows_or_the_batch(as_on_a_gpu):
    training = default_training()
    few = counted(training.iterate).operations
    training.batch_size = 8 * N
    assert counted(training.iterate).operations == few


def test_replicas_are_hardly_more_operations_than_one_run(as_on_a_gpu):
    """Only the draws of random numbers are one by one."""
    single, replicas = (counted(default_training(seeds).iterate).operations for seeds in (3, list(range(8))))
    print(single, replicas)
    assert replicas <= single + 2 * 8 + 8


def test_hidden_activations_are_not_allocated_anew():
    """An iteration of one run takes new memory for gradients that pass through hidden layers, and for little else."""
    training = default_training()
    uniform, prioritized = (training.buffer.sample_uniform(N) for _ in range(2))
    allocated = counted(lambda: training.update.step(uniform.batch, prioritized.batch)).allocated
    hidden = 4 * N * (24 + 16)  # bytes of a network's hidden activations in float32
    print(allocated / hidden)
    assert allocated < 4 * hidden + 400 * N * 4

"""CAWR's iterations over a buffer: frozen critics, judging a dataset, launches; tests/test_algorithms.py has what every
algorithm must do."""
import functools

import pytest
import torch
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainings import ROWS, N, make_training, replaying, tensors_of

from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.algorithms.awr.update import AWR
from ding_cawr.algorithms.base import map_tree
from ding_cawr.algorithms.cawr.networks import Networks
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.config import make_config
from ding_cawr.training.divergence import Diverged
from ding_cawr.training.loop import Training


def test_priorities_of_all_rows_that_would_not_be_finite_end_a_run_as_any(monkeypatch):
    training = make_training(3, dict(priority_refresh=2))
    training.iterate()
    estimate_of = training.algorithm.estimate

    def spoiled(data):
        estimate = estimate_of(data)
        estimate.value[[7, 9]] = torch.nan
        return estimate

    monkeypatch.setattr(training.algorithm, 'estimate', spoiled)
    with pytest.raises(Diverged, match=r'value of the whole data is not finite after iteration 1 in 2 of 300 rows, .7'):
        training.iterate()


@pytest.mark.parametrize('learn', [
    dict(trust=dict(type='linear', iterations=20, start=10)),
    dict(policy_loss='flat', tightening=dict(convex_share=0.9, iterations=30), temperature=2.0),
    dict(advantage='dataset', cosine_iterations=6),
    dict(advantage='none', weighting='none', priority='none', best_episodes=0.2),
])
def test_the_policy_alone_is_replayed_too(as_if_recorded, tmp_path, learn):
    critics = make_training(5, {})
    critics.iterate()
    torch.save(map_tree(torch.Tensor.float, {
        part: tensors for part, tensors in critics.algorithm.state_dict().items() if part in ('model', 'target_critic')
    }), tmp_path / 'critics')
    if 'advantage' not in learn:
        learn = dict(learn, pretrained_critics=str(tmp_path / 'critics'))
    replayed, plain = (make_training(3, learn, torch.float32) for _ in range(2))
    assert len(replaying(replayed).algorithm.draw_kinds) == 1
    for _ in range(8):
        for got, wanted in zip(tensors_of(replayed.iterate()), tensors_of(plain.iterate())):
            assert torch.equal(got, wanted)
    assert len(as_if_recorded) == 1 and as_if_recorded[-1]._result is not None


@pytest.mark.parametrize('seeds', [3, [3, 4]])
def test_a_dataset_is_judged_in_chunks_of_any_size(monkeypatch, seeds):
    training = make_training(seeds, {})
    whole = training.algorithm.estimate(training.buffer.table)
    monkeypatch.setattr('ding_cawr.algorithms.cawr.networks.CHUNK', 170)
    for got, wanted in zip(training.algorithm.estimate(training.buffer.table), whole):
        torch.testing.assert_close(got, wanted)
        assert got.shape == (*training.algorithm.replica_shape, ROWS)


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
    return make_training(seeds, dict(main_config.policy.learn, trust='linear'), torch.float32)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Networks as one batch, as they run there."""
    monkeypatch.setattr('ding_cawr.algorithms.cawr.update.Networks', functools.partial(Networks, as_one=True))


def test_draws_and_update_are_few_operations_and_wait_for_nothing(as_on_a_gpu):
    training = default_training()
    buffer, update = training.buffer, training.algorithm
    draws = counted(lambda: (buffer.sample_uniform(N), buffer.sample_prioritized(N)))
    drawn = dict(uniform=buffer.sample_uniform(N), prioritized=buffer.sample_prioritized(N))
    step = counted(lambda: update.step(drawn))
    priorities = counted(lambda: buffer.update_priority(drawn['uniform'].indices, torch.ones(N)))
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


def test_hidden_activations_are_not_allocated_anew(monkeypatch):
    """An iteration of one run takes new memory for gradients that pass through hidden layers, and for little else."""
    training = default_training()
    drawn = {kind: training.buffer.draw(kind, N) for kind in training.algorithm.draw_kinds}
    monkeypatch.setattr('ding_cawr.networks.block.side_by_side', lambda *call: list(map(*call)))  # threads do not count
    allocated = counted(lambda: training.algorithm.step(drawn)).allocated
    hidden = 4 * N * (24 + 16)  # bytes of a network's hidden activations in float32
    print(allocated / hidden)
    assert allocated < 4 * hidden + 400 * N * 4


@pytest.mark.parametrize('algorithm, learn, shared', [
    (CAWR, {}, False), (A2PR, dict(imitation='mask'), False), (AWR, dict(returns='td'), True),
    (CAWR, dict(advantage='none', weighting='none', priority='none'), True),
], ids=['cawr', 'a2pr', 'awr', 'bc'])
def test_critics_learn_from_all_rows_where_the_policy_has_a_batch_of_its_own(algorithm, learn, shared):
    training = make_training(3, dict(learn, best_episodes=0.2), algorithm=algorithm)
    assert training.algorithm.draw_kinds == (('uniform', ) if shared else ('uniform', 'prioritized'))
    drawn = torch.bincount(training.buffer.draw('uniform', 20_000).indices, minlength=ROWS)
    weight = training.buffer.mass if shared else torch.ones(ROWS, dtype=torch.float64)
    assert training.buffer.mass.unique().numel() > 1  # those of the policy's batch
    assert chisquare(drawn.numpy(), (weight / weight.sum() * 20_000).numpy()).pvalue > 1e-4
    for _ in range(4):
        step = training.iterate()
        assert all(torch.isfinite(each).all() for each in tensors_of(step))
    assert len(training._drawn) == N * len(training.algorithm.draw_kinds)

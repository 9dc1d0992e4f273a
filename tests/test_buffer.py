"""AdvantagePriorityBuffer: draws, exponent, pushing, state."""
import numpy as np
import pytest
import torch
from ding.utils import BUFFER_REGISTRY
from ding.worker import create_buffer
from easydict import EasyDict
from scipy.stats import chisquare
from trainings import NoWaiting

from ding_cawr.data.buffer import join_columns
from ding_cawr.data.table import Table
from ding_cawr.engine.buffer import AdvantagePriorityBuffer


def columns(size: int, first: int = 0) -> dict:
    """Rows whose reward is their number."""
    number = torch.arange(first, first + size, dtype=torch.float32)
    return {
        'obs': number[:, None].repeat(1, 4), 'action': torch.zeros(size, 2), 'reward': number,
        'next_obs': number[:, None].repeat(1, 4) + 1, 'done': torch.zeros(size, dtype=torch.bool)
    }


def rows(size: int, first: int = 0) -> list[dict]:
    """The same as DI-engine's list of dicts, reward (1,) and done a NumPy bool as its files have them."""
    c = columns(size, first)
    return [
        {**{name: column[i] for name, column in c.items()}, 'reward': c['reward'][i:i + 1], 'done': np.bool_(False)}
        for i in range(size)
    ]


def attached(size: int, **cfg) -> AdvantagePriorityBuffer:
    buffer = AdvantagePriorityBuffer(cfg)
    buffer.attach(join_columns(columns(size)))
    return buffer


@pytest.mark.parametrize('exponent', [1.0, 0.6, 0.0])
def test_draws_follow_priority_to_the_exponent(exponent):
    buffer = attached(50, exponent=exponent)
    priority = torch.linspace(0.1, 5, 50)
    buffer.update_priority(torch.arange(50), priority)
    drawn = torch.cat([buffer.sample_prioritized(1000).indices for _ in range(100)])
    expected = priority.double()**exponent
    expected = expected / expected.sum() * len(drawn)
    assert chisquare(torch.bincount(drawn, minlength=50).numpy(), expected.numpy()).pvalue > 1e-4


def test_uniform_draws_ignore_priorities():
    buffer = attached(20)
    buffer.update_priority(torch.arange(10), torch.full((10, ), 1e4))
    drawn = torch.cat([buffer.sample_uniform(1000).indices for _ in range(20)])
    assert chisquare(torch.bincount(drawn, minlength=20).numpy()).pvalue > 1e-4


def test_draws_go_by_the_weights_of_rows():
    weight, priority = torch.linspace(0.1, 3, 40, dtype=torch.float64), torch.linspace(2, 0.2, 40)
    buffer = AdvantagePriorityBuffer({})
    buffer.attach(join_columns(columns(40)), weight)
    assert torch.equal(buffer.mass, weight)
    drawn = {'before': buffer.draw('prioritized', 50_000), 'uniform': buffer.draw('uniform', 50_000)}
    buffer.set_priorities(priority.flip(0))
    buffer.update_priority(torch.arange(40), priority)
    torch.testing.assert_close(buffer.mass, weight * priority.double())
    drawn['prioritized'] = buffer.draw('prioritized', 50_000)
    for name, wanted in dict(before=weight, uniform=weight, prioritized=weight * priority).items():
        counts = torch.bincount(drawn[name].indices, minlength=40)
        assert chisquare(counts.numpy(), (wanted / wanted.sum() * 50_000).numpy()).pvalue > 1e-4, name
    buffer.attach(join_columns(columns(40)), weight, weighs_uniform=False)
    assert torch.equal(buffer.mass, weight)
    assert chisquare(torch.bincount(buffer.sample_uniform(50_000).indices).numpy()).pvalue > 1e-4
    buffer.attach(join_columns(columns(40)))  # which knows nothing of them
    assert chisquare(torch.bincount(buffer.sample_uniform(50_000).indices).numpy()).pvalue > 1e-4
    assert (buffer.mass == 1).all()


def test_all_priorities_start_equal():
    assert attached(10).mass.tolist() == [1.0] * 10


def test_attached_rows_are_shared_and_columns_are_views_of_them():
    table = join_columns(columns(10))
    for rows in (table.rows, table.rows.numpy()):  # of torch, or of NumPy as Transitions have them
        buffer = AdvantagePriorityBuffer({})
        buffer.attach(Table(rows, 4))
        assert all(buffer.table[name].data_ptr() == table.columns[name].data_ptr() for name in table.columns)
        for name, column in columns(10).items():
            assert torch.equal(buffer.table[name], column.float())


def test_the_columns_of_a_table():
    rows = torch.arange(2 * 3 * 9).reshape(2, 3, 9)  # obs of 3, action of 1: [obs | action | reward | done | next_obs]
    table = Table(rows, 3)
    assert table.action_shape == 1 and len(table) == 2
    assert {name: column[0, 0].tolist() for name, column in table.columns.items()} == {
        'obs': [0, 1, 2], 'action': [3], 'reward': 4, 'next_obs': [6, 7, 8], 'done': 5
    }
    assert table.obs_action.shape == (2, 3, 4) and table.obs_action[0, 1].tolist() == [9, 10, 11, 12]
    assert all(column.untyped_storage().data_ptr() == rows.data_ptr() for column in table.columns.values())


def test_columns_in_float64_stay_so():
    data = {name: column.double() if name != 'done' else column for name, column in columns(10).items()}
    data['obs'][3] = 1 + 1e-12
    buffer = AdvantagePriorityBuffer({})
    buffer.attach(join_columns(data))
    batch = buffer.sample_prioritized(500).batch
    assert {column.dtype for column in batch.columns.values()} == {torch.float64}
    assert (batch['obs'] == 1 + 1e-12).any()


def test_batches_carry_the_rows_of_their_indices():
    sample = attached(100).sample_prioritized(32)
    assert torch.equal(sample.batch['reward'], sample.indices.float())
    assert torch.equal(sample.batch['next_obs'], sample.batch['obs'] + 1)
    storages = {column.untyped_storage().data_ptr() for column in sample.batch.columns.values()}
    assert len(storages) == 1  # one read a row
    assert sample.batch['obs'].shape == (32, 4) and sample.batch['reward'].shape == (32, )


def test_a_batch_may_be_larger_than_the_data():
    assert attached(3).sample_uniform(64).indices.max() <= 2
    assert attached(3).sample_prioritized(64).batch['obs'].shape == (64, 4)


def test_same_seed_same_draws_and_state_continues_them():
    first, second = attached(500, seed=7), attached(500, seed=7)
    assert torch.equal(first.sample_prioritized(64).indices, second.sample_prioritized(64).indices)
    first.update_priority(torch.arange(100), torch.rand(100))
    state = first.state_dict()
    expected = first.sample_prioritized(64).indices
    other = attached(500, seed=99)
    other.load_state_dict(state)
    assert torch.equal(other.sample_prioritized(64).indices, expected)


def test_state_of_another_dataset_is_refused():
    with pytest.raises(ValueError, match=r'mass has the shape \(500,\), but .* need \(400,\)'):
        attached(400).load_state_dict(attached(500).state_dict())


def test_memory_is_within_three_tenths_of_the_columns():
    size = 100_000
    hopper = {
        'obs': torch.zeros(size, 11), 'action': torch.zeros(size, 3), 'reward': torch.zeros(size),
        'next_obs': torch.zeros(size, 11), 'done': torch.zeros(size, dtype=torch.bool)
    }
    buffer = AdvantagePriorityBuffer({})
    buffer.attach(join_columns(hopper))
    assert buffer.nbytes <= 1.3 * sum(column.nbytes for column in hopper.values())


def test_pushed_rows_oldest_out_first():
    buffer = AdvantagePriorityBuffer({'replay_buffer_size': 10})
    buffer.push(rows(6))
    assert buffer.count() == 6
    buffer.push(rows(6, first=6))
    assert buffer.count() == 10
    seen = {int(reward) for _ in range(20) for reward in buffer.sample_uniform(32).batch['reward']}
    assert seen == set(range(2, 12))
    buffer.push([])
    buffer.push(rows(25, first=100))
    assert {int(reward) for reward in buffer.sample_uniform(500).batch['reward']} == set(range(115, 125))


def test_a_new_row_counts_like_its_neighbours():
    buffer = AdvantagePriorityBuffer({'replay_buffer_size': 10})
    buffer.push(rows(4))
    buffer.update_priority(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 6.0]))
    buffer.push(rows(2, first=4))
    assert buffer.mass.tolist() == [1, 2, 3, 6, 3, 3]


def test_rows_that_come_again_count_alike_in_expectation():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(30)
    for _ in range(60):  # epochs of a shuffled loader into a buffer that holds two and a half of them
        buffer = AdvantagePriorityBuffer({'replay_buffer_size': 75, 'seed': int(torch.randint(9999, (1, )))})
        for _ in range(4):
            data = columns(30)
            order = torch.randperm(30, generator=generator)
            for part in order.split(7):
                buffer.push({name: column[part] for name, column in data.items()})
        counts += torch.bincount(buffer.sample_prioritized(500).batch['reward'].long(), minlength=30)
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


def test_empty_buffer_and_wrong_rows_are_refused():
    with pytest.raises(RuntimeError, match='empty'):
        AdvantagePriorityBuffer({}).sample_uniform(1)
    with pytest.raises(RuntimeError, match='shares the rows'):
        attached(3).push(rows(1))
    with pytest.raises(ValueError, match='next_obs'):
        AdvantagePriorityBuffer({}).push([{name: row[name] for name in row if name != 'next_obs'} for row in rows(2)])
    discrete = rows(2)
    for row in discrete:
        row['action'] = torch.tensor([1])
    with pytest.raises(ValueError, match='discrete'):
        AdvantagePriorityBuffer({}).push(discrete)
    images = rows(2)
    for row in images:
        row['obs'] = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match='images'):
        AdvantagePriorityBuffer({}).push(images)
    for wrong in (float('nan'), float('inf'), 0.0):
        with pytest.raises(ValueError, match=f'a priority is {wrong}'):
            attached(3).update_priority(torch.tensor([0, 1]), torch.tensor([1.0, wrong]))
    buffer = AdvantagePriorityBuffer({})
    buffer.push(rows(2))
    with pytest.raises(ValueError, match='observations 5 wide, .* those of the buffer 4, .*of one environment'):
        buffer.push([dict(row, obs=torch.zeros(5), next_obs=torch.zeros(5)) for row in rows(2)])
    for index in (2, -1):
        with pytest.raises(ValueError, match=f'replay_buffer_idx has {index}, but the buffer has rows 0 to 1'):
            buffer.update({'replay_buffer_idx': [0, index], 'priority': [1.0, 1.0]})
    with pytest.raises(ValueError, match=r'\(1,\) priorities came for \(2,\) rows; every row must have one'):
        buffer.update({'replay_buffer_idx': [0, 1], 'priority': [1.0]})
    buffer.update({'replay_buffer_idx': [], 'priority': []})
    with pytest.raises(ValueError, match='replay_buffer_size is 0'):
        AdvantagePriorityBuffer({'replay_buffer_size': 0})
    with pytest.raises(ValueError, match='exponent is -1'):
        AdvantagePriorityBuffer({'exponent': -1})
    with pytest.raises(ValueError, match='seed is an empty list'):
        AdvantagePriorityBuffer({'seed': []})


def test_ding_engine_can_make_and_use_it(tmp_path):
    assert BUFFER_REGISTRY.get('advantage_priority') is AdvantagePriorityBuffer
    cfg = EasyDict(AdvantagePriorityBuffer.default_config())
    buffer = create_buffer(cfg, tb_logger=None, exp_name='x')
    buffer.push(rows(5), cur_collector_envstep=0)
    batch = buffer.sample(3, 0)
    assert set(batch[0]) == {'obs', 'action', 'reward', 'next_obs', 'done', 'replay_buffer_idx'}
    buffer.update({'replay_buffer_idx': [0, 1], 'priority': [5.0, 7.0], 'replay_unique_id': ['', '']})
    assert buffer.mass[:2].tolist() == [5, 7]
    path = str(tmp_path / 'rows')
    buffer.save_data(path)
    other = AdvantagePriorityBuffer({})
    other.load_data(path)
    assert (tmp_path / 'rows.npz').is_file()
    assert other.count() == 5 and torch.equal(other.sample_uniform(9).batch['action'], torch.zeros(9, 2))
    buffer.clear()
    assert buffer.count() == 0


def off_the_cpu(monkeypatch, buffer: AdvantagePriorityBuffer) -> None:
    """What the buffer does with priorities on a GPU; draws do the same everywhere."""
    monkeypatch.setattr(buffer, '_on_cpu', False)


def test_priorities_that_are_not_finite_never_send_draws_out_of_bounds(monkeypatch):
    """On a GPU nobody looks at priorities before the next logged iteration, which then names what went wrong."""
    buffer = attached(5000)
    off_the_cpu(monkeypatch, buffer)
    buffer.update_priority(torch.arange(4), torch.tensor([float('nan'), float('inf'), float('-inf'), 2.0]))
    assert buffer.sample_prioritized(2000).indices.max() < 5000 and buffer.mass.isfinite().all()
    assert buffer.mass[:4].tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize('seed', [0, [0, 1]])
@pytest.mark.parametrize('exponent, weight', [(1.0, None), (0.6, None), (0.6, torch.linspace(1, 2, 40_000).double())])
def test_draws_and_updates_on_a_gpu_wait_for_nothing_and_change_state_in_place(monkeypatch, seed, exponent, weight):
    buffer = attached(40_000, seed=seed, exponent=exponent)
    buffer.attach(buffer.table, weight)
    off_the_cpu(monkeypatch, buffer)
    where = [tensor.data_ptr() for tensor in buffer.tensors()]
    generators, before = list(buffer.generators), buffer.mass.clone()
    states = [buffer.replica_state(replica) for replica in range(len(generators))]
    with NoWaiting():
        drawn = [buffer.sample_uniform(64).indices, buffer.sample_prioritized(64).indices]
        indices = torch.cat(drawn, dim=-1)
        buffer.update_priority(indices, torch.full(indices.shape, 7.0))
    assert not torch.equal(buffer.mass, before)
    buffer.load_replica_states(states)
    assert torch.equal(buffer.mass, before)
    assert where == [tensor.data_ptr() for tensor in buffer.tensors()] and generators == buffer.generators
    with pytest.raises(AssertionError, match='_local_scalar_dense'), NoWaiting():  # the check can fail
        attached(3).update_priority(torch.arange(3), torch.ones(3))


# ---------------------------------------------------------------- replicas


def replicas_and_single_runs(size: int, seeds: list[int], **cfg) -> tuple:
    return attached(size, seed=seeds, **cfg), [attached(size, seed=seed, **cfg) for seed in seeds]


@pytest.mark.parametrize('size', [50, 1000, 40_000])
def test_a_replica_draws_what_a_single_run_with_its_seed_draws(size):
    replicas, single_runs = replicas_and_single_runs(size, [5, 0, 5, 7], exponent=0.6)
    for round_ in range(50):
        both = []
        for draw in (AdvantagePriorityBuffer.sample_uniform, AdvantagePriorityBuffer.sample_prioritized):
            together, alone = draw(replicas, 32), [draw(single, 32) for single in single_runs]
            assert torch.equal(together.indices, torch.stack([sample.indices for sample in alone]))
            for name, column in together.batch.columns.items():
                assert torch.equal(column, torch.stack([sample.batch[name] for sample in alone]))
            both.append(together.indices)
        indices = torch.cat(both, dim=1)
        # A function of the row, so that rows drawn twice come with one priority; another one for the third replica.
        priority = 1 + (indices * 37 + round_ + 10 * torch.tensor([[0], [0], [1], [0]])) % 101
        replicas.update_priority(indices, priority.float())
        for single, rows, values in zip(single_runs, indices, priority.float()):
            single.update_priority(rows, values)
    assert torch.equal(replicas.mass, torch.stack([single.mass for single in single_runs]))
    assert together.batch['obs'].shape == (4, 32, 4) and together.batch['done'].shape == (4, 32)
    assert not torch.equal(replicas.mass[0], replicas.mass[2])  # one seed, other priorities


def test_priorities_of_all_rows_of_replicas():
    replicas, single_runs = replicas_and_single_runs(500, [1, 2])
    priority = torch.rand(2, 500) + 0.1
    replicas.set_priorities(priority)
    for single, own in zip(single_runs, priority):
        single.set_priorities(own)
    expected = torch.stack([single.sample_prioritized(200).indices for single in single_runs])
    assert torch.equal(replicas.sample_prioritized(200).indices, expected)
    with pytest.raises(ValueError, match='a priority is -1.0'):
        replicas.set_priorities(torch.cat([priority[:1], -torch.ones(1, 500)]))


def test_a_replica_goes_on_as_a_single_run_and_all_as_replicas():
    replicas, _ = replicas_and_single_runs(500, [1, 2, 3])
    indices = replicas.sample_uniform(100).indices
    replicas.update_priority(indices, 1 + (indices % 9).float())
    states = [replicas.replica_state(replica) for replica in range(3)]
    expected = replicas.sample_prioritized(64).indices
    for replica, own in enumerate(states):
        single = attached(500, seed=99)
        assert {name: value.shape for name, value in own.items()} == \
            {name: value.shape for name, value in single.state_dict().items()}
        single.load_state_dict(own)
        assert torch.equal(single.sample_prioritized(64).indices, expected[replica])
    others = attached(500, seed=[7, 8, 9])
    others.load_replica_states(states)
    assert torch.equal(others.sample_prioritized(64).indices, expected)


def test_what_replicas_cannot_do_is_refused():
    replicas, single_runs = replicas_and_single_runs(20, [1, 2])
    with pytest.raises(RuntimeError, match='has 2 seeds.*a single seed to push'):
        AdvantagePriorityBuffer({'seed': [1, 2]}).push(rows(3))
    with pytest.raises(RuntimeError, match='has 2 seeds.*a single seed to draw lists'):
        replicas.sample(3)
    with pytest.raises(RuntimeError, match='has 2 seeds.*replicas do by load_replica_states'):
        replicas.load_state_dict(single_runs[0].state_dict())
    with pytest.raises(RuntimeError, match='has 2 seeds.*that of a replica is replica_state'):
        replicas.state_dict()


def test_one_seed_in_a_list_is_one_replica():
    one, single = attached(100, seed=[4]), attached(100, seed=4)
    assert torch.equal(one.sample_prioritized(16).indices, single.sample_prioritized(16).indices[None])
    assert one.sample_uniform(16).batch['action'].shape == (1, 16, 2)


def test_numbers_of_numpy_and_whole_floats_are_those_of_python():
    given = dict(replay_buffer_size=1e2, exponent=np.float32(0.5), seed=np.int64(3))
    drawn = []
    for cfg in (given, dict(replay_buffer_size=100, exponent=0.5, seed=3)):
        buffer = AdvantagePriorityBuffer(cfg)
        buffer.push(columns(150))
        assert buffer.count() == 100
        drawn.append(buffer.sample_uniform(20)[0])
    assert torch.equal(*drawn)
    assert len(AdvantagePriorityBuffer(dict(seed=np.arange(3))).generators) == 3
    for seed in (0.5, None, '3'):
        with pytest.raises(ValueError, match=f'seed is {seed!r}; it must be a whole number'):
            AdvantagePriorityBuffer(dict(seed=seed))

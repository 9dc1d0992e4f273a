"""AdvantagePriorityBuffer: draws, exponent, pushing, state."""
import numpy as np
import pytest
import torch
from ding.utils import BUFFER_REGISTRY
from ding.worker import create_buffer
from easydict import EasyDict
from scipy.stats import chisquare

from ding_cawr.buffer import AdvantagePriorityBuffer


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
    buffer.attach(columns(size))
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


def test_all_priorities_start_equal_and_columns_are_shared():
    data = columns(10)
    buffer = AdvantagePriorityBuffer({})
    buffer.attach(data)
    assert buffer.priority.tolist() == [1.0] * 10
    assert all(buffer._columns[name].data_ptr() == data[name].data_ptr() for name in data)


def test_batches_carry_the_rows_of_their_indices():
    sample = attached(100).sample_prioritized(32)
    assert torch.equal(sample.batch['reward'], sample.indices.float())
    assert torch.equal(sample.batch['next_obs'], sample.batch['obs'] + 1)
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
    with pytest.raises(ValueError, match='500 transitions, but the dataset has 400'):
        attached(400).load_state_dict(attached(500).state_dict())


def test_memory_is_within_three_tenths_of_the_columns():
    size = 100_000
    hopper = {
        'obs': torch.zeros(size, 11), 'action': torch.zeros(size, 3), 'reward': torch.zeros(size),
        'next_obs': torch.zeros(size, 11), 'done': torch.zeros(size, dtype=torch.bool)
    }
    buffer = AdvantagePriorityBuffer({})
    buffer.attach(hopper)
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
    assert buffer.priority.tolist() == [1, 2, 3, 6, 3, 3]


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
    with pytest.raises(RuntimeError, match='shares the columns'):
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
    with pytest.raises(ValueError, match='replay_buffer_size is 0'):
        AdvantagePriorityBuffer({'replay_buffer_size': 0})
    with pytest.raises(ValueError, match='exponent is -1'):
        AdvantagePriorityBuffer({'exponent': -1})


def test_ding_engine_can_make_and_use_it(tmp_path):
    assert BUFFER_REGISTRY.get('advantage_priority') is AdvantagePriorityBuffer
    cfg = EasyDict(AdvantagePriorityBuffer.default_config())
    buffer = create_buffer(cfg, tb_logger=None, exp_name='x')
    buffer.push(rows(5), cur_collector_envstep=0)
    batch = buffer.sample(3, 0)
    assert set(batch[0]) == {'obs', 'action', 'reward', 'next_obs', 'done', 'replay_buffer_idx'}
    buffer.update({'replay_buffer_idx': [0, 1], 'priority': [5.0, 7.0], 'replay_unique_id': ['', '']})
    assert buffer.priority[:2].tolist() == [5, 7]
    path = str(tmp_path / 'rows.npz')
    buffer.save_data(path)
    other = AdvantagePriorityBuffer({})
    other.load_data(path)
    assert other.count() == 5 and torch.equal(other.sample_uniform(9).batch['action'], torch.zeros(9, 2))
    buffer.clear()
    assert buffer.count() == 0


def test_priorities_that_are_not_finite_never_send_draws_out_of_bounds(monkeypatch):
    """On a GPU nobody looks at priorities before the next logged iteration, which then names what went wrong."""
    buffer = AdvantagePriorityBuffer(dict(seed=0))
    buffer.attach(columns(5000))
    buffer._device = torch.device('cuda')  # only the check asks
    buffer.update_priority(torch.arange(3), torch.tensor([float('nan'), float('inf'), 2.0]))
    buffer._device = torch.device('cpu')
    assert buffer.sample_prioritized(2000).indices.max() < 5000 and buffer.priority.isfinite().all()

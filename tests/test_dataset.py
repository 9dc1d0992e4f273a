"""OfflineTransitions behind DI-engine's loader: the clock, and rows for other policies."""
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.policy.common_utils import default_preprocess_learn
from ding.utils.data import create_dataset
from easydict import EasyDict
from torch.utils.data import DataLoader

from ding_cawr import load_transitions, normalized_score
from ding_cawr.data.transitions import Transitions


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_d4rl_file(
        tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 3
    )


def config(path, policy_type='cawr_command', env=None, **learn) -> EasyDict:
    return EasyDict(
        env=dict(env_id='hopper-medium-v2', **(env or {})),
        policy=dict(
            type=policy_type, model=dict(obs_shape=11, action_shape=[3]), learn={'batch_size': 16, **learn},
            collect=dict(data_type='offline_transitions', data_path=str(path))
        )
    )


def loader(dataset) -> DataLoader:
    """As DI-engine's offline pipeline makes it."""
    return DataLoader(dataset, 16, shuffle=True, collate_fn=lambda x: x)


@pytest.mark.parametrize('policy_type', ['cawr', 'cawr_command'])
def test_for_cawr_an_epoch_is_one_tick(path, policy_type):
    dataset = create_dataset(config(path, policy_type))
    ticks = list(loader(dataset))
    assert len(ticks) == 1 and isinstance(ticks[0], torch.Tensor) and ticks[0].numel() == 0
    assert isinstance(dataset.statistics.transitions, Transitions)


def test_for_other_policies_an_epoch_is_every_row_once(path):
    dataset = create_dataset(config(path, 'td3_bc_command'))
    rows = [row for batch in loader(dataset) for row in batch]
    expected = load_transitions(path)
    assert len(dataset) == len(rows) == len(expected) == 297  # of 300 rows, 3 are timeouts
    assert sorted(float(row['reward']) for row in rows) == pytest.approx(sorted(expected.reward.tolist()))
    batch = default_preprocess_learn(rows[:16], ignore_done=False)
    assert {name: tuple(batch[name].shape) for name in Transitions.COLUMNS} == {
        'obs': (16, 11), 'action': (16, 3), 'reward': (16, ), 'next_obs': (16, 11), 'done': (16, )
    }
    assert torch.equal(dataset[5]['obs'], expected.obs[5])


def test_statistics_and_behaviour(path):
    dataset = create_dataset(config(path))
    obs = load_transitions(path).obs
    np.testing.assert_allclose(dataset.mean, obs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, obs.numpy().std(0) + 1e-3, rtol=1e-4)
    statistics = dataset.statistics
    low, high = statistics.action_bounds
    assert low.shape == high.shape == (3, ) and (low < high).all()
    returns = load_transitions(path).episode_returns
    assert statistics.behaviour_return == pytest.approx(returns.mean())
    assert statistics.behaviour_score == pytest.approx(normalized_score('hopper-medium-v2', returns.mean()))


def test_normalizations_are_applied_as_configured(path):
    raw = create_dataset(config(path))
    env = dict(reward_norm='iql_locomotion', norm_obs=dict(use_norm=True, offline_stats=dict(use_offline_stats=True)))
    normalized = create_dataset(config(path, env=env))
    assert normalized.transitions.obs.mean(0).abs().max() < 1e-5
    np.testing.assert_allclose(normalized.mean, raw.mean, rtol=1e-6)
    scale = 1000 / np.ptp(raw.transitions.episode_returns)
    torch.testing.assert_close(normalized.transitions.reward, raw.transitions.reward * scale)
    assert normalized.statistics.behaviour_return == raw.statistics.behaviour_return


@pytest.mark.parametrize('changes, message', [
    (dict(env=dict(reward_norm='iql_locomotin')), "reward_norm is 'iql_locomotin'.*did you mean 'iql_locomotion'"),
    (dict(batch_size=0), 'learn.batch_size is 0'),
    (dict(batch_size=True), 'learn.batch_size is True'),
])
def test_bad_configurations(path, changes, message):
    with pytest.raises(ValueError, match=message):
        create_dataset(EasyDict(config(path, **changes)))


def test_widths_that_do_not_fit(path):
    cfg = config(path)
    cfg.policy.model.action_shape = 6
    with pytest.raises(ValueError, match='policy.model.action_shape is 6, but .*hopper.hdf5 has 3'):
        create_dataset(cfg)

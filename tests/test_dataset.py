"""OfflineTransitions behind DI-engine's loader: the clock, and rows for other policies."""
from itertools import islice

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.entry import serial_pipeline_offline
from ding.policy.common_utils import default_preprocess_learn
from ding.utils.data import create_dataset
from easydict import EasyDict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from ding_cawr import load_transitions, normalized_score
from ding_cawr.data.collect import collect_with_policy
from ding_cawr.data.collect import write_d4rl_file as write_own_file
from ding_cawr.data.table import COLUMNS
from ding_cawr.data.transitions import Transitions
from ding_cawr.environments import Environment


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


def test_an_environment_whose_arguments_change_its_observations(tmp_path):
    """Hopper-v4 with its position has 12 observations, and no D4RL score."""
    kwargs = dict(exclude_current_positions_from_observation=False)
    columns = collect_with_policy(lambda obs: np.zeros((len(obs), 3)), 'Hopper-v4', 50, 0, kwargs)
    path = tmp_path / 'hopper.hdf5'
    write_own_file(path, columns, dict(env_id='Hopper-v4'))
    cfg = config(path, env=dict(type='d4rl_gymnasium', kwargs=kwargs))
    cfg.env.env_id, cfg.policy.model.obs_shape = 'Hopper-v4', 12
    statistics = create_dataset(cfg).statistics
    assert statistics.transitions.obs_shape == 12 and statistics.behaviour_score is None
    assert statistics.behaviour_return == pytest.approx(columns['rewards'].sum() / columns['terminals'].sum(), rel=1e-5)
    del cfg.env['kwargs']
    with pytest.raises(ValueError, match='observations are 12 wide .*, but Hopper-v4 has 11'):
        create_dataset(cfg)


def test_for_other_policies_an_epoch_is_every_row_once(path):
    dataset = create_dataset(config(path, 'td3_bc_command'))
    rows = [row for batch in loader(dataset) for row in batch]
    expected = load_transitions(path)
    assert len(dataset) == len(rows) == len(expected) == 297  # of 300 rows, 3 are timeouts
    assert sorted(float(row['reward']) for row in rows) == pytest.approx(sorted(expected.reward.tolist()))
    batch = default_preprocess_learn(rows[:16], ignore_done=False)
    assert {name: tuple(batch[name].shape) for name in COLUMNS} == {
        'obs': (16, 11), 'action': (16, 3), 'reward': (16, ), 'next_obs': (16, 11), 'done': (16, )
    }
    assert np.array_equal(dataset[5]['obs'], expected.obs[5])


def test_statistics_and_behaviour(path):
    dataset = create_dataset(config(path))
    obs = load_transitions(path).obs
    np.testing.assert_allclose(dataset.mean, obs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, obs.std(0) + 1e-3, rtol=1e-4)
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
    assert np.abs(normalized.transitions.obs.mean(0)).max() < 1e-5
    np.testing.assert_allclose(normalized.mean, raw.mean, rtol=1e-6)
    scale = 1000 / np.ptp(raw.transitions.episode_returns)
    np.testing.assert_allclose(normalized.transitions.reward, raw.transitions.reward * scale, rtol=1e-6)
    assert normalized.statistics.behaviour_return == raw.statistics.behaviour_return


def with_rewards(path, **reward) -> EasyDict:
    cfg = config(path)
    cfg.policy.collect.reward = reward
    return cfg


def test_rewards_are_scaled_and_shifted_before_they_are_normalized(path):
    raw = create_dataset(config(path))
    cfg = with_rewards(path, scale=2, shift=-1.0)
    changed = create_dataset(cfg)
    np.testing.assert_allclose(changed.transitions.reward, 2 * raw.transitions.reward - 1, rtol=1e-6)
    assert changed.statistics.behaviour_return == raw.statistics.behaviour_return
    for name in ('obs', 'action', 'next_obs', 'done'):
        np.testing.assert_array_equal(getattr(changed.transitions, name), getattr(raw.transitions, name))
    cfg.env.reward_norm = 'iql_locomotion'
    factor = 1000 / np.ptp(raw.transitions.episode_returns)
    both = create_dataset(cfg).transitions.reward
    np.testing.assert_allclose(both, factor * changed.transitions.reward, rtol=1e-5)


def test_corrupted_rewards_are_scaled_too(path):
    cfg = config(path)
    cfg.policy.collect.corruption = dict(columns='reward', rate=1.0)
    corrupted = create_dataset(cfg).transitions.reward
    cfg.policy.collect.reward = dict(shift=-1)
    np.testing.assert_allclose(create_dataset(cfg).transitions.reward, corrupted - 1, rtol=1e-6)


@pytest.mark.parametrize('reward, message', [
    (5, 'collect.reward is 5; it must be None or a dict with scale, shift'),
    (dict(scal=2), "collect.reward has no option 'scal'; .* did you mean 'scale'"),
    (dict(scale='2'), "collect.reward.scale is '2'; it must be a number in"),
    (dict(shift=float('nan')), 'collect.reward.shift is nan'),
    (dict(scale=0), 'collect.reward.scale is 0; it must not be 0'),
    (dict(scale=1e18), 'reward after collect.reward holds numbers beyond'),
])
def test_wrong_scales_of_rewards(path, reward, message):
    cfg = config(path)
    cfg.policy.collect.reward = reward
    with pytest.raises(ValueError, match=message):
        create_dataset(cfg)


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


# ---------------------------------------------------------------- epochs of a given number of iterations


def with_epochs(path, iterations, seed=None, policy_type='td3_bc_command', **learn) -> EasyDict:
    cfg = config(path, policy_type, **learn)
    cfg.policy.collect.epoch_iterations = iterations
    return cfg if seed is None else EasyDict({**cfg, 'seed': seed})


def rewards(dataset) -> list[list[float]]:
    """The batches of an epoch."""
    return [[float(row['reward']) for row in batch] for batch in loader(dataset)]


@pytest.mark.parametrize('iterations', [1, 7, 100])
def test_an_epoch_has_the_iterations_asked_for(path, iterations):
    """More rows than there are, or fewer."""
    dataset = create_dataset(with_epochs(path, iterations))
    batches = rewards(dataset)
    assert len(dataset) == 16 * iterations and [len(batch) for batch in batches] == [16] * iterations
    batch = default_preprocess_learn(next(iter(loader(dataset))), ignore_done=False)
    assert {name: tuple(batch[name].shape) for name in COLUMNS} == {
        'obs': (16, 11), 'action': (16, 3), 'reward': (16, ), 'next_obs': (16, 11), 'done': (16, )
    }


def test_rows_of_such_an_epoch_are_whole(path):
    expected = load_transitions(path)
    dataset = create_dataset(with_epochs(path, 5))
    drawn = [dict(row) for batch in loader(dataset) for row in batch] + [dataset[i] for i in range(0, len(dataset), 9)]
    for row in drawn:
        at = int(np.flatnonzero(expected.reward == row['reward'].numpy()))
        assert all(np.array_equal(row[name], column[at]) for name, column in expected.table.columns.items())


def test_such_batches_are_drawn_uniformly_with_replacement(path):
    dataset, reward = create_dataset(with_epochs(path, 2000)), load_transitions(path).reward.tolist()
    row_of = {value: row for row, value in enumerate(reward)}
    assert len(row_of) == 297
    drawn = [[row_of[value] for value in batch] for batch in rewards(dataset)]
    counts = np.bincount(np.concatenate(drawn), minlength=297)
    expected = 2000 * 16 / 297
    assert abs(((counts - expected)**2 / expected).sum() - 296) < 5 * np.sqrt(2 * 296)  # chi squared
    repeats = sum(len(set(batch)) < 16 for batch in drawn)
    share = 1 - np.prod(1 - np.arange(16) / 297)  # of batches with some row twice
    assert abs(repeats - 2000 * share) < 5 * np.sqrt(2000 * share * (1 - share))


def test_such_draws_are_those_of_the_runs_seed_alone(path):
    one, same, other, unseeded, zero = (create_dataset(with_epochs(path, 4, seed)) for seed in (3, 3, 4, None, 0))
    torch.manual_seed(0)
    first = [rewards(one) for _ in range(2)]
    torch.manual_seed(1)  # of the loader's shuffle
    assert [rewards(same) for _ in range(2)] == first and first[0] != first[1]
    assert rewards(other) != first[0]
    assert rewards(unseeded) == rewards(zero)


def test_items_of_such_a_dataset_end(path):
    dataset = create_dataset(with_epochs(path, 30))
    assert sum(1 for _ in islice(dataset, 1000)) == len(dataset) == 480
    with pytest.raises(IndexError):
        dataset[480]


def test_cawr_ignores_the_iterations_of_an_epoch(path):
    dataset = create_dataset(with_epochs(path, 30, policy_type='cawr_command'))
    assert len(dataset) == 16 and len(list(loader(dataset))) == 1


@pytest.mark.parametrize('iterations, learn, message', [
    (0, {}, 'collect.epoch_iterations is 0; it must be a positive whole number'),
    (2.5, {}, 'collect.epoch_iterations is 2.5'),
    (True, {}, 'collect.epoch_iterations is True'),
    ('10', {}, "collect.epoch_iterations is '10'"),
    (10, dict(batch_size=0), 'learn.batch_size is 0'),
])
def test_wrong_iterations_of_an_epoch(path, iterations, learn, message):
    with pytest.raises(ValueError, match=message):
        create_dataset(with_epochs(path, iterations, **learn))


@pytest.mark.parametrize('iterations', [20, 5])
def test_td3_bc_evaluates_and_stops_exactly(path, tmp_path, monkeypatch, iterations):
    """DI-engine's own pipeline and policy; a pass over the rows would be 19 iterations."""
    monkeypatch.chdir(tmp_path)
    main_config = EasyDict(
        exp_name='run',
        env=dict(env_id='hopper-medium-v2', evaluator_env_num=1, n_evaluator_episode=1, stop_value=1e6),
        policy=dict(
            cuda=False, model=dict(obs_shape=11, action_shape=3, twin_critic=True, action_space='regression'),
            learn=dict(train_epoch=1000, batch_size=16),
            collect=dict(
                data_type='offline_transitions', data_path=str(path), unroll_len=1, epoch_iterations=iterations
            ),
            eval=dict(evaluator=dict(eval_freq=20)),
        ),
    )
    create_config = EasyDict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']), env_manager=dict(type='base'),
        policy=dict(type='td3_bc', import_names=['ding.policy.td3_bc']),
    )
    serial_pipeline_offline((main_config, create_config), seed=0, max_train_iter=60)
    events = EventAccumulator(str(tmp_path / 'run' / 'log' / 'serial')).Reload()
    assert [event.step for event in events.Scalars('evaluator_iter/reward_mean')] == [20, 40, 60]
    checkpoints = {file.name for file in (tmp_path / 'run' / 'ckpt').iterdir()}
    assert 'iteration_60.pth.tar' in checkpoints
    assert max(int(name.split('_')[1].split('.')[0]) for name in checkpoints if name.startswith('iteration')) == 60


def pendulum_file(path, attributes=None):
    """Random torques, as Pendulum takes them (±2), and what came of them."""
    env, generator = gymnasium.make('Pendulum-v1'), np.random.default_rng(0)
    rows = {name: [] for name in ('observations', 'actions', 'rewards')}
    for episode in range(2):
        obs, _ = env.reset(seed=episode)
        for _ in range(200):
            torque = generator.uniform(-2, 2, 1).astype(np.float32)
            after, reward, *_ = env.step(torque)
            for name, value in zip(rows, (obs, torque, reward)):
                rows[name].append(value)
            obs = after
    ends = np.arange(400) % 200 == 199
    with h5py.File(path, 'w') as file:
        for name, column in {**rows, 'terminals': np.zeros(400, bool), 'timeouts': ends}.items():
            file[name] = np.array(column)
        file.attrs.update(attributes or {})
    return path


def pendulum_config(path, **collect) -> EasyDict:
    cfg = config(path, env=dict(type='d4rl_gymnasium'))
    cfg.env.env_id, cfg.policy.model = 'Pendulum-v1', {}
    cfg.policy.collect.update(collect)
    return cfg


def test_actions_as_the_environment_takes_them_do_there_what_they_did(tmp_path):
    """A policy that gives the dataset's actions meets the dataset's next observations."""
    path = pendulum_file(tmp_path / 'raw.hdf5')
    with pytest.warns(UserWarning, match="read as the environment takes them .*collect.action_scale='environment'"):
        read = create_dataset(pendulum_config(path)).transitions
    assert 0.9 < np.abs(read.action).max() <= 1
    env = Environment('Pendulum-v1')
    env.reset(0)
    for row in range(100):
        np.testing.assert_allclose(env.step(read.action[row])[0], read.next_obs[row], rtol=1e-4, atol=1e-4)


def test_a_file_that_was_collected_here_says_how_its_actions_are_scaled(tmp_path, recwarn):
    columns = collect_with_policy(lambda obs: np.full((len(obs), 1), 0.25), 'Pendulum-v1', 200, 0)
    write_own_file(tmp_path / 'own.hdf5', columns, {})
    assert (create_dataset(pendulum_config(tmp_path / 'own.hdf5')).transitions.action == 0.25).all()
    raw = create_dataset(pendulum_config(tmp_path / 'own.hdf5', action_scale='environment')).transitions
    assert (raw.action == 0.125).all()
    assert not [each for each in recwarn.list if 'actions are in' in str(each.message)]


def test_data_without_an_environment_are_scaled_by_numbers(tmp_path):
    path = pendulum_file(tmp_path / 'raw.hdf5')
    cfg = pendulum_config(path)
    cfg.env = {}
    with pytest.raises(ValueError, match=r'outside \[-1, 1\].*collect.action_scale'):
        create_dataset(cfg)
    with pytest.raises(ValueError, match=r'outside \[-1, 1\]'):
        load_transitions(path)
    cfg.policy.collect.action_scale = [-2, 2]
    scaled, raw = create_dataset(cfg).transitions, load_transitions(path, unit_actions=False)
    np.testing.assert_allclose(2 * scaled.action, raw.action, atol=1e-6)

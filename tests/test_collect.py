"""Rolling policies out into D4RL's layout: data/collect.py, engine/collect.py and ``cawr data collect``."""
from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import gym
import gymnasium
import h5py
import numpy as np
import pytest
import torch
from ding.config import compile_config, read_config
from ding.envs import BaseEnv, BaseEnvManager, BaseEnvTimestep, get_env_cls
from ding.policy import Policy, create_policy
from ding.utils.data import create_dataset
from dizoo.classic_control.cartpole import config as stock_configs
from easydict import EasyDict
from helpers import click_runner, train_offline, write_config

from ding_cawr import load_policy, load_transitions, make_config
from ding_cawr.cli import cawr
from ding_cawr.data.collect import collect_with_policy, write_d4rl_file
from ding_cawr.data.d4rl import sha256
from ding_cawr.data.layouts import read_transitions
from ding_cawr.engine import collect
from ding_cawr.engine.collect import collect_dataset, collect_with_checkpoint
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.environments import COLLECTOR
from ding_cawr.evaluation.episodes import evaluate
from ding_cawr.machine import versions
from ding_cawr.score import normalized_score

#: First entries of the eleven start states that seed 2 gives in three environments of Pendulum-v1.
STARTS = (
    0.5877776, 0.5052330, -0.8849211, -0.0654542, -0.9476640, -0.9790754, -0.3593006, 0.9504095, -0.9943939, 0.4173835,
    0.6925833,
)
CONFIG = Path(__file__).parents[1] / 'config' / 'hopper_sac.py'


def uniform_policy(action_shape: int, reach: float = 1.0, seed: int = 0):
    generator = np.random.default_rng(seed)
    return lambda obs: generator.uniform(-reach, reach, (len(obs), action_shape))


def sac_config() -> tuple[EasyDict, EasyDict]:
    content = runpy.run_path(str(CONFIG))
    return content['main_config'], content['create_config']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory) -> list[Path]:
    """Two checkpoints of config/hopper_sac.py with random networks."""
    main_config, create_config = sac_config()
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        policy = create_policy(cfg.policy, enable_field=['learn'])
        paths.append(tmp_path_factory.mktemp('ckpt') / f'iteration_{seed}.pth.tar')
        torch.save(policy.learn_mode.state_dict(), paths[-1])
    return paths


@pytest.fixture(scope='module')
def hopper() -> dict[str, np.ndarray]:
    return collect_with_policy(uniform_policy(3), 'hopper-medium-v2', 500, 0)


def ends(columns: dict[str, np.ndarray]) -> np.ndarray:
    return np.flatnonzero(columns['terminals'] | columns['timeouts'])


def replay(columns: dict[str, np.ndarray], env_id: str, seed: int) -> None:
    """Run the recorded actions from the start states that ``seed`` gives: the rest must come out as recorded."""
    env = MujocoEnv(dict(env_id=env_id, role=COLLECTOR, index=0, manager=dict(auto_reset=True)))
    env.seed(seed)
    obs, ended = env.reset(), False
    for row in range(len(columns['rewards'])):
        obs = env.reset() if ended else obs
        np.testing.assert_array_equal(columns['observations'][row], obs)
        obs, reward, ended, info = env.step(columns['actions'][row])
        assert columns['rewards'][row] == reward[0]
        timeout = bool(info.get('TimeLimit.truncated', False))
        assert (columns['terminals'][row], columns['timeouts'][row]) == (ended and not timeout, timeout)
    assert ended


def test_columns_are_whole_episodes_until_enough(hopper):
    rows = len(hopper['rewards'])
    assert {name: (column.shape, column.dtype.name) for name, column in hopper.items()} == {
        'observations': ((rows, 11), 'float32'), 'actions': ((rows, 3), 'float32'), 'rewards': ((rows, ), 'float32'),
        'terminals': ((rows, ), 'bool'), 'timeouts': ((rows, ), 'bool'),
    }
    assert ends(hopper)[-1] == rows - 1
    assert ends(hopper)[-2] + 1 < 500 <= rows
    assert hopper['terminals'].any() and not hopper['timeouts'].any()


def test_recorded_actions_reproduce_the_recording(hopper):
    replay(hopper, 'Hopper-v4', 0)


def test_actions_are_stored_as_executed():
    columns = collect_with_policy(uniform_policy(3, reach=3.0), 'Hopper-v4', 100, 1)
    assert np.abs(columns['actions']).max() == 1
    replay(columns, 'Hopper-v4', 1)


def test_time_limit_is_a_timeout_and_no_terminal():
    columns = collect_with_policy(uniform_policy(6), 'HalfCheetah-v4', 1001, 0)
    np.testing.assert_array_equal(np.flatnonzero(columns['timeouts']), [999, 1999])
    assert not columns['terminals'].any()
    starts = columns['observations'][[0, 1000]]
    assert np.abs(starts).max() < 1 and not np.array_equal(*starts)


def test_terminals_and_timeouts_of_the_same_environment():
    entry_point = 'gymnasium.envs.mujoco.hopper_v4:HopperEnv'
    gymnasium.register('ShortHopper-v0', entry_point=entry_point, max_episode_steps=20)
    columns = collect_with_policy(uniform_policy(3), 'ShortHopper-v0', 300, 0)
    replay(columns, 'ShortHopper-v0', 0)
    lengths = np.diff(ends(columns), prepend=-1)
    timeouts = columns['timeouts'][ends(columns)]
    assert 0 < timeouts.sum() < len(timeouts)
    assert (lengths[timeouts] == 20).all()
    assert not (columns['terminals'] & columns['timeouts']).any()


def env_config(**more) -> EasyDict:
    return EasyDict(manager={**BaseEnvManager.default_config(), 'type': 'base'}, **more)


def noop_policy(action_shape: int) -> Policy.collect_function:
    def forward(observations):
        return {index: {'action': np.zeros(action_shape, np.float32)} for index in observations}

    return Policy.collect_function(
        forward, None, None, lambda data_id=None: None, lambda name: None, None, None, None
    )


class LongOrShort(BaseEnv):
    """Four environments: the episodes of the first have 12 steps, those of the others 2."""

    def __init__(self, cfg):
        self._length = 12 if cfg['index'] == 0 else 2
        self.observation_space = self.action_space = self.reward_space = gym.spaces.Box(-1, 1, (1, ), np.float32)

    def reset(self):
        self._step = 0
        return np.zeros(1, np.float32)

    def step(self, action):
        self._step += 1
        done = self._step == self._length
        return BaseEnvTimestep(np.zeros(1, np.float32), np.zeros(1, np.float32), done, {'eval_episode_return': 0.0})

    def seed(self, seed, dynamic_seed=True):
        pass

    def close(self):
        pass

    def __repr__(self):
        return 'LongOrShort'

    @staticmethod
    def create_collector_env_cfg(cfg):
        return [dict(index=index) for index in range(4)]


def test_cutting_at_the_wanted_steps_does_not_favour_short_episodes():
    """Of four equally likely episodes one is long; asked for one step, it must be the one that is kept every fourth
    time. Binomial(80, 1/4) lies within [9, 32] with a probability above 0.999."""
    rollouts = [collect._roll_out(noop_policy(1), LongOrShort, env_config(), 1, seed) for seed in range(80)]
    assert {len(columns['rewards']) for columns in rollouts} == {2, 12}
    assert 9 <= sum(len(columns['rewards']) == 12 for columns in rollouts) <= 32


@pytest.mark.parametrize('bad, message', [
    (lambda obs: np.zeros((len(obs), 2)), r'shape \(1, 2\).*\(1, 3\) for Hopper-v4'),
    (lambda obs: np.zeros(3), r'shape \(3,\)'),
    (lambda obs: np.full((len(obs), 3), np.nan), 'finite: False'),
])
def test_a_function_that_gives_no_actions_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        collect_with_policy(bad, 'Hopper-v4', 10, 0)


def test_the_same_seed_gives_what_it_gave_before():
    """Start states by index and episode, and which episodes are kept, are part of what a seed means."""
    columns = collect_with_policy(lambda obs: np.tanh(obs[:, :1]), 'Pendulum-v1', 2100, 2)
    assert len(columns['rewards']) == 2200
    np.testing.assert_allclose(columns['observations'][::200, 0], STARTS, atol=1e-6)


def test_a_time_limit_and_arguments_can_be_given():
    columns = collect_with_policy(uniform_policy(3), 'Hopper-v4', 30, 0, dict(reset_noise_scale=0.0), 5)
    assert len(columns['rewards']) == 30 and ends(columns).tolist() == [4, 9, 14, 19, 24, 29]
    assert len(np.unique(columns['observations'][::5], axis=0)) == 1 and columns['timeouts'].sum() == 6


def test_nothing_is_collected_from_an_environment_that_gives_nan():
    class Hole(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(-9, 9, (2, )), gymnasium.spaces.Box(-1, 1, (1, ))

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.full(2, np.nan, np.float32), 0.0, False, False, {}

    gymnasium.register('Hole-v0', entry_point=Hole, max_episode_steps=5)
    told = pytest.warns(UserWarning, match='at step 1 of the episode')
    with told, pytest.raises(ValueError, match='broke off at step 1'):
        collect_with_policy(uniform_policy(1), 'Hole-v0', 10, 0)


def test_unusable_requests_are_refused():
    with pytest.raises(ValueError, match='steps is 0'):
        collect_with_policy(uniform_policy(3), 'Hopper-v4', 0, 0)
    with pytest.raises(ValueError, match="'Hoper-v4'"):
        collect_with_policy(uniform_policy(3), 'Hoper-v4', 10, 0)


def test_checkpoint_rolls_out_stochastically_and_repeatably(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = collect_with_checkpoint(CONFIG, checkpoints[0], 300, 5)
    replay(columns, 'Hopper-v4', 5)
    assert np.abs(columns['actions']).max() < 1
    again = collect_with_checkpoint(sac_config(), checkpoints[0], 300, 5)
    for name in columns:
        np.testing.assert_array_equal(columns[name], again[name])
    other = collect_with_checkpoint(CONFIG, checkpoints[0], 300, 6)
    assert not np.array_equal(columns['actions'][:10], other['actions'][:10])
    assert list(tmp_path.iterdir()) == []


def test_several_environments_give_whole_episodes(checkpoints):
    columns = collect_with_checkpoint(CONFIG, checkpoints[0], 2500, 0)
    assert len(columns['rewards']) >= 2500 and ends(columns)[-1] == len(columns['rewards']) - 1
    first = np.concatenate([[0], ends(columns)[:-1] + 1])
    # Start states: noise of at most 0.005 around the standing hopper, at the first row of each episode and only there.
    standing = np.isclose(columns['observations'][:, 0], 1.25, atol=0.005) & (
        np.abs(columns['observations'][:, 5:]).max(axis=1) <= 0.005
    )
    np.testing.assert_array_equal(np.flatnonzero(standing), first)
    assert len(np.unique(columns['observations'][first], axis=0)) == len(first)


def test_checkpoint_that_does_not_fit_is_refused(checkpoints, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth.tar'):
        collect_with_checkpoint(CONFIG, tmp_path / 'absent.pth.tar', 10, 0)
    with pytest.raises(FileNotFoundError, match='absent.py'):
        collect_with_checkpoint(tmp_path / 'absent.py', checkpoints[0], 10, 0)
    (tmp_path / 'cut.pth.tar').write_bytes(checkpoints[0].read_bytes()[:1000])
    with pytest.raises(ValueError, match='cut.pth.tar cannot be read as a checkpoint: it is damaged or cut short'):
        collect_with_checkpoint(CONFIG, tmp_path / 'cut.pth.tar', 10, 0)
    torch.save({'other': 1}, tmp_path / 'other.pth.tar')
    with pytest.raises(ValueError, match="other.pth.tar does not fit the policy 'sac'"):
        collect_with_checkpoint(CONFIG, tmp_path / 'other.pth.tar', 10, 0)
    main_config, create_config = sac_config()
    main_config.policy.model.actor_head_hidden_size = 8
    with pytest.raises(ValueError, match='size mismatch'):
        collect_with_checkpoint((main_config, create_config), checkpoints[0], 10, 0)


def test_normalized_observations_are_refused(checkpoints):
    main_config, create_config = sac_config()
    main_config.env.norm_obs = dict(use_norm=True)
    with pytest.raises(ValueError, match='env.norm_obs.use_norm'):
        collect_with_checkpoint((main_config, create_config), checkpoints[0], 10, 0)
    main_config.env.norm_obs = None
    assert len(collect_with_checkpoint((main_config, create_config), checkpoints[0], 10, 0)['rewards']) >= 10


def test_file_reads_back(hopper, tmp_path):
    write_d4rl_file(tmp_path / 'a.hdf5', hopper, dict(env_id='Hopper-v4', seed=0, mean_return=1.5, parts=[dict(a=1)]))
    transitions = read_transitions(tmp_path / 'a.hdf5', 'hopper-medium-v2')
    np.testing.assert_array_equal(transitions.obs, hopper['observations'][:-1])
    np.testing.assert_array_equal(transitions.next_obs, hopper['observations'][1:])
    np.testing.assert_array_equal(transitions.action, hopper['actions'][:-1])
    np.testing.assert_array_equal(transitions.reward, hopper['rewards'][:-1])
    np.testing.assert_array_equal(transitions.done, hopper['terminals'][:-1])
    assert len(transitions.episode_returns) == len(ends(hopper))
    assert transitions.attributes == dict(env_id='Hopper-v4', seed=0, mean_return=1.5, parts='[{"a": 1}]',
                                           action_scale='unit')
    with h5py.File(tmp_path / 'a.hdf5') as file:
        assert {name: (data.dtype.name, data.compression, data.shuffle) for name, data in file.items()} == {
            name: (dtype, 'gzip', True) for name, dtype in zip(
                ('observations', 'actions', 'rewards', 'terminals', 'timeouts'), ('float32', ) * 3 + ('bool', ) * 2
            )
        }


@pytest.mark.parametrize('stage', ['fsync', 'replace'])
def test_interrupted_write_leaves_nothing(hopper, tmp_path, monkeypatch, stage):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_d4rl_file(tmp_path / 'a.hdf5', hopper, {})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(hopper, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError('No space left on device')

    monkeypatch.setattr(h5py.Group, 'create_dataset', full)
    with pytest.raises(OSError, match='No space'):
        write_d4rl_file(tmp_path / 'a.hdf5', hopper, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_touched(hopper, tmp_path):
    (tmp_path / 'a.hdf5').write_text('mine')
    with pytest.raises(FileExistsError, match='a.hdf5 exists'):
        write_d4rl_file(tmp_path / 'a.hdf5', hopper, {})
    assert (tmp_path / 'a.hdf5').read_text() == 'mine'


@pytest.mark.parametrize('name, error', [('a.npz', ValueError), ('absent/a.hdf5', FileNotFoundError)])
def test_unusable_targets_are_refused(hopper, tmp_path, name, error):
    with pytest.raises(error, match=Path(name).parts[0]):
        write_d4rl_file(tmp_path / name, hopper, {})


@pytest.mark.parametrize('change, message', [
    (lambda columns: {name: column[:-1] for name, column in columns.items()}, 'the last row does not end an episode'),
    (lambda columns: {**columns, 'actions': columns['actions'] * 2}, r'outside \[-1, 1\]'),
    (lambda columns: {**columns, 'rewards': columns['rewards'] * np.nan}, 'rewards holds NaN'),
    (lambda columns: {**columns, 'rewards': columns['rewards'][1:]}, 'differ in length'),
    (lambda columns: {**columns, 'rewards': columns['rewards'][:, None]}, r'columns have shapes .*must be'),
    (lambda columns: {'rewards': columns['rewards']}, r'columns have shapes .*must be'),
])
def test_what_is_no_dataset_is_not_written(hopper, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_d4rl_file(tmp_path / 'a.hdf5', change(hopper), {})
    assert list(tmp_path.iterdir()) == []


def test_dataset_of_several_checkpoints(checkpoints, tmp_path):
    out = tmp_path / 'mixed.hdf5'
    result = collect_dataset(CONFIG, checkpoints, 300, 7, out)
    with h5py.File(out) as file:
        columns = {name: data[()] for name, data in file.items()}
        attributes = dict(file.attrs)
    parts = json.loads(attributes['parts'])
    alone = [collect_with_checkpoint(CONFIG, path, 150, 7 + i) for i, path in enumerate(checkpoints)]
    for name in columns:
        np.testing.assert_array_equal(columns[name], np.concatenate([part[name] for part in alone]))
    for part, its_columns, path in zip(parts, alone, checkpoints):
        mean = its_columns['rewards'].sum(dtype=np.float64) / len(ends(its_columns))
        assert part == dict(
            checkpoint=path.name, sha256=sha256(path), seed=part['seed'], transitions=len(its_columns['rewards']),
            episodes=len(ends(its_columns)), mean_return=pytest.approx(mean),
            normalized_score=pytest.approx(normalized_score('Hopper-v4', mean)),
        )
    assert [part['seed'] for part in parts] == [7, 8]
    assert result['parts'] == parts and result['sha256'] == sha256(out) and result['path'] == str(out)
    mean = columns['rewards'].sum(dtype=np.float64) / len(ends(columns))
    assert attributes.pop('versions') == json.dumps(result['versions'])
    assert attributes == dict(
        env_id='Hopper-v4', action_scale='unit', config='hopper_sac.py', seed=7, transitions=len(columns['rewards']),
        episodes=len(ends(columns)), mean_return=pytest.approx(mean), parts=json.dumps(parts),
        normalized_score=pytest.approx(normalized_score('Hopper-v4', mean)),
        made_with='cawr data collect --config hopper_sac.py --checkpoint iteration_0.pth.tar '
        '--checkpoint iteration_1.pth.tar --steps 300 --seed 7 --out mixed.hdf5',
    )
    assert result['versions'] == versions()
    assert str(tmp_path) not in json.dumps([str(value) for value in attributes.values()])


def test_a_later_checkpoint_is_checked_before_the_first_is_rolled_out(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, '_roll_out', lambda *args: pytest.fail('rolled out'))
    with pytest.raises(FileNotFoundError, match='absent'):
        collect_dataset(CONFIG, [checkpoints[0], tmp_path / 'absent'], 10, 0, tmp_path / 'a.hdf5')


# ---------------------------------------------------------------- discrete actions

CARTPOLE = CONFIG.with_name('cartpole_awr.py')


@pytest.fixture(scope='module')
def cartpole(tmp_path_factory) -> Path:
    """A dataset of DI-engine's CartPole, of a policy that pushes as the pole leans, now and then otherwise."""
    main_config, create_config = read_config(str(CARTPOLE))
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    policy = create_policy(cfg.policy, enable_field=['learn'])
    first, second, last = (policy._model.actor.net[layer] for layer in (0, 2, 4))
    with torch.no_grad():
        for layer in (first, second, last):
            layer.weight.zero_()
        first.weight[:2] = torch.tensor([[0.0, 0.1, 1.0, 0.5], [0.0, -0.1, -1.0, -0.5]])
        second.weight[0, 0] = second.weight[1, 1] = 1.0
        last.weight[1, 0] = last.weight[0, 1] = 8.0
    folder = tmp_path_factory.mktemp('cartpole')
    torch.save(policy.learn_mode.state_dict(), folder / 'iteration_0.pth.tar')
    words = ['data', 'collect', '--config', str(CARTPOLE), '--checkpoint', str(folder / 'iteration_0.pth.tar'),
             '--steps', '2000', '--seed', '3', '--out', str(folder / 'cartpole.hdf5')]
    result = click_runner().invoke(cawr, words)
    assert result.exit_code == 0, result.output
    return folder / 'cartpole.hdf5'


def test_discrete_actions_are_written_as_executed(cartpole):
    with h5py.File(cartpole) as file:
        columns, said = {name: data[()] for name, data in file.items()}, dict(file.attrs)
    assert columns['actions'].dtype == np.int64 and set(columns['actions'].tolist()) == {0, 1}
    assert said['env_id'] == 'CartPole-v0' and 'action_scale' not in said
    env = gymnasium.make('CartPole-v1').unwrapped
    env.reset(seed=0)
    for row in np.flatnonzero(~(columns['terminals'] | columns['timeouts']))[::37]:
        env.state = columns['observations'][row].astype(np.float64)
        obs, reward, *_ = env.step(int(columns['actions'][row]))
        np.testing.assert_allclose(columns['observations'][row + 1], obs, rtol=1e-4, atol=1e-5)
        assert columns['rewards'][row] == reward


def test_a_function_gives_discrete_actions():
    columns = collect_with_policy(lambda obs: (obs[:, 2] + obs[:, 3] > 0).astype(int), 'CartPole-v1', 300, 0)
    assert columns['actions'].dtype == np.int64 and columns['actions'].shape == columns['rewards'].shape
    assert 100 < columns['rewards'].sum() / len(ends(columns))  # chance: about 20


def test_di_engines_dqn_explores_as_it_did_at_the_checkpoints_step(tmp_path):
    """Its ε, which falls with the steps of the environment, comes from DI-engine's command mode."""
    path = Path(stock_configs.__path__[0]) / 'cartpole_dqn_config.py'
    main_config, create_config = read_config(str(path))
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    policy = create_policy(cfg.policy, enable_field=['learn'])
    with torch.no_grad():
        for parameter in policy._model.parameters():
            parameter.zero_()
    shares = []
    for step in (0, 10**7):
        checkpoint = tmp_path / f'{step}.pth.tar'
        torch.save({**policy.learn_mode.state_dict(), 'last_iter': step, 'last_step': step}, checkpoint)
        columns = collect_with_checkpoint(path, checkpoint, 200, 0)
        assert columns['actions'].dtype == np.int64
        shares.append(columns['actions'].mean())
    assert abs(shares[0] - 0.5) < 0.15 and min(shares[1], 1 - shares[1]) < 0.1  # by chance; then one action alone


OFFLINE = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    {env_id!r}, algorithm={preset!r}, data_path={data!r}, iterations=600, exp_name='run', norm_obs=dict(use_norm=False),
    optimizer='adam', learning_rate_value=1e-2, learning_rate_policy=1e-2, n_evaluator_episode=3, eval_freq=600,
    policy=dict(model=dict(action_space='discrete', hidden_sizes=(32, ), obs_shape=4, action_shape=2)), {rounds}
)
{more}
'''
DI_ENGINES = '''
create_config.env = dict(type='cartpole', import_names=['dizoo.classic_control.cartpole.envs.cartpole_env'])
main_config.env = dict(evaluator_env_num=3, n_evaluator_episode=3, stop_value=1e10)
'''


@pytest.mark.parametrize('env_id, preset, rounds, more', [
    ('CartPole-v0', 'awr', 'critic_steps=50, policy_steps=100', ''), ('CartPole-v0', 'awr_td', 'temperature=10.0', ''),
    (None, 'awr', 'critic_steps=50, policy_steps=100', DI_ENGINES),
])
def test_awr_learns_from_the_file_offline(cartpole, tmp_path, env_id, preset, rounds, more):
    config = write_config(tmp_path / 'config.py', OFFLINE.format(
        env_id=env_id, preset=preset, data=str(cartpole), rounds=rounds, more=more))
    train_offline(config, '-s', 0, cwd=tmp_path)
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert summary['best'] > 100  # chance: about 20
    policy = load_policy(tmp_path / 'run' / 'ckpt' / 'iteration_600.pth.tar')
    assert policy.discrete and (evaluate(policy, 'CartPole-v0', episodes=3).returns > 100).all()


@pytest.mark.parametrize('preset, model, message', [
    ('cawr', {}, 'cartpole.hdf5 has discrete actions, which the policy cawr does not take; take the policy awr, with'),
    ('awr', {}, "cartpole.hdf5: actions are discrete, and the model's are continuous; set policy.model.action_space="),
    ('awr', dict(action_space='discrete', action_shape=1), 'actions are numbers from 0.0 to 1.0, .*action_shape is 1'),
    ('awr', dict(action_space='discrete', obs_shape=5), 'obs_shape is 5'),
])
def test_a_policy_that_the_file_does_not_fit_is_named(cartpole, preset, model, message):
    main_config, create_config = make_config(None, preset, data_path=str(cartpole), policy=dict(model=model))
    create_config.policy.type += '_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with pytest.raises(ValueError, match=message):
        statistics = create_dataset(cfg).statistics
        create_policy(cfg.policy, enable_field=['learn']).set_statistic(statistics)


def test_di_engines_policies_get_discrete_actions_as_they_take_them(cartpole):
    main_config, create_config = make_config(None, data_path=str(cartpole), policy=dict(model=dict(action_shape=2)))
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    cfg.policy.type = 'dqn'
    dataset = create_dataset(cfg)
    for row in (dataset[5], dataset.__getitems__([5])[0]):
        assert row['action'].dtype == torch.int64 and row['action'].shape == ()
        assert row['action'] == dataset.transitions.action[5, 0]


def test_the_file_begins_the_buffer_of_an_online_run(cartpole, tmp_path):
    transitions = load_transitions(cartpole)
    assert transitions.discrete and transitions.action.shape == (len(transitions), 1)
    main_config, create_config = read_config(str(CARTPOLE))
    main_config.policy.collect.data_path = str(cartpole)
    create_config.policy.type = 'awr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    policy = create_policy(cfg.policy, enable_field=['learn', 'collect', 'eval', 'command'])
    policy.collect_mode.get_attribute('check_environment')(get_env_cls(cfg.env)(cfg.env))
    np.testing.assert_array_equal(policy._online.rows['action'], transitions.action)


def test_command(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ['data', 'collect', '--config', str(CONFIG), '--checkpoint', str(checkpoints[0]), '--steps', '100',
             '--seed', '0', '--out']
    result = click_runner().invoke(cawr, [*words, 'a.hdf5', '--json'])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made['transitions'] == len(read_transitions('a.hdf5')) + 1 >= 100
    assert [path.name for path in tmp_path.iterdir()] == ['a.hdf5']

    again = click_runner().invoke(cawr, [*words, 'a.hdf5'])
    assert again.exit_code == 1 and 'a.hdf5 exists and is not overwritten' in again.stderr
    assert sha256(Path('a.hdf5')) == made['sha256']

    text = click_runner().invoke(cawr, [*words, 'b.hdf5']).stdout
    first, whole = text.splitlines()
    size = f'{made["transitions"]} transitions, {made["episodes"]} episodes, return {made["mean_return"]:.1f}, score'
    assert first.startswith('iteration_0.pth.tar') and size in first and sha256(checkpoints[0]) in first
    assert whole.startswith('b.hdf5') and size in whole and sha256(Path('b.hdf5')) in whole

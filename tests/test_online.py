"""Training online: what the policy keeps of what it collects, and DI-engine's own serial pipeline."""
from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config, read_config
from ding.envs import BaseEnv, BaseEnvTimestep
from ding.policy import create_policy
from dizoo.classic_control.pendulum.envs.pendulum_env import PendulumEnv
from easydict import EasyDict
from helpers import DIZOO, ROOT, cawr, ding, write_config
from torch import Tensor
from trainings import make, train

from ding_cawr import load_policy
from ding_cawr.data.buffer import join_columns
from ding_cawr.data.d4rl import file_name
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.trajectories import TrajectoryRing
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.engine.pipeline import create_serial_collector
from ding_cawr.engine.policy import OfflinePolicy
from ding_cawr.evaluation.episodes import evaluate

ONLINE = ['learn', 'collect', 'eval', 'command']


def online_policy(name: str = 'cartpole_awr', **policy) -> OfflinePolicy:
    """The policy of a configuration as DI-engine's serial pipeline makes it."""
    main_config, create_config = read_config(str(ROOT / 'config' / f'{name}.py'))
    main_config.policy.update(policy)
    create_config.policy.type += '_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    torch.manual_seed(0)
    return create_policy(cfg.policy, enable_field=ONLINE)


def trajectory(rows: int, number: float = 0.0, terminal: bool = False, widths: tuple[int, int] = (2, 1)) -> Table:
    obs = torch.full((rows, widths[0]), float(number))
    return join_columns({
        'obs': obs, 'action': torch.zeros(rows, widths[1]), 'reward': torch.ones(rows), 'next_obs': obs,
        'done': torch.arange(rows) == (rows - 1 if terminal else -1),
    })


# ---------------------------------------------------------------- the ring


def test_the_ring_drops_whole_trajectories_oldest_first():
    ring = TrajectoryRing(10)
    for number, rows in enumerate((4, 3, 3)):
        ring.push(trajectory(rows, number, terminal=number == 1), 'a test')
    assert len(ring) == 10 and ring.table['obs'][:, 0].tolist() == [0] * 4 + [1] * 3 + [2] * 3
    assert ring.table.ends.nonzero().squeeze(1).tolist() == [3, 6, 9]
    assert ring.table['done'].tolist() == [0] * 6 + [1] + [0] * 3
    assert (ring.take_new(), ring.take_new()) == (10, 0)
    ring.push(trajectory(1, 3), 'a test')  # one row more than there is room for: all four of the oldest path go
    assert ring.table['obs'][:, 0].tolist() == [1] * 3 + [2] * 3 + [3] and ring.take_new() == 1
    ring.push(trajectory(10, 4), 'a test')
    assert len(ring) == 10 and ring.table['obs'].unique().tolist() == [4] and ring.take_new() == 10


def test_of_more_new_rows_than_there_is_room_for_those_count_that_stay():
    ring = TrajectoryRing(10)
    for number in range(4):
        ring.push(trajectory(4, number), 'a test')
    assert len(ring) == 8 and ring.take_new() == 8


def test_a_trajectory_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='11 steps and goes on, but the buffer keeps whole trajectories of at most 10.*'
                                         'replay_buffer_size.*time limit.*traj_len_inf=False'):
        TrajectoryRing(10).check_length(11)
    with pytest.raises(ValueError, match='^hopper.npz: a trajectory has 11 steps, but the buffer keeps whole '
                                         'trajectories of at most 10 .*replay_buffer_size to 11 or more, or else$'):
        TrajectoryRing(10).push(trajectory(11), 'hopper.npz', ', or else')
    with pytest.raises(ValueError, match='replay_buffer_size is 0'):
        TrajectoryRing(0)


# ---------------------------------------------------------------- the policy's modes


def rows(policy: OfflinePolicy, steps: int, ends: dict | None = None) -> list[dict]:
    """Process the steps of a path as DI-engine's collector does."""
    made, collect = [], policy.collect_mode
    for step in range(steps):
        obs = torch.full((4, ), float(step))
        output = collect.forward({0: obs})[0]
        info = (ends or {}) if step == steps - 1 else {}
        timestep = BaseEnvTimestep(obs + 1, np.ones(1, np.float32), step == steps - 1, info)
        made.append({**collect.process_transition(obs, output, timestep), 'collect_iter': 0})
        made[-1]['reward'] = torch.as_tensor(made[-1]['reward'])
    return made


def test_what_is_collected_goes_into_the_policys_own_buffer():
    policy = online_policy()
    for steps, ends in ((5, {}), (3, {'TimeLimit.truncated': True})):
        given = policy.collect_mode.get_train_sample(rows(policy, steps, ends))
        assert given == [{'collect_iter': 0}] * steps  # what DI-engine's buffer keeps, which is only the clock
        policy.collect_mode.reset([0])
    table = policy._online.rows
    assert table.ends.nonzero().squeeze(1).tolist() == [4, 7]
    assert table['done'].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]  # the second one was at its time limit
    assert set(table['action'][:, 0].tolist()) <= {0.0, 1.0}
    assert policy.learn_mode.get_attribute('batch_size') == 1
    assert policy.learn_mode.get_attribute('priority') is False and policy.command_mode.get_setting_collect({}) == {}


def test_a_round_has_as_many_steps_as_rows_came():
    policy = online_policy()
    policy._settings.__dict__.update(critic_steps=20, policy_steps=30, round_steps=10)
    for steps, wanted in ((5, 10 + 15), (25, 50 + 75)):
        policy.collect_mode.get_train_sample(rows(policy, steps))
        policy.collect_mode.reset([0])
        before = policy._training.iteration
        logs = policy.learn_mode.forward([])
        assert len(logs) == wanted and policy._training.iteration - before == wanted
        assert [bool(log) for log in logs] == [(before + number) % 1000 == 0 for number in range(wanted)]
    assert policy._training.algorithm.models[0].obs_count == 30


def test_a_state_has_nothing_of_the_buffer_and_goes_on():
    policy, other = online_policy(), online_policy()
    policy.collect_mode.get_train_sample(rows(policy, 30))
    policy.learn_mode.forward([])
    state = policy.learn_mode.state_dict()
    assert state['rows'] == {} and state['buffer']['mass'] is None
    other.learn_mode.load_state_dict(state)
    assert other._training.iteration == policy._training.iteration > 0
    for got, wanted in zip(other._model.state_dict().values(), policy._model.state_dict().values()):
        assert torch.equal(got, wanted)
    other.collect_mode.get_train_sample(rows(other, 10))
    assert len(other.learn_mode.forward([])) == 1 + 5


def test_an_environment_without_a_time_limit_is_named_while_its_path_goes_on():
    policy = online_policy(other=dict(replay_buffer=dict(replay_buffer_size=20)))
    with pytest.raises(ValueError, match='a trajectory has 21 steps and goes on.*at most 20'):
        for _ in range(30):
            policy.collect_mode.forward({0: torch.zeros(4)})
    policy.collect_mode.reset([0])
    for _ in range(3):  # an episode that ends is forgotten
        for _ in range(15):
            policy.collect_mode.forward({0: torch.zeros(4)})
        policy.collect_mode.reset([0])


@pytest.mark.parametrize('is_whole, message', [(True, 'shorter time limit'), (False, 'smaller collect.n_sample')])
def test_a_trajectory_that_does_not_fit_says_whose_it_is(tmp_path, is_whole, message):
    short = dict(traj_len_inf=is_whole, other=dict(replay_buffer=dict(replay_buffer_size=20)))
    policy = online_policy(**short)
    collected = rows(online_policy(), 25)
    with pytest.raises(ValueError, match=f'^the environment: a trajectory has 25 .* to 25 or more, or .*{message}'):
        policy.collect_mode.get_train_sample(collected)
    data = write_d4rl_file(tmp_path / 'data.hdf5', ((25, 'terminal'), ), 4, 1)
    with h5py.File(data, 'r+') as file:
        file['actions'][...] = 0
    policy = online_policy(**short, collect=dict(data_path=str(data)))
    with pytest.raises(ValueError, match='^collect.data_path .*data.hdf5: a trajectory has 24 steps.* to 24 or more$'):
        policy._check_environment(environment(Space(n=2)))


def test_paths_of_random_steps_are_counted_too():
    """DI-engine's random policy does not say which environment a step is of."""
    policy = online_policy(other=dict(replay_buffer=dict(replay_buffer_size=20)))
    policy._check_environment(environment(Space(n=2)), 2)
    collect, timestep = policy.collect_mode, BaseEnvTimestep(torch.zeros(4), torch.ones(1), False, {})

    def steps(number: int) -> list[dict]:
        return [{**collect.process_transition(torch.zeros(4), dict(action=np.array([1])), timestep), 'collect_iter': 0}
                for _ in range(number)]

    for _ in range(3):  # paths that end are forgotten
        collect.get_train_sample(steps(20))
        collect.reset([0])
    steps(40)
    with pytest.raises(ValueError, match='a trajectory has 21 steps and goes on.*at most 20'):
        steps(1)
    collect.reset(None)
    steps(40)


def test_names_of_another_implementation_are_told_with_ours():
    with pytest.warns(UserWarning, match=r'policy.learn.beta \(here: learn.temperature\).*learning_starts '
                                         r'\(here: policy.random_collect_size\).*max_advantage \(here: '
                                         r'learn.max_weight\).*n_critic_updates \(here: learn.critic_steps\)'):
        online_policy(learn=dict(beta=0.05, max_advantage=20.0, n_critic_updates=2, learning_starts=100))


def test_observations_that_the_environment_leaves_raw_are_told():
    with pytest.warns(UserWarning, match='gives raw observations.* of the checkpoint that it begins with, if that has '
                                         'any, or with running ones of its own, if it has such; else it takes raw'):
        MujocoEnv(MujocoEnv.default_config() | dict(env_id='Hopper-v4', norm_obs=dict(use_norm=True)))


def test_actions_that_nothing_scales_are_told():
    policy = online_policy('pendulum_awr')
    env = environments_of_bounds()
    with pytest.warns(UserWarning, match=r'takes actions from \[-2.\] to \[2.\], .* nothing scales them; .*act_scale'):
        policy._check_environment(env['not scaled'][0])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for name in ('Pendulum', "DI-engine's Pendulum"):
            policy._check_environment(env[name][0])


def test_steps_of_a_collection_have_a_default_where_a_round_has():
    collecting = [online_policy(collect=dict(given)).collect_mode.get_attribute('n_sample')
                  for given in ({}, dict(n_sample=64), dict(n_episode=4))]
    assert collecting == [2048, 64, None]
    policy = begun('cawr', None)
    del policy._cfg.collect['n_sample']
    with pytest.raises(ValueError, match="policy.collect.n_sample is not given; .* steps a collection of .*'sample'"):
        create_serial_collector(policy._cfg.collect.collector, None, policy.collect_mode)


def test_updates_per_collection_belong_to_the_rounds():
    main_config, _ = read_config(str(ROOT / 'config' / 'cartpole_awr.py'))
    learn = dict(main_config.policy.learn, update_per_collect=5)
    with pytest.raises(ValueError, match='update_per_collect is 5; it must be 1, as awr learns in rounds'):
        online_policy(learn=learn)


class Space:
    """A space as gym has them."""

    def __init__(self, **about) -> None:
        self.__dict__.update(about)

    def __repr__(self) -> str:
        return 'Discrete(2)' if hasattr(self, 'n') else f'Box{self.shape}'


def environment(actions: Space, width: int = 4) -> Space:
    return Space(action_space=actions, observation_space=Space(shape=(width, )), shape=())


@pytest.mark.parametrize('name, policy, env, message', [
    ('cartpole_awr', dict(type='cawr'), environment(Space(n=2)),
     "action_space='discrete' has discrete actions, which the policy cawr does not take; take the policy awr, with"),
    ('pendulum_awr', dict(type='a2pr'), environment(Space(n=2), 3),
     'the environment .* has discrete actions, which the policy a2pr does not take; take the policy awr, with'),
    ('pendulum_awr', {}, environment(Space(n=2), 3), "set policy.model.action_space='discrete'"),
    ('cartpole_awr', {}, environment(Space(shape=(1, ), high=1)), "set policy.model.action_space='continuous'"),
    ('cartpole_awr', {}, environment(Space(n=3)), 'action_shape 2; they must agree'),
    ('cartpole_awr', {}, environment(Space(n=2), 5), r'observations of shape \(5,\).*obs_shape 4'),
])
def test_an_environment_of_other_actions_is_named(name, policy, env, message):
    with pytest.raises(ValueError, match=message):
        main_config, create_config = read_config(str(ROOT / 'config' / f'{name}.py'))
        create_config.policy.update(policy)
        create_config.policy.type += '_command'
        cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
        create_policy(cfg.policy, enable_field=ONLINE)._check_environment(env)


# ---------------------------------------------------------------- DI-engine's own command

SHORT = '''
import importlib.util
spec = importlib.util.spec_from_file_location('config', {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
main_config, create_config = module.main_config, module.create_config
main_config.exp_name = 'run'
main_config.policy.update({policy})
main_config.policy.learn.update({learn})
main_config.policy.collect.update({collect})
create_config.policy.type = {type!r}
'''


def short(folder: Path, name: str, learn: dict | None = None, collect: dict | None = None, policy: dict | None = None,
          type: str = 'awr') -> Path:
    return write_config(folder / 'config.py', SHORT.format(
        path=str(ROOT / 'config' / f'{name}.py'), learn=learn or {}, collect=collect or {}, policy=policy or {},
        type=type
    ))


def test_cartpole_is_learned(tmp_path):
    """At most eight rounds of 2,048 steps: from about 20 steps an episode, which chance reaches, to more than 100."""
    ding('-m', 'serial', '-c', ROOT / 'config' / 'cartpole_awr.py', '-s', 0, '--env-step', 16000, '--exp-name', 'run',
         cwd=tmp_path)
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert summary['evaluated_at'][0] == 0 and summary['evaluations'][0] < 100 < summary['best']
    act = load_policy(tmp_path / 'run' / 'ckpt' / 'ckpt_best.pth.tar')
    assert act(np.zeros((3, 4))).dtype == np.int64


def test_discrete_actions_by_chance_are_those_of_the_policy(tmp_path):
    config = short(tmp_path, 'cartpole_awr', dict(critic_steps=2, policy_steps=3), dict(n_sample=100),
                   dict(random_collect_size=100))
    ding('-m', 'serial', '-c', config, '-s', 0, '--env-step', 300, cwd=tmp_path)
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['iterations'] > 0


def test_gymnasiums_discrete_environments_are_learned_in(tmp_path):
    config = short(tmp_path, 'cartpole_awr', dict(critic_steps=2, policy_steps=3), dict(n_sample=100),
                   dict(random_collect_size=100))
    with config.open('a') as file:
        file.write("main_config.env = dict(env_id='CartPole-v1', collector_env_num=2, n_evaluator_episode=2, "
                   "stop_value=1e10)\ncreate_config.env = dict(type='d4rl_gymnasium', import_names=['ding_cawr'])\n")
    ding('-m', 'serial', '-c', config, '-s', 0, '--env-step', 300, cwd=tmp_path)
    iterations = json.loads((tmp_path / 'run' / 'summary.json').read_text())['iterations']
    policy = load_policy(tmp_path / 'run' / 'ckpt' / f'iteration_{iterations}.pth.tar')
    assert iterations > 0 and policy.env_id == 'CartPole-v1' and policy.discrete


def test_a_collector_that_keeps_its_episodes_is_named(tmp_path):
    config = short(tmp_path, 'cartpole_awr', collect=dict(n_episode=8, n_sample=None))
    with config.open('a') as file:
        file.write("create_config.collector = dict(type='episode')\n")
    failed = ding('-m', 'serial', '-c', config, '-s', 0, cwd=tmp_path, check=False)
    assert failed.returncode and 'set policy.collect.collector.get_train_sample to True' in failed.stderr


def shipped(folder: Path, name: str, policy: str) -> Path:
    """Write a configuration of DI-engine's with the policy's type changed."""
    text = (DIZOO / 'classic_control' / f'{name}_config.py').read_text()
    changed = f"policy=dict(import_names=['ding_cawr'], type='{policy}'"
    text, count = re.subn(r"policy=dict\(\s*type='\w+'", changed, text)
    assert count == 1
    return write_config(folder / 'config.py', text)


@pytest.mark.parametrize('mode, name, policy, message', [
    ('serial', 'cartpole/config/cartpole_a2c', 'awr', "set policy.model.action_space='discrete'"),
    ('serial_onpolicy', 'cartpole/config/cartpole_a2c', 'awr', "set policy.model.action_space='discrete'"),
    ('serial_onpolicy', 'pendulum/config/pendulum_ppo', 'cawr', 'one iteration for each collection.*ding -m serial,'),
    ('serial_onpolicy', 'pendulum/config/pendulum_ppo', 'a2pr', 'one iteration for each collection.*ding -m serial,'),
])
def test_what_does_not_fit_is_told_before_anything_is_collected(tmp_path, mode, name, policy, message):
    failed = ding('-m', mode, '-c', shipped(tmp_path, name, policy), '-s', 0, cwd=tmp_path, check=False)
    assert failed.returncode and re.search(message, failed.stderr.splitlines()[-1])
    assert {path.suffix or path.name for path in tmp_path.iterdir()} <= {'.py', '__pycache__'}  # no folder is left


def test_the_pipeline_for_on_policy_learning_has_rounds(tmp_path):
    config = shipped(tmp_path, 'pendulum/config/pendulum_ppo', 'awr')
    ding('-m', 'serial_onpolicy', '-c', config, '-s', 0, '--env-step', 3000, '--exp-name', 'run', cwd=tmp_path)
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert summary['iterations'] >= 1200


@pytest.mark.parametrize('path', sorted((ROOT / 'config').glob('*.py')), ids=lambda path: path.stem)
def test_every_configuration_has_what_the_command_reads_before_defaults(path):
    """DI-engine's command looks into policy.learn before it merges a policy's own."""
    main_config, _ = read_config(str(path))
    assert main_config.policy.learn is not None and main_config.exp_name


def test_pendulum_is_collected_whole_and_its_time_limits_are_not_terminations(tmp_path):
    quick = dict(critic_steps=2, policy_steps=3)
    config = short(tmp_path, 'pendulum_awr', quick, dict(n_sample=1600), dict(random_collect_size=8))
    ding('-m', 'serial', '-c', config, '-s', 0, '--env-step', 3000, cwd=tmp_path)
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    # One round, of 8 episodes by chance and 8 of the policy's own: 3,200 steps are 1.6 times 2,048.
    assert summary['iterations'] == 4 + 5 and all(-2000 < each < 0 for each in summary['evaluations'])
    act = load_policy(tmp_path / 'run' / 'ckpt' / 'iteration_9.pth.tar')
    assert (np.abs(act(np.ones((5, 3)))) <= 1).all()


def test_a_policy_without_discrete_actions_is_told_which_one_has_them(tmp_path):
    config = short(tmp_path, 'cartpole_awr', type='cawr', policy=dict(model=dict(obs_shape=4, action_shape=2)))
    failed = ding('-m', 'serial', '-c', config, '-s', 0, cwd=tmp_path, check=False)
    assert failed.returncode and 'has discrete actions, which the policy cawr does not take; take the policy awr' \
        in failed.stderr


RESUMED = '''
main_config.policy.learn.learner = dict(hook=dict(load_ckpt_before_run={checkpoint!r}))
main_config.policy.learn.resume_training = {resume_training}
'''


def test_an_online_run_goes_on_by_di_engines_own_means(tmp_path):
    """cawr resume names them; what they restore is networks, optimizers, iteration and statistics, not the buffer."""
    config = short(tmp_path, 'cartpole_awr', dict(critic_steps=2, policy_steps=3, round_steps=100), dict(n_sample=100))
    ding('-m', 'serial', '-c', config, '-s', 0, '--env-step', 300, cwd=tmp_path)
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    before = summary['iterations']
    checkpoint = tmp_path / 'run' / 'ckpt' / f'iteration_{before}.pth.tar'
    first = torch.load(checkpoint, weights_only=True)
    failed = cawr('resume', 'run', cwd=tmp_path)
    assert failed.returncode and failed.stderr.count('\n') == 1, failed.stderr
    assert f'{checkpoint.name}: it is of an online run' in failed.stderr and 'load_ckpt_before_run' in failed.stderr
    rows = {}
    for resume_training in (False, True):
        again = config.with_name(f'{resume_training}.py')
        again.write_text(config.read_text() + RESUMED.format(
            checkpoint=str(checkpoint), resume_training=resume_training))
        ding('-m', 'serial', '-c', again, '-s', 0, '--env-step', first['last_step'] + 1, cwd=tmp_path)
        folder, = [tmp_path / 'run'] if resume_training else tmp_path.glob('run_*')
        resumed = json.loads((folder / 'summary.json').read_text())
        after, known = resumed['iterations'], len(summary['evaluations'])
        assert resumed['evaluations'][:known] == summary['evaluations']
        state = torch.load(folder / 'ckpt' / f'iteration_{after}.pth.tar', weights_only=True)
        assert after > before and state['model']['obs_count'] > first['model']['obs_count']
        rows[resume_training] = state['model']['obs_count'] - first['model']['obs_count']
        assert state['last_step'] > first['last_step']
    assert rows[False] > 2 * rows[True]  # only then do the steps before count, so that one collection is enough


# ---------------------------------------------------------------- from an offline run on


@pytest.fixture(scope='module')
def hopper(tmp_path_factory) -> Path:
    ends = [(40, 'terminal'), (30, 'timeout')] * 3
    return write_d4rl_file(tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=ends)


def offline_checkpoint(folder: Path, data: Path, preset: str, **options) -> Path:
    policy = make(data, preset=preset, **options)
    train(policy, 20)
    path = folder / 'iteration_20.pth.tar'
    torch.save(policy.learn_mode.state_dict(), path)
    return path


def begun(
    preset: str, checkpoint: Path | None, data: Path | str | list | None = None, learn: dict | None = None,
    env: BaseEnv | None = None, **collect
) -> OfflinePolicy:
    """An online policy that begins with a checkpoint and a dataset, and that has seen its environment: hopper's."""
    env = env or MujocoEnv(MujocoEnv.default_config() | dict(env_id='Hopper-v4'))
    small = {'awr': {}, 'a2pr': dict(critic_hidden_sizes=(24, 16), vae_hidden_sizes=(20, 20)), 'cawr': {}}[preset]
    main_config, create_config = read_config(str(ROOT / 'config' / 'hopper_awr.py'))
    create_config.policy.type = f'{preset}_command'
    policy = main_config.policy
    widths = env.observation_space.shape[0], env.action_space.shape[0]
    policy.model.update(obs_shape=widths[0], action_shape=widths[1], hidden_sizes=(16, 16), **small)
    policy.learn = dict(batch_size=32, load_path=checkpoint and str(checkpoint), **(learn or {}))
    policy.collect.update(data_path=str(data) if isinstance(data, Path) else data, **collect)
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    torch.manual_seed(1)
    made = create_policy(cfg.policy, enable_field=ONLINE)
    made.collect_mode.get_attribute('check_environment')(env)
    return made


def rows_of(policy: OfflinePolicy) -> Table:
    """What the buffer has before anything is collected."""
    return policy._online.rows


def collect_path(policy: OfflinePolicy, obs: Tensor, steps: int = 10) -> None:
    """Collect a path of rewards 1 from the first of these observations to the second one."""
    collect, made = policy.collect_mode, []
    for step in range(steps):
        output = collect.forward({0: obs[0]})[0]
        timestep = BaseEnvTimestep(obs[1], torch.ones(1), step == steps - 1, {})
        made.append({**collect.process_transition(obs[0], output, timestep), 'collect_iter': 0})
    collect.get_train_sample(made)


QUICK_ROUND = dict(critic_steps=3, policy_steps=2, round_steps=10)


@pytest.mark.parametrize('preset, learn', [('awr', QUICK_ROUND), ('cawr', {}), ('a2pr', {})])
def test_an_online_run_begins_with_an_offline_ones_networks_and_data(hopper, tmp_path, preset, learn):
    checkpoint = offline_checkpoint(tmp_path, hopper, preset, norm_obs=dict(use_norm=True))
    policy = begun(preset, checkpoint, hopper, learn)
    state = torch.load(checkpoint, weights_only=True)
    for name, tensor in policy._model.state_dict().items():
        assert torch.equal(tensor, state['model'][name]), name
    assert policy._training.iteration == 20
    # Observations come raw, and are those that the networks know.
    obs = torch.from_numpy(np.random.default_rng(0).normal(1.0, 2.0, (5, 11)).astype(np.float32))
    acted = torch.stack([each['action'] for each in policy.eval_mode.forward(dict(enumerate(obs))).values()])
    torch.testing.assert_close(acted, load_policy(checkpoint)(obs), rtol=1e-5, atol=1e-6)
    # The dataset is in the buffer, and what is collected comes behind it.
    collect_path(policy, obs)
    logs = policy.learn_mode.forward([])
    assert len(logs) == (5 if preset == 'awr' else 1) and policy._training.iteration == 20 + len(logs)
    rows = policy._training.buffer.table
    transitions = load_transitions(hopper)
    assert len(rows) == len(transitions) + 10
    mean, std = state['obs_statistics']
    torch.testing.assert_close(rows['obs'][0], (torch.from_numpy(transitions.obs[0]) - mean) / std)
    torch.testing.assert_close(rows['obs'][-1], (obs[0] - mean) / std)
    torch.testing.assert_close(policy.learn_mode.state_dict()['obs_statistics'], state['obs_statistics'])


def test_statistics_of_networks_that_had_none_stay_as_they_are(hopper, tmp_path):
    """AWR's own statistics would otherwise change what its networks see."""
    policy = begun('awr', offline_checkpoint(tmp_path, hopper, 'awr'), hopper, QUICK_ROUND)
    collect_path(policy, torch.full((2, 11), 5.0), 12)
    policy.learn_mode.forward([])
    assert policy._model.obs_count == 0 and (policy._model.actor.obs_std == 1).all()


def test_rewards_are_those_that_the_networks_know(hopper, tmp_path):
    checkpoint = offline_checkpoint(tmp_path, hopper, 'cawr', reward=dict(scale=2.0, shift=1.0))
    policy = begun('cawr', checkpoint, hopper)
    raw = torch.from_numpy(load_transitions(hopper).reward)
    torch.testing.assert_close(rows_of(policy)['reward'], 2 * raw + 1)
    scaled = offline_checkpoint(tmp_path, hopper, 'cawr', reward_norm='iql_locomotion')
    policy = begun('cawr', scaled, hopper)
    factor = 1000 / np.ptp(load_transitions(hopper).episode_returns)
    torch.testing.assert_close(rows_of(policy)['reward'], factor * raw)
    with pytest.raises(ValueError, match='scaled by the returns of its dataset.*collect.data_path'):
        begun('cawr', scaled)


def test_statistics_of_fresh_networks_are_those_of_the_dataset_and_of_what_came(hopper):
    policy = begun('awr', None, hopper, QUICK_ROUND)
    seen = torch.from_numpy(load_transitions(hopper).obs)
    for number in (1.0, 4.0):  # the second round's observations alone are new
        new = torch.full((10, 11), number)
        collect_path(policy, new)
        policy.learn_mode.forward([])
        seen, actor = torch.cat([seen, new]), policy._model.actor
        assert policy._model.obs_count == len(seen)
        torch.testing.assert_close(actor.obs_mean, seen.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(actor.obs_std, seen.std(0, unbiased=False), rtol=1e-5, atol=1e-5)


def values(policy: OfflinePolicy) -> Tensor:
    """AWR's V of some observations."""
    return policy._training.algorithm.values(torch.linspace(-1, 1, 55).reshape(1, 5, 11))


def test_v_stays_what_it_is_with_another_discount_factor(hopper, tmp_path):
    """V is 1 / (1 - γ) times its network, unless told otherwise."""
    checkpoint = offline_checkpoint(tmp_path, hopper, 'awr')
    first = begun('awr', checkpoint, hopper)
    wanted = values(first)
    assert wanted.abs().max() > 1
    other = dict(QUICK_ROUND, discount_factor=0.9)
    said = 'discount_factor is 0.9, but the networks of the checkpoint were trained with 0.99'
    with pytest.warns(UserWarning, match=said):
        policy = begun('awr', checkpoint, hopper, other)
    assert torch.equal(values(policy), wanted)
    # DI-engine's resuming, online and offline.
    offline = make(hopper, preset='awr', discount_factor=0.9), torch.load(checkpoint, weights_only=True)
    for resumed, state in ((begun('awr', None, hopper, other), first.learn_mode.state_dict()), offline):
        assert not torch.equal(values(resumed), wanted)
        with pytest.warns(UserWarning, match=said):
            resumed.learn_mode.load_state_dict(state)
        assert torch.equal(values(resumed), wanted)
    # What goes on from there is of that discount factor, and of the same scale.
    online = saved(policy, tmp_path / 'online.pth.tar')
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='learn.discount_factor')
        assert torch.equal(values(begun('awr', online, hopper, other)), wanted)
    with pytest.raises(ValueError, match='value_scale is 3.0, but V of the checkpoint is 100 times its network; set'):
        begun('awr', checkpoint, hopper, dict(value_scale=3.0))


@pytest.mark.parametrize('preset', ['cawr', 'a2pr', 'awr'])
def test_settings_that_give_estimates_another_meaning_are_named(hopper, tmp_path, preset):
    checkpoint = offline_checkpoint(tmp_path, hopper, preset)
    with pytest.warns(UserWarning, match='learn.ignore_done is True, .* trained with False: their estimates'):
        begun(preset, checkpoint, hopper, dict(ignore_done=True))
    with pytest.warns(UserWarning, match='learn.discount_factor is 0.5, .* trained with 0.99: their estimates'):
        begun(preset, checkpoint, hopper, dict(discount_factor=0.5))


def test_a_state_that_does_not_say_its_units_goes_on_and_a_damaged_one_does_not(hopper, tmp_path):
    policy = make(hopper, preset='awr')
    train(policy, 3)
    state = policy.learn_mode.state_dict()
    make(hopper, preset='awr').learn_mode.load_state_dict({**state, 'units': None})
    for damaged in (3, {'value_scale': 1.0}, {**state['units'], 'value_scale': 0.0},
                    {**state['units'], 'discount_factor': float('nan')}):
        with pytest.raises(ValueError, match='units are .* must be a dict|value_scale is 0.0; it must be'):
            make(hopper, preset='awr').learn_mode.load_state_dict({**state, 'units': damaged})


def normalizing(**env) -> MujocoEnv:
    return MujocoEnv(MujocoEnv.default_config() | dict(env_id='Hopper-v4', reward_norm='iql_locomotion', **env))


def test_rewards_are_scaled_by_the_returns_of_the_dataset(hopper, tmp_path):
    """env.reward_norm, of fresh networks; those of a checkpoint know their own."""
    data = load_transitions(hopper)
    policy = begun('cawr', None, hopper, env=normalizing(), reward=dict(scale=2.0))
    wanted = 2 * torch.from_numpy(data.reward) * data.reward_factor
    torch.testing.assert_close(rows_of(policy)['reward'], wanted)
    collect_path(policy, torch.zeros(2, 11))
    torch.testing.assert_close(rows_of(policy)['reward'][-10:], torch.full((10, ), 2 * data.reward_factor))
    with pytest.raises(ValueError, match="env.reward_norm is 'iql_locomotion', which scales .* collect.data_path names "
                                         r'none; give one, or scale by policy.collect.reward=dict\(scale=...\)'):
        begun('cawr', None, env=normalizing())
    checkpoint = offline_checkpoint(tmp_path, hopper, 'cawr')
    with pytest.warns(UserWarning, match='env.reward_norm is .* networks of learn.load_path know rewards without it'):
        policy = begun('cawr', checkpoint, hopper, env=normalizing())
    torch.testing.assert_close(rows_of(policy)['reward'], torch.from_numpy(data.reward))
    scaled = offline_checkpoint(tmp_path, hopper, 'cawr', reward_norm='iql_locomotion')
    policy = begun('cawr', scaled, hopper, env=normalizing())
    torch.testing.assert_close(rows_of(policy)['reward'], torch.from_numpy(data.reward) * data.reward_factor)


def test_a_reward_norm_that_does_not_exist_is_named(hopper):
    with pytest.raises(ValueError, match="env.reward_norm is 'iql'; it must be one of None, 'iql_locomotion'"):
        begun('cawr', None, hopper, env=MujocoEnv(MujocoEnv.default_config() | dict(
            env_id='Hopper-v4', reward_norm='iql')))


# ---------------------------------------------------------------- what collect.data_path may name


def shuffled(hopper: Path, path: Path) -> Path:
    """The rows in any order, in DI-engine's layout."""
    rows = load_transitions(hopper).table.columns
    order = np.random.default_rng(0).permutation(len(rows['obs']))
    np.savez(path, **{name: column[order] for name, column in rows.items()})
    return path


def test_rows_in_any_order_are_taken_where_order_does_not_matter(hopper, tmp_path):
    data = shuffled(hopper, tmp_path / 'rows.npz')
    policy = begun('awr', None, data, dict(returns='td'))
    assert torch.equal(rows_of(policy).rows, torch.from_numpy(load_transitions(data).rows))
    collect_path(policy, torch.zeros(2, 11))
    assert len(policy.learn_mode.forward([])) == 10
    assert len(rows_of(policy)) == len(load_transitions(data)) + 10
    assert len(rows_of(begun('cawr', None, data))) == len(load_transitions(data))
    small = online_policy('hopper_awr', learn=dict(returns='td'), collect=dict(data_path=str(data)),
                          other=dict(replay_buffer=dict(replay_buffer_size=10)))
    small._check_environment(MujocoEnv(MujocoEnv.default_config() | dict(env_id='Hopper-v4')))
    assert 0 < len(rows_of(small)) <= 10
    with pytest.raises(ValueError, match="learn.returns is 'lambda', .* collect.data_path .*rows.npz has rows in any "
                                         "order; take data in D4RL's or Minari's layout, or learn.returns 'td'"):
        begun('awr', None, data)


def test_a_checkpoint_has_what_its_environment_was_made_with(tmp_path):
    policy, kwargs = online_policy('hopper_awr'), dict(terminate_when_unhealthy=False)
    cfg = dict(env_id='Hopper-v4', kwargs=kwargs, max_episode_steps=7)
    policy._check_environment(MujocoEnv(MujocoEnv.default_config() | cfg))
    torch.save(policy.learn_mode.state_dict(), tmp_path / 'a.pth.tar')
    act = load_policy(tmp_path / 'a.pth.tar')
    assert act.env_id == 'Hopper-v4' and act.env_settings == dict(kwargs=kwargs, max_episode_steps=7)
    evaluated = evaluate(act, episodes=2)
    assert evaluated.lengths.tolist() == [7, 7] and evaluated.scores is None


def test_every_form_of_data_path(hopper, tmp_path, monkeypatch):
    bundled = 'bundled:hopper-medium-expert'
    for form, rows in (
        (str(hopper), load_transitions(hopper)), (bundled, load_transitions(bundled)),
        ([str(hopper), str(hopper)], load_transitions([hopper, hopper])),
    ):
        np.testing.assert_array_equal(rows_of(begun('cawr', None, form)).rows.numpy(), rows.rows)
    # One of Minari's sets, by its folder and by its name.
    minari = tmp_path / 'mine' / 'hopper-v0' / 'data'
    minari.mkdir(parents=True)
    with h5py.File(minari / 'main_data.hdf5', 'w') as file:
        group = file.create_group('episode_0')
        group['observations'], group['actions'] = np.ones((8, 11)), np.full((7, 3), 0.5, np.float32)
        group['rewards'], group['terminations'], group['truncations'] = np.arange(7.0), np.zeros(7), np.arange(7) == 6
    monkeypatch.setenv('MINARI_DATASETS_PATH', str(tmp_path))
    for form in (minari, minari.parent, 'minari:mine/hopper-v0'):
        assert rows_of(begun('cawr', None, form))['reward'].tolist() == list(range(7))
    # The id of one of D4RL's sets, out of the cache; offline that is env.env_id with data_path None.
    monkeypatch.setenv('D4RL_DATASET_DIR', str(tmp_path))
    shutil.copy(hopper, tmp_path / file_name('hopper-medium-v2'))
    found = rows_of(begun('cawr', None, 'hopper-medium-v2'))
    np.testing.assert_array_equal(found.rows.numpy(), load_transitions(hopper).rows)


@pytest.mark.parametrize('data, error, message', [
    ('absent.hdf5', FileNotFoundError, "dataset file .*absent.hdf5.* does not exist"),
    (['absent.hdf5'], FileNotFoundError, 'absent.hdf5'),
    ([], ValueError, 'data_path is an empty list'),
    (3, ValueError, 'data_path is 3; it must be'),
    ('', ValueError, "data_path is ''; it must be"),
    ('bundled:hopper', ValueError, 'bundled.*hopper-medium-expert'),
    ('bundle:hopper', ValueError, "unknown kind 'bundle'.*did you mean 'bundled'"),
    (['hopper-medium-v2'], ValueError, r"the id of a D4RL dataset; .* or give its file \(cawr data download\)"),
])
def test_a_data_path_that_names_nothing_is_one_sentence(data, error, message):
    with pytest.raises(error, match=message) as caught:
        begun('cawr', None, data)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('env_id, said', [
    ('Walker2d-v4', True), ('walker2d-medium-v2', True), ('Hopper-v2', False), ('hopper-medium-v2', False),
    ('mine:Hopper-v4', False), (None, False),
])
def test_rows_of_another_environment_of_the_same_widths_are_named(tmp_path, env_id, said):
    data = write_d4rl_file(tmp_path / 'data.hdf5', attributes=dict(env_id=env_id) if env_id else {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        begun('cawr', None, data)
    found = [str(each.message) for each in caught if 'says that it holds data of' in str(each.message)]
    assert len(found) == said
    assert not said or f'holds data of {env_id}, but the run collects in Hopper-v4' in found[0]


def saved(policy: OfflinePolicy, path: Path) -> Path:
    torch.save(policy.learn_mode.state_dict(), path)
    return path


@pytest.mark.parametrize('reward', [
    dict(reward=dict(scale=2.0, shift=1.0)), dict(reward_norm='iql_locomotion', reward=dict(scale=2.0, shift=1.0)),
])
def test_an_online_runs_checkpoint_knows_its_rewards(hopper, tmp_path, reward):
    """An offline run, an online one from it on, and others from that one on."""
    first = begun('cawr', offline_checkpoint(tmp_path, hopper, 'cawr', **reward, norm_obs=dict(use_norm=True)), hopper)
    wanted = rows_of(first)
    data = load_transitions(hopper)
    raw = torch.from_numpy(data.reward)
    factor = 1000 / np.ptp(data.episode_returns) if 'reward_norm' in reward else 1.0
    torch.testing.assert_close(wanted['reward'], (2 * raw + 1) * factor)
    online = saved(first, tmp_path / 'online.pth.tar')
    torch.testing.assert_close(rows_of(begun('cawr', online, hopper)).rows, wanted.rows)
    # What is collected, too, without the dataset.
    policy = begun('cawr', online)
    collect_path(policy, torch.zeros(2, 11))
    torch.testing.assert_close(rows_of(policy)['reward'], torch.full((10, ), (2 + 1) * float(factor)))
    # DI-engine's resuming, in a configuration that does not name the first checkpoint: the dataset is read anew.
    policy = begun('cawr', None, hopper)
    policy.learn_mode.load_state_dict(torch.load(online, weights_only=True))
    torch.testing.assert_close(rows_of(policy).rows, wanted.rows)
    assert policy.learn_mode.state_dict()['rewards'] == first.learn_mode.state_dict()['rewards']
    # collect.reward comes before that of the checkpoint; the factor stays.
    with pytest.warns(UserWarning, match=r'collect.reward makes r \* 3 \+ 0 of .* checkpoint know r \* 2 \+ 1'):
        policy = begun('cawr', online, hopper, reward=dict(scale=3.0))
    torch.testing.assert_close(rows_of(policy)['reward'], 3 * raw * factor)


def test_a_state_that_does_not_say_its_rewards_goes_on_and_a_damaged_one_does_not(hopper, tmp_path):
    first = begun('cawr', None, hopper, reward=dict(scale=2.0))
    state = first.learn_mode.state_dict()
    older = {name: part for name, part in state.items() if name != 'rewards'}
    first.learn_mode.load_state_dict(older)
    raw = torch.from_numpy(load_transitions(hopper).reward)
    torch.testing.assert_close(rows_of(first)['reward'], 2 * raw)
    torch.save(older, tmp_path / 'older.pth.tar')
    torch.testing.assert_close(rows_of(begun('cawr', tmp_path / 'older.pth.tar', hopper))['reward'], raw)
    for damaged in (3, {'scale': 1.0}, {**state['rewards'], 'factor': float('nan')}):
        with pytest.raises(ValueError, match='its rewards are .*must be a dict with the finite numbers scale, shift'):
            first.learn_mode.load_state_dict({**state, 'rewards': damaged})
        torch.save({**state, 'rewards': damaged}, tmp_path / 'damaged.pth.tar')
        with pytest.raises(ValueError, match='load_path .*damaged.pth.tar: .*its rewards are'):
            begun('cawr', tmp_path / 'damaged.pth.tar')


@pytest.mark.parametrize('statistics', [
    'text', torch.ones(3, 11), torch.ones(2, 10), torch.full((2, 11), torch.nan), torch.zeros(2, 11), torch.tensor(1.0),
])
def test_a_checkpoint_with_other_statistics_of_observations_is_named(hopper, tmp_path, statistics):
    first = begun('cawr', None, hopper)
    state, before = {**first.learn_mode.state_dict(), 'obs_statistics': statistics}, first._training.iteration
    with pytest.raises(ValueError, match='the checkpoint: obs_statistics'):
        first.learn_mode.load_state_dict(state)
    assert first._training.iteration == before and first._online.obs_statistics is None
    torch.save(state, tmp_path / 'damaged.pth.tar')
    with pytest.raises(ValueError, match='load_path .*damaged.pth.tar: the checkpoint: obs_statistics'):
        begun('cawr', tmp_path / 'damaged.pth.tar', hopper)


@pytest.mark.parametrize('preset, part, learn', [('cawr', 'tightening', {}), ('awr', 'rows', QUICK_ROUND)])
def test_a_checkpoint_may_lack_a_part_that_is_empty(hopper, tmp_path, preset, part, learn):
    state = torch.load(offline_checkpoint(tmp_path, hopper, preset), weights_only=True)
    del state[part]
    torch.save(state, tmp_path / 'lacks.pth.tar')
    assert begun(preset, tmp_path / 'lacks.pth.tar', hopper, learn)._training.iteration == 20


@pytest.mark.parametrize('configuration', ['{', '[]', 3, '{"policy": "text"}', '[' * 10**5])
def test_a_checkpoint_with_another_configuration_is_named(hopper, tmp_path, configuration):
    state = torch.load(offline_checkpoint(tmp_path, hopper, 'cawr'), weights_only=True)
    torch.save({**state, 'configuration': configuration}, tmp_path / 'damaged.pth.tar')
    with pytest.raises(ValueError, match='load_path .*damaged.pth.tar: its configuration cannot be used; take another'):
        begun('cawr', tmp_path / 'damaged.pth.tar')


def environments_of_bounds() -> dict[str, tuple[BaseEnv, float]]:
    """Environments by name, and the highest action of each that it makes of a policy's 1."""
    def mujoco(env_id: str) -> BaseEnv:
        return MujocoEnv(MujocoEnv.default_config() | dict(env_id=env_id))

    def pendulum(act_scale: bool) -> BaseEnv:
        return PendulumEnv(EasyDict(env_id='Pendulum-v1', act_scale=act_scale))

    return {
        'Humanoid': (mujoco('Humanoid-v4'), 0.4), 'Pendulum': (mujoco('Pendulum-v1'), 2.0),
        "DI-engine's Pendulum": (pendulum(True), 2.0), 'not scaled': (pendulum(False), 1.0),
    }


@pytest.mark.parametrize('preset', ['awr', 'cawr'])
@pytest.mark.parametrize('name', ['Humanoid', 'Pendulum', "DI-engine's Pendulum", 'not scaled'])
def test_a_datasets_actions_are_read_by_the_bounds_of_the_environment(tmp_path, name, preset):
    env, highest = environments_of_bounds()[name]
    widths = env.observation_space.shape[0], env.action_space.shape[0]
    data = write_d4rl_file(tmp_path / 'data.hdf5', ((20, 'terminal'), ), *widths)
    unit = load_transitions(data).action
    with h5py.File(data, 'r+') as file:
        file['actions'][...] = highest * file['actions'][...]
        file.attrs['action_scale'] = 'environment'
    for asked in (None, 'environment', [-highest, highest]):
        policy = begun(preset, None, data, env=env, action_scale=asked)
        np.testing.assert_allclose(rows_of(policy)['action'].numpy(), unit, rtol=1e-5, atol=1e-6)
    if highest > 1:
        with pytest.raises(ValueError, match=r'data.hdf5: .* actions lie outside \[-1, 1\].*collect.action_scale'):
            begun(preset, None, data, env=env, action_scale='unit')


@pytest.mark.parametrize('preset', ['awr', 'cawr'])
@pytest.mark.parametrize('obs_shape, action_shape', [(11, 2), (10, 3), (10, 5)])  # the last one's rows are as wide
def test_a_dataset_of_other_widths_is_named(tmp_path, preset, obs_shape, action_shape):
    data = write_d4rl_file(tmp_path / 'other.hdf5', ((20, 'terminal'), ), obs_shape, action_shape)
    with pytest.raises(ValueError, match=f'collect.data_path .*other.hdf5: observations are {obs_shape} wide and '
                                         f'actions {action_shape}, but policy.model has obs_shape 11 and '
                                         'action_shape 3; they must agree'):
        begun(preset, None, data)


@pytest.mark.parametrize('obs_shape, actions, message', [
    (4, [[1.0], [0.5]], "actions must be whole numbers from 0 to 1, as .* is 'discrete', and that of row 1 is 0.5"),
    (4, [[0.0, 1.0], [1.0, 0.0]], "an action is 2 numbers, but .*action_space is 'discrete'; set it to 'continuous'"),
    (5, [[0.0], [1.0]], 'observations are 5 wide and actions 1, but policy.model has obs_shape 4 and action_shape 2'),
    (4, [[0.0], [2.0]], 'actions are numbers from 0.0 to 2.0, but policy.model.action_shape is 2'),
])
def test_a_dataset_of_another_kind_of_actions_is_named(tmp_path, obs_shape, actions, message):
    data = write_d4rl_file(tmp_path / 'other.hdf5', ((2, 'terminal'), (2, 'terminal')), obs_shape, len(actions[0]))
    with h5py.File(data, 'r+') as file:
        file['actions'][...] = actions * 2
    with pytest.raises(ValueError, match=f'collect.data_path .*other.hdf5: .*{message}'):
        online_policy(collect=dict(data_path=str(data)))


def test_a_dataset_of_discrete_actions_is_in_the_buffer(tmp_path):
    data = write_d4rl_file(tmp_path / 'data.hdf5', ((4, 'terminal'), ), 4, 1)
    with h5py.File(data, 'r+') as file:
        file['actions'][...] = [[0], [2], [1], [2]]
    policy = online_policy(collect=dict(data_path=str(data)), model=dict(
        obs_shape=4, action_shape=3, action_space='discrete', hidden_sizes=(16, 16)))
    policy._check_environment(environment(Space(n=3)))
    assert rows_of(policy)['action'][:, 0].tolist() == [0, 2, 1]  # D4RL's last row does not count


def test_a_checkpoint_of_another_algorithm_is_refused(hopper, tmp_path):
    checkpoint = offline_checkpoint(tmp_path, hopper, 'cawr')
    with pytest.raises(ValueError, match="load_path .*iteration_20.pth.tar: .* 'cawr', but the policy is 'awr'"):
        begun('awr', checkpoint)


def test_a_checkpoint_of_the_other_optimizer_names_the_setting(hopper, tmp_path):
    checkpoint, adam = offline_checkpoint(tmp_path, hopper, 'awr', optimizer='sgd'), dict(optimizer='adam')
    said = "learn.optimizer is 'adam', but the checkpoint was trained with 'sgd'; set it to 'sgd'"
    with pytest.raises(ValueError, match=f'load_path .*{said}'):
        begun('awr', checkpoint, learn=adam)
    with pytest.raises(ValueError, match=said):
        begun('awr', None, learn=adam).learn_mode.load_state_dict(torch.load(checkpoint, weights_only=True))
    state = torch.load(checkpoint, weights_only=True)
    for damaged in (None, 3, {}, {'value': None}, {'value': {3: 4}}):
        torch.save({**state, 'optimizer': damaged}, checkpoint)
        with pytest.raises(ValueError, match='the checkpoint: optimizer'):
            begun('awr', checkpoint, learn=adam)


CONTINUED = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    'Hopper-v4', algorithm={preset!r}, data_path={data!r}, exp_name='run', n_evaluator_episode=2, batch_size=32,
    norm_obs=dict(use_norm=False), env=dict(collector_env_num=2),
    policy=dict(
        model=dict(hidden_sizes=(16, 16)), learn=dict({learn}, load_path={checkpoint!r}),
        collect=dict(n_sample=50), eval=dict(evaluator=dict(eval_freq=5)),
    ),
)
'''


@pytest.mark.parametrize('preset, learn, updates', [
    ('awr', 'critic_steps=3, policy_steps=2, round_steps=50', 5), ('cawr', 'update_per_collect=6', 6),
])
def test_the_command_goes_on_where_an_offline_run_ended(hopper, tmp_path, preset, learn, updates):
    """The first evaluation is that of the offline run's policy, before anything is collected."""
    checkpoint = offline_checkpoint(tmp_path, hopper, preset, norm_obs=dict(use_norm=True))
    config = write_config(tmp_path / 'config.py', CONTINUED.format(
        preset=preset, data=str(hopper), learn=learn, checkpoint=str(checkpoint)
    ))
    ding('-m', 'serial', '-c', config, '-s', 0, '--env-step', 90, cwd=tmp_path)
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert summary['evaluated_at'][0] == 20 and summary['iterations'] >= 20 + updates
    last = tmp_path / 'run' / 'ckpt' / f'iteration_{summary["iterations"]}.pth.tar'
    policy = load_policy(last)
    assert policy.env_id == 'Hopper-v4' and policy.iteration == summary['iterations']
    # Observations of the environment are normalized by the checkpoint, so that the policy alone takes raw ones.
    assert torch.load(last, weights_only=True)['obs_statistics'] is not None

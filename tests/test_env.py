"""MujocoEnv: real MuJoCo under DI-engine's managers."""
from functools import partial

import gym
import gymnasium
import numpy as np
import pytest
from ding.envs import create_env_manager, get_env_cls
from easydict import EasyDict

from ding_cawr import normalized_score
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.environments import make_environment
from ding_cawr.tasks import EnvironmentFailed


def config(env_id='hopper-medium-v2', **changes) -> EasyDict:
    cfg = MujocoEnv.default_config()
    cfg.update(env_id=env_id, **changes)
    return cfg


def roll(env: MujocoEnv, action) -> dict:
    """One episode under a constant action: the info of its last step."""
    env.reset()
    while True:
        timestep = env.step(action)
        if timestep.done:
            return timestep.info


@pytest.mark.parametrize('env_id, widths', [
    ('hopper-medium-v2', (11, 3)), ('walker2d-expert-v2', (17, 6)), ('halfcheetah-medium-replay-v2', (17, 6)),
    ('Hopper-v4', (11, 3)),
])
def test_spaces_and_types(env_id, widths):
    env = MujocoEnv(config(env_id))
    assert (env.observation_space.shape, env.action_space.shape) == ((widths[0], ), (widths[1], ))
    obs = env.reset()
    timestep = env.step(env.random_action())
    assert obs.dtype == timestep.obs.dtype == timestep.reward.dtype == np.float32
    assert obs.shape == timestep.obs.shape == (widths[0], ) and timestep.reward.shape == (1, )
    env.close()


def test_return_and_score_at_the_end_of_an_episode():
    env = MujocoEnv(config())
    env.reset()
    rewards, done = [], False
    while not done:
        timestep = env.step(np.zeros(3))
        rewards.append(float(timestep.reward[0]))
        done = timestep.done
        assert done or 'eval_episode_return' not in timestep.info
    episode_return = timestep.info['eval_episode_return']
    assert episode_return == pytest.approx(sum(rewards), rel=1e-5)
    score = timestep.info['episode_info']['normalized_score']
    assert score == pytest.approx(normalized_score('hopper-medium-v2', episode_return))
    assert timestep.info['TimeLimit.truncated'] is False


def test_time_limit_is_marked():
    assert roll(MujocoEnv(config('halfcheetah-medium-v2')), np.zeros(6))['TimeLimit.truncated'] is True


def test_dynamics_are_gymnasiums_v4():
    env, reference = MujocoEnv(config()), make_environment('Hopper-v4')
    first = env.reset()
    seed = int(np.random.SeedSequence((0, 0, 0, 0)).generate_state(1)[0])
    np.testing.assert_allclose(first, reference.reset(seed=seed)[0], rtol=1e-6)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 3)):
        np.testing.assert_allclose(env.step(action).obs, reference.step(action)[0], rtol=1e-4, atol=1e-5)
    assert reference.spec.id == 'Hopper-v4'


def test_actions_are_clipped_and_scaled():
    """Pendulum's torque is in [-2, 2]: 1 means 2, and so does everything above."""
    env = MujocoEnv(config('Pendulum-v1'))
    reference = gymnasium.make('Pendulum-v1')
    env.reset()
    reference.reset(seed=int(np.random.SeedSequence((0, 0, 0, 0)).generate_state(1)[0]))
    for action, torque in ((1.0, 2.0), (5.0, 2.0), (-0.5, -1.0)):
        np.testing.assert_allclose(env.step(np.array([action])).obs, reference.step([torque])[0], rtol=1e-5)
    info = roll(env, np.zeros(1))
    assert info['episode_info'] == {'episode_length': 200} and 'eval_episode_return' in info


def starts(seed: int, evaluations: int, manager: str, auto_reset: bool) -> np.ndarray:
    """First observations (evaluations, 3, 11) of three environments under a manager, as the evaluator meets them."""
    cfg = config(manager=dict(type=manager, auto_reset=auto_reset, shared_memory=False), n_evaluator_episode=3)
    envs = [partial(MujocoEnv, cfg=c) for c in MujocoEnv.create_evaluator_env_cfg(cfg)]
    cfg.manager.cfg_type = 'x'
    env = create_env_manager(EasyDict({**default_manager(manager), **cfg.manager}), envs)
    env.seed(seed, dynamic_seed=False)
    env.launch()
    first = []
    for _ in range(evaluations):
        env.reset()
        first.append([env.ready_obs[i] for i in range(3)])
        for _ in range(150):  # zero actions end an episode in between
            if not env.ready_obs:
                break
            env.step({i: np.zeros(3, dtype=np.float32) for i in env.ready_obs})
    env.close()
    return np.array(first)


def default_manager(name: str) -> dict:
    from ding.envs import get_env_manager_cls
    return get_env_manager_cls(EasyDict(type=name)).default_config()


def test_starts_are_new_each_time_and_the_same_for_everybody():
    first = starts(0, 3, 'base', False)
    assert len(np.unique(first.reshape(9, 11), axis=0)) == 9
    np.testing.assert_array_equal(first, starts(0, 3, 'base', False))
    assert not np.isin(starts(1, 3, 'base', False)[..., 0], first[..., 0]).any()


def test_starts_do_not_depend_on_the_manager_or_on_episodes_in_between():
    first = starts(0, 3, 'base', False)
    np.testing.assert_array_equal(first, starts(0, 3, 'base', True))
    np.testing.assert_array_equal(first, starts(0, 3, 'subprocess', False))


def test_normalization_uses_the_given_statistics():
    mean, std = np.full(11, 0.5, dtype=np.float32), np.full(11, 2.0, dtype=np.float32)
    norm_obs = dict(use_norm=True, offline_stats=dict(use_offline_stats=True, mean=mean, std=std))
    plain = MujocoEnv(config()).reset()
    np.testing.assert_allclose(MujocoEnv(config(norm_obs=norm_obs)).reset(), (plain - 0.5) / 2, rtol=1e-5)


def test_unknown_and_unsupported_environments():
    with pytest.raises(ValueError, match='hoper-medium-v2'):
        make_environment('hoper-medium-v2')
    with pytest.raises(ValueError, match='CartPole-v1.*not continuous'):
        make_environment('CartPole-v1')


@pytest.mark.parametrize('env_id', ['hopper-medium-v2', 'CartPole-v1'])
def test_random_actions_follow_the_seed(env_id):
    def drawn(seed):
        env = MujocoEnv(config(env_id))
        env.seed(seed)
        return np.stack([env.random_action() for _ in range(20)])

    env = MujocoEnv(config(env_id))
    env.reset()
    env.seed(3)
    np.testing.assert_array_equal(drawn(3), [env.random_action() for _ in range(20)])
    assert (drawn(3) != drawn(4)).any() and (drawn(3)[0] != drawn(3)[1:]).any()


@pytest.mark.parametrize('env_id, message', [
    ('hopper-medium-v2', 'hopper-medium-v2: step raised ResetNeeded'), (None, 'env.env_id is None, so there is no')
])
def test_a_step_before_any_reset_is_named(env_id, message):
    with pytest.raises((ValueError, EnvironmentFailed), match=message):
        MujocoEnv(config(env_id)).step(np.zeros(3))


def test_ant_is_d4rls():
    """111 observations, of which the contact forces are 0 and cost nothing, as in D4RL's data; Ant-v4 has 27."""
    env, plain = make_environment('ant-medium-v2'), make_environment('Ant-v4')
    assert env.observation_space.shape == env.reset(seed=0)[0].shape == (111, ) and env.action_space.shape == (8, )
    assert plain.reset(seed=0)[0].shape == (27, )
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 8)):
        (obs, reward, *ends, _), (other, wanted, *others, _) = env.step(action), plain.step(action)
        np.testing.assert_array_equal(obs, np.concatenate([other, np.zeros(84)]))
        assert (reward, ends) == (wanted, others)


def test_no_warnings_from_making_and_stepping(recwarn, capfd):
    env = MujocoEnv(config())
    env.reset()
    env.step(np.zeros(3))
    env.close()
    captured = capfd.readouterr()
    assert [str(w.message) for w in recwarn] == [] and captured.err == ''


def test_registered():
    assert get_env_cls(EasyDict(type='d4rl_gymnasium', import_names=['ding_cawr'])) is MujocoEnv


def test_discrete_actions_are_taken_as_they_are():
    env = MujocoEnv(config(env_id='CartPole-v1'))
    assert env.action_space == gym.spaces.Discrete(2) and env.random_action() in (0, 1)
    env.seed(0)
    right, left = ((env.reset(), env.step(np.array(action)).obs[1])[1] for action in (1, 0))
    assert left < 0 < right

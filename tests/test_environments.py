"""Environments that users bring: their spaces, what reset and step return, time limits, arguments."""
from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from gymnasium.spaces import Discrete as DiscreteSpace

from ding_cawr.engine.env import MujocoEnv
from ding_cawr.environments import (
    TIME_LIMIT,
    Environment,
    env_settings,
    import_modules,
    make_environment,
    run_episodes,
    try_out,
)
from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.evaluation.episodes import evaluate
from ding_cawr.tasks import check_untrusted_id


class Point(gymnasium.Env):
    """A point (position, velocity) that is pushed; it changes its state in place and returns copies."""
    metadata = {'render_modes': []}
    observation_space, action_space = Box(-np.inf, np.inf, (4, )), Box(-1, 1, (2, ))

    def __init__(self):
        self.state, self.taken, self.time = np.zeros(4, self.observation_space.dtype), [], 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state[:], self.time = self.np_random.normal(size=4), 0
        return self.state.copy(), {}

    def step(self, action):
        self.taken.append(action)
        self.state[2:] = 0.9 * self.state[2:] + 0.1 * np.ravel(action)[:2]
        self.state[:2] += self.state[2:]
        self.time += 1
        return self.state.copy(), float(-np.abs(self.state).sum()), False, False, {}


def registered(max_episode_steps: int | None = 10, base: type = Point, **attributes) -> str:
    """The id of a class like ``base`` with other attributes."""
    name = f'Own{len(gymnasium.registry)}-v0'
    entry_point = type('Own', (base, ), attributes)
    gymnasium.register(name, entry_point=entry_point, max_episode_steps=max_episode_steps)
    return name


@pytest.mark.parametrize('space, message', [
    (Box(-np.inf, np.inf, (2, )), r'bounds that are not finite.*TransformAction'),
    (Box(0, np.inf, (2, )), 'bounds that are not finite'),
    (Box(np.array([-np.inf, -1]), np.ones(2), dtype=np.float64), 'bounds that are not finite'),
    (Box(-1, 1, (2, 3)), r'shape \(2, 3\); it must be \(width,\)'),
    (Box(-1, 1, ()), r'shape \(\); it must be'),
    (Box(-5, 5, (2, ), np.int64), 'dtype int64; it must be floating'),
    (Box(np.array([0., -1.]), np.array([0., 1.]), dtype=np.float64), 'is not below its upper one'),
    (DiscreteSpace(3), 'not continuous'),
])
def test_action_spaces_that_have_no_actions_between_bounds_are_named(space, message):
    env_id = registered(action_space=space)
    with pytest.raises(ValueError, match=f'{env_id}: action space .*{message}'):
        try_out(env_id)


def test_bounds_that_are_nan_are_named():
    space = Box(-1, 1, (2, ))
    space.low = np.full(2, np.nan, np.float32)
    with pytest.raises(ValueError, match='bounds that are not finite'):
        make_environment(registered(action_space=space))


@pytest.mark.parametrize('space', [
    Box(-1, 1, (4, 1)), Box(0, 255, (8, 8, 3), np.uint8), DiscreteSpace(4), Dict(a=Box(-1, 1, (4, ))),
])
def test_observation_spaces_that_are_not_vectors_are_named(space):
    with pytest.raises(ValueError, match=r'observation space .*not a vector.*FlattenObservation'):
        make_environment(registered(observation_space=space))


def test_observations_of_integers_are_vectors_too():
    env = Environment(registered(observation_space=Box(-9, 9, (4, ), np.int32)))
    assert run_episodes(lambda obs: np.zeros((len(obs), 2)), [env], [0])[0].observations[0].dtype == np.float32


def old_reset(self, *, seed=None, options=None):
    return Point.reset(self, seed=seed)[0]


def old_step(self, action):
    return Point.step(self, action)[:4]


def without_seed(self, options=None):
    return Point.reset(self, seed=0)


def longer(self, action):
    obs, *rest = Point.step(self, action)
    return np.append(obs, 0), *rest


def broken(self, action):
    raise RuntimeError('joint 3 is out of range')


def two_rewards(self, action):
    obs, _, *rest = Point.step(self, action)
    return obs, np.zeros(2), *rest


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('attributes, message', [
    (dict(reset=old_reset), r'reset returned an array of shape \(4,\).*reset\(\*, seed=None, options=None\) returns'),
    (dict(step=old_step), r'expected 5, got 4.*step\(action\) returns \(observation, reward, terminated, truncated'),
    (dict(reset=without_seed), r"unexpected keyword argument 'seed'.*reset\(\*, seed=None"),
    (dict(step=longer), r'observation that is an array of shape \(5,\).*space says numbers of shape \(4,\)'),
    (dict(step=broken), 'step raised RuntimeError: joint 3 is out of range$'),
    (dict(step=two_rewards), r'reward that is an array of shape \(2,\).*must be a number'),
])
def test_what_is_wrong_with_an_environment_is_named_in_its_first_step(attributes, message):
    env_id = registered(**attributes)
    with pytest.raises((ValueError, RuntimeError), match=f'{env_id}: .*{message}'):
        try_out(env_id)


@pytest.mark.filterwarnings('ignore:.*reward returned by')
@pytest.mark.parametrize('kind', [lambda r: np.array([r]), np.float64, np.float32, lambda r: int(10 * r)])
def test_rewards_of_all_kinds_are_numbers(kind):
    def step(self, action):
        obs, reward, *rest = Point.step(self, action)
        return obs, kind(reward), *rest

    env, plain = Environment(registered(step=step)), Environment(registered())
    for each in (env, plain):
        each.reset(3)
    for _ in range(10):
        reward, expected = (each.step(np.ones(2))[1] for each in (env, plain))
        assert type(reward) is float and reward == pytest.approx(float(np.ravel(kind(expected))[0]))
    assert type(env.episode_return) is float


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_what_an_environment_changes_in_place_is_copied(dtype):
    """Observations, and arrays in infos; the same info every time must not remember an episode's end."""
    shared = {'counts': np.zeros(2), 'object': object(), 'text': 'a'}

    def reset(self, *, seed=None, options=None):
        Point.reset(self, seed=seed)
        return self.state, shared

    def step(self, action):
        _, *rest, _ = Point.step(self, action)
        shared['counts'] += 1
        return self.state, *rest, shared

    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*share an object')
        env_id = registered(4, observation_space=Box(-np.inf, np.inf, (4, ), dtype), reset=reset, step=step)
        env = MujocoEnv(dict(env_id=env_id, norm_obs={}, manager=dict(auto_reset=False)))
        for _ in range(2):
            steps = [(env.reset(), {})]
            for _ in range(4):
                assert 'eval_episode_return' not in steps[-1][1]
                timestep = env.step(np.ones(2))
                steps.append((timestep.obs, timestep.info))
            assert len(np.unique([obs for obs, _ in steps], axis=0)) == 5 and steps[0][0].dtype == np.float32
            assert len({float(info['counts'][0]) for _, info in steps[1:]}) == 4
            assert timestep.info['TimeLimit.truncated'] and timestep.info['text'] == 'a'
            assert 'object' not in timestep.info
        env = Environment(env_id)
        episode, = run_episodes(lambda obs: np.ones((len(obs), 2)), [env], [0])
        assert len(np.unique(episode.observations, axis=0)) == 4
        obs = env.reset(0)
        env.step(np.ones(2))
        assert not np.array_equal(obs, env.step(np.ones(2))[0])


def not_finite(what: str, at: int = 3):
    """A step that gives NaN or infinity at the given step."""
    def step(self, action):
        obs, reward, *rest = Point.step(self, action)
        if self.time == at:
            obs, reward = (obs * np.nan, reward) if what == 'observation' else (obs, np.inf)
        return obs, reward, *rest
    return step


@pytest.mark.filterwarnings('ignore:.*(reward is|obs returned|Casting|precision)')
@pytest.mark.parametrize('what, value', [('reward', 'inf'), ('observation', r'\[nan nan nan nan\]')])
def test_an_episode_with_numbers_that_are_not_finite_ends_there_without_a_return(what, value):
    env = MujocoEnv(dict(env_id=registered(step=not_finite(what)), norm_obs={}))
    env.reset()
    assert not any(env.step(np.ones(2)).done for _ in range(2))
    with pytest.warns(UserWarning, match=rf'at step 3 of the episode from reset\(seed=\d+\) the {what} is {value}'):
        timestep = env.step(np.ones(2))
    assert timestep.done and np.isnan(timestep.info['eval_episode_return']) and np.isnan(timestep.reward).all()
    assert np.isfinite(timestep.obs).all() and timestep.info['episode_info'] == {'episode_length': 3}
    env.reset()
    assert np.isfinite(env.step(np.ones(2)).reward).all()


def test_an_action_that_is_not_finite_never_reaches_the_environment():
    env = Environment(registered())
    env.reset(0)
    with pytest.warns(UserWarning, match=r'the action is \[nan  ?1.\]; the episode ends there'):
        assert env.step(np.array([np.nan, 1]))[3] and np.isnan(env.episode_return)
    assert env._env.unwrapped.taken == []


def test_a_first_observation_that_is_not_finite_is_an_error():
    def reset(self, *, seed=None, options=None):
        return np.full(4, np.inf, np.float32), {}

    with pytest.raises(ValueError, match=r'reset\(seed=0\) returned the observation \[inf inf inf inf\]'):
        try_out(registered(reset=reset))


def test_an_environment_without_a_time_limit_gets_one_and_says_so_once():
    env_id = registered(None)
    with pytest.warns(UserWarning, match=f'{env_id} .*cut at {TIME_LIMIT} steps; set env.max_episode_steps') as told:
        envs = [Environment(env_id) for _ in range(2)]
    assert len(told) == 1
    ended = run_episodes(lambda obs: np.zeros((len(obs), 2)), envs, [0, 1])
    assert [len(episode.rewards) for episode in ended] == [TIME_LIMIT] * 2 and not ended[0].is_terminated


@pytest.mark.parametrize('registered_limit', [None, 10, 5])
def test_a_time_limit_that_is_given_takes_the_place_of_the_registered_one(recwarn, registered_limit):
    env = Environment(registered(registered_limit), max_episode_steps=7)
    assert len(run_episodes(lambda obs: np.zeros((len(obs), 2)), [env], [0])[0].rewards) == 7 and not recwarn.list


def test_an_environment_that_asks_its_action_space_gets_its_dtype_within_its_bounds():
    def step(self, action):
        assert self.action_space.contains(action), 'not an action'
        return Point.step(self, action)

    env = Environment(registered(action_space=Box(np.float32([-0.4, 0.1]), np.float32([0.7, 0.3])), step=step))
    env.reset(0)
    for action in ([-1, -1], [1, 1], [0.3, 5]):
        env.step(np.array(action))
    np.testing.assert_allclose(env._env.unwrapped.taken, [[-0.4, 0.1], [0.7, 0.3], [0.315, 0.3]], rtol=1e-6)

    def refuses(self, action):
        raise AssertionError('never')

    with pytest.raises(RuntimeError, match='step raised AssertionError: never'):
        try_out(registered(step=refuses))


def with_arguments(self, map_name, sizes=()):
    Point.__init__(self)
    assert (map_name, sizes) == ('big', [1, 2])


def test_arguments_of_the_constructor_are_passed_as_a_checkpoint_holds_them():
    env_id = registered(__init__=with_arguments)
    settings = env_settings(dict(kwargs=dict(map_name='big', sizes=(1, 2))))
    assert settings == dict(kwargs=dict(map_name='big', sizes=[1, 2]), max_episode_steps=None)
    assert try_out(env_id, settings).widths == (4, 2)
    limit = env_settings(dict(max_episode_steps=np.float64(200)))['max_episode_steps']
    assert limit == 200 and type(limit) is int
    MujocoEnv(dict(env_id=env_id, norm_obs={}, **settings)).reset()
    with pytest.raises(ValueError, match=rf'{env_id} cannot be made: TypeError.*map_name.*env.kwargs holds'):
        try_out(env_id)
    with pytest.raises(ValueError, match=rf"{env_id} cannot be made with {{'mapname': 1}}: TypeError"):
        try_out(env_id, env_settings(dict(kwargs=dict(mapname=1))))


@pytest.mark.parametrize('section, message', [
    (dict(kwargs=[1]), r'env.kwargs is \[1\]; it must be a dict'),
    (dict(kwargs={1: 2}), 'must be a dict of arguments'),
    (dict(kwargs=dict(render_mode='human')), "env.kwargs.render_mode is gymnasium's own"),
    (dict(kwargs=dict(max_episode_steps=3)), 'set env.max_episode_steps'),
    (dict(kwargs=dict(shape=np.zeros(2))), 'its values must be texts, numbers'),
    (dict(max_episode_steps=0), 'env.max_episode_steps is 0; it must be a positive whole number'),
    (dict(max_episode_steps='10'), "env.max_episode_steps is '10'"),
])
def test_settings_of_an_environment_that_cannot_be_are_named(section, message):
    with pytest.raises(ValueError, match=message):
        env_settings(section)


def test_modules_that_register_environments_are_imported(tmp_path, monkeypatch):
    (tmp_path / 'registers_one.py').write_text(
        'import gymnasium\n'
        'gymnasium.register("Imported-v0", entry_point="test_environments:Point", max_episode_steps=5)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'Imported-v0'.*registered by its module: name that in import_names"):
        try_out('Imported-v0')
    env = MujocoEnv(dict(env_id='Imported-v0', norm_obs={}, import_names=['ding_cawr', 'registers_one']))
    assert env.reset().shape == (4, )
    assert import_modules('registers_one') == ['registers_one'] and import_modules(None) == []
    with pytest.raises(ImportError, match=r"import_names \(--import\) has 'absent_module', which cannot be imported"):
        import_modules(['absent_module'])
    with pytest.raises(ValueError, match='import_names is 3; it must be a list of names'):
        import_modules(3)


def test_an_id_that_a_file_names_imports_nothing():
    for plain in (None, 'Hopper-v4', 'hopper-medium-v2', 'space/Own-v0'):
        check_untrusted_id(plain, 'a.pth.tar')
    with pytest.raises(ValueError, match="a.pth.tar: its env_id is 'module:Own-v0', which would import a module"):
        check_untrusted_id('module:Own-v0', 'a.pth.tar')


class Still(ActingPolicy):
    """Acts with zeros."""

    def __init__(self, env_id, **settings):
        import torch
        network = torch.nn.Linear(4, 2)
        network.weight.data.zero_()
        network.bias.data.zero_()
        network.obs_shape, network.action_shape = 4, 2
        super().__init__(network.requires_grad_(False), env_id=env_id, env_settings=settings)


def test_an_evaluation_is_made_as_the_policy_was_trained_unless_told_otherwise():
    env_id, other = registered(__init__=with_arguments), registered(6)
    policy = Still(env_id, kwargs=dict(map_name='big', sizes=[1, 2]), max_episode_steps=3)
    assert evaluate(policy, episodes=2).lengths.tolist() == [3, 3]
    assert evaluate(policy, env_id, 1, max_episode_steps=4).lengths.tolist() == [4]
    assert evaluate(policy, other, 1).lengths.tolist() == [6]
    with pytest.raises(ValueError, match='cannot be made'):
        evaluate(policy, episodes=1, kwargs={})
    with pytest.raises(ValueError, match=f"its env_id is 'test_environments:{env_id}', which would import"):
        evaluate(Still(f'test_environments:{env_id}'), episodes=1)
    assert evaluate(Still(f'test_environments:{other}'), f'test_environments:{other}', 1).lengths.tolist() == [6]
    named = evaluate(Still(f'test_environments:{other}'), episodes=1.0, import_names='test_environments')
    assert named.lengths.tolist() == [6]
    with pytest.raises(ValueError, match="env_id '' is neither"):  # and not the policy's, whose module nobody named
        evaluate(Still(f'test_environments:{other}'), '', 1)


def test_ids_among_the_arguments_of_an_environment_import_nothing_either():
    """An environment may make others of its arguments."""
    env_id = registered(__init__=with_arguments)
    policy = Still(env_id, kwargs=dict(map_name='absent_module:Own-v0', sizes=[1, 2]))
    with pytest.raises(ValueError, match="env.kwargs.map_name: its env_id is 'absent_module:Own-v0', which would imp"):
        evaluate(policy, episodes=1)
    policy = Still(env_id, kwargs=dict(map_name='big', sizes=['absent_module:Own-v0']))
    with pytest.raises(ValueError, match="env.kwargs.sizes: its env_id is 'absent_module:Own-v0', which would imp"):
        evaluate(policy, episodes=1)


@pytest.mark.filterwarnings('ignore:.*reward is')
def test_an_evaluation_tells_the_episode_that_has_no_return():
    def step(self, action):
        obs, reward, *rest = Point.step(self, action)
        return obs, np.nan if self.time == 5 and self.state[0] > 0 else reward, *rest

    with pytest.warns(UserWarning, match='at step 5 of the episode'):
        result = evaluate(Still(registered(step=step)), episodes=8)
    bad = np.isnan(result.returns)
    assert 0 < bad.sum() < 8 and (result.lengths == np.where(bad, 5, 10)).all()


@pytest.mark.parametrize('reward, kind', [('1', 'a str'), (None, 'a NoneType'), (b'1', 'a bytes')])
def test_a_reward_that_is_no_number(monkeypatch, reward, kind):
    env = Environment('Pendulum-v1')
    env.reset(0)
    monkeypatch.setattr(env._env, 'step', lambda action: (np.zeros(3), reward, False, False, {}))
    with pytest.raises(ValueError, match=f'Pendulum-v1: it gave a reward that is {kind}; it must be a number'):
        env.step(np.zeros(1))

"""gymnasium's environments as a DI-engine environment, by D4RL id or gymnasium id."""
from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import gym
import numpy as np
from ding.envs import BaseEnv, BaseEnvTimestep
from ding.utils import ENV_REGISTRY
from easydict import EasyDict

from ding_cawr.checks import POSITIVE_INT, one_of, unknown_keys
from ding_cawr.environments import COLLECTOR, EVALUATOR, Environment, env_settings, import_modules, start_seed
from ding_cawr.score import score_or_none

REWARD_NORMS = (None, 'iql_locomotion')
#: Keys of ``env`` that DI-engine's pipelines read.
PIPELINE_KEYS = (
    'type', 'cfg_type', 'import_names', 'manager', 'stop_value', 'n_evaluator_episode', 'evaluator_env_num',
    'collector_env_num'
)
#: Keys of DI-engine's own environments that a drop-in configuration brings along.
DI_ENGINE_KEYS = ('norm_reward', 'use_act_scale', 'act_scale', 'replay_path')


class NoSimulator:
    """Stands where a run has no environment (env_id None): no episode can begin."""
    obs_shape = action_shape = (1, )
    choices = None

    def reset(self, _: int | np.ndarray) -> np.ndarray:
        """Raise a ValueError."""
        raise ValueError('env.env_id is None, so there is no environment to act in; give a D4RL or gymnasium id')

    step = reset

    def close(self) -> None:
        """Do nothing."""


@ENV_REGISTRY.register('d4rl_gymnasium')
class MujocoEnv(BaseEnv):
    """
    Overview:
        A gymnasium environment under DI-engine's managers and evaluator. Takes D4RL ids (``hopper-medium-v2``, run \
        with gymnasium's v4 dynamics) and gymnasium ids. Actions in [-1, 1] are scaled to the action space; discrete \
        ones are taken as they are.
    Notes:
        - Start states are drawn anew at each evaluation from (seed, number of the evaluation, episode), so every \
          policy that is evaluated with the same seed and cadence meets the same ones.
        - An evaluation is one episode of each environment. Under a manager that resets by itself an environment that \
          has ended idles until the next evaluation, so that no later episode takes the place of a short one.
        - The last timestep of an episode carries ``info['eval_episode_return']`` and, for ids with reference returns, \
          ``info['episode_info']['normalized_score']``, which the evaluator logs, beside the episode's length. A time \
          limit, as opposed to a termination, is marked by ``info['TimeLimit.truncated']``.
    """

    config = dict(
        # (str or None) D4RL id or gymnasium id. None: there is no simulator, and nothing is evaluated.
        env_id='hopper-medium-v2',
        # (dict) Arguments of the environment's constructor: texts, numbers, lists, dicts, None. Checkpoints carry them.
        kwargs=dict(),
        # (int or None) Time limit of an episode. None: the one that the environment is registered with, or 1000 where
        # there is none.
        max_episode_steps=None,
        # (dict) Observation normalization with the dataset's mean and standard deviation, which DI-engine's offline
        # pipeline fills in. Where they are missing (``ding -m eval``, online), the environment gives raw observations,
        # and a policy of this package normalizes them with the statistics of its checkpoint, if that has any.
        norm_obs=dict(use_norm=False, offline_stats=dict(use_offline_stats=True)),
        # (str or None) Reward normalization of the dataset: None or 'iql_locomotion'. Evaluation never scales rewards.
        reward_norm=None,
        # (int) Evaluations that came before, in a run that is continued: start states continue after theirs.
        evaluations_before=0,
    )

    @classmethod
    def default_config(cls: type) -> EasyDict:
        cfg = EasyDict(copy.deepcopy(cls.config))
        cfg.cfg_type = cls.__name__ + 'Dict'
        return cfg

    def __init__(self, cfg: dict) -> None:
        """
        Overview:
            Remember the configuration; the simulator is made at the first use.
        Arguments:
            - cfg (:obj:`dict`): ``env_id``, and what ``create_evaluator_env_cfg`` or ``create_collector_env_cfg`` add.
        """
        self._cfg = cfg
        self._env_id = cfg['env_id']
        self._role, self._index = cfg.get('role', EVALUATOR), cfg.get('index', 0)
        self._auto_reset = cfg.get('manager', {}).get('auto_reset', True)
        self._env = None
        self._seed = 0
        self._episode, self._ended = cfg.get('evaluations_before', 0) - 1, False
        self._idle = False
        normalized = uses_normalized_observations(cfg)
        stats = cfg['norm_obs'].get('offline_stats', {}) if normalized else {}
        self._mean, self._std = stats.get('mean'), stats.get('std')
        if normalized and self._mean is None:
            warnings.warn(
                'env.norm_obs is on, but there are no statistics without the dataset: the environment gives raw '
                'observations. A policy of this package normalizes them with the statistics of the checkpoint that it '
                'begins with, if that has any, or with running ones of its own, if it has such; else it takes raw '
                'observations. For other policies give mean and std in env.norm_obs.offline_stats', stacklevel=2
            )

    def _make(self) -> None:
        if self._env is None:
            import_modules(self._cfg.get('import_names'))  # a manager's process need not have done so
            self._env = NoSimulator() if self._env_id is None else Environment(
                self._env_id, **self.settings, discrete=None)
            choices = self._env.choices
            self._action_space = gym.spaces.Discrete(choices) if choices else gym.spaces.Box(
                -1.0, 1.0, self._env.action_shape, np.float32)
            self._action_space.seed(self._seed)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the ``env_settings`` that the simulator is made with."""
        return env_settings(self._cfg)

    def seed(self, seed: int, dynamic_seed: bool = True) -> None:
        """
        Overview:
            Restart the sequences of start states and of random actions.
        Arguments:
            - seed (:obj:`int`): Seed; DI-engine's managers give environment i the run's seed plus i.
            - dynamic_seed (:obj:`bool`): Ignored: every episode has a start state of its own.
        """
        self._seed = seed
        if self._env is not None:
            self._action_space.seed(seed)
        self._episode, self._ended = self._cfg.get('evaluations_before', 0) - 1, False

    def reset(self) -> np.ndarray:
        """
        Overview:
            Begin an episode.
        Returns:
            - obs (:obj:`np.ndarray`): First observation (O,), float32.
        """
        self._make()
        # A manager with auto_reset resets right after an end; any other reset begins a new evaluation.
        self._idle = self._auto_reset and self._ended and self._role == EVALUATOR
        self._ended = False
        if self._idle:
            return self._obs
        self._episode += 1
        return self._observe(self._env.reset(start_seed(self._seed, self._role, self._index, self._episode)))

    def step(self, action: np.ndarray) -> BaseEnvTimestep:
        """
        Overview:
            Do one step of the simulator.
        Arguments:
            - action (:obj:`np.ndarray`): (A,), clipped to [-1, 1] and scaled to the action space; or the number of a \
              discrete one.
        Returns:
            - timestep (:obj:`BaseEnvTimestep`): obs (O,) and reward (1,) in float32, done (a termination or the time \
              limit), info.
        """
        if self._idle:
            return BaseEnvTimestep(self._obs, np.zeros(1, dtype=np.float32), False, {})
        self._make()  # so that a step before any reset is an error that says so
        obs, reward, terminated, truncated, info = self._env.step(action)
        self._ended = terminated or truncated
        if self._ended:
            episode_return = self._env.episode_return
            info['TimeLimit.truncated'] = truncated and not terminated
            info['eval_episode_return'] = episode_return
            info['episode_info'] = {'episode_length': self._env.episode_length}
            score = score_or_none(self._env_id, episode_return, **self.settings)
            if score is not None:
                info['episode_info']['normalized_score'] = float(score)
        return BaseEnvTimestep(self._observe(obs), np.array([reward], dtype=np.float32), self._ended, info)

    def _observe(self, obs: np.ndarray) -> np.ndarray:
        if self._mean is not None:
            obs = (obs - self._mean) / self._std
        self._obs = np.asarray(obs, dtype=np.float32)
        return self._obs

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env = None

    def random_action(self) -> np.ndarray:
        """Return an action (A,) uniform in [-1, 1], or one of the discrete ones."""
        return self.action_space.sample()

    @property
    def observation_space(self) -> gym.spaces.Box:
        self._make()
        return gym.spaces.Box(-np.inf, np.inf, self._env.obs_shape, np.float32)

    @property
    def action_space(self) -> gym.spaces.Space:
        self._make()
        return self._action_space

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest action (A,) that the simulator takes, to which [-1, 1] is scaled."""
        self._make()
        return self._env.low, self._env.high

    @property
    def reward_space(self) -> gym.spaces.Box:
        return gym.spaces.Box(-np.inf, np.inf, (1, ), np.float32)

    @staticmethod
    def create_collector_env_cfg(cfg: dict) -> list[dict]:
        """
        Overview:
            Return one configuration for each of ``cfg.collector_env_num`` environments.
        """
        check_env_keys(cfg)
        return _numbered(cfg, cfg.get('collector_env_num', 1), COLLECTOR)

    @staticmethod
    def create_evaluator_env_cfg(cfg: dict) -> list[dict]:
        """
        Overview:
            Return one configuration for each of ``cfg.n_evaluator_episode`` episodes; ``evaluator_env_num`` is not \
            used. DI-engine's evaluator keeps the latest episodes of an environment. With fewer environments than \
            episodes, short and bad ones would be crowded out.
        """
        return _numbered(cfg, cfg.get('n_evaluator_episode', 1), EVALUATOR)

    def __repr__(self) -> str:
        return f'MujocoEnv({self._env_id})'


def action_bounds(env: BaseEnv) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest action (A,) that an environment of DI-engine makes of a policy's -1 and 1.

    DI-engine's own environments scale actions to their space where ``act_scale`` is True, some of them
    ``use_act_scale``. All others take them as they are.
    """
    if isinstance(env, MujocoEnv):
        return env.action_bounds
    space, cfg = env.action_space, getattr(env, '_cfg', None) or {}
    if cfg.get('act_scale') or getattr(env, '_act_scale', False) or getattr(env, '_use_act_scale', False):
        return space.low, space.high
    return -np.ones(space.shape), np.ones(space.shape)


def environment_id(env: BaseEnv) -> str | None:
    """Return the id of an environment of DI-engine, None where it does not say one."""
    said = getattr(env, '_env_id', None) or (getattr(env, '_cfg', None) or {}).get('env_id')
    return said or getattr(getattr(getattr(env, '_env', None), 'spec', None), 'id', None)


def simulator_settings(env_cfg: Mapping) -> dict[str, Any]:
    """Return the ``env_settings`` of a section ``env`` of ``MujocoEnv``, {} of another environment's."""
    return env_settings(env_cfg) if env_cfg.get('type') == 'd4rl_gymnasium' else {}


def dataset_normalizes(env_cfg: Mapping) -> bool:
    """Return whether DI-engine's own datasets and pipeline take the section ``env`` of any environment to ask for
    normalization with the dataset's statistics."""
    norm_obs = env_cfg.get('norm_obs') or {}
    return bool(norm_obs.get('use_norm') and (norm_obs.get('offline_stats') or {}).get('use_offline_stats'))


def check_reward_norm(env_cfg: Mapping) -> str | None:
    """Return ``env.reward_norm``; raise a ValueError where it is not one of ``REWARD_NORMS``."""
    return one_of('env.reward_norm', env_cfg.get('reward_norm'), REWARD_NORMS)


def check_env_keys(env_cfg: Mapping) -> None:
    """Refuse keys of ``env`` that look like ours misspelt; warn once of those that the environment does not read.

    Raises:
        ValueError: an unknown key resembles one of ours.
    """
    ignored = unknown_keys(env_cfg, 'env', (*MujocoEnv.config, *PIPELINE_KEYS), known=DI_ENGINE_KEYS)
    ignored = [key for key in ignored if key.removeprefix('env.') not in DI_ENGINE_KEYS]
    norm = env_cfg.get('norm_reward')
    if norm.get('use_norm') if isinstance(norm, dict) else norm:
        ignored.append('env.norm_reward (here: env.reward_norm)')
    if env_cfg.get('use_act_scale') is False:
        ignored.append('env.use_act_scale (actions within [-1, 1] are always scaled to the action space)')
    if ignored and env_cfg.get('type') == 'd4rl_gymnasium':
        warnings.warn(f'the d4rl_gymnasium env does not use, and ignores: {", ".join(ignored)}', stacklevel=3)


def has_no_simulator(env: BaseEnv) -> bool:
    """Return whether an environment of DI-engine is one of ours with ``env_id`` None."""
    return isinstance(env, MujocoEnv) and env._env_id is None


def uses_normalized_observations(env_cfg: dict) -> bool:
    """Return whether ``env.norm_obs`` asks for normalization with the dataset's statistics.

    Raises:
        ValueError: ``norm_obs`` is not a dict, or asks for running statistics, which an offline run does not have.
    """
    norm_obs = env_cfg.get('norm_obs') or {}
    if not isinstance(norm_obs, dict):
        raise ValueError(f'env.norm_obs is {norm_obs!r}; it must be dict(use_norm=True) or dict(use_norm=False)')
    stats = norm_obs.get('offline_stats') or {}
    unknown_keys(norm_obs, 'env.norm_obs', ('use_norm', 'offline_stats'), known=())
    unknown_keys(stats, 'env.norm_obs.offline_stats', ('use_offline_stats', 'mean', 'std'), known=())
    if norm_obs.get('use_norm') and not stats.get('use_offline_stats', True):
        raise ValueError('env.norm_obs.offline_stats.use_offline_stats is False; there are no running statistics here')
    return bool(norm_obs.get('use_norm'))


def _numbered(cfg: dict, count: int, role: int) -> list[dict]:
    key = 'env.n_evaluator_episode' if role == EVALUATOR else 'env.collector_env_num'
    numbers = range(POSITIVE_INT.check(key, count))
    return [EasyDict({**copy.deepcopy(cfg), 'role': role, 'index': index}) for index in numbers]

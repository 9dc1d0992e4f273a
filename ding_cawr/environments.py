"""gymnasium's environments as this package uses them: checked, with a time limit, actions in [-1, 1], observations
that are copies."""
from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ding_cawr.checks import POSITIVE_INT, or_none
from ding_cawr.tasks import D4RL_IDS, EnvironmentFailed, find_task, gymnasium_id, instead_of

EVALUATOR, COLLECTOR = 0, 1
#: Steps of an episode where neither the environment's registration nor the user says it.
TIME_LIMIT = 1000
#: Arguments of gymnasium.make that are not the environment's.
MAKES_OWN = ('id', 'max_episode_steps', 'disable_env_checker', 'render_mode')
API = (
    'it must follow the API of gymnasium.Env: reset(*, seed=None, options=None) returns (observation, info), and '
    'step(action) returns (observation, reward, terminated, truncated, info)'
)
FLOAT32 = np.finfo(np.float32)


def import_modules(names: Any) -> list[str]:
    """Import modules that register environments; return their names.

    Arguments:
        names: a list of names, one name, or None for none.

    Raises:
        ValueError: not names.
        ImportError: one cannot be imported; names it.
    """
    names = [] if names is None else [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'import_names is {names!r}; it must be a list of names of modules')
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a user's module may fail in any way
            raise ImportError(
                f'import_names (--import) has {name!r}, which cannot be imported: {type(error).__name__}: {error}'
            ) from error
    return list(names)


def env_settings(section: Mapping) -> dict[str, Any]:
    """Return ``kwargs`` and ``max_episode_steps`` of a section ``env``, as ``make_environment`` takes them.

    Raises:
        ValueError: one of them is unusable; names the key.
    """
    kwargs, limit = section.get('kwargs'), section.get('max_episode_steps')
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise ValueError(f'env.kwargs is {kwargs!r}; it must be a dict of arguments of the environment, by their names')
    for key in kwargs:
        if key in MAKES_OWN:
            instead = '; set env.max_episode_steps' if key == 'max_episode_steps' else ''
            raise ValueError(f"env.kwargs.{key} is gymnasium's own argument, not the environment's{instead}")
    try:  # a checkpoint carries them as JSON, and a run that is continued must find what it began with
        kwargs = json.loads(json.dumps(kwargs))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'env.kwargs is {dict(kwargs)!r}; its values must be texts, numbers, lists, dicts or None, which a '
            f'checkpoint can hold: {error}'
        ) from None
    return {'kwargs': kwargs, 'max_episode_steps': or_none(POSITIVE_INT).check('env.max_episode_steps', limit)}


def make_environment(
    env_id: str, kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None,
    render_mode: str | None = None, discrete: bool | None = False,
) -> gymnasium.Env:
    """Return the gymnasium environment that a D4RL id or a gymnasium id names.

    Arguments:
        kwargs: arguments of the environment's constructor.
        max_episode_steps: time limit; None for the registered one, or ``TIME_LIMIT`` where there is none.
        discrete: whether an action must be one of several, else a vector; None: either.

    Raises:
        ValueError: unknown id, an environment that cannot be made, or unsuitable spaces.
    """
    given = {**(kwargs or {}), **({'render_mode': render_mode} if render_mode else {})}
    with warnings.catch_warnings():
        # v4 is chosen on purpose: it has the dynamics of D4RL's v2 data.
        warnings.filterwarnings('ignore', message='.*is out of date', category=DeprecationWarning)
        warnings.filterwarnings('ignore', message='.*is out of date', category=UserWarning)
        try:
            task = find_task(env_id)
            env = gymnasium.make(
                gymnasium_id(env_id), max_episode_steps=max_episode_steps, **{**(task.kwargs if task else {}), **given}
            )
        except Exception as error:  # whatever the constructor, or an import of 'MODULE:ID', stumbles over
            raise _not_made(env_id, given, error) from error
    try:
        check_spaces(env, env_id, discrete)
    except ValueError:
        env.close()
        raise
    if max_episode_steps is None and (env.spec is None or env.spec.max_episode_steps is None):
        _tell_limit(env_id)
        env = gymnasium.wrappers.TimeLimit(env, TIME_LIMIT)
    return env


def _not_made(env_id: str, given: Mapping[str, Any], error: Exception) -> ValueError:
    """Return the ValueError that reports an error of gymnasium.make."""
    if isinstance(error, gymnasium.error.Error) and not isinstance(error, gymnasium.error.DependencyNotInstalled):
        return ValueError(
            f'env_id {env_id!r} is neither a D4RL locomotion id (such as hopper-medium-v2) nor an id that gymnasium '
            f'can make ({str(error).rstrip(".?")}). An environment of your own is registered by its module: name that '
            'in import_names (cawr eval and cawr resume: --import MODULE). Without a simulator, env_id=None trains '
            f'without evaluation{instead_of(env_id, D4RL_IDS)}'
        )
    hint = '; env.kwargs holds the arguments of its constructor' if isinstance(error, TypeError) else ''
    return ValueError(
        f'{env_id} cannot be made{f" with {given}" if given else ""}: {type(error).__name__}: {error}{hint}'
    )


@functools.cache
def _tell_limit(env_id: str) -> None:
    """Warn, once in a process."""
    warnings.warn(
        f'{env_id} is registered without a time limit: its episodes are cut at {TIME_LIMIT} steps; set '
        'env.max_episode_steps (max_episode_steps where there is no configuration) to have another limit', stacklevel=4
    )


def check_spaces(env: gymnasium.Env, env_id: str, discrete: bool | None = False) -> None:
    """Check that actions are vectors within finite bounds, or ``discrete`` ones, and observations vectors of numbers.
    None takes both kinds of actions.

    Raises:
        ValueError: names the space, what it must be and what to do.
    """
    if discrete is None:
        discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    if discrete:
        actions = env.action_space
        if not isinstance(actions, gymnasium.spaces.Discrete) or actions.start != 0:
            raise ValueError(
                f"{env_id}: action space {actions} is not Discrete from 0 on, as model.action_space='discrete' says"
            )
    else:
        _check_box(env, env_id)
    _check_observations(env.observation_space, env_id)


def _check_box(env: gymnasium.Env, env_id: str) -> None:
    actions = env.action_space
    if not isinstance(actions, gymnasium.spaces.Box):
        raise ValueError(
            f'{env_id}: action space {actions} is not continuous; it must be a Box. A policy that takes '
            "discrete actions has them where policy.model.action_space is 'discrete'"
        )
    found = f'{env_id}: action space {actions}'
    if len(actions.shape) != 1 or 0 in actions.shape:
        raise ValueError(
            f'{found} has shape {actions.shape}; it must be (width,): wrap the environment in '
            'gymnasium.wrappers.TransformAction with a flat Box'
        )
    if actions.dtype.kind != 'f':
        raise ValueError(
            f'{found} has dtype {actions.dtype}; it must be floating: wrap the environment in '
            'gymnasium.wrappers.TransformAction with a Box of dtype float32'
        )
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise ValueError(
            f'{found} has bounds that are not finite; policies give actions in [-1, 1], scaled to the bounds. '
            'Register the environment with finite ones, or wrap it in gymnasium.wrappers.TransformAction(env, lambda '
            'action: action, gymnasium.spaces.Box(low, high)); leave a ClipAction out, whose bounds are infinite'
        )
    if not (actions.low < actions.high).all():
        raise ValueError(
            f'{found} has a lower bound that is not below its upper one ({actions.low} and {actions.high}); every '
            'action must have a range: register the environment with other bounds, or leave that action out'
        )


def _check_observations(observations: gymnasium.Space, env_id: str) -> None:
    found = f'{env_id}: observation space {observations}'
    if not isinstance(observations, gymnasium.spaces.Box) or len(observations.shape) != 1 or 0 in observations.shape:
        raise ValueError(
            f'{found} is not a vector; images and dicts do not work: wrap the environment in '
            'gymnasium.wrappers.FlattenObservation'
        )
    if observations.dtype.kind not in 'fiub':
        raise ValueError(f'{found} has dtype {observations.dtype}; it must be numbers')


class Spaces(NamedTuple):
    """The widths (O, A) of an environment's observations and actions, and the bounds (A,) of its actions.

    Of discrete actions A is their number, and they have no bounds.
    """
    widths: tuple[int, int]
    low: np.ndarray | None
    high: np.ndarray | None


def try_out(
    env_id: str, settings: Mapping[str, Any] | None = None, discrete: bool | None = False
) -> Spaces:
    """Make an environment and do one step in it, so that what is wrong with it shows before anything is trained.

    Arguments:
        settings: its ``env_settings``.
        discrete: that of ``make_environment``.

    Raises:
        ValueError, EnvironmentFailed: the errors of ``make_environment`` and of ``Environment``.
    """
    env = Environment(env_id, **(settings or {}), discrete=discrete)
    try:
        env.reset(0)
        env.step(np.zeros(env.action_shape))
    finally:
        env.close()
    return Spaces((env.obs_shape[0], env.choices or env.action_shape[0]), env.low, env.high)


def start_seed(seed: int, role: int, index: int, episode: int) -> int:
    """Return the seed of one start state: of an episode of environment ``index``, whose own seed is ``seed``."""
    return int(np.random.SeedSequence((seed, role, index, episode)).generate_state(1)[0])


class Environment:
    """An environment that evaluates or collects.

    Actions in [-1, 1] are scaled to the action space. Observations (O,) are copies. A reward, an observation or an
    action that is not finite ends the episode as truncated. Its return is then NaN, and a warning names the cause.

    Arguments:
        env_id, kwargs, max_episode_steps, render_mode, discrete: those of ``make_environment``, whose errors it raises.

    Attributes:
        episode_return, episode_length: of the present episode so far; undiscounted.
    """

    def __init__(
        self, env_id: str, kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None,
        render_mode: str | None = None, discrete: bool | None = False,
    ) -> None:
        self.env_id = env_id
        self._env = make_environment(env_id, kwargs, max_episode_steps, render_mode, discrete)
        self.discrete = discrete = isinstance(self._env.action_space, gymnasium.spaces.Discrete)
        space = self._env.action_space
        self.obs_shape, self.action_shape = self._env.observation_space.shape, space.shape
        #: Number of discrete actions, None of continuous ones.
        self.choices = int(space.n) if discrete else None
        self._dtype = np.dtype(np.float64)  # of the actions that it is given
        self.low = self.high = None
        if not discrete:
            self.low, self.high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.episode_return, self.episode_length = 0.0, 0

    def close(self) -> None:
        self._env.close()

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of a seed; return its first observation (O,), of the environment's dtype.

        Raises:
            ValueError: the observation is not finite, or of another shape than the space.
            EnvironmentFailed: the environment raised an error; names both.
        """
        try:
            result = self._env.reset(seed=seed)
        except Exception as error:
            raise self._failed('reset', error) from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(f'{self.env_id}: reset returned {_kind(result)}; {API}')
        self._seed, self.episode_return, self.episode_length = seed, 0.0, 0
        self._obs = self._copied(result[0])
        if not _is_finite(self._obs):
            raise ValueError(
                f'{self.env_id}: reset(seed={seed}) returned the observation {self._obs}; it must be finite'
            )
        return self._obs

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Do one step; return observation, reward, whether it terminated, whether it was cut, and info.

        Arguments:
            action: (A,), clipped to [-1, 1] and scaled to the action space; () where actions are discrete.

        Raises:
            ValueError: another number of actions, or the environment's observation or reward has another shape.
            EnvironmentFailed: the environment raised an error; names both.
        """
        action = np.asarray(action, dtype=np.float64).reshape(self.action_shape)
        if not _is_finite(action):
            return self._broken_off(f'the action is {action}')
        try:
            if self.discrete:
                result = self._env.step(int(action))
            else:
                result = self._stepped(self.low + (np.clip(action, -1.0, 1.0) + 1) * (self.high - self.low) / 2)
        except Exception as error:
            raise self._failed('step', error) from error
        if not isinstance(result, tuple) or len(result) != 5:
            raise ValueError(f'{self.env_id}: step returned {_kind(result)}; {API}')
        obs, reward, terminated, truncated, info = result
        obs, reward = self._copied(obs), self._number(reward)
        if not math.isfinite(reward):
            return self._broken_off(f'the reward is {reward}')
        if not _is_finite(obs):
            return self._broken_off(f'the observation is {obs}')
        self._obs, self.episode_return, self.episode_length = obs, self.episode_return + reward, self.episode_length + 1
        return obs, reward, bool(terminated), bool(truncated), _plain(info)

    def _stepped(self, action: np.ndarray) -> Any:
        try:
            return self._env.step(action.astype(self._dtype, copy=False))
        except AssertionError:
            if self._dtype == self._env.action_space.dtype:
                raise
            # An environment that asks whether its action space has the action wants the space's dtype, and its bounds.
            self._dtype = self._env.action_space.dtype
            return self._stepped(action)

    def picture(self) -> np.ndarray:
        """Return a picture (height, width, 3), uint8, of an environment that was made with a ``render_mode``."""
        return self._env.render()

    @property
    def pictures_a_second(self) -> int:
        return self._env.metadata.get('render_fps', 30)

    def _broken_off(self, what: str) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Warn, and return a last step that has no reward."""
        self.episode_return, self.episode_length = math.nan, self.episode_length + 1
        warnings.warn(
            f'{self.env_id}: at step {self.episode_length} of the episode from reset(seed={self._seed}) {what}; the '
            'episode ends there and its return is NaN', stacklevel=3
        )
        return self._obs, math.nan, False, True, {}

    def _copied(self, obs: Any) -> np.ndarray:
        """Return an observation that the environment cannot change any more."""
        try:
            copied = np.array(obs)
        except ValueError:  # a ragged list
            copied = np.array(None)
        if copied.shape != self.obs_shape or copied.dtype.kind not in 'fiub':
            raise ValueError(
                f'{self.env_id}: it gave an observation that is {_kind(obs)}; its observation space says numbers of '
                f'shape {self.obs_shape}: correct the space, or what reset and step return'
            )
        return copied

    def _number(self, reward: Any) -> float:
        try:
            if reward is None or isinstance(reward, (str, bytes)):  # which NumPy would take for numbers
                raise TypeError
            return float(np.asarray(reward, dtype=np.float64).reshape(()))
        except (TypeError, ValueError):
            raise ValueError(f'{self.env_id}: it gave a reward that is {_kind(reward)}; it must be a number') from None

    def _failed(self, where: str, error: Exception) -> EnvironmentFailed:
        """Return the EnvironmentFailed that reports an error of the environment."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        # gymnasium's wrappers, or this module, could not use what the environment gave or take what it wants.
        is_api = isinstance(error, (TypeError, ValueError)) and any(
            name in frame.filename.replace('\\', '/') for name in ('/gymnasium/core.py', '/gymnasium/wrappers/',
                                                                  '/gymnasium/utils/', __file__.replace('\\', '/'))
        )
        return EnvironmentFailed(
            f'{self.env_id}: {where} raised {type(error).__name__}: {error}{f"; {API}" if is_api else ""}'
        )


def _is_finite(numbers: np.ndarray) -> bool:
    """Return whether these are numbers that float32 can hold."""
    return bool((np.abs(numbers) <= FLOAT32.max).all())


def _kind(value: Any) -> str:
    """Return what a value is, for messages."""
    if isinstance(value, tuple):
        return f'a tuple of {len(value)}'
    shape = getattr(value, 'shape', None)
    return f'a {type(value).__name__}' if shape is None else f'an array of shape {tuple(shape)} and dtype {value.dtype}'


def _plain(info: Any) -> dict[str, Any]:
    """Return a new dict with the numbers, texts and arrays of numbers of an ``info``."""
    kept = {}
    for key, value in info.items() if isinstance(info, Mapping) else ():
        if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub':
            kept[key] = value.copy()
        elif value is None or isinstance(value, (bool, int, float, str, np.number, np.bool_)):
            kept[key] = value
    return kept


@dataclass(eq=False)
class Episode:
    """A whole episode of environment ``index``, step by step; ``episode_return`` is NaN where it broke off."""
    index: int
    observations: list[np.ndarray] = field(default_factory=list)  # (O,) float32
    actions: list[np.ndarray] = field(default_factory=list)  # (A,) float32, within [-1, 1]
    rewards: list[float] = field(default_factory=list)
    is_terminated: bool = False
    episode_return: float = 0.0


@contextlib.contextmanager
def several(count: int, env_id: str, **settings: Any) -> Iterator[list[Environment]]:
    """Make the given number of environments with the same arguments of ``Environment``, and close them at the end."""
    with contextlib.ExitStack() as held:
        yield [held.enter_context(contextlib.closing(Environment(env_id, **settings))) for _ in range(count)]


def run_episodes(
    act: Callable[[np.ndarray], np.ndarray], envs: Sequence[Environment], seeds: Sequence[int]
) -> list[Episode]:
    """Run one episode in each environment, all at once; return them in the order in which they ended.

    Arguments:
        act: observations (n, O) float32 to actions (n, A), which are clipped to [-1, 1], or (n,) discrete ones; n
            decreases as episodes end.
        seeds: that of each environment's start state.

    Raises:
        ValueError: actions of another shape, or not finite.
    """
    running, ended = [Episode(index) for index in range(len(envs))], []
    observations = [np.asarray(env.reset(seed), dtype=np.float32) for env, seed in zip(envs, seeds)]
    while running:
        actions = _actions(act, np.stack([observations[episode.index] for episode in running]), envs[0])
        for episode, action in zip(list(running), actions):
            env = envs[episode.index]
            obs, reward, episode.is_terminated, truncated, _ = env.step(action)
            episode.observations.append(observations[episode.index])
            episode.actions.append(action)
            episode.rewards.append(reward)
            observations[episode.index] = np.asarray(obs, dtype=np.float32)
            if episode.is_terminated or truncated:
                episode.episode_return = env.episode_return
                running.remove(episode)
                ended.append(episode)
    return ended


def _actions(act: Callable[[np.ndarray], np.ndarray], observations: np.ndarray, env: Environment) -> np.ndarray:
    actions = np.array(act(observations), dtype=np.float32)
    needed, finite = (len(observations), *env.action_shape), bool(np.isfinite(actions).all())
    if actions.shape != needed or not finite:
        raise ValueError(
            f'act returned actions of shape {actions.shape}, finite: {finite}; they must be finite and of shape '
            f'{needed} for {env.env_id}'
        )
    return actions if env.discrete else np.clip(actions, -1, 1)

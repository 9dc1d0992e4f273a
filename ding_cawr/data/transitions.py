"""Transitions, what a dataset is once it has been read, and the checks that it must pass."""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ding_cawr.checks import Bound, nearest, options
from ding_cawr.data.table import Table
from ding_cawr.tasks import find_task

ACTION_TOLERANCE = 1e-6
#: How the actions of a file are read, and the attribute by which a file says it of itself.
ACTION_SCALE, ACTION_SCALES = 'action_scale', ('unit', 'environment')
#: The attribute of a file whose environment was made with arguments.
ENV_KWARGS = 'env_kwargs'
SCALE_KIND = "None, 'unit', 'environment', or the lowest and the highest action"
#: Discrete actions up to here are exact in float32.
MOST_CHOICES = 2**24
LARGEST = 1e18  # the square of a larger number is beyond float32
#: Bound of the options of ``collect.reward``.
REWARD_BOUND = Bound(-LARGEST, LARGEST)


@dataclass(frozen=True)
class Transitions:
    """N transitions of a dataset, held as rows of one matrix; the columns are views of it.

    Attributes:
        table: the rows (N, W) in float32, W = O + A + 1 + 1 + O, and their columns; ``table.ends`` (N,) says which
            rows are the last ones of their trajectories, None where the file does not say it, and ``table.advantage``
            (N,) which advantages it gives them, None where it gives none. ``table.whole`` (P,) says which trajectories
            are whole episodes.
        episode_returns: (E,) float64, the undiscounted raw returns of the dataset's whole episodes; None where the
            file does not tell episodes apart.
        source: where the data came from, for messages.
        attributes: what the file says of itself (how it was made).
        obs_mean, obs_std: (O,) float32, the statistics that observations were normalized with; None if they were not.
        obs, next_obs: (N, O) float32. ``next_obs`` of a terminal row is arbitrary and masked by ``done``.
        discrete: whether actions are numbers of choices, which the file has as integers.
        action: (N, A) float32 in [-1, 1], once ``scale_actions`` has read them; (N, 1) whole numbers where discrete.
        reward: (N,) float32.
        done: (N,) float32, 1 on termination only (a timeout is not done), else 0.
    """
    table: Table
    episode_returns: np.ndarray | None
    source: str
    attributes: dict
    obs_mean: np.ndarray | None = None
    obs_std: np.ndarray | None = None
    discrete: bool = False

    rows = property(lambda self: self.table.rows)
    obs_shape = property(lambda self: self.table.obs_shape)
    action_shape = property(lambda self: self.table.action_shape)
    obs = property(lambda self: self.table.columns['obs'])
    action = property(lambda self: self.table.columns['action'])
    reward = property(lambda self: self.table.columns['reward'])
    next_obs = property(lambda self: self.table.columns['next_obs'])
    done = property(lambda self: self.table.columns['done'])

    def __len__(self) -> int:
        return len(self.table)

    @property
    def env_id(self) -> str | None:
        """The environment that the file's attributes name; None where they name none, or one with arguments."""
        env_id = self.attributes.get('env_id')
        return env_id if isinstance(env_id, str) and ENV_KWARGS not in self.attributes else None

    def copy(self, **changes: Any) -> Transitions:
        """Return the same transitions, with the changes, whose rows can be written to."""
        table = Table(self.rows.copy(), self.obs_shape, self.table.ends, self.table.advantage, self.table.whole)
        return replace(self, table=table, **changes)

    def scale_rewards(self) -> Transitions:
        """Return rewards times ``reward_factor``."""
        factor, scaled = self.reward_factor, self.copy()
        scaled.reward[:] *= factor
        return scaled

    @property
    def reward_factor(self) -> float:
        """1000 / (max - min episode return): ``reward_norm='iql_locomotion'`` (IQL, appendix B).

        Raises:
            ValueError: the episodes are unknown, or their returns are all equal.
        """
        if self.episode_returns is None:
            raise ValueError(
                f"{self.source}: reward_norm='iql_locomotion' needs episode returns, but this layout does not say "
                "where episodes end; use a file in D4RL's layout (terminals and timeouts), or set env.reward_norm to "
                'None'
            )
        from ding_cawr.returns import EQUAL  # with torch, which `cawr data` does not wait for

        returns = self.episode_returns if len(self.episode_returns) else np.zeros(1)
        spread = float(np.ptp(returns))
        if spread <= EQUAL * float(np.abs(returns).max()):
            raise ValueError(
                f"{self.source}: reward_norm='iql_locomotion' needs episodes with different returns, but the spread of "
                f'its {len(self.episode_returns)} whole episodes is {spread:g}; set env.reward_norm to None'
            )
        return 1000 / spread

    def scale_actions(self, scale: Any = None, bounds: tuple[np.ndarray, np.ndarray] | None = None) -> Transitions:
        """Return actions in [-1, 1], read as ``collect.action_scale`` says.

        Arguments:
            scale: 'unit' (the file's actions are in [-1, 1]), 'environment' (they are those that the environment
                takes), the lowest and the highest action (numbers, or lists with one each), or None: 'unit' where the
                bounds are ±1 or unknown; else what the file says of itself; else 'environment' where all of them fit,
                or 'unit' where that fits, with a warning.
            bounds: lowest and highest action (A,) of the environment, None where unknown.

        Raises:
            ValueError: actions that do not fit, or an unusable scale.
        """
        if self.discrete:
            if scale is not None:
                raise ValueError(f'collect.{ACTION_SCALE} is {scale!r}; it must be None where actions are discrete')
            return self
        low_high = _read_scale(scale, bounds, self.action, self.attributes.get(ACTION_SCALE), self.source)
        if low_high is None:
            check_actions(self.action, self.source)
            return self
        low, high = low_high
        slack = ACTION_TOLERANCE * (high - low)
        outside = ((self.action < low - slack) | (self.action > high + slack)).any(axis=1)
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(
                f'{self.source}: {int(outside.sum())} of {len(self)} actions lie outside {_shown(low)} to '
                f'{_shown(high)}, first at row {row}: {_shown(self.action[row])}; collect.{ACTION_SCALE} must say in '
                'which range they are'
            )
        scaled = self.copy()
        scaled.action[:] = np.clip(2 * (self.action.astype(np.float64) - low) / (high - low) - 1, -1, 1)
        return scaled

    def transform_rewards(self, scale: float = 1.0, shift: float = 0.0) -> Transitions:
        """Return rewards times ``scale`` plus ``shift``: ``collect.reward``. The episode returns stay the data's."""
        changed = self.copy()
        with np.errstate(over='ignore'):  # whoever trains on them checks the changed rows
            changed.reward[:] = changed.reward * np.float32(scale) + np.float32(shift)
        return changed

    def normalize_observations(self) -> Transitions:
        """Return observations minus their mean over their standard deviation plus 1e-3, as TD3+BC has it."""
        mean, std = self.observation_moments()
        normalized = self.copy(obs_mean=mean, obs_std=std)
        for observations in (normalized.obs, normalized.next_obs):
            observations -= mean
            observations /= std
        return normalized

    def observation_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (O,) and the standard deviation plus 1e-3 (O,) of the observations.

        They are torch's sums in float32, so that runs of earlier versions continue on the same numbers.
        """
        import torch  # only where a policy trains: `cawr data` does not wait for it

        obs = torch.from_numpy(self.obs)
        return obs.mean(0).numpy(), (obs.std(0, unbiased=False) + 1e-3).numpy()


def reward_options(entry: Mapping | None) -> dict[str, float] | None:
    """Return the entry ``policy.collect.reward`` as arguments of ``transform_rewards``, None where there is none.

    Raises:
        ValueError: it is not a mapping, has an unknown option, or a value that is not a number, or a scale of 0.
    """
    if entry is None:
        return None
    found = options('collect.reward', entry, dict(scale=(1.0, REWARD_BOUND), shift=(0.0, REWARD_BOUND)))
    if found['scale'] == 0:
        raise ValueError('collect.reward.scale is 0; it must not be 0, as all rewards would be the same')
    return found


def check_columns(columns: dict[str, np.ndarray], source: str) -> None:
    """Check lengths, finiteness and range of raw columns, by the names of the file.

    Raises:
        ValueError: names the column, its value and what it must be.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f'{source}: columns differ in length: {lengths}; every column needs one row a transition')
    if not all(lengths.values()):
        raise ValueError(f'{source}: the dataset is empty: {lengths}')
    for name, column in columns.items():
        if column.dtype == bool or (-LARGEST <= column.min() and column.max() <= LARGEST):  # NaN is neither
            continue
        usable = np.abs(column) <= LARGEST
        row = int(np.argmin(usable.reshape(len(column), -1).all(axis=1)))
        if np.isfinite(column).all():
            raise ValueError(
                f'{source}: {name} holds numbers beyond ±{LARGEST:g}, whose squares float32 cannot hold, first at row '
                f'{row}: {_shown(column[row])}'
            )
        row = int(np.argmin(np.isfinite(column).reshape(len(column), -1).all(axis=1)))
        raise ValueError(
            f'{source}: {name} holds NaN or infinity, first at row {row}: {_shown(column[row])} (in float32, where '
            'larger numbers are infinite)'
        )


def _shown(row: np.ndarray) -> str:
    """Return a row of a column, in one line."""
    return np.array2string(row, threshold=20, max_line_width=10**6)


def check_actions(action: np.ndarray, source: str) -> None:
    """Check that actions are within [-1, 1].

    Raises:
        ValueError: names the first offending row.
    """
    limit = 1 + ACTION_TOLERANCE
    if -limit <= action.min() and action.max() <= limit:
        return
    beyond = (np.abs(action) > limit).any(axis=1)
    row = int(np.argmax(beyond))
    raise ValueError(
        f'{source}: {int(beyond.sum())} of {len(action)} actions lie outside [-1, 1], first at row {row}: '
        f'{_shown(action[row])}; scale the actions to [-1, 1] before saving them, or say with '
        f'collect.{ACTION_SCALE} (of offline_transitions) how they are scaled'
    )


def check_choices(action: np.ndarray, source: str) -> None:
    """Check that discrete actions (N, 1) count from 0.

    Raises:
        ValueError: names the first that does not.
    """
    outside = ((action < 0) | (action > MOST_CHOICES))[:, 0]
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f'{source}: actions are integers, so that they are discrete, and that of row {row} is {action[row, 0]}; '
            f'they must be from 0 to {MOST_CHOICES}'
        )


def check_rows(columns: Mapping[str, Any], source: str, model: Any, discrete: bool = False) -> None:
    """Compare the rows of a dataset with a model; continuous actions may have any scale.

    Arguments:
        columns: ``obs`` (N, O) and ``action`` (N, A), of discrete actions (N, 1).
        model: has ``obs_shape``, ``action_shape``, and ``discrete`` where its actions may be so.
        discrete: whether the dataset says that its actions are.

    Raises:
        ValueError: they have actions of another kind, or other widths.
    """
    action, widths = columns['action'], (columns['obs'].shape[1], columns['action'].shape[1])
    takes_discrete = getattr(model, 'discrete', False)
    if discrete and not takes_discrete:
        raise ValueError(
            f"{source}: actions are discrete, and the model's are continuous; set "
            "policy.model.action_space='discrete' and policy.model.action_shape to the number of actions"
        )
    if not discrete and takes_discrete and widths[1] > 1:
        raise ValueError(
            f"{source}: an action is {widths[1]} numbers, but policy.model.action_space is 'discrete'; set it to "
            "'continuous', or take data whose actions are whole numbers"
        )
    if widths != (model.obs_shape, 1 if takes_discrete else model.action_shape):
        kind = ' of discrete actions, each one whole number' if takes_discrete else ''
        raise ValueError(
            f'{source}: observations are {widths[0]} wide and actions {widths[1]}, but policy.model has '
            f'obs_shape {model.obs_shape} and action_shape {model.action_shape}{kind}; they must agree'
        )
    if not takes_discrete:
        return
    fractions = (action % 1 != 0)[:, 0]
    if fractions.any():
        row = int(fractions.nonzero()[0][0])
        raise ValueError(
            f'{source}: actions must be whole numbers from 0 to {model.action_shape - 1}, as '
            f"policy.model.action_space is 'discrete', and that of row {row} is {action[row, 0].item():g}"
        )
    if not 0 <= action.min() <= action.max() < model.action_shape:
        raise ValueError(
            f'{source}: actions are numbers from {action.min().item()} to {action.max().item()}, but '
            f'policy.model.action_shape is {model.action_shape}; they must be from 0 to {model.action_shape - 1}'
        )


def _read_scale(
    scale: Any, bounds: tuple[np.ndarray, np.ndarray] | None, action: np.ndarray, said: Any, source: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the lowest and highest action (A,) in float64 that actions are scaled from, None where they are in
    [-1, 1]; the arguments are those of ``scale_actions``, and what the file says."""
    key = f'collect.{ACTION_SCALE}'
    if scale is not None and not isinstance(scale, str):
        return _range(key, scale, action.shape[1])
    if scale is not None and scale not in ACTION_SCALES:
        raise ValueError(f'{key} is {scale!r}; it must be {SCALE_KIND}{nearest(scale, ACTION_SCALES)}')
    if bounds is None:
        if scale == 'environment':
            raise ValueError(f"{key} is 'environment', but there is no environment of gymnasium to take the bounds of; "
                             'give the lowest and the highest action')
        return None
    low, high = (np.asarray(bound, dtype=np.float64) for bound in bounds)
    if (low == -1).all() and (high == 1).all():
        return None
    if scale is None and isinstance(said, str) and said in ACTION_SCALES:
        scale = said
    if scale is None:
        scale = _guessed_scale(low, high, action, source)
    return (low, high) if scale == 'environment' else None


def _guessed_scale(low: np.ndarray, high: np.ndarray, action: np.ndarray, source: str) -> str:
    """Return the scale by which all actions (N, A) fit, that of the environment (A,) first, and warn of it.

    Raises:
        ValueError: they fit by neither.
    """
    slack = ACTION_TOLERANCE * (high - low)
    fits = {
        'environment': bool((action >= low - slack).all() and (action <= high + slack).all()),
        'unit': bool((np.abs(action) <= 1 + ACTION_TOLERANCE).all()),
    }
    found = f'{source}: actions are in {_shown(action.min(axis=0))} to {_shown(action.max(axis=0))}'
    taken, key = f'the environment takes {_shown(low)} to {_shown(high)}', f'collect.{ACTION_SCALE}'
    scale = next((name for name in ('environment', 'unit') if fits[name]), None)
    if scale is None:
        raise ValueError(
            f'{found}, and {taken}; they must be within these bounds or within [-1, 1], or {key} must give the lowest '
            'and the highest action'
        )
    meaning = 'as the environment takes them' if scale == 'environment' else 'as scaled to [-1, 1]'
    warnings.warn(f"{found}, and {taken}: they are read {meaning} ({key}='{scale}'; set it to say which)", stacklevel=5)
    return scale


def _range(key: str, scale: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest action (A,) that a user gave."""
    try:
        low, high = (np.broadcast_to(np.asarray(bound, dtype=np.float64), (width, )) for bound in scale)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f'{key} is {scale!r}; it must be {SCALE_KIND}: finite numbers, or lists of {width}, the lowest below the '
            'highest'
        ) from None
    return low, high


def check_environment(obs: np.ndarray, action_shape: int, terminates: bool, env_id: str | None, source: str) -> None:
    """Check that data are not of another environment than ``env_id``, as far as they can tell.

    Raises:
        ValueError: widths, heights of the body or terminations that the environment cannot have.
    """
    task = find_task(env_id)
    if task is None:
        return
    if (obs.shape[1], action_shape) != (task.obs_shape, task.action_shape):
        raise ValueError(
            f'{source}: observations are {obs.shape[1]} wide and actions {action_shape}, but {env_id} has '
            f'{task.obs_shape} and {task.action_shape}: these are data of another environment'
        )
    low, high = task.height
    outside = float(np.mean((obs[:, 0] < low) | (obs[:, 0] > high)))
    if outside > 0.01:
        raise ValueError(
            f'{source}: {outside:.0%} of the observations have a height (first entry) outside [{low}, {high}], which '
            f'{env_id} cannot have: these are data of another environment'
        )
    if terminates and not task.terminates:
        raise ValueError(
            f'{source}: some rows are terminal, but {env_id} never terminates: these are data of another environment'
        )

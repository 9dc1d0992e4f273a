"""Transitions, what a dataset is once it has been read, and the checks that it must pass."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ding_cawr.checks import Bound, options
from ding_cawr.data.table import COLUMNS, Table
from ding_cawr.tasks import find_task

ACTION_TOLERANCE = 1e-6
LARGEST = 1e18  # the square of a larger number is beyond float32
#: ``collect.reward`` where nothing is changed, and what its options may be.
REWARD_DEFAULTS, REWARD_BOUND = dict(scale=1.0, shift=0.0), Bound(-LARGEST, LARGEST)


@dataclass(frozen=True)
class Transitions:
    """N transitions of a continuous-control dataset, held as rows of one matrix; the columns are views of it.

    Attributes:
        table: the rows (N, W) in float32, W = O + A + 1 + 1 + O, and their columns.
        episode_returns: (E,) float64, the undiscounted raw returns of the dataset's whole episodes; None where the
            file does not tell episodes apart.
        source: where the data came from, for messages.
        attributes: what the file says of itself (how it was made).
        obs_mean, obs_std: (O,) float32, the statistics that observations were normalized with; None if they were not.
        obs, next_obs: (N, O) float32. ``next_obs`` of a terminal row is arbitrary and masked by ``done``.
        action: (N, A) float32 in [-1, 1].
        reward: (N,) float32.
        done: (N,) float32, 1 on termination only (a timeout is not done), else 0.
    """
    table: Table
    episode_returns: np.ndarray | None
    source: str
    attributes: dict
    obs_mean: np.ndarray | None = None
    obs_std: np.ndarray | None = None

    COLUMNS = COLUMNS
    rows = property(lambda self: self.table.rows)
    obs_shape = property(lambda self: self.table.obs_shape)
    action_shape = property(lambda self: self.table.action_shape)
    nbytes = property(lambda self: self.table.rows.nbytes)
    obs = property(lambda self: self.table.columns['obs'])
    action = property(lambda self: self.table.columns['action'])
    reward = property(lambda self: self.table.columns['reward'])
    next_obs = property(lambda self: self.table.columns['next_obs'])
    done = property(lambda self: self.table.columns['done'])

    def __len__(self) -> int:
        return len(self.table)

    def copy(self, **changes: Any) -> Transitions:
        """Return the same transitions, with the changes, whose rows can be written to."""
        return replace(self, table=Table(self.rows.copy(), self.obs_shape), **changes)

    def scale_rewards(self) -> Transitions:
        """Return rewards times 1000 / (max - min episode return): ``reward_norm='iql_locomotion'`` (IQL, appendix B).

        Raises:
            ValueError: the episodes are unknown, or their returns are all equal.
        """
        if self.episode_returns is None:
            raise ValueError(
                f"{self.source}: reward_norm='iql_locomotion' needs episode returns, but this layout does not say "
                "where episodes end; use a file in D4RL's layout (terminals and timeouts) or leave reward_norm out"
            )
        spread = float(np.ptp(self.episode_returns)) if len(self.episode_returns) else 0.0
        if spread == 0:
            raise ValueError(
                f"{self.source}: reward_norm='iql_locomotion' needs episodes with different returns; there are "
                f'{len(self.episode_returns)} whole episodes with a spread of {spread}'
            )
        scaled = self.copy()
        scaled.reward[:] *= 1000 / spread
        return scaled

    def transform_rewards(self, scale: float = 1.0, shift: float = 0.0) -> Transitions:
        """Return rewards times ``scale`` plus ``shift``: ``collect.reward``. The episode returns stay the data's.

        Raises:
            ValueError: rewards leave the range that training can hold.
        """
        changed = self.copy()
        changed.reward[:] = changed.reward * np.float32(scale) + np.float32(shift)
        check_columns({'reward after collect.reward': changed.reward}, self.source)
        return changed

    def normalize_observations(self, eps: float = 1e-3) -> Transitions:
        """Return observations minus their mean over their standard deviation plus ``eps``, as TD3+BC has it."""
        mean, std = self.observation_moments(eps)
        normalized = self.copy(obs_mean=mean, obs_std=std)
        for observations in (normalized.obs, normalized.next_obs):
            observations -= mean
            observations /= std
        return normalized

    def observation_moments(self, eps: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (O,) and the standard deviation plus ``eps`` (O,) of the observations.

        They are torch's sums in float32, so that runs of earlier versions continue on the same numbers.
        """
        import torch  # only where a policy trains: `cawr data` does not wait for it

        obs = torch.from_numpy(self.obs)
        return obs.mean(0).numpy(), (obs.std(0, unbiased=False) + eps).numpy()


def reward_options(entry: Mapping | None) -> dict[str, float] | None:
    """Return the entry ``policy.collect.reward`` as arguments of ``transform_rewards``, None where there is none.

    Raises:
        ValueError: it is not a mapping, has an unknown option, or a value that is not a number, or a scale of 0.
    """
    if entry is None:
        return None
    found = options('collect.reward', entry, REWARD_DEFAULTS)
    for key, value in found.items():
        REWARD_BOUND.check(f'collect.reward.{key}', value)
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
        raise ValueError(f'{source}: {name} holds NaN or infinity, first at row {row}: {_shown(column[row])}')


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
        f'{_shown(action[row])}; scale the actions to [-1, 1] before saving them'
    )


def check_environment(obs: np.ndarray, action_shape: int, terminates: bool, env_id: str | None, source: str) -> None:
    """Check that data are not of another environment than ``env_id``, as far as they can tell.

    Raises:
        ValueError: widths, heights of the body or terminations that the environment cannot have.
    """
    task = find_task(env_id) if env_id else None
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

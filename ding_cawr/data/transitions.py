"""Transitions: what a dataset is once it has been read, and the checks that it must pass."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ding_cawr.data.table import COLUMNS, copy_rows, split_rows
from ding_cawr.tasks import find_task

ACTION_TOLERANCE = 1e-6
LARGEST = 1e18  # the square of a larger number is beyond float32


@dataclass(frozen=True)
class Transitions:
    """N transitions of a continuous-control dataset, held as rows of one matrix; the columns are views of it.

    Attributes:
        rows: (N, W) float32, W = O + A + 1 + 1 + O: [obs | action | reward | done | next_obs].
        obs_shape: width O of an observation.
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
    rows: torch.Tensor
    obs_shape: int
    episode_returns: np.ndarray | None
    source: str
    attributes: dict
    obs_mean: np.ndarray | None = None
    obs_std: np.ndarray | None = None

    COLUMNS = COLUMNS
    obs = property(lambda self: self.columns()['obs'])
    action = property(lambda self: self.columns()['action'])
    reward = property(lambda self: self.columns()['reward'])
    next_obs = property(lambda self: self.columns()['next_obs'])
    done = property(lambda self: self.columns()['done'])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def action_shape(self) -> int:
        """Width A of an action."""
        return self.action.shape[1]

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def columns(self) -> dict[str, torch.Tensor]:
        """The five columns by name, not copied."""
        return split_rows(self.rows, self.obs_shape)

    def scale_rewards(self) -> Transitions:
        """Rewards times 1000 / (max - min episode return): ``reward_norm='iql_locomotion'`` (IQL, appendix B).

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
        scaled = replace(self, rows=copy_rows(self.rows))
        scaled.reward.mul_(1000 / spread)
        return scaled

    def normalize_observations(self, eps: float = 1e-3) -> Transitions:
        """Observations minus their mean, over their standard deviation plus ``eps`` (as TD3+BC and DI-engine do it)."""
        mean, std = self.observation_moments(eps)
        normalized = replace(self, rows=copy_rows(self.rows), obs_mean=mean.numpy(), obs_std=std.numpy())
        for observations in (normalized.obs, normalized.next_obs):
            observations.sub_(mean).div_(std)
        return normalized

    def observation_moments(self, eps: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (O,) and standard deviation plus ``eps`` (O,) of the observations."""
        return self.obs.mean(0), self.obs.std(0, unbiased=False) + eps


def check_columns(columns: dict[str, np.ndarray], source: str) -> None:
    """Shapes, lengths, finiteness and range of raw columns, by the names of the file.

    Raises:
        ValueError: names the column, its value and what is allowed.
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
    """A row of a column, in one line."""
    return np.array2string(row, threshold=20, max_line_width=10**6)


def check_actions(action: np.ndarray, source: str) -> None:
    """Actions must be within [-1, 1].

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
    """Refuse data of another environment than ``env_id``, as far as the data can tell.

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

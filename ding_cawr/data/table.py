"""Transitions as rows of one matrix, [obs | action | reward | done | next_obs]: a row is one read from memory.

obs and action are neighbours, so that (obs, action) is one slice of a row.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

COLUMNS = ('obs', 'action', 'reward', 'next_obs', 'done')
LAYOUT = ('obs', 'action', 'reward', 'done', 'next_obs')
CHUNK = 1 << 13


class Table:
    """Rows, and their columns as views of them.

    Arguments:
        rows: (..., W), a NumPy array or a tensor, W = O + A + 1 + 1 + O.
        obs_shape: width O of an observation.
        ends: (N,) whether a row is the last of its trajectory, an episode or a part of one: terminal, before a time
            limit, or nothing of it follows. None where rows are in no known order, as those of a draw.
        advantage: (N,) the advantages that a dataset gives its rows; None where it gives none.
        whole: (P,) whether each of the P trajectories is a whole episode, in their order; None where that is unknown.

    Attributes:
        action_shape: width A of an action.
    """

    def __init__(self, rows: Any, obs_shape: int, ends: Any = None, advantage: Any = None, whole: Any = None) -> None:
        self.rows, self.obs_shape, self.ends, self.advantage, self.whole = rows, obs_shape, ends, advantage, whole
        self.action_shape = rows.shape[-1] - 2 * obs_shape - 2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Any:
        """Return a column by name."""
        return self.columns[name]

    @property
    def obs_action(self) -> Any:
        """obs and action side by side (..., O + A)."""
        return self.rows[..., :self.obs_shape + self.action_shape]

    @cached_property
    def columns(self) -> dict[str, Any]:
        """obs (..., O), action (..., A), reward (...), next_obs (..., O) and done (...), 1 where true, else 0."""
        rows, start, end = self.rows, self.obs_shape, self.obs_shape + self.action_shape
        return {
            'obs': rows[..., :start], 'action': rows[..., start:end], 'reward': rows[..., end],
            'next_obs': rows[..., end + 2:], 'done': rows[..., end + 1],
        }


def fill_table(size: int, obs_shape: int, action_shape: int, part: Callable[[slice], dict[str, np.ndarray]]) -> Table:
    """Return a table of N rows in float32, filled a few thousand at a time, so that these stay in the cache.

    Arguments:
        size: N.
        obs_shape, action_shape: widths O and A.
        part: gives the columns of a slice of the N rows, by name.
    """
    table = Table(np.empty((size, 2 * obs_shape + action_shape + 2), np.float32), obs_shape)
    for start in range(0, size, CHUNK):
        chunk = slice(start, start + CHUNK)
        for name, column in part(chunk).items():
            table.columns[name][chunk] = column
    return table

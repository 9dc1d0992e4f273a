"""Transitions as rows of one matrix, [obs | action | reward | done | next_obs]: a row is one read from memory.

obs and action are neighbours, so that (obs, action) is one slice of a row.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

COLUMNS = ('obs', 'action', 'reward', 'next_obs', 'done')
LAYOUT = ('obs', 'action', 'reward', 'done', 'next_obs')
CHUNK = 1 << 13


def split_rows(rows: Tensor, obs_shape: int) -> dict[str, Tensor]:
    """The columns of rows (..., W), W = O + A + 1 + 1 + O, as views: obs (..., O), action (..., A), reward (...),
    next_obs (..., O) and done (...), 1 where true and 0 where not."""
    action_shape = rows.shape[-1] - 2 * obs_shape - 2
    obs, action, reward, done, next_obs = rows.split_with_sizes([obs_shape, action_shape, 1, 1, obs_shape], dim=-1)
    return {
        'obs': obs, 'action': action, 'reward': reward.squeeze(-1), 'next_obs': next_obs, 'done': done.squeeze(-1)
    }


def join_columns(columns: Mapping[str, Tensor]) -> Tensor:
    """The rows (N, W) of columns obs (N, O), action (N, A), reward (N,), next_obs (N, O), done (N,).

    Columns that ``split_rows`` gave are not copied: the rows returned are those that they are views of.
    """
    shared = _shared_rows(columns)
    if shared is not None:
        return shared
    return torch.cat([columns[name] if columns[name].dim() == 2 else columns[name][:, None] for name in LAYOUT], dim=1)


def _shared_rows(columns: Mapping[str, Tensor]) -> Tensor | None:
    """The rows that all columns are views of, None if there are no such rows."""
    obs, width = columns['obs'], columns['obs'].stride(0)
    size, start = len(obs), obs.storage_offset()
    own_width = 2 * obs.shape[1] + columns['action'].shape[1] + 2
    needed = (start + size * width) * obs.element_size()
    if width != own_width or obs.untyped_storage().nbytes() < needed:
        return None
    rows = obs.as_strided((size, width), (width, 1), start)
    views = split_rows(rows, obs.shape[1])
    return rows if all(_is_same(views[name], columns[name]) for name in LAYOUT) else None


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same piece of memory, read the same way."""
    return (one.data_ptr(), one.dtype, one.shape, one.stride()) == \
        (other.data_ptr(), other.dtype, other.shape, other.stride())


def fill_rows(size: int, obs_shape: int, action_shape: int, part: Callable[[slice], dict[str, np.ndarray]]) -> Tensor:
    """Rows (N, W) in float32, filled a few thousand at a time, so that what passes through stays in the cache.

    Arguments:
        size: N.
        obs_shape, action_shape: widths O and A.
        part: gives the columns of a slice of the N rows, by name.
    """
    rows = torch.from_numpy(np.empty((size, 2 * obs_shape + action_shape + 2), np.float32))
    views = {name: view.numpy() for name, view in split_rows(rows, obs_shape).items()}
    for start in range(0, size, CHUNK):
        chunk = slice(start, start + CHUNK)
        for name, column in part(chunk).items():
            views[name][chunk] = column
    return rows


def copy_rows(rows: Tensor) -> Tensor:
    """A copy of rows on the CPU; by NumPy, which asks for large pages and so is several times as fast as torch."""
    return torch.from_numpy(rows.numpy().copy())

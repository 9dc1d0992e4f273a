"""Whole paths that were collected: kept and dropped as a whole."""
from __future__ import annotations

from collections import deque

import torch

from ding_cawr.checks import POSITIVE_INT
from ding_cawr.data.table import Table


class PathRing:
    """Keeps paths of at most ``capacity`` rows together. A new path drops the oldest ones until it fits.

    Arguments:
        capacity: rows.
        device: where the rows are.

    Raises:
        ValueError: a capacity below 1.
    """

    def __init__(self, capacity: int, device: torch.device | str = 'cpu') -> None:
        self.capacity = POSITIVE_INT.check('replay_buffer_size', capacity)
        self._device, self._paths, self._count, self._new = device, deque(), 0, 0

    def __len__(self) -> int:
        return self._count

    def check_length(self, rows: int) -> None:
        """Raise a ValueError for a path that is being collected and no longer fits."""
        if rows > self.capacity:
            raise ValueError(
                f'a path has {rows} steps and goes on, but the buffer keeps whole paths of at most {self.capacity} '
                'steps together; raise policy.other.replay_buffer.replay_buffer_size, give the environment a shorter '
                'time limit (env.max_episode_steps of d4rl_gymnasium), or cut paths with policy.traj_len_inf=False'
            )

    def push(self, path: Table, source: str, instead: str = '') -> None:
        """Add a path, rows (n, W) in the order in which they were visited.

        Arguments:
            source: what the path is of, for messages.
            instead: what else than a larger buffer helps where the path does not fit.

        Raises:
            ValueError: it has more rows than there is room for.
        """
        path = Table(path.rows.to(self._device), path.obs_shape)
        if len(path) > self.capacity:
            raise ValueError(
                f'{source}: a path has {len(path)} steps, but the buffer keeps whole paths of at most {self.capacity} '
                f'steps together; raise policy.other.replay_buffer.replay_buffer_size to {len(path)} or more{instead}'
            )
        self._paths.append(path)
        self._count, self._new = self._count + len(path), self._new + len(path)
        while self._count > self.capacity:
            self._count -= len(self._paths.popleft())

    @property
    def table(self) -> Table:
        """All rows, path by path, with their ends."""
        ends = torch.zeros(self._count, dtype=torch.bool, device=self._device)
        ends[torch.tensor([len(path) for path in self._paths]).cumsum(0) - 1] = True
        return Table(torch.cat([path.rows for path in self._paths]), self._paths[0].obs_shape, ends)

    def take_new(self) -> int:
        """Return how many of the last rows came since this was asked last."""
        new, self._new = min(self._new, self._count), 0
        return new

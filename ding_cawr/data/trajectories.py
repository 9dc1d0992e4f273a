"""Whole trajectories that were collected: kept and dropped as a whole."""
from __future__ import annotations

from collections import deque

import torch

from ding_cawr.checks import POSITIVE_INT
from ding_cawr.data.table import Table


class TrajectoryRing:
    """Keeps trajectories of at most ``capacity`` rows together. A new trajectory drops the oldest ones until it fits.

    Arguments:
        capacity: rows.
        device: where the rows are.

    Raises:
        ValueError: a capacity below 1.
    """

    def __init__(self, capacity: int, device: torch.device | str = 'cpu') -> None:
        self.capacity = POSITIVE_INT.check('replay_buffer_size', capacity)
        self._device, self._trajectories, self._count, self._new = device, deque(), 0, 0

    def __len__(self) -> int:
        return self._count

    def check_length(self, rows: int) -> None:
        """Raise a ValueError for a trajectory that is being collected and no longer fits."""
        if rows > self.capacity:
            raise ValueError(
                f'a trajectory has {rows} steps and goes on, but the buffer keeps whole trajectories of at most '
                f'{self.capacity} steps together; raise policy.other.replay_buffer.replay_buffer_size, give the '
                'environment a shorter time limit (env.max_episode_steps of d4rl_gymnasium), or cut trajectories with '
                'policy.traj_len_inf=False'
            )

    def push(self, trajectory: Table, source: str, instead: str = '') -> None:
        """Add a trajectory, rows (n, W) in the order in which they were visited.

        Arguments:
            source: what the trajectory is of, for messages.
            instead: what else than a larger buffer helps where the trajectory does not fit.

        Raises:
            ValueError: it has more rows than there is room for.
        """
        trajectory = Table(trajectory.rows.to(self._device), trajectory.obs_shape)
        if len(trajectory) > self.capacity:
            raise ValueError(
                f'{source}: a trajectory has {len(trajectory)} steps, but the buffer keeps whole trajectories of at '
                f'most {self.capacity} steps together; raise policy.other.replay_buffer.replay_buffer_size to '
                f'{len(trajectory)} or more{instead}'
            )
        self._trajectories.append(trajectory)
        self._count, self._new = self._count + len(trajectory), self._new + len(trajectory)
        while self._count > self.capacity:
            self._count -= len(self._trajectories.popleft())

    @property
    def table(self) -> Table:
        """All rows, trajectory by trajectory, with their ends."""
        ends = torch.zeros(self._count, dtype=torch.bool, device=self._device)
        ends[torch.tensor([len(trajectory) for trajectory in self._trajectories]).cumsum(0) - 1] = True
        rows = torch.cat([trajectory.rows for trajectory in self._trajectories])
        return Table(rows, self._trajectories[0].obs_shape, ends)

    def take_new(self) -> int:
        """Return how many of the last rows came since this was asked last."""
        new, self._new = min(self._new, self._count), 0
        return new

"""Data for measurements: random columns, as a file in D4RL's layout and as DI-engine's list of dicts."""
from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import torch

from ding_cawr.data.transitions import Transitions
from ding_cawr.tasks import TASKS

EPISODE = 1000


def synthetic_columns(size: int, obs_shape: int, action_shape: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return columns in D4RL's layout, from which ``size`` transitions are read. Every 1000th row is terminal. The
    first entry of an observation, in MuJoCo the height of the body, is in [0.8, 1.5]."""
    generator, rows = np.random.default_rng(seed), size + 1  # D4RL's last row begins no transition
    obs = generator.standard_normal((rows, obs_shape), dtype=np.float32)
    obs[:, 0] = 0.8 + 0.7 * generator.random(rows, dtype=np.float32)
    return {
        'observations': obs,
        'actions': 2 * generator.random((rows, action_shape), dtype=np.float32) - 1,
        'rewards': 4 * generator.random(rows, dtype=np.float32),
        'terminals': np.arange(1, rows + 1) % EPISODE == 0,
        'timeouts': np.zeros(rows, bool),
    }


def write_d4rl_file(path: Path, columns: Mapping[str, np.ndarray], compressed: bool = True) -> None:
    """Write an HDF5 file of such columns."""
    options = dict(compression='gzip', compression_opts=1) if compressed else {}
    with h5py.File(path, 'w') as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, **options)


class _Rows(dict):
    """Columns that are pickled as such and come out of the pickle as a list of dicts."""

    def __reduce__(self):
        return list_of_dicts, (dict(self), )


def list_of_dicts(columns: dict[str, np.ndarray]) -> list[dict]:
    """Return one dict a transition, each entry of the type that DI-engine's ``d4rl`` dataset gives it."""
    tensors = {name: torch.from_numpy(columns[name]) for name in ('obs', 'next_obs', 'action', 'reward')}
    return [{**{name: column[i] for name, column in tensors.items()}, 'done': done}
            for i, done in enumerate(columns['done'])]


def write_rows(path: Path, transitions: Transitions, rows: int) -> None:
    """Write the first ``rows`` transitions for DI-engine's ``naive`` dataset, which unpickles a list of dicts."""
    columns = {name: column[:rows].copy() for name, column in transitions.table.columns.items()}
    columns['done'] = columns['done'] > 0
    path.write_bytes(pickle.dumps(_Rows(columns)))


class StandIn(gymnasium.Env):
    """An environment of any widths, for data that no MuJoCo task has; nobody acts in it."""

    def __init__(self, obs_shape: int, action_shape: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs_shape, ), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_shape, ), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(self.observation_space.shape, np.float32), 0.0, False, True, {}


def environment_id(obs_shape: int, action_shape: int) -> str:
    """Return the id of an environment of these widths: D4RL's (hopper's for 11 and 3), or else that of a stand-in."""
    for task in TASKS.values():
        if (task.obs_shape, task.action_shape) == (obs_shape, action_shape):
            return f'{task.name}-medium-v2'
    env_id = f'CawrBench{obs_shape}x{action_shape}-v0'
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, StandIn, kwargs={'obs_shape': obs_shape, 'action_shape': action_shape})
    return env_id

"""Files to Transitions: the two layouts (D4RL's and DI-engine's), each in HDF5 or NPZ."""
from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np

from ding_cawr.data.table import fill_rows
from ding_cawr.data.transitions import Transitions, check_actions, check_columns, check_environment
from ding_cawr.tasks import gymnasium_id

D4RL_LAYOUT = ('observations', 'actions', 'rewards', 'terminals', 'timeouts')
DING_LAYOUT = ('obs', 'action', 'reward', 'next_obs', 'done')
MATRICES = ('observations', 'actions', 'obs', 'action', 'next_obs')
FLAGS = ('terminals', 'timeouts', 'done')


def read_transitions(path: str | Path, env_id: str | None = None) -> Transitions:
    """Read a .hdf5 or .npz file in D4RL's or DI-engine's layout.

    Arguments:
        path: the file. HDF5 by .hdf5 or .h5, NumPy archive by .npz.
        env_id: environment that the data should be of; None skips that check.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of these kinds, or its content is not usable; the message names what and why.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'dataset file {path} does not exist')
    readers = {'.hdf5': _read_hdf5, '.h5': _read_hdf5, '.npz': _read_npz}
    if path.suffix not in readers:
        raise ValueError(f'{path}: unknown kind of file {path.suffix!r}; allowed: {", ".join(readers)}')
    columns, attributes = readers[path.suffix](path)
    _check_named_environment(attributes, env_id, str(path))
    check_columns(columns, str(path))
    convert = _from_d4rl_layout if 'observations' in columns else _from_ding_layout
    return convert(columns, attributes, env_id, str(path))


def _check_named_environment(attributes: dict, env_id: str | None, source: str) -> None:
    """A file that says of which environment it is (``cawr data collect`` writes it) is not taken for another's."""
    named = attributes.get('env_id')
    if env_id and isinstance(named, str) and gymnasium_id(named) != gymnasium_id(env_id):
        raise ValueError(
            f'{source} says that it holds data of {named}, which is another environment than env_id {env_id!r}'
        )


def _layout(names, source: str) -> tuple[str, ...]:
    """The layout whose columns are all there."""
    for layout in (D4RL_LAYOUT, DING_LAYOUT):
        if set(layout) <= set(names):
            return layout
    layout = min((D4RL_LAYOUT, DING_LAYOUT), key=lambda layout: len(set(layout) - set(names)))
    missing = [name for name in layout if name not in names]
    raise ValueError(
        f"{source}: columns {missing} are missing; it has {sorted(names)}. Allowed are D4RL's layout "
        f"{list(D4RL_LAYOUT)} and DI-engine's {list(DING_LAYOUT)}"
    )


def _read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    try:
        with h5py.File(path, 'r') as file:
            layout = _layout(file.keys(), str(path))
            columns = {name: _column(name, file[name], str(path)) for name in layout}
            return columns, {key: _plain(value) for key, value in file.attrs.items()}
    except (OSError, KeyError) as error:
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) is no complete HDF5 file, truncated perhaps: {error}; '
            'delete it and fetch it again'
        ) from error


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) is no complete NumPy archive, truncated perhaps; '
            'numpy.savez writes one'
        )
    with np.load(path, allow_pickle=False) as archive:
        layout = _layout(archive.files, str(path))
        return {name: _column(name, _member(archive, name, path), str(path)) for name in layout}, {}


def _member(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(f'{path}: {name} is no readable column of numbers: {error}') from error


def _column(name: str, data, source: str) -> np.ndarray:
    """One column with the number of dimensions and the dtype it must have; a dataset is read once, as it is stored."""
    if not isinstance(data, (h5py.Dataset, np.ndarray)):
        raise ValueError(f'{source}: {name} is a group, not a column of numbers')
    if data.dtype.kind not in 'fiub':
        raise ValueError(f'{source}: {name} has dtype {data.dtype}; allowed are numbers')
    if name in ('actions', 'action') and data.dtype.kind in 'iub':
        raise ValueError(f'{source}: {name} has dtype {data.dtype}: discrete actions are not supported')
    shape = data.shape if name in MATRICES or len(data.shape) != 2 or data.shape[1] != 1 else data.shape[:1]
    dimensions = 2 if name in MATRICES else 1
    if len(shape) != dimensions or 0 in shape[1:]:
        meaning = '(transitions, width); images and scalar observations are not supported' if dimensions == 2 else \
            '(transitions,)'
        raise ValueError(f'{source}: {name} has shape {data.shape}; allowed is {meaning}')
    array = data[()] if isinstance(data, h5py.Dataset) else data
    if name in FLAGS and not np.isin(array, (0, 1)).all():
        row = int(np.argmin(np.isin(array.reshape(-1), (0, 1))))
        raise ValueError(f'{source}: {name} at row {row} is {array.reshape(-1)[row]}; allowed are 0 and 1, or a bool')
    return array.astype(bool if name in FLAGS else np.float32, copy=False).reshape(shape)


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _from_d4rl_layout(columns: dict, attributes: dict, env_id: str | None, source: str) -> Transitions:
    """The semantics of D4RL's ``qlearning_dataset``: row i gives (obs_i, action_i, obs_{i+1}, reward_i, terminal_i);
    the last row and rows with a timeout are left out."""
    obs, terminals, timeouts = columns['observations'], columns['terminals'], columns['timeouts']
    check_actions(columns['actions'], source)
    check_environment(obs, columns['actions'].shape[1], bool(terminals.any()), env_id, source)
    rows = np.flatnonzero(~timeouts[:-1])
    if len(rows) == 0:
        raise ValueError(f'{source}: no transition is left of {len(obs)} rows: the last row and timeouts do not count')

    def part(chunk: slice) -> dict[str, np.ndarray]:
        kept = rows[chunk]
        return dict(
            obs=obs.take(kept, axis=0),
            action=columns['actions'].take(kept, axis=0),
            reward=columns['rewards'].take(kept),
            next_obs=obs.take(kept + 1, axis=0),
            done=terminals.take(kept),
        )

    return Transitions(
        rows=fill_rows(len(rows), obs.shape[1], columns['actions'].shape[1], part),
        obs_shape=obs.shape[1],
        episode_returns=episode_returns(columns['rewards'], terminals | timeouts),
        source=source,
        attributes=attributes,
    )


def _from_ding_layout(columns: dict, attributes: dict, env_id: str | None, source: str) -> Transitions:
    """DI-engine's own files: complete rows, any order, so episodes cannot be told apart."""
    if columns['obs'].shape != columns['next_obs'].shape:
        shapes = f"obs {columns['obs'].shape} and next_obs {columns['next_obs'].shape}"
        raise ValueError(f'{source}: {shapes} differ in shape; both are (transitions, width)')
    check_actions(columns['action'], source)
    check_environment(columns['obs'], columns['action'].shape[1], bool(columns['done'].any()), env_id, source)
    size, obs_shape = columns['obs'].shape
    rows = fill_rows(
        size, obs_shape, columns['action'].shape[1],
        lambda chunk: {name: column[chunk] for name, column in columns.items()}
    )
    return Transitions(rows=rows, obs_shape=obs_shape, episode_returns=None, source=source, attributes=attributes)


def episode_returns(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Undiscounted returns (E,) in float64 of the whole episodes that end where ``ends`` (N,) is true."""
    last = np.flatnonzero(ends)
    running = np.concatenate([[0.0], np.cumsum(rewards, dtype=np.float64)])
    return np.diff(running[np.concatenate([[0], last + 1])])

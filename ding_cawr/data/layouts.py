"""Reading files to Transitions: the two layouts (D4RL's and DI-engine's), each in HDF5 or NPZ.

A file may be damaged, or made to do harm: whatever it holds, reading ends in Transitions or in a clear error.
"""
from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ding_cawr.checks import one_of
from ding_cawr.data.table import fill_table
from ding_cawr.data.transitions import Transitions, check_actions, check_columns, check_environment
from ding_cawr.tasks import gymnasium_id

D4RL_LAYOUT = ('observations', 'actions', 'rewards', 'terminals', 'timeouts')
DING_LAYOUT = ('obs', 'action', 'reward', 'next_obs', 'done')
MATRICES = ('observations', 'actions', 'obs', 'action', 'next_obs')
FLAGS = ('terminals', 'timeouts', 'done')
#: Columns may take so many bytes, or so many times the file's size: measured numbers compress to a half or so.
LARGEST_BYTES, LARGEST_EXPANSION = 256 << 20, 50


def read_transitions(path: str | Path, env_id: str | None = None, unit_actions: bool = True) -> Transitions:
    """Read a .hdf5 or .npz file in D4RL's or DI-engine's layout.

    Arguments:
        path: the file. HDF5 by .hdf5 or .h5, NumPy archive by .npz.
        env_id: environment that the data should be of; None skips that check.
        unit_actions: whether actions must be in [-1, 1]; else ``Transitions.scale_actions`` reads them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of these kinds, or its content is not usable; the message names what and why.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'dataset file {path} does not exist')
    readers = {'.hdf5': _read_hdf5, '.h5': _read_hdf5, '.npz': _read_npz}
    columns, attributes = readers[one_of(f'{path}: the ending', path.suffix, readers)](path)
    columns = {name: _converted(name, column, path) for name, column in columns.items()}
    _check_named_environment(attributes, env_id, path)
    check_columns(columns, str(path))
    if unit_actions:
        check_actions(columns.get('actions', columns.get('action')), str(path))
    convert = _from_d4rl_layout if 'observations' in columns else _from_ding_layout
    return convert(columns, attributes, env_id, str(path))


def _check_named_environment(attributes: dict, env_id: str | None, path: Path) -> None:
    """Raise a ValueError for a file whose attribute ``env_id`` names another environment."""
    named = attributes.get('env_id')
    if env_id and isinstance(named, str) and gymnasium_id(named) != gymnasium_id(env_id):
        raise ValueError(
            f'{path} says that it holds data of {_line(named, 60)}, which is another environment than env_id {env_id!r}'
        )


@contextmanager
def _reading(path: Path, problem: str) -> Iterator[None]:
    """Turn what h5py, zipfile and NumPy raise for a damaged file into a ValueError that begins with the path.

    Errors that do so already are passed on.
    """
    try:
        yield
    except Exception as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) {problem}: {_line(error, 200) or type(error).__name__}; it is '
            'truncated or damaged, fetch or write it again'
        ) from error


def _read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    with _reading(path, 'is not a complete HDF5 file'), h5py.File(path, 'r') as file:
        datasets = {name: _dataset(file, name, path) for name in _layout(file, path)}
        _check_size(sum(dataset.nbytes for dataset in datasets.values()), path)
        for name, dataset in datasets.items():
            _check_written(dataset, name, path)
        return {name: dataset[()] for name, dataset in datasets.items()}, _attributes(file)


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return the dataset of a column whose numbers are all in this file; none of them is read yet."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):  # following it could open any other file
        raise ValueError(f'{path}: {name} is a link, and links are not followed; store the column under its name')
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'{path}: {name} is a group, not a column of numbers')
    if dataset.is_virtual or dataset.external:
        raise ValueError(f'{path}: {name} has its numbers in other files, which are not read; store them in this one')
    _check_form(name, dataset.dtype, dataset.shape, path)
    return dataset


def _check_written(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Raise a ValueError for rows that were never written, which HDF5 reads as zeros, and for oversized chunks."""
    if dataset.chunks is None:
        written, wanted, unit = dataset.id.get_storage_size(), dataset.nbytes, 'bytes'
    else:
        chunks, chunk_bytes = {}, dataset.dtype.itemsize * math.prod(dataset.chunks)
        _check_size(chunk_bytes, path)
        dataset.id.chunk_iter(lambda chunk: chunks.update({chunk.chunk_offset: (chunk.size, chunk.filter_mask)}))
        for size, is_unfiltered in set(chunks.values()):
            if not (chunk_bytes if is_unfiltered else 1) <= size <= 1.1 * chunk_bytes + 1024:
                raise ValueError(f'{path}: {name} has a chunk of {chunk_bytes} bytes in {size} bytes; fetch it again')
        for offset in chunks:  # fails where reading the column would not find the chunk, and take zeros for it
            dataset.id.read_direct_chunk(offset)
        written, unit = len(chunks), 'chunks'
        wanted = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks))
    if written < wanted:
        raise ValueError(
            f'{path}: {name} has shape {dataset.shape}, but only {written} of its {wanted} {unit} were ever written; '
            'write all rows'
        )


def _attributes(file: h5py.File) -> dict:
    """Return the file's attributes that are texts, numbers or short arrays of numbers."""
    found = {}
    for key in file.attrs:
        stored = file.attrs.get_id(key)
        if stored.shape is None or math.prod(stored.shape) > 1000:
            continue
        value = file.attrs[key]
        value = value.item() if isinstance(value, np.generic) else value
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in 'fiub'
        if is_array or isinstance(value, (str, bytes, int, float)):
            found[key] = value.decode(errors='replace') if isinstance(value, bytes) else value
    return found


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    with _reading(path, 'is not a complete NumPy archive'), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        found = {member.filename.removesuffix('.npy'): member for member in members}
        if len(found) < len(members):
            raise ValueError(f'{path}: two arrays have the same name; numpy.savez writes one of each')
        layout = _layout(found, path)
        _check_size(sum(found[name].file_size for name in layout), path)
        return {name: _array(archive, found[name], name, path) for name in layout}, {}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path) -> np.ndarray:
    with _reading(path, f'has an unreadable column {name}'), archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):  # at its end the checksum is compared
            raise ValueError(f'there are more bytes than an array of shape {array.shape} has')
        _check_form(name, array.dtype, array.shape, path)
        return array


def _layout(names: Iterable[str], path: Path) -> tuple[str, ...]:
    """Return the layout whose columns are all there."""
    names = set(names)
    layout = min((D4RL_LAYOUT, DING_LAYOUT), key=lambda layout: len(set(layout) - names))
    missing = [name for name in layout if name not in names]
    if missing:
        raise ValueError(
            f"{path}: columns {missing} are missing; it has {_line(sorted(names), 300)}. It must have D4RL's layout "
            f"{list(D4RL_LAYOUT)} or DI-engine's {list(DING_LAYOUT)}"
        )
    return layout


def _line(value, size: int) -> str:
    """Return what a file says as part of a message: in one line, and no longer than so many characters."""
    text = ''.join(each if each.isprintable() else '?' for each in str(value))
    return text if len(text) <= size else f'{text[:size]}...'


def _check_size(declared: int, path: Path) -> None:
    """Raise a ValueError for a small file that says that it holds a lot."""
    size = path.stat().st_size
    if declared > max(LARGEST_BYTES, LARGEST_EXPANSION * size):
        raise ValueError(
            f'{path} ({size} bytes) declares columns of {declared} bytes; it must be at most {LARGEST_EXPANSION} times '
            f'its size or {LARGEST_BYTES} bytes. It is damaged, or made to fill the memory'
        )


def _check_form(name: str, dtype: np.dtype, shape: tuple[int, ...] | None, path: Path) -> None:
    """Raise a ValueError for a column of another dtype or number of dimensions than it must have."""
    if dtype.kind not in 'fiub':
        raise ValueError(f'{path}: {name} has dtype {_line(dtype, 100)}; it must be numbers')
    if name in ('actions', 'action') and dtype.kind in 'iub':
        raise ValueError(f'{path}: {name} has dtype {dtype}: discrete actions are not supported')
    dimensions = 2 if name in MATRICES else 1
    if shape is None or len(_flat(name, shape)) != dimensions or 0 in shape[1:]:
        form = '(transitions, width); images and scalar observations are not supported' if dimensions == 2 else \
            '(transitions,)'
        raise ValueError(f'{path}: {name} has shape {shape}; it must be {form}')


def _flat(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a column; one of numbers may have been stored with a width of 1."""
    return shape if name in MATRICES or len(shape) != 2 or shape[1] != 1 else shape[:1]


def _converted(name: str, array: np.ndarray, path: Path) -> np.ndarray:
    """Return a column with the dtype and the number of dimensions that it must have."""
    if name in FLAGS:
        raw = array.view(np.uint8) if array.dtype == bool else array  # a bool is a byte, which may have any value
        if not ((raw == 0) | (raw == 1)).all():
            row = int(np.argmin(np.isin(raw, (0, 1)).reshape(-1)))
            raise ValueError(f'{path}: {name} at row {row} is {raw.reshape(-1)[row]}; it must be 0 or 1, or a bool')
    with np.errstate(over='ignore'):  # infinities are found later, by name
        return array.astype(bool if name in FLAGS else np.float32, copy=False).reshape(_flat(name, array.shape))


def _from_d4rl_layout(columns: dict, attributes: dict, env_id: str | None, source: str) -> Transitions:
    """Return what D4RL's ``qlearning_dataset`` does: row i gives (obs_i, action_i, obs_{i+1}, reward_i, terminal_i).

    The last row and rows with a timeout are left out.
    """
    obs, terminals, timeouts = columns['observations'], columns['terminals'], columns['timeouts']
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
        table=fill_table(len(rows), obs.shape[1], columns['actions'].shape[1], part),
        episode_returns=episode_returns(columns['rewards'], terminals | timeouts),
        source=source,
        attributes=attributes,
    )


def _from_ding_layout(columns: dict, attributes: dict, env_id: str | None, source: str) -> Transitions:
    """Return the rows of DI-engine's own files, which are in any order, so that episodes are unknown."""
    if columns['obs'].shape != columns['next_obs'].shape:
        shapes = f"obs {columns['obs'].shape} and next_obs {columns['next_obs'].shape}"
        raise ValueError(f'{source}: {shapes} differ in shape; both are (transitions, width)')
    check_environment(columns['obs'], columns['action'].shape[1], bool(columns['done'].any()), env_id, source)
    size, obs_shape = columns['obs'].shape
    table = fill_table(
        size, obs_shape, columns['action'].shape[1],
        lambda chunk: {name: column[chunk] for name, column in columns.items()}
    )
    return Transitions(table=table, episode_returns=None, source=source, attributes=attributes)


def episode_returns(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the undiscounted returns (E,) in float64 of the whole episodes that end where ``ends`` (N,) is true."""
    last = np.flatnonzero(ends)
    running = np.concatenate([[0.0], np.cumsum(rewards, dtype=np.float64)])
    return np.diff(running[np.concatenate([[0], last + 1])])

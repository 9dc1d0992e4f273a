"""Files to Transitions: the two layouts (D4RL's and DI-engine's), each in HDF5 or NPZ."""
from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
#: Columns of a file may need so much memory, or so many times the file's size: measured numbers pack to a half or so.
ALLOWED_BYTES, ALLOWED_EXPANSION = 256 << 20, 50


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
            f'{source} says that it holds data of {_line(named, 60)}, which is another environment than env_id '
            f'{env_id!r}'
        )


def _layout(names: Iterable[str], source: str) -> tuple[str, ...]:
    """The layout whose columns are all there."""
    for layout in (D4RL_LAYOUT, DING_LAYOUT):
        if set(layout) <= set(names):
            return layout
    layout = min((D4RL_LAYOUT, DING_LAYOUT), key=lambda layout: len(set(layout) - set(names)))
    missing = [name for name in layout if name not in names]
    raise ValueError(
        f'{source}: columns {missing} are missing; it has {_line(sorted(map(str, names)), 300)}. Allowed are '
        f"D4RL's layout {list(D4RL_LAYOUT)} and DI-engine's {list(DING_LAYOUT)}"
    )


def _line(value, size: int) -> str:
    """What a file says, as part of a message: in one line, and no longer than so many characters."""
    text = ''.join(each if each.isprintable() else '?' for each in str(value))
    return text if len(text) <= size else f'{text[:size]}...'


def _check_size(declared: int, path: Path) -> None:
    """A small file that says it holds a lot is not unpacked."""
    size = path.stat().st_size
    if declared > max(ALLOWED_BYTES, ALLOWED_EXPANSION * size):
        raise ValueError(
            f'{path} ({size} bytes) declares columns of {declared} bytes; allowed are {ALLOWED_EXPANSION} times its '
            f'size or {ALLOWED_BYTES} bytes. It is damaged, or made to fill the memory'
        )


# ---------------------------------------------------------------- HDF5


def _read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    source = str(path)
    with _whole(path):
        file = h5py.File(path, 'r')
    with file:
        with _whole(path):
            names = list(file)
        layout = _layout(names, source)
        datasets = {name: _dataset(file, name, path) for name in layout}
        _check_size(sum(dataset.nbytes for dataset in datasets.values()), path)
        _check_places(datasets, path)
        columns = {}
        for name, dataset in datasets.items():
            with _whole(path):
                array = dataset[()]
            columns[name] = _column(name, array, source)
        with _whole(path):
            return columns, _attributes(file)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Around calls of h5py, which fails in many ways where a file is damaged."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) is no complete HDF5 file, truncated perhaps: {_line(error, 200)}; '
            'delete it and fetch it again'
        ) from error


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A column's dataset, whose numbers are all in this file; nothing of them is read yet."""
    with _whole(path):
        link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):  # following it could open any other file
        raise ValueError(f'{path}: {name} is a link, and links are not followed; store the column under its name')
    with _whole(path):
        dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'{path}: {name} is a group, not a column of numbers')
    with _whole(path):
        dtype, shape, is_elsewhere = dataset.dtype, dataset.shape, dataset.is_virtual or dataset.external
        is_standard = dtype.kind != 'f' or h5py.h5t.py_create(dtype) == dataset.id.get_type()
    if is_elsewhere:
        raise ValueError(f'{path}: {name} has its numbers in other files, which are not read; store them in this one')
    if not is_standard:
        raise ValueError(f'{path}: {name} has floats that are not IEEE 754; allowed are those of NumPy')
    _check_form(name, dtype, shape, str(path))
    _check_chunks(dataset, name, path)
    return dataset


def _check_chunks(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Every row was written, and no piece of the column unpacks to more than the column needs.

    HDF5 gives zeros for rows that were not, however many rows there are said to be.
    """
    chunk_shape, chunks = dataset.chunks, []
    with _whole(path):
        stored = dataset.id.get_storage_size()
        if chunk_shape:
            dataset.id.chunk_iter(lambda chunk: chunks.append(chunk))
    if chunk_shape is None:
        written, wanted, unit = stored, dataset.nbytes, 'bytes'
    else:
        chunk_bytes = dataset.dtype.itemsize * math.prod(chunk_shape)
        _check_size(chunk_bytes, path)
        for size, unpacked in {(chunk.size, chunk.filter_mask) for chunk in chunks}:  # unpacked is of full size
            if not (chunk_bytes if unpacked else 1) <= size <= 1.1 * chunk_bytes + 1024:
                raise ValueError(
                    f'{path}: {name} has {chunk_bytes} bytes of numbers stored in {size} bytes; the file is damaged, '
                    'fetch it again'
                )
        with _whole(path):
            for chunk in chunks:  # reading the column takes those that it does not find for zeros
                dataset.id.read_direct_chunk(chunk.chunk_offset)
        written, unit = len({chunk.chunk_offset for chunk in chunks}), 'chunks'
        wanted = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, chunk_shape))
    if written < wanted:
        raise ValueError(
            f'{path}: {name} has shape {dataset.shape}, but only {written} of its {wanted} {unit} were ever written; '
            'write all rows'
        )


def _check_places(datasets: dict[str, h5py.Dataset], path: Path) -> None:
    """No two columns are the same bytes of the file: an address of one of them would be damaged."""
    with _whole(path):
        places = [(dataset.id.get_offset(), name, dataset.nbytes) for name, dataset in datasets.items()]
    places = sorted(place for place in places if place[0] is not None)
    for (start, name, size), (next_start, next_name, _) in zip(places, places[1:]):
        if start + size > next_start:
            raise ValueError(f'{path}: {name} and {next_name} overlap in the file; it is damaged, fetch it again')


def _attributes(file: h5py.File) -> dict:
    """Texts, numbers and short arrays of numbers that the file says of itself; nothing else is read."""
    found = {}
    for key in file.attrs:
        stored = file.attrs.get_id(key)
        if stored.shape is None or math.prod(stored.shape) > 1000:
            continue
        value = _plain(file.attrs[key])
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in 'fiub'
        if is_array or isinstance(value, (str, bytes, int, float)):
            found[key] = value.decode(errors='replace') if isinstance(value, bytes) else value
    return found


# ---------------------------------------------------------------- NPZ


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged file makes zipfile fail in many ways
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) is no complete NumPy archive, truncated perhaps; '
            'numpy.savez writes one'
        ) from error
    with archive:
        members = archive.infolist()
        found = {member.filename.removesuffix('.npy'): member for member in members}
        layout = _layout(found, str(path))
        names = [member.filename.removesuffix('.npy') for member in members]
        twice = [name for name in layout if names.count(name) > 1]
        if twice:
            raise ValueError(f'{path}: {twice} are in it more than once; allowed is one array a name')
        _check_size(sum(found[name].file_size for name in layout), path)
        return {name: _column(name, _member(archive, found[name], path), str(path)) for name in layout}, {}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    try:
        with archive.open(member) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # at its end the checksum is compared
                raise ValueError(f'there are more bytes than an array of shape {array.shape} has')
            return array
    except Exception as error:  # a damaged file makes zipfile and NumPy fail in many ways
        raise ValueError(
            f'{path}: {member.filename.removesuffix(".npy")} is no readable column of numbers: '
            f'{_line(error, 200) or type(error).__name__}'
        ) from error


# ---------------------------------------------------------------- columns


def _check_form(name: str, dtype: np.dtype, shape: tuple[int, ...] | None, source: str) -> None:
    """The dtype and the number of dimensions of a column."""
    if dtype.kind not in 'fiub':
        raise ValueError(f'{source}: {name} has dtype {_line(dtype, 100)}; allowed are numbers')
    if name in ('actions', 'action') and dtype.kind in 'iub':
        raise ValueError(f'{source}: {name} has dtype {dtype}: discrete actions are not supported')
    dimensions = 2 if name in MATRICES else 1
    if shape is None or len(_flat(name, shape)) != dimensions or 0 in shape[1:]:
        meaning = '(transitions, width); images and scalar observations are not supported' if dimensions == 2 else \
            '(transitions,)'
        raise ValueError(f'{source}: {name} has shape {shape}; allowed is {meaning}')


def _flat(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a column; one of numbers may have been stored with a width of 1."""
    return shape if name in MATRICES or len(shape) != 2 or shape[1] != 1 else shape[:1]


def _column(name: str, array: np.ndarray, source: str) -> np.ndarray:
    """One column with the number of dimensions and the dtype it must have."""
    _check_form(name, array.dtype, array.shape, source)
    if name in FLAGS:
        raw = array.view(np.uint8) if array.dtype == bool else array  # a bool is a byte, which may have any value
        if not ((raw == 0) | (raw == 1)).all():
            row = int(np.argmin(np.isin(raw, (0, 1)).reshape(-1)))
            raise ValueError(f'{source}: {name} at row {row} is {raw.reshape(-1)[row]}; allowed are 0 and 1, or a bool')
    with np.errstate(over='ignore'):  # infinities are found later, by name
        return array.astype(bool if name in FLAGS else np.float32, copy=False).reshape(_flat(name, array.shape))


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

"""HDF5 files that are damaged or made to do harm."""
from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fuzz.columns import column_mutations, d4rl_columns, d4rl_meaning, ding_columns, ding_meaning, load_columns
from fuzz.files import OTHER_FILES, ROWS, Kind, Mutation, Values


def write_hdf5(path: Path, columns: Values, **options) -> None:
    with h5py.File(path, 'w') as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, **(options if np.ndim(column) else {}))


def _hdf5(change: Callable[[h5py.File, str, np.random.Generator], object]) -> Mutation:
    """``change(file, name, generator)`` with the name of one column, in Minari's layout in one of the episodes."""
    def mutate(path: Path, generator: np.random.Generator) -> None:
        with h5py.File(path, 'a') as file:
            group = file[str(generator.choice(sorted(file)))] if 'episode_0' in file else file
            change(group, str(generator.choice(sorted(name for name in group if name != 'truncations'))), generator)
    return mutate


def _instead(make: Callable[[h5py.File, str, np.ndarray], object]) -> Mutation:
    """One column gives way to what ``make(file, name, its values)`` puts under that name."""
    def change(file: h5py.File, name: str, generator: np.random.Generator) -> None:
        values = file[name][()]
        del file[name]
        make(file, name, values)
    return _hdf5(change)


def _all_instead(make: Callable[[h5py.File, str, np.ndarray], object]) -> Mutation:
    def change(file: h5py.File, name: str, generator: np.random.Generator) -> None:
        for each in sorted(file):
            values = file[each][()]
            del file[each]
            make(file, each, values)
    return _hdf5(change)


def _linked(link: Callable[[str], object]) -> Mutation:
    return _instead(lambda file, name, values: file.__setitem__(name, link(name)))


def _soft_cycle(file: h5py.File, name: str, values: np.ndarray) -> None:
    file[name], file['other'] = h5py.SoftLink('/other'), h5py.SoftLink(f'/{name}')


def _soft_through_external(file: h5py.File, name: str, values: np.ndarray) -> None:
    file['elsewhere'] = h5py.ExternalLink('outside.hdf5', '/')
    file[name] = h5py.SoftLink(f'/elsewhere/{name}')


def _moved(file: h5py.File, name: str, values: np.ndarray) -> None:
    file['moved'] = values
    file[name] = h5py.SoftLink('/moved')


def _raw(target: str) -> Mutation:
    return _instead(lambda file, name, values: file.create_dataset(
        name, values.shape, values.dtype, external=[(target, 0, h5py.h5f.UNLIMITED)]))


def _virtual(target: str) -> Mutation:
    def make(file: h5py.File, name: str, values: np.ndarray) -> None:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[...] = h5py.VirtualSource(target, name, values.shape)
        file.create_virtual_dataset(name, layout)
    return _instead(make)


def _declared(rows: int, chunk: int | None = 1000, **options) -> Callable[[h5py.File, str, np.ndarray], object]:
    """A column of so many rows, none of which was ever written."""
    return lambda file, name, values: file.create_dataset(
        name, (rows, *values.shape[1:]), values.dtype, chunks=chunk and (chunk, *values.shape[1:]), **options)


def _half_written(file: h5py.File, name: str, values: np.ndarray) -> None:
    column = file.create_dataset(name, values.shape, values.dtype, chunks=(10, *values.shape[1:]))
    column[:30] = values[:30]


def _bomb(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Gigabytes in some kilobytes: one packed chunk of 8 MiB, stored many times, at the lowest level of the library."""
    rows = (8 << 20) // (values.dtype.itemsize * int(np.prod(values.shape[1:])))
    column = file.create_dataset(
        name, (100 * rows, *values.shape[1:]), values.dtype, chunks=(rows, *values.shape[1:]), compression='gzip')
    packed = zlib.compress(np.zeros((rows, *values.shape[1:]), values.dtype), 1)
    for index in range(100):
        column.id.write_direct_chunk((index * rows, *(0 for _ in values.shape[1:])), packed)


def _chunk_bomb(file: h5py.File, name: str, values: np.ndarray) -> None:
    """A column of the right size whose only chunk unpacks to 800 MiB, or, where HDF5 before 2.0 allows no more for a
    chunk as small as this, to 48 MiB."""
    column = file.create_dataset(name, values.shape, values.dtype, chunks=values.shape, compression='gzip')
    small = h5py.version.hdf5_version_tuple < (2, 0, 0)
    packer = zlib.compressobj(9)
    packed = b''.join(packer.compress(bytes(1 << 24)) for _ in range(3 if small else 50)) + packer.flush()
    column.id.write_direct_chunk((0, ) * values.ndim, packed)


def _huge_chunk(file: h5py.File, name: str, values: np.ndarray) -> None:
    """A column of the right size in a chunk of a gigabyte, which is read as a whole."""
    rows = (1 << 30) // (values.dtype.itemsize * int(np.prod(values.shape[1:])))
    column = file.create_dataset(
        name, values.shape, values.dtype, chunks=(rows, *values.shape[1:]), maxshape=(None, *values.shape[1:]),
        compression='gzip')
    column.id.write_direct_chunk((0, ) * values.ndim, zlib.compress(values.tobytes()))


def _objects(dtype: Any, value: Any) -> Mutation:
    def make(file: h5py.File, name: str, values: np.ndarray) -> None:
        column = file.create_dataset(name, values.shape, dtype)
        column[(0, ) * values.ndim] = value
    return _instead(make)


def _attribute(value: Callable[[h5py.File], Any]) -> Mutation:
    return _hdf5(lambda file, name, generator: file.attrs.__setitem__('env_id', value(file)))


HDF5: dict[str, Mutation] = {
    'external link': _linked(lambda name: h5py.ExternalLink('outside.hdf5', name)),
    'external link to nowhere': _linked(lambda name: h5py.ExternalLink('nowhere.hdf5', name)),
    'external link to /etc/passwd': _linked(lambda name: h5py.ExternalLink('/etc/passwd', name)),
    'external link to a pipe': _linked(lambda name: h5py.ExternalLink('outside.pipe', name)),
    'external link to itself': _linked(lambda name: h5py.ExternalLink('data.hdf5', name)),
    'soft link to nowhere': _linked(lambda name: h5py.SoftLink('/nowhere/' + name)),
    'soft link to itself': _linked(lambda name: h5py.SoftLink('/' + name)),
    'soft link cycle': _instead(_soft_cycle),
    'soft link through an external one': _instead(_soft_through_external),
    'soft link to the column': _instead(_moved),
    'soft link to the root': _linked(lambda name: h5py.SoftLink('/')),
    'hard link cycle': _hdf5(lambda file, name, generator: file.__setitem__('loop', file['/'])),
    'hard link to the root': _instead(lambda file, name, values: file.__setitem__(name, file['/'])),
    'raw storage in /etc/passwd': _raw('/etc/passwd'),
    'raw storage in another file': _raw('outside.hdf5'),
    'raw storage in a pipe': _raw('outside.pipe'),
    'raw storage nowhere': _raw('nowhere.bin'),
    'virtual, of another file': _virtual('outside.hdf5'),
    'virtual, of no file': _virtual('nowhere.hdf5'),
    'virtual, of a pipe': _virtual('outside.pipe'),
    'group': _instead(lambda file, name, values: file.create_group(name)),
    'column in a group': _instead(lambda file, name, values: file.__setitem__(f'{name}/{name}', values)),
    'type for a column': _instead(lambda file, name, values: file.__setitem__(name, np.dtype('f4'))),
    'no values': _instead(lambda file, name, values: file.__setitem__(name, h5py.Empty('f4'))),
    'text of any length': _objects(h5py.string_dtype(), 'text'),
    'rows of any length': _objects(h5py.vlen_dtype(np.float32), np.ones(3, np.float32)),
    'references': _objects(h5py.ref_dtype, None),
    'enumeration': _instead(lambda file, name, values: file.create_dataset(
        name, values.shape, h5py.enum_dtype({'A': 0, 'B': 7}, basetype='i4'), fillvalue=7)),
    'arrays as entries': _instead(lambda file, name, values: file.create_dataset(
        name, (len(values), ), np.dtype(('f4', (11, ))))),
    '10**12 rows': _instead(_declared(10**12)),
    '10**18 rows of one': _instead(lambda file, name, values: file.create_dataset(
        name, (10**18, ), values.dtype, chunks=(1000, ))),
    '10**12 rows in all columns': _all_instead(_declared(10**12)),
    '10**8 rows in all columns': _all_instead(_declared(10**8, compression='gzip')),
    'no row written': _instead(_declared(ROWS, None)),
    'no chunk written': _instead(_declared(ROWS, 10)),
    'half written': _instead(_half_written),
    'bomb': _instead(_bomb),
    'bomb in all columns': _all_instead(_bomb),
    'bomb of one chunk': _instead(_chunk_bomb),
    'huge chunk': _instead(_huge_chunk),
    'env_id of another environment': _attribute(lambda file: 'Walker2d-v4'),
    'env_id of lines': _attribute(lambda file: 'Walker2d\nv4\x1b[31m' * 3000),
    'env_id of bytes': _attribute(lambda file: np.bytes_(b'\xff\xfe')),
    'env_id of numbers': _attribute(lambda file: np.arange(5000)),
    'env_id of a reference': _attribute(lambda file: file.ref),
    'env_id empty': _attribute(lambda file: h5py.Empty('f4')),
    'thousands of groups': _hdf5(lambda file, name, generator: [file.create_group(f'g{i}') for i in range(3000)]),
    'thousands of groups and a column less': _instead(
        lambda file, name, values: [file.create_group(f'g{i}') for i in range(3000)]),
}


def _hdf5_kind(columns: Callable[[], Values], meaning: Callable, plain: bool, **options) -> Kind:
    write = partial(write_hdf5, **options)
    return Kind(
        'data.hdf5', lambda path: write(path, columns()), load_columns, meaning, columns,
        {**OTHER_FILES, **column_mutations(columns(), write), **HDF5}, plain,
    )


def minari_columns() -> Values:
    """Hopper's columns in Minari's layout, flat: two episodes, of which the first ends and the second is cut off."""
    columns = d4rl_columns()
    return {
        f'episode_{episode}/{name}': column for episode, (start, end) in enumerate([(0, 20), (21, 59)])
        for name, column in dict(
            observations=columns['observations'][start:end + 1], actions=columns['actions'][start:end],
            rewards=columns['rewards'][start:end], terminations=columns['terminals'][start:end],
            truncations=np.arange(start, end) == 58,
        ).items()
    }


def minari_meaning(columns: Values) -> Values:
    def joined(name: str, part: slice = slice(None)) -> np.ndarray:
        return np.concatenate([columns[f'episode_{episode}/{name}'][part] for episode in range(2)])
    return dict(
        obs=joined('observations', slice(-1)), action=joined('actions'), reward=joined('rewards'),
        next_obs=joined('observations', slice(1, None)), done=joined('terminations'),
    )


KINDS = {
    "HDF5, Minari's layout, gzip": Kind(
        'data.hdf5', lambda path: write_hdf5(path, minari_columns(), compression='gzip'), load_columns, minari_meaning,
        minari_columns, {**OTHER_FILES, **HDF5},
    ),
    "HDF5, D4RL's layout": _hdf5_kind(d4rl_columns, d4rl_meaning, plain=True),
    "HDF5, DI-engine's layout, gzip": _hdf5_kind(ding_columns, ding_meaning, plain=False, compression='gzip'),
}

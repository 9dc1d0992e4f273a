"""Files damaged or made to do harm, and what came of loading them: every try ends in a clear error or a correct load.

A mutation takes the path of a clean file and a random generator and changes the file in place. It returns what the file
may now be read as, by the file's names, or None where only the clean values may come out of it. ``KINDS`` has the kinds
of files with their mutations, ``run`` tries them in a process of their own, with bounds on time and memory.
"""
from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import resource
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from helpers import MakesFolder

from ding_cawr import load_transitions
from ding_cawr.checkpoint import read_checkpoint, read_policy
from ding_cawr.model import CAWRModel

Values = dict[str, Any]
Mutation = Callable[[Path, np.random.Generator], 'Values | None']

ROWS, OBS, ACT = 60, 11, 3
ENV_ID = 'hopper-medium-v2'
SECONDS = 30
ADDRESS_SPACE = 3 << 30
PEAK = 700 << 20  # a load of some kilobytes may take 256 MiB of declared columns and their rows
DIFFERS = 'the load differs from the file'
NUMBERS = 'a number in the file is another one'
TABLES = "HDF5's tables are other ones, and the file one that could have been meant so"
VERDICTS = ('error', 'correct', 'undetectable', 'crash', 'hang', 'wrong')


# ---------------------------------------------------------------- clean files


def d4rl_columns(seed: int = 0) -> Values:
    """Hopper's columns in D4RL's layout: an episode that ends, one with a timeout, and an open one."""
    generator = np.random.default_rng(seed)
    obs = generator.normal(size=(ROWS, OBS)).astype(np.float32)
    obs[:, 0] = generator.uniform(0.8, 1.5, ROWS)
    return dict(
        observations=obs, actions=generator.uniform(-1, 1, (ROWS, ACT)).astype(np.float32),
        rewards=generator.uniform(0, 4, ROWS).astype(np.float32),
        terminals=np.arange(ROWS) == 19, timeouts=np.arange(ROWS) == 49,
    )


def ding_columns(seed: int = 0) -> Values:
    """The same in DI-engine's layout."""
    columns = d4rl_columns(seed)
    return dict(
        obs=columns['observations'], action=columns['actions'], reward=columns['rewards'][:, None],
        next_obs=d4rl_columns(seed + 1)['observations'], done=columns['terminals'],
    )


def checkpoint_state(seed: int = 0) -> Values:
    """What a learner writes of its policy and critics, hidden layers of 16 and 8."""
    torch.manual_seed(seed)
    model = CAWRModel(OBS, ACT, (16, 8))
    return {
        'model': model.state_dict(),
        'target_critic': {name: each + 1 for name, each in model.critic.state_dict().items()},
        'obs_statistics': torch.stack([torch.zeros(OBS), torch.ones(OBS)]), 'iteration': 4, 'env_id': ENV_ID,
        'optimizer': {'step': torch.tensor(3.0)},
    }


def write_hdf5(path: Path, columns: Values, **options) -> None:
    with h5py.File(path, 'w') as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, **(options if np.ndim(column) else {}))


def write_npz(path: Path, columns: Values) -> None:
    np.savez(path, **columns)


# ---------------------------------------------------------------- what a file means


def d4rl_meaning(columns: Values) -> Values:
    """D4RL's qlearning_dataset."""
    obs, rows = columns['observations'], np.flatnonzero(~columns['timeouts'][:-1].astype(bool))
    return dict(
        obs=obs[rows], action=columns['actions'][rows], reward=columns['rewards'][rows], next_obs=obs[rows + 1],
        done=columns['terminals'][rows],
    )


def ding_meaning(columns: Values) -> Values:
    return {**columns, 'reward': columns['reward'].reshape(-1)}


def policy_meaning(state: Values) -> Values:
    network = {name: each for name, each in state['model'].items() if name.startswith('policy.')}
    return {**network, **{name: state[name] for name in ('obs_statistics', 'iteration', 'env_id')}}


def checkpoint_meaning(state: Values) -> Values:
    return {f'{part}.{name}': each for part in ('model', 'target_critic') for name, each in state[part].items()}


def load_columns(path: Path) -> Values:
    return {name: column.numpy() for name, column in load_transitions(path, ENV_ID).columns().items()}


def load_acting(path: Path) -> Values:
    found = read_policy(path)
    network = {f'policy.{name}': each for name, each in found.pop('network').state_dict().items()}
    return {**network, **found}


def load_learner(path: Path) -> Values:
    return checkpoint_meaning(read_checkpoint(path, CAWRModel(OBS, ACT, (16, 8))))


def same(one: Values, other: Values) -> bool:
    """Whether two readings have the same names and values, as float32 where they are numbers."""
    def equal(a, b) -> bool:
        if isinstance(a, (np.ndarray, torch.Tensor)) and isinstance(b, (np.ndarray, torch.Tensor)):
            a, b = (np.asarray(each.detach() if isinstance(each, torch.Tensor) else each) for each in (a, b))
            return a.shape == b.shape and np.array_equal(a.astype(np.float32), b.astype(np.float32))
        return type(a) is type(b) and a == b
    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- bytes of any file


def _bytes(change: Callable[[bytearray, np.random.Generator], bytes | bytearray]) -> Mutation:
    def mutate(path: Path, generator: np.random.Generator) -> None:
        path.write_bytes(change(bytearray(path.read_bytes()), generator))
    return mutate


def _flip(content: bytearray, generator, low: float = 0.0, high: float = 1.0, bits: bool = False) -> bytearray:
    """Up to eight bytes between these shares of the file become others, or one bit does."""
    for _ in range(1 if bits else generator.integers(1, 9)):
        place = int(generator.integers(int(low * len(content)), max(int(high * len(content)), 1)))
        content[place] ^= 1 << int(generator.integers(8)) if bits else int(generator.integers(1, 256))
    return content


def _flip_head(content: bytearray, generator) -> bytearray:
    """A byte of the first two kilobytes, where HDF5 has its tables."""
    content[int(generator.integers(min(len(content), 2048)))] ^= int(generator.integers(1, 256))
    return content


def _zeros(content: bytearray, generator) -> bytearray:
    start = int(generator.integers(len(content)))
    size = min(int(generator.integers(1, 513)), len(content) - start)
    content[start:start + size] = bytes(size)
    return content


def _in_place_of(make: Callable[[Path], object]) -> Mutation:
    def mutate(path: Path, generator: np.random.Generator) -> None:
        path.unlink()
        make(path)
    return mutate


RANDOM: dict[str, Mutation] = {
    'bit flipped': _bytes(partial(_flip, bits=True)),
    'bytes flipped': _bytes(_flip),
    'bytes flipped at the start': _bytes(_flip_head),
    'bytes flipped at the end': _bytes(partial(_flip, low=0.9)),
    'zeros': _bytes(_zeros),
    'truncated': _bytes(lambda content, generator: content[:int(generator.integers(len(content)))]),
    'cut by little': _bytes(lambda content, generator: content[:-int(generator.integers(1, 65))]),
}
OTHER_FILES: dict[str, Mutation] = {
    'empty': _bytes(lambda content, generator: b''),
    'html': _bytes(lambda content, generator: b'<html>404</html>'),
    'text': _bytes(lambda content, generator: 'größer\n'.encode() * 99),
    'noise': _bytes(lambda content, generator: generator.bytes(5000)),
    'executable': _bytes(lambda content, generator: b'\x7fELF' + bytes(4000)),
    'zeros alone': _bytes(lambda content, generator: bytes(len(content))),
    'signature alone': _bytes(lambda content, generator: content[:8]),
    'pickle': _in_place_of(lambda path: path.write_bytes(pickle.dumps(MakesFolder(path.parent / 'made')))),
    'old torch file': _in_place_of(lambda path: torch.save(
        {'model': MakesFolder(path.parent / 'made')}, path, _use_new_zipfile_serialization=False)),
    'gzip': _bytes(lambda content, generator: zlib.compress(content, wbits=31)),
    'npy': _in_place_of(lambda path: path.write_bytes(_npy(np.ones(3)))),
    'folder': _in_place_of(os.mkdir),
    'pipe': _in_place_of(os.mkfifo),
    'device': _in_place_of(lambda path: path.symlink_to('/dev/zero')),
    'link to nowhere': _in_place_of(lambda path: path.symlink_to('nowhere')),
    'bytes appended': _bytes(lambda content, generator: content + generator.bytes(300)),
    'bytes in front': _bytes(lambda content, generator: generator.bytes(300) + content),
    'doubled': _bytes(lambda content, generator: content + content),
}


# ---------------------------------------------------------------- columns, whichever file they are in


def _float_name(columns: Values, generator) -> str:
    return str(generator.choice([name for name, column in columns.items() if column.dtype.kind == 'f']))


def _flag_name(columns: Values, generator) -> str:
    return str(generator.choice([name for name, column in columns.items() if column.dtype.kind == 'b']))


def _name(columns: Values, generator) -> str:
    return str(generator.choice(list(columns)))


def _one(change: Callable, name: Callable = _name) -> Callable[[Values, np.random.Generator], Values]:
    """One column, drawn by ``name``, becomes ``change(column, generator)``."""
    def changed(columns: Values, generator: np.random.Generator) -> Values:
        which = name(columns, generator)
        return {**columns, which: change(columns[which], generator)}
    return changed


def _spoil(value: float, dtype=np.float32) -> Callable:
    def spoiled(column: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        column = column.astype(dtype)
        column.reshape(-1)[int(generator.integers(column.size))] = value
        return column
    return spoiled


def _without(columns: Values, generator) -> Values:
    dropped = _name(columns, generator)
    return {name: column for name, column in columns.items() if name != dropped}


def _renamed(columns: Values, generator) -> Values:
    which = _name(columns, generator)
    new = str(generator.choice([which + 's', which.upper(), which[:-1], 'infos', 'é' * 40]))
    return {new if name == which else name: column for name, column in columns.items()}


def _swapped(columns: Values, generator) -> Values:
    """Two columns of other shapes have each other's names; two flags would be as good as true."""
    obs, action = [name for name, column in columns.items() if column.ndim == 2 and column.shape[1] > 1][:2]
    return {**columns, obs: columns[action], action: columns[obs]}


UNUSABLE_COLUMNS: dict[str, Callable[[Values, np.random.Generator], Values]] = {
    'column dropped': _without,
    'column renamed': _renamed,
    'columns swapped': _swapped,
    'no columns': lambda columns, generator: {},
    'complex': _one(lambda column, generator: column.astype(np.complex64) + 1j),
    'byte strings': _one(lambda column, generator: column.astype('S12')),
    'void': _one(lambda column, generator: np.zeros(column.shape, 'V4')),
    'records': _one(lambda column, generator: np.zeros(column.shape, [('a', 'f4'), ('b', 'i4')])),
    'integers for actions': lambda columns, generator: {
        name: column.astype(int) if name in ('action', 'actions') else column for name, column in columns.items()},
    'huge integers': _one(lambda column, generator: np.full(column.shape, 2**62), _float_name),
    'flag of 2': _one(_spoil(2, np.int8), _flag_name),
    'flag of 0.5': _one(_spoil(0.5), _flag_name),
    'flag of NaN': _one(_spoil(np.nan), _flag_name),
    'transposed': _one(lambda column, generator: column.T if column.ndim == 2 else column[None]),
    'further dimension': _one(lambda column, generator: column[..., None, None]),
    'one row fewer': _one(lambda column, generator: column[:-1]),
    'a row more': _one(lambda column, generator: np.concatenate([column, column[-1:]])),
    'one column without rows': _one(lambda column, generator: column[:0]),
    'no rows': lambda columns, generator: {name: column[:0] for name, column in columns.items()},
    'no width': _one(lambda column, generator: column.reshape(ROWS, -1)[:, :0]),
    'scalar': _one(lambda column, generator: column.reshape(-1)[0]),
    'flat': _one(lambda column, generator: column.reshape(-1),
                 lambda columns, generator: str(generator.choice(
                     [name for name, column in columns.items() if column.ndim == 2 and column.shape[1] > 1]))),
    'NaN': _one(_spoil(np.nan), _float_name),
    'infinity': _one(_spoil(np.inf), _float_name),
    'negative infinity': _one(_spoil(-np.inf), _float_name),
    'all NaN': _one(lambda column, generator: column * np.nan, _float_name),
    'largest float32': _one(_spoil(3.4e38), _float_name),
    'negative 1e30': _one(_spoil(-1e30), _float_name),
    '1e300': _one(_spoil(1e300, np.float64), _float_name),
    'long double beyond float64': _one(_spoil(np.longdouble('1e4000'), np.longdouble), _float_name),
    'actions of 1.5': lambda columns, generator: {
        name: column * 1.5 if name in ('action', 'actions') else column for name, column in columns.items()},
    'another environment': lambda columns, generator: {
        name: np.tile(column, 2) if column.ndim == 2 else column for name, column in columns.items()},
    'heights of another environment': lambda columns, generator: {
        name: column - 9 if name in ('obs', 'observations') else column for name, column in columns.items()},
}
USABLE_COLUMNS: dict[str, Callable[[Values, np.random.Generator], Values]] = {
    'float64': _one(lambda column, generator: column.astype(np.float64)),
    'float16': _one(lambda column, generator: column.astype(np.float16)),
    'long double': _one(lambda column, generator: column.astype(np.longdouble), _float_name),
    'big endian': _one(lambda column, generator: column.astype('>f4')),
    'bool for floats': _one(lambda column, generator: column > 0, _float_name),
    'integers': _one(lambda column, generator: column.astype(np.int16), _flag_name),
    'unsigned integers': _one(lambda column, generator: column.astype(np.uint64), _flag_name),
    'width of one': _one(lambda column, generator: column.reshape(ROWS, 1), _flag_name),
    "Fortran's order": _one(lambda column, generator: np.asfortranarray(column)),
    'further columns': lambda columns, generator: {**columns, 'more': np.ones(3), 'other': np.array(b'text')},
    'denormal': _one(_spoil(1e-42), _float_name),
}


def _columns(change: Callable, columns: Values, write: Callable, usable: bool) -> Mutation:
    def mutate(path: Path, generator: np.random.Generator) -> Values | None:
        path.unlink()
        changed = change(columns, generator)
        write(path, changed)
        return {name: changed[name].reshape(columns[name].shape) for name in columns} if usable else None
    return mutate


def column_mutations(columns: Values, write: Callable[[Path, Values], None]) -> dict[str, Mutation]:
    return {
        name: _columns(change, columns, write, usable)
        for table, usable in ((UNUSABLE_COLUMNS, False), (USABLE_COLUMNS, True)) for name, change in table.items()
    }


# ---------------------------------------------------------------- HDF5


def _hdf5(change: Callable[[h5py.File, str, np.random.Generator], object]) -> Mutation:
    """``change(file, name, generator)`` with the name of one column."""
    def mutate(path: Path, generator: np.random.Generator) -> None:
        with h5py.File(path, 'a') as file:
            change(file, str(generator.choice(sorted(file))), generator)
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


# ---------------------------------------------------------------- NPZ


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _header(text: str, data: bytes = bytes(240), version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """A .npy file with any header."""
    encoded = text.encode('latin1') + b'\n'
    size = struct.pack('<H' if version == (1, 0) else '<I', len(encoded) if length is None else length)
    return b'\x93NUMPY' + bytes(version) + size + encoded + data


def _shape(shape: str, descr: str = "'<f4'", **kwargs) -> Callable[[bytes], bytes]:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return lambda member: _header(header, **kwargs)


def _members(change: Callable[[dict[str, bytes], str], list[tuple[str, bytes]]], **options) -> Mutation:
    """The archive's members become ``change(members, one's name)``."""
    def mutate(path: Path, generator: np.random.Generator) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, 'w', **options) as archive, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of names that are there twice
            for name, content in change(members, str(generator.choice(sorted(members)))):
                archive.writestr(name, content)
    return mutate


def _repacked(change: Callable[[dict[str, bytes]], dict[str, bytes]], **options) -> Mutation:
    """The archive's members become ``change(members)``; checksums are right."""
    return _members(lambda members, which: list(change(members).items()), **options)


def _member(change: Callable[[bytes], bytes]) -> Mutation:
    return _members(lambda members, which: [
        (name, change(content) if name == which else content) for name, content in members.items()])


def _named(rename: Callable[[str], str]) -> Mutation:
    return _members(lambda members, which: [
        (rename(name) if name == which else name, content) for name, content in members.items()])


def _pickled(path: Path, generator: np.random.Generator) -> None:
    """Columns of objects; whoever unpickles one makes a folder."""
    with np.load(path) as archive:
        columns = dict(archive)
    which = _name(columns, generator)
    columns[which] = np.array([MakesFolder(path.parent / 'made')] * ROWS, dtype=object)
    np.savez(path, **columns)


def _zip_bomb(path: Path, generator: np.random.Generator) -> None:
    """A member that unpacks to 800 MiB, with a header that says so."""
    rows = (800 << 20) // (4 * OBS)
    header = _header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {OBS}), }}", b'')
    with np.load(path) as archive:
        columns = dict(archive)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, column in columns.items():
            with archive.open(f'{name}.npy', 'w') as member:
                if name in ('obs', 'observations'):
                    member.write(header)
                    for start in range(0, rows * 4 * OBS, 1 << 24):
                        member.write(bytes(min(1 << 24, rows * 4 * OBS - start)))
                else:
                    member.write(_npy(column))


def _directory(offset: int, value: bytes) -> Mutation:
    """Bytes of the entry of a member in the archive's directory."""
    def change(content: bytearray, generator: np.random.Generator) -> bytearray:
        entries = [place for place in range(len(content) - 4) if content[place:place + 4] == b'PK\x01\x02']
        place = int(generator.choice(entries)) + offset
        content[place:place + len(value)] = value
        return content
    return _bytes(change)


NPZ: dict[str, Mutation] = {
    'pickled objects': _pickled,
    'pickle for a column': _member(lambda member: pickle.dumps(np.ones(3))),
    'zip bomb': _zip_bomb,
    'name that leaves the folder': _named(lambda name: f'../../{name}'),
    'name from the root': _named(lambda name: f'/tmp/{name}'),
    'more names that leave the folder': _members(
        lambda members, which: [*members.items(), ('../made.npy', _npy(np.ones(2)))]),
    'name with a folder': _named(lambda name: f'a/{name}'),
    'name without .npy': _named(lambda name: name.removesuffix('.npy')),
    'name twice': _members(lambda members, which: [*members.items(), (which, members[which][:-40] + bytes(40))]),
    'no members': _members(lambda members, which: []),
    'member that is empty': _member(lambda member: b''),
    'member that is text': _member(lambda member: b'1.0, 2.0\n' * 60),
    'member cut short': _member(lambda member: member[:-5]),
    'member too long': _member(lambda member: member + bytes(8)),
    'fewer rows in the header': _member(lambda member: member.replace(b'(60,', b'(20,')),
    'members packed by deflate': _repacked(dict, compression=zipfile.ZIP_DEFLATED),
    'members packed by bzip2': _repacked(dict, compression=zipfile.ZIP_BZIP2),
    'members packed by lzma': _repacked(dict, compression=zipfile.ZIP_LZMA),
    'shape of 10**12': _member(_shape('(1000000000000, 11)')),
    'shape of 10**9': _member(_shape('(1000000000, )')),
    'shape of 10**30': _member(_shape('(10' + '0' * 29 + ', 11)')),
    'negative shape': _member(_shape('(-1, 11)')),
    'shape that overflows to 0': _member(_shape('(4294967296, 4294967296)')),
    'shape of floats': _member(_shape('(60.0, 11)')),
    'shape of words': _member(_shape("('a', 11)")),
    'shape of bools': _member(_shape('(True, True)')),
    'no shape': _member(_shape('None')),
    'dtype of objects': _member(_shape('(60, )', "'|O'")),
    'dtype unknown': _member(_shape('(60, )', "'<z9'")),
    'dtype of 10**9 bytes': _member(_shape('(60, )', "'|S1000000000'")),
    'dtype of records': _member(_shape('(60, )', "[('a', '<f4')]")),
    'dtype of arrays': _member(_shape('(60, )', "('<f4', (11, ))")),
    'dtype of dates': _member(_shape('(30, )', "'<M8[s]'")),
    'header that is no Python': _member(lambda member: _header('{' * 60)),
    'header that calls': _member(lambda member: _header("__import__('os').mkdir('made')")),
    'header of brackets': _member(lambda member: _header('(' * 9000)),
    'header of signs': _member(lambda member: _header('-' * 9000 + '1')),
    'header unhashable': _member(lambda member: _header('{[]: 1}')),
    'header unfinished': _member(lambda member: _header('"""')),
    'header indented': _member(lambda member: _header('a\n  b\n c')),
    'header of 4 GiB': _member(lambda member: _header('{}', version=(2, 0), length=2**32 - 1)),
    'header not UTF-8': _member(lambda member: _header('\xff\xfe', version=(3, 0))),
    'header of a later version': _member(lambda member: _header('{}', version=(9, 0))),
    'encrypted': _directory(8, b'\x01'),
    'packed in an unknown way': _directory(10, b'\x63'),
    'packed by deflate it says': _directory(10, b'\x08'),
    'sizes of 4 GiB': _directory(20, b'\xfe\xff\xff\xff' * 2),
    'member elsewhere': _directory(42, b'\xf0\xff\xff\x7f'),
    'member within another': _directory(42, b'\x80\x00\x00\x00'),
    'checksum of zeros': _directory(16, bytes(4)),
    'name not UTF-8': _directory(46, b'\xff\xfe'),
    'another kind of archive': _members(lambda members, which: [('word/document.xml', b'<xml/>')]),
}


# ---------------------------------------------------------------- checkpoints


def _state(change: Callable[[Values, np.random.Generator], Any], **options) -> Mutation:
    """The state becomes ``change(state, generator)``; ``state`` is the clean one, to be changed at will."""
    def mutate(path: Path, generator: np.random.Generator) -> None:
        torch.save(change(checkpoint_state(), generator), path, **options)
    return mutate


POLICY = ('policy.net.0.weight', 'policy.net.0.bias', 'policy.net.2.weight', 'policy.net.4.weight', 'policy.net.4.bias')


def _tensor(change: Callable[[torch.Tensor], Any]) -> Mutation:
    """A tensor of the policy becomes ``change(tensor)``."""
    def changed(state: Values, generator: np.random.Generator) -> Values:
        name = str(generator.choice(POLICY))
        state['model'][name] = change(state['model'][name])
        return state
    return _state(changed)


def _part(name: str, value: Any) -> Mutation:
    return _state(lambda state, generator: {**state, name: value})


def _without_part(*names: str) -> Mutation:
    return _state(lambda state, generator: {name: part for name, part in state.items() if name not in names})


def _model(change: Callable[[dict], dict]) -> Mutation:
    return _state(lambda state, generator: {**state, 'model': change(state['model'])})


def _spoiled(value: float) -> Mutation:
    def spoiled(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor
    return _tensor(spoiled)


def _with_object(path: Path, generator: np.random.Generator) -> None:
    state = checkpoint_state()
    place = state if generator.random() < 0.5 else state['model']
    place[str(generator.choice(['iteration', 'policy.net.0.weight', 'more']))] = MakesFolder(path.parent / 'made')
    torch.save(state, path)


def _object_in(options: dict) -> Mutation:
    def mutate(path: Path, generator: np.random.Generator) -> None:
        torch.save({**checkpoint_state(), 'more': MakesFolder(path.parent / 'made')}, path, **options)
    return mutate


def _wide(model: dict) -> dict:
    """A policy whose hidden layers are each 10**7 wide, by strides of 0."""
    wide, one = 10**7, torch.zeros(1)
    return {
        **model, 'policy.net.0.weight': one.expand(wide, OBS), 'policy.net.0.bias': one.expand(wide),
        'policy.net.2.weight': one.expand(wide, wide), 'policy.net.2.bias': one.expand(wide),
        'policy.net.4.weight': one.expand(ACT, wide),
    }


def _pickle_with(old: bytes, new: bytes) -> Mutation:
    return _repacked(lambda members: {
        name: content.replace(old, new) if name.endswith('data.pkl') else content for name, content in members.items()})


def _big_member(path: Path, generator: np.random.Generator) -> None:
    """A tensor of 800 MiB packed into kilobytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            with archive.open(name, 'w') as member:
                member.write(content)
                for _ in range(50 if name.endswith('data/0') else 0):
                    member.write(bytes(1 << 24))


def _other_byte_order(path: Path, generator: np.random.Generator) -> Values:
    """A file that says its numbers are big endian is read so."""
    _repacked(lambda members: {
        name: b'big' if name.endswith('byteorder') else content for name, content in members.items()})(path, generator)
    state = checkpoint_state()
    swapped = {
        part: {name: torch.from_numpy(each.numpy().byteswap()) for name, each in state[part].items()}
        for part in ('model', 'target_critic')
    }
    return {**state, **swapped, 'obs_statistics': torch.from_numpy(state['obs_statistics'].numpy().byteswap())}


CHECKPOINT: dict[str, Mutation] = {
    'pickled object': _with_object,
    'pickled object in the old format': _object_in(dict(_use_new_zipfile_serialization=False)),
    'old format': _state(lambda state, generator: state, _use_new_zipfile_serialization=False),
    'a network pickled whole': _state(lambda state, generator: torch.nn.Linear(3, 3)),
    'a list': _state(lambda state, generator: [state]),
    'a tensor': _state(lambda state, generator: torch.zeros(3)),
    'nothing': _state(lambda state, generator: None),
    'the model alone': _state(lambda state, generator: state['model']),
    'no model': _without_part('model'),
    'no target and no statistics': _without_part('target_critic', 'obs_statistics'),
    'no iteration and no critics': _without_part('iteration', 'target_critic'),
    'no parts': _state(lambda state, generator: {}),
    'model of numbers': _model(lambda model: dict.fromkeys(model, 1.0)),
    'model of lists': _model(lambda model: {name: each.tolist() for name, each in model.items()}),
    'model of texts': _model(lambda model: dict.fromkeys(model, 'text')),
    'model nested': _model(lambda model: {'policy': model}),
    'model empty': _model(lambda model: {}),
    'model with numbers for names': _model(lambda model: dict(enumerate(model.values()))),
    'model with a tensor less': _model(lambda model: {name: each for name, each in model.items() if name != POLICY[0]}),
    'model with a tensor more': _model(lambda model: {**model, 'policy.net.9.weight': torch.ones(3, 3)}),
    'model with thousands of layers': _model(
        lambda model: {**model, **{f'policy.net.{i}.weight': torch.ones(1, 1) for i in range(6, 6000, 2)}}),
    'model with other names': _model(lambda model: {f'actor.{name}': each for name, each in model.items()}),
    'model that is None': _part('model', None),
    'target that is empty': _state(lambda state, generator: {**state, 'target_critic': {}, 'obs_statistics': 3}),
    'other widths in one': _tensor(lambda tensor: torch.zeros(7, 5)),
    'transposed': _tensor(lambda tensor: tensor.T if tensor.dim() == 2 else tensor[:, None]),
    'further dimension': _tensor(lambda tensor: tensor[None]),
    'scalar': _tensor(lambda tensor: tensor.reshape(-1)[0]),
    'no rows': _tensor(lambda tensor: tensor[:0]),
    'NaN': _spoiled(torch.nan),
    'infinity': _spoiled(torch.inf),
    'negative infinity': _spoiled(-torch.inf),
    'float64 beyond float32': _tensor(lambda tensor: torch.full(tensor.shape, 1e300, dtype=torch.float64)),
    'float64': _tensor(lambda tensor: tensor.double()),
    'complex': _tensor(lambda tensor: tensor + 1j),
    'integers': _tensor(lambda tensor: (tensor * 9).long()),
    'bool': _tensor(lambda tensor: tensor > 0),
    'float8': _tensor(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    'quantized': _tensor(lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)),
    'sparse': _tensor(lambda tensor: tensor.to_sparse()),
    'sparse rows': _tensor(lambda tensor: tensor.to_sparse_csr() if tensor.dim() == 2 else tensor.to_sparse()),
    'meta': _tensor(lambda tensor: tensor.to('meta')),
    'a parameter': _tensor(torch.nn.Parameter),
    'strides of 0': _tensor(lambda tensor: tensor.new_ones(1).expand(tensor.shape)),
    'strides of 0 to 10**14': _tensor(lambda tensor: torch.zeros(1).expand(10**7, 10**7)),
    'strides of 0 to layers of 10**7': _model(_wide),
    'storage said to be larger': _pickle_with(b'K\xb0', b'M\xff\xff'),
    'storage said to be 2 GiB': _pickle_with(b'K\xb0', b'J\xff\xff\xff\x1f'),
    'shape said to be larger': _pickle_with(b'K\x10K\x0b\x86', b'M\xff\xffK\x0b\x86'),
    'another class called': _pickle_with(b'ctorch\nFloatStorage\n', b'cos\nsystem\n'),
    'another function called': _pickle_with(b'ctorch._utils\n_rebuild_tensor_v2\n', b'cbuiltins\nexec\n'),
    'function of torch called': _pickle_with(b'ctorch._utils\n_rebuild_tensor_v2\n', b'ctorch.hub\nload\n'),
    'member said to be code': _repacked(lambda members: {**members, 'data/constants.pkl': b'\x80\x02.'}),
    'members packed': _repacked(lambda members: members, compression=zipfile.ZIP_DEFLATED),
    'members that leave the folder': _repacked(lambda members: {**members, '../made': b'text'}),
    'no members': _repacked(lambda members: {}),
    'no pickle': _repacked(lambda members: {
        name: content for name, content in members.items() if not name.endswith('data.pkl')}),
    'other byte order': _other_byte_order,
    'storages cut': _repacked(lambda members: {
        name: content[:-4] if '/data/' in name else content for name, content in members.items()}),
    'tensor packed into kilobytes': _big_member,
    'statistics of NaN': _part('obs_statistics', torch.full((2, OBS), torch.nan)),
    'statistics of zeros': _part('obs_statistics', torch.zeros(2, OBS)),
    'statistics of another width': _part('obs_statistics', torch.ones(2, 17)),
    'statistics that are complex': _part('obs_statistics', torch.ones(2, OBS) + 1j),
    'statistics that are sparse': _part('obs_statistics', torch.ones(2, OBS).to_sparse()),
    'statistics without memory': _part('obs_statistics', torch.ones(2, OBS, device='meta')),
    'statistics that are a list': _part('obs_statistics', [0.0] * OBS),
    'iteration that is text': _part('iteration', 'four'),
    'iteration that is NaN': _part('iteration', float('nan')),
    'iteration that is a tensor': _part('iteration', torch.tensor(4)),
    'env_id that is a number': _part('env_id', 4),
    'env_id that is a tensor': _part('env_id', torch.zeros(3)),
    'env_id that is a list': _part('env_id', ['Hopper-v4']),
}


# ---------------------------------------------------------------- kinds of files


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a clean one is written, what loading it gives, and what is done to it.

    Attributes:
        file: name of the file.
        write: writes the clean file at a path.
        load: what this package makes of it, in plain containers.
        meaning: what it should be, from the values of the clean file, ``values()``.
        plain: whether the values lie in the file as they are, without a checksum; a change of them cannot be known
            from what was meant.
        mutations: by name, without ``RANDOM``, which every kind has.
    """
    file: str
    write: Callable[[Path], None]
    load: Callable[[Path], Values]
    meaning: Callable[[Values], Values]
    values: Callable[[], Values]
    mutations: dict[str, Mutation]
    plain: bool = False


def _hdf5_kind(columns: Callable[[], Values], meaning: Callable, plain: bool, **options) -> Kind:
    write = partial(write_hdf5, **options)
    return Kind(
        'data.hdf5', lambda path: write(path, columns()), load_columns, meaning, columns,
        {**OTHER_FILES, **column_mutations(columns(), write), **HDF5}, plain,
    )


def _npz_kind(columns: Callable[[], Values], meaning: Callable) -> Kind:
    return Kind(
        'data.npz', lambda path: write_npz(path, columns()), load_columns, meaning, columns,
        {**OTHER_FILES, **column_mutations(columns(), write_npz), **NPZ},
    )


def _checkpoint_kind(load: Callable, meaning: Callable, mutations: dict[str, Mutation]) -> Kind:
    return Kind(
        'ckpt.pth.tar', lambda path: torch.save(checkpoint_state(), path), load, meaning, checkpoint_state, mutations
    )


KINDS = {
    "HDF5, D4RL's layout": _hdf5_kind(d4rl_columns, d4rl_meaning, plain=True),
    "HDF5, DI-engine's layout, gzip": _hdf5_kind(ding_columns, ding_meaning, plain=False, compression='gzip'),
    "NPZ, D4RL's layout": _npz_kind(d4rl_columns, d4rl_meaning),
    "NPZ, DI-engine's layout": _npz_kind(ding_columns, ding_meaning),
    'checkpoint, to act': _checkpoint_kind(load_acting, policy_meaning, {**OTHER_FILES, **CHECKPOINT}),
    'checkpoint, to learn': _checkpoint_kind(load_learner, checkpoint_meaning, {**OTHER_FILES, **CHECKPOINT}),
}


@dataclass(frozen=True)
class Case:
    kind: str
    mutation: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a case: one of ``VERDICTS``, and the message of the error or what is wrong."""
    case: Case
    verdict: str
    detail: str = ''


def tables(seed: int = 0) -> list[Case]:
    """Every mutation of the tables once."""
    return [Case(kind, name, seed) for kind, each in KINDS.items() for name in {**each.mutations, **RANDOM}]


def draws(count: int, seed: int = 0) -> Iterator[Case]:
    """So many random changes of bytes, with the kinds and ways in turn."""
    ways = [(kind, name) for name in RANDOM for kind in KINDS]
    for index in range(count):
        yield Case(*ways[index % len(ways)], 1000 * seed + 1 + index)


# ---------------------------------------------------------------- trying them


def attempt(case: Case, folder: Path) -> Outcome:
    """Write the case's file in ``folder``, load it and judge what comes."""
    kind = KINDS[case.kind]
    path = folder / kind.file
    kind.write(path)
    clean = path.read_bytes()
    mutate = {**kind.mutations, **RANDOM}[case.mutation]
    other = mutate(path, np.random.default_rng([case.seed, zlib.crc32(case.mutation.encode())]))
    verdict, detail = _judge(kind, path, other)
    if detail == DIFFERS and case.mutation in RANDOM and kind.plain:
        verdict, detail = _judge_plain(kind, path, clean)
    if (folder / 'made').exists():
        verdict, detail = 'wrong', 'code of the file was run'
    return Outcome(case, verdict, detail)


def _judge(kind: Kind, path: Path, other: Values | None) -> tuple[str, str]:
    try:
        found = kind.load(path)
    except Exception as error:
        return ('error', str(error)) if _is_clear(error, path) else ('wrong', f'{type(error).__name__}: {error}')
    if same(found, kind.meaning(kind.values())):
        return 'correct', ''
    if other is not None and same(found, kind.meaning(other)):
        return 'correct', ''
    return 'wrong', DIFFERS


def _judge_plain(kind: Kind, path: Path, clean: bytes) -> tuple[str, str]:
    """A load that differs, of a file without checksums: can that be known from the file?"""
    found, numbers = kind.load(path), _reread(clean, path.read_bytes(), kind.values())
    if numbers is not None and same(found, kind.meaning(numbers)):
        return 'undetectable', NUMBERS
    with h5py.File(path, 'r') as file:
        read = {name: file[name][()] for name in kind.values()}
    return ('undetectable', TABLES) if same(found, kind.meaning(read)) else ('wrong', DIFFERS)


def _is_clear(error: Exception, path: Path) -> bool:
    """An error of the kinds that are documented, which names the file in a line that can be read."""
    text = str(error)
    kinds = (ValueError, FileNotFoundError, OSError)
    return type(error) in kinds and path.name in text and text.isprintable() and len(text) < 800


def _reread(clean: bytes, changed: bytes, values: Values) -> Values | None:
    """The values, each from where the clean file has its bytes; None where the file has another length."""
    if len(clean) != len(changed):
        return None
    places = {name: clean.index(column.tobytes()) for name, column in values.items()}
    return {
        name: np.frombuffer(changed, np.uint8 if column.dtype == bool else column.dtype, column.size, places[name])
        .reshape(column.shape) for name, column in values.items()
    }


def _serve(connection, folder: Path) -> None:
    """The child: answers cases with outcomes. Its memory is bounded, and each outcome is asked for its peak."""
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    write_hdf5(folder / 'outside.hdf5', {**d4rl_columns(7), **ding_columns(7)})
    if not (folder / 'outside.pipe').exists():
        os.mkfifo(folder / 'outside.pipe')
    for name, kind in KINDS.items():  # what is imported and allocated once is none of the cases' memory
        kind.write(folder / kind.file)
        assert same(kind.load(folder / kind.file), kind.meaning(kind.values())), name
        _clear(folder / kind.file)
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, ) * 2)
    baseline = _peak()
    connection.send(None)
    while True:
        case = connection.recv()
        try:
            outcome = attempt(case, folder)
        except Exception as error:  # the mutation's own
            connection.send((error, False))
            continue
        _clear(folder / KINDS[case.kind].file, folder / 'made')
        grown = _peak() - baseline
        if grown > PEAK:
            outcome = Outcome(case, 'wrong', f'took {grown >> 20} MiB; {outcome.verdict}: {outcome.detail}')
        connection.send((outcome, grown > PEAK))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _clear(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _child(folder: Path) -> Iterator[tuple]:
    context = multiprocessing.get_context('fork')  # so that a child that died costs no second import
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, folder), daemon=True)
    process.start()
    there.close()  # so that its end is an end of the pipe
    try:
        if not here.poll(300):
            raise TimeoutError('the process that loads the files has not started within 300 s')
        here.recv()
        yield here, process
    finally:
        process.kill()
        process.join()


def run(cases: Iterable[Case], folder: Path, seconds: float = SECONDS) -> list[Outcome]:
    """Try the cases one after the other in a child, which is started anew where one killed it, hung or filled it.

    Arguments:
        folder: an empty one, in which the files are written.
        seconds: that a case may take.
    """
    waiting, outcomes = list(cases), []
    while waiting:
        with _child(folder) as (connection, process):
            while waiting:
                case = waiting.pop(0)
                connection.send(case)
                if not connection.poll(seconds):
                    outcomes.append(Outcome(case, 'hang', f'no end within {seconds} s'))
                    break
                try:
                    outcome, is_full = connection.recv()
                except EOFError:
                    process.join()
                    outcomes.append(Outcome(case, 'crash', f'the process ended with {process.exitcode}'))
                    break
                if isinstance(outcome, Exception):
                    raise RuntimeError(f'{case} could not be made') from outcome
                outcomes.append(outcome)
                if is_full:
                    break
        for path in folder.glob('*'):
            _clear(path)
    return outcomes


def counts(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """How many of each verdict, by kind."""
    table = {kind: dict.fromkeys(('tried', *VERDICTS), 0) for kind in KINDS}
    for outcome in outcomes:
        table[outcome.case.kind]['tried'] += 1
        table[outcome.case.kind][outcome.verdict] += 1
    return table

"""NPZ files that are damaged or made to do harm."""
from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers import MakesFolder

from fuzz.columns import (
    column_mutations,
    column_name,
    d4rl_columns,
    d4rl_meaning,
    ding_columns,
    ding_meaning,
    load_columns,
)
from fuzz.files import OBS, OTHER_FILES, ROWS, Kind, Mutation, Values, archived, npy_bytes, repacked, with_bytes


def write_npz(path: Path, columns: Values) -> None:
    np.savez(path, **columns)


def _header(text: str, data: bytes = bytes(240), version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """A .npy file with any header."""
    encoded = text.encode('latin1') + b'\n'
    size = struct.pack('<H' if version == (1, 0) else '<I', len(encoded) if length is None else length)
    return b'\x93NUMPY' + bytes(version) + size + encoded + data


def _shape(shape: str, descr: str = "'<f4'", **kwargs) -> Callable[[bytes], bytes]:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return lambda member: _header(header, **kwargs)





def _member(change: Callable[[bytes], bytes]) -> Mutation:
    return archived(lambda members, which: [
        (name, change(content) if name == which else content) for name, content in members.items()])


def _named(rename: Callable[[str], str]) -> Mutation:
    return archived(lambda members, which: [
        (rename(name) if name == which else name, content) for name, content in members.items()])


def _pickled(path: Path, generator: np.random.Generator) -> None:
    """Columns of objects; whoever unpickles one makes a folder."""
    with np.load(path) as archive:
        columns = dict(archive)
    which = column_name(columns, generator)
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
                    member.write(npy_bytes(column))


def _directory(offset: int, value: bytes) -> Mutation:
    """Bytes of the entry of a member in the archive's directory."""
    def change(content: bytearray, generator: np.random.Generator) -> bytearray:
        entries = [place for place in range(len(content) - 4) if content[place:place + 4] == b'PK\x01\x02']
        place = int(generator.choice(entries)) + offset
        content[place:place + len(value)] = value
        return content
    return with_bytes(change)


NPZ: dict[str, Mutation] = {
    'pickled objects': _pickled,
    'pickle for a column': _member(lambda member: pickle.dumps(np.ones(3))),
    'zip bomb': _zip_bomb,
    'name that leaves the folder': _named(lambda name: f'../../{name}'),
    'name from the root': _named(lambda name: f'/tmp/{name}'),
    'more names that leave the folder': archived(
        lambda members, which: [*members.items(), ('../made.npy', npy_bytes(np.ones(2)))]),
    'name with a folder': _named(lambda name: f'a/{name}'),
    'name without .npy': _named(lambda name: name.removesuffix('.npy')),
    'name twice': archived(lambda members, which: [*members.items(), (which, members[which][:-40] + bytes(40))]),
    'no members': archived(lambda members, which: []),
    'member that is empty': _member(lambda member: b''),
    'member that is text': _member(lambda member: b'1.0, 2.0\n' * 60),
    'member cut short': _member(lambda member: member[:-5]),
    'member too long': _member(lambda member: member + bytes(8)),
    'fewer rows in the header': _member(lambda member: member.replace(b'(60,', b'(20,')),
    'members packed by deflate': repacked(dict, compression=zipfile.ZIP_DEFLATED),
    'members packed by bzip2': repacked(dict, compression=zipfile.ZIP_BZIP2),
    'members packed by lzma': repacked(dict, compression=zipfile.ZIP_LZMA),
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
    'another kind of archive': archived(lambda members, which: [('word/document.xml', b'<xml/>')]),
}


def _npz_kind(columns: Callable[[], Values], meaning: Callable) -> Kind:
    return Kind(
        'data.npz', lambda path: write_npz(path, columns()), load_columns, meaning, columns,
        {**OTHER_FILES, **column_mutations(columns(), write_npz), **NPZ},
    )


KINDS = {
    "NPZ, D4RL's layout": _npz_kind(d4rl_columns, d4rl_meaning),
    "NPZ, DI-engine's layout": _npz_kind(ding_columns, ding_meaning),
}

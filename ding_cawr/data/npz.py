"""Reading NumPy archives: the columns of an .npz file."""
from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from ding_cawr.data.columns import check_form, check_size, reading


def read_npz(path: Path, choose: Callable[[Collection[str]], Collection[str]]) -> dict[str, np.ndarray]:
    """Return the arrays whose names ``choose`` picks from those of the archive."""
    with reading(path, 'is not a complete NumPy archive'), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        found = {member.filename.removesuffix('.npy'): member for member in members}
        if len(found) < len(members):
            raise ValueError(f'{path}: two arrays have the same name; numpy.savez writes one of each')
        names = choose(found)
        check_size(sum(found[name].file_size for name in names), path)
        return {name: _array(archive, found[name], name, path) for name in names}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path) -> np.ndarray:
    if member.flag_bits & 1:
        raise ValueError(f'{path}: {name} is encrypted; write the file again with numpy.savez')
    with reading(path, f'has an unreadable column {name}'), _member(archive, member, name, path) as stream:
        try:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        except ValueError as error:
            if 'allow_pickle' not in str(error):
                raise
            raise ValueError(
                f'{path}: {name} is an array of Python objects, which is not read, because it is pickled; it must be '
                'numbers of one shape'
            ) from error
        if stream.read(1):  # at its end the checksum is compared
            raise ValueError(f'there are more bytes than an array of shape {array.shape} has')
        check_form(name, array.dtype, array.shape, path)
        return array


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path) -> zipfile.ZipExtFile:
    try:
        return archive.open(member)
    except NotImplementedError as error:
        raise ValueError(
            f'{path}: {name} is compressed by a method that this Python does not have ({error}); write the file again '
            'with numpy.savez_compressed'
        ) from error

"""Reading HDF5 files: opening one, its columns, its attributes.

Nothing outside the file is read: links, external and virtual storage are refused.
"""
from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ding_cawr.data.columns import check_form, check_size, line, reading

#: The package that brings most compression filters to h5py.
FILTER_PACKAGE = 'hdf5plugin'


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read it.

    Raises:
        OSError: another process writes to it.
        ValueError: it is damaged; also what is raised for it while it is open.
    """
    with reading(path, 'is not a complete HDF5 file'):
        try:
            file = h5py.File(path, 'r')
        except OSError as error:
            if 'unable to lock' in str(error) or 'already open' in str(error):
                raise OSError(
                    f'{path} is open for writing in a program, or was not closed by one: {line(error, 200)}. Wait '
                    'until it has ended; where none writes, set HDF5_USE_FILE_LOCKING=FALSE or run `h5clear -s` on a '
                    'copy'
                ) from error
            raise
        with file:
            yield file


def member(group: h5py.Group, name: str, path: Path) -> Any:
    """Return what a group has under a name, which must be in this file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):  # following it could open any other file
        raise ValueError(f'{path}: {name} is a link, and links are not followed; store the column under its name')
    return group[name]


def column(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """Return the dataset of a column whose numbers are all in this file; none of them is read yet."""
    dataset, place = member(group, name, path), group.name.strip('/') and f'{group.name.strip("/")}/'
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'{path}: {place}{name} is a group, not a column of numbers')
    if dataset.is_virtual or dataset.external:
        raise ValueError(f'{path}: {place}{name} has its numbers in other files, which are not read; store them in it')
    check_form(name, dataset.dtype, dataset.shape, path, place)
    if dataset.chunks is not None:
        _check_filters(dataset, f'{place}{name}', path)
    return dataset


def _check_filters(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Raise a ValueError for a column that is compressed with a filter that HDF5 does not have."""
    properties = dataset.id.get_create_plist()
    for code, _, _, label in map(properties.get_filter, range(properties.get_nfilters())):
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):  # importing it gives h5py its filters
            importlib.import_module(FILTER_PACKAGE)
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f'{path}: {name} is compressed with the filter {line(label.decode(errors="replace"), 60)!r} (number '
                f'{code}), which is not installed; `pip install {FILTER_PACKAGE}` brings those that are in use. Or '
                'write the file again with gzip'
            )


def check_written(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Raise a ValueError for rows that were never written, which HDF5 reads as zeros, and for oversized chunks."""
    if dataset.chunks is None:
        written, wanted, unit = dataset.id.get_storage_size(), dataset.nbytes, 'bytes'
    else:
        chunks, chunk_bytes = {}, dataset.dtype.itemsize * math.prod(dataset.chunks)
        check_size(chunk_bytes, path)
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


def attributes(file: h5py.File) -> dict[str, Any]:
    """Return the file's attributes that are texts, numbers or short arrays of numbers; others are left out."""
    found = {}
    for key in file.attrs:
        with suppress(Exception):  # h5py has no Python type for it, or the attribute alone is damaged
            value = _plain(file.attrs, key)
            if value is not None:
                found[_text(key)] = value
    return found


def _plain(attrs: h5py.AttributeManager, key: str) -> Any:
    """Return an attribute's value, None where it is not a text, a number or a short array of numbers."""
    stored = attrs.get_id(key)
    if stored.shape is None or math.prod(stored.shape) > 1000:
        return None
    value = attrs[key]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (str, bytes)):
        return _text(value)
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in 'fiub'
    return value if is_array or isinstance(value, (int, float)) else None


def _text(value: str | bytes) -> str:
    """Return a text of any encoding as one that can be printed and written as UTF-8."""
    value = value.encode(errors='surrogateescape') if isinstance(value, str) else value
    return value.decode(errors='replace')

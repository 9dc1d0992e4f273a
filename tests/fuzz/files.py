"""Kinds of files, and what can be done to the bytes of any."""
from __future__ import annotations

import gzip
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import MakesFolder

Values = dict[str, Any]
Mutation = Callable[[Path, np.random.Generator], 'Values | None']

ROWS, OBS, ACT = 60, 11, 3
ENV_ID = 'hopper-medium-v2'


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
        dtype: in which numbers are compared.
    """
    file: str
    write: Callable[[Path], None]
    load: Callable[[Path], Values]
    meaning: Callable[[Values], Values]
    values: Callable[[], Values]
    mutations: dict[str, Mutation]
    plain: bool = False
    dtype: type = np.float32


def same(one: Values, other: Values, dtype: type = np.float32) -> bool:
    """Whether two readings have the same names and values, as ``dtype`` where they are arrays or tensors."""
    def equal(a, b) -> bool:
        if isinstance(a, (np.ndarray, torch.Tensor)) and isinstance(b, (np.ndarray, torch.Tensor)):
            a, b = (np.asarray(each.detach() if isinstance(each, torch.Tensor) else each) for each in (a, b))
            return a.shape == b.shape and np.array_equal(a.astype(dtype), b.astype(dtype))
        return type(a) is type(b) and (a == b or a != a and b != b)  # NaN, too
    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def npy_bytes(array: np.ndarray) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def with_bytes(change: Callable[[bytearray, np.random.Generator], bytes | bytearray]) -> Mutation:
    """The file's content becomes ``change(content, generator)``."""
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
    'bit flipped': with_bytes(partial(_flip, bits=True)),
    'bytes flipped': with_bytes(_flip),
    'bytes flipped at the start': with_bytes(_flip_head),
    'bytes flipped at the end': with_bytes(partial(_flip, low=0.9)),
    'zeros': with_bytes(_zeros),
    'truncated': with_bytes(lambda content, generator: content[:int(generator.integers(len(content)))]),
    'cut by little': with_bytes(lambda content, generator: content[:-int(generator.integers(1, 65))]),
}
OTHER_FILES: dict[str, Mutation] = {
    'empty': with_bytes(lambda content, generator: b''),
    'html': with_bytes(lambda content, generator: b'<html>404</html>'),
    'text': with_bytes(lambda content, generator: 'größer\n'.encode() * 99),
    'noise': with_bytes(lambda content, generator: generator.bytes(5000)),
    'executable': with_bytes(lambda content, generator: b'\x7fELF' + bytes(4000)),
    'zeros alone': with_bytes(lambda content, generator: bytes(len(content))),
    'signature alone': with_bytes(lambda content, generator: content[:8]),
    'pickle': _in_place_of(lambda path: path.write_bytes(pickle.dumps(MakesFolder(path.parent / 'made')))),
    'old torch file': _in_place_of(lambda path: torch.save(
        {'model': MakesFolder(path.parent / 'made')}, path, _use_new_zipfile_serialization=False)),
    'gzip': with_bytes(lambda content, generator: gzip.compress(content)),
    'npy': _in_place_of(lambda path: path.write_bytes(npy_bytes(np.ones(3)))),
    'folder': _in_place_of(os.mkdir),
    'pipe': _in_place_of(os.mkfifo),
    'device': _in_place_of(lambda path: path.symlink_to('/dev/zero')),
    'link to nowhere': _in_place_of(lambda path: path.symlink_to('nowhere')),
    'bytes appended': with_bytes(lambda content, generator: content + generator.bytes(300)),
    'bytes in front': with_bytes(lambda content, generator: generator.bytes(300) + content),
    'doubled': with_bytes(lambda content, generator: content + content),
}


def archived(change: Callable[[dict[str, bytes], str], list[tuple[str, bytes]]], **options) -> Mutation:
    """The archive's members become ``change(members, one's name)``."""
    def mutate(path: Path, generator: np.random.Generator) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, 'w', **options) as archive, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of names that are there twice
            for name, content in change(members, str(generator.choice(sorted(members)))):
                archive.writestr(name, content)
    return mutate


def repacked(change: Callable[[dict[str, bytes]], dict[str, bytes]], **options) -> Mutation:
    """The archive's members become ``change(members)``; checksums are right."""
    return archived(lambda members, which: list(change(members).items()), **options)

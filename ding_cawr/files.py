"""Files: those to read exist and may be read, those that are written are whole or not there; JSON for every reader."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any


def existing_file(path: str | os.PathLike, what: str) -> Path:
    """Return the path of a file that may be read, with the home directory for ``~``.

    Arguments:
        path: the file.
        what: what it is, for messages, such as ``'dataset file'``.

    Raises:
        FileNotFoundError: there is nothing at the path.
        PermissionError: the file, or a folder above it, may not be read.
        TypeError: ``path`` is not a path.
        ValueError: it is a folder, a pipe or a device.
        OSError: the file system cannot give it.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f'{what} is {path!r}; it must be a path')
    path = Path(os.fsdecode(path))
    try:
        path = path.expanduser()
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open('rb').close()
            return path
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f'{what} {path} does not exist') from None
    except PermissionError:
        raise PermissionError(
            f'{what} {path} may not be read: permission denied; it must be readable for this user, and the folders '
            'above it, too'
        ) from None
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, a user who does not exist
        raise OSError(f'{what} {str(path)!r} cannot be read: {getattr(error, "strerror", None) or error}') from None
    kind = 'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'
    raise ValueError(f'{what} {path} is {kind}; it must be a file')


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def new_file(path: str | Path, endings: Collection[str]) -> Path:
    """Return a path that a file can be written to.

    Raises:
        ValueError: the name has another ending.
        FileExistsError: the file exists; nothing is overwritten.
        FileNotFoundError: its folder does not exist.
    """
    path = Path(path).expanduser()
    if path.suffix not in endings:
        raise ValueError(f'{path}: its name ends in {path.suffix!r}; it must end in {" or ".join(endings)}')
    if path.exists():
        raise FileExistsError(f'{path} exists and is not overwritten; give another name or delete it')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'folder {path.parent} does not exist; make it first')
    return path


def to_json(value: Any, default: Callable[[Any], Any] | None = None, **layout: Any) -> str:
    """Return a value as JSON; a number that is not finite, which JSON does not have, is null."""
    # Read again, since Python's writer has its own NaN and Infinity.
    plain = json.loads(json.dumps(value, default=default), parse_constant=lambda name: None)
    return json.dumps(plain, allow_nan=False, **layout)


def _flush_names(folder: Path) -> None:
    """Write a folder's names to the disk, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Add the name of the file or folder to a system error about writing it, since such errors often lack it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        disk = next(folder for folder in path.absolute().parents if folder.exists())
        free = f', with {shutil.disk_usage(disk).free / 2**20:.1f} MiB free on its disk'
        reason = ' '.join(str(error.strerror or error).split())
        message = f'{path} could not be written{"" if isinstance(error, PermissionError) else free} ({reason})'
        raise type(error)(message) from error


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``, of the same ending; rename it at the end, remove it after an error.

    Libraries that write a file piece by piece may end the process where the disk is full: have them write to memory.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        with writing(path):
            yield temporary
            with open(temporary, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)

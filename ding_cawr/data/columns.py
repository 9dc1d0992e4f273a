"""Raw columns of a file, whatever its kind: their form, their size, and messages about them."""
from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MATRICES = ('observations', 'actions', 'next_observations', 'obs', 'action', 'next_obs')
ACTIONS = ('actions', 'action')
FLAGS = ('terminals', 'timeouts', 'done')
#: Columns may take this many bytes, or this many times the file's size. Measured numbers compress to about a half.
LARGEST_BYTES, LARGEST_EXPANSION = 256 << 20, 50
#: Errors of the file system or the machine; the file itself may be sound.
NOT_OF_THE_FILE = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ETIMEDOUT)


@contextmanager
def reading(path: Path, problem: str) -> Iterator[None]:
    """Turn what h5py, zipfile and NumPy raise for a damaged file into a ValueError that begins with the path.

    Errors that do so already are passed on. Those of the machine say nothing of damage.
    """
    try:
        yield
    except Exception as error:
        if str(error).startswith(str(path)):
            raise
        reason = line(error, 200) or type(error).__name__
        if isinstance(error, MemoryError):
            raise ValueError(f'{path} needs more memory than there is: {reason}') from error
        if isinstance(error, OSError) and error.errno in NOT_OF_THE_FILE:
            raise OSError(f'{path} could not be read: {reason}; try again') from error
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) {problem}: {reason}; it is truncated or damaged, fetch or write it '
            'again'
        ) from error


def line(value, size: int) -> str:
    """Return what a file says as part of a message: in one line, and no longer than the given number of characters."""
    text = ''.join(each if each.isprintable() else '?' for each in str(value))
    return text if len(text) <= size else f'{text[:size]}...'


def check_size(declared: int, path: Path) -> None:
    """Raise a ValueError for a small file that says that it holds a lot."""
    size = path.stat().st_size
    if declared > max(LARGEST_BYTES, LARGEST_EXPANSION * size):
        raise ValueError(
            f'{path} ({size} bytes) declares columns of {declared} bytes; it must be at most {LARGEST_EXPANSION} times '
            f'its size or {LARGEST_BYTES} bytes. It is damaged, or made to fill the memory'
        )


def check_form(name: str, dtype: np.dtype, shape: tuple[int, ...] | None, path: Path, place: str = '') -> None:
    """Raise a ValueError for a column of another dtype or number of dimensions than it must have.

    Arguments:
        name: of the column, which says what it must be.
        place: what stands before the name in messages, such as the group that it is in.
    """
    if dtype.kind not in 'fiub':
        raise ValueError(f'{path}: {place}{name} has dtype {line(dtype, 100)}; it must be numbers')
    if name in ACTIONS and dtype.kind in 'iub':
        if shape is None or len(shape) not in (1, 2) or shape[1:] not in ((), (1, )):
            raise ValueError(
                f'{path}: {place}{name} has dtype {dtype} and shape {shape}; discrete actions must be one whole number '
                'each, (transitions,), and continuous ones floating'
            )
        return
    dimensions = 2 if name in MATRICES else 1
    if shape is None or len(flat(name, shape)) != dimensions or 0 in shape[1:]:
        form = '(transitions, width); images and scalar observations are not supported' if dimensions == 2 else \
            '(transitions,)'
        raise ValueError(f'{path}: {place}{name} has shape {shape}; it must be {form}')


def flat(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a column; one of numbers may have been stored with a width of 1."""
    return shape if name in MATRICES or len(shape) != 2 or shape[1] != 1 else shape[:1]


def converted(name: str, array: np.ndarray, path: Path) -> np.ndarray:
    """Return a column with the dtype and the number of dimensions that it must have.

    Discrete actions are (N, 1), int64; flags are bool, and all else is float32.
    """
    if name in FLAGS:
        raw = array.view(np.uint8) if array.dtype == bool else array  # a bool is a byte, which may have any value
        if not ((raw == 0) | (raw == 1)).all():
            row = int(np.argmin(np.isin(raw, (0, 1)).reshape(-1)))
            raise ValueError(f'{path}: {name} at row {row} is {raw.reshape(-1)[row]}; it must be 0 or 1, or a bool')
    with np.errstate(over='ignore'):  # infinities are found later, by name
        if name in ACTIONS and array.dtype.kind in 'iub':
            return array.astype(np.int64, copy=False).reshape(-1, 1)
        return array.astype(bool if name in FLAGS else np.float32, copy=False).reshape(flat(name, array.shape))

"""The learner's checkpoints: read without running anything that they contain, and written whole or not at all."""
from __future__ import annotations

import errno
import math
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ding_cawr.checks import POSITIVE
from ding_cawr.files import existing_file, unfinished
from ding_cawr.runs.state import check_tree

BEST = 'ckpt_best.pth.tar'
_NUMBERED = re.compile(r'iteration_(\d+)\.pth\.tar')


def read_state(path: str | Path, parts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a checkpoint file holds, on the CPU: a dict that has these parts, of these types.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        ValueError: it is damaged, holds other things than plain ones, or a part is missing.
    """
    path = _existing(path)
    try:
        _check_sums(path)
        state = torch.load(path, map_location='cpu', weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes torch's reader fail in many ways
        raise ValueError(
            f'{path} cannot be read as a checkpoint: it is damaged or cut short, or holds other things than tensors, '
            f'which are never loaded ({type(error).__name__})'
        ) from None
    check_parts(path, state, parts or {})
    return state


def check_parts(path: str | Path, state: Any, parts: Mapping[str, Any]) -> None:
    """Raise a ValueError unless what a checkpoint file holds is a dict that has these parts, of these types."""
    found = state if isinstance(state, dict) else {}
    missing = [part for part, kind in parts.items() if not isinstance(found.get(part, ...), kind)]
    if missing or not isinstance(state, dict):
        lacks = ' and no '.join(missing) or 'parts'
        raise ValueError(f"{path} is not a checkpoint of this package's learner: it has no {lacks}")


def check_whole(path: str | Path) -> None:
    """Raise unless a checkpoint that DI-engine's learner will read by this path is as it was written.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        ValueError: it is damaged.
    """
    path = os.path.abspath(path) if str(path).startswith('~') else path  # not a home directory for others
    _existing(path)
    try:
        _check_sums(path)
    except Exception as error:  # as a damaged file makes a reader fail in many ways
        raise ValueError(f'{path} is damaged ({error}); take another checkpoint') from None


def _existing(path: str | Path) -> Path:
    """Return the path of a checkpoint, with the home directory for ``~``."""
    try:
        return existing_file(path, 'checkpoint')
    except (FileNotFoundError, ValueError):  # nothing, or a folder
        is_folder = Path(path).expanduser().is_dir()
        what = f'{str(path)!r} is a folder' if is_folder else f'there is no checkpoint {str(path)!r}'
        raise FileNotFoundError(f'{what}; runs keep their checkpoints in EXP_NAME/ckpt') from None


def _check_sums(path: str | Path) -> None:
    """Compare the checksums, which torch's reader does not: a flipped bit would be another number."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError('torch.save packs nothing; this could unpack to any size')
        if archive.testzip() is not None:
            raise ValueError('a checksum differs')


def observation_statistics(state: Mapping[str, Any], width: int, source: str) -> Tensor | None:
    """Return the mean and standard deviation (2, O) that the observations of a state are normalized with, None if raw.

    Arguments:
        width: O.
        source: where the state is from, for messages.

    Raises:
        ValueError: they are not two rows of O finite numbers, or a deviation is not positive.
    """
    statistics = state.get('obs_statistics')
    if statistics is None:
        return None
    wanted = {'mean': torch.empty(width), 'std': torch.empty(width)}
    found = dict(zip(wanted, statistics)) if isinstance(statistics, Tensor) and statistics.shape[:1] == (2, ) else {}
    check_tree(found, wanted, f'{source}: obs_statistics', {'std': POSITIVE}, any_float=True)
    return statistics.float()


def check_same_observations(path: str, trained_on: Tensor | None, statistics: Tensor | None) -> None:
    """Raise where critics were trained on observations that were normalized otherwise.

    Arguments:
        trained_on, statistics: means and standard deviations (2, O) there and here, None for raw observations.

    Raises:
        ValueError: the statistics differ, or one of the two is None.
    """
    if trained_on is not None and statistics is not None:
        check_tree(trained_on, statistics, f'{path}: obs_statistics', any_float=True)
    if (trained_on is None) != (statistics is None) or (
        statistics is not None and not torch.allclose(trained_on.to(statistics), statistics, rtol=1e-3)
    ):
        kinds = ['raw' if each is None else 'normalized' for each in (trained_on, statistics)]
        raise ValueError(
            f'{path} was trained on {kinds[0]} observations and this run has {kinds[1]} ones, or their statistics '
            'differ; take the same data and the same env.norm_obs'
        )


def last_checkpoint(exp_name: str | None) -> str:
    """Return a sentence that names the newest checkpoint of a run whose networks are finite; '' for an unknown run."""
    if exp_name is None:
        return ''
    files = sorted(Path(exp_name).glob('ckpt/*.pth.tar'), key=lambda file: file.stat().st_mtime)
    good = next((file for file in reversed(files) if _is_finite(file)), None)
    return f'The last good checkpoint is {good}.' if good else 'No good checkpoint was written yet.'


def _is_finite(path: Path) -> bool:
    try:
        return all(bool(tensor.isfinite().all()) for tensor in read_state(path)['model'].values())
    except Exception:  # the file is damaged
        return False


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; the file is whole or, if this is interrupted or the disk is full, what it was before.

    Raises:
        OSError: it could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with unfinished(path) as temporary:
            try:
                torch.save(dict(state), temporary)
            except RuntimeError as error:  # which torch's writer makes of a full disk
                raise OSError(errno.EIO, str(error).strip().splitlines()[0]) from error
    except OSError as error:
        raise type(error)(
            f'{error}; the checkpoints before it are whole: make room, then go on with cawr resume'
        ) from error


def numbered(folder: Path) -> dict[int, Path]:
    """Return the files ``iteration_<k>.pth.tar`` of a folder by k, the updates that they hold, in ascending order."""
    found = {int(match[1]): path for path in folder.glob('iteration_*') if (match := _NUMBERED.fullmatch(path.name))}
    return dict(sorted(found.items()))


def score_of_best(folder: Path) -> float:
    """Return the score that a folder's best checkpoint was kept for; -inf where there is none, or a damaged one."""
    path = folder / BEST
    if not path.exists():
        return -math.inf
    try:
        score = float(read_state(path)['run']['evaluations']['values'][-1])
        return score if math.isfinite(score) else -math.inf
    except Exception as error:  # what it holds may be anything
        warnings.warn(
            f'{path} is damaged ({type(error).__name__}); the best evaluation from here on takes its place',
            stacklevel=2
        )
        return -math.inf

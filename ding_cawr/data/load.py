"""Loading what ``data_path`` names."""
from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ding_cawr.checks import nearest
from ding_cawr.data import bundled, d4rl, minari
from ding_cawr.data.layouts import dataset_file, read_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions
from ding_cawr.tasks import (
    D4RL_IDS,
    d4rl_id_of,
    environment_name,
    find_task,
    instead_of,
    is_d4rl_id,
    split_d4rl_id,
)

DataPath = str | os.PathLike | None
#: Functions that return the file of KIND:NAME, by the kind. They take NAME.
KINDS = {bundled.SCHEME: bundled.path, minari.SCHEME: minari.fetch}
#: The kind in a ``data_path`` of the form KIND:NAME. A file's name may have a colon, too.
SCHEME = re.compile('[a-zA-Z][a-zA-Z_+-]+')


def load_transitions(
    data_path: DataPath | Sequence[DataPath], env_id: str | None = None, unit_actions: bool = True
) -> Transitions:
    """Load a dataset as Transitions.

    Arguments:
        data_path: None for the D4RL set that ``env_id`` names (from the cache, else downloaded); the path of a .hdf5 or
            .npz file in D4RL's, DI-engine's or Minari's layout, or of a Minari dataset's folder; ``bundled:NAME`` for a
            set that comes with the package; ``minari:NAME`` for one of Minari's (from its cache, else downloaded by the
            minari package); or a list of these, whose rows come one after the other.
        env_id: environment that the data should be of: a D4RL or gymnasium id. None skips that check.
        unit_actions: whether continuous actions must be in [-1, 1]; else they are as in the file, and
            ``Transitions.scale_actions`` scales them.

    Raises:
        FileNotFoundError: no such file.
        OSError: a file may not be read, or a program writes to it.
        ValueError: unknown ``data_path`` or unusable content; the message names what and why.
        ConnectionError: the D4RL or Minari file is not in the cache and cannot be downloaded.
    """
    if env_id is not None and not isinstance(env_id, str):
        raise ValueError(f'env_id is {env_id!r}; it must be a D4RL or gymnasium id, or None')
    if isinstance(data_path, Sequence) and not isinstance(data_path, (str, bytes)):
        _check_list(data_path)
        return _one_dataset([load_transitions(each, env_id, unit_actions) for each in data_path])
    if data_path is None:
        if env_id is None or not is_d4rl_id(env_id):
            raise ValueError(
                f'data_path is None, which means the D4RL dataset of env_id, but env_id {env_id!r} names none; give a '
                "data_path (.hdf5, .npz, bundled:NAME, minari:NAME; for D4RL's other sets, such as antmaze, too) "
                "or a D4RL id such as 'hopper-medium-v2'"
            )
        return read_transitions(d4rl.fetch(env_id), env_id, unit_actions)
    if not isinstance(data_path, (str, os.PathLike)):
        raise ValueError(f'data_path is {data_path!r}; it must be None, a path, KIND:NAME, or a list of these')
    text = os.fsdecode(data_path)
    if not text:
        raise ValueError("data_path is ''; it must be None, a path, KIND:NAME, or a list of these")
    scheme, colon, name = text.partition(':')
    if colon and SCHEME.fullmatch(scheme) and not os.path.exists(text):
        return replace(read_transitions(_named(scheme, name), env_id, unit_actions), source=text)
    if is_d4rl_id(text) and not os.path.exists(text):
        raise ValueError(
            f'data_path is {text!r}, the id of a D4RL dataset; leave data_path None and set env_id to it, or give its '
            'file (cawr data download)'
        )
    _check_name(Path(text), env_id)
    return read_transitions(text, env_id, unit_actions)


def _check_list(data_path: Sequence) -> None:
    """Raise a ValueError if an entry of a list is not a path. Warn if an entry occurs twice."""
    for number, each in enumerate(data_path):
        if not isinstance(each, (str, os.PathLike)) or not os.fspath(each):
            raise ValueError(f'data_path has {each!r} at place {number}; it must be a path or KIND:NAME')
    if len(set(map(os.fspath, data_path))) < len(data_path):
        warnings.warn('data_path names a file twice: its rows count twice', stacklevel=3)


def _named(scheme: str, name: str) -> Path:
    """Return the file of ``KIND:NAME``."""
    if scheme not in KINDS:
        known = ' or '.join(f'{kind}:NAME' for kind in KINDS)
        raise ValueError(
            f"data_path '{scheme}:{name}': unknown kind {scheme!r}; it must be None, a .hdf5 or .npz file, or "
            f'{known}{nearest(scheme, KINDS)}'
        )
    return KINDS[scheme](name)


def _check_name(path: Path, env_id: str | None) -> None:
    """Raise a ValueError for a file that has D4RL's name for a dataset of another environment."""
    named, task = d4rl_id_of(path), find_task(env_id)
    if task is not None and named is not None and split_d4rl_id(named)[0] != task:
        raise ValueError(f'{path} is named for {named}, a dataset of another environment than env_id {env_id!r}')


def whole_name(name: str) -> str:
    """Return the name of a dataset; that of D4RL's may lack its '-v2'."""
    return f'{name}-v2' if is_d4rl_id(f'{name}-v2') else name


def find_file(
    name: str, fetch: Callable[[str], Path] = d4rl.fetch, kinds: Mapping[str, Callable[[str], Path]] = KINDS
) -> Path:
    """Return the file of a dataset; ``fetch`` gives that of a D4RL id, ``kinds`` that of KIND:NAME by the kind."""
    if not name:
        raise ValueError("the name of a dataset is ''; it must be a file, a D4RL id or KIND:NAME")
    name = whole_name(name)
    if is_d4rl_id(name):
        return fetch(name)
    kind, colon, rest = name.partition(':')
    if colon and kind in kinds:
        return kinds[kind](rest)
    try:
        return dataset_file(name)
    except FileNotFoundError:
        names = [*D4RL_IDS, *(f'{bundled.SCHEME}:{each}' for each in bundled.names())]
        raise FileNotFoundError(
            f'dataset {name!r} is neither a file nor a D4RL id nor {bundled.SCHEME}:NAME or {minari.SCHEME}:NAME '
            f'(`cawr data list` lists the names){instead_of(name, names)}'
        ) from None


def _one_dataset(parts: list[Transitions]) -> Transitions:
    """Return the rows of all parts, one after the other, with the attributes in which they agree.

    Raises:
        ValueError: there is none, or two are of different widths or environments.
    """
    if not parts:
        raise ValueError('data_path is an empty list; it must have at least one path')
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        _check_agree(part, first)
    return Transitions(
        table=Table(
            np.concatenate([part.rows for part in parts]), first.obs_shape,
            *(_joined([getattr(part.table, name) for part in parts]) for name in ('ends', 'advantage', 'whole')),
        ),
        episode_returns=_joined([part.episode_returns for part in parts]),
        source=', '.join(part.source for part in parts),
        discrete=first.discrete,
        attributes={
            key: value for key, value in first.attributes.items()
            if all(np.array_equal(value, part.attributes.get(key)) for part in parts[1:])
        },
    )


def _check_agree(part: Transitions, first: Transitions) -> None:
    """Raise a ValueError unless two parts of a dataset can be of one environment."""
    widths = [(each.obs_shape, each.action_shape) for each in (first, part)]
    if widths[0] != widths[1]:
        raise ValueError(
            f'{part.source} has observations {widths[1][0]} and actions {widths[1][1]} wide, but {first.source} '
            f'{widths[0][0]} and {widths[0][1]}; the files of a dataset must be of one environment'
        )
    if part.discrete != first.discrete:
        kinds = ['discrete' if each.discrete else 'continuous' for each in (part, first)]
        raise ValueError(
            f'{part.source} has {kinds[0]} actions, but {first.source} {kinds[1]} ones; the files of a dataset '
            'must be of one environment'
        )
    ids = [environment_name(named) for each in (first, part) if (named := each.env_id) is not None]
    if len(set(ids)) > 1:
        raise ValueError(
            f'{part.source} holds data of {ids[1]}, but {first.source} of {ids[0]}; the files of a dataset must be '
            'of one environment'
        )


def _joined(columns: list[np.ndarray | None]) -> np.ndarray | None:
    """Return a column of all parts, None where one part does not have it."""
    return None if any(each is None for each in columns) else np.concatenate(columns)

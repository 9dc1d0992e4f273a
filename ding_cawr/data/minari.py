"""Minari's datasets: the HDF5 layout of its files, and its names.

A set is a folder NAME/data with ``main_data.hdf5``, a group for each episode, and ``metadata.json``. An episode of T
steps has T + 1 observations. The minari package is needed only to download one.
"""
from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ding_cawr.checks import nearest
from ding_cawr.data.columns import check_size, converted, line
from ding_cawr.data.hdf5 import attributes, check_written, column, member
from ding_cawr.files import existing_file

SCHEME = 'minari'
MAIN_FILE = 'main_data.hdf5'
#: Minari's names of the columns of an episode, and D4RL's.
NAMES = {'observations': 'observations', 'actions': 'actions', 'rewards': 'rewards', 'terminations': 'terminals'}
EPISODE = re.compile(r'episode_(\d+)')
#: A name that can be downloaded; it has a version.
DOWNLOADABLE = re.compile(r'.+-v\d+')


def folder() -> Path:
    """Return ``$MINARI_DATASETS_PATH``, else ``~/.minari/datasets``, where the minari package keeps its sets."""
    return Path(os.environ.get('MINARI_DATASETS_PATH') or '~/.minari/datasets').expanduser()


def names() -> list[str]:
    """Return the names of the sets that are in ``folder()``."""
    found = folder().rglob(f'data/{MAIN_FILE}')
    return sorted(str(path.parent.parent.relative_to(folder())) for path in found)


def main_file(path: Path) -> Path | None:
    """Return the file of a set, given the set's folder or the folder ``data`` in it; None where it is not there."""
    return next((file for file in (path / MAIN_FILE, path / 'data' / MAIN_FILE) if os.path.isfile(file)), None)


def cached(name: str) -> Path | None:
    """Return the file of a set that is in ``folder()``, or whose folder the name is; None where it is not there.

    Raises:
        ValueError: the name is empty.
    """
    if not name:
        raise ValueError(f'{SCHEME}:NAME has no name; in {folder()} are: {", ".join(names()) or "none"}')
    return main_file(folder() / name) or main_file(Path(name).expanduser())


def fetch(name: str) -> Path:
    """Return the file of a set, which the minari package downloads where it is not in ``folder()``.

    Raises:
        ValueError: the set is not there, and minari is not installed.
        ConnectionError: minari cannot download it.
    """
    found = cached(name)
    if found:
        return found
    there, close = f'no Minari dataset {name!r} in {folder()}', nearest(name, names())
    try:
        from minari import download_dataset
    except ImportError as error:
        raise ValueError(
            f"{there}; to download it, pip install 'minari[hf]' ({line(error, 200)}){close}"
        ) from error
    try:
        download_dataset(name)
    except Exception as error:  # of the network, of the hub's package, or of a name that it does not know
        if not DOWNLOADABLE.fullmatch(name):
            raise ValueError(f"{there}; names of sets to download are as 'mujoco/hopper/expert-v0'{close}") from error
        raise ConnectionError(
            f'{there}, and minari cannot download it: {line(error, 300) or type(error).__name__}{close}'
        ) from error
    found = cached(name)
    if found is None:
        raise ValueError(f'{there}: minari downloaded it, but without {MAIN_FILE}; only its HDF5 sets are read')
    return found


def has_episodes(file: h5py.File) -> bool:
    """Return whether a file has Minari's layout."""
    return 'episode_0' in file or 'total_episodes' in file.attrs


def read(file: h5py.File, path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the columns in D4RL's layout, and what the set says of itself.

    An episode of T steps takes T + 1 rows: the last holds its last observation and a timeout, and is not a transition.

    Raises:
        ValueError: spaces that are not vectors, or episodes that do not fit together.
    """
    said = _metadata(path, file)
    _check_spaces(said, path)
    numbers = sorted(int(match[1]) for match in map(EPISODE.fullmatch, file) if match)
    episodes = [_Episode(file, number, path) for number in numbers]
    episodes = [episode for episode in episodes if episode.steps]
    if not episodes:
        raise ValueError(f'{path}: the dataset is empty: it has {len(numbers)} episodes and no step')
    check_size(sum(each.nbytes for episode in episodes for each in episode.columns.values()), path)
    widths = {
        (episode.columns['observations'].shape[1], *episode.columns['actions'].shape[1:]) for episode in episodes
    }
    if len(widths) > 1:
        raise ValueError(f'{path}: episodes have observations and actions of different widths: {sorted(widths)}')
    ends = np.cumsum([episode.steps + 1 for episode in episodes])
    columns = {
        name: np.concatenate([episode.read(name, path) for episode in episodes]) for name in NAMES.values()
    }
    columns['timeouts'] = np.zeros(ends[-1], bool)
    columns['timeouts'][ends - 1] = True
    return columns, said


class _Episode:
    """The columns of an episode, by D4RL's names; none is read yet."""

    def __init__(self, file: h5py.File, number: int, path: Path) -> None:
        name = f'episode_{number}'
        group = member(file, name, path)
        if not isinstance(group, h5py.Group):
            raise ValueError(f'{path}: {name} is not a group; it must have {list(NAMES)}')
        missing = [each for each in NAMES if each not in group]
        if missing:
            raise ValueError(f'{path}: {name} has no {missing}; it must have {list(NAMES)}')
        for each in ('observations', 'actions'):
            if isinstance(member(group, each, path), h5py.Group):
                raise ValueError(
                    f'{path}: {name}/{each} is a group, which Dict and Tuple spaces have; it must be vectors (Box)'
                )
        self.columns = {new: column(group, old, path) for old, new in NAMES.items()}
        self.steps = len(self.columns['rewards'])
        lengths = {old: len(self.columns[new]) for old, new in NAMES.items()}
        if list(lengths.values()) != [self.steps + 1, *[self.steps] * 3]:
            raise ValueError(f'{path}: {name} has lengths {lengths}; it must have one more observation than the others')
        self.name = name

    def read(self, name: str, path: Path) -> np.ndarray:
        """Return a column as one of T + 1 rows, in the last of which the action is that before it and the rest 0."""
        dataset = self.columns[name]
        check_written(dataset, f'{self.name}/{name}', path)
        values = converted(name, dataset[()], path)
        if name == 'observations':
            return values
        return np.concatenate([values, values[-1:] if name == 'actions' else np.zeros_like(values[-1:])])


def _metadata(path: Path, file: h5py.File) -> dict[str, Any]:
    """Return what a set says of itself: texts and numbers, the environment's id as ``env_id``, and the spaces."""
    said = attributes(file)
    if (path.parent / 'metadata.json').exists():
        text = existing_file(path.parent / 'metadata.json', 'metadata').read_bytes().decode(errors='replace')
        said.update(_object(text))  # the numbers can be read without it
    spec = _object(said.pop('env_spec', None))
    said.pop('eval_env_spec', None)
    if isinstance(spec.get('id'), str):
        said['env_id'] = spec['id']
    return {key: value for key, value in said.items() if isinstance(value, (str, int, float))}


def _object(text: Any) -> dict:
    """Return the object that a text of JSON holds, an empty one where there is none."""
    with suppress(TypeError, ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, dict) else {}
    return {}


def _check_spaces(said: dict[str, Any], path: Path) -> None:
    """Take the spaces out of what a set says; raise a ValueError for those that are not vectors of numbers."""
    if said.get('data_format', 'hdf5') != 'hdf5':
        raise ValueError(f"{path}: its data_format is {line(said['data_format'], 60)!r}; it must be 'hdf5'")
    for name in ('observation_space', 'action_space'):
        space = _object(said.pop(name, None))
        kind, shape = space.get('type', 'Box'), space.get('shape', [1])
        if name == 'action_space' and kind == 'Discrete' and space.get('start', 0) == 0:
            continue
        if kind != 'Box' or not isinstance(shape, list) or len(shape) != 1:
            shown = f'{kind} of shape {shape}' if kind == 'Box' else kind
            raise ValueError(
                f'{path}: its {name} is {line(shown, 100)}; it must be a Box of one dimension, of actions also '
                'Discrete from 0 on: dicts and images are not supported'
            )

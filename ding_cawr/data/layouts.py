"""Reading files to Transitions: three layouts (D4RL's, DI-engine's and Minari's), in HDF5 or NPZ.

A file may be damaged, or made to do harm: whatever it holds, reading ends in Transitions or in a clear error.
"""
from __future__ import annotations

import os
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ding_cawr.checks import listed, one_of
from ding_cawr.data import minari
from ding_cawr.data.columns import check_size, converted, line
from ding_cawr.data.hdf5 import attributes, check_written, column, opened
from ding_cawr.data.npz import read_npz
from ding_cawr.data.table import COLUMNS, fill_table
from ding_cawr.data.transitions import Transitions, check_actions, check_choices, check_columns, check_environment
from ding_cawr.files import existing_file
from ding_cawr.tasks import EPISODE_STEPS, environment_name, find_task

D4RL_LAYOUT = ('observations', 'actions', 'rewards', 'terminals', 'timeouts')
#: Names of a column of advantages in either layout.
ADVANTAGES = ('advantages', 'advantage')
#: D4RL's files have ``timeouts``; those made otherwise may have ``next_observations`` in its place, or neither.
D4RL_OPTIONAL, DING_OPTIONAL = ('timeouts', 'next_observations', *ADVANTAGES), ADVANTAGES
#: Why files of other kinds are not read, and what to do.
OTHER_ENDINGS = {
    **dict.fromkeys(('.gz', '.bz2', '.xz', '.zst', '.zip', '.tar'), 'unpack it first'),
    **dict.fromkeys(
        ('.pkl', '.pickle', '.pt', '.pth', '.npy', '.joblib'), 'pickles are not read, as they can run code: load it '
        'yourself and write its columns with numpy.savez(path, **columns)'
    ),
}
CHUNK = 1 << 16
#: Share of the rows that may contradict ``timeouts`` before the order of the rows, and so the episodes, are unknown.
UNMARKED_ENDS = 0.01


class Successors(NamedTuple):
    """Says which of the N rows of a file in D4RL's layout begin a transition, and what follows each row.

    Attributes:
        rows: (K,) the rows that begin a transition.
        stops: (N,) whether an episode is marked to end with a row.
        breaks: rows after which another trajectory begins although neither terminals nor timeouts mark it; None where
            the file has no next observations.
        next_obs: (N, O) next observations, None where they are the following rows.
        is_ordered: whether the rows of an episode follow each other.
    """
    rows: np.ndarray
    stops: np.ndarray
    breaks: np.ndarray | None
    next_obs: np.ndarray | None
    is_ordered: bool


def read_transitions(path: str | os.PathLike, env_id: str | None = None, unit_actions: bool = True) -> Transitions:
    """Read a .hdf5 or .npz file in D4RL's, DI-engine's or Minari's layout, or the folder of a Minari dataset.

    Arguments:
        path: the file. HDF5 by .hdf5 or .h5, NumPy archive by .npz.
        env_id: environment that the data should be of; None skips that check.
        unit_actions: whether continuous actions must be in [-1, 1]; else ``Transitions.scale_actions`` reads them.

    Raises:
        FileNotFoundError: no such file.
        OSError: the file may not be read, or a program writes to it.
        ValueError: not a file of these kinds, or its content is not usable; the message names what and why.
    """
    path = dataset_file(path)
    readers = {'.hdf5': _read_hdf5, '.h5': _read_hdf5, '.npz': _read_npz}
    ending = path.suffix.lower()
    if ending in OTHER_ENDINGS:
        why = OTHER_ENDINGS[ending]
        raise ValueError(f'{path}: the ending is {ending!r}; it must be one of {listed(readers)}; {why}')
    columns, said, ends = readers[one_of(f'{path}: the ending', ending, readers)](path)
    columns = {name: converted(name, values, path) for name, values in columns.items()}
    _check_named_environment(said, env_id, path)
    check_columns({name: each for name, each in columns.items() if name != 'next_observations'}, str(path))
    action = columns.get('actions', columns.get('action'))
    if discrete := action.dtype.kind == 'i':
        check_choices(action, str(path))
    elif unit_actions:
        check_actions(action, str(path))
    if 'observations' in columns:
        transitions = _from_d4rl_layout(columns, said, env_id, str(path), ends)
    else:
        transitions = _from_ding_layout(columns, said, env_id, str(path))
    return replace(transitions, discrete=discrete)


def dataset_file(path: str | os.PathLike) -> Path:
    """Return the path of a dataset's file, which may be given as the folder of a Minari dataset.

    Raises:
        ValueError: a folder with other files; and what ``existing_file`` raises.
    """
    folder = os.path.expanduser(os.fsdecode(path))
    if not os.path.isdir(folder):
        return existing_file(path, 'dataset file')
    path = Path(folder)
    if not os.access(path, os.R_OK | os.X_OK):
        raise PermissionError(f'{path} is a folder that may not be listed: permission denied; give a file')
    found = minari.main_file(path)
    if found is None:
        there = sorted(each.name for each in path.iterdir() if each.suffix in ('.hdf5', '.h5', '.npz'))
        raise ValueError(
            f'{path} is a folder; it must be a file, a list of files, or the folder of a Minari dataset, with '
            f'{minari.MAIN_FILE}. Files in it: {line(", ".join(there) or "none that could be read", 300)}'
        )
    return existing_file(found, 'dataset file')


def _check_named_environment(said: dict, env_id: str | None, path: Path) -> None:
    """Raise a ValueError for a file whose attribute ``env_id`` names another environment."""
    named = said.get('env_id')
    if env_id and isinstance(named, str) and environment_name(named) != environment_name(env_id):
        raise ValueError(
            f'{path} says that it holds data of {line(named, 60)}, which is another environment than env_id '
            f'{env_id!r}; set env_id to that, or take other data'
        )


def _choose(names: Collection[str], path: Path) -> list[str]:
    """Return the names of the layout whose columns are all there, and of its optional ones where they are there."""
    names = set(names)
    needed = [name for name in D4RL_LAYOUT if name not in D4RL_OPTIONAL]
    layout = min((needed, COLUMNS), key=lambda layout: len(set(layout) - names))
    missing = [name for name in layout if name not in names]
    if missing:
        raise ValueError(
            f"{path}: columns {missing} are missing; it has {line(sorted(names), 300)}. It must have D4RL's layout "
            f"{list(D4RL_LAYOUT)}, DI-engine's {list(COLUMNS)}, or Minari's groups episode_0, episode_1 and so on. "
            'Nested and pickled columns are not read: write each under its name, as numpy.savez(path, **columns) does'
        )
    optional = D4RL_OPTIONAL if layout is needed else DING_OPTIONAL
    return [*layout, *(name for name in optional if name in names)]


def _read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray | None]:
    """Return the columns, the attributes, and which rows end episodes where the flags do not say it."""
    with opened(path) as file:
        if minari.has_episodes(file):
            columns, said = minari.read(file, path)
            return columns, said, columns['timeouts']
        datasets = {name: column(file, name, path) for name in _choose(file, path)}
        check_size(sum(dataset.nbytes for dataset in datasets.values()), path)
        for name, dataset in datasets.items():
            check_written(dataset, name, path)
        return {name: dataset[()] for name, dataset in datasets.items()}, attributes(file), None


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], None]:
    return read_npz(path, lambda names: _choose(names, path)), {}, None


def _from_d4rl_layout(
    columns: dict, said: dict, env_id: str | None, source: str, ends: np.ndarray | None
) -> Transitions:
    """Return what D4RL's ``qlearning_dataset`` does: row i gives (obs_i, action_i, obs_{i+1}, reward_i, terminal_i).

    The last row and rows with a timeout are left out. Where the file has ``next_observations`` and no timeouts, its
    rows are complete, and all of them are taken. Where it has both and they contradict each other, the rows are D4RL's
    and the next observations the file's own.
    """
    obs, terminals = columns['observations'], columns['terminals']
    check_environment(obs, columns['actions'].shape[1], bool(terminals.any()), env_id, source)
    rows, stops, breaks, own, is_ordered = _successors(columns, env_id, source)

    def part(chunk: slice) -> dict[str, np.ndarray]:
        kept = rows[chunk]
        return dict(
            obs=obs.take(kept, axis=0),
            action=columns['actions'].take(kept, axis=0),
            reward=columns['rewards'].take(kept),
            next_obs=obs.take(kept + 1, axis=0) if own is None else own.take(kept, axis=0),
            done=terminals.take(kept),
        )

    table = fill_table(len(rows), obs.shape[1], columns['actions'].shape[1], part)
    table.ends = trajectory_ends(rows, stops, breaks)
    given = _advantages(columns, source)
    table.advantage = None if given is None else given.take(rows)
    returns, ends = None, stops if ends is None else ends
    if is_ordered:
        returns = episode_returns(columns['rewards'], ends, breaks)
        table.whole = are_whole(rows[table.ends], ends, breaks)
    return Transitions(
        table=table,
        episode_returns=returns,
        source=source,
        attributes=said,
    )


def _successors(columns: dict, env_id: str | None, source: str) -> Successors:
    """Return which rows of a file in D4RL's layout begin a transition, and what follows each row.

    Raises:
        ValueError: no transition is left.
    """
    obs, terminals, own = columns['observations'], columns['terminals'], columns.get('next_observations')
    timeouts, is_ordered = columns.get('timeouts'), True
    if timeouts is None and own is None:
        timeouts, is_ordered = _assumed_timeouts(terminals, env_id, source)
    rows = np.arange(len(obs)) if timeouts is None else np.flatnonzero(~timeouts[:-1])
    if len(rows) == 0:
        raise ValueError(f'{source}: no transition is left of {len(obs)} rows: the last row and timeouts do not count')
    stops = terminals if timeouts is None else terminals | timeouts
    breaks = None if own is None else _breaks(obs, own, stops, source)
    if own is None or (timeouts is not None and len(breaks) == 0):
        return Successors(rows, stops, breaks, None, is_ordered)
    check_columns({'next_observations': own}, source)
    if timeouts is not None:
        _warn_of_contradictions(breaks, len(obs), source)
    is_ordered = len(breaks) <= (0 if timeouts is None else UNMARKED_ENDS * len(obs))
    return Successors(rows, stops, breaks, own, is_ordered)


def _assumed_timeouts(terminals: np.ndarray, env_id: str | None, source: str) -> tuple[np.ndarray, bool]:
    """Return timeouts for a file that has none, and whether they are all of them.

    On D4RL's tasks an episode is at its time limit after 1000 steps. On any other it goes on until a terminal.
    ``qlearning_dataset`` counts a terminal row as the first of the next episode, and so cuts that episode one row
    earlier.
    """
    add = (
        "add a column timeouts that is True in an episode's last row where a time limit ended it, or next_observations"
    )
    if env_id is None or find_task(env_id) is None:
        warnings.warn(
            f'{source} has neither timeouts nor next_observations: every row that is not terminal takes the following '
            "row's observation for its next observation, which is wrong where a time limit ended an episode; episode "
            f'returns are unknown. If there are such ends, {add}', stacklevel=5
        )
        return np.zeros(len(terminals), bool), False
    warnings.warn(
        f"{source} has neither timeouts nor next_observations: D4RL's time limit of {EPISODE_STEPS} steps is taken to "
        f'end episodes. If it did not, {add}', stacklevel=5
    )
    rows = np.arange(len(terminals))
    starts = np.maximum.accumulate(np.where(np.roll(terminals, 1), rows, 0))
    return (rows - starts) % EPISODE_STEPS == EPISODE_STEPS - 1, True


def _warn_of_contradictions(breaks: np.ndarray, size: int, source: str) -> None:
    warnings.warn(
        f'{source}: in {len(breaks)} of {size} rows, first in row {breaks[0]}, next_observations are not the following '
        "row's observations, though neither terminals nor timeouts end an episode there; the next_observations of the "
        "file are used. To have the following row's, remove the column next_observations", stacklevel=5
    )


def _breaks(obs: np.ndarray, own: np.ndarray, stops: np.ndarray, source: str) -> np.ndarray:
    """Return the rows (K,), no stop among them, whose own next observation is not the observation of the next row.

    Differences by rounding do not count.

    Raises:
        ValueError: the two columns differ in shape.
    """
    if own.shape != obs.shape:
        raise ValueError(f'{source}: observations {obs.shape} and next_observations {own.shape} differ in shape')
    found = [np.zeros(0, int)]
    for start in range(0, len(obs) - 1, CHUNK):
        end = min(start + CHUNK, len(obs) - 1)
        rows = start + np.flatnonzero((own[start:end] != obs[start + 1:end + 1]).any(1) & ~stops[start:end])
        found.append(rows[~np.isclose(own[rows], obs[rows + 1], rtol=1e-5, atol=1e-6).all(1)])
    return np.concatenate(found)


def _from_ding_layout(columns: dict, said: dict, env_id: str | None, source: str) -> Transitions:
    """Return the rows of DI-engine's own files, which are in any order, so that episodes are unknown."""
    if columns['obs'].shape != columns['next_obs'].shape:
        shapes = f"obs {columns['obs'].shape} and next_obs {columns['next_obs'].shape}"
        raise ValueError(f'{source}: {shapes} differ in shape; both are (transitions, width)')
    check_environment(columns['obs'], columns['action'].shape[1], bool(columns['done'].any()), env_id, source)
    size, obs_shape = columns['obs'].shape
    table = fill_table(
        size, obs_shape, columns['action'].shape[1],
        lambda chunk: {name: columns[name][chunk] for name in COLUMNS}
    )
    table.advantage = _advantages(columns, source)
    return Transitions(table=table, episode_returns=None, source=source, attributes=said)


def _advantages(columns: dict, source: str) -> np.ndarray | None:
    """Return the column of advantages, None where there is none."""
    found = [name for name in ADVANTAGES if name in columns]
    if len(found) > 1:
        raise ValueError(f'{source} has the columns {" and ".join(found)}; it must have one of them')
    return columns[found[0]] if found else None


def episode_returns(rewards: np.ndarray, ends: np.ndarray, breaks: np.ndarray | None = None) -> np.ndarray:
    """Return the undiscounted returns (E,) in float64 of the whole episodes that end where ``ends`` (N,) is true.

    Rows ``breaks`` (K,) end a trajectory, too, but one that is part of an episode and is left out.
    """
    last = _last_rows(ends, breaks)
    running = np.concatenate([[0.0], np.cumsum(rewards, dtype=np.float64)])
    return np.diff(running[np.concatenate([[0], last + 1])])[ends[last]]


def are_whole(last: np.ndarray, ends: np.ndarray, breaks: np.ndarray | None = None) -> np.ndarray:
    """Return which of the trajectories whose last rows are given (P,) are the episodes of ``episode_returns`` (P,)."""
    cuts = np.union1d(_last_rows(ends, breaks), len(ends) - 1)  # the file's end is that of a part, if of no episode
    return ends[cuts[np.searchsorted(cuts, last)]]


def _last_rows(ends: np.ndarray, breaks: np.ndarray | None) -> np.ndarray:
    """Return the last rows, ascending, of episodes and of parts of such."""
    cuts = ends.copy()
    cuts[[] if breaks is None else breaks] = True
    return np.flatnonzero(cuts)


def trajectory_ends(rows: np.ndarray, stops: np.ndarray, breaks: np.ndarray | None = None) -> np.ndarray:
    """Return which of the rows (K,) that were taken from a file of N are the last ones of their trajectories.

    Arguments:
        rows: their places in the file, ascending. A trajectory ends where the next one was left out, as at a time
            limit.
        stops: (N,) whether a row of the file is terminal or at a time limit.
        breaks: rows of the file after which another trajectory begins although ``stops`` does not mark it.
    """
    ends = stops[rows]
    ends[:-1] |= np.diff(rows) > 1
    ends[-1] = True
    if breaks is not None:
        ends |= np.isin(rows, breaks)
    return ends

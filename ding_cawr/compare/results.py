"""The file of results: one JSON line an evaluation, appended to and never rewritten.

A line of kind 'evaluation' describes itself, so that lines of any files can be put together:

    kind                'evaluation'
    dataset             what the run was asked to train on: a D4RL id, 'bundled:NAME' or a file's path
    dataset_sha256      of the file
    origin              'D4RL', 'stand-in' (D4RL's name, but not D4RL's file), 'bundled' or 'file'
    env_id              the environment that evaluates
    corruption          None, or dict(columns, rate, scale, seed) of the rows that were corrupted on purpose
    policy              the name in the comparison
    policy_source       what that name stood for
    settings            the policy's configuration as it ran
    seed, iterations, eval_freq, episodes
                        the run's seed, budget, iterations between evaluations, episodes of each
    behaviour_score     mean normalized score of the dataset's episodes, None where unknown
    preset              the preset that the run belongs to, or None
    run                 a name for this attempt, the same in all its lines
    iteration           updates done
    returns, scores     of every episode: the undiscounted return, the normalized score (None where there is none)
    seconds             of training so far, evaluations aside
    evaluation_seconds  of this evaluation
    iterations_per_second
                        of training since the evaluation before
    time, versions, machine
                        when (ISO 8601, UTC), with what, and on what

A line of kind 'run' holds all evaluations of a run, where files are to stay small: what they have in common once, and
under 'evaluations' a list of each of iteration, returns, seconds, evaluation_seconds and iterations_per_second,
rounded. Scores follow from the returns.

A number that is not finite, such as the return of an episode that broke off, is null in the file and NaN when it is
read.

A run is finished when it has an evaluation at ``iterations``. A line of kind 'failure' has what identifies the run, and
'error' (a line), 'log' (the path of the run's log) and 'time'.
"""
from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from ding_cawr.files import to_json, writing
from ding_cawr.score import score_or_none

#: What makes two runs the same run: a finished one is not run again.
IDENTITY = (
    'dataset_sha256', 'env_id', 'corruption', 'policy', 'settings', 'seed', 'iterations', 'eval_freq', 'episodes'
)
OF_RUN = (*IDENTITY, 'dataset', 'origin', 'policy_source', 'behaviour_score', 'preset', 'versions', 'machine')
OF_EVALUATION = ('iteration', 'returns', 'scores', 'seconds', 'evaluation_seconds', 'iterations_per_second')
#: The names that a line of each kind must have.
OF_KIND = {
    'failure': (*IDENTITY, 'dataset', 'error', 'log'), 'evaluation': (*OF_RUN, *OF_EVALUATION, 'run'),
    'run': (*OF_RUN, 'evaluations', 'run'),
}

NUMBER = (int, float)
#: Types of what a line says, where null is allowed too but for what is in GIVEN; what is not named may be anything.
TYPES = {
    **dict.fromkeys(('dataset', 'dataset_sha256', 'origin', 'env_id', 'policy', 'policy_source', 'preset', 'run',
                     'error', 'log', 'time'), str),
    **dict.fromkeys(('seed', 'iterations', 'eval_freq', 'episodes', 'iteration'), int),
    **dict.fromkeys(('behaviour_score', 'seconds', 'evaluation_seconds', 'iterations_per_second', 'rate', 'scale'),
                    NUMBER),
    **dict.fromkeys(('corruption', 'settings', 'learn', 'versions', 'machine'), dict),
    'columns': (str, list),
}
GIVEN = (
    'dataset', 'dataset_sha256', 'policy', 'run', 'seed', 'iterations', 'eval_freq', 'episodes', 'iteration', 'columns',
    'rate', 'scale',
)


@dataclass
class Results:
    """Holds a row an evaluation of finished and of unfinished runs, the lines of failures, and the lines that could not
    be read, each as 'FILE, line N'. Rows have the names of their line; ``mean``, the mean score of the episodes, or
    mean return where no score is defined; ``identity``, of the run; and ``file``."""
    finished: pd.DataFrame
    unfinished: pd.DataFrame
    failures: list[dict[str, Any]]
    skipped: list[str]


def identity(about: Mapping[str, Any]) -> str:
    """Return what makes a run the same run, as text."""
    return to_json({name: about.get(name) for name in IDENTITY}, sort_keys=True)


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines at the end, in one write that is on the disk before this returns. A last line that was cut short, by a
    kill or a full disk, is ended first, so that it spoils no other."""
    text = ''.join(to_json(line, sort_keys=True) + '\n' for line in lines)
    with writing(path), open(path, 'ab+') as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b'\n' else '\n' + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def scores(env_id: str, returns: Sequence[float], settings: Mapping[str, Any] | None) -> list[float] | None:
    """Return the episodes' normalized scores, None where the environment has none, see ``score_or_none``.

    Arguments:
        settings: those of a run. Their section ``env`` says how its environment was made.
    """
    env = (settings or {}).get('env') or {}  # which older lines do not have
    scores = score_or_none(env_id, np.asarray(returns), env.get('kwargs'), env.get('max_episode_steps'))
    return None if scores is None else scores.tolist()


def condensed(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the evaluations of one run as one line of kind 'run', with returns and times to three decimals."""
    common = {name: lines[0][name] for name in (*OF_RUN, 'run')}
    columns = {name: [np.round(line[name], 3).tolist() for line in lines] for name in OF_EVALUATION if name != 'scores'}
    return {'kind': 'run', **common, 'time': lines[-1]['time'], 'evaluations': columns}


def _evaluations(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a line holds, as lines of kind 'evaluation'."""
    if line['kind'] != 'run':
        return [_with_nan(line)] if line['kind'] == 'evaluation' else []
    columns = line['evaluations']
    rows = [_with_nan(dict(zip(columns, values))) for values in zip(*columns.values())]
    return [{**line, **row, 'scores': scores(line['env_id'], row['returns'], line['settings'])} for row in rows]


def _with_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with NaN among its returns, scores and times where the file has null."""
    numbers = {name: math.nan if row[name] is None else row[name]
               for name in OF_EVALUATION if TYPES.get(name) is NUMBER}
    lists = {name: [math.nan if each is None else each for each in row[name]]
             for name in ('returns', 'scores') if row.get(name) is not None}
    return {**row, **numbers, **lists}


def read(paths: Path | Sequence[Path]) -> Results:
    """Read one or more files, which must exist. Of runs that are the same the first finished one counts. Of failures
    the latest counts, unless a finished run made it good."""
    lines: list[dict[str, Any]] = []
    failures: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for number, text in enumerate(_text(Path(path)).split('\n'), 1):
            line = _parse(text) if text.strip() else {'kind': None}
            if line is None:
                skipped.append(f'{path}, line {number}')
                continue
            if line['kind'] == 'failure':
                failures[identity(line)] = line
            for each in _evaluations(line):
                mean = fmean(each['returns'] if each['scores'] is None else each['scores'])
                lines.append({**each, 'mean': mean, 'identity': identity(each), 'file': Path(path)})
    frame = pd.DataFrame(lines, columns=[*OF_KIND['evaluation'], 'mean', 'identity', 'file'], dtype=object)
    ended = frame.groupby('run').iteration.transform('last') >= frame.iterations
    counted = frame[ended].drop_duplicates('identity')
    return Results(
        frame[frame.run.isin(counted.run)], frame[~ended & ~frame.identity.isin(counted.identity)],
        [line for name, line in failures.items() if name not in set(counted.identity)], skipped
    )


def _text(path: Path) -> str:
    """Return what a file says, in UTF-8 or with the mark of UTF-16, as shells on Windows write it."""
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode('utf-16' if is_utf16 else 'utf-8-sig', errors='replace')


def _parse(text: str) -> dict[str, Any] | None:
    """Return a line, None where it is not one of ours."""
    try:
        line = json.loads(text)
        corruption, settings = line.get('corruption') or {}, line.get('settings') or {}
        parts = line, settings, corruption
        if not (line.keys() >= {*OF_KIND[line['kind']]} and all(map(_is_typed, parts))
                and (not corruption or corruption.keys() >= {'columns', 'rate', 'scale', 'seed'})):
            return None
        if line['kind'] == 'failure':
            return line
        columns = line['evaluations'] if line['kind'] == 'run' else {name: [line[name]] for name in OF_EVALUATION}
        rows = [dict(zip(columns, values)) for values in zip(*columns.values(), strict=True)]
        return line if {*columns, 'scores'} >= {*OF_EVALUATION} and rows and all(map(_is_evaluation, rows)) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_typed(found: Mapping[str, Any]) -> bool:
    """Return whether everything that a line says is of the type that it must be."""
    return all(_is_a(value, TYPES[name]) or value is None and name not in GIVEN
               for name, value in found.items() if name in TYPES)


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Return whether a value is of a type; a number must be one that NumPy's have room for."""
    fits = isinstance(value, kind) and not isinstance(value, bool)
    return fits and not (isinstance(value, int) and abs(value) >= 2**63)


def _is_evaluation(row: Mapping[str, Any]) -> bool:
    """Return whether a row is one evaluation."""
    returns, scored = row['returns'], row.get('scores')
    lists = [returns] if scored is None else [returns, scored]
    return _is_typed(row) and all(
        isinstance(each, list) and len(each) == len(returns) > 0
        and all(value is None or _is_a(value, NUMBER) for value in each) for each in lists
    )

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

A run is finished when it has an evaluation at ``iterations``. A line of kind 'failure' has what identifies the run, and
'error' (a line), 'log' (the path of the run's log) and 'time'.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task

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


@dataclass
class Results:
    """Holds a row an evaluation of finished and of unfinished runs, the lines of failures, and the number of lines that
    could not be read. Rows have the names of their line; ``mean``, the mean score of the episodes, or mean return where
    no score is defined; ``identity``, of the run; and ``file``."""
    finished: pd.DataFrame
    unfinished: pd.DataFrame
    failures: list[dict[str, Any]]
    skipped_lines: int


def identity(about: Mapping[str, Any]) -> str:
    """Return what makes a run the same run, as text."""
    return json.dumps({name: about.get(name) for name in IDENTITY}, sort_keys=True)


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines at the end, in one write that is on the disk before this returns. A last line that was cut short, by a
    kill or a full disk, is ended first, so that it spoils no other."""
    text = ''.join(json.dumps(line, sort_keys=True) + '\n' for line in lines)
    with open(path, 'ab+') as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b'\n' else '\n' + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def scores(env_id: str, returns: Sequence[float]) -> list[float] | None:
    """Return the episodes' normalized scores, None where the environment has no reference returns."""
    return [float(normalized_score(env_id, value)) for value in returns] if find_task(env_id) else None


def condensed(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the evaluations of one run as one line of kind 'run', with returns and times to three decimals."""
    common = {name: lines[0][name] for name in (*OF_RUN, 'run')}
    columns = {name: [np.round(line[name], 3).tolist() for line in lines] for name in OF_EVALUATION if name != 'scores'}
    return {'kind': 'run', **common, 'time': lines[-1]['time'], 'evaluations': columns}


def _evaluations(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a line holds, as lines of kind 'evaluation'."""
    if line.get('kind') != 'run':
        return [line] if line.get('kind') == 'evaluation' else []
    columns = line['evaluations']
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return [{**line, **row, 'scores': scores(line['env_id'], row['returns'])} for row in rows]


def read(paths: Path | Sequence[Path]) -> Results:
    """Read one or more files, which must exist. Of runs that are the same the first finished one counts. Of failures
    the latest counts, unless a finished run made it good."""
    lines: list[dict[str, Any]] = []
    failures: dict[str, dict[str, Any]] = {}
    skipped = 0
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for text in filter(str.strip, Path(path).read_text(errors='replace').splitlines()):
            line = _parse(text)
            if line is None:
                skipped += 1
            elif line['kind'] == 'failure':
                failures[identity(line)] = line
            for each in _evaluations(line or {}):
                mean = fmean(each['returns'] if each['scores'] is None else each['scores'])
                lines.append({**each, 'mean': mean, 'identity': identity(each), 'file': Path(path)})
    frame = pd.DataFrame(lines, columns=[*OF_KIND['evaluation'], 'mean', 'identity', 'file'], dtype=object)
    ended = frame.groupby('run').iteration.transform('last') >= frame.iterations
    counted = frame[ended].drop_duplicates('identity')
    return Results(
        frame[frame.run.isin(counted.run)], frame[~ended & ~frame.identity.isin(counted.identity)],
        [line for name, line in failures.items() if name not in set(counted.identity)], skipped
    )


def _parse(text: str) -> dict[str, Any] | None:
    """Return a line, None where it is not one of ours."""
    try:
        line = json.loads(text)
        columns = line['evaluations'].keys() if line['kind'] == 'run' else OF_EVALUATION
        is_whole = line.keys() >= {*OF_KIND[line['kind']]} and {*columns, 'scores'} >= {*OF_EVALUATION}
        return line if is_whole else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None

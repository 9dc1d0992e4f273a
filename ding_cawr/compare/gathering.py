"""Gather files of results for a report: finished runs that may stand in one table, and what did not finish."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ding_cawr.compare.results import read
from ding_cawr.compare.statistics import PROTOCOLS

FILE = 'results.jsonl'
#: Origins in the report's order: the title of their section, and the mark of their tables and figures.
ORIGINS = {
    'D4RL': ("D4RL's datasets", ''),
    'stand-in': ('Stand-ins for D4RL', "stand-in, not D4RL's scores"),
    'bundled': ('Bundled datasets', "bundled with the package, not D4RL's scores"),
    'file': ('Other files', "a file, not D4RL's scores"),
}
#: Names whose values all runs on one dataset must share.
COMMON = ('dataset_sha256', 'origin', 'env_id', 'iterations', 'eval_freq', 'episodes')


@dataclass(frozen=True)
class Gathered:
    """Holds what is reported.

    Attributes:
        runs: a row a finished run, sorted by dataset, policy and seed: what ``results`` documents, with ``policy`` (the
            label in the report), ``corruption`` (text, None for clean data), ``corrupted`` (its columns), ``rate``,
            ``scale``, ``corruption_seed``, ``machine`` and ``versions`` (text), ``on`` (a number for these two),
            ``speed`` (iterations a second), ``evaluations`` (their number), ``scored``, and the score by each protocol.
        evaluations: a row an evaluation of these runs: ``run``, ``iteration``, ``seconds``, ``mean``.
        unfinished: the last line of each.
    """
    files: list[Path]
    runs: pd.DataFrame
    evaluations: pd.DataFrame
    unfinished: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    skipped: list[str]


def gather(paths: Iterable[str | os.PathLike]) -> Gathered:
    """Read files, or folders that hold a results.jsonl.

    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        ValueError: there is nothing to report, or runs on one dataset differ in what they must have in common.
    """
    files = list({file.resolve(): file for file in map(_results_file, map(Path, paths))}.values())
    results = read(files)
    if not (len(results.finished) or len(results.unfinished) or results.failures):
        raise ValueError(
            f'{joined(files)}: nothing to report, no evaluation and no failure '
            f'({skipped_text(results.skipped)}); a comparison writes such files'
        )
    # An iteration that was written twice counts once.
    evaluations = results.finished.sort_values('iteration', kind='stable')
    evaluations = evaluations.drop_duplicates(['run', 'iteration'], keep='last')
    runs = _runs(results.finished.drop_duplicates('run').set_index('run'), evaluations.groupby('run'))
    _refuse_mixtures(runs)
    return Gathered(
        files, runs, evaluations[['run', 'iteration', 'seconds', 'mean']].infer_objects(),
        results.unfinished.drop_duplicates('run', keep='last').to_dict('records'), results.failures,
        results.skipped
    )


def _results_file(path: Path) -> Path:
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        where = f'the folder {str(path)!r} holds no {FILE}' if path.is_dir() else f'there is no file {str(path)!r}'
        raise FileNotFoundError(f'{where}; give the {FILE} of a comparison, or the folder that holds it')
    return file


def _runs(first: pd.DataFrame, evaluations: Any) -> pd.DataFrame:
    """Return ``Gathered.runs`` from the first line of each run, and all evaluations by run."""
    options = pd.DataFrame([each or {} for each in first.corruption], first.index, ['rate', 'scale', 'seed'], object)
    about = {name: [joined(f'{key} {value}' for key, value in (each or {}).items() if value is not None)
                    for each in first[name]] for name in ('machine', 'versions')}
    runs = first.assign(
        policy=_labels(first), scored=first.scores.notna(), corruption=first.corruption.map(corruption_text),
        corrupted=[_columns(each) if each else None for each in first.corruption],
        rate=options.rate.astype(float).fillna(0), scale=options.scale, corruption_seed=options.seed,
        **about, evaluations=evaluations.size(),
        speed=evaluations.iterations_per_second.agg(lambda values: values.astype(float).median()),
        **{name: evaluations['mean'].agg(lambda means, score=score: score(list(means)))
           for name, score in PROTOCOLS.items()},
    )
    runs = runs.sort_values(['dataset', 'policy', 'corruption', 'seed'], key=lambda column: column.fillna(''))
    return runs.assign(on=by(runs, 'machine', 'versions').ngroup().add(1).astype(str))


def _labels(runs: pd.DataFrame) -> list[str]:
    """Return the labels of policies. A name that stood for several things is followed by their presets or, if those do
    not tell them apart, by a number."""
    labels = {}
    for policy, meanings in by(runs.drop_duplicates(['policy', 'policy_source']), 'policy'):
        told_apart = meanings.preset.nunique(dropna=False) == len(meanings)
        for number, (source, preset) in enumerate(zip(meanings.policy_source, meanings.preset), 1):
            suffix = (preset or 'no preset') if told_apart else number
            labels[policy, source] = policy if len(meanings) == 1 else f'{policy} ({suffix})'
    return [labels[each] for each in zip(runs.policy, runs.policy_source)]


def _refuse_mixtures(runs: pd.DataFrame) -> None:
    for run in runs[~runs.origin.isin(list(ORIGINS))].itertuples():
        raise ValueError(
            f'{run.dataset}: origin is {run.origin!r} in {run.file}; it must be one of {joined(ORIGINS)}. The file '
            'may be of a newer ding_cawr: report it with that one'
        )
    for dataset, on_it in by(runs, 'dataset'):
        for name in COMMON:
            _refuse_differences(f'{dataset}: {name}', on_it[name], on_it.file)
        for policy, group in by(on_it, 'policy'):
            settings = [flattened(each or {}) for each in group.settings]
            for key in dict.fromkeys(key for each in settings for key in each):
                what = f'{dataset}, policy {policy!r}: settings.{key}'
                _refuse_differences(what, [each.get(key) for each in settings], group.file)


def _refuse_differences(what: str, values: Iterable[Any], files: pd.Series) -> None:
    found = files.groupby([repr(value) for value in values], sort=False).unique()
    if len(found) > 1:
        raise ValueError(
            f'{what} is {" and ".join(f"{value} in {joined(where)}" for value, where in found.items())}. Runs that '
            'differ in it do not belong in one table: report the files separately, and where one file has both, move '
            'the lines of one kind to a file of their own'
        )


def skipped_text(lines: Sequence[str]) -> str:
    """Return which lines could not be read, the first of many by name."""
    named = f' ({joined(lines[:5])}{", ..." if len(lines) > 5 else ""})' if lines else ''
    number = '1 line could not be read and was' if len(lines) == 1 else f'{len(lines)} lines could not be read and were'
    return f'{number} left out{named}'


def by(frame: pd.DataFrame, *keys: str) -> Any:
    """Group rows by columns, in order of first appearance; None is a group too."""
    return frame.groupby(keys[0] if len(keys) == 1 else list(keys), sort=False, dropna=False)


def flattened(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return {'learn.temperature': 0.5, ...} of nested settings."""
    flat = {}
    for key, value in settings.items():
        inner = flattened(value, f'{prefix}{key}.') if isinstance(value, Mapping) else None
        flat.update(inner or {f'{prefix}{key}': value})
    return flat


def joined(items: Iterable[Any]) -> str:
    return ', '.join(map(str, items))


def corruption_text(corruption: Mapping[str, Any] | None) -> str | None:
    """Describe what was corrupted; None for clean data."""
    text = '{} {rate:g} (scale {scale:g}, seed {seed})'
    return text.format(_columns(corruption), **corruption) if corruption else None


def _columns(corruption: Mapping[str, Any]) -> str:
    columns = corruption['columns']
    return columns if isinstance(columns, str) else '+'.join(columns)


def of_preset(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return clean runs of the policies of a preset, whichever preset ran them."""
    return runs[runs.policy.isin(runs.policy[runs.preset == preset]) & runs.corruption.isna()]

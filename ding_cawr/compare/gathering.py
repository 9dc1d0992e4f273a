"""Gather files of results for a report: finished runs that may stand in one table, and what did not finish."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from ding_cawr.compare.results import Run, read
from ding_cawr.compare.statistics import PROTOCOLS

FILE = 'results.jsonl'
#: Origins in the report's order: the title of their section, and the mark of their tables and figures.
ORIGINS = {
    'D4RL': ("D4RL's datasets", ''),
    'stand-in': ('Stand-ins for D4RL', "stand-in, not D4RL's scores"),
    'bundled': ('Bundled datasets', "bundled with the package, not D4RL's scores"),
    'file': ('Other files', "a file, not D4RL's scores"),
}
#: What all runs on one dataset must have in common.
COMMON = ('dataset_sha256', 'origin', 'env_id', 'iterations', 'eval_freq', 'episodes')
ABOUT_RUN = (*COMMON, 'dataset', 'seed', 'behaviour_score', 'policy_source', 'preset', 'settings', 'scored')


@dataclass(frozen=True)
class Gathered:
    """What is reported.

    Attributes:
        runs: a row a finished run, sorted by dataset, policy and seed: ``ABOUT_RUN``, ``policy`` (the label in the
            report), ``corruption`` (text, None for clean data), ``corrupted`` (its columns), ``rate``, ``scale``,
            ``corruption_seed``, ``machine``, ``versions``, ``on`` (the number of these two),
            ``speed`` (iterations a second), ``evaluations`` (their
            number), and the score by each protocol.
        evaluations: a row an evaluation of these runs: ``run`` (the row in ``runs``), ``iteration``, ``seconds``,
            ``mean``.
    """
    files: list[Path]
    runs: pd.DataFrame
    evaluations: pd.DataFrame
    unfinished: list[Run]
    failures: list[dict[str, Any]]
    skipped_lines: int


def gather(paths: Iterable[str | os.PathLike]) -> Gathered:
    """Read the results, and refuse to mix what does not belong together.

    Arguments:
        paths: files, or folders that hold a results.jsonl.

    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        ValueError: there is nothing to report, or runs on one dataset differ in what they must have in common.
    """
    given = [_results_file(Path(path)) for path in paths]
    files = list({file.resolve(): file for file in given}.values())
    results = read(files)
    if not (results.runs or results.unfinished or results.failures):
        raise ValueError(
            f'{listed(files)}: nothing to report, no evaluation and no failure '
            f'({results.skipped_lines} lines could not be read); a comparison writes such files'
        )
    labels = _labels(results.runs)
    order = sorted(results.runs, key=lambda run: (
        run.dataset, labels[run.policy, run.policy_source], corruption_text(run.corruption) or '', run.seed
    ))
    # An iteration that was written twice counts once.
    evaluations = [{each.iteration: each for each in sorted(run.evaluations, key=lambda each: each.iteration)}
                   for run in order]
    runs = pd.DataFrame([
        _row(run, labels[run.policy, run.policy_source], [each.mean for each in of_run.values()])
        for run, of_run in zip(order, evaluations)
    ], dtype=object)
    _refuse_mixtures(runs)
    if len(runs):
        runs['on'] = [str(number + 1) for number in by(runs, 'machine', 'versions').ngroup()]
    return Gathered(files, runs, pd.DataFrame([
        dict(run=number, iteration=each.iteration, seconds=each.seconds, mean=each.mean)
        for number, of_run in enumerate(evaluations) for each in of_run.values()
    ]), results.unfinished, results.failures, results.skipped_lines)


def _results_file(path: Path) -> Path:
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        where = f'the folder {str(path)!r} holds no {FILE}' if path.is_dir() else f'there is no file {str(path)!r}'
        raise FileNotFoundError(f'{where}; give the {FILE} of a comparison, or the folder that holds it')
    return file


def _row(run: Run, label: str, means: list[float]) -> dict[str, Any]:
    corruption = run.corruption or {}
    return {
        **{name: getattr(run, name) for name in ABOUT_RUN}, 'policy': label, 'file': run.file,
        'corruption': corruption_text(run.corruption), 'corrupted': _columns_text(corruption) if corruption else None,
        'rate': float(corruption.get('rate', 0)), 'scale': corruption.get('scale'),
        'corruption_seed': corruption.get('seed'), 'machine': _facts(run.machine), 'versions': _facts(run.versions),
        'speed': median(each.iterations_per_second for each in run.evaluations), 'evaluations': len(means),
        **{name: protocol(means) for name, protocol in PROTOCOLS.items()},
    }


def _facts(about: Mapping[str, Any]) -> str:
    return listed(f'{name} {value}' for name, value in about.items() if value is not None)


def _labels(runs: Iterable[Run]) -> dict[tuple[str, str], str]:
    """Return {(policy, what it stood for): label}. A policy's name that stood for several things is followed by their
    presets or, if those do not tell them apart, by a number."""
    meanings: dict[str, dict[str, str | None]] = {}
    for run in runs:
        meanings.setdefault(run.policy, {}).setdefault(run.policy_source, run.preset)
    labels = {}
    for policy, presets in meanings.items():
        told_apart = len(set(presets.values())) == len(presets)
        for number, (source, preset) in enumerate(presets.items(), 1):
            suffix = (preset or 'no preset') if told_apart else number
            labels[policy, source] = policy if len(presets) == 1 else f'{policy} ({suffix})'
    return labels


def _refuse_mixtures(runs: pd.DataFrame) -> None:
    for run in runs.itertuples():
        if run.origin not in ORIGINS:
            raise ValueError(
                f'{run.dataset}: origin is {run.origin!r} in {run.file}; it must be one of {listed(ORIGINS)}. The file '
                'may be of a newer ding_cawr: report it with that one'
            )
    for dataset, on_it in by(runs, 'dataset'):
        for name in COMMON:
            _refuse_differences(dataset, name, on_it[name], on_it.file)
        for policy, group in by(on_it, 'policy'):
            settings = [flattened(each) for each in group.settings]
            for key in dict.fromkeys(key for each in settings for key in each):
                what = f'{dataset}, policy {policy!r}'
                _refuse_differences(what, f'settings.{key}', [each.get(key) for each in settings], group.file)


def _refuse_differences(what: str, name: str, values: Iterable[Any], files: Iterable[Path]) -> None:
    found: dict[str, dict[Path, None]] = {}
    for value, file in zip(values, files):
        found.setdefault(repr(value), {})[file] = None
    if len(found) > 1:
        differing = ' and '.join(f'{value} in {listed(where)}' for value, where in found.items())
        raise ValueError(
            f'{what}: {name} is {differing}. Runs that differ in it do not belong in one table: report the files '
            'separately, and where one file has both, move the lines of one kind to a file of their own'
        )


def by(frame: pd.DataFrame, *keys: str) -> Any:
    """Group rows by columns, in order of first appearance; None is a group too."""
    return frame.groupby(keys[0] if len(keys) == 1 else list(keys), sort=False, dropna=False) if len(frame) else ()


def flattened(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return {'learn.temperature': 0.5, ...} of nested settings."""
    flat = {}
    for key, value in settings.items():
        inner = flattened(value, f'{prefix}{key}.') if isinstance(value, Mapping) else None
        flat.update(inner or {f'{prefix}{key}': value})
    return flat


def listed(items: Iterable[Any]) -> str:
    return ', '.join(map(str, items))


def corruption_text(corruption: Mapping[str, Any] | None) -> str | None:
    """Describe what was corrupted; None for clean data."""
    if corruption is None:
        return None
    size = f'scale {corruption["scale"]:g}, seed {corruption["seed"]}'
    return f'{_columns_text(corruption)} {corruption["rate"]:g} ({size})'


def _columns_text(corruption: Mapping[str, Any]) -> str:
    columns = corruption['columns']
    return columns if isinstance(columns, str) else '+'.join(columns)


def of_preset(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return clean runs of the policies of a preset, whichever preset ran them."""
    if not len(runs):
        return runs
    return runs[runs.policy.isin(runs.policy[runs.preset == preset]) & runs.corruption.isna()]

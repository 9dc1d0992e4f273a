"""What files of results hold for a report: finished runs that may stand in one table, and what did not finish."""
from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ding_cawr.compare import plots
from ding_cawr.compare.results import Run, read
from ding_cawr.compare.statistics import PROTOCOLS

FILE = 'results.jsonl'
#: Origins in the report's order: how their section is called, and how their tables and figures are marked.
ORIGINS = {
    'D4RL': ("D4RL's datasets", ''),
    'stand-in': ('Stand-ins for D4RL', "stand-in, not D4RL's scores"),
    'bundled': ('Bundled datasets', "bundled with the package, not D4RL's scores"),
    'file': ('Other files', "a file, not D4RL's scores"),
}
#: What all runs on one dataset have in common, or their numbers do not belong in one table.
COMMON = ('dataset_sha256', 'origin', 'env_id', 'iterations', 'eval_freq', 'episodes')


@dataclass(frozen=True)
class Entry:
    """A finished run, the policy's label in the report, and the file that the run is from."""
    run: Run
    label: str
    file: Path

    @property
    def means(self) -> list[float]:
        """Mean of each evaluation, in order of the iterations. One that was written twice counts once."""
        return list(self.evaluations.values())

    @property
    def evaluations(self) -> dict[int, float]:
        return {each.iteration: each.mean for each in sorted(self.run.evaluations, key=lambda each: each.iteration)}

    @property
    def seconds(self) -> dict[int, float]:
        return {each.iteration: each.seconds for each in self.run.evaluations}

    @property
    def speed(self) -> float:
        """Iterations a second: the median of what its evaluations say."""
        return median(each.iterations_per_second for each in self.run.evaluations)

    def score(self, protocol: str) -> float:
        return PROTOCOLS[protocol](self.means)

    @property
    def clean(self) -> bool:
        return self.run.corruption is None


@dataclass(frozen=True)
class Gathered:
    """What is reported: finished runs, sorted by dataset, policy and seed; what did not finish; lines that could not be
    read."""
    files: list[Path]
    entries: list[Entry]
    unfinished: list[Run]
    failures: list[dict[str, Any]]
    skipped_lines: int

    @functools.cached_property
    def looks(self) -> dict[str, dict[str, Any]]:
        """How each policy is drawn; those of Table 1 by their priority, since each loss has a panel of its own."""
        table_1 = of_preset(self.entries, 'paper-table1')
        by_priority = plots.styles(dict.fromkeys(priority_of(entry.run) for entry in table_1))
        own = {entry.label: by_priority[priority_of(entry.run)] for entry in table_1}
        return {**plots.styles(sorted({entry.label for entry in self.entries} - own.keys())), **own}


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
    found = {run.identity: file for file in reversed(files) for run in read(file).runs}
    results = read(files)
    if not (results.runs or results.unfinished or results.failures):
        raise ValueError(
            f'{listed(files)}: nothing to report, no evaluation and no failure '
            f'({results.skipped_lines} lines could not be read); a comparison writes such files'
        )
    labels = _labels(results.runs)
    entries = [
        Entry(run, labels[run.policy, run.policy_source], found.get(run.identity, files[0])) for run in results.runs
    ]
    entries.sort(
        key=lambda entry: (entry.run.dataset, entry.label, corruption_text(entry.run.corruption) or '', entry.run.seed)
    )
    _refuse_mixtures(entries)
    return Gathered(files, entries, results.unfinished, results.failures, results.skipped_lines)


def _results_file(path: Path) -> Path:
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        where = f'the folder {str(path)!r} holds no {FILE}' if path.is_dir() else f'there is no file {str(path)!r}'
        raise FileNotFoundError(f'{where}; give the {FILE} of a comparison, or the folder that holds it')
    return file


def _labels(runs: Iterable[Run]) -> dict[tuple[str, str], str]:
    """{(policy, what it stood for): label}: the policy's name; where that stood for several things, with their presets
    or, if those do not tell them apart, with a number."""
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


def _refuse_mixtures(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.run.origin not in ORIGINS:
            raise ValueError(
                f'{entry.run.dataset}: origin is {entry.run.origin!r} in {entry.file}; allowed is one of '
                f'{listed(ORIGINS)}. The file may be of a newer ding_cawr: report it with that one'
            )
    for dataset, on_it in by(entries, lambda entry: entry.run.dataset).items():
        for name in COMMON:
            _refuse_differences(dataset, name, [(getattr(entry.run, name), entry.file) for entry in on_it])
        for label, of_policy in by(on_it, lambda entry: entry.label).items():
            flat = [(flattened(entry.run.settings), entry.file) for entry in of_policy]
            for key in dict.fromkeys(key for settings, _ in flat for key in settings):
                values = [(settings.get(key), file) for settings, file in flat]
                _refuse_differences(f'{dataset}, policy {label!r}', f'settings.{key}', values)


def _refuse_differences(what: str, name: str, values: Sequence[tuple[Any, Path]]) -> None:
    files: dict[str, list[Path]] = {}
    for value, file in values:
        known = files.setdefault(repr(value), [])
        known += [file] if file not in known else []
    if len(files) > 1:
        differing = ' and '.join(f'{value} in {listed(where)}' for value, where in files.items())
        raise ValueError(
            f'{what}: {name} is {differing}. Runs that differ in it do not belong in one table: report the files '
            'separately, and where one file has both, move the lines of one kind to a file of their own'
        )


def by(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> dict[Any, list[Entry]]:
    """Entries by a key, in order of first appearance."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return groups


def by_dataset(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    return by(entries, lambda entry: entry.run.dataset)


def by_label(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    return by(entries, lambda entry: entry.label)


def flattened(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'learn.temperature': 0.5, ...} of nested settings."""
    flat = {}
    for key, value in settings.items():
        inner = flattened(value, f'{prefix}{key}.') if isinstance(value, Mapping) else None
        flat.update(inner or {f'{prefix}{key}': value})
    return flat


def listed(items: Iterable[Any]) -> str:
    return ', '.join(map(str, items))


def corruption_text(corruption: Mapping[str, Any] | None) -> str | None:
    """What was corrupted, for people; None for clean data."""
    if corruption is None:
        return None
    size = f'scale {corruption["scale"]:g}, seed {corruption["seed"]}'
    return f'{columns_text(corruption)} {corruption["rate"]:g} ({size})'


def columns_text(corruption: Mapping[str, Any]) -> str:
    """The corrupted columns."""
    columns = corruption['columns']
    return columns if isinstance(columns, str) else '+'.join(columns)


def of_preset(entries: Sequence[Entry], preset: str) -> list[Entry]:
    """Clean runs of the policies of a preset: another preset may have run some of them before."""
    labels = {entry.label for entry in entries if entry.run.preset == preset}
    return [entry for entry in entries if entry.label in labels and entry.clean]


def option_of(run: Run, key: str) -> Mapping[str, Any]:
    """A setting that is a name, or a dict with a type, as the latter."""
    value = learn_of(run).get(key)
    return value if isinstance(value, Mapping) else {'type': value}


def learn_of(run: Run) -> Mapping[str, Any]:
    """The settings of learning."""
    return run.settings.get('learn', {})


def loss_of(run: Run) -> str | None:
    """The policy loss, None where a policy has no such setting."""
    return option_of(run, 'policy_loss')['type']


def priority_of(run: Run) -> str:
    """A priority as the paper's Table 1 calls it."""
    option = option_of(run, 'priority')
    return f'quantile {option.get("quantile", 0.5):g}' if option['type'] == 'quantile' else str(option['type'])

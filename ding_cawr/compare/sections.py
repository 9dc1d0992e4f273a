"""Write a report. What does not belong together is never in one table: protocols have columns of their own, data that
are not D4RL's, or that are corrupted, tables of their own."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

import ding_cawr
from ding_cawr.compare import paper_tables, scores
from ding_cawr.compare.document import Document
from ding_cawr.compare.gathering import ORIGINS, Gathered, by, corruption_text, flattened, listed, of_preset
from ding_cawr.compare.scores import Chart, count, seeds_text
from ding_cawr.compare.statistics import LAST, PROTOCOLS, spread


def report(gathered: Gathered) -> Document:
    """Return the whole report."""
    document, runs = Document('Comparison of policies'), gathered.runs
    _overview(document, gathered)
    if len(runs):
        _what_was_run(document, runs)
        chart = Chart(document, gathered.evaluations, paper_tables.looks(runs))
        table_1 = of_preset(runs, paper_tables.TABLE_1)
        clean = runs[runs.corruption.isna() & ~runs.policy.isin(table_1.policy)]
        for origin in ORIGINS:
            scores.results(chart, origin, clean[clean.origin == origin])
        scores.corrupted(chart, runs)
        paper_tables.table_1(chart, table_1)
        paper_tables.table_2(document, runs)
    _not_finished(document, gathered)
    if len(runs):
        _every_run(document, runs)
        _settings(document, runs)
    return document


def _overview(document: Document, gathered: Gathered) -> None:
    runs = gathered.runs
    document.text(
        f'{count(len(runs), "finished run")} of {count(runs.policy.nunique(), "policy", "policies")} on '
        f'{count(runs.dataset.nunique(), "dataset")}; {count(len(gathered.unfinished), "unfinished run")}, '
        f'{count(len(gathered.failures), "failure")}. Results: {listed(gathered.files)}. Reported by ding_cawr '
        f'{ding_cawr.__version__}.', *(f'Warning: {warning}.' for warning in warnings(gathered))
    )
    if len(runs):
        document.text(
            'Three protocols turn the evaluations of a run into its score. They stand side by side and are never '
            f'mixed: the last evaluation; the mean of the last {LAST} (of all, where there are fewer); and the best so '
            "far, which is the paper's: a maximum over noisy evaluations, so it is higher than what its policy would "
            'score again, and the more so the more evaluations there are.'
        )


def warnings(gathered: Gathered) -> list[str]:
    """Return what the reader must know before the scores."""
    number, found = gathered.skipped_lines, []
    if number:
        found.append(f'{count(number, "line")} could not be read and {"was" if number == 1 else "were"} left out')
    return found if len(gathered.runs) else [*found, 'no run has finished, so there is no score']


def _what_was_run(document: Document, runs: pd.DataFrame) -> None:
    document.heading('What was run')
    document.table('Datasets', by(runs, 'dataset').agg(**{
        'origin': ('origin', 'first'), 'sha256': ('dataset_sha256', lambda values: values.iloc[0][:12]),
        'environment': ('env_id', 'first'), 'behaviour score': ('behaviour_score', 'first'),
        'corrupted as well': ('corruption', lambda values: '; '.join(sorted(set(values.dropna()))) or None),
    }).reset_index())
    document.table('Runs on each', by(runs, 'dataset').agg(**{
        'runs': ('seed', 'size'), 'seeds': ('seed', seeds_text), 'iterations': ('iterations', 'first'),
        'evaluated every': ('eval_freq', 'first'), 'episodes an evaluation': ('episodes', 'first'),
    }).reset_index())
    document.table('Policies', by(runs.sort_values(['policy', 'on'], kind='stable'), 'policy', 'on').agg(**{
        'stands for': ('policy_source', 'first'),
        'preset': ('preset', lambda values: listed(sorted(set(values.dropna()))) or None),
        'runs': ('seed', 'size'), 'seeds': ('seed', seeds_text), 'iterations/s': ('speed', spread),
    }).reset_index().rename(columns={'on': 'machine'}), [
        'Iterations a second of training, evaluations aside: of each run the median over its evaluations, then mean ± '
        'standard deviation over runs, whatever the dataset. Runs that share a machine slow each other down.'
    ])
    machines = by(runs, 'on', 'machine', 'versions').agg(runs=('seed', 'size')).reset_index()
    document.table('Machines and versions', machines.rename(columns={'machine': 'what', 'on': 'machine'}))


def _not_finished(document: Document, gathered: Gathered) -> None:
    if gathered.failures:
        document.heading('Failures')
        document.table('Runs that failed and were not made good', [
            {**_name(failure), 'error': failure['error'], 'log': failure['log'], 'time': failure['time']}
            for failure in gathered.failures
        ])
    if gathered.unfinished:
        document.heading('Unfinished runs')
        document.table('Runs that have not come to their last iteration', [
            {**_name(run), 'at iteration': run['iteration'], 'of': run['iterations']} for run in gathered.unfinished
        ], ['Still running, or interrupted; their evaluations are in no table or figure.'])


def _name(about: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: about[name] for name in ('dataset', 'corruption', 'policy', 'seed')},
            'corruption': corruption_text(about['corruption'])}


def _every_run(document: Document, runs: pd.DataFrame) -> None:
    columns = ['dataset', 'corruption', 'policy', 'seed', 'unit', *PROTOCOLS, 'evaluations', 'speed', 'on']
    rows = runs.assign(unit=['score' if scored else 'return' for scored in runs.scored])[columns]
    document.heading('Every run')
    with document.collapsed(count(len(rows), 'run')):
        # As rows, in which the score of a run that diverged, NaN, is not a missing value.
        document.table('Runs', rows.rename(columns={'speed': 'iterations/s', 'on': 'machine'}).to_dict('records'), [
            "Means over the episodes of an evaluation; 'unit' says whether of normalized scores or of returns.",
            *scores.protocol_notes(runs)
        ])


def _settings(document: Document, runs: pd.DataFrame) -> None:
    """Write a policy's settings on its first dataset in full, on the others where they differ."""
    document.heading('Settings of each policy')
    for policy, group in sorted(by(runs, 'policy')):
        (first, settings), *others = ((dataset, on_it.settings.iloc[0]) for dataset, on_it in by(group, 'dataset'))
        with document.collapsed(f'{policy}: {group.policy_source.iloc[0]}'):
            document.text(f'On {first}:')
            document.code(settings)
            for dataset, theirs in others:
                ours, flat = flattened(settings), flattened(theirs)
                differing = {key: flat.get(key) for key in {**ours, **flat} if ours.get(key) != flat.get(key)}
                document.text(f'On {dataset} {"what differs:" if differing else "the same."}')
                if differing:
                    document.code(differing)

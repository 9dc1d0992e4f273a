"""Write a report. What does not belong together is never in one table: protocols have columns of their own, data that
are not D4RL's, or that are corrupted, tables of their own."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

import ding_cawr
from ding_cawr.compare import figures, paper, scores
from ding_cawr.compare.document import Document, slug
from ding_cawr.compare.gathering import (
    ORIGINS,
    Gathered,
    by,
    corruption_text,
    flattened,
    joined,
    of_preset,
    skipped_text,
)
from ding_cawr.compare.scores import Chart, count, seeds_text
from ding_cawr.compare.statistics import LAST, MEAN_OF_LAST, PAPER_PROTOCOL, PROTOCOLS, spread

#: The presets of CAWR's paper.
TABLE_1, TABLE_2 = 'paper-table1', 'paper-table2'


def report(gathered: Gathered) -> Document:
    """Return the whole report."""
    document, runs = Document('Comparison of policies'), gathered.runs
    _overview(document, gathered)
    if len(runs):
        _what_was_run(document, runs)
        chart = Chart(document, gathered.evaluations, _looks(runs))
        table_1 = of_preset(runs, TABLE_1)
        clean = runs[runs.corruption.isna() & ~runs.policy.isin(table_1.policy)]
        for origin in ORIGINS:
            scores.results(chart, origin, clean[clean.origin == origin])
        scores.corrupted(chart, runs)
        _table_1(chart, table_1)
        _table_2(document, runs)
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
        f'{count(len(gathered.failures), "failure")}. Results: {joined(gathered.files)}. Reported by ding_cawr '
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
    found = [skipped_text(gathered.skipped)] if gathered.skipped else []
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
        'preset': ('preset', lambda values: joined(sorted(set(values.dropna()))) or None),
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
        document.table('Failed runs that have not succeeded since', [
            {**_name(failure), 'error': failure['error'], 'log': failure['log'], 'time': failure.get('time')}
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


def _looks(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return how each policy is drawn; those of Table 1 by their priority, since each loss has a panel of its own."""
    of_table_1 = of_preset(runs, TABLE_1)
    priorities = of_table_1.settings.map(paper.priority_of)
    by_priority = figures.styles(dict.fromkeys(priorities))
    own = {policy: by_priority[priority] for policy, priority in zip(of_table_1.policy, priorities)}
    return {**figures.styles(sorted(set(runs.policy) - own.keys())), **own}


def _table_1(chart: Chart, runs: pd.DataFrame) -> None:
    """Write the grid loss x priority of the policies with frozen critics, then what the preset ran besides."""
    document = chart.document
    has_critics = runs.settings.map(lambda settings: bool(settings.get('learn', {}).get('pretrained_critics')))
    frozen, others = runs[has_critics.astype(bool)], runs[~has_critics.astype(bool)]
    if len(runs):
        document.heading("The paper's Table 1: policy losses x priorities")
    if len(frozen):
        document.text('The policy alone is trained, on critics that were trained before and stay as they are.')
    for dataset, group in by(frozen if len(frozen) else runs, 'dataset'):
        grids = {protocol: _grid(group, protocol) for protocol in PROTOCOLS}
        for protocol, grid in grids.items():
            document.table(scores.marked(f'Table 1 on {dataset}, {protocol}', group), grid.reset_index(),
                           [scores.STD_NOTE, *scores.protocol_notes(group)])
        _heat_maps(document, dataset, group, grids)
        if (dataset, group.origin.iloc[0]) == (paper.TABLE_1_DATASET, 'D4RL'):
            document.table(f"The paper's Table 1 ({paper.MARK})", _papers_grid().reset_index(), [scores.PAPER_NOTE],
                           digits=2)
        scores.curves(chart, group, name='table_1')
        besides = others[others.dataset == dataset]
        if len(frozen) and len(besides):
            scores.main_table(document, besides, 'Beside the grid, the runs that trained its critics among them')


def _heat_maps(document: Document, dataset: str, runs: pd.DataFrame, grids: Mapping[str, pd.DataFrame]) -> None:
    """Draw Table 1, in scores, beside the paper's own, which is of D4RL's data and best so far."""
    if not runs.scored.all():
        return
    ours = {scores.marked(protocol, runs): grids[protocol] for protocol in (MEAN_OF_LAST, PAPER_PROTOCOL)}
    title = f"Policy losses x priorities on {dataset}, and the paper's Table 1 on D4RL's {paper.TABLE_1_DATASET}"
    theirs = {f'{PAPER_PROTOCOL} ({paper.MARK})': _papers_grid()}
    figure = figures.heat_maps(title, {**ours, **theirs}, 'policy loss')
    document.figure(slug('table_1_heat_map', dataset), f'{title}. {scores.PAPER_NOTE}', figure)


def _papers_grid() -> pd.DataFrame:
    return _in_order(pd.DataFrame(paper.TABLE_1).T)


def _grid(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return Table 1. Raises a ValueError if two policies have the same loss and priority."""
    cells = by(runs.assign(loss=runs.settings.map(lambda settings: str(paper.loss_of(settings))),
                           priority=runs.settings.map(paper.priority_of)), 'priority', 'loss')
    for (priority, loss), group in cells:
        if group.policy.nunique() > 1:
            raise ValueError(
                f'{group.dataset.iloc[0]}: two policies of preset {TABLE_1}, one of them {group.policy.iloc[-1]!r}, '
                f'have the loss {loss!r} and the priority {priority!r}, which is one cell of the grid; report them '
                'separately'
            )
    return _in_order(cells[protocol].agg(spread).unstack('loss'))


def _in_order(grid: pd.DataFrame) -> pd.DataFrame:
    """Return a grid in the paper's order, with what the paper does not have at the end."""
    priorities, losses = _sorted(grid.index, list(paper.TABLE_1)), _sorted(grid, paper.TABLE_1_LOSSES)
    return grid.loc[priorities, losses].rename_axis('priority')


def _sorted(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Sort as the paper does, what it does not have at the end."""
    order = {name: place for place, name in enumerate(known)}
    return sorted(names, key=lambda name: order.get(paper.unnumbered(name), len(order)))


def _table_2(document: Document, runs: pd.DataFrame) -> None:
    """Write a row a dataset and a column a policy."""
    runs = of_preset(runs, TABLE_2)
    runs = runs[runs.scored.astype(bool)]
    if len(runs):
        document.heading("The paper's Table 2: datasets x methods")
    for origin, group in by(runs, 'origin'):
        for protocol in PROTOCOLS:
            table = by(group, 'dataset', 'policy')[protocol].agg(spread).unstack('policy')
            table = table[_sorted(sorted(table), paper.TABLE_2_POLICIES)].reset_index()
            document.table(scores.marked(f'Table 2, {protocol}', group), table,
                           [scores.STD_NOTE, *scores.protocol_notes(group)])
        theirs = pd.DataFrame(paper.TABLE_2).T[list(paper.TABLE_2_COLUMNS)].rename_axis('dataset').reset_index()
        theirs = theirs[theirs.dataset.isin(group.dataset)].sort_values('dataset')
        if origin == 'D4RL' and len(theirs):
            document.table(f"The paper's Table 2 ({paper.MARK})", theirs, [scores.PAPER_NOTE], digits=2)

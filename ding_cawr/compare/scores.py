"""Write a report's scores: tables by dataset and policy, aggregates, learning curves, corrupted data."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ding_cawr.compare import figures, paper, statistics
from ding_cawr.compare.document import Document, slug
from ding_cawr.compare.gathering import ORIGINS, by, joined
from ding_cawr.compare.statistics import LAST, PAPER_PROTOCOL, PROTOCOLS, RESAMPLES, spread

PAPER_NOTE = (
    f"The paper's scores are {PAPER_PROTOCOL}, of {paper.SEEDS} seeds, 10 episodes an evaluation and 400,000 "
    f'iterations: they belong beside "{PAPER_PROTOCOL}" alone. IQL (paper) is what it quotes from IQL\'s paper, with '
    'the seeds and the protocol used there.'
)
STD_NOTE = 'Mean ± standard deviation over seeds (the square root of the mean squared deviation); "-": no such value.'
ABOUT_INTERVALS = (
    f'In brackets the 95% interval: percentiles of {RESAMPLES:,} stratified bootstrap resamples, which draw runs '
    'within each dataset (Agarwal et al., 2021). It is about the seeds: these datasets are taken as given. "[-]": '
    'none, since a dataset has one run alone. With few seeds such intervals are too narrow.'
)


@dataclass(frozen=True)
class Chart:
    """Holds the document, all evaluations, and {policy: how it is drawn}."""
    document: Document
    evaluations: pd.DataFrame
    looks: Mapping[str, dict[str, Any]]


def count(number: int, word: str, plural: str | None = None) -> str:
    return f'{number} {word if number == 1 else plural or word + "s"}'


def seeds_text(seeds: Iterable[int]) -> str:
    return joined(sorted(set(seeds)))


def marked(title: str, runs: pd.DataFrame) -> str:
    """Return a title that names the origin of the data."""
    mark = ORIGINS[runs.origin.iloc[0]][1]
    return f'{title} ({mark})' if mark else title


def protocol_notes(runs: pd.DataFrame) -> list[str]:
    """Describe episodes, seeds and evaluations behind a table, in a sentence for the datasets that share them."""
    facts: dict[str, list[str]] = {}
    for dataset, group in by(runs, 'dataset'):
        run = group.iloc[0]
        few = ' (so "mean of the last ten" is over all of them)' if group.evaluations.max() < LAST else ''
        facts.setdefault(
            f'{_seeds_by_policy(group)}; {count(run.episodes, "episode")} an evaluation; '
            f'{_range(group.evaluations, "evaluation")} a run, one every {run.eval_freq:,} of {run.iterations:,} '
            f'iterations{few}', []
        ).append(dataset)
    return [f'{joined(datasets)}: {fact}.' for fact, datasets in facts.items()]


def _seeds_by_policy(runs: pd.DataFrame) -> str:
    """Return 'seeds 0, 1', of all policies, or by policy where they have different ones."""
    policies: dict[str, list[str]] = {}
    for policy, seeds in by(runs, 'policy').seed.agg(seeds_text).items():
        policies.setdefault(seeds, []).append(policy)
    if len(policies) == 1:
        return f'seeds {next(iter(policies))}'
    return ', '.join(f'seeds {seeds} of {joined(names)}' for seeds, names in policies.items())


def _behind(runs: pd.DataFrame) -> str:
    """Return '2 to 3 seeds, 10 episodes an evaluation', of a policy on a dataset."""
    seeds = by(runs, 'policy', 'dataset', 'corruption').size()
    return f'{_range(seeds, "seed")}, {_range(runs.episodes, "episode")} an evaluation'


def _range(numbers: pd.Series, word: str) -> str:
    lowest, highest = min(numbers), max(numbers)
    return count(lowest, word) if lowest == highest else f'{lowest} to {highest} {word}s'


def results(chart: Chart, origin: str, runs: pd.DataFrame) -> None:
    """Write the results on clean data of one origin."""
    if len(runs):
        chart.document.heading(ORIGINS[origin][0])
    for scored, group in by(runs, 'scored'):
        title = 'Normalized scores' if scored else 'Returns, since no score is defined in these environments'
        main_table(chart.document, group, marked(title, group))
        if scored:
            _aggregates(chart, group)
        for _, on_it in by(group, 'dataset'):
            curves(chart, on_it)


def main_table(document: Document, runs: pd.DataFrame, title: str) -> None:
    """Write a row a dataset and policy; runs are of one origin, and all or none of them have scores."""
    columns = {'seed': seeds_text, **dict.fromkeys(PROTOCOLS, spread), 'behaviour_score': 'first'}
    table = by(runs, 'dataset', 'policy').agg(columns).reset_index()
    table = table.rename(columns={'seed': 'seeds', 'behaviour_score': 'behaviour score'})
    notes = [STD_NOTE, *protocol_notes(runs)]
    if not runs.scored.iloc[0]:
        del table['behaviour score']
    if runs.origin.iloc[0] == 'D4RL':
        table[paper.MARK] = [paper.counterpart(dataset, policy) for dataset, policy in zip(table.dataset, table.policy)]
        notes.append(f"{paper.MARK}: the column of CAWR's Table 2 that is meant to be the same method. {PAPER_NOTE}")
    document.table(title, table, notes)


def _aggregates(chart: Chart, runs: pd.DataFrame) -> None:
    """Write aggregates over the datasets that all policies have."""
    having = by(runs, 'dataset').policy.nunique() == runs.policy.nunique()
    common, left_out = list(having.index[having]), joined(having.index[~having])
    if not common:
        return chart.document.text('No aggregate over datasets: there is no dataset on which every policy has a '
                                   'finished run.')
    runs = runs[runs.dataset.isin(common)]
    left_out = left_out and f'; left out, since not every policy has a finished run there: {left_out}'
    about = [f'Over {joined(common)}{left_out}.', *protocol_notes(runs), ABOUT_INTERVALS]
    policies = dict(sorted(by(runs, 'policy')))

    def scores(policy: str, protocol: str) -> dict[str, list[float]]:
        return {dataset: list(on_it[protocol]) for dataset, on_it in by(policies[policy], 'dataset')}

    def table(title: str, statistic, notes: Iterable[str], left_out: str | None = None, digits: int = 1) -> list[dict]:
        rows = [{'policy': policy, 'datasets': len(common), 'runs': len(group),
                 **{protocol: statistic(policy, protocol) for protocol in PROTOCOLS}}
                for policy, group in policies.items() if policy != left_out]
        chart.document.table(marked(title, runs), rows, notes, digits)
        return rows

    rows = table('Interquartile mean of all scores, datasets and seeds together',
                 lambda policy, protocol: statistics.interquartile_mean(scores(policy, protocol)), about)
    baseline, *others = [policy for policy in policies if paper.unnumbered(policy) == paper.BASELINE] or [None]
    if baseline and not others and len(policies) > 1:
        note = f'The probability that a run of the policy scores above a run of {baseline}; 0.5: neither is better.'
        better = statistics.probability_of_improvement
        table(f'Probability of improvement over {baseline}', lambda policy, protocol: better(
            scores(policy, protocol), scores(baseline, protocol)), [note, *about], baseline, digits=2)
    caption = marked(f'Interquartile means over {count(len(common), "dataset")}: {_behind(runs)}; bars: 95% intervals',
                     runs)
    means = pd.DataFrame(rows).set_index('policy')[list(PROTOCOLS)]
    figure = figures.intervals(caption, means, chart.looks)
    chart.document.figure(slug('aggregate', runs.origin.iloc[0]), caption, figure)


def curves(chart: Chart, runs: pd.DataFrame, name: str = '') -> None:
    """Write figures of the scores on one dataset against iterations and seconds; ``name`` begins those of the files."""
    run = runs.iloc[0]
    lines = runs[['policy', 'settings']].join(chart.evaluations.set_index('run'))
    # More lines than can be told apart are drawn loss by loss, as the paper does.
    many = runs.policy.nunique() > figures.LINES_A_PANEL
    lines['panel'] = [f'policy loss: {paper.loss_of(each) or "others"}' if many else '' for each in lines.settings]
    points = by(lines, 'panel', 'policy', 'iteration').agg(seconds=('seconds', 'mean'), score=('mean', spread))
    points = points.reset_index().rename(columns={'iteration': 'iterations'}).sort_values('iterations', kind='stable')
    title, unit = marked(f'{run.dataset}: {_behind(runs)}', runs), 'normalized score' if run.scored else 'return'
    for against, label, how in (
        ('iterations', 'training iteration', 'against iterations'),
        ('seconds', 'training time, s (without evaluations)', 'against the time that training took, on the machines '
         'above'),
    ):
        chart.document.figure(
            slug(name, against, run.dataset),
            f'{title}. Mean of each evaluation over seeds, band: ± 1 standard deviation; {how}.',
            figures.lines(title, points, chart.looks, against, (label, unit),
                          run.behaviour_score if run.scored else None)
        )


def corrupted(chart: Chart, runs: pd.DataFrame) -> None:
    """Write a table and a figure for each dataset and what was corrupted in it; clean runs are at rate 0."""
    clean = runs.corruption.isna()
    if not clean.all():
        chart.document.heading('Corrupted datasets')
        chart.document.text('Training data corrupted on purpose; evaluation is in the environment as it is. Rate 0 is '
                            'the dataset as it is.')
    for (dataset, columns, scale, seed), group in by(runs[~clean], 'dataset', 'corrupted', 'scale', 'corruption_seed'):
        group = pd.concat([runs[clean & (runs.dataset == dataset) & runs.policy.isin(group.policy)], group])
        title = marked(f'{dataset}: {columns} corrupted, scale {scale:g}, seed {seed} of the corruption', group)
        points = pd.concat({protocol: by(group, 'policy', 'rate')[protocol].agg(spread).rename('score')
                            for protocol in PROTOCOLS}, names=['protocol'])
        cells = points.unstack('rate').sort_index(axis='columns').rename(columns=lambda rate: f'rate {rate:g}')
        unit, caption = 'normalized score' if group.scored.iloc[0] else 'return', f'{title}: {_behind(group)}'
        chart.document.table(
            title, cells.reset_index(),
            [f'{unit.capitalize()} against the share of corrupted rows. {STD_NOTE}', *protocol_notes(group)]
        )
        points = points.reset_index().rename(columns={'protocol': 'panel'}).sort_values('rate', kind='stable')
        chart.document.figure(
            slug('corruption', dataset, columns, f'{scale:g}', str(seed)),
            f'{caption}. Mean over seeds, band: ± 1 standard deviation.',
            figures.lines(caption, points, chart.looks, 'rate', ('share of corrupted rows', unit))
        )

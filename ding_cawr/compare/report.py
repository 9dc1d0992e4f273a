"""The report of a comparison: what was run, on what, how often, what came of it, and how sure that is.

A report is a document of blocks, gathered section by section from the results and then written as Markdown and as one
HTML file. What does not belong together is never in one table: protocols have columns of their own, data that are not
D4RL's, or that are corrupted, tables of their own.
"""
from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ding_cawr
from ding_cawr.compare import paper, plots
from ding_cawr.compare.document import Block, Code, Collapsed, Heading, Paragraph, Picture, Table, cell, slug
from ding_cawr.compare.gathering import (
    ORIGINS,
    Entry,
    Gathered,
    by,
    by_dataset,
    by_label,
    columns_text,
    corruption_text,
    flattened,
    learn_of,
    listed,
    loss_of,
    of_preset,
    priority_of,
)
from ding_cawr.compare.statistics import (
    LAST,
    PAPER_PROTOCOL,
    PROTOCOLS,
    RESAMPLES,
    Estimate,
    Spread,
    interquartile_mean,
    probability_of_improvement,
    spread,
)

BASELINE = 'iql'
TABLE_2_ORDER = ('bc', 'l2+none', 'l1+none', 'l2+normal', 'l1+normal')
PAPER_NOTE = (
    f"The paper's scores are {PAPER_PROTOCOL}, of {paper.SEEDS} seeds, 10 episodes an evaluation and 400,000 "
    f'iterations: they belong beside "{PAPER_PROTOCOL}" alone. IQL (paper) is what it quotes from IQL\'s paper, with '
    'the seeds and the protocol used there.'
)
STD_NOTE = 'Mean ± standard deviation over seeds (the square root of the mean squared deviation); "-": no such value.'


def sections(gathered: Gathered) -> list[Block]:
    """The whole report."""
    blocks = [Heading('Comparison of policies', 1), *_overview(gathered)]
    if gathered.entries:
        blocks += _what_was_run(gathered.entries)
    for origin in ORIGINS:
        blocks += _results(origin, gathered)
    blocks += [*_corrupted(gathered), *_table_1(gathered), *_table_2(gathered.entries)]
    blocks += [*_not_finished(gathered), *_every_run(gathered.entries), *_settings(gathered.entries)]
    return _named_apart(blocks)


def _named_apart(blocks: Iterable[Block]) -> list[Block]:
    """Pictures whose names are the same get a number: what a file's name cannot hold may be all that differs."""
    apart: list[Block] = []
    names: Counter[str] = Counter()
    for block in blocks:
        if isinstance(block, Picture):
            names[block.name] += 1
            suffix = f'_{names[block.name]}' if names[block.name] > 1 else ''
            block = dataclasses.replace(block, name=block.name + suffix)
        apart.append(block)
    return apart


def _overview(gathered: Gathered) -> list[Block]:
    entries = gathered.entries
    blocks: list[Block] = [Paragraph(
        f'{_count(len(entries), "finished run")} of {_count(len(by_label(entries)), "policy", "policies")} on '
        f'{_count(len(by_dataset(entries)), "dataset")}; {_count(len(gathered.unfinished), "unfinished run")}, '
        f'{_count(len(gathered.failures), "failure")}. Results: {listed(gathered.files)}. Reported by ding_cawr '
        f'{ding_cawr.__version__}.'
    )]
    if gathered.skipped_lines:
        blocks.append(Paragraph(f'Warning: {skipped(gathered)}.'))
    if not entries:
        blocks.append(Paragraph('Warning: no run has finished, so there is no score.'))
        return blocks
    return [*blocks, Paragraph(
        'Three protocols turn the evaluations of a run into its score. They stand side by side and are never mixed: '
        f'the last evaluation; the mean of the last {LAST} (of all, where there are fewer); and the best so far, which '
        "is the paper's: a maximum over noisy evaluations, so it is higher than what its policy would score again, and "
        'the more so the more evaluations there are.'
    )]


def skipped(gathered: Gathered) -> str:
    """How many lines could not be read."""
    number = gathered.skipped_lines
    return f'{_count(number, "line")} could not be read and {"was" if number == 1 else "were"} left out'


def _count(number: int, word: str, plural: str | None = None) -> str:
    return f'{number} {word if number == 1 else plural or word + "s"}'


def _what_was_run(entries: Sequence[Entry]) -> list[Block]:
    machines = _machines(entries)
    return [
        Heading('What was run'), Table('Datasets', _datasets(entries)), Table('Runs on each', _budgets(entries)),
        Table('Policies', _policies(entries, machines), [
            'Iterations a second of training, evaluations aside: of each run the median over its evaluations, then '
            'mean ± standard deviation over runs, whatever the dataset. Runs that share a machine slow each other down.'
        ]),
        Table('Machines and versions', [
            {'machine': name, 'runs': sum(_machine(entry) == text for entry in entries), 'what': text[0],
             'versions': text[1]} for text, name in machines.items()
        ]),
    ]


def _datasets(entries: Sequence[Entry]) -> list[dict]:
    rows = []
    for dataset, group in by_dataset(entries).items():
        run = group[0].run
        corruptions = dict.fromkeys(corruption_text(entry.run.corruption) for entry in group if not entry.clean)
        rows.append({
            'dataset': dataset, 'origin': run.origin, 'sha256': run.dataset_sha256[:12], 'environment': run.env_id,
            'behaviour score': run.behaviour_score, 'corrupted as well': '; '.join(sorted(corruptions)) or None,
        })
    return rows


def _budgets(entries: Sequence[Entry]) -> list[dict]:
    rows = []
    for dataset, group in by_dataset(entries).items():
        run = group[0].run
        rows.append({
            'dataset': dataset, 'runs': len(group), 'seeds': _seeds(group), 'iterations': run.iterations,
            'evaluated every': run.eval_freq, 'episodes an evaluation': run.episodes,
        })
    return rows


def _policies(entries: Sequence[Entry], machines: Mapping[tuple[str, str], str]) -> list[dict]:
    groups = by(entries, lambda entry: (entry.label, machines[_machine(entry)]))
    return [
        {'policy': label, 'stands for': group[0].run.policy_source,
         'preset': listed(sorted({entry.run.preset for entry in group} - {None})) or None, 'machine': machine,
         'runs': len(group), 'seeds': _seeds(group), 'iterations/s': spread([entry.speed for entry in group])}
        for (label, machine), group in sorted(groups.items())
    ]


def _seeds(entries: Iterable[Entry]) -> str:
    return listed(sorted({entry.run.seed for entry in entries}))


def _machine(entry: Entry) -> tuple[str, str]:
    """What a run was on, and with which versions."""
    return tuple(
        listed(f'{name} {value}' for name, value in about.items() if value is not None)
        for about in (entry.run.machine, entry.run.versions)
    )


def _machines(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """{what and versions: number}."""
    return {text: str(number) for number, text in enumerate(dict.fromkeys(map(_machine, entries)), 1)}


# Results on data as they are.


def _results(origin: str, gathered: Gathered) -> list[Block]:
    elsewhere = {entry.label for entry in of_preset(gathered.entries, 'paper-table1')}
    clean = [
        entry for entry in gathered.entries
        if entry.clean and entry.run.origin == origin and entry.label not in elsewhere
    ]
    title, mark = ORIGINS[origin]
    blocks: list[Block] = [Heading(title)] if clean else []
    for scored, entries in by(clean, lambda entry: entry.run.scored).items():
        title = 'Normalized scores' if scored else 'Returns, since no score is defined in these environments'
        blocks.append(_main_table(entries, title))
        if scored:
            blocks += _aggregates(entries, mark, gathered.looks)
        for dataset, group in by_dataset(entries).items():
            blocks += _curves(dataset, group, gathered.looks, mark)
    return blocks


def _main_table(entries: Sequence[Entry], title: str) -> Table:
    """A row a dataset and policy; entries are of one origin, and all or none of them have scores."""
    origin, scored = entries[0].run.origin, entries[0].run.scored
    rows = []
    for (dataset, label), group in by(entries, lambda entry: (entry.run.dataset, entry.label)).items():
        row = {'dataset': dataset, 'policy': label, 'seeds': _seeds(group), **_protocols(group)}
        if scored:
            row['behaviour score'] = group[0].run.behaviour_score
        if origin == 'D4RL':
            row[paper.MARK] = _counterpart(dataset, group[0].run.policy)
        rows.append(row)
    notes = [STD_NOTE, *_protocol_notes(entries)]
    if origin == 'D4RL':
        notes.append(f"{paper.MARK}: the column of CAWR's Table 2 that is meant to be the same method. {PAPER_NOTE}")
    return Table(_marked(title, ORIGINS[origin][1]), rows, notes)


def _marked(title: str, mark: str) -> str:
    return f'{title} ({mark})' if mark else title


def _protocols(entries: Sequence[Entry]) -> dict[str, Spread]:
    return {protocol: spread([entry.score(protocol) for entry in entries]) for protocol in PROTOCOLS}


def _counterpart(dataset: str, policy: str) -> str | None:
    column = paper.COUNTERPARTS.get(policy)
    score = paper.TABLE_2.get(dataset, {}).get(column)
    return f'{cell(score, 2)} ({column})' if score else None


def _protocol_notes(entries: Sequence[Entry]) -> list[str]:
    """Episodes, seeds and evaluations behind a table, in a sentence for the datasets that share them."""
    facts: dict[str, list[str]] = {}
    for dataset, group in by_dataset(entries).items():
        run = group[0].run
        numbers = [len(entry.means) for entry in group]
        few = ' (so "mean of the last ten" is over all of them)' if max(numbers) < LAST else ''
        fact = (
            f'seeds {_seeds(group)}; {_count(run.episodes, "episode")} an evaluation; '
            f'{_range(numbers, "evaluation")} a run, one every {run.eval_freq:,} of {run.iterations:,} iterations{few}'
        )
        facts.setdefault(fact, []).append(dataset)
    return [f'{listed(datasets)}: {fact}.' for fact, datasets in facts.items()]


def _aggregates(entries: Sequence[Entry], mark: str, looks: Mapping[str, dict]) -> list[Block]:
    """Over the datasets that all policies have."""
    policies, datasets = by_label(sorted(entries, key=lambda entry: entry.label)), list(by_dataset(entries))
    common = [each for each in datasets if all(each in by_dataset(group) for group in policies.values())]
    if not common:
        return [Paragraph('No aggregate over datasets: there is no dataset on which every policy has a finished run.')]
    scores = {
        protocol: {label: _scores(group, common, protocol) for label, group in policies.items()}
        for protocol in PROTOCOLS
    }
    means = {
        protocol: {label: interquartile_mean(each) for label, each in row.items()} for protocol, row in scores.items()
    }
    left_out = [dataset for dataset in datasets if dataset not in common]
    about = [
        f'Over {listed(common)}' + (
            f'; left out, since not every policy has a finished run there: {listed(left_out)}.' if left_out else '.'
        ),
        *_protocol_notes([entry for entry in entries if entry.run.dataset in common]),
        f'In brackets the 95% interval: percentiles of {RESAMPLES:,} stratified bootstrap resamples, which draw runs '
        'within each dataset (Agarwal et al., 2021). It is about the seeds: these datasets are taken as given. "[-]": '
        'none, since a dataset has one run alone. With few seeds such intervals are too narrow.',
    ]
    title = _marked('Interquartile mean of all scores, datasets and seeds together', mark)
    blocks: list[Block] = [Table(title, _aggregate_rows(policies, common, means), about)]
    baseline = [label for label, group in policies.items() if group[0].run.policy == BASELINE]
    if len(baseline) == 1 and len(policies) > 1:
        blocks.append(_improvements(baseline[0], policies, common, scores, about, mark))
    caption = f'Interquartile means over {_count(len(common), "dataset")}: {_behind(entries)}; bars: 95% intervals'
    blocks.append(Picture(
        slug('aggregate', entries[0].run.origin), _marked(caption, mark),
        plots.intervals(_marked(caption, mark), means, looks)
    ))
    return blocks


def _scores(entries: Sequence[Entry], datasets: Sequence[str], protocol: str) -> dict[str, list[float]]:
    groups = by_dataset(entries)
    return {dataset: [entry.score(protocol) for entry in groups[dataset]] for dataset in datasets}


def _aggregate_rows(
    policies: Mapping[str, Sequence[Entry]], common: Sequence[str], estimates: Mapping[str, Mapping[str, Estimate]]
) -> list[dict]:
    labels = next(iter(estimates.values()))
    return [
        {'policy': label, 'datasets': len(common), 'runs': sum(e.run.dataset in common for e in policies[label]),
         **{protocol: row[label] for protocol, row in estimates.items()}}
        for label in labels
    ]


def _improvements(
    baseline: str, policies: Mapping[str, Sequence[Entry]], common: Sequence[str], scores: Mapping[str, Mapping],
    about: Sequence[str], mark: str
) -> Table:
    estimates = {
        protocol: {
            label: probability_of_improvement(each, row[baseline]) for label, each in row.items() if label != baseline
        } for protocol, row in scores.items()
    }
    note = f'The probability that a run of the policy scores above a run of {baseline}; 0.5: neither is better.'
    title = _marked(f'Probability of improvement over {baseline}', mark)
    return Table(title, _aggregate_rows(policies, common, estimates), [note, *about], digits=2)


# Figures.


def _curves(
    dataset: str, entries: Sequence[Entry], looks: Mapping[str, dict], mark: str, name: str = ''
) -> list[Block]:
    """Scores against iterations and against seconds; ``name`` goes before those of the files."""
    run = entries[0].run
    panels: dict[str, list[plots.Curve]] = {}
    policies = by_label(entries)
    for label, group in policies.items():
        # More lines than can be told apart are drawn loss by loss, as the paper does.
        loss = '' if len(policies) <= plots.LINES_A_PANEL else f'policy loss: {loss_of(group[0].run) or "others"}'
        panels.setdefault(loss, []).append(_curve(label, group))
    unit = 'normalized score' if run.scored else 'return'
    behaviour = run.behaviour_score if run.scored else None
    title = _marked(f'{dataset}: {_behind(entries)}', mark)
    return [
        Picture(
            slug(name, against, dataset),
            f'{title}. Mean of each evaluation over seeds, band: ± 1 standard deviation; {how}.',
            plots.curves(title, panels, looks, against, unit, behaviour)
        )
        for against, how in (
            ('iterations', 'against iterations'),
            ('seconds', 'against the time that training took, on the machines above'),
        )
    ]


def _curve(label: str, entries: Sequence[Entry]) -> plots.Curve:
    scores: dict[int, list[float]] = {}
    seconds: dict[int, list[float]] = {}
    for entry in entries:
        for iteration, mean in entry.evaluations.items():
            scores.setdefault(iteration, []).append(mean)
            seconds.setdefault(iteration, []).append(entry.seconds[iteration])
    at = sorted(scores)
    return plots.Curve(label, at, [sum(seconds[i]) / len(seconds[i]) for i in at], [spread(scores[i]) for i in at])


def _behind(entries: Sequence[Entry]) -> str:
    """'2 to 3 seeds, 10 episodes an evaluation': of a policy on a dataset."""
    groups = by(entries, lambda entry: (entry.label, entry.run.dataset, str(entry.run.corruption)))
    seeds, episodes = map(len, groups.values()), (entry.run.episodes for entry in entries)
    return f'{_range(seeds, "seed")}, {_range(episodes, "episode")} an evaluation'


def _range(numbers: Iterable[int], word: str) -> str:
    known = set(numbers)
    lowest, highest = min(known), max(known)
    return _count(lowest, word) if lowest == highest else f'{lowest} to {highest} {word}s'


# Corrupted data.


def _corrupted(gathered: Gathered) -> list[Block]:
    """A table and a figure for each dataset and what was corrupted in it; clean runs are at rate 0."""
    blocks: list[Block] = []

    def kind(entry: Entry) -> tuple:
        corruption = entry.run.corruption
        return entry.run.dataset, columns_text(corruption), corruption['scale'], corruption['seed']

    groups = by((entry for entry in gathered.entries if not entry.clean), kind)
    for (dataset, columns, scale, seed), group in groups.items():
        labels = {entry.label for entry in group}
        clean = [
            entry for entry in gathered.entries
            if entry.clean and entry.run.dataset == dataset and entry.label in labels
        ]
        what = f'{dataset}: {columns} corrupted, scale {scale:g}, seed {seed} of the corruption'
        mark = ORIGINS[group[0].run.origin][1]
        blocks += _against_rate(_marked(what, mark), slug('corruption', dataset, columns, f'{scale:g}', str(seed)),
                                [*clean, *group], gathered.looks)
    return [Heading('Corrupted datasets'), Paragraph(
        'Training data corrupted on purpose; evaluation is in the environment as it is. Rate 0 is the dataset as it is.'
    ), *blocks] if blocks else []


def _against_rate(title: str, name: str, entries: Sequence[Entry], looks: Mapping[str, dict]) -> list[Block]:
    """The table and the figure of one kind of corruption."""

    def rate(entry: Entry) -> float:
        return 0.0 if entry.clean else float(entry.run.corruption['rate'])

    scores = {
        protocol: {
            label: {
                at: spread([entry.score(protocol) for entry in runs]) for at, runs in by(group, rate).items()
            } for label, group in sorted(by_label(entries).items())
        } for protocol in PROTOCOLS
    }
    rates = sorted(set(map(rate, entries)))
    rows = [
        {'protocol': protocol, 'policy': label, **{f'rate {at:g}': points.get(at) for at in rates}}
        for protocol, lines in scores.items() for label, points in lines.items()
    ]
    unit = 'normalized score' if entries[0].run.scored else 'return'
    caption = f'{title}: {_behind(entries)}'
    notes = [f'{unit.capitalize()} against the share of corrupted rows. {STD_NOTE}', *_protocol_notes(entries)]
    return [
        Table(title, rows, notes),
        Picture(name, f'{caption}. Mean over seeds, bars: ± 1 standard deviation.',
                plots.corruption(caption, scores, looks, unit)),
    ]


# The paper's tables.


def _table_1(gathered: Gathered) -> list[Block]:
    """The grid loss x priority of the preset's policies with frozen critics, and the paper's beside D4RL's data; then
    what the preset ran besides."""
    entries = of_preset(gathered.entries, 'paper-table1')
    frozen = [entry for entry in entries if learn_of(entry.run).get('pretrained_critics')]
    others = by_dataset(each for each in entries if frozen and not learn_of(each.run).get('pretrained_critics'))
    blocks: list[Block] = []
    for dataset, group in by_dataset(frozen or entries).items():
        origin = group[0].run.origin
        mark = ORIGINS[origin][1]
        notes = [STD_NOTE, *_protocol_notes(group)]
        blocks += [
            Table(_marked(f'Table 1 on {dataset}, {protocol}', mark), _grid(group, protocol), notes)
            for protocol in PROTOCOLS
        ]
        if (dataset, origin) == (paper.TABLE_1_DATASET, 'D4RL'):
            title = f"The paper's Table 1 ({paper.MARK})"
            blocks.append(Table(title, _grid_rows(paper.TABLE_1), [PAPER_NOTE], digits=2))
        blocks += _curves(dataset, group, gathered.looks, mark, name='table_1')
        if dataset in others:
            blocks.append(_main_table(others[dataset], 'Beside the grid, the runs that trained its critics among them'))
    about = 'The policy alone is trained, on critics that were trained before and stay as they are.'
    heading = Heading("The paper's Table 1: policy losses x priorities")
    return [heading, *([Paragraph(about)] if frozen else []), *blocks] if blocks else []


def _grid(entries: Sequence[Entry], protocol: str) -> list[dict]:
    """Rows of ``Table 1``; a cell is one policy.

    Raises:
        ValueError: two policies have the same loss and priority.
    """
    grid: dict[str, dict[str, Spread]] = {}
    for label, group in by_label(entries).items():
        row = grid.setdefault(priority_of(group[0].run), {})
        loss = str(loss_of(group[0].run))
        if loss in row:
            raise ValueError(
                f'{group[0].run.dataset}: two policies of preset paper-table1, one of them {label!r}, have the loss '
                f'{loss!r} and the priority {priority_of(group[0].run)!r}, which is one cell of the grid; report them '
                'separately'
            )
        row[loss] = spread([entry.score(protocol) for entry in group])
    return _grid_rows(grid)


def _grid_rows(grid: Mapping[str, Mapping[str, Spread]]) -> list[dict]:
    """In the paper's order, what it has not at the end."""
    priorities = dict.fromkeys([*(each for each in paper.TABLE_1 if each in grid), *grid])
    used = {loss for row in grid.values() for loss in row}
    losses = dict.fromkeys([*(each for each in paper.TABLE_1_LOSSES if each in used), *sorted(used)])
    return [{'priority': name, **{loss: grid[name].get(loss) for loss in losses}} for name in priorities]


def _table_2_order(label: str) -> tuple[int, str]:
    """The paper's order, what it has not at the end."""
    policy = label.partition(' (')[0]
    return TABLE_2_ORDER.index(policy) if policy in TABLE_2_ORDER else len(TABLE_2_ORDER), label


def _table_2(entries: Sequence[Entry]) -> list[Block]:
    """A row a dataset, a column a policy; the paper's beside D4RL's data."""
    blocks: list[Block] = []
    entries = [entry for entry in of_preset(entries, 'paper-table2') if entry.run.scored]
    for origin, group in by(entries, lambda entry: entry.run.origin).items():
        datasets = by_dataset(group)
        labels = sorted(by_label(group), key=_table_2_order)
        for protocol in PROTOCOLS:
            rows = []
            for dataset, on_it in datasets.items():
                policies = by_label(on_it)
                scores = {
                    label: spread([entry.score(protocol) for entry in policies[label]]) if label in policies else None
                    for label in labels
                }
                rows.append({'dataset': dataset, **scores})
            title = _marked(f'Table 2, {protocol}', ORIGINS[origin][1])
            blocks.append(Table(title, rows, [STD_NOTE, *_protocol_notes(group)]))
        theirs = [
            {'dataset': dataset, **{column: paper.TABLE_2[dataset].get(column) for column in paper.TABLE_2_COLUMNS}}
            for dataset in datasets if dataset in paper.TABLE_2
        ]
        if origin == 'D4RL' and theirs:
            blocks.append(Table(f"The paper's Table 2 ({paper.MARK})", theirs, [PAPER_NOTE], digits=2))
    return [Heading("The paper's Table 2: datasets x methods"), *blocks] if blocks else []


# What did not finish, every run, and settings.


def _not_finished(gathered: Gathered) -> list[Block]:
    blocks: list[Block] = []
    if gathered.failures:
        rows = [
            {**_name(failure), 'error': failure['error'], 'log': failure['log'], 'time': failure['time']}
            for failure in gathered.failures
        ]
        blocks += [Heading('Failures'), Table('Runs that failed and were not made good', rows)]
    if gathered.unfinished:
        rows = [
            {**_name(run.about), 'at iteration': run.evaluations[-1].iteration, 'of': run.iterations}
            for run in gathered.unfinished
        ]
        note = 'Still running, or interrupted; their evaluations are in no table or figure.'
        blocks += [Heading('Unfinished runs'), Table('Runs that have not come to their last iteration', rows, [note])]
    return blocks


def _name(about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        'dataset': about['dataset'], 'corruption': corruption_text(about['corruption']), 'policy': about['policy'],
        'seed': about['seed'],
    }


def _every_run(entries: Sequence[Entry]) -> list[Block]:
    machines = _machines(entries)
    rows = [
        {**_name(entry.run.about), 'policy': entry.label, 'unit': 'score' if entry.run.scored else 'return',
         **{protocol: entry.score(protocol) for protocol in PROTOCOLS}, 'evaluations': len(entry.means),
         'iterations/s': entry.speed, 'machine': machines[_machine(entry)]}
        for entry in entries
    ]
    notes = ["Means over the episodes of an evaluation; 'unit' says whether of normalized scores or of returns.",
             *_protocol_notes(entries)]
    return [Heading('Every run'), Collapsed(_count(len(rows), 'run'), [Table('Runs', rows, notes)])] if rows else []


def _settings(entries: Sequence[Entry]) -> list[Block]:
    """A policy's settings on its first dataset in full, on the others where they differ."""
    blocks: list[Block] = []
    for label, group in sorted(by_label(entries).items()):
        (first, _), *others = datasets = list(by_dataset(group).items())
        settings = [runs[0].run.settings for _, runs in datasets]
        inner: list[Block] = [Paragraph(f'On {first}:'), Code(json.dumps(settings[0], indent=2, sort_keys=True))]
        for (dataset, _), theirs in zip(others, settings[1:]):
            ours, flat = flattened(settings[0]), flattened(theirs)
            differing = {key: flat.get(key) for key in {**ours, **flat} if ours.get(key) != flat.get(key)}
            inner.append(Paragraph(f'On {dataset} {"what differs:" if differing else "the same."}'))
            inner += [Code(json.dumps(differing, indent=2, sort_keys=True))] if differing else []
        blocks.append(Collapsed(f'{label}: {group[0].run.policy_source}', inner))
    return [Heading('Settings of each policy'), *blocks] if blocks else []



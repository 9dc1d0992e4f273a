"""Write the tables of CAWR's paper from the runs of their presets, with the paper's own beside D4RL's data."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ding_cawr.compare import figures, paper
from ding_cawr.compare.document import Document
from ding_cawr.compare.gathering import by, of_preset
from ding_cawr.compare.scores import PAPER_NOTE, STD_NOTE, Chart, curves, main_table, marked, protocol_notes
from ding_cawr.compare.statistics import PROTOCOLS, spread

#: The presets.
TABLE_1, TABLE_2 = 'paper-table1', 'paper-table2'


def looks(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return how each policy is drawn; those of Table 1 by their priority, since each loss has a panel of its own."""
    of_table_1 = of_preset(runs, TABLE_1)
    priorities = of_table_1.settings.map(paper.priority_of)
    by_priority = figures.styles(dict.fromkeys(priorities))
    own = {policy: by_priority[priority] for policy, priority in zip(of_table_1.policy, priorities)}
    return {**figures.styles(sorted(set(runs.policy) - own.keys())), **own}


def table_1(chart: Chart, runs: pd.DataFrame) -> None:
    """Write the grid loss x priority of the policies with frozen critics, then what the preset ran besides."""
    document = chart.document
    has_critics = runs.settings.map(lambda settings: bool(settings.get('learn', {}).get('pretrained_critics')))
    frozen, others = runs[has_critics.astype(bool)], runs[~has_critics.astype(bool)]
    if len(runs):
        document.heading("The paper's Table 1: policy losses x priorities")
    if len(frozen):
        document.text('The policy alone is trained, on critics that were trained before and stay as they are.')
    for dataset, group in by(frozen if len(frozen) else runs, 'dataset'):
        for protocol in PROTOCOLS:
            document.table(marked(f'Table 1 on {dataset}, {protocol}', group), _grid(group, protocol),
                           [STD_NOTE, *protocol_notes(group)])
        if (dataset, group.origin.iloc[0]) == (paper.TABLE_1_DATASET, 'D4RL'):
            document.table(f"The paper's Table 1 ({paper.MARK})", _in_order(pd.DataFrame(paper.TABLE_1).T),
                           [PAPER_NOTE], digits=2)
        curves(chart, group, name='table_1')
        besides = others[others.dataset == dataset]
        if len(frozen) and len(besides):
            main_table(document, besides, 'Beside the grid, the runs that trained its critics among them')


def _grid(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return Table 1; a cell is one policy.

    Raises:
        ValueError: two policies have the same loss and priority.
    """
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
    return grid.loc[priorities, losses].rename_axis('priority').reset_index()


def _sorted(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Sort as the paper does, what it does not have at the end."""
    order = {name: place for place, name in enumerate(known)}
    return sorted(names, key=lambda name: order.get(paper.unnumbered(name), len(order)))


def table_2(document: Document, runs: pd.DataFrame) -> None:
    """Write a row a dataset and a column a policy."""
    runs = of_preset(runs, TABLE_2)
    runs = runs[runs.scored.astype(bool)]
    if len(runs):
        document.heading("The paper's Table 2: datasets x methods")
    for origin, group in by(runs, 'origin'):
        for protocol in PROTOCOLS:
            table = by(group, 'dataset', 'policy')[protocol].agg(spread).unstack('policy')
            table = table[_sorted(sorted(table), paper.TABLE_2_POLICIES)].reset_index()
            document.table(marked(f'Table 2, {protocol}', group), table, [STD_NOTE, *protocol_notes(group)])
        theirs = pd.DataFrame(paper.TABLE_2).T[list(paper.TABLE_2_COLUMNS)].rename_axis('dataset').reset_index()
        theirs = theirs[theirs.dataset.isin(group.dataset)].sort_values('dataset')
        if origin == 'D4RL' and len(theirs):
            document.table(f"The paper's Table 2 ({paper.MARK})", theirs, [PAPER_NOTE], digits=2)

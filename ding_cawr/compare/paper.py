"""Hold all that a report knows of CAWR's paper (arXiv 2506.15654): its scores on D4RL's v2 data, best so far, of three
seeds; the settings and the policies that its tables go by."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ding_cawr.compare.statistics import Spread

#: How a column or table with these numbers is marked.
MARK = 'D4RL v2, paper'
SEEDS = 3


def _grid(columns: Iterable[str], rows: Mapping[str, Iterable]) -> dict[str, dict[str, Spread]]:
    """Return {row: {column: score}} without the cells that are None; a score is (mean, std) or (mean, )."""
    return {row: {column: Spread(*cell, SEEDS) if cell[1:] else Spread(*cell, None, 1)
                  for column, cell in zip(columns, cells) if cell} for row, cells in rows.items()}


TABLE_1_DATASET = 'hopper-medium-v2'
TABLE_1_LOSSES = ('l2', 'l1', 'huber', 'skew', 'flat')
#: The paper's Table 1, {priority: {loss: score}}: hopper-medium, the policy alone trained on critics trained before.
#: Huber has no priorities there.
TABLE_1 = _grid(TABLE_1_LOSSES, {
    'none': ((59.05, 11.47), (61.26, 12.04), (59.09, 7.79), (70.84, 6.50), (76.23, 8.82)),
    'normal': ((84.42, 18.32), (87.10, 17.54), None, (82.92, 20.58), (47.26, 1.70)),
    'standard': ((77.49, 17.72), (80.75, 19.89), None, (68.36, 19.26), (96.00, 7.24)),
    'aw': ((67.42, 15.00), (71.82, 17.52), None, (74.83, 12.26), (79.81, 10.00)),
    'odpr': ((63.91, 7.78), (63.91, 9.82), None, (66.22, 13.92), (83.63, 8.56)),
    'quantile 0.5': ((89.00, 15.28), (83.07, 20.72), None, (82.52, 19.06), (51.70, 18.23)),
    'quantile 0.3': ((78.42, 20.26), (82.22, 20.53), None, (78.95, 21.89), (30.10, 2.14)),
})

TABLE_2_COLUMNS = ('BC', 'IQL (paper)', 'L1', 'L2+Normal', 'L1+Normal')
#: The paper's Table 2, {dataset: {column: score}}. 'IQL (paper)' is what the paper quotes from IQL's: one number, no
#: standard deviation, none for the expert sets. Its own repetition of IQL is left out.
TABLE_2 = _grid(TABLE_2_COLUMNS, {
    'hopper-medium-v2': ((61.80, 11.91), (66.3, ), (61.09, 13.43), (70.68, 19.44), (85.52, 17.48)),
    'hopper-medium-expert-v2': ((76.46, 20.27), (91.5, ), (81.17, 20.69), (109.92, 11.75), (111.05, 4.73)),
    'hopper-expert-v2': ((111.47, 0.57), None, (112.21, 1.17), (110.47, 5.23), (111.34, 5.19)),
    'walker2d-medium-v2': ((81.01, 1.92), (78.3, ), (81.02, 2.83), (83.35, 2.23), (84.75, 3.00)),
    'walker2d-medium-expert-v2': ((109.75, 0.34), (109.6, ), (109.25, 0.21), (111.21, 0.51), (110.90, 0.43)),
    'walker2d-expert-v2': ((109.62, 0.18), None, (109.03, 0.57), (111.86, 0.47), (111.10, 0.61)),
    'halfcheetah-medium-v2': ((43.07, 0.84), (47.4, ), (43.51, 1.23), (45.69, 0.49), (45.87, 0.83)),
    'halfcheetah-medium-expert-v2': ((61.97, 21.34), (86.7, ), (59.12, 17.58), (92.56, 2.77), (93.30, 2.79)),
    'halfcheetah-expert-v2': ((94.15, 1.08), None, (95.26, 0.72), (93.37, 1.68), (90.89, 10.67)),
})

#: A policy's name in a comparison -> the column of Table 2 that is meant to be the same method.
COUNTERPARTS = {
    'bc': 'BC', 'iql': 'IQL (paper)', 'l1+none': 'L1', 'l2+normal': 'L2+Normal', 'l1+normal': 'L1+Normal',
    'cawr_paper': 'L1+Normal', 'cawr_released': 'L1+Normal',
}

#: The policies of the preset paper-table2 in the order of Table 2.
TABLE_2_POLICIES = ('bc', 'l2+none', 'l1+none', 'l2+normal', 'l1+normal')
#: The policy that the others are compared with.
BASELINE = 'iql'


def counterpart(dataset: str, policy: str) -> str | None:
    """Return the paper's score of the method that a policy is meant to be."""
    column = COUNTERPARTS.get(unnumbered(policy))
    score = TABLE_2.get(dataset, {}).get(column)
    return f'{score:.2f} ({column})' if score else None


def unnumbered(label: str) -> str:
    """Return a policy's name without what tells it apart from others of that name."""
    return label.partition(' (')[0]


def _option(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a setting that is a name, or a dict with a type, as the latter."""
    value = settings.get('learn', {}).get(key)
    return value if isinstance(value, Mapping) else {'type': value}


def loss_of(settings: Mapping[str, Any]) -> str | None:
    """Return the policy loss, None where a policy has no such setting."""
    return _option(settings, 'policy_loss')['type']


def priority_of(settings: Mapping[str, Any]) -> str:
    """Return a priority as the paper's Table 1 names it."""
    option = _option(settings, 'priority')
    return f'quantile {option.get("quantile", 0.5):g}' if option['type'] == 'quantile' else str(option['type'])

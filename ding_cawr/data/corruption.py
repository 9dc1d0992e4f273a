"""Corrupting a dataset on purpose, to measure how a method copes.

The random corruption of RIQL: Yang et al. 2024, "Towards Robust Offline Reinforcement Learning under Diverse Data
Corruption".
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ding_cawr.checks import Bound, listed, one_of, options, plain
from ding_cawr.data.transitions import LARGEST, Transitions

#: A column's draws come from (seed, its place here): new ones go to the end.
CORRUPTIBLE = ('action', 'reward', 'obs', 'next_obs')
#: Corrupted rewards lie within this number of scales of 0.
REWARD_RANGE = 30


class ColumnsKind:
    """Columns to corrupt."""

    def __str__(self) -> str:
        return f'one or several of {listed(CORRUPTIBLE)}'

    def check(self, key: str, value: Any) -> str | list[str]:
        """Return the name of a column, as it was given, or names, each once."""
        names = [value] if isinstance(value, str) else plain(value)
        if not isinstance(names, Sequence) or not names:
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        for name in names:
            one_of(f'an entry of {key}', name, CORRUPTIBLE)
        return value if isinstance(value, str) else list(dict.fromkeys(names))


#: Default and kind of each argument of ``corrupt``.
OPTIONS = dict(
    columns=(None, ColumnsKind()), rate=(0.3, Bound(0, 1)), scale=(1.0, Bound(0, LARGEST)),
    seed=(0, Bound(0, whole=True))
)


def corrupt(
    transitions: Transitions, columns: str | Sequence[str], rate: float = 0.3, scale: float = 1.0, seed: int = 0
) -> Transitions:
    """Return transitions of which a share of the rows is corrupted, drawn for each column independently.

    Actions and observations get noise, a + std(a) U(-scale, scale) in each dimension, with the standard deviation of
    the whole clean column in that dimension. As in the protocol they are not clipped, so that actions leave [-1, 1].
    Rewards are replaced by 30 U(-scale, scale): corrupt them before they are scaled.

    Arguments:
        transitions: they stay as they are; their episode returns, those of the clean data, are handed on.
        columns: one or several of 'action', 'reward', 'obs', 'next_obs'.
        rate: probability with which a row of a column is corrupted, in [0, 1].
        scale: size of the noise, 0 to 1e18.
        seed: 0 or more; of this corruption alone.

    Raises:
        ValueError: a column, the rate, the scale or the seed is out of bounds.
    """
    columns, rate, scale, seed = options(
        'corruption', dict(columns=columns, rate=rate, scale=scale, seed=seed), OPTIONS
    ).values()
    names = [columns] if isinstance(columns, str) else columns
    if transitions.discrete and 'action' in names:
        raise ValueError(
            f"corruption.columns has 'action', but {transitions.source} has discrete actions, which noise would make "
            'none of; leave it out'
        )
    corrupted = transitions.copy()
    for name in names:
        generator = np.random.default_rng([seed, CORRUPTIBLE.index(name)])
        column = corrupted.table.columns[name]
        rows = np.flatnonzero(generator.random(len(column)) < rate)
        noise = generator.uniform(-scale, scale, (len(rows), *column.shape[1:]))
        if name == 'reward':
            column[rows] = REWARD_RANGE * noise
        else:
            column[rows] += column.std(axis=0, dtype=np.float64) * noise
    return corrupted


def corruption_options(entry: Mapping | None) -> dict[str, Any] | None:
    """Return the entry ``policy.collect.corruption`` as arguments of ``corrupt``, None where nothing is corrupted.

    Raises:
        ValueError: it is not a mapping, lacks the columns, has an unknown option or a value out of bounds.
    """
    if entry is None:
        return None
    return options('collect.corruption', entry, OPTIONS)

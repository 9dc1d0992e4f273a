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
DEFAULTS = dict(columns=None, rate=0.3, scale=1.0, seed=0)
BOUNDS = dict(rate=Bound(0, 1), scale=Bound(0, LARGEST), seed=Bound(0, whole=True))
#: Corrupted rewards lie within this number of scales of 0.
REWARD_RANGE = 30


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
    names, rate, scale, seed = _check(columns, rate, scale, seed)
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
    found = options('collect.corruption', entry, DEFAULTS)
    names, *numbers = _check(**found)
    columns = names[0] if isinstance(found['columns'], str) else names  # as it was given: results are compared by it
    return dict(zip(DEFAULTS, (columns, *numbers)))


def _check(columns: Any, rate: Any, scale: Any, seed: Any) -> tuple[list[str], float, float, int]:
    """Return the names of the columns, each once, and the numbers as plain ones; raise a ValueError for a value that is
    out of bounds."""
    names = [columns] if isinstance(columns, str) else plain(columns)
    if not isinstance(names, Sequence) or not names:
        raise ValueError(f'corruption.columns is {columns!r}; it must be one or several of {listed(CORRUPTIBLE)}')
    for name in names:
        one_of('an entry of corruption.columns', name, CORRUPTIBLE)
    numbers = dict(rate=rate, scale=scale, seed=seed)
    return list(dict.fromkeys(names)), *(BOUNDS[key].check(f'corruption.{key}', numbers[key]) for key in numbers)

"""Deliberate corruption of a dataset, to measure what a method bears.

The random corruption of RIQL: Yang et al. 2024, "Towards Robust Offline Reinforcement Learning under Diverse Data
Corruption".
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ding_cawr.data.table import copy_rows
from ding_cawr.data.transitions import Transitions
from ding_cawr.tasks import nearest

#: A column's draws come from (seed, its place here): new ones go to the end.
CORRUPTIBLE = ('action', 'reward', 'obs', 'next_obs')
OPTIONS = ('columns', 'rate', 'scale', 'seed')
#: Corrupted rewards lie within so many scales of 0.
REWARD_RANGE = 30


def corrupt(
    transitions: Transitions, columns: str | Sequence[str], rate: float = 0.3, scale: float = 1.0, seed: int = 0
) -> Transitions:
    """Transitions of which a share of the rows is corrupted, drawn for each column anew, whatever the others are.

    Actions and observations get noise, a + std(a) U(-scale, scale) in each dimension, with the standard deviation of
    the whole clean column in that dimension. As in the protocol they are not clipped, so that actions leave [-1, 1].
    Rewards are replaced by 30 U(-scale, scale): corrupt them before they are scaled.

    Arguments:
        transitions: they stay as they are; their episode returns, those of the clean data, are handed on.
        columns: one or several of 'action', 'reward', 'obs', 'next_obs'.
        rate: probability with which a row of a column is corrupted, in [0, 1].
        scale: size of the noise, 0 or more.
        seed: 0 or more; of this corruption alone.

    Raises:
        ValueError: a column, the rate, the scale or the seed is not allowed.
    """
    names = _check(columns, rate, scale, seed)
    corrupted = replace(transitions, rows=copy_rows(transitions.rows))
    for name in names:
        generator = np.random.default_rng([seed, CORRUPTIBLE.index(name)])
        column = getattr(corrupted, name).numpy()
        rows = np.flatnonzero(generator.random(len(column)) < rate)
        noise = generator.uniform(-scale, scale, (len(rows), *column.shape[1:]))
        if name == 'reward':
            column[rows] = REWARD_RANGE * noise
        else:
            column[rows] += column.std(axis=0, dtype=np.float64) * noise
    return corrupted


def corruption_options(entry: Mapping | None) -> dict[str, Any] | None:
    """The entry ``policy.collect.corruption`` as arguments of ``corrupt``, None where nothing is to be corrupted.

    Raises:
        ValueError: it is no mapping, lacks the columns, has an option that there is not, or a value is not allowed.
    """
    if entry is None:
        return None
    if not isinstance(entry, Mapping) or 'columns' not in entry:
        raise ValueError(
            f'collect.corruption is {entry!r}; allowed is None, or a dict with columns (of {", ".join(CORRUPTIBLE)}) '
            'and, where they are to differ from 0.3, 1.0 and 0, rate, scale and seed'
        )
    for key in entry:
        if key not in OPTIONS:
            raise ValueError(
                f'collect.corruption has no option {key!r}; it has {", ".join(OPTIONS)}{nearest(key, OPTIONS)}'
            )
    _check(**entry)
    return dict(entry)


def _check(columns: Any, rate: Any = 0.3, scale: Any = 1.0, seed: Any = 0) -> list[str]:
    """Names of the columns, each once, if everything is allowed."""
    names = [columns] if isinstance(columns, str) else columns
    if not isinstance(names, Sequence) or not names:
        raise ValueError(f'corruption: columns is {columns!r}; name one or several of {", ".join(CORRUPTIBLE)}')
    for name in names:
        if name not in CORRUPTIBLE:
            raise ValueError(
                f'corruption: columns is {columns!r}, and {name!r} cannot be corrupted; allowed are '
                f'{", ".join(CORRUPTIBLE)}{nearest(name, CORRUPTIBLE)}'
            )
    if not _is_number(rate) or not 0 <= rate <= 1:
        raise ValueError(f'corruption: rate is {rate!r}; allowed is a number in [0, 1], the share of the rows')
    if not _is_number(scale) or not 0 <= scale < math.inf:
        raise ValueError(f'corruption: scale is {scale!r}; allowed is a finite number from 0')
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f'corruption: seed is {seed!r}; allowed is a whole number from 0')
    return list(dict.fromkeys(names))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

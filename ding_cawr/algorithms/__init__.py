"""The algorithms, by name: whoever adds one adds a folder and a row here."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.algorithms.awr.update import AWR
from ding_cawr.algorithms.base import Algorithm
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.runs.state import shown

ALGORITHMS: dict[str, type[Algorithm]] = {algorithm.name: algorithm for algorithm in (CAWR, A2PR, AWR)}


def algorithm_of(state: Mapping[str, Any], source: str) -> type[Algorithm]:
    """Return the algorithm that wrote a checkpoint; those of format 1 do not name theirs, which was CAWR.

    Raises:
        ValueError: the algorithm is not known.
    """
    name = state.get('algorithm', CAWR.name)
    if not isinstance(name, str) or name not in ALGORITHMS:
        names = ', '.join(map(repr, ALGORITHMS))
        raise ValueError(f'{source}: its algorithm is {shown(name)}; it must be one of {names}')
    return ALGORITHMS[name]

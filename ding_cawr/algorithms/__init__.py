"""The algorithms, by name: whoever adds one adds a folder and a row here."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.algorithms.awr.update import AWR
from ding_cawr.algorithms.base import Algorithm
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.checks import listed
from ding_cawr.runs.state import brief

ALGORITHMS: dict[str, type[Algorithm]] = {algorithm.name: algorithm for algorithm in (CAWR, A2PR, AWR)}


def algorithm_of(state: Mapping[str, Any], source: str) -> type[Algorithm]:
    """Return the algorithm that wrote a checkpoint; those of format 1 do not name theirs, which was CAWR.

    Raises:
        ValueError: the algorithm is not known.
    """
    name = state.get('algorithm', CAWR.name)
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise ValueError(f'{source}: its algorithm is {brief(name)}; it must be one of {listed(ALGORITHMS)}')
    return ALGORITHMS[name]


def own_algorithm(policy_type: Any) -> type[Algorithm] | None:
    """Return the algorithm of a policy's type, with or without '_command'; None for another package's policy."""
    return ALGORITHMS.get(str(policy_type).removesuffix('_command'))


def check_actions_of(algorithm: type[Algorithm], discrete: bool, what: str) -> None:
    """Raise a ValueError for discrete actions that an algorithm does not take; it names those that do.

    Arguments:
        what: what has such actions, for messages.
    """
    if discrete and not algorithm.takes_discrete:
        takers = ', '.join(name for name, each in ALGORITHMS.items() if each.takes_discrete)
        raise ValueError(
            f'{what} has discrete actions, which the policy {algorithm.name} does not take; take the policy {takers}, '
            "with policy.model.action_space='discrete'"
        )

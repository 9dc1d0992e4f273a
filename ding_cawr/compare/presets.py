"""Comparisons with a name: the paper's two tables, and corrupted data."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ding_cawr.compare.policies import PolicySpec, find_policy
from ding_cawr.config import TABLE_4

D4RL_TABLE_2 = tuple(
    f'{task}-{quality}-v2' for task in ('hopper', 'walker2d', 'halfcheetah')
    for quality in ('medium', 'medium-expert', 'expert')
)
PAPER_ITERATIONS = 400_000
#: The paper's Table 1: priorities by the row, and the losses that have all of them; huber has none but 'none'.
PRIORITIES = {
    'none': 'none', 'normal': 'normal', 'standard': 'standard', 'aw': 'aw', 'odpr': 'odpr',
    'quantile 0.5': dict(type='quantile', quantile=0.5), 'quantile 0.3': dict(type='quantile', quantile=0.3),
}
LOSSES = ('l2', 'l1', 'huber', 'skew', 'flat')
#: Exponent on the priorities in the released code, from which the paper's scores come.
RELEASED_EXPONENT = 0.6


@dataclass(frozen=True)
class Preset:
    """What a comparison takes where the command line does not say otherwise.

    Attributes:
        about: a sentence for people.
        data: datasets.
        policies: makes the policies.
        corruptions: (column, rate) pairs, to be run beside the clean data; scale 1.0.
    """
    about: str
    data: Sequence[str]
    policies: Callable[[], list[PolicySpec]]
    seeds: Sequence[int] = (0, 1, 2)
    iterations: int = PAPER_ITERATIONS
    corruptions: Sequence[tuple[str, float]] = field(default_factory=tuple)


def form(loss: str, priority: str, critics: PolicySpec | None = None, name: str | None = None) -> PolicySpec:
    """The released code's CAWR with a loss and a priority of ``PRIORITIES``."""
    options = PRIORITIES[priority]
    options = dict(options) if isinstance(options, dict) else dict(type=options)
    overrides = dict(policy_loss=loss, priority={**options, 'exponent': RELEASED_EXPONENT})
    return PolicySpec(
        name or f'{loss}+{priority.replace(" ", "_")}',
        f"CAWR as its released code computes it, policy loss {loss}, priority {priority}"
        f"{', critics trained before and frozen' if critics else ''}",
        algorithm='cawr_released', overrides=overrides, critics=critics,
    )


def table_1() -> list[PolicySpec]:
    """Table 1: every loss with every priority, the policy alone, on critics trained before."""
    critics = form('l2', 'none', name='critics')
    cells = [(loss, priority) for priority in PRIORITIES for loss in LOSSES if loss != 'huber' or priority == 'none']
    return [form(*cell, critics=critics) for cell in cells]


def table_2() -> list[PolicySpec]:
    """Table 2: behaviour cloning at the paper's learning rate, L2 (its IQL), L1, L2+Normal, L1+Normal."""
    cloning = PolicySpec(
        'bc', "behaviour cloning, the squared error on uniform draws, at the paper's learning rate", algorithm='bc',
        overrides=dict(TABLE_4)
    )
    cells = [('l2', 'none'), ('l1', 'none'), ('l2', 'normal'), ('l1', 'normal')]
    return [cloning, *(form(*cell) for cell in cells)]


def corrupted() -> list[PolicySpec]:
    """Each loss without priorities, l2 and l1 with the normal priority, and what they are compared with."""
    cells = [*((loss, 'none') for loss in LOSSES), ('l2', 'normal'), ('l1', 'normal')]
    return [*(form(*cell) for cell in cells), *map(find_policy, ('cawr', 'iql', 'bc'))]


#: RIQL's protocol (Yang et al., 2024): rate 0.3, scale 1; and for actions every rate.
RIQL_RATE, ACTION_RATES = 0.3, (0.1, 0.3, 0.5, 0.7, 0.9)

PRESETS = {
    'paper-table1': Preset(
        "the paper's Table 1: losses x priorities on hopper-medium, critics trained before and frozen",
        ('hopper-medium-v2', ), table_1
    ),
    'paper-table2': Preset("the paper's Table 2: its form against BC on nine datasets", D4RL_TABLE_2, table_2),
    'corruption': Preset(
        "actions, rewards and observations corrupted as in RIQL's protocol: how each loss and priority holds up",
        ('hopper-medium-v2', ), corrupted,
        corruptions=[('action', rate) for rate in ACTION_RATES] + [('reward', RIQL_RATE), ('obs', RIQL_RATE)],
    ),
}

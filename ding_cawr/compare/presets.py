"""Comparisons with a name: the paper's two tables, and corrupted data."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ding_cawr.algorithms.cawr.presets import TABLE_4
from ding_cawr.compare import paper
from ding_cawr.compare.policies import PolicySpec, find_policy

PAPER_ITERATIONS = 400_000
#: Exponent on the priorities in the released code, from which the paper's scores come.
RELEASED_EXPONENT = 0.6


@dataclass(frozen=True)
class NamedComparison:
    """The options of a comparison that the command line leaves out. ``corruptions`` are (column, rate) pairs, which are
    run beside the clean data at scale 1."""
    about: str
    data: Sequence[str]
    policies: Callable[[], list[PolicySpec]]
    seeds: Sequence[int] = (0, 1, 2)
    iterations: int = PAPER_ITERATIONS
    corruptions: Sequence[tuple[str, float]] = field(default_factory=tuple)


def form(loss: str, priority: str, critics: PolicySpec | None = None, name: str | None = None) -> PolicySpec:
    """Return the released code's CAWR with a loss and a priority, by the name that Table 1 has for it."""
    kind, *quantile = priority.split()
    options = dict(type=kind, **dict(zip(['quantile'], map(float, quantile))), exponent=RELEASED_EXPONENT)
    return PolicySpec(
        name or f'{loss}+{priority.replace(" ", "_")}',
        f"CAWR as its released code computes it, policy loss {loss}, priority {priority}"
        f"{', critics trained before and frozen' if critics else ''}",
        algorithm='cawr_released', overrides=dict(policy_loss=loss, priority=options), critics=critics,
    )


def table_1() -> list[PolicySpec]:
    """Return Table 1's policies: every loss with every priority, the policy alone, on critics trained before."""
    critics = form('l2', 'none', name='critics')
    return [form(loss, priority, critics) for priority, row in paper.TABLE_1.items() for loss in row]


def table_2() -> list[PolicySpec]:
    """Return Table 2's policies: behaviour cloning at the paper's learning rate, L2 (its IQL), L1, L2+Normal,
    L1+Normal."""
    cloning, *forms = paper.TABLE_2_POLICIES
    source = "behaviour cloning, the squared error on uniform draws, at the paper's learning rate"
    return [PolicySpec(cloning, source, algorithm='bc', overrides=dict(TABLE_4)),
            *(form(*name.split('+')) for name in forms)]


def corrupted() -> list[PolicySpec]:
    """Return each loss without priorities, l2 and l1 with the normal priority, and what they are compared with."""
    cells = [*((loss, 'none') for loss in paper.TABLE_1_LOSSES), ('l2', 'normal'), ('l1', 'normal')]
    return [*(form(*cell) for cell in cells), *map(find_policy, ('cawr', 'iql', 'bc'))]


#: RIQL's protocol (Yang et al., 2024): rate 0.3, scale 1; and for actions every rate.
RIQL_RATE, ACTION_RATES = 0.3, (0.1, 0.3, 0.5, 0.7, 0.9)

COMPARISONS = {
    'paper-table1': NamedComparison(
        "the paper's Table 1: losses x priorities on hopper-medium, critics trained before and frozen",
        (paper.TABLE_1_DATASET, ), table_1
    ),
    'paper-table2': NamedComparison(
        "the paper's Table 2: its form against BC on nine datasets", tuple(paper.TABLE_2), table_2
    ),
    'corruption': NamedComparison(
        "actions, rewards and observations corrupted as in RIQL's protocol: how each loss and priority holds up",
        (paper.TABLE_1_DATASET, ), corrupted,
        corruptions=[('action', rate) for rate in ACTION_RATES] + [('reward', RIQL_RATE), ('obs', RIQL_RATE)],
    ),
}

"""Settings that several algorithms have: losses of the policy, and the selection of samples by their advantage."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ding_cawr.algorithms.base import LearnSettings, setting
from ding_cawr.checks import POSITIVE, POSITIVE_INT, SHARE, Bound, OrNone, component, listed, options, typed
from ding_cawr.losses import POLICY_LOSSES
from ding_cawr.priority import PRIORITIES, Priority

#: Of a priority: larger powers of priorities leave the range of float64.
LARGEST_EXPONENT = 10.0


class Auto(NamedTuple):
    """A temperature that is found from the effective sample size."""
    effective_share: float


class Draws(NamedTuple):
    """Prioritized draws: in proportion to h(A)^exponent."""
    priority: Priority
    exponent: float


@dataclass(frozen=True)
class TemperatureKind:
    """λ, or 'auto' with a default of its share."""
    share: float

    def __str__(self) -> str:
        return f"a positive number, 'auto', or dict(type='auto', effective_share={self.share})"

    def check(self, key: str, value: Any) -> float | Auto:
        """Return λ, or for 'auto' the share that it is found from."""
        if not isinstance(value, (str, Mapping)):
            if value not in POSITIVE:
                raise ValueError(f'{key} is {value!r}; it must be {self}')
            return float(value)
        try:
            _, given = typed(key, value, ('auto', ))
        except ValueError:
            raise ValueError(f'{key} is {value!r}; it must be {self}') from None
        share = options(key, given, dict(effective_share=self.share))['effective_share']
        return Auto(float(SHARE.check(f'{key}.effective_share', share)))


class LossKind:
    """A policy loss."""

    def __str__(self) -> str:
        return f"one of {listed(POLICY_LOSSES)}, or a dict with constants, such as dict(type='huber', kappa=0.2)"

    def check(self, key: str, value: Any) -> Callable[[Tensor, float], Tensor]:
        """Return f(error, sigma), its constants bound."""
        loss = component(value, POLICY_LOSSES, key)
        loss(torch.zeros(1), 1.0)  # it checks its constants itself
        return loss


class PriorityKind:
    """A priority and the exponent on it."""

    def __str__(self) -> str:
        return f"one of {listed(PRIORITIES)}, or a dict such as dict(type='quantile', quantile=0.5, exponent=1.0)"

    def check(self, key: str, value: Any) -> Draws | None:
        """Return h and the exponent, None for uniform draws."""
        name, given = typed(key, value, PRIORITIES)
        exponent = Bound(0, LARGEST_EXPONENT).check(f'{key}.exponent', given.pop('exponent', 1.0))
        priority = component({'type': name, **given}, PRIORITIES, key, others=('exponent', ))
        priority(torch.zeros(2), 1.0)  # it checks its options itself
        if name == 'none':
            return None
        return Draws(PRIORITIES[name].bound(**priority.keywords), float(exponent))


@dataclass(frozen=True, kw_only=True)
class SelectionSettings(LearnSettings):
    """The settings that ``Selection`` reads.

    A subclass has as fields ``temperature``, ``max_weight`` and ``priority``, and those of the following constants that
    a user may set.
    """
    min_priority: float = setting(
        1e-6, POSITIVE, 'Least priority, so that every transition stays reachable. At most max_weight.'
    )
    priority_refresh: int | None = setting(
        None, OrNone(POSITIVE_INT), 'Iterations after which the priorities of the whole dataset are renewed, not only '
        'those of the samples drawn.'
    )
    #: Weighting of the policy's loss.
    weighting = 'none'
    #: True if weights use the normalized advantage.
    normalize_advantage = True
    #: Schedule of the trust in the critics. None is full trust.
    trust = None

    def __post_init__(self) -> None:
        if not self.min_priority <= self.max_weight:
            raise ValueError(
                f'learn.min_priority is {self.min_priority!r}; it must be a number in (0, max_weight], and '
                f'learn.max_weight is {self.max_weight!r}'
            )
        if self.priority_refresh is not None and self.priority is None:
            raise ValueError(
                f"learn.priority_refresh is {self.priority_refresh}, but priority is 'none'; set it to None"
            )
        if isinstance(self.temperature, Auto) and not self._temperature_matters:
            object.__setattr__(self, 'temperature', 1.0)  # there is nothing to adapt

    @property
    def idle(self) -> set[str]:
        weighted = set() if self.weighting != 'none' else {'normalize_advantage'}
        drawn = set() if self.priority is not None else {'min_priority'}
        return weighted | drawn | ({'temperature', 'max_weight', 'trust'} if weighted and drawn else set())

    @property
    def _temperature_matters(self) -> bool:
        drawn = self.priority is not None and self.exponent > 0 and self.priority.priority.uses_temperature
        return self.weighting == 'per_sample' or drawn

    @property
    def exponent(self) -> float:
        """Exponent on the priority in prioritized draws."""
        return 1.0 if self.priority is None else self.priority.exponent

    @property
    def effective_share(self) -> float | None:
        """The share that 'auto' holds, None where λ is given."""
        return self.temperature.effective_share if isinstance(self.temperature, Auto) else None

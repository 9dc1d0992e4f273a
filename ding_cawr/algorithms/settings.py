"""Define settings, their sections and presets, and the settings that all or several algorithms have."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ding_cawr.checks import (
    POSITIVE,
    POSITIVE_INT,
    SHARE,
    Bound,
    Flag,
    Kind,
    component,
    listed,
    nearest,
    options,
    or_none,
    plain,
    typed,
)
from ding_cawr.losses import POLICY_LOSSES
from ding_cawr.priority import PRIORITIES, Priority


def setting(default: Any, kind: Kind, doc: str) -> Any:
    """Return a field of a ``Settings`` class: the default as a user writes it, what the setting may be, its comment."""
    return dataclasses.field(metadata=dict(default=default, kind=kind, doc=doc))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a section of the configuration: the key, its default, its bound and its comment in one place.

    A field holds the value as it is used, for example a function where the user gives its name.
    """

    @classmethod
    def read(cls, section: Mapping[str, Any], place: str = 'learn', exact: bool = False) -> Any:
        """Return the settings of a section; keys that it lacks have their defaults.

        Arguments:
            section: values by key, as a user writes them, also as NumPy's; other keys are not looked at.
            place: name of the section, for messages.
            exact: whether another key is an error.

        Raises:
            TypeError: another key, where ``exact``.
            ValueError: a value is not what its key may be; the message names the key, the value and what it must be.
        """
        fields = {field.name: field.metadata for field in dataclasses.fields(cls)}
        for name in section if exact else ():
            if name not in fields:
                raise TypeError(f'{place} has no {name!r}; it has {", ".join(fields)}{nearest(name, fields)}')
        return cls(**{
            name: about['kind'].check(f'{place}.{name}', plain(section.get(name, about['default'])))
            for name, about in fields.items()
        })

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of each key, as a user writes it."""
        return {field.name: field.metadata['default'] for field in dataclasses.fields(cls)}


class WidthsKind:
    """Widths of hidden layers."""

    def __str__(self) -> str:
        return 'a list of widths, such as (256, 256)'

    def check(self, key: str, value: Any) -> list[int]:
        """Return the widths."""
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        return [POSITIVE_INT.check(f'an entry of {key}', width) for width in value]


@dataclass(frozen=True, kw_only=True)
class LearnSettings(Settings):
    """The keys of ``policy.learn`` that every algorithm has."""
    train_epoch: int = setting(
        400_000, POSITIVE_INT, 'Passes over the loader. With offline_transitions a pass is one iteration.'
    )
    batch_size: int = setting(512, POSITIVE_INT, 'Samples n of each batch that an iteration draws.')
    ignore_done: bool = setting(False, Flag(), 'Treat every transition as not terminal.')
    discount_factor: float = setting(0.99, Bound(0, 1), 'γ.')
    cuda_graph: bool = setting(
        True, Flag(), 'On a GPU, replay the iteration as one CUDA graph (offline_transitions only).'
    )
    best_episodes: float | None = setting(
        None, or_none(SHARE), 'Effective share of the dataset that the policy learns from: a row is drawn in '
        'proportion to exp(R / λ), R being the return of its episode. None: all rows alike.'
    )
    keep_checkpoints: int | None = setting(
        5, or_none(POSITIVE_INT), 'Number of periodic checkpoints that stay, beside the best. None keeps all.'
    )

    #: Exponent on the priority in prioritized draws.
    exponent: ClassVar[float] = 1.0
    #: Iterations after which the priorities of the whole dataset are renewed; None: never.
    priority_refresh: ClassVar[int | None] = None
    #: Keys that newer versions added. A run's identity leaves them out while they have their defaults, so that stored
    #: results still count as the same runs.
    added_later: ClassVar[tuple[str, ...]] = ('best_episodes', )
    #: Keys that name a checkpoint whose networks are taken and stay fixed. The run's own checkpoints hold them, too.
    taken_from: ClassVar[tuple[str, ...]] = ()
    #: Keys that may hold the length of the run, for a schedule that spans it.
    spans_run: ClassVar[tuple[str, ...]] = ()
    #: Keys that are an error for policies without them, each with the value that is allowed there.
    refused_elsewhere: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def idle(self) -> set[str]:
        """Return the keys that have no effect with the other settings."""
        return set()


class Preset(NamedTuple):
    """Settings with a name, such as those of a paper.

    Attributes:
        description: what it is, as part of a sentence.
        sections: gives the sections ``learn``, ``env`` and ``model`` of the configuration, for (env_id, data_path,
            iterations).
        namesake: module of a policy that newer versions of DI-engine have under the same name, or None.
    """
    description: str
    sections: Callable[[str, Any, int], dict]
    namesake: str | None = None


#: Section ``env`` of presets that normalize observations by the dataset's mean and its standard deviation plus 1e-3.
NORMALIZED = dict(norm_obs=dict(use_norm=True, offline_stats=dict(use_offline_stats=True)))
#: Rates of CAWR's defaults, for presets of policies whose papers have slower ones for 1,000,000 iterations. Measured at
#: 50,000 iterations alone.
QUICK = dict(learning_rate_q=1e-3, learning_rate_value=1e-3, learning_rate_policy=1e-3, target_theta=0.02)


#: Largest exponent of a priority. Larger powers may leave the range of float64.
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
        return Auto(**options(key, given, dict(effective_share=(self.share, SHARE))))


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
        if name == 'none':  # an exponent has no effect then; tables of losses x priorities have it in all cells
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
        None, or_none(POSITIVE_INT), 'Iterations after which the priorities of the whole dataset are renewed, not only '
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
        temperature = set() if self._temperature_matters else {'temperature'}
        return weighted | drawn | temperature | ({'max_weight', 'trust'} if weighted and drawn else set())

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

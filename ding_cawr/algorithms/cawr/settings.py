"""CAWR's settings: the keys of ``policy.learn`` and ``policy.model``, their bounds, defaults and comments."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ding_cawr.algorithms.settings import (
    Auto,
    Draws,
    LossKind,
    PriorityKind,
    SelectionSettings,
    Settings,
    TemperatureKind,
    WidthsKind,
    setting,
)
from ding_cawr.checks import (
    POSITIVE,
    POSITIVE_INT,
    SHARE,
    Bound,
    Flag,
    Names,
    options,
    or_none,
    typed,
)
from ding_cawr.networks.block import PRECISIONS

WEIGHTINGS = ('per_sample', 'batch_mean', 'none')
#: Sources of advantages.
ADVANTAGES = ('critics', 'dataset', 'none')


@dataclass(frozen=True)
class Trust:
    """Trust in the critics: 0 (behaviour cloning) up to iteration ``start``, then rising to 1 within ``iterations``."""
    iterations: int = 40_000
    start: int = 3_000

    def __call__(self, iteration: Tensor) -> Tensor:
        """Return the trust in [0, 1] at an iteration, a float64 scalar."""
        return ((iteration - self.start) / self.iterations).clamp(0, 1)


@dataclass(frozen=True)
class Tighten:
    """Share of the errors that lie where the loss is convex at the start, and the iterations until its own width."""
    convex_share: float = 0.95
    iterations: int = 100_000


class TrustKind:
    """A schedule of trust."""

    def __str__(self) -> str:
        return f"'full', 'linear', or dict(type='linear', iterations={Trust.iterations}, start={Trust.start})"

    def check(self, key: str, value: Any) -> Trust | None:
        """Return the schedule, None for full trust from the first iteration on."""
        kind, given = typed(key, value, ('full', 'linear'))
        if kind == 'full':
            options(key, given, {})
            return None
        return Trust(**options(key, given, dict(
            iterations=(Trust.iterations, POSITIVE_INT), start=(Trust.start, Bound(0, whole=True))
        )))


class TightenKind:
    """A schedule of the loss's width."""

    def __str__(self) -> str:
        return f'None or dict(convex_share={Tighten.convex_share}, iterations={Tighten.iterations})'

    def check(self, key: str, value: Any) -> Tighten | None:
        """Return the schedule, None where the loss keeps its width."""
        return None if value is None else Tighten(**options(key, value, dict(
            convex_share=(Tighten.convex_share, SHARE), iterations=(Tighten.iterations, POSITIVE_INT)
        )))


class PathKind:
    """A checkpoint's path."""

    def __str__(self) -> str:
        return "a checkpoint's path"

    def check(self, key: str, value: Any) -> str:
        """Return the path."""
        if not isinstance(value, str):
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        return value


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """The keys of ``policy.model`` beside the widths of the data."""
    hidden_sizes: list[int] = setting(
        (256, 256), WidthsKind(), 'Widths of the hidden layers of every network (Table 4).'
    )
    log_std: float = setting(
        -2.0, Bound(-20, 20, open_low=True, open_high=True),
        "Logarithm of the policy's fixed standard deviation σ (Table 4)."
    )


@dataclass(frozen=True, kw_only=True)
class CAWRSettings(SelectionSettings):
    """The keys of ``policy.learn``. Tables and sections are those of the paper, arXiv 2506.15654.

    Weights are w_i = min(exp(z_i / λ), max_weight), z the normalized or the plain advantage; a sample is drawn with
    probability p_i^exponent / Σ p^exponent, p = h(A) clipped to [min_priority, max_weight].
    """
    learning_rate_q: float = setting(
        1e-3, POSITIVE, "Adam's learning rate of Q. Table 4 has 3e-4; 1e-3 was measured in runs of up to 50,000 "
        'iterations.'
    )
    learning_rate_value: float = setting(1e-3, POSITIVE, "Adam's learning rate of V (Table 4: 3e-4).")
    learning_rate_policy: float = setting(1e-3, POSITIVE, "Adam's learning rate of the policy (Table 4: 3e-4).")
    cosine_iterations: int | None = setting(
        None, or_none(POSITIVE_INT),
        "Length of a cosine schedule of the policy's learning rate. None keeps the rate constant."
    )
    target_theta: float = setting(
        0.02, Bound(0, 1, open_low=True), 'Soft update of the target: Q̄ ← Q̄ + theta (Q - Q̄) (Table 4: 0.005).'
    )
    expectile: float = setting(0.7, SHARE, 'τ of the expectile regression of V.')
    temperature: float | Auto = setting(
        'auto', TemperatureKind(0.15), "λ: weights are exp(A/λ), larger is closer to behaviour cloning. 'auto' holds "
        'the effective sample size at a share of the dataset.'
    )
    trust: Trust | None = setting(
        'linear', TrustKind(), "How far the critics are trusted; λ is divided by it. 'linear' starts from behaviour "
        "cloning: trust is 0 up to iteration start and rises to 1 within iterations. The papers have 'full', as have "
        'given advantages and pre-trained critics.'
    )
    max_weight: float = setting(100.0, POSITIVE, 'Upper bound of weights and priorities.')
    normalize_advantage: bool = setting(
        True, Flag(), 'Weights use the normalized advantage (CAWR). False: the plain one (IQL, AWR).'
    )
    weighting: str = setting(
        'none', Names(WEIGHTINGS), "'per_sample' (the paper), 'batch_mean' (its released code), 'none': all weights "
        'are 1, and draws alone may select.'
    )
    policy_loss: Callable[[Tensor, float], Tensor] = setting('l1', LossKind(), 'Loss of the policy (Sec. 4.1).')
    tightening: Tighten | None = setting(
        None, TightenKind(), 'flat and skew start so wide that this share of the errors lies where they are convex, '
        'and tighten within the given number of iterations.'
    )
    priority: Draws | None = setting('normal', PriorityKind(), 'Priority of the draws (Sec. 4.2), and its exponent.')
    advantage: str = setting(
        'critics', Names(ADVANTAGES), "Source of advantages. 'dataset' takes the dataset's column of them, and "
        "priorities do not change. 'none' is for behaviour cloning, where nothing depends on them. With 'dataset' and "
        "'none' the policy trains alone, without critics."
    )
    pretrained_critics: str | None = setting(
        None, or_none(PathKind()),
        'A checkpoint whose critics are taken, frozen; the policy alone is trained (Table 1).'
    )
    precision: str = setting(
        'float32', Names(tuple(PRECISIONS)), 'What the products of the hidden layers are rounded to.'
    )

    added_later: ClassVar[tuple[str, ...]] = (*SelectionSettings.added_later, 'advantage')
    taken_from, spans_run = ('pretrained_critics', ), ('cosine_iterations', )
    refused_elsewhere: ClassVar[Mapping[str, Any]] = {'advantage': 'critics'}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fixed_by is None:
            return
        if self.advantage != 'critics' and self.pretrained_critics is not None:
            raise ValueError(
                f'learn.advantage is {self.advantage!r}, which leaves the critics out, and learn.pretrained_critics is '
                f"{self.pretrained_critics!r}; set that to None, or learn.advantage to 'critics'"
            )
        uses = dict(weighting=self.weighting != 'none', priority=self.priority is not None)
        if self.advantage == 'dataset' and not any(uses.values()):
            raise ValueError(
                "learn.advantage is 'dataset', but learn.weighting and learn.priority are 'none', as in the preset bc, "
                "so that nothing depends on advantages; set one of them, or learn.advantage to 'none'"
            )
        for name, used in uses.items():
            if self.advantage == 'none' and used:
                raise ValueError(
                    f"learn.advantage is 'none', as in the preset bc, but learn.{name} depends on it; set that to "
                    "'none', or learn.advantage to 'critics'"
                )
        if self.priority_refresh is not None:
            raise ValueError(
                f'learn.priority_refresh is {self.priority_refresh}, but {self.fixed_by} means priorities that stay; '
                'set it to None'
            )
        object.__setattr__(self, 'trust', None)

    @property
    def idle(self) -> set[str]:
        critics = {'learning_rate_q', 'learning_rate_value', 'target_theta', 'expectile', 'discount_factor'}
        return super().idle | (set() if self.fixed_by is None else critics)

    @property
    def fixed_by(self) -> str | None:
        """Return the setting by which the policy alone is trained, None where the critics learn."""
        if self.advantage != 'critics':
            return f'advantage={self.advantage!r}'
        return None if self.pretrained_critics is None else 'pretrained_critics'

    @property
    def takes_whole_data(self) -> bool:
        """Return whether weights and priorities are computed once, of a whole dataset."""
        return self.fixed_by is not None and self.advantage != 'none'

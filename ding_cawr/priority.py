"""Advantage-based priorities h(A): pure functions and one table (CAWR, Sec. 4.2).

h does not clip: whoever stores the priorities does, at max_weight and at a small floor that keeps every transition
reachable. The exponent on the priority belongs to the draw, not to h.

Samples are the last dimension of (..., B); leading dimensions are replicas, each with its own statistics. λ is a float,
or a tensor that broadcasts against (..., B): (R, 1) gives each replica its own, (3, 1) gives three priorities of (B,).
"""
from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ding_cawr.advantage import check_positive, check_samples, normalize_advantage

#: exp of anything beyond overflows, or vanishes, in float32.
EXPONENT_RANGE = 80.0


def none(advantage: Tensor, temperature: float | Tensor) -> Tensor:
    """Return ones (..., B): the prioritized batch is drawn like the uniform one."""
    return torch.ones_like(advantage)


def normal(advantage: Tensor, temperature: float | Tensor) -> Tensor:
    """Return exp[(A - mean) / (λ std)] over the samples given, (..., B) to (..., B)."""
    return _finite_exp(normalize_advantage(advantage), temperature)


def quantile(advantage: Tensor, temperature: float | Tensor, quantile: float = 0.5) -> Tensor:
    """Return exp[(A - quantile_q) / (λ std)] over the samples given, (..., B) to (..., B).

    Arguments:
        advantage: (..., B); leading dimensions are replicas.
        temperature: λ > 0.
        quantile: q in (0, 1), linearly interpolated between samples; the paper tries 0.5 and 0.3.

    Raises:
        ValueError: q is not in (0, 1).
    """
    if isinstance(quantile, bool) or not isinstance(quantile, Real) or not 0 < quantile < 1:
        raise ValueError(f"priority 'quantile': quantile is {quantile!r}; it must be a number in (0, 1)")
    # Normalizing keeps the order, so the mean that it takes off both terms cancels.
    normalized = normalize_advantage(advantage)
    return _finite_exp(normalized - _interpolated_quantile(normalized, float(quantile)), temperature)


def standard(advantage: Tensor, temperature: float | Tensor) -> Tensor:
    """Return exp(A / λ), (..., B) to (..., B): no statistics of the samples, so the scale of the rewards matters."""
    return _finite_exp(advantage, temperature)


def odpr(advantage: Tensor, temperature: float | Tensor, minimum: float | Tensor | None = None) -> Tensor:
    """Return A - min A, (..., B) to (..., B). λ has no part in it. The minimum gets 0; the caller's floor keeps it
    reachable.

    Arguments:
        advantage: (..., B); leading dimensions are replicas.
        temperature: not used.
        minimum: least advantage over everything seen so far, a float or a tensor that broadcasts against (..., B);
            None for that of these samples.

    Raises:
        ValueError: the minimum is neither a finite number nor a tensor.
    """
    finite = isinstance(minimum, Real) and not isinstance(minimum, bool) and math.isfinite(minimum)
    if not (minimum is None or isinstance(minimum, Tensor) or finite):
        raise ValueError(f"priority 'odpr': minimum is {minimum!r}; it must be a finite number")
    return (advantage - (advantage.amin(dim=-1, keepdim=True) if minimum is None else minimum)).clamp(min=0)


def aw(advantage: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the softmax of A / λ over the samples, times their number, (..., B) to (..., B): the mean is 1."""
    share = _finite_exp(advantage - advantage.amax(dim=-1, keepdim=True), temperature)
    return share / share.mean(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Priority:
    """A priority h(A) and what it needs beside the advantages.

    Attributes:
        function: h(advantage, temperature, **options).
        uses_temperature: whether λ has a part in it.
        uses_minimum: whether it takes the least advantage seen so far, as the option ``minimum``.
    """
    function: Callable[..., Tensor]
    uses_temperature: bool = True
    uses_minimum: bool = False

    def __call__(self, advantage: Tensor, temperature: float | Tensor, **options: Any) -> Tensor:
        check_samples(advantage)
        return self.function(advantage, temperature, **options)

    def bound(self, **options: Any) -> Priority:
        """Return this priority with options given once for all; a given minimum replaces the running one."""
        function = functools.partial(self.function, **options)
        return dataclasses.replace(
            self, function=function, uses_minimum=self.uses_minimum and options.get('minimum') is None
        )

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)


#: name -> h(advantage, temperature, **options), (..., B) to finite (..., B), positive but for odpr's minimum.
PRIORITIES: dict[str, Priority] = {
    'none': Priority(none, uses_temperature=False),
    'normal': Priority(normal),
    'quantile': Priority(quantile),
    'standard': Priority(standard),
    'odpr': Priority(odpr, uses_temperature=False, uses_minimum=True),
    'aw': Priority(aw),
}


def _finite_exp(advantage: Tensor, temperature: float | Tensor) -> Tensor:
    check_positive('temperature', temperature)
    return (advantage / temperature).clamp(-EXPONENT_RANGE, EXPONENT_RANGE).exp()


def _interpolated_quantile(values: Tensor, q: float) -> Tensor:
    """Return the q-quantiles (..., 1) of (..., B), interpolated; torch.quantile refuses more than 16 million values."""
    ordered, rank = values.sort(dim=-1).values, q * (values.shape[-1] - 1)
    below, above = (ordered.narrow(-1, bound, 1) for bound in (math.floor(rank), math.ceil(rank)))
    return torch.lerp(below, above, rank % 1)

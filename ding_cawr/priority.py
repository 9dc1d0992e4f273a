"""Advantage-based priorities h(A): pure functions and one table (CAWR, Sec. 4.2).

h does not clip: whoever stores the priorities does, at max_weight and at a small floor that keeps every transition
reachable. The exponent on the priority belongs to the draw, not to h.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ding_cawr.advantage import normalize_advantage

#: exp of anything beyond overflows, or vanishes, in float32.
EXPONENT_RANGE = 80.0


def none(advantage: Tensor, temperature: float) -> Tensor:
    """Ones (B,): the prioritized batch is drawn like the uniform one."""
    return torch.ones_like(advantage)


def normal(advantage: Tensor, temperature: float) -> Tensor:
    """exp[(A - mean) / (λ std)] over the samples given, (B,) to (B,)."""
    return _finite_exp(normalize_advantage(advantage) / temperature)


#: name -> h(advantage, temperature, **options), (B,) to positive finite (B,).
PRIORITIES: dict[str, Callable[..., Tensor]] = {'none': none, 'normal': normal}


def _finite_exp(exponent: Tensor) -> Tensor:
    return exponent.clamp(-EXPONENT_RANGE, EXPONENT_RANGE).exp()

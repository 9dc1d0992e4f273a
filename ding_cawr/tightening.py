"""A policy loss that is convex only near 0 starts wide and is tightened (CAWR, Sec. 4.1)."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ding_cawr.losses import convex_radius


@dataclass(frozen=True)
class TighteningSettings:
    """Share of the errors that lie where the loss is convex at the start, and the iterations until its own width."""
    convex_share: float
    iterations: int


class Tightening:
    """The width k of f(e / k): at first so wide that a share of all errors lies where f is convex, in the end 1.

    The errors of the first iteration set the first width k₀ (at least 1); from there it shrinks to 1 geometrically.
    """

    def __init__(self, settings: TighteningSettings, policy_loss: Callable[..., Tensor], sigma: float) -> None:
        self.settings = settings
        self.radius = convex_radius(policy_loss, sigma)
        if not 0 < self.radius < math.inf:
            where = 'everywhere' if self.radius else 'nowhere beside 0'
            raise ValueError(
                f'learn.tightening is set, but the policy loss is convex {where}; take flat or skew with other '
                'constants, or no tightening'
            )
        self._iteration, self._first_width = 0, None
        #: k of the latest step, a scalar.
        self.width = torch.ones(())

    def step(self, error: Tensor) -> Tensor:
        """k for an iteration with these errors (n, A)."""
        if self._first_width is None:
            errors = error.detach().abs().flatten()
            wide = torch.quantile(errors, self.settings.convex_share, interpolation='higher')
            self._first_width = (wide / self.radius).clamp(min=1)
        self.width = self._first_width**(1 - min(1.0, self._iteration / self.settings.iterations))
        self._iteration += 1
        return self.width

    def convex_share(self, error: Tensor) -> Tensor:
        """Share of errors (n, A) that lie where f(e / k) is convex, a scalar."""
        return (error.abs() <= self.radius * self.width).double().mean()

    def state_dict(self) -> dict:
        """Iteration and first width."""
        return {'iteration': self._iteration, 'first_width': self._first_width}

    def load_state_dict(self, state: Mapping) -> None:
        """Inverse of ``state_dict``."""
        self._iteration, self._first_width = state['iteration'], state['first_width']

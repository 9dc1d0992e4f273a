"""A policy loss that is convex only near 0 starts wide and is tightened (CAWR, Sec. 4.1)."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ding_cawr.losses import convex_radius
from ding_cawr.ranks import ALONE, Ranks
from ding_cawr.runs.state import check_finite, check_shapes


@dataclass(frozen=True)
class TighteningSettings:
    """Share of the errors that lie where the loss is convex at the start, and the iterations until its own width."""
    convex_share: float
    iterations: int


class Tightening:
    """The width k of f(e / k): at first so wide that a share of all errors lies where f is convex, in the end 1.

    The errors of the first iteration set the first width k₀ (at least 1); from there it shrinks to 1 geometrically.

    Errors are (..., n, A); leading dimensions are replicas, each with its own width. The state changes in place and
    nothing waits for the device, so that a CUDA graph can replay any step but the one that sets the first width.

    Arguments:
        lead: () for one run, (R,) for R replicas.
        dtype: of the errors, and so of the width; None for torch's default.

    Raises:
        ValueError: the loss is convex everywhere, or nowhere beside 0.
    """

    def __init__(
        self, settings: TighteningSettings, policy_loss: Callable[..., Tensor], sigma: float,
        device: torch.device | str = 'cpu', lead: tuple[int, ...] = (), dtype: torch.dtype | None = None
    ) -> None:
        self.settings = settings
        self.radius = convex_radius(policy_loss, sigma)
        if not 0 < self.radius < math.inf:
            where = 'everywhere' if self.radius else 'nowhere beside 0'
            raise ValueError(
                f'learn.tightening is set, but the policy loss is convex {where}; take flat or skew with other '
                'constants, or no tightening'
            )
        self._first_width = torch.ones(*lead, 1, 1, dtype=dtype, device=device)
        self._has_first_width = False
        #: k of the latest step, of shape lead + (1, 1), so that it broadcasts against errors; changes in place.
        self.width = torch.ones_like(self._first_width)

    def step(self, error: Tensor, iteration: Tensor, ranks: Ranks = ALONE) -> Tensor:
        """k for an iteration with these errors (..., n, A).

        Arguments:
            iteration: how many came before, a float64 scalar.
            ranks: those that have a part of the errors each.
        """
        if not self._has_first_width:
            errors = ranks.gather(error.detach().abs().flatten(start_dim=-2))
            wide = torch.quantile(errors, self.settings.convex_share, dim=-1, interpolation='higher')
            self._first_width.copy_((wide / self.radius).clamp(min=1)[..., None, None])
            self._has_first_width = True
        exponent = 1 - (iteration / self.settings.iterations).clamp(max=1)
        return torch.pow(self._first_width, exponent, out=self.width)

    def convex_share(self, error: Tensor) -> Tensor:
        """Share of errors (..., n, A) that lie where f(e / k) is convex: (...)."""
        return (error.abs() <= self.radius * self.width).double().mean(dim=(-2, -1))

    def state_dict(self, replica: int = 0) -> dict[str, Tensor | None]:
        """A copy of the first width, None before the first step: one replica's, as of one run."""
        return {'first_width': self._of_replica(replica).clone() if self._has_first_width else None}

    def check_state(self, state: Any, begun: bool) -> None:
        """Whether a state can go on here; ``begun``: there was a first step.

        Raises:
            ValueError: the first width is missing, of another shape, or none that a run can have.
        """
        if state == {'first_width': None} and not begun:
            return
        check_shapes('tightening', state, {'first_width': tuple(self._of_replica(0).shape)})
        check_finite('tightening', state)
        if (state['first_width'] < 1).any():
            raise ValueError("the checkpoint: its first_width is below 1, which no run's is; take an earlier one")

    def load_state_dict(self, state: Mapping[str, Tensor | None], replica: int = 0) -> None:
        """Inverse of ``state_dict``; the width follows with the next step."""
        self._has_first_width = state['first_width'] is not None
        if self._has_first_width:
            self._of_replica(replica).copy_(state['first_width'])

    def tensors(self) -> list[Tensor]:
        """All that a step changes."""
        return [self._first_width, self.width]

    def _of_replica(self, replica: int) -> Tensor:
        """A view of one replica's first width, shaped as that of one run."""
        return self._first_width[replica] if self._first_width.dim() > 2 else self._first_width

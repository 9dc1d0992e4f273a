"""A policy loss that is convex only near 0 starts wide and is tightened (CAWR, Sec. 4.1)."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ding_cawr.algorithms.cawr.settings import Tighten
from ding_cawr.losses import convex_radius


class Tightening:
    """Schedules the width k of f(e / k). At first a given share of errors lies where f is convex; in the end k is 1.

    The errors of the first iteration set the first width k₀ (at least 1); from there it shrinks to 1 geometrically.

    Errors are (..., n, A); leading dimensions are replicas, each with its own width. The state changes in place and
    nothing waits for the device, so that a CUDA graph can replay any step but the one that sets the first width.

    Arguments:
        replica_shape: () for one run, (R,) for R replicas.
        dtype: of the errors, and so of the width; None for torch's default.

    Raises:
        ValueError: the loss is convex everywhere, or nowhere beside 0.
    """

    def __init__(
        self, settings: Tighten, policy_loss: Callable[..., Tensor], sigma: float,
        device: torch.device | str = 'cpu', replica_shape: tuple[int, ...] = (), dtype: torch.dtype | None = None
    ) -> None:
        self.settings = settings
        self.radius = convex_radius(policy_loss, sigma)
        if not 0 < self.radius < math.inf:
            where = 'everywhere' if self.radius else 'nowhere beside 0'
            raise ValueError(
                f'learn.tightening is set, but the policy loss is convex {where}; take flat or skew with other '
                'constants, or no tightening'
            )
        self._first_width = torch.zeros(*replica_shape, 1, 1, dtype=dtype, device=device)  # 0: none yet
        self._has_first_width = False  # known without waiting for the device
        #: k of the latest step, of shape replica_shape + (1, 1), which broadcasts against errors; changes in place.
        self.width = torch.ones_like(self._first_width)

    def step(self, error: Tensor, iteration: Tensor) -> Tensor:
        """Return k for an iteration with these errors (..., n, A).

        Arguments:
            iteration: how many came before, a float64 scalar.
        """
        if not self._has_first_width:
            errors = error.detach().abs().flatten(start_dim=-2)
            wide = torch.quantile(errors, self.settings.convex_share, dim=-1, interpolation='higher')
            self._first_width.copy_((wide / self.radius).clamp(min=1)[..., None, None])
            self._has_first_width = True
        exponent = 1 - (iteration / self.settings.iterations).clamp(max=1)
        return torch.pow(self._first_width, exponent, out=self.width)

    def convex_share(self, error: Tensor) -> Tensor:
        """Return each sample's share of errors (..., n, A) that lie where f(e / k) is convex: (..., n)."""
        return (error.abs() <= self.radius * self.width).double().mean(dim=-1)

    def tree(self, replica: int = 0) -> dict[str, Tensor]:
        """Return the first width of one replica, as of one run, 0 before the first step; not a copy."""
        return {'first_width': self._first_width[replica] if self._first_width.dim() > 2 else self._first_width}

    def resumed(self) -> None:
        """Look whether the state that was copied in has a first width; the width follows with the next step."""
        self._has_first_width = bool((self._first_width > 0).all())

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        return [self._first_width, self.width]

"""Losses of the policy and the value function: pure functions, and one table of the policy's."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def l2(error: Tensor, sigma: float) -> Tensor:
    """f(e) = e², the Gaussian log-likelihood (CAWR, Sec. 4.1). Any shape, elementwise."""
    return error.square()


def l1(error: Tensor, sigma: float) -> Tensor:
    """f(e) = |e|, the Laplace log-likelihood (CAWR, Sec. 4.1). Any shape, elementwise."""
    return error.abs()


#: name -> f(error, sigma, **constants), elementwise, with f(0) = 0 (CAWR, Sec. 4.1).
POLICY_LOSSES: dict[str, Callable[..., Tensor]] = {'l2': l2, 'l1': l1}


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|τ - 1{u < 0}| u² (IQL, Eq. 5; CAWR, Eq. 4). Any shape, elementwise; u is target minus prediction."""
    return (expectile - (error < 0).to(error.dtype)).abs() * error.square()

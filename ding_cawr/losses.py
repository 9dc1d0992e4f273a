"""Losses of the policy and the value function: pure functions, and one table of the policy's."""
from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor


def l2(error: Tensor, sigma: float) -> Tensor:
    """Return f(e) = e², the Gaussian log-likelihood (CAWR, Sec. 4.1). Any shape, elementwise."""
    return error.square()


def l1(error: Tensor, sigma: float) -> Tensor:
    """Return f(e) = |e|, the Laplace log-likelihood (CAWR, Sec. 4.1). Any shape, elementwise."""
    return error.abs()


def huber(error: Tensor, sigma: float, kappa: float = 0.2) -> Tensor:
    """Return f(e) = e² up to |e| = κ, 2κ|e| - κ² beyond (CAWR, Sec. 4.1). Any shape, elementwise.

    Raises:
        ValueError: κ is not a positive finite number.
    """
    kappa = _constant('huber', 'kappa', kappa)
    near = error.abs().clamp(max=kappa)
    return near * (2 * error.abs() - near)


def flat(error: Tensor, sigma: float, c1: float | None = None, c2: float | None = None, c3: float = 0.5) -> Tensor:
    """Return f(e) = -log[c2 exp(-c1 e²) + c3] + c4 (CAWR, Sec. 4.1), with a gradient that vanishes far away.

    Arguments:
        error: any shape, elementwise.
        sigma: σ of the policy.
        c1: None for 2/σ²; larger narrows the region where f is convex.
        c2: None for 1/σ. Only c2 / c3 matters, since c4 makes f(0) = 0.
        c3: larger makes the gradient vanish nearer to 0.

    Raises:
        ValueError: a constant is not a positive finite number.
    """
    sigma = _constant('flat', 'sigma', sigma)
    c1 = _constant('flat', 'c1', c1, 2 / sigma**2)
    c2 = _constant('flat', 'c2', c2, 1 / sigma)
    c3 = _constant('flat', 'c3', c3)
    exponent = -c1 * error.square()
    # log[(c2 + c3) / (c2 exp + c3)] with the 1 taken out: no term cancels another, near 0 or far away.
    return torch.log1p(-c2 * exponent.expm1() / (c2 * exponent.exp() + c3))


def skew(
    error: Tensor, sigma: float, c1: float | None = None, c2: float | None = None, c3: float | None = None
) -> Tensor:
    """Return f(e) = -log[c2 (exp(-c1 e²) + 1/(c3|e| + 1))] + c4 (CAWR, Sec. 4.1).

    It has a kink at 0; far away the gradient is 1/|e|.

    Arguments:
        error: any shape, elementwise.
        sigma: σ of the policy.
        c1: None for 1/σ²; larger narrows the region where f is convex.
        c2: None for 1/σ. It only shifts f, and c4, which makes f(0) = 0, takes the shift back: it changes nothing.
        c3: None for 1/σ; c3/2 is the gradient just beside 0.

    Raises:
        ValueError: a constant is not a positive finite number.
    """
    sigma = _constant('skew', 'sigma', sigma)
    c1 = _constant('skew', 'c1', c1, 1 / sigma**2)
    _constant('skew', 'c2', c2, 1 / sigma)
    c3 = _constant('skew', 'c3', c3, 1 / sigma)
    exponent, far = -c1 * error.square(), c3 * error.abs()
    # log[2 / (exp + 1/(1 + far))] with the 1 taken out, both sides times 1 + far: no term cancels another.
    return torch.log1p((far - (1 + far) * exponent.expm1()) / (1 + (1 + far) * exponent.exp()))


#: name -> f(error, sigma, **constants), elementwise, with f(0) = 0 and gradient 0 there (CAWR, Sec. 4.1).
POLICY_LOSSES: dict[str, Callable[..., Tensor]] = {'l2': l2, 'l1': l1, 'huber': huber, 'flat': flat, 'skew': skew}


def convex_radius(loss: Callable[[Tensor, float], Tensor], sigma: float) -> float:
    """Return the largest r such that the loss is convex on [0, r].

    Theorem 2 of CAWR covers errors up to r (Sec. 4.1, end).

    Looks for the first place between 1e-6 and 1e6 where the gradient falls.

    Arguments:
        loss: f(error, sigma), symmetric, its constants bound.
        sigma: σ of the policy.

    Returns:
        r to about 1e-6 of itself; 0 if f is concave right beside 0, inf if the gradient falls nowhere.
    """
    grid = torch.logspace(-6, 6, 20001, dtype=torch.float64)
    slope = _slope(loss, grid, sigma)
    highest = slope.cummax(dim=0).values
    falls = slope < highest - 1e-12 * highest.abs()
    if not falls.any():
        return math.inf
    top = int(slope[:int(falls.int().argmax())].argmax())
    if top == 0:
        return 0.0
    grid = torch.linspace(grid[top - 1].item(), grid[top + 1].item(), 2001, dtype=torch.float64)
    return grid[_slope(loss, grid, sigma).argmax()].item()


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """Return |τ - 1{u < 0}| u² (IQL, Eq. 5; CAWR, Eq. 4), elementwise; u is target minus prediction."""
    return expectile_weight(error, expectile) * error.square()


def expectile_weight(error: Tensor, expectile: float) -> Tensor:
    """Return |τ - 1{u < 0}|, the slope of the expectile loss over 2u. Any shape, elementwise."""
    return torch.full_like(error, expectile).masked_fill_(error < 0, 1 - expectile)


def _constant(loss: str, name: str, value: float | None, default: float | None = None) -> float:
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f'policy loss {loss!r}: {name} is {value!r}; it must be a positive finite number')
    return value if isinstance(value, (int, float)) else float(value)


def _slope(loss: Callable[[Tensor, float], Tensor], error: Tensor, sigma: float) -> Tensor:
    with torch.enable_grad():
        error = error.detach().requires_grad_()
        return torch.autograd.grad(loss(error, sigma).sum(), error)[0]

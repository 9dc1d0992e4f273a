"""Compute the pull of poor actions on the policy's mean with each loss: Corollary 1 and Theorem 2 in one dimension.

    python benchmarks/corollary.py [--out docs/corollary1.png]

One state, one action dimension. Good actions are N(0, spread²); a share ε of all actions is poor, N(distance, spread²).
Distance is 0.8 and spread is σ = exp(-2), the policy's, unless told otherwise. μ⁺ = 0 minimizes E[w f(a - μ)] over the
good actions, μ* over all of them; the bias is |μ* - μ⁺|. Expectations are sums over a fixed grid, no draw is random.
Prints biases and bounds at a few shares and draws the picture.
"""
from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ding_cawr.losses import POLICY_LOSSES

ROOT = Path(__file__).resolve().parent.parent
SIGMA = math.exp(-2)
Z = torch.linspace(-8, 8, 1001, dtype=torch.float64)
DENSITY = torch.softmax(-Z.square() / 2, dim=0)


@dataclass(frozen=True)
class Mixture:
    """Good actions N(0, spread²) of weight 1 and a share ε of poor ones, N(distance, spread²) of weight poor_weight."""
    share: float
    distance: float = 0.8
    spread: float = SIGMA
    poor_weight: float = 1.0

    def risk(self, loss_name: str, mu: Tensor, derivative: int = 0) -> Tensor:
        """Return E_D[w f(a - μ)] for every μ (M,), or its first or second derivative by μ.

        The derivatives are the density's (by parts), so kinks of f do no harm; where f has one, they are E_D[w ∇F] and
        E_D[w H] of Theorem 2.
        """
        factor = (1.0, -Z / self.spread, (Z.square() - 1) / self.spread**2)[derivative]
        good, poor = (
            (POLICY_LOSSES[loss_name](mean + self.spread * Z - mu[:, None], SIGMA) * (DENSITY * factor)).sum(dim=1)
            for mean in (0.0, self.distance)
        )
        return (1 - self.share) * good + self.share * self.poor_weight * poor


def bias(loss_name: str, share: float, **mixture: float) -> float:
    """Return |μ* - μ⁺|, μ* the lowest of all minima, for the mixture with this share.

    At a share of exactly one half flat and skew have two equal minima; the one nearer the good actions is taken.
    """
    mixed = Mixture(share, **mixture)
    places = torch.linspace(-0.01, 1.01, 103, dtype=torch.float64) * mixed.distance
    slope = mixed.risk(loss_name, places, derivative=1)
    turns = ((slope[:-1] < 0) & (slope[1:] >= 0)).nonzero()[:, 0]
    low, high = places[turns], places[turns + 1]
    for _ in range(30):
        middle = (low + high) / 2
        falls = mixed.risk(loss_name, middle, derivative=1) < 0
        low, high = torch.where(falls, middle, low), torch.where(falls, high, middle)
    risk = mixed.risk(loss_name, high)
    return high[risk <= risk.min() + 1e-9][0].abs().item()


def corollary1(share: float, **mixture: float) -> float:
    """Return the right side of Eq. 9, ε E⁻[w |a⁻ - μ⁺|] / E_D[w]: a bound on the bias of l2, whatever the share."""
    mixed = Mixture(share, **mixture)
    pull = mixed.share * mixed.poor_weight
    return pull / (1 - share + pull) * (_poor_errors(mixed) * DENSITY).sum().item()


def theorem2(loss_name: str, share: float, supremum: bool = True, **mixture: float) -> float:
    """Return the right side of Theorem 2, ε E⁻[w sup|∇F|] / E_D[w H at ξ], at the ξ between μ⁺ and μ* where it is
    largest.

    Where the expected loss is not convex from μ⁺ to μ* (H not positive at some ξ) there is no bound: inf. That is all
    the convexity that the proof uses; f itself need not be convex at every action.

    Arguments:
        loss_name: of POLICY_LOSSES.
        share: ε.
        supremum: True for sup|∇F| between μ⁺ and a⁻, as the theorem is stated; False for |∇F| at (μ⁺, a⁻) itself, as
            the proof has it one step earlier.
        mixture: options of Mixture.
    """
    mixed = Mixture(share, **mixture)
    errors = _poor_errors(mixed)
    if supremum:
        grid = torch.linspace(0, errors.max().item(), 10001, dtype=torch.float64)
        gradient = _gradient(loss_name, grid).cummax(dim=0).values[torch.searchsorted(grid, errors)]
    else:
        gradient = _gradient(loss_name, errors)
    pull = mixed.share * mixed.poor_weight * (gradient * DENSITY).sum().item()
    between = torch.linspace(0, 1, 101, dtype=torch.float64) * bias(loss_name, share, **mixture)
    curvature = mixed.risk(loss_name, between, derivative=2).min().item()
    return pull / curvature if curvature > 0 else math.inf


def _poor_errors(mixed: Mixture) -> Tensor:
    """Return |a⁻ - μ⁺| on the grid."""
    return (mixed.distance + mixed.spread * Z).abs()


def _gradient(loss_name: str, error: Tensor) -> Tensor:
    """Return |f'| of errors (B,)."""
    error = error.clone().requires_grad_()
    return torch.autograd.grad(POLICY_LOSSES[loss_name](error, SIGMA).sum(), error)[0].abs()


def draw(path: Path) -> None:
    """Draw the biases against ε as a PNG."""
    # Close to one half the minimum of l1 moves fast.
    shares = torch.cat([torch.linspace(0, 0.46, 47), torch.linspace(0.462, 0.5, 20)]).double().tolist()
    figure = Figure(figsize=(7, 4), layout='constrained', dpi=120)
    axes = figure.add_subplot()
    bound = [corollary1(share) for share in shares]
    axes.plot(shares, bound, color='0.8', linewidth=7, solid_capstyle='butt', label="Corollary 1's bound on l2")
    for name in ('l2', 'huber', 'l1', 'skew', 'flat'):
        axes.plot(shares, [bias(name, share) for share in shares], linewidth=2, label=name)
    axes.set_xlabel('share ε of poor actions')
    axes.set_ylabel("bias of the policy's mean")
    axes.set_title('How far poor actions 0.8 away pull the mean, by policy loss')
    axes.set_xlim(0, 0.5)
    axes.grid(alpha=0.3)
    axes.legend(loc='upper left', frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'corollary1.png')
    out = parser.parse_args().out
    print('bounds: Theorem 2; the same with the gradient at the good mean, not its supremum; Corollary 1 (of l2 alone)')
    for share in (0.1, 0.3, 0.45, 0.6):
        for name in POLICY_LOSSES:
            bounds = theorem2(name, share), theorem2(name, share, supremum=False), corollary1(share)
            print(f'ε {share:<4} {name:5} bias {bias(name, share):.4f}  bounds', *(f'{bound:7.4f}' for bound in bounds))
    draw(out)


if __name__ == '__main__':
    main()

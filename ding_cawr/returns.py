"""Returns of whole trajectories: weights by their sums of rewards, and λ-returns, the regression targets of V.

Rows are the last dimension of (..., N), in the order in which they were visited; leading dimensions are replicas.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

#: λ of ``episode_weights``, in units of the range of the returns, which one bad episode can make very large.
TEMPERATURE_RANGE = (1e-12, 1e3)
#: Least weight, so that every row stays reachable.
LEAST_WEIGHT = 1e-6
#: Returns within this share of the largest one are equal: rewards in float32 are not more exact.
EQUAL = 1e-6


def episode_weights(reward: Tensor, ends: Tensor, share: float, whole: Tensor | None = None) -> Tensor:
    """Return weights exp(R / λ) of rows by the undiscounted return R of their trajectory, the best of which has 1: (N,)
    in float64 on the CPU.

    λ is such that the effective sample size (Σw)² / Σw² is a share of N, or of the best trajectory where that has more
    rows. A trajectory that is only a part of an episode has no known return: its rows have the least weight. Where all
    whole episodes have the same return, their rows have the weight 1.

    Arguments:
        reward: r (N,).
        ends: whether a row is the last of its trajectory (N,); True in the last row.
        share: in (0, 1).
        whole: whether each of the P trajectories is a whole episode (P,), one of them at least; None: all are.
    """
    reward, length = reward.cpu().double(), trajectory_lengths(ends.cpu())
    trajectory = torch.arange(len(length)).repeat_interleave(length)
    returns = torch.zeros(len(length), dtype=torch.float64).index_add_(0, trajectory, reward)
    whole = torch.ones_like(length, dtype=torch.bool) if whole is None else whole.cpu()
    best, worst = returns[whole].max(), returns[whole].min()
    if best - worst <= EQUAL * returns[whole].abs().max():
        return whole.double().clamp(min=LEAST_WEIGHT)[trajectory]
    below_best = ((returns - best) / (best - worst)).masked_fill(~whole, -math.inf)

    def weights(temperature: float) -> Tensor:
        return (below_best / temperature).exp().clamp(min=LEAST_WEIGHT)

    low, high = TEMPERATURE_RANGE
    for _ in range(60):
        middle = math.sqrt(low * high)
        weight = weights(middle)
        effective = (length * weight).sum().square() / (length * weight.square()).sum()
        low, high = (middle, high) if effective < share * len(reward) else (low, middle)
    return weights(high)[trajectory]


def one_step_returns(reward: Tensor, next_value: Tensor, done: Tensor, discount_factor: float) -> Tensor:
    """Return r + γ (1 - done) V(s') (..., N)."""
    return reward + discount_factor * (1 - done) * next_value


def lambda_returns(
    reward: Tensor, next_value: Tensor, done: Tensor, ends: Tensor, discount_factor: float, lambda_: float
) -> Tensor:
    """Return the λ-returns of trajectories that follow each other (AWR, Peng et al. 2019, TD(λ) as released).

    Within a trajectory R_t = r_t + γ ((1 - λ) V(s_{t+1}) + λ R_{t+1}). At its end R = r after a termination, and
    r + γ V(s') where it was cut: at a time limit, or because no more was recorded.

    All trajectories are done at once, in log2 of the longest one's length passes over the rows: R = a + k R_{+1} with
    k = γ λ within trajectories and 0 at their ends; after a pass a and k reach twice as far.

    Arguments:
        reward: r (..., N).
        next_value: V(s') (..., N), of each row's own next state.
        done: 1 where a row terminates, else 0, (..., N).
        ends: whether a row is the last of its trajectory (N,); True where ``done`` is 1, and in the last row.
        discount_factor: γ.
        lambda_: λ in [0, 1]; 0 is the one-step return, 1 the sum of discounted rewards of the trajectory.
    """
    inside = (~ends).to(reward.dtype)
    total = reward + discount_factor * (1 - done) * (1 - lambda_ * inside) * next_value
    factor = (discount_factor * lambda_ * inside).expand_as(total)
    reach, longest = 1, int(trajectory_lengths(ends).amax())
    while reach < longest:
        # Beyond the last row there is nothing: its factor, and that of all that reach it, is 0.
        total = torch.cat(
            [torch.addcmul(total[..., :-reach], factor[..., :-reach], total[..., reach:]), total[..., -reach:]], dim=-1
        )
        factor = torch.cat([factor[..., :-reach] * factor[..., reach:], torch.zeros_like(factor[..., -reach:])], dim=-1)
        reach *= 2
    return total


def trajectory_lengths(ends: Tensor) -> Tensor:
    """Return the rows of each of the P trajectories (P,), in their order; waits for the device."""
    last = ends.nonzero().squeeze(-1)
    return last.diff(prepend=last.new_tensor([-1]))

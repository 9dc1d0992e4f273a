"""λ-returns of whole paths: the regression targets of V.

Rows are the last dimension of (..., N), in the order in which they were visited; leading dimensions are replicas.
"""
from __future__ import annotations

import torch
from torch import Tensor


def one_step_returns(reward: Tensor, next_value: Tensor, done: Tensor, discount_factor: float) -> Tensor:
    """Return r + γ (1 - done) V(s') (..., N)."""
    return reward + discount_factor * (1 - done) * next_value


def lambda_returns(
    reward: Tensor, next_value: Tensor, done: Tensor, ends: Tensor, discount_factor: float, lambda_: float
) -> Tensor:
    """Return the λ-returns of paths that lie one behind the other (AWR, Peng et al. 2019, TD(λ) as released).

    Within a path R_t = r_t + γ ((1 - λ) V(s_{t+1}) + λ R_{t+1}). At its end R = r after a termination, and
    r + γ V(s') where it was cut: at a time limit, or because no more was recorded.

    All paths are done at once, in log2 of the longest one's length passes over the rows: R = a + k R_{+1} with k = γ λ
    within paths and 0 at their ends; after a pass a and k reach twice as far.

    Arguments:
        reward: r (..., N).
        next_value: V(s') (..., N), of each row's own next state.
        done: 1 where a row terminates, else 0, (..., N).
        ends: whether a row is the last of its path (N,); True where ``done`` is 1, and in the last row.
        discount_factor: γ.
        lambda_: λ in [0, 1]; 0 is the one-step return, 1 the sum of discounted rewards of the path.
    """
    inside = (~ends).to(reward.dtype)
    total = reward + discount_factor * (1 - done) * (1 - lambda_ * inside) * next_value
    factor = (discount_factor * lambda_ * inside).expand_as(total)
    reach, longest = 1, longest_path(ends)
    while reach < longest:
        # Beyond the last row there is nothing: its factor, and that of all that reach it, is 0.
        total = torch.cat(
            [torch.addcmul(total[..., :-reach], factor[..., :-reach], total[..., reach:]), total[..., -reach:]], dim=-1
        )
        factor = torch.cat([factor[..., :-reach] * factor[..., reach:], torch.zeros_like(factor[..., -reach:])], dim=-1)
        reach *= 2
    return total


def longest_path(ends: Tensor) -> int:
    """Return the rows of the longest path; waits for the device."""
    last = ends.nonzero().squeeze(-1)
    return int(torch.diff(last, prepend=last.new_tensor([-1])).amax())

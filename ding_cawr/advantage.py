"""From advantages to the weights of the policy's loss.

Samples are the last dimension of (..., B); leading dimensions are replicas, each with its own statistics.
"""
from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

STD_EPSILON = 1e-8


def normalize_advantage(advantage: Tensor) -> Tensor:
    """Return (A - mean) / (std + 1e-8) over the samples (..., B), std unbiased (0 for one sample).

    Leading dimensions are replicas, each with its own mean and deviation.
    """
    # std_mean goes by Welford's updates, so that the mean of equal advantages is exactly theirs and z is 0; that of
    # mean() is rounded, which over a deviation of 0 would count.
    std, mean = torch.std_mean(advantage, dim=-1, keepdim=True, correction=min(1, advantage.shape[-1] - 1))
    return (advantage - mean) / (std + STD_EPSILON)


def advantage_weight(
    advantage: Tensor, temperature: float | Tensor, max_weight: float, normalize: bool = True
) -> Tensor:
    """Return w_i = min(exp(z_i / λ), w_max), z the normalized or the plain advantage (CAWR, Sec. 4.2; IQL, Eq. 7).

    Arguments:
        advantage: (..., B); leading dimensions are replicas, each normalized by itself.
        temperature: λ > 0, a float or a tensor that broadcasts against (..., B), as (R, 1) does against (R, B); larger
            is closer to behaviour cloning.
        max_weight: w_max > 0.
        normalize: False for plain exp(A / λ), as IQL and AWR have it.

    Returns:
        Weights (..., B), finite for any finite advantage.

    Raises:
        ValueError: λ or w_max is not positive (a λ that is a tensor is not looked at), or ``advantage`` is not such a
            tensor.
    """
    check_samples(advantage)
    check_positive('temperature', temperature)
    check_positive('max_weight', max_weight)
    return exp_weight(advantage, temperature, max_weight, normalize)


def exp_weight(advantage: Tensor, temperature: float | Tensor, max_weight: float, normalize: bool = True) -> Tensor:
    """Return what ``advantage_weight`` gives, without its checks: (R, 1) are R replicas of one sample each."""
    exponent = (normalize_advantage(advantage) if normalize else advantage) / temperature
    return exponent.exp().clamp(max=max_weight)


def check_samples(advantage: Tensor) -> None:
    """Raise a ValueError for advantages that are not (..., B): (B, 1) would be B replicas of one sample each."""
    if not isinstance(advantage, Tensor) or not advantage.is_floating_point():
        what = f'a tensor of {advantage.dtype}' if isinstance(advantage, Tensor) else f'a {type(advantage).__name__}'
        raise ValueError(f'advantage is {what}; it must be a tensor of floating-point numbers, (..., B)')
    shape = tuple(advantage.shape)
    if not shape or shape[-1] == 0 or (len(shape) > 1 and shape[-1] == 1):
        raise ValueError(
            f'advantage has the shape {shape}; it must be (B,), or (R, B) for R replicas, with samples in the last '
            'dimension: take advantage.squeeze(-1) of (B, 1)'
        )


def check_positive(name: str, value: float | Tensor) -> None:
    """Raise a ValueError for a number that is not positive and finite; to look at a tensor could cost a wait."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not isinstance(value, Tensor) and not (is_number and 0 < value < math.inf):
        raise ValueError(f'{name} is {value!r}; it must be a positive finite number')


def effective_sample_size(weight: Tensor) -> Tensor:
    """Return (Σw)² / (B Σw²) (...), the share in (0, 1] of the samples (..., B) that a weighted mean effectively uses.

    Leading dimensions are replicas, each with its own share.
    """
    weight = weight.double()
    return weight.sum(dim=-1).square() / (weight.shape[-1] * weight.square().sum(dim=-1))

"""Compute scores from evaluations: three protocols, and the aggregates of Agarwal et al. (2021) with their intervals.

The bootstrap resamples each dataset's runs among themselves. Scores are {dataset: (runs,)}, one score a run.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
#: Number of evaluations behind 'mean of the last ten'.
LAST = 10
MEAN_OF_LAST = 'mean of the last ten'

#: name -> the score of a run from its evaluations (evaluations,) in order.
PROTOCOLS: dict[str, Callable[[Sequence[float]], float]] = {
    'last evaluation': lambda evaluations: float(evaluations[-1]),
    MEAN_OF_LAST: lambda evaluations: float(np.mean(evaluations[-LAST:])),
    # What is not finite is never the best.
    'best so far': lambda evaluations: max(filter(math.isfinite, evaluations), default=math.nan),
}
#: The paper's: score_k = max over i <= k of score(π_i), Sec. 6.
PAPER_PROTOCOL = 'best so far'

Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Spread:
    """Mean and population standard deviation of n values; ``std`` is None where it is unknown, as for one value."""
    mean: float
    std: float | None
    n: int

    def __format__(self, spec: str) -> str:
        return ' ± '.join(format(value, spec) for value in (self.mean, self.std) if value is not None)


@dataclass(frozen=True)
class Estimate:
    """A statistic and the ends of its 95% interval, None where there is no interval."""
    value: float
    low: float | None
    high: float | None

    def __format__(self, spec: str) -> str:
        interval = '-' if self.low is None else f'{self.low:{spec}}, {self.high:{spec}}'
        return f'{self.value:{spec}} [{interval}]'


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of one value or more."""
    values = np.asarray(values, dtype=float)
    return Spread(float(values.mean()), float(values.std()) if len(values) > 1 else None, len(values))


def interquartile_mean(scores: Scores) -> Estimate:
    """Return the mean of all datasets' scores without the lowest and the highest quarter, each rounded down.

    Datasets count alike: where they have different numbers of runs, each run counts several times, so that all have the
    least common multiple.
    """
    def statistic(*samples: np.ndarray) -> np.ndarray:
        runs = math.lcm(*(sample.shape[-1] for sample in samples))
        together = [np.repeat(sample, runs // sample.shape[-1], axis=-1) for sample in samples]
        together = np.sort(np.concatenate(together, axis=-1))
        cut = together.shape[-1] // 4
        middle = together[..., cut:together.shape[-1] - cut].mean(-1)
        return np.where(np.isnan(together).any(-1), np.nan, middle)  # sorted to the end, NaN would be cut away

    return _with_interval(statistic, list(scores.values()))


def probability_of_improvement(scores: Scores, others: Scores) -> Estimate:
    """Return P(X > Y) of a run X in ``scores`` and a run Y in ``others`` of the same dataset, averaged over datasets.
    Ties count half.

    Raises:
        ValueError: the two are not about the same datasets.
    """
    if scores.keys() != others.keys():
        raise ValueError(
            f'probability_of_improvement compares runs of the same datasets, but one side has {sorted(scores)} and the '
            f'other {sorted(others)}; leave out what only one has'
        )

    def statistic(*samples: np.ndarray) -> np.ndarray:
        pairs = [(x[..., :, None], y[..., None, :]) for x, y in zip(samples[:len(scores)], samples[len(scores):])]
        return np.mean([((x > y) + 0.5 * (x == y)).mean((-2, -1)) for x, y in pairs], axis=0)

    return _with_interval(statistic, [*scores.values(), *(others[dataset] for dataset in scores)])


def _with_interval(statistic: Callable[..., np.ndarray], samples: Sequence[Sequence[float]]) -> Estimate:
    """Return a statistic of samples, whose leading dimensions are resamples, with an interval where every sample has
    several runs. A score that is not finite makes it NaN; trimming would drop it."""
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    if not all(np.isfinite(array).all() for array in arrays):
        return Estimate(float('nan'), None, None)
    value = float(statistic(*arrays))
    if min(map(len, arrays)) < 2:
        return Estimate(value, None, None)
    generator = np.random.default_rng(0)
    resamples = [array[generator.integers(len(array), size=(RESAMPLES, len(array)))] for array in arrays]
    low, high = np.percentile(statistic(*resamples), [2.5, 97.5])
    return Estimate(value, float(low), float(high))

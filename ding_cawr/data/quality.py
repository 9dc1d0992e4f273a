"""Describe the returns of a dataset's episodes, and how the episodes end."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ding_cawr.data.transitions import Transitions
from ding_cawr.score import score_or_none

QUANTILES = (0, 10, 25, 50, 75, 90, 100)


@dataclass(frozen=True, eq=False)
class Quality:
    """The quality of a dataset with at least one whole episode.

    Attributes:
        returns: (E,) float64, the episodes' undiscounted returns.
        values: (E,) float64, the episodes' normalized scores where the environment has reference returns, else their
            returns.
        unit: what the values are, 'score' or 'return'.
        terminations: share of the trajectories that end by a termination, such as a fall; the others end at a time
            limit or with the file. None where the file does not say where trajectories end.
    """
    returns: np.ndarray
    values: np.ndarray
    unit: str
    terminations: float | None

    def near_best(self, distance: float) -> float:
        """Return the share of episodes whose return is at most ``distance`` times the size of the best one below it.

        It is of returns also where there are scores, so that it does not depend on whether the environment is known.
        """
        best = self.returns.max()
        return float(np.mean(self.returns >= best - distance * abs(best)))

    @property
    def spread(self) -> float:
        """Return the standard deviation of the returns over the size of their mean; infinite where that is 0."""
        mean = abs(float(self.returns.mean()))
        return float(self.returns.std()) / mean if mean else float('inf')

    def quantiles(self) -> dict[str, float]:
        """Return the values at ``QUANTILES``, by names such as '10%'."""
        return {f'{each}%': float(value) for each, value in zip(QUANTILES, np.percentile(self.values, QUANTILES))}

    def histogram(self, bins: int = 10) -> list[tuple[float, float, int]]:
        """Return equal parts of the range of the values, each as its ends and the number of episodes in it; where all
        values are the same, one part."""
        low, spread = float(self.values.min()), float(np.ptp(self.values))
        if spread == 0:
            return [(low, low, len(self.values))]
        part = np.minimum((self.values - low) / spread * bins, bins - 1).astype(int)  # the last has its upper end, too
        edges = np.linspace(low, float(self.values.max()), bins + 1).tolist()
        return list(zip(edges, edges[1:], np.bincount(part, minlength=bins).tolist()))


def quality_of(transitions: Transitions, env_id: str | None = None) -> Quality | None:
    """Return the quality of a dataset, None where it has no whole episode or does not tell episodes apart.

    Arguments:
        transitions: as read from the file, rewards as they are there.
        env_id: environment of the data: a D4RL or gymnasium id. None: the one that the file names.
    """
    returns, ends = transitions.episode_returns, transitions.table.ends
    if returns is None or len(returns) == 0:
        return None
    scores = score_or_none(env_id or transitions.env_id, returns)
    return Quality(
        returns=returns,
        values=returns if scores is None else scores,
        unit='return' if scores is None else 'score',
        terminations=None if ends is None else float(np.mean(transitions.done[ends], dtype=np.float64)),
    )

"""Draws in proportion to weights that change all the time."""
from __future__ import annotations

import math

import torch
from torch import Tensor

FANOUT = 32


class SumTree:
    """Weights of N rows in nodes of 32, nodes in nodes of 32 and so on, in float64, vectorized over the draws.

    Each node keeps the running sums of its children. They are always summed anew from the children, so no rounding
    error builds up, and each level of a draw has a random number of its own, so weights of very different size do not
    blur each other.
    """

    def __init__(self, size: int, device: torch.device | str = 'cpu') -> None:
        self.size = size
        self._children = []  # weights of a level's nodes, rows first, padded to whole parents (M * 32,)
        self._running = []  # their running sums within each parent (M, 32)
        while not self._children or size > 1:
            parents = math.ceil(size / FANOUT)
            self._children.append(torch.zeros(parents * FANOUT, dtype=torch.float64, device=device))
            self._running.append(torch.zeros(parents, FANOUT, dtype=torch.float64, device=device))
            size = parents

    @property
    def weights(self) -> Tensor:
        """The weights (N,), float64."""
        return self._children[0][:self.size]

    @property
    def total(self) -> Tensor:
        """Sum of the weights, a scalar."""
        return self._running[-1][0, -1]

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self._children + self._running)

    def set(self, indices: Tensor, weights: Tensor) -> None:
        """Weights (B,) of the rows ``indices`` (B,); a row that comes twice must come with the same weight."""
        weights, changed = weights.to(torch.float64), len(indices)
        for children, running in zip(self._children, self._running):
            children[indices] = weights
            if len(running) < changed:  # fewer parents than changes: sum this level, and those above, as a whole
                torch.cumsum(children.view(-1, FANOUT), dim=1, out=running)
                indices, weights = slice(len(running)), running[:, -1]
            else:
                indices = indices // FANOUT
                sums = children.view(-1, FANOUT)[indices].cumsum(dim=1)
                running[indices], weights = sums, sums[:, -1]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows (count,), int64, each drawn with probability weight / sum of weights, with replacement."""
        device = self._children[0].device
        uniform = torch.rand(len(self._running), count, dtype=torch.float64, device=device, generator=generator)
        # Below the total, whatever the rounding: then the first child beyond the threshold has a positive weight.
        root, *below = (uniform * (1 - 1e-15)).unbind()
        node = torch.searchsorted(self._running[-1][0], root * self.total, right=True)
        for running, position in zip(reversed(self._running[:-1]), below):
            sums = running[node]
            child = torch.searchsorted(sums, (position * sums[:, -1]).unsqueeze(1), right=True)
            node = node * FANOUT + child.squeeze(1)
        return node

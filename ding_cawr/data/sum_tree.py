"""Draws in proportion to masses that change all the time."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 5
#: Children of a node.
FANOUT = 1 << BITS
#: Most entries of the top. Every draw goes through all of them: on a CPU, where that is a stretch of memory in order,
#: it costs less than another level; a GPU does this many in one step.
TOP_CPU, TOP_GPU = 1 << 15, 1 << 10


class SumTree:
    """Masses of N rows, the unnormalized probabilities of their draws, in float64; R such trees side by side. Draws are
    vectorized.

    Rows are summed in nodes of 32, these again, and so on until few are left, the top. All sums are taken anew from
    what they sum, so no rounding error builds up. Each level of a draw has a random number of its own, so a small mass
    is not lost to rounding beside a large one.

    Each level holds the R trees one after the other, padded so that the entries below entry i of a level, in whichever
    tree it is, are i * 32 to i * 32 + 31 of the level below.
    """

    def __init__(
        self, size: int, device: torch.device | str = 'cpu', trees: int = 1, most_at_top: int | None = None
    ) -> None:
        """
        Arguments:
            size: N.
            device: where the masses are.
            trees: R.
            most_at_top: entries that the top may have; None for what suits the device.
        """
        on_cpu = torch.device(device).type == 'cpu'
        self.size, self.trees = size, trees
        height, at_top = 0, size
        while at_top > (most_at_top or (TOP_CPU if on_cpu else TOP_GPU)):
            height, at_top = height + 1, math.ceil(at_top / FANOUT)
        # A GPU scans a single row by a method whose rounding varies from run to run, and several by one that does not.
        rows = trees if on_cpu else max(trees, 2)
        self._top = torch.zeros(rows, at_top, dtype=torch.float64, device=device)
        self._stride = at_top * FANOUT**height  # rows of a tree, with padding
        below = [
            torch.zeros(trees * at_top * FANOUT**level, dtype=torch.float64, device=device)
            for level in range(height, 0, -1)
        ]
        #: Masses and their sums level by level, rows first.
        self.levels = [*below, self._top.view(-1)]
        tree = torch.arange(trees, device=device).unsqueeze(1)
        self._first_row, self._first_at_top = tree * self._stride, tree * at_top

    @property
    def masses(self) -> Tensor:
        """The masses (R, N), float64."""
        return self.levels[0][:self.trees * self._stride].view(self.trees, -1)[:, :self.size]

    @property
    def total(self) -> Tensor:
        """Sum of the masses (R,)."""
        return self._top[:self.trees].sum(dim=1)

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)

    def fill(self, masses: Tensor) -> None:
        """Set the masses (R, n), or (1, n) for all trees, of the first n rows."""
        self.masses[:, :masses.shape[1]].copy_(masses)
        for children, parents in zip(self.levels, self.levels[1:]):
            _sum_all(children, parents)

    def set(self, indices: Tensor, masses: Tensor) -> None:
        """Set the masses (R, B) of the rows ``indices`` (R, B). A row that comes twice must have one mass."""
        nodes = (indices if self.trees == 1 else indices + self._first_row).reshape(-1)
        self.levels[0].scatter_(0, nodes, masses.to(torch.float64).reshape(-1))
        for children, parents in zip(self.levels, self.levels[1:]):
            if len(parents) <= len(nodes):  # fewer parents than changes; so it is further up
                _sum_all(children, parents)
                continue
            nodes = nodes >> BITS
            parents.scatter_(0, nodes, children.view(-1, FANOUT).index_select(0, nodes).sum(dim=1))

    def draw(self, count: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Return rows (R, count), int64, each drawn with probability mass / sum of masses, with replacement.

        Tree r draws with the r-th generator, and what it draws does not depend on the other trees.
        """
        shape, device = (len(self.levels), count), self._top.device
        uniform = [
            torch.rand(shape, dtype=torch.float64, device=device, generator=generator) for generator in generators
        ]
        uniform = torch.cat(uniform, dim=1) if self.trees > 1 else uniform[0]
        # Below the total, whatever the rounding: then the first child beyond the threshold has a positive mass.
        top, *below = (uniform * (1 - 1e-12)).unbind()
        sums = self._top.cumsum(dim=1)[:self.trees]
        node = torch.searchsorted(sums, top.view(self.trees, count) * sums[:, -1:], right=True)
        if self.trees > 1:
            node += self._first_at_top
        node = node.view(-1)
        for children, position in zip(reversed(self.levels[:-1]), below):
            sums = children.view(-1, FANOUT).index_select(0, node).cumsum(dim=1)
            child = torch.searchsorted(sums, (position * sums[:, -1]).unsqueeze(1), right=True)
            node = child.squeeze(1).add_(node, alpha=FANOUT)
        rows = node.view(self.trees, count)
        return rows if self.trees == 1 else rows - self._first_row


def _sum_all(children: Tensor, parents: Tensor) -> None:
    torch.sum(children.view(-1, FANOUT), dim=1, out=parents[:len(children) // FANOUT])

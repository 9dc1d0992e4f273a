"""Draws against brute force."""
import pytest
import torch
from scipy.stats import chisquare

from ding_cawr.sum_tree import FANOUT, SumTree

DRAWS = 200_000


def filled(size: int, seed: int, updates: int = 20) -> tuple[SumTree, torch.Tensor]:
    """A tree after random updates, and the weights that it should hold."""
    generator = torch.Generator().manual_seed(seed)
    tree, weights = SumTree(size), torch.ones(size, dtype=torch.float64)
    tree.set(torch.arange(size), weights)
    for _ in range(updates):
        rows = torch.randint(size, (min(size, 50), ), generator=generator)
        rows = rows.unique()
        new = 10**(torch.rand(len(rows), generator=generator, dtype=torch.float64) * 16 - 12)
        tree.set(rows, new)
        weights[rows] = new
    return tree, weights


def p_value(drawn: torch.Tensor, weights: torch.Tensor) -> float:
    """Chi-squared test of the draws, rare rows (expected fewer than 10 times) taken together."""
    expected = weights / weights.sum() * len(drawn)
    observed = torch.bincount(drawn, minlength=len(weights)).double()
    rare = expected < 10
    observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    if expected[-1] < 5:  # too few even together: none should come up more than a handful of times
        assert observed[-1] <= expected[-1] + 30
        observed, expected = observed[:-1], expected[:-1] / expected[:-1].sum() * observed[:-1].sum()
    return chisquare(observed.numpy(), expected.numpy()).pvalue if len(observed) > 1 else 1.0


@pytest.mark.parametrize('size', [1, 2, 31, 32, 33, 100, 1024, 1025, 5000, 32768, 40000])
def test_weights_and_sums_after_updates(size):
    tree, weights = filled(size, seed=size)
    assert torch.equal(tree.weights, weights)
    assert tree.total.item() == pytest.approx(weights.sum().item(), rel=1e-12)


@pytest.mark.parametrize('size', [1, 2, 31, 32, 33, 100, 1024, 1025, 5000])
def test_draws_follow_the_weights(size):
    tree, _ = filled(size, seed=size)
    generator = torch.Generator().manual_seed(1)
    # Comparable weights, so that every row is tested, then wildly different ones.
    even = torch.rand(size, dtype=torch.float64, generator=generator) + 0.5
    tree.set(torch.arange(size), even)
    assert p_value(tree.draw(DRAWS, generator), even) > 1e-4
    tree, wild = filled(size, seed=size + 1)
    assert p_value(tree.draw(DRAWS, generator), wild) > 1e-4


def test_wrong_weights_are_noticed():
    tree, _ = filled(100, seed=0)
    weights = torch.linspace(1, 2, 100, dtype=torch.float64)
    tree.set(torch.arange(100), weights)
    drawn = tree.draw(DRAWS, torch.Generator().manual_seed(0))
    assert p_value(drawn, weights.flip(0)) < 1e-6


def test_small_weights_are_right_once_the_large_ones_are_gone():
    size = 3000
    tree = SumTree(size)
    tree.set(torch.arange(size), torch.full((size, ), 1e4))
    small = 1e-12 * (1 + torch.arange(size, dtype=torch.float64) % 3)
    for rows in torch.arange(size).split(700):
        tree.set(rows, small[rows])
    assert p_value(tree.draw(DRAWS, torch.Generator().manual_seed(2)), small) > 1e-4


def test_rows_of_zero_weight_are_never_drawn():
    size = 2 * FANOUT + 5
    tree = SumTree(size)
    tree.set(torch.tensor([3, size - 1]), torch.tensor([1.0, 1.0]))
    drawn = tree.draw(10_000, torch.Generator().manual_seed(0)).unique()
    assert drawn.tolist() == [3, size - 1]

"""Draws against brute force."""
import pytest
import torch
from scipy.stats import chisquare

from ding_cawr.data.sum_tree import FANOUT, SumTree

DRAWS = 200_000
SIZES = [1, 2, 31, 32, 33, 100, 1024, 1025, 5000, 32768, 40000]
#: Entries that the top may have: a few, so that small trees have several levels, or what suits the device.
TOPS = pytest.mark.parametrize('most_at_top', [FANOUT, None])


def filled(size: int, seed: int, updates: int = 20, most_at_top: int | None = FANOUT) -> tuple[SumTree, torch.Tensor]:
    """A tree after random updates, and the weights that it should hold."""
    generator = torch.Generator().manual_seed(seed)
    tree, weights = SumTree(size, most_at_top=most_at_top), torch.ones(size, dtype=torch.float64)
    tree.fill(weights[None])
    for _ in range(updates):
        rows = torch.randint(size, (min(size, 50), ), generator=generator)
        rows = rows.unique()
        new = 10**(torch.rand(len(rows), generator=generator, dtype=torch.float64) * 16 - 12)
        tree.set(rows[None], new[None])
        weights[rows] = new
    return tree, weights


def draw(tree: SumTree, count: int, seed: int) -> torch.Tensor:
    return tree.draw(count, [torch.Generator().manual_seed(seed)])[0]


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


@TOPS
@pytest.mark.parametrize('size', SIZES)
def test_weights_and_sums_after_updates(size, most_at_top):
    tree, weights = filled(size, seed=size, most_at_top=most_at_top)
    assert torch.equal(tree.masses[0], weights)
    assert tree.total.item() == pytest.approx(weights.sum().item(), rel=1e-12)


@TOPS
@pytest.mark.parametrize('size', [size for size in SIZES if size <= 5000])
def test_draws_follow_the_weights(size, most_at_top):
    tree, _ = filled(size, seed=size, most_at_top=most_at_top)
    generator = torch.Generator().manual_seed(1)
    # Comparable weights, so that every row is tested, then wildly different ones.
    even = torch.rand(size, dtype=torch.float64, generator=generator) + 0.5
    tree.fill(even[None])
    assert p_value(draw(tree, DRAWS, seed=1), even) > 1e-4
    tree, wild = filled(size, seed=size + 1, most_at_top=most_at_top)
    assert p_value(draw(tree, DRAWS, seed=2), wild) > 1e-4


def test_changes_of_few_rows_and_of_many_give_the_same_sums():
    """Many changes sum whole levels anew, few only the nodes that changed."""
    size, generator = 5000, torch.Generator().manual_seed(0)
    weights = torch.rand(1, size, dtype=torch.float64, generator=generator)
    few, many, whole = (SumTree(size, most_at_top=FANOUT) for _ in range(3))
    rows = torch.arange(size)[None]
    for part in rows.split(7, dim=1):
        few.set(part, weights[:, part[0]])
    many.set(rows, weights)
    whole.fill(weights)
    for tree in (many, whole):
        assert all(torch.equal(one, other) for one, other in zip(few.levels, tree.levels))


def test_wrong_weights_are_noticed():
    tree, _ = filled(100, seed=0)
    weights = torch.linspace(1, 2, 100, dtype=torch.float64)
    tree.fill(weights[None])
    assert p_value(draw(tree, DRAWS, seed=0), weights.flip(0)) < 1e-6


@TOPS
def test_small_weights_are_right_once_the_large_ones_are_gone(most_at_top):
    size = 3000
    tree = SumTree(size, most_at_top=most_at_top)
    tree.fill(torch.full((1, size), 1e4))
    small = 1e-12 * (1 + torch.arange(size, dtype=torch.float64) % 3)
    for rows in torch.arange(size).split(700):
        tree.set(rows[None], small[rows][None])
    assert p_value(draw(tree, DRAWS, seed=2), small) > 1e-4


@TOPS
def test_rows_of_zero_weight_are_never_drawn(most_at_top):
    size = 2 * FANOUT + 5
    tree = SumTree(size, most_at_top=most_at_top)
    tree.set(torch.tensor([[3, size - 1]]), torch.tensor([[1.0, 1.0]]))
    assert draw(tree, 10_000, seed=0).unique().tolist() == [3, size - 1]


@TOPS
@pytest.mark.parametrize('size', [1, 33, 1025, 40000])
def test_trees_side_by_side_draw_what_each_would_alone(size, most_at_top):
    seeds, generator = (3, 1, 2), torch.Generator().manual_seed(0)
    together = SumTree(size, trees=len(seeds), most_at_top=most_at_top)
    alone = [SumTree(size, most_at_top=most_at_top) for _ in seeds]
    for tree in (together, *alone):
        tree.fill(torch.ones(1, 1).expand(1, size))
    generators, own = ([torch.Generator().manual_seed(seed) for seed in seeds] for _ in range(2))
    for _ in range(30):
        rows = together.draw(64, generators)
        assert all(torch.equal(rows[i], tree.draw(64, own[i:i + 1])[0]) for i, tree in enumerate(alone))
        # One weight a row, different in each tree.
        weights = 10**(torch.rand(len(seeds), size, generator=generator, dtype=torch.float64) * 8 - 4)
        changed = weights.gather(1, rows)
        together.set(rows, changed)
        for i, tree in enumerate(alone):
            tree.set(rows[i:i + 1], changed[i:i + 1])
    assert all(torch.equal(together.masses[i], tree.masses[0]) for i, tree in enumerate(alone))


def test_what_a_draw_reads_grows_no_faster_than_the_logarithm():
    """At most 32 times as many rows for another level of 32, whatever the top."""
    levels = [len(SumTree(size).levels) for size in (1 << 15, 1 << 20, 1 << 21)]
    assert levels == [1, 2, 3]
    tree = SumTree(1 << 21)
    assert len(tree._top[0]) <= 1 << 15 and tree.nbytes <= 8.3 * tree.size

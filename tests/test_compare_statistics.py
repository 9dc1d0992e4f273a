"""Statistics of a comparison, against values by hand and a bootstrap written out."""
from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ding_cawr.compare.statistics import (
    PROTOCOLS,
    Estimate,
    Spread,
    interquartile_mean,
    probability_of_improvement,
    spread,
)


def test_protocols():
    evaluations = [90.0, *map(float, range(1, 12))]
    scores = {name: protocol(evaluations) for name, protocol in PROTOCOLS.items()}
    assert scores == {'last evaluation': 11.0, 'mean of the last ten': (2 + 11) / 2, 'best so far': 90.0}


def test_mean_of_the_last_ten_is_over_all_where_there_are_fewer():
    assert PROTOCOLS['mean of the last ten']([1.0, 2.0, 6.0]) == 3.0


def test_what_is_not_finite_is_never_the_best_and_is_not_left_out_of_means():
    assert PROTOCOLS['best so far']([1.0, math.nan, math.inf, 2.0]) == 2.0
    assert math.isnan(PROTOCOLS['best so far']([math.nan, math.inf]))
    assert math.isnan(PROTOCOLS['mean of the last ten']([1.0, math.nan]))


def test_spread():
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(math.sqrt((4 + 1 + 9) / 3)), 3)
    assert spread([5.0]) == Spread(5.0, None, 1)
    assert spread([5.0, 5.0]) == Spread(5.0, 0.0, 2)


def test_interquartile_mean_by_hand():
    """Of eight scores the two lowest and the two highest are left out, whichever dataset they are of."""
    scores = {'a': [100.0, 1.0, 4.0, 5.0], 'b': [6.0, 7.0, -50.0, 8.0]}
    assert interquartile_mean(scores).value == (4 + 5 + 6 + 7) / 4


def test_datasets_count_alike_whatever_their_numbers_of_runs():
    one, three = [100.0], [0.0, 0.0, 0.0]
    assert interquartile_mean({'a': one, 'b': three}).value == interquartile_mean({'a': three, 'b': one}).value == 50
    assert interquartile_mean({'a': [1.0, 3.0], 'b': [5.0, 5.0, 5.0]}).value == (3 + 3 + 3 + 5 + 5 + 5) / 6


def test_interquartile_mean_leaves_out_a_quarter_rounded_down():
    assert interquartile_mean({'a': [1.0, 2.0, 3.0, 4.0, 50.0]}).value == 3.0
    assert interquartile_mean({'a': [1.0, 2.0, 9.0]}).value == 4.0


def test_probability_of_improvement_by_counting():
    x, y = {'a': [1.0, 3.0, 3.0], 'b': [10.0, 0.0]}, {'a': [2.0, 3.0], 'b': [0.0, 0.0, 5.0, 20.0]}

    def count(xs, ys):
        return np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(xs, ys)])

    assert count(x['a'], y['a']) == (0 + 0 + 1 + 0.5 + 1 + 0.5) / 6
    by_hand = (count(x['a'], y['a']) + count(x['b'], y['b'])) / 2
    assert probability_of_improvement(x, y).value == pytest.approx(by_hand)
    assert probability_of_improvement(y, x).value == pytest.approx(1 - by_hand)


def test_probability_of_improvement_pairs_datasets_by_name():
    x, y = {'a': [5.0, 6.0], 'b': [1.0, 2.0]}, {'b': [0.0, 0.0], 'a': [1.0, 1.0]}
    assert probability_of_improvement(x, y) == Estimate(1.0, 1.0, 1.0)


def test_probability_of_improvement_wants_the_same_datasets():
    with pytest.raises(ValueError, match=r"one side has \['a'\] and the other \['b'\]"):
        probability_of_improvement({'a': [1.0, 2.0]}, {'b': [1.0, 2.0]})


@pytest.mark.filterwarnings('error')
def test_equal_values():
    same = {'a': [5.0, 5.0, 5.0], 'b': [5.0, 5.0]}
    assert interquartile_mean(same) == Estimate(5.0, 5.0, 5.0)
    assert probability_of_improvement(same, same) == Estimate(0.5, 0.5, 0.5)


@pytest.mark.filterwarnings('error')
def test_one_run_has_no_interval():
    assert interquartile_mean({'a': [5.0]}) == Estimate(5.0, None, None)
    assert interquartile_mean({'a': [5.0, 7.0], 'b': [6.0]}) == Estimate(6.0, None, None)
    assert probability_of_improvement({'a': [5.0]}, {'a': [1.0, 9.0]}) == Estimate(0.5, None, None)


def test_a_score_that_is_not_finite_is_not_dropped():
    estimate = interquartile_mean({'a': [1.0, 2.0, 3.0, math.nan]})
    assert math.isnan(estimate.value) and estimate.low is None


def random_scores(seed: int, means=(50.0, 80.0), runs: int = 5, std: float = 10.0) -> dict[str, list[float]]:
    generator = np.random.default_rng(seed)
    return {f'dataset {number}': list(generator.normal(mean, std, runs)) for number, mean in enumerate(means)}


def test_intervals_are_reproducible_and_hold_the_value():
    scores, others = random_scores(0), random_scores(1)
    for estimate in (interquartile_mean(scores), probability_of_improvement(scores, others)):
        assert estimate.low < estimate.value < estimate.high
    assert interquartile_mean(scores) == interquartile_mean(scores)
    assert probability_of_improvement(scores, others) == probability_of_improvement(scores, others)


def test_intervals_move_and_widen_with_the_scores():
    scores = random_scores(0)
    first, moved = (interquartile_mean({name: [each + up for each in runs] for name, runs in scores.items()})
                    for up in (0.0, 7.0))
    assert [moved.value, moved.low, moved.high] == pytest.approx([each + 7 for each in (first.value, first.low,
                                                                                        first.high)])
    narrow, wide = (interquartile_mean(random_scores(0, std=std)) for std in (5.0, 20.0))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def resample(generator: np.random.Generator, scores: dict[str, list[float]]) -> dict[str, np.ndarray]:
    """Runs drawn with replacement within each dataset."""
    return {name: generator.choice(runs, len(runs)) for name, runs in scores.items()}


def test_intervals_are_those_of_a_stratified_bootstrap():
    """Written out. With datasets so far apart one that mixed their runs would be several times as wide."""
    generator = np.random.default_rng(7)
    scores, others = random_scores(2, (0.0, 300.0), 6), random_scores(3, (0.0, 300.0), 5)

    def middle(sample):
        values = np.sort(np.concatenate(list(sample.values())))
        cut = len(values) // 4
        return values[cut:len(values) - cut].mean()

    def improvement(sample, other):
        return np.mean([
            np.mean((x[:, None] > y) + 0.5 * (x[:, None] == y)) for x, y in zip(sample.values(), other.values())
        ])

    middles = [middle(resample(generator, scores)) for _ in range(4000)]
    shares = [improvement(resample(generator, scores), resample(generator, others)) for _ in range(4000)]
    ours, share = interquartile_mean(scores), probability_of_improvement(scores, others)
    assert [ours.low, ours.high] == pytest.approx(np.percentile(middles, [2.5, 97.5]), abs=0.8)
    assert [share.low, share.high] == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=0.04)
    assert ours.high - ours.low < 30


def test_a_run_without_a_score_is_not_cut_away_with_the_highest_quarter():
    assert math.isnan(interquartile_mean({'a': [1.0, 2.0, 3.0, math.nan]}).value)

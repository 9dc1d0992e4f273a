"""Normalization and weights against numbers computed by hand, and what leaves them unchanged."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ding_cawr import advantage_weight
from ding_cawr.advantage import effective_sample_size, normalize_advantage
from ding_cawr.priority import PRIORITIES

ADVANTAGE = torch.tensor([1.0, 2.0, 3.0])  # mean 2, unbiased std 1: z = -1, 0, 1

# Multiples of 1/8, so that shifting and averaging them rounds nothing away.
ADVANTAGES = st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).map(
    lambda values: torch.tensor(values, dtype=torch.float64) / 8
)
TEMPERATURES = st.sampled_from([0.2, 1 / 3, 1.0, 5.0])


def test_normalized_weights():
    weight = advantage_weight(ADVANTAGE, temperature=0.5, max_weight=1e4)
    assert weight.tolist() == pytest.approx([math.exp(-2), 1.0, math.exp(2)], rel=1e-5)


def test_plain_weights_are_iqls():
    weight = advantage_weight(ADVANTAGE, temperature=0.5, max_weight=1e4, normalize=False)
    assert weight.tolist() == pytest.approx([math.exp(2), math.exp(4), math.exp(6)], rel=1e-5)


def test_weights_are_clipped():
    weight = advantage_weight(ADVANTAGE, temperature=0.1, max_weight=100.0)
    assert weight[2].item() == 100.0 and weight[1].item() == pytest.approx(1.0)


@pytest.mark.parametrize('normalize', [True, False])
def test_weights_of_huge_advantages_are_finite(normalize):
    weight = advantage_weight(torch.tensor([-1e4, 0.0, 1e4]), 0.2, 100.0, normalize)
    assert torch.isfinite(weight).all() and weight.max() <= 100


def test_constant_and_single_advantages_weigh_one():
    assert advantage_weight(torch.full((4, ), 7.0), 0.2, 100.0).tolist() == [1.0] * 4
    assert advantage_weight(torch.tensor([7.0]), 0.2, 100.0).tolist() == [1.0]


def test_temperature_may_be_a_tensor():
    expected = advantage_weight(ADVANTAGE, 0.5, 100.0)
    assert torch.equal(advantage_weight(ADVANTAGE, torch.tensor(0.5), 100.0), expected)


@settings(max_examples=60, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES, normalize=st.booleans(), data=st.data())
def test_permuting_the_samples_permutes_the_weights(advantage, temperature, normalize, data):
    order = torch.tensor(data.draw(st.permutations(range(len(advantage)))))
    expected = advantage_weight(advantage, temperature, 100.0, normalize)[order]
    weight = advantage_weight(advantage[order], temperature, 100.0, normalize)
    assert weight.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES, shift=st.integers(-10**6, 10**6))
def test_shifting_all_advantages_changes_no_normalized_weight(advantage, temperature, shift):
    weight = advantage_weight(advantage + shift, temperature, 100.0)
    assert weight.tolist() == pytest.approx(advantage_weight(advantage, temperature, 100.0).tolist(), rel=1e-5)


def test_normalize_advantage_uses_the_unbiased_std():
    assert normalize_advantage(ADVANTAGE).tolist() == pytest.approx([-1, 0, 1])


def test_effective_sample_size():
    assert effective_sample_size(torch.ones(8)).item() == pytest.approx(1)
    assert effective_sample_size(torch.tensor([1.0, 0, 0, 0])).item() == pytest.approx(0.25)
    assert effective_sample_size(torch.tensor([3.0, 1.0])).item() == pytest.approx(16 / 20)


@pytest.mark.parametrize('value', [0.1, -3.3, 12.7, 823.4, math.pi * 1e6])
@pytest.mark.parametrize('shape', [(1024, ), (999, ), (3, 1024), (3, 999)])
def test_equal_advantages_that_float32_rounds_weigh_one(shape, value):
    weight = advantage_weight(torch.full(shape, value), 0.2, 100.0)
    torch.testing.assert_close(weight, torch.ones(shape))


REPLICAS = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, -10.0], [7.0, 7.0, 7.0]])  # z = -1, 0, 1; 1, 0, -1; 0, 0, 0


def test_each_replica_is_normalized_by_itself():
    expected = torch.tensor([[-1.0, 0, 1], [1, 0, -1], [0, 0, 0]])
    torch.testing.assert_close(normalize_advantage(REPLICAS), expected)
    for leading in (REPLICAS[:, None], REPLICAS[None]):
        torch.testing.assert_close(normalize_advantage(leading).view(3, 3), expected)
    assert torch.equal(normalize_advantage(torch.ones(4, 1)), torch.zeros(4, 1))


@pytest.mark.parametrize('advantage, message', [
    (torch.ones(4, 1), r'has the shape \(4, 1\); it must be \(B,\), .* take advantage.squeeze\(-1\) of \(B, 1\)'),
    (torch.ones(0), r'has the shape \(0,\)'), (torch.tensor(1.0), r'has the shape \(\)'),
    (torch.ones(4, dtype=torch.int64), 'is a tensor of torch.int64; it must be a tensor of floating-point numbers'),
    ([1.0, 2.0], 'is a list; it must be a tensor'), (np.ones(3), 'is a ndarray; it must be a tensor'),
])
def test_what_is_not_a_vector_of_samples_is_named(advantage, message):
    with pytest.raises(ValueError, match=f'^advantage {message}'):
        advantage_weight(advantage, 1.0, 100.0)
    for priority in PRIORITIES.values():
        with pytest.raises(ValueError, match=f'^advantage {message}'):
            priority(advantage, 1.0)
    with pytest.raises(ValueError, match="^temperature is 'auto'; it must be a positive finite number"):
        advantage_weight(torch.ones(3), 'auto', 100.0)


@pytest.mark.parametrize('temperature', [0.5, torch.tensor([[0.5], [1.0], [0.2]])])
@pytest.mark.parametrize('normalize', [True, False])
def test_each_replica_has_the_weights_of_a_run(temperature, normalize):
    weight = advantage_weight(REPLICAS, temperature, 5.0, normalize)
    for r, advantage in enumerate(REPLICAS):
        own = temperature if isinstance(temperature, float) else temperature[r].item()
        torch.testing.assert_close(weight[r], advantage_weight(advantage, own, 5.0, normalize))


def test_each_replica_has_its_effective_sample_size():
    weight = torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 1, 1], [3.0, 1, 0, 0]])
    assert effective_sample_size(weight).tolist() == pytest.approx([0.25, 1, 16 / 40])
    assert effective_sample_size(weight[:, None]).shape == (3, 1)


@pytest.mark.parametrize('arguments, message', [
    ((0.0, 100.0), 'temperature is 0.0; it must be a positive'), ((-1.0, 100.0), 'temperature is -1.0'),
    ((float('nan'), 100.0), 'temperature is nan'), ((1.0, 0.0), 'max_weight is 0.0'), ((1.0, -2.0), 'max_weight is -2'),
])
def test_bad_temperature_and_max_weight(arguments, message):
    with pytest.raises(ValueError, match=message):
        advantage_weight(torch.ones(3), *arguments)

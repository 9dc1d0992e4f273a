"""Weights and priorities against numbers computed by hand."""
import math

import pytest
import torch

from ding_cawr import advantage_weight
from ding_cawr.advantage import effective_sample_size, normalize_advantage
from ding_cawr.priority import PRIORITIES

ADVANTAGE = torch.tensor([1.0, 2.0, 3.0])  # mean 2, unbiased std 1: z = -1, 0, 1


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


def test_normalize_advantage_uses_the_unbiased_std():
    assert normalize_advantage(ADVANTAGE).tolist() == pytest.approx([-1, 0, 1])


def test_effective_sample_size():
    assert effective_sample_size(torch.ones(8)).item() == pytest.approx(1)
    assert effective_sample_size(torch.tensor([1.0, 0, 0, 0])).item() == pytest.approx(0.25)
    assert effective_sample_size(torch.tensor([3.0, 1.0])).item() == pytest.approx(16 / 20)


def test_normal_priority():
    priority = PRIORITIES['normal'](ADVANTAGE, 0.5)
    assert priority.tolist() == pytest.approx([math.exp(-2), 1.0, math.exp(2)], rel=1e-5)


def test_none_priority():
    assert PRIORITIES['none'](ADVANTAGE, 0.5).tolist() == [1, 1, 1]


@pytest.mark.parametrize('name', PRIORITIES)
@pytest.mark.parametrize('advantage', [[-1e4, 0.0, 1e4], [3.0, 3.0, 3.0]])
def test_priorities_are_positive_and_finite(name, advantage):
    advantage = torch.tensor(advantage * 700)  # many samples, so that z can be large
    advantage[0] = advantage[0] * 100
    priority = PRIORITIES[name](advantage, 0.05)
    assert priority.shape == advantage.shape
    assert torch.isfinite(priority).all() and (priority > 0).all()

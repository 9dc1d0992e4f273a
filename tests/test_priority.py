"""Priorities against numbers computed by hand, and what leaves them unchanged."""
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ding_cawr.priority import PRIORITIES

ADVANTAGE = torch.tensor([1.0, 2.0, 3.0])  # mean 2, unbiased std 1: z = -1, 0, 1
FIVE = torch.tensor([5.0, 1.0, 4.0, 2.0, 10.0])  # mean 4.4, squared deviations sum to 49.2, std √12.3
SHIFTLESS = ('none', 'normal', 'quantile', 'odpr', 'aw')

# Multiples of 1/8, so that shifting and averaging them rounds nothing away.
ADVANTAGES = st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).map(
    lambda values: torch.tensor(values, dtype=torch.float64) / 8
)
TEMPERATURES = st.sampled_from([0.2, 1 / 3, 1.0, 5.0])


def test_names():
    assert list(PRIORITIES) == ['none', 'normal', 'quantile', 'standard', 'odpr', 'aw']


def test_none():
    assert PRIORITIES['none'](ADVANTAGE, 0.5).tolist() == [1, 1, 1]


def test_normal():
    priority = PRIORITIES['normal'](ADVANTAGE, 0.5)
    assert priority.tolist() == pytest.approx([math.exp(-2), 1.0, math.exp(2)], rel=1e-5)


@pytest.mark.parametrize('options, expected', [
    # Rank 0.3 * 4 = 1.2 of 1, 2, 4, 5, 10: 2 + 0.2 * (4 - 2) = 2.4.
    (dict(quantile=0.3), [4.404785, 0.4500609, 2.490356, 0.7960396, 76.25029]),
    # The median, 4.
    ({}, [1.768737, 0.1807215, 1.0, 0.3196490, 30.61823]),
])
def test_quantile(options, expected):
    """exp[2 (A - quantile) / √12.3]."""
    assert PRIORITIES['quantile'](FIVE, 0.5, **options).tolist() == pytest.approx(expected, rel=1e-5)


def test_quantile_of_few_samples():
    assert PRIORITIES['quantile'](torch.tensor([7.0]), 0.2, quantile=0.3).tolist() == [1.0]
    # Of 0 and 2 the quantile 0.25 is 0.5, std √2: exp(-0.5/√2) and exp(1.5/√2).
    priority = PRIORITIES['quantile'](torch.tensor([0.0, 2.0]), 1.0, quantile=0.25)
    assert priority.tolist() == pytest.approx([0.7021885, 2.888277], rel=1e-5)


def test_quantile_of_more_samples_than_torch_quantile_takes():
    """0 to 2^24, which float32 holds exactly: std 2^24/√12, so the largest gets exp(0.7 √12)."""
    priority = PRIORITIES['quantile'](torch.arange(2**24 + 1, dtype=torch.float32), 1.0, quantile=0.3)
    assert priority[round(0.3 * 2**24)].item() == pytest.approx(1, abs=1e-5)
    assert priority[-1].item() == pytest.approx(11.30052, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(advantage=ADVANTAGES, q=st.floats(0.01, 0.99), temperature=TEMPERATURES)
def test_quantile_is_interpolated_like_numpys(advantage, q, temperature):
    values = advantage.numpy()
    assume(values.std() > 0)
    expected = np.exp((values - np.quantile(values, q)) / (temperature * values.std(ddof=1)))
    assert PRIORITIES['quantile'](advantage, temperature, quantile=q).numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('quantile', [0, 1, -0.1, 1.5, 50, math.nan, math.inf, True, '0.5', None])
def test_bad_quantiles_are_named(quantile):
    with pytest.raises(ValueError, match=rf'quantile is {quantile!r}; it must be a number in \(0, 1\)'):
        PRIORITIES['quantile'](ADVANTAGE, 0.5, quantile=quantile)


def test_standard():
    priority = PRIORITIES['standard'](torch.tensor([-1.0, 0.0, 0.5]), 0.5)
    assert priority.tolist() == pytest.approx([0.1353353, 1.0, 2.718282], rel=1e-5)


def test_odpr():
    assert PRIORITIES['odpr'](FIVE, 0.5).tolist() == [4, 0, 3, 1, 9]


@pytest.mark.parametrize('minimum', [-2.0, torch.tensor(-2.0)])
def test_odpr_takes_a_minimum_over_more_than_these_samples(minimum):
    assert PRIORITIES['odpr'](FIVE, 0.5, minimum=minimum).tolist() == [7, 3, 6, 4, 12]


def test_odpr_is_never_negative():
    assert PRIORITIES['odpr'](FIVE, 0.5, minimum=3.0).tolist() == [2, 0, 1, 0, 7]


def test_aw():
    """Softmax of 2, 4, 6 times 3: 3 (e^-4, e^-2, 1) / 1.153651."""
    priority = PRIORITIES['aw'](ADVANTAGE, 0.5)
    assert priority.tolist() == pytest.approx([0.04762872, 0.3519314, 2.600440], rel=1e-5)


@pytest.mark.parametrize('name, least', [
    ('none', 1), ('normal', 1e-35), ('quantile', 1e-35), ('standard', 1e-35), ('odpr', 0), ('aw', 1e-35),
])
@pytest.mark.parametrize('advantage', [[-1e4, 0.0, 1e4], [-1e6, 0.0, 1e6], [3.0, 3.0, 3.0], [0.1, 0.1, 0.1]])
def test_priorities_are_finite(name, least, advantage):
    advantage = torch.tensor(advantage * 700)  # many samples, so that z can be large
    if advantage[0] != advantage[1]:
        advantage[0] *= 100
    priority = PRIORITIES[name](advantage, 0.05)
    assert priority.shape == advantage.shape and priority.dtype == torch.float32
    assert torch.isfinite(priority).all() and priority.min() >= least
    stored = priority.clamp(1e-6, 100.0)
    assert torch.isfinite(stored).all() and (stored > 0).all()


@pytest.mark.parametrize('name, value', [('none', 1), ('normal', 1), ('quantile', 1), ('standard', math.exp(6)),
                                         ('odpr', 0), ('aw', 1)])
def test_constant_advantages(name, value):
    assert PRIORITIES[name](torch.full((6, ), 3.0), 0.5).tolist() == pytest.approx([value] * 6, rel=1e-5)


@pytest.mark.parametrize('name', PRIORITIES)
def test_temperature_may_be_a_tensor(name):
    assert torch.equal(PRIORITIES[name](FIVE, torch.tensor(0.5)), PRIORITIES[name](FIVE, 0.5))


@pytest.mark.parametrize('name', PRIORITIES)
def test_each_replica_has_the_priorities_of_a_run(name):
    replicas = torch.stack([FIVE, 3 * FIVE.flip(0) - 20, torch.full_like(FIVE, 0.1)])
    temperatures = torch.tensor([[0.5], [1.0], [0.2]])
    for temperature in (0.7, temperatures):
        priority = PRIORITIES[name](replicas, temperature)
        for r, advantage in enumerate(replicas):
            own = temperature if isinstance(temperature, float) else temperature[r].item()
            torch.testing.assert_close(priority[r], PRIORITIES[name](advantage, own))
    assert torch.equal(PRIORITIES[name](replicas[None], temperatures)[0], PRIORITIES[name](replicas, temperatures))


@pytest.mark.parametrize('name', PRIORITIES)
def test_several_temperatures_give_as_many_priorities(name):
    """Selection counts on it of all but those without a temperature."""
    temperatures = torch.tensor([[0.5], [1.0], [0.2]])
    priority = PRIORITIES[name](FIVE, temperatures)
    if not PRIORITIES[name].uses_temperature:
        assert torch.equal(priority, PRIORITIES[name](FIVE, 0.5))
    else:
        for r, temperature in enumerate(temperatures):
            torch.testing.assert_close(priority[r], PRIORITIES[name](FIVE, temperature.item()))
            assert not torch.equal(priority[r], priority[r - 1])


def test_odpr_takes_a_minimum_for_each_replica():
    minimum = torch.tensor([[-2.0], [3.0]])
    priority = PRIORITIES['odpr'](FIVE.expand(2, 5), 0.5, minimum=minimum)
    assert priority.tolist() == [[7, 3, 6, 4, 12], [2, 0, 1, 0, 7]]


@pytest.mark.parametrize('name', PRIORITIES)
@settings(max_examples=40, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES, data=st.data())
def test_permuting_the_samples_permutes_the_priorities(name, advantage, temperature, data):
    order = torch.tensor(data.draw(st.permutations(range(len(advantage)))))
    expected = PRIORITIES[name](advantage, temperature)[order]
    assert PRIORITIES[name](advantage[order], temperature).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize('name', SHIFTLESS)
@settings(max_examples=40, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES, shift=st.integers(-10**6, 10**6))
def test_shifting_all_advantages_changes_nothing(name, advantage, temperature, shift):
    shifted = PRIORITIES[name](advantage + shift, temperature)
    assert shifted.tolist() == pytest.approx(PRIORITIES[name](advantage, temperature).tolist(), rel=1e-5)


def test_shifting_changes_standard():
    """By exp(shift / λ)."""
    shifted = PRIORITIES['standard'](ADVANTAGE + 1, 0.5)
    assert shifted.tolist() == pytest.approx((PRIORITIES['standard'](ADVANTAGE, 0.5) * math.exp(2)).tolist(), rel=1e-5)


@pytest.mark.parametrize('name', ['normal', 'quantile'])
@settings(max_examples=40, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES, scale=st.floats(0.1, 1e3))
def test_scaling_all_advantages_changes_nothing(name, advantage, temperature, scale):
    scaled = PRIORITIES[name](advantage * scale, temperature)
    assert scaled.tolist() == pytest.approx(PRIORITIES[name](advantage, temperature).tolist(), rel=1e-3)


@pytest.mark.parametrize('name', PRIORITIES)
@settings(max_examples=40, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES)
def test_a_better_action_has_no_smaller_priority(name, advantage, temperature):
    priority = PRIORITIES[name](advantage.sort().values, temperature)
    assert (priority.diff() >= 0).all()


@settings(max_examples=40, deadline=None)
@given(advantage=ADVANTAGES, temperature=TEMPERATURES)
def test_aw_has_mean_one(advantage, temperature):
    assert PRIORITIES['aw'](advantage, temperature).mean().item() == pytest.approx(1)


@pytest.mark.parametrize('name', ['normal', 'quantile', 'standard', 'aw'])
@pytest.mark.parametrize('temperature', [0.0, -1.0, float('inf')])
def test_bad_temperature(name, temperature):
    with pytest.raises(ValueError, match=f'temperature is {temperature}; it must be a positive'):
        PRIORITIES[name](torch.arange(3.0), temperature)


def test_options_of_numpy_are_those_of_python():
    advantage = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for name, option in (('quantile', dict(quantile=0.25)), ('odpr', dict(minimum=-0.5))):
        (key, value), function = *option.items(), PRIORITIES[name]
        assert torch.equal(function(advantage, 0.5, **{key: np.float32(value)}), function(advantage, 0.5, **option))

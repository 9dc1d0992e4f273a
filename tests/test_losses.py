"""Policy losses, their convex region and the expectile loss, against numbers computed by hand."""
import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ding_cawr.losses import POLICY_LOSSES, convex_radius, expectile_loss, flat, skew

SIGMA = 0.1353352832366127  # exp(-2): 1/σ = 7.389056, c1 = 109.19630 (flat), 54.598150 (skew)
CONVEX = ('l2', 'l1', 'huber')
ERRORS = st.floats(-1e3, 1e3, width=32)


def slope(name: str, error: torch.Tensor, **constants) -> torch.Tensor:
    """df/de by autograd."""
    error = error.clone().requires_grad_()
    POLICY_LOSSES[name](error, SIGMA, **constants).sum().backward()
    return error.grad


def test_names():
    assert list(POLICY_LOSSES) == ['l2', 'l1', 'huber', 'flat', 'skew']


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize('name, constants, error, value', [
    ('l2', {}, 0.5, 0.25),
    ('l2', {}, -2.0, 4.0),
    ('l2', {}, 1e3, 1e6),
    ('l1', {}, 0.5, 0.5),
    ('l1', {}, -2.0, 2.0),
    ('l1', {}, -1e3, 1e3),
    ('huber', {}, 0.1, 0.01),
    ('huber', {}, 0.2, 0.04),  # the joint
    ('huber', {}, 0.3, 0.08),  # 2 * 0.2 * 0.3 - 0.04
    ('huber', {}, -1.0, 0.36),
    ('huber', {}, 1e3, 399.96),
    ('huber', dict(kappa=3.0), 2.0, 4.0),
    ('huber', dict(kappa=3.0), 5.0, 21.0),
    # log[(1/σ + 0.5) / (1/σ exp(-2 e²/σ²) + 0.5)]; the exponential is 1/e at σ/√2, 1/e² at σ, nothing far away
    ('flat', {}, SIGMA / math.sqrt(2), 0.8966288716212625),
    ('flat', {}, -SIGMA, 1.6600113870114037),
    ('flat', {}, 1.0, 2.7586236756795133),
    ('flat', {}, -1e3, 2.7586236756795133),
    ('flat', dict(c1=1.0, c2=1.0, c3=1.0), 1.0, 0.3798854930417225),  # log[2 / (1/e + 1)]
    ('flat', dict(c1=1.0, c2=2.0, c3=2.0), 1.0, 0.3798854930417225),  # only c2 / c3 matters
    # log[2 / (exp(-k²) + 1/(1 + k))] at e = kσ
    ('skew', {}, SIGMA, 0.8348496471878395),
    ('skew', {}, -2 * SIGMA, 1.7382690195221218),
    ('skew', {}, 1.0, 2.8200751916029176),  # log[2 (1 + 1/σ)]
    ('skew', {}, -1e3, 9.601037785668325),  # log[2 (1 + 1000/σ)]
    ('skew', dict(c1=1.0, c3=1.0), 1.0, 0.8348496471878395),
    ('skew', dict(c2=5.0), SIGMA, 0.8348496471878395),  # c2 changes nothing
])
def test_value(name, constants, error, value, dtype, tolerance):
    loss = POLICY_LOSSES[name](torch.tensor(error, dtype=dtype), SIGMA, **constants)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(value, rel=tolerance)


@pytest.mark.parametrize('name, derivative', [
    ('l2', lambda e: 2 * e),
    ('l1', lambda e: math.copysign(1, e)),
    ('huber', lambda e: 2 * e if abs(e) <= 0.2 else math.copysign(0.4, e)),
    ('flat', lambda e: 2 * 109.19630006628847 * e * math.exp(-109.19630006628847 * e * e) * 7.38905609893065 /
     (7.38905609893065 * math.exp(-109.19630006628847 * e * e) + 0.5)),
    ('skew', lambda e: (2 * 54.598150033144236 * e * math.exp(-54.598150033144236 * e * e) + math.copysign(
        7.38905609893065 / (1 + 7.38905609893065 * abs(e))**2, e)) /
     (math.exp(-54.598150033144236 * e * e) + 1 / (1 + 7.38905609893065 * abs(e)))),
])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_gradient_is_the_closed_form(name, derivative, dtype, tolerance):
    error = torch.cat([torch.linspace(-1.5, 1.5, 200), torch.tensor([-1e3, -0.2, -1e-6, 1e-6, 0.19, 0.21, 1e3])])
    error = error.double()
    expected = [derivative(e) for e in error.tolist()]
    assert slope(name, error.to(dtype)).tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize('name, gradient', [('l2', 2.0), ('l1', 1.0), ('huber', 0.4), ('skew', 0.8807970779778825),
                                            ('flat', 0.0)])
def test_far_gradients(name, gradient):
    """At e = 1; skew's is 7.389056 / 8.389056."""
    assert slope(name, torch.tensor([1.0, -1.0])).tolist() == pytest.approx([gradient, -gradient], rel=1e-6)


@pytest.mark.parametrize('name', ['flat', 'skew'])
def test_a_sigma_that_is_not_a_number_is_named(name):
    with pytest.raises(ValueError, match=rf"policy loss '{name}': sigma is tensor\(0.1300\); it must be a positive"):
        POLICY_LOSSES[name](torch.ones(2), torch.tensor(0.13))


def test_gradients_of_flat_and_skew_vanish():
    """skew's is 7.389056 / (1 + 7.389056 e)."""
    assert slope('flat', torch.tensor([0.5, 10.0, 1e3])).tolist() == pytest.approx([0, 0, 0], abs=1e-8)
    assert slope('skew', torch.tensor([10.0, 100.0])).tolist() == pytest.approx([0.09866472, 0.009986485], rel=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('name', POLICY_LOSSES)
def test_zero_error_costs_nothing_and_pulls_nowhere(name, dtype):
    zero = torch.zeros(3, 2, dtype=dtype)
    assert torch.equal(POLICY_LOSSES[name](zero, SIGMA), zero)
    assert torch.equal(slope(name, zero), zero)


@pytest.mark.parametrize('name', POLICY_LOSSES)
def test_far_errors_stay_finite_in_float32(name):
    error = torch.tensor([-1e3, 1e3, -1e12, 1e18])
    assert torch.isfinite(POLICY_LOSSES[name](error, SIGMA)).all() and torch.isfinite(slope(name, error)).all()


@pytest.mark.parametrize('name, value', [('flat', 1.0227555e-10), ('skew', 3.6945349e-6)])
def test_tiny_errors_are_accurate_in_float32(name, value):
    """At 1e-6: flat is 7.389056 / 7.889056 * 109.1963 e², skew c3/2 |e|; the logarithm of 1 would round both away."""
    assert POLICY_LOSSES[name](torch.tensor(1e-6), SIGMA).item() == pytest.approx(value, rel=1e-5)


def test_extreme_constants_are_accurate_in_float32():
    """log[(1e4 + 1e-4) / 1e-4]: taking the exponential from 1 would leave nothing."""
    assert flat(torch.tensor(1.0), SIGMA, c2=1e4, c3=1e-4).item() == pytest.approx(18.420680754, rel=1e-5)


@pytest.mark.parametrize('name', POLICY_LOSSES)
@settings(max_examples=60, deadline=None)
@given(error=ERRORS, other=ERRORS)
def test_symmetric_and_increasing_in_the_size_of_the_error(name, error, other):
    low, high, mirrored = POLICY_LOSSES[name](
        torch.tensor([min(abs(error), abs(other)), max(abs(error), abs(other)), -max(abs(error), abs(other))]).double(),
        SIGMA
    )
    assert 0 <= low <= high * (1 + 1e-12) and high == mirrored


@pytest.mark.parametrize('name', POLICY_LOSSES)
@settings(max_examples=30, deadline=None)
@given(errors=st.lists(ERRORS, min_size=6, max_size=6))
def test_elementwise(name, errors):
    error = torch.tensor(errors).view(3, 2)
    loss = POLICY_LOSSES[name](error, SIGMA)
    assert loss.shape == error.shape
    alone = [POLICY_LOSSES[name](one, SIGMA).item() for one in error.flatten()]
    assert loss.flatten().tolist() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize('value', [0, -1.0, math.inf, math.nan, True, '0.2'])
@pytest.mark.parametrize('name, constant', [
    ('huber', 'kappa'), ('flat', 'c1'), ('flat', 'c2'), ('flat', 'c3'), ('skew', 'c1'), ('skew', 'c2'), ('skew', 'c3'),
])
def test_bad_constants_are_named(name, constant, value):
    with pytest.raises(ValueError, match=f"'{name}': {constant} is {value!r}; it must be a positive finite number"):
        POLICY_LOSSES[name](torch.zeros(1), SIGMA, **{constant: value})


def test_constants_of_numpy_are_those_of_python():
    error = torch.linspace(-2, 2, 9)
    huber = POLICY_LOSSES['huber']
    assert torch.equal(huber(error, 0.5, kappa=np.float32(0.25)), huber(error, 0.5, kappa=0.25))


@pytest.mark.parametrize('name, constant', [('huber', 'kappa'), ('flat', 'c3')])
def test_constants_without_a_default_from_sigma_must_be_numbers(name, constant):
    with pytest.raises(ValueError, match=f'{constant} is None'):
        POLICY_LOSSES[name](torch.zeros(1), SIGMA, **{constant: None})


def first_concave(loss, sigma: float, until: float, points: int = 20_000) -> float:
    """Brute force: where the second difference of the loss first turns negative."""
    error = torch.linspace(0, until, points, dtype=torch.float64)
    value = loss(error, sigma)
    return error[1:-1][value[2:] - 2 * value[1:-1] + value[:-2] < 0][0].item()


@pytest.mark.parametrize('sigma', [0.01, SIGMA, 0.5, 2.0])
@pytest.mark.parametrize('loss', [
    flat, skew, functools.partial(flat, c1=0.3, c3=4.0), functools.partial(flat, c1=1e4),
    functools.partial(skew, c1=2.0, c3=0.7), functools.partial(skew, c1=500.0, c3=20.0),
])
def test_convex_radius_is_where_second_differences_turn_negative(loss, sigma):
    radius = convex_radius(loss, sigma)
    assert radius == pytest.approx(first_concave(loss, sigma, until=2 * radius), rel=3e-4)


def test_convex_radius_of_the_defaults():
    """flat solves exp(-x) / σ = 0.5 (2x - 1), x = 2 e²/σ²; skew's is a multiple of σ."""
    x = 2 * 0.127134**2 / SIGMA**2
    assert math.exp(-x) / SIGMA == pytest.approx(0.5 * (2 * x - 1), abs=1e-4)
    assert convex_radius(flat, SIGMA) == pytest.approx(0.127134, abs=1e-6)
    assert convex_radius(skew, SIGMA) == pytest.approx(0.144592, abs=1e-6)
    assert convex_radius(skew, 0.5) == pytest.approx(1.068396 * 0.5, abs=1e-5)


@pytest.mark.parametrize('sigma', [0.01, SIGMA, 2.0])
@pytest.mark.parametrize('name', CONVEX)
def test_convex_losses_are_convex_everywhere(name, sigma):
    assert convex_radius(POLICY_LOSSES[name], sigma) == math.inf


def test_convex_radius_is_zero_where_the_loss_is_concave_from_the_start():
    """skew with c3 > √(4/3 c1): 4 c1 - 3 c3² is the sign of f'' beside 0; also √|e|."""
    assert convex_radius(functools.partial(skew, c3=2 / SIGMA), SIGMA) == 0
    assert convex_radius(functools.partial(skew, c3=1.1 / SIGMA), SIGMA) > 0
    assert convex_radius(lambda error, sigma: error.abs().sqrt(), SIGMA) == 0


def test_convex_radius_works_without_gradients():
    with torch.no_grad():
        assert convex_radius(flat, SIGMA) == pytest.approx(0.127134, abs=1e-6)


def test_convex_radius_sees_a_gradient_that_falls_at_once():
    """e² up to 1, then a plateau."""
    assert convex_radius(lambda error, sigma: error.square().clamp(max=1), SIGMA) == pytest.approx(1, rel=1e-5)


def test_expectile_loss():
    # |0.7 - 1{u<0}| u²: 0.7 * 4 above, 0.3 * 4 below.
    assert expectile_loss(torch.tensor([2.0, -2.0, 0.0]), 0.7).tolist() == pytest.approx([2.8, 1.2, 0.0])


@settings(max_examples=60, deadline=None)
@given(errors=st.lists(ERRORS, min_size=1, max_size=5), expectile=st.floats(0.01, 0.99))
def test_expectile_loss_is_its_closed_form(errors, expectile):
    error = torch.tensor(errors, dtype=torch.float64, requires_grad=True)
    loss = expectile_loss(error, expectile)
    loss.sum().backward()
    factors = [expectile if e >= 0 else 1 - expectile for e in errors]
    assert loss.tolist() == pytest.approx([factor * e * e for factor, e in zip(factors, errors)])
    assert error.grad.tolist() == pytest.approx([2 * factor * e for factor, e in zip(factors, errors)])


def test_expectile_of_one_half_is_half_the_square():
    error = torch.tensor([-3.0, 0.5])
    assert torch.equal(expectile_loss(error, 0.5), error.square() / 2)

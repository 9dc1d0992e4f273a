"""Policy losses and the expectile loss against numbers computed by hand."""
import pytest
import torch

from ding_cawr.losses import POLICY_LOSSES, expectile_loss

SIGMA = 0.1353352832366127


@pytest.mark.parametrize('name, error, value, gradient', [
    ('l2', 0.5, 0.25, 1.0),
    ('l2', -2.0, 4.0, -4.0),
    ('l1', 0.5, 0.5, 1.0),
    ('l1', -2.0, 2.0, -1.0),
])
def test_value_and_gradient(name, error, value, gradient):
    error = torch.tensor(error, requires_grad=True)
    loss = POLICY_LOSSES[name](error, SIGMA)
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert error.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize('name', POLICY_LOSSES)
def test_zero_error_costs_nothing_and_shape_is_kept(name):
    assert torch.equal(POLICY_LOSSES[name](torch.zeros(3, 2), SIGMA), torch.zeros(3, 2))


@pytest.mark.parametrize('name', POLICY_LOSSES)
def test_far_errors_stay_finite_in_float32(name):
    error = torch.tensor([-1e3, 1e3], requires_grad=True)
    loss = POLICY_LOSSES[name](error, SIGMA)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(error.grad).all()


def test_expectile_loss():
    # |0.7 - 1{u<0}| u²: 0.7 * 4 above, 0.3 * 4 below.
    assert expectile_loss(torch.tensor([2.0, -2.0, 0.0]), 0.7).tolist() == pytest.approx([2.8, 1.2, 0.0])

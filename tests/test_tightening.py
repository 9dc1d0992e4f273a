"""A loss that is convex only near 0: how wide it starts, and how it is tightened."""
import functools
import math

import pytest
import torch

from ding_cawr.losses import POLICY_LOSSES, convex_radius
from ding_cawr.tightening import Tightening, TighteningSettings

SIGMA = math.exp(-2)
FLAT, SKEW = POLICY_LOSSES['flat'], POLICY_LOSSES['skew']
ERROR = torch.tensor([[0.1, -2.0], [-0.4, 0.8], [0.2, 1.2]])  # half of |e| is 0.4 or less, the next is 0.8


def tightening(convex_share: float = 0.5, iterations: int = 4, loss=FLAT) -> Tightening:
    return Tightening(TighteningSettings(convex_share, iterations), loss, SIGMA)


@pytest.mark.parametrize('loss', [FLAT, SKEW])
def test_the_first_errors_set_the_width_and_it_shrinks_to_one_geometrically(loss):
    """k0 = 0.8 / r, then k0 ** (3/4), k0 ** (1/2), k0 ** (1/4), 1, 1; later errors have no say."""
    tight = tightening(loss=loss)
    first = 0.8 / convex_radius(loss, SIGMA)
    assert tight.width == 1
    widths = [float(tight.step(ERROR * (1 if i == 0 else 100))) for i in range(7)]
    assert widths == pytest.approx([first, first**0.75, first**0.5, first**0.25, 1, 1, 1])
    assert widths[4:] == [1, 1, 1] and widths[0] > 4


def test_the_width_is_never_below_one():
    tight = tightening()
    assert [float(tight.step(ERROR / 100)) for _ in range(6)] == [1] * 6


def test_no_gradient_flows_through_the_width():
    assert not tightening().step(ERROR.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize('share', [0.5, 0.8, 0.95])
@pytest.mark.parametrize('loss', [FLAT, SKEW])
def test_the_share_of_the_errors_starts_where_the_scaled_loss_is_convex(share, loss):
    """Convex between neighbours of f(e / k), so by the slope and not by the radius."""
    error = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
    width = tightening(share, 1000, loss).step(error).item()
    points = error.double().abs().flatten().requires_grad_()
    slope = torch.autograd.grad(loss(points / width, SIGMA).sum(), points)[0]
    further = torch.autograd.grad(loss(points * 1.0001 / width, SIGMA).sum(), points)[0] / 1.0001
    assert (further > slope).double().mean().item() == pytest.approx(share, abs=1 / len(points))


def test_convex_share_is_that_of_the_width_in_use():
    """r k is 0.8 at first, which holds 4 of these 6, and r, which holds one, in the end."""
    tight = tightening()
    assert tight.convex_share(ERROR).item() == pytest.approx(1 / 6)  # 0.1 < r = 0.127 < 0.2
    tight.step(ERROR)
    assert tight.radius * tight.width.item() == pytest.approx(0.8)
    assert tight.convex_share(1.001 * ERROR).item() == pytest.approx(3 / 6)
    assert tight.convex_share(0.999 * ERROR).item() == pytest.approx(4 / 6)
    for _ in range(4):
        tight.step(ERROR)
    assert tight.width == 1 and tight.convex_share(ERROR).item() == pytest.approx(1 / 6)


@pytest.mark.parametrize('done', [0, 1, 3, 6])
def test_state_continues_exactly(done, tmp_path):
    tight, other = tightening(), tightening()
    for _ in range(done):
        tight.step(ERROR)
    torch.save(tight.state_dict(), tmp_path / 'state')
    other.load_state_dict(torch.load(tmp_path / 'state', weights_only=True))
    for _ in range(5):
        assert float(tight.step(100 * ERROR)) == float(other.step(100 * ERROR))


@pytest.mark.parametrize('loss', ['l1', 'l2', 'huber'])
def test_losses_that_are_convex_everywhere_are_refused(loss):
    with pytest.raises(ValueError, match='learn.tightening is set, but the policy loss is convex everywhere'):
        tightening(loss=POLICY_LOSSES[loss])


def test_a_loss_that_is_convex_nowhere_is_refused():
    """No width, however large, would put an error where it is convex."""
    with pytest.raises(ValueError, match='learn.tightening is set, but the policy loss is convex nowhere'):
        tightening(loss=functools.partial(SKEW, c1=1.0))

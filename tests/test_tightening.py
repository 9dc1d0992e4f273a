"""A loss that is convex only near 0: how wide it starts, and how it is tightened."""
import functools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ding_cawr.algorithms.base import copy_tree, map_tree
from ding_cawr.algorithms.cawr.settings import Tighten
from ding_cawr.algorithms.cawr.tightening import Tightening
from ding_cawr.losses import POLICY_LOSSES, convex_radius

SIGMA = math.exp(-2)
FLAT, SKEW = POLICY_LOSSES['flat'], POLICY_LOSSES['skew']
ERROR = torch.tensor([[0.1, -2.0], [-0.4, 0.8], [0.2, 1.2]])  # half of |e| is 0.4 or less, the next is 0.8


def tightening(convex_share: float = 0.5, iterations: int = 4, loss=FLAT, **options) -> Tightening:
    return Tightening(Tighten(convex_share, iterations), loss, SIGMA, **options)


def state_of(tight: Tightening, replica: int = 0) -> dict:
    return map_tree(torch.clone, tight.tree(replica))


def load(tight: Tightening, state: dict, replica: int = 0) -> None:
    copy_tree(state, tight.tree(replica))
    tight.resumed()


def at(iteration: int) -> torch.Tensor:
    return torch.tensor(float(iteration), dtype=torch.float64)


START = at(0)


@pytest.mark.parametrize('loss', [FLAT, SKEW])
def test_the_first_errors_set_the_width_and_it_shrinks_to_one_geometrically(loss):
    """k0 = 0.8 / r, then k0 ** (3/4), k0 ** (1/2), k0 ** (1/4), 1, 1; later errors have no say."""
    tight = tightening(loss=loss)
    first = 0.8 / convex_radius(loss, SIGMA)
    assert tight.width == 1
    widths = [float(tight.step(ERROR * (1 if i == 0 else 100), at(i))) for i in range(7)]
    assert widths == pytest.approx([first, first**0.75, first**0.5, first**0.25, 1, 1, 1])
    assert widths[4:] == [1, 1, 1] and widths[0] > 4


def test_the_width_is_never_below_one():
    tight = tightening()
    assert [float(tight.step(ERROR / 100, at(i))) for i in range(6)] == [1] * 6


def test_no_gradient_flows_through_the_width():
    assert not tightening().step(ERROR.clone().requires_grad_(), START).requires_grad


@pytest.mark.parametrize('share', [0.5, 0.8, 0.95])
@pytest.mark.parametrize('loss', [FLAT, SKEW])
def test_the_share_of_the_errors_starts_where_the_scaled_loss_is_convex(share, loss):
    """Convex between neighbours of f(e / k), so by the slope and not by the radius."""
    error = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
    width = tightening(share, 1000, loss).step(error, START).item()
    points = error.double().abs().flatten().requires_grad_()
    slope = torch.autograd.grad(loss(points / width, SIGMA).sum(), points)[0]
    further = torch.autograd.grad(loss(points * 1.0001 / width, SIGMA).sum(), points)[0] / 1.0001
    assert (further > slope).double().mean().item() == pytest.approx(share, abs=1 / len(points))


def test_convex_share_is_that_of_the_width_in_use():
    """r k is 0.8 at first, which holds 4 of these 6, and r, which holds one, in the end."""
    tight = tightening()
    assert tight.convex_share(ERROR).mean().item() == pytest.approx(1 / 6)  # 0.1 < r = 0.127 < 0.2
    tight.step(ERROR, START)
    assert tight.radius * tight.width.item() == pytest.approx(0.8)
    assert tight.convex_share(1.001 * ERROR).mean().item() == pytest.approx(3 / 6)
    assert tight.convex_share(0.999 * ERROR).mean().item() == pytest.approx(4 / 6)
    tight.step(ERROR, at(4))
    assert tight.width == 1 and tight.convex_share(ERROR).mean().item() == pytest.approx(1 / 6)


@pytest.mark.parametrize('done', [0, 1, 3, 6])
def test_state_continues_exactly(done, tmp_path):
    tight, other = tightening(), tightening()
    for i in range(done):
        tight.step(ERROR, at(i))
    torch.save(state_of(tight), tmp_path / 'state')
    load(other, torch.load(tmp_path / 'state', weights_only=True))
    for i in range(done, done + 5):
        assert float(tight.step(100 * ERROR, at(i))) == float(other.step(100 * ERROR, at(i)))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_replicas_are_runs_of_their_own(dtype):
    scales = torch.tensor([0.01, 1.0, 10.0], dtype=dtype).view(3, 1, 1)
    error = scales * torch.randn(3, 64, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    together, alone = tightening(replica_shape=(3, ), dtype=dtype), [tightening(dtype=dtype) for _ in range(3)]
    for i in range(6):
        width = together.step(error, at(i))
        assert width.shape == (3, 1, 1) and width.dtype == (error / width).dtype == dtype
        for r, run in enumerate(alone):
            wanted = run.step(error[r], at(i))
            assert wanted.shape == (1, 1)
            torch.testing.assert_close(width[r], wanted)
        shares = [run.convex_share(rows).mean().item() for run, rows in zip(alone, error)]
        assert together.convex_share(error).mean(dim=-1).tolist() == pytest.approx(shares)
        assert len(set(shares)) > 1 or i == 0
    copied = tightening(replica_shape=(3, ), dtype=dtype)
    for r, run in enumerate(alone):
        assert torch.equal(state_of(together, r)['first_width'], state_of(run)['first_width'])
        load(copied, state_of(together, r), r)
    assert torch.equal(copied.step(error, at(2)), together.step(error, at(2)))


@pytest.mark.parametrize('lead', [(), (2, )])
def test_the_state_stays_where_it_is(lead):
    """A CUDA graph replays a step on the memory on which it was recorded."""
    tight, error = tightening(replica_shape=lead), ERROR.expand(*lead, 3, 2)
    none = state_of(tight)
    where = [tensor.data_ptr() for tensor in tight.tensors()]
    tight.step(error, START)
    state = state_of(tight)
    tight.step(error, at(1))
    load(tight, none)
    width = tight.step(10 * error, at(2))
    load(tight, state)
    assert not torch.equal(tight.step(error, at(2)), torch.ones_like(width))
    assert [tensor.data_ptr() for tensor in tight.tensors()] == where and width.data_ptr() in where


class Operations(TorchDispatchMode):
    """Names of the operations that torch was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_a_step_launches_few_operations_and_waits_for_none():
    tight, iteration = tightening(), at(1)
    tight.step(ERROR, START)
    with Operations() as operations:
        tight.step(ERROR, iteration)
    assert len(operations.names) <= 5
    assert not {'_local_scalar_dense', 'equal', 'lift_fresh'} & set(operations.names)


@pytest.mark.parametrize('loss', ['l1', 'l2', 'huber'])
def test_losses_that_are_convex_everywhere_are_refused(loss):
    with pytest.raises(ValueError, match='learn.tightening is set, but the policy loss is convex everywhere'):
        tightening(loss=POLICY_LOSSES[loss])


def test_a_loss_that_is_convex_nowhere_is_refused():
    """No width, however large, would put an error where it is convex."""
    with pytest.raises(ValueError, match='learn.tightening is set, but the policy loss is convex nowhere'):
        tightening(loss=functools.partial(SKEW, c1=1.0))

"""Temperature and trust, and the weights and priorities that they give."""
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ding_cawr.advantage import effective_sample_size
from ding_cawr.algorithms.base import copy_tree, map_tree
from ding_cawr.algorithms.cawr.settings import WEIGHTINGS, CAWRSettings, Trust
from ding_cawr.algorithms.selection import FIRST_TEMPERATURE, TEMPERATURE_RANGE, Selection
from ding_cawr.priority import PRIORITIES

LEARN = dict(
    temperature=0.5, trust='full', max_weight=100.0, min_priority=1e-6, normalize_advantage=True,
    weighting='per_sample', priority='normal'
)
ADVANTAGE = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
Z = (ADVANTAGE - 3) / math.sqrt(14 / 3)  # by hand: squares 4, 1, 0, 9 over n - 1 = 3


def selection(replica_shape: tuple = (), **changes) -> Selection:
    """Of settings as a user writes them, but for ``exponent`` and ``effective_share``, and None for uniform draws."""
    if 'effective_share' in changes:
        changes['temperature'] = dict(type='auto', effective_share=changes.pop('effective_share'))
    priority = changes.pop('priority', 'normal') or 'none'
    options = priority if isinstance(priority, dict) else dict(type=priority)
    changes['priority'] = dict(options, exponent=changes.pop('exponent', 1.0))
    return Selection(CAWRSettings.read({**LEARN, **changes}), replica_shape=replica_shape)


def state_of(selected: Selection, replica: int = 0) -> dict:
    return map_tree(torch.clone, selected.tree(replica))


def load(selected: Selection, state: dict, iteration: torch.Tensor, replica: int = 0) -> None:
    copy_tree(state, selected.tree(replica))
    selected.resumed(iteration)


def at(iteration: int) -> torch.Tensor:
    return torch.tensor(float(iteration), dtype=torch.float64)


START = at(0)  # full trust does not ask further


def same_state(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def linear(iterations: int, start: int = 0) -> dict:
    return dict(type='linear', iterations=iterations, start=start)


@pytest.mark.parametrize('iteration, trust', [(0, 0), (50, 0), (75, 0.25), (100, 0.5), (150, 1), (151, 1), (10**6, 1)])
def test_linear_trust(iteration, trust):
    assert Trust(iterations=100, start=50)(at(iteration)).item() == trust


def test_weights_and_priorities_are_the_formula_at_the_trusted_temperature():
    """exp(c z / λ), with c = 0, 1/4, 1/2, 3/4, 1, 1 in six iterations."""
    selected = selection(trust=linear(iterations=4))
    for iteration, trust in enumerate((0, 0.25, 0.5, 0.75, 1, 1)):
        weight, priority = selected.step(ADVANTAGE, at(iteration))
        assert selected.trust.item() == trust
        torch.testing.assert_close(weight, (trust * Z / 0.5).exp(), rtol=1e-5, atol=0)
        torch.testing.assert_close(priority, weight, rtol=1e-12, atol=0)
    assert selected.temperature.item() == 0.5


def test_odpr_has_no_temperature_so_trust_is_a_power():
    selected = selection(trust=linear(iterations=4), priority='odpr', weighting='none')
    for iteration, trust in enumerate((0, 0.25, 0.5, 0.75, 1, 1)):
        priority = selected.step(ADVANTAGE, at(iteration)).priority
        expected = torch.tensor([0.0, 1, 2, 5], dtype=torch.float64)**trust
        torch.testing.assert_close(priority, expected.clamp(min=1e-6))


def test_looking_moves_nothing():
    selected = selection(trust=linear(iterations=4), priority='odpr')
    before = state_of(selected)
    selected.select(ADVANTAGE - 1)
    selected.measured_share(ADVANTAGE - 9, 2)
    assert same_state(before, state_of(selected))


@pytest.mark.parametrize('priority', ['normal', 'quantile', 'standard', 'aw', 'odpr'])
@pytest.mark.parametrize('normalize', [True, False])
def test_no_trust_is_behaviour_cloning_on_uniform_draws(priority, normalize):
    selected = selection(trust=linear(10), priority=priority, normalize_advantage=normalize)
    assert selected.trust.item() == 0
    for values in selected.step(ADVANTAGE.float(), START):
        assert torch.equal(values, torch.ones(4))


def test_weights_and_priorities_are_clipped():
    selected = selection(max_weight=2.0, min_priority=0.5, temperature=0.1).select(ADVANTAGE)
    assert selected.weight.max() == pytest.approx(2) and selected.weight.min() < 0.5
    assert selected.priority.tolist() == [0.5, 0.5, 1, 2]
    odpr = selection(priority='odpr', min_priority=0.5, max_weight=4.0).step(ADVANTAGE, START)
    assert odpr.priority.tolist() == [0.5, 1, 2, 4]


def test_odpr_counts_from_the_least_advantage_seen():
    selected = selection(priority='odpr')
    assert selected.step(ADVANTAGE, START).priority.tolist() == [1e-6, 1, 2, 5]
    selected.step(ADVANTAGE - 7, START)  # -6 is seen
    other = selection(priority='odpr')
    load(other, state_of(selected), START)
    for each in (selected, other):
        assert each.step(ADVANTAGE, START).priority.tolist() == [7, 8, 9, 12]
        assert each.select(ADVANTAGE + 1).priority.tolist() == [8, 9, 10, 13]
    fixed = selection(priority=dict(type='odpr', minimum=-2.0))
    fixed.step(ADVANTAGE - 50, START)
    assert fixed.step(ADVANTAGE, START).priority.tolist() == [3, 4, 5, 8]
    seen_by_fit = selection(priority='odpr')
    seen_by_fit.fit(ADVANTAGE - 7)
    assert seen_by_fit.select(ADVANTAGE).priority.tolist() == [7, 8, 9, 12]


def test_fit_counts_odpr_from_the_least_advantage():
    advantage = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    settings = dict(temperature=dict(type='auto', effective_share=0.15), weighting='per_sample', priority='odpr')
    selected = selection(**settings)
    weight, priority = selected.fit(advantage)
    strength = weight * priority
    assert (strength.sum()**2 / strength.square().sum() / 2000).item() == pytest.approx(0.15, abs=1e-3)


def test_weightings():
    weight = (Z / 0.5).exp()
    for weighting, expected in (('per_sample', weight), ('batch_mean', weight), ('none', torch.ones_like(weight))):
        torch.testing.assert_close(selection(weighting=weighting).select(ADVANTAGE).weight, expected)
    plain = selection(normalize_advantage=False, priority=None, max_weight=1e9).select(ADVANTAGE)
    torch.testing.assert_close(plain.weight, (ADVANTAGE / 0.5).exp())
    assert plain.priority is None


@pytest.mark.parametrize('changes, power', [
    (dict(), 2), (dict(exponent=0.6), 1.6), (dict(priority=None), 1), (dict(weighting='none'), 1),
    (dict(weighting='batch_mean', exponent=0.6), 0.6), (dict(weighting='none', priority=None), 0),
])
def test_measured_share_is_that_of_weight_times_priority_to_the_exponent(changes, power):
    """(Σs)² / (3 Σs²) of s = exp(power z / λ) over the first three, normalized over all four."""
    s = (power * Z[:3] / 0.5).exp()
    share = selection(**changes).measured_share(ADVANTAGE, 3)
    assert share.item() == pytest.approx((s.sum()**2 / (3 * (s**2).sum())).item())
    torch.testing.assert_close(share, effective_sample_size(s))


def test_vanished_weights_have_the_least_share():
    share = selection(normalize_advantage=False, priority=None).measured_share(torch.full((8, ), -1e4), 4)
    assert share.item() == 1 / 4


def in_pairs(firsts: Sequence, seconds: Sequence, *others: Sequence) -> list[tuple]:
    """Combine every first with every second, and go on through each of the others along both.

    Every two values of any two come together in the combinations below.
    """
    return [
        (first, second, *(values[(i + j) % len(values)] for values in others))
        for i, first in enumerate(firsts) for j, second in enumerate(seconds)
    ]


AMOUNTS = {
    'per_sample, uniform draws': dict(priority=None),
    'normal priority': dict(weighting='none'),
    'normal priority ** 0.6': dict(weighting='none', exponent=0.6),
    'per_sample and normal priority': dict(),
}
AMOUNT = pytest.mark.parametrize('amount', AMOUNTS.values(), ids=AMOUNTS.keys())


def advantages(kind: str, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=generator)
    return {
        'normal': normal,
        'large': 1e6 * normal + 1e6,
        'small': 1e-6 * normal,
        'bounded above': torch.rand(count, generator=generator).log(),  # most a little above the mean, few far below
        'heavy tails': normal / torch.randn(3, count, generator=generator).square().mean(dim=0).sqrt(),  # Student, 3
    }[kind]


def train(selected: Selection, whole: torch.Tensor, iterations: int, n: int = 256) -> float:
    """Draws as in training, D2 by the priorities stored so far; the share of all rows, normalized as batches are."""
    generator = torch.Generator().manual_seed(1)
    stored = torch.ones(len(whole), dtype=torch.float64)
    for _ in range(iterations):
        uniform = torch.randint(len(whole), (n, ), generator=generator)
        drawn = torch.multinomial(stored, n, replacement=True, generator=generator)
        rows = torch.cat([uniform, drawn])
        weight, priority = selected.step(whole[rows], START)
        assert weight.isfinite().all() and selected.temperature.isfinite()
        if priority is not None:
            assert priority.isfinite().all()
            stored[rows] = priority.double()**selected.settings.exponent
    drawn = torch.multinomial(stored, len(whole), replacement=True, generator=generator)
    return selected.measured_share(torch.cat([whole, whole[drawn]]), len(whole)).item()


@pytest.mark.parametrize('kind, target, amount', [
    *(('normal', 0.5, amount) for amount in AMOUNTS.values()), ('normal', 0.3, AMOUNTS['per_sample, uniform draws']),
    ('normal', 0.8, AMOUNTS['normal priority']), ('large', 0.5, AMOUNTS['normal priority ** 0.6']),
    ('small', 0.5, AMOUNTS['per_sample and normal priority']), ('bounded above', 0.5, AMOUNTS['normal priority']),
    ('bounded above', 0.8, AMOUNTS['per_sample, uniform draws']),
])
def test_auto_temperature_reaches_the_effective_share(amount, kind, target):
    selected = selection(effective_share=target, **amount)
    assert train(selected, advantages(kind, 10_000), 1500) == pytest.approx(target, abs=0.05)


def test_auto_temperature_with_heavy_tails():
    """The share of the dataset, its weights normalized in batches as in training."""
    selected, whole = selection(effective_share=0.5, priority=None), advantages('heavy tails', 100_000)
    for batch in whole.split(1024) * 20:
        selected.step(batch, START)
    weight = torch.cat([selected.select(batch).weight for batch in whole.split(1024)])
    assert effective_sample_size(weight).item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize('before', ['bounded above', 'constant'])
def test_auto_temperature_finds_back_from_where_clipping_rules(before):
    selected = selection(effective_share=0.3, priority=None)
    whole = torch.ones(1000) if before == 'constant' else advantages(before, 10_000)
    train(selected, whole, 1500)
    assert train(selected, advantages('normal', 10_000), 3000) == pytest.approx(0.3, abs=0.05)


@AMOUNT
def test_auto_temperature_follows_the_distribution(amount):
    selected = selection(effective_share=0.5, **amount)
    train(selected, advantages('normal', 10_000), 1500)
    temperature = selected.temperature.item()
    assert train(selected, advantages('bounded above', 10_000), 2000) == pytest.approx(0.5, abs=0.05)
    assert selected.temperature.item() < temperature / 2
    assert train(selected, 1e3 * advantages('normal', 10_000), 2000) == pytest.approx(0.5, abs=0.05)
    assert selected.temperature.item() == pytest.approx(temperature, rel=0.05)


def test_auto_temperature_does_not_depend_on_trust():
    """Trust divides the λ that the share asks for at full trust."""
    trusted, learning = (selection(effective_share=0.5, trust=trust) for trust in ('full', linear(400)))
    for seed in range(101):
        trusted.step(advantages('normal', 512, seed), at(seed))
        learning.step(advantages('normal', 512, seed), at(seed))
    assert learning.temperature.item() == trusted.temperature.item() and learning.trust.item() == 0.25
    weights = (each.select(ADVANTAGE).weight for each in (trusted, learning))
    torch.testing.assert_close(next(weights)**0.25, next(weights))


@AMOUNT
@pytest.mark.parametrize('value', [0.0, 0.1, -3.3, 1e5])
def test_constant_advantages_leave_everything_finite(amount, value):
    """0.1 and -3.3 leave a rounding error as the standard deviation."""
    selected, constant = selection(effective_share=0.3, **amount), torch.full((1024, ), value)
    for _ in range(600):
        weight, priority = selected.step(constant, START)
        for values in (weight, selected.temperature, torch.ones(1) if priority is None else priority):
            assert values.isfinite().all()
    assert all(values.isfinite().all() for values in selection(effective_share=0.3, **amount).fit(constant)[:1])


def test_plain_advantages_far_below_zero_leave_the_temperature_finite():
    """exp(A/λ) of every sample is 0 in float32 until λ has risen."""
    selected = selection(effective_share=0.5, priority=None, normalize_advantage=False)
    whole = 10 * advantages('normal', 10_000) - 300
    assert train(selected, whole, 2000) == pytest.approx(0.5, abs=0.05)
    fitted = selection(effective_share=0.5, priority=None, normalize_advantage=False)
    fitted.fit(whole)
    assert fitted.measured_share(whole, 10_000).item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize('kind, amount, max_weight', in_pairs(
    ['normal', 'heavy tails', 'large', 'small', 'bounded above'], list(AMOUNTS.values()), [100.0, 1e4]
))
def test_fit_finds_the_temperature_of_the_whole_dataset(amount, max_weight, kind):
    whole = advantages(kind, 10_000)
    for target in (0.5, 0.8) if kind == 'bounded above' else (0.35, 0.5, 0.8):
        selected = selection(effective_share=target, max_weight=max_weight, **amount)
        weight, priority = selected.fit(whole)
        assert selected.measured_share(whole, 10_000).item() == pytest.approx(target, abs=0.01)
        assert torch.equal(weight, selected.select(whole).weight)
        assert priority is None or torch.equal(priority, selected.select(whole).priority)


def test_fit_takes_the_nearest_where_clipping_keeps_the_share_above():
    """Of rows bounded above, bounds of 3 leave no λ with a share of 0.2."""
    whole = advantages('bounded above', 10_000)
    selected = selection(effective_share=0.2, max_weight=3.0, priority=None)
    selected.fit(whole)
    share = selected.measured_share(whole, 10_000).item()
    others = [selection(temperature=t, max_weight=3.0, priority=None) for t in torch.logspace(-3, 3, 50).tolist()]
    assert 0.2 < share < min(other.measured_share(whole, 10_000).item() for other in others) + 0.01


def test_fit_keeps_a_temperature_that_is_given():
    selected = selection()
    torch.testing.assert_close(selected.fit(ADVANTAGE).weight, (Z / 0.5).exp())
    assert selected.temperature.item() == 0.5


def test_state_continues_exactly():
    def fresh():
        return selection(effective_share=0.4, trust=linear(40), priority='odpr')

    selected, other = fresh(), fresh()
    for seed in range(20):
        selected.step(advantages('normal', 64, seed), at(seed))
    load(other, state_of(selected), at(20))
    assert other.trust.item() == 20 / 40
    for seed in range(20, 40):
        advantage = advantages('normal', 64, seed)
        for got, wanted in zip(other.step(advantage, at(seed)), selected.step(advantage, at(seed))):
            assert torch.equal(got, wanted)
    assert same_state(state_of(other), state_of(selected)) and other.trust.item() == pytest.approx(39 / 40)
    assert other.temperature.item() not in (1.0, *TEMPERATURE_RANGE)


def test_a_state_is_a_copy_and_a_temperature_that_is_given_stays():
    selected = selection(effective_share=0.4)
    before = state_of(selected)
    selected.step(ADVANTAGE, START)
    assert not same_state(before, state_of(selected))
    given = selection(temperature=0.7)
    load(given, before, START)
    assert before['temperature'].item() == FIRST_TEMPERATURE and given.temperature.item() == 0.7


def test_a_step_selects_at_the_temperature_that_the_step_before_left():
    """λ times (target / share of exp(2 z / λ) over the uniform half) ** 0.01 after each; the first batch fills the
    running means, of which the second then is a fiftieth."""
    selected = selection(effective_share=0.9)
    temperature, moments = FIRST_TEMPERATURE, None
    for advantage in (ADVANTAGE, 5 * ADVANTAGE.flip(0)):
        weight, priority = selected.step(advantage, START)
        z = (advantage - advantage.mean()) / advantage.std()
        for values in (weight, priority):
            torch.testing.assert_close(values, (z / temperature).exp())
        strength = (2 * z[:2] / temperature).exp()
        latest = torch.stack([strength.mean(), strength.square().mean()])
        moments = latest if moments is None else 0.98 * moments + 0.02 * latest
        share = (moments[0]**2 / moments[1]).item()
        temperature *= (0.9 / share)**0.01
        assert selected.temperature.item() == pytest.approx(temperature, rel=1e-9)
        assert selected.share(ADVANTAGE).item() == pytest.approx(share, rel=1e-9)


def test_where_nothing_depends_on_the_temperature_there_is_nothing_to_adapt():
    selected = selection(effective_share=0.5, priority=None, weighting='batch_mean')
    selected.step(ADVANTAGE, START)
    assert selected.temperature.item() == 1


SCALES = torch.tensor([[0.1], [1.0], [30.0]], dtype=torch.float64)  # of the advantages of three replicas


def each(state: dict, replica: int) -> dict:
    return {name: tensor[..., replica, :] for name, tensor in state.items()}


@pytest.mark.parametrize('priority, changes, weighting, trust', in_pairs(
    list(PRIORITIES), [dict(effective_share=0.6), dict(effective_share=0.6, exponent=0.6), dict()],
    list(WEIGHTINGS), ['full', linear(20)],
))
def test_replicas_are_runs_of_their_own(changes, trust, weighting, priority):
    changes = dict(changes, trust=trust, weighting=weighting, priority=priority)
    together, alone = selection(replica_shape=(3, ), **changes), [selection(**changes) for _ in range(3)]
    for iteration in range(30):
        advantage = SCALES * advantages('normal', 3 * 32, iteration).double().view(3, 32)
        found = together.step(advantage, at(iteration))
        for r, run in enumerate(alone):
            for got, wanted in zip(found, run.step(advantage[r], at(iteration))):
                assert (got is None) == (wanted is None)
                if got is not None:
                    assert got.shape == (3, 32) and wanted.shape == (32, )
                    torch.testing.assert_close(got[r], wanted, rtol=1e-9, atol=0)
    for r, run in enumerate(alone):
        torch.testing.assert_close(state_of(together, r), state_of(run), rtol=1e-9, atol=0)
        for got, wanted in zip(together.select(advantage), run.select(advantage[r])):
            assert got is None or torch.allclose(got[r], wanted, rtol=1e-9, atol=0)
    for got, wanted in (
        (together.temperature, [run.temperature for run in alone]),
        (together.share(advantage), [run.share(row) for run, row in zip(alone, advantage)]),
    ):
        assert got.tolist() == pytest.approx([scalar.item() for scalar in wanted], rel=1e-9)
    shares = [run.measured_share(row, 20).item() for run, row in zip(alone, advantage)]
    assert together.measured_share(advantage, 20).tolist() == pytest.approx(shares, rel=1e-9)


def test_a_replicas_state_is_a_runs():
    changes = dict(effective_share=0.6, priority='odpr', trust=linear(20))
    together, copied = (selection(replica_shape=(2, ), **changes) for _ in range(2))
    alone = selection(**changes)
    batches = [SCALES[:2] * advantages('normal', 64, seed).double().view(2, 32) for seed in range(20)]
    for iteration in range(10):
        together.step(batches[iteration], at(iteration))
    for r in range(2):
        load(copied, state_of(together, r), at(10), r)
    load(alone, state_of(together, 1), at(10))
    for iteration in range(10, 20):
        weight, priority = together.step(batches[iteration], at(iteration))
        assert torch.equal(copied.step(batches[iteration], at(iteration)).weight, weight)
        torch.testing.assert_close(alone.step(batches[iteration][1], at(iteration)).priority, priority[1])


@pytest.mark.parametrize('priority, weighting, dtype, changes', in_pairs(
    list(PRIORITIES), list(WEIGHTINGS), [torch.float32, torch.float64],
    [dict(effective_share=0.6, trust=linear(20))] * 2 + [dict()] * 2,
))
def test_weights_and_priorities_have_the_precision_of_the_advantages(changes, dtype, weighting, priority):
    changes = dict(changes, weighting=weighting, priority=priority)
    for lead in ((), (2, )):
        selected, advantage = selection(replica_shape=lead, **changes), ADVANTAGE.to(dtype).expand(*lead, 4)
        for weight, found in (selected.step(advantage, at(10)), selected.select(advantage)):
            assert weight.dtype == dtype and (found is None or found.dtype == dtype)


@pytest.mark.parametrize('lead', [(), (2, )])
def test_the_state_stays_where_it_is(lead):
    """A CUDA graph replays a step on the memory on which it was recorded."""
    selected = selection(replica_shape=lead, effective_share=0.6, priority='odpr', trust=linear(20))
    state = state_of(selected)
    where = [tensor.data_ptr() for tensor in selected.tensors()]
    before = [tensor.clone() for tensor in selected.tensors()]
    for iteration in range(3):
        selected.step(ADVANTAGE.expand(*lead, 4), at(iteration))
    assert not any(torch.equal(tensor, old) for tensor, old in zip(selected.tensors(), before))
    load(selected, state, START)
    selected.renew(ADVANTAGE.expand(*lead, 4))
    assert [tensor.data_ptr() for tensor in selected.tensors()] == where


class Operations(TorchDispatchMode):
    """Names of the operations that torch was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('changes, most', [
    (dict(effective_share=0.8, trust=linear(1000), weighting='none'), 43),
    (dict(effective_share=0.8, weighting='none'), 38),
    (dict(effective_share=0.8, trust=linear(1000)), 52),
    (dict(), 19),
    (dict(weighting='none'), 11),
    (dict(priority=None), 10),
])
def test_a_step_launches_few_operations_and_waits_for_none(changes, most):
    selected = selection(replica_shape=(3, ), **changes)
    advantage, iteration = advantages('normal', 3 * 64).view(3, 64), at(7)
    selected.step(advantage, iteration)
    with Operations() as operations:
        selected.step(advantage, iteration)
    assert len(operations.names) <= most
    # A scalar read, a comparison on the host, a number of results that depends on values, Python data copied over.
    assert not {'_local_scalar_dense', 'equal', 'nonzero', 'masked_select', 'lift_fresh'} & set(operations.names)


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=30), st.sampled_from(list(PRIORITIES)),
    st.floats(0.01, 100), st.booleans()
)
@settings(deadline=None, max_examples=150)
def test_any_advantages_give_finite_weights_and_priorities_within_bounds(values, priority, temperature, normalize):
    advantage = torch.tensor(values + values)
    changes = dict(priority=priority, normalize_advantage=normalize, min_priority=1e-3)
    for selected in (selection(temperature=temperature, **changes), selection(effective_share=0.5, **changes)):
        weight, found = selected.step(advantage, START)
        assert weight.isfinite().all() and 0 <= weight.min() and weight.max() <= 100
        assert (found is None) == (priority == 'none')
        assert found is None or 1e-3 * 0.9999 <= found.min() and found.max() <= 100
        assert 0 < selected.measured_share(advantage, len(values)).item() <= 1 + 1e-9

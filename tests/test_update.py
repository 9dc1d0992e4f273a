"""One iteration against the formulas written out one by one, and the per-sample rule."""
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ding_cawr.advantage import advantage_weight, effective_sample_size
from ding_cawr.algorithms.base import Step
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.settings import WEIGHTINGS, CAWRSettings
from ding_cawr.algorithms.cawr.update import CAWR, Frozen
from ding_cawr.data.buffer import Sample, join_columns
from ding_cawr.data.table import Table
from ding_cawr.losses import POLICY_LOSSES, convex_radius
from ding_cawr.priority import PRIORITIES

OBS, ACT, N = 5, 2, 16
LEARN = dict(
    learning_rate_q=1e-2, learning_rate_value=2e-2, learning_rate_policy=3e-2, discount_factor=0.9, target_theta=0.1,
    expectile=0.7, policy_loss='l1', temperature=0.5, trust='full', max_weight=10.0, min_priority=1e-3,
    weighting='per_sample', priority='normal'
)
SETTINGS = CAWRSettings.read(LEARN)


def batch(seed: int, n: int = N) -> Table:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return join_columns({
        'obs': normal(n, OBS), 'action': normal(n, ACT).tanh(), 'reward': normal(n), 'next_obs': normal(n, OBS),
        'done': normal(n) > 1
    })


#: The policy is trained alone.
FROZEN = dict(pretrained_critics='given by the test')


def make_update(**changes) -> CAWR:
    torch.manual_seed(0)
    model = CAWRModel(OBS, ACT, hidden_sizes=(32, 32)).double()
    for parameter in model.parameters():  # last layers start near zero; the test wants advantages that differ
        torch.nn.init.normal_(parameter, std=0.3)
    update = CAWR(model, CAWRSettings.read({**LEARN, **changes}))
    with torch.no_grad():  # a target that is not the critic
        for parameter in target_of(update).parameters():
            parameter.mul_(0.9)
    return update


def target_of(update: CAWR) -> torch.nn.Module:
    return update.networks.target_critics[0]


def stepped(update: CAWR, d1: Table, d2: Table) -> Step:
    """One iteration on these batches."""
    return update.step({'uniform': Sample(None, d1), 'prioritized': Sample(None, d2)})


def policy_stepped(update: CAWR, data: Table, weight: torch.Tensor) -> Step:
    """One iteration of the policy alone, of an update with frozen critics that give these rows these weights."""
    update.frozen = Frozen(update.quantities(data), weight, 1.0)
    return update.step({'prioritized': Sample(torch.arange(len(data)), data)})


def metrics_of(update: CAWR, step: Step) -> dict[str, float]:
    return {name: tensor.item() for name, tensor in update.metrics(step).items()}


def tensors_of(step: Step) -> list[torch.Tensor]:
    return [*step.losses.values(), *step.per_sample.values(), *([] if step.priority is None else [step.priority])]


def flat(module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def q_head(critic, head: int, obs, action):
    """One head of the twin Q, layer by layer."""
    x = torch.cat([obs, action], dim=1)
    linears = [layer for layer in critic.net if hasattr(layer, 'weight')]
    for i, layer in enumerate(linears):
        x = x @ layer.weight[head] + layer.bias[head]
        x = x.relu() if i < len(linears) - 1 else x
    return x[:, 0]


def flat_loss(e, sigma):
    c1, c2, c3 = 2 / sigma**2, 1 / sigma, 0.5
    return -(c2 * (-c1 * e**2).exp() + c3).log() + math.log(c2 + c3)


def skew_loss(e, sigma):
    c1, c2, c3 = 1 / sigma**2, 1 / sigma, 1 / sigma
    return -(c2 * ((-c1 * e**2).exp() + 1 / (c3 * e.abs() + 1))).log() + math.log(2 * c2)


LOSS_FORMULAS = {
    'l2': lambda e, sigma: e**2,
    'l1': lambda e, sigma: e.abs(),
    'huber': lambda e, sigma: torch.where(e.abs() <= 0.2, e**2, 0.4 * e.abs() - 0.04),
    'flat': flat_loss,
    'skew': skew_loss,
}


def reference_losses(update: CAWR, d1: Table, d2: Table, policy_loss_name: str = 'l1'):
    """Section by section, per sample, from the formulas (paper, Sec. 4; order of the released code)."""
    model, target = update.model, target_of(update)
    s = update.settings
    value_loss = critic_loss = policy_loss = 0
    advantages = []
    for data in (d1, d2):
        q = torch.minimum(*(q_head(target, head, data['obs'], data['action']) for head in (0, 1)))
        advantages.append((q - model.value(data['obs'])).detach())
    advantage = torch.cat(advantages)
    z = (advantage - advantage.mean()) / (advantage.std() + 1e-8) if s.normalize_advantage else advantage
    weights = torch.minimum((z / s.temperature).exp(), torch.tensor(s.max_weight, dtype=z.dtype))
    weights = torch.ones_like(weights) if s.weighting == 'none' else weights
    factors = weights[N:].mean().expand(N) if s.weighting == 'batch_mean' else weights[N:]
    for i in range(N):
        obs, action = d1['obs'][i:i + 1], d1['action'][i:i + 1]
        q_target = min(q_head(target, head, obs, action) for head in (0, 1)).detach()
        u = q_target - model.value(obs)
        value_loss = value_loss + (s.expectile if u >= 0 else 1 - s.expectile) * u**2 / N
        goal = d1['reward'][i] + s.discount_factor * (0 if d1['done'][i] else 1) * model.value(d1['next_obs'][i:i + 1])
        for head in (0, 1):
            critic_loss = critic_loss + (q_head(model.critic, head, obs, action) - goal.detach())**2 / N
        error = d2['action'][i] - model.policy(d2['obs'][i:i + 1])[0]
        f = LOSS_FORMULAS[policy_loss_name](error, model.sigma)
        policy_loss = policy_loss + factors[i] / (2 * model.sigma**2) * f.sum() / N
    return value_loss, critic_loss, policy_loss, advantage, weights


def test_losses_equal_the_formulas():
    update = make_update()
    expected = reference_losses(update, batch(1), batch(2))
    step = stepped(update, batch(1), batch(2))
    for got, want in zip((step.losses['value_loss'], step.losses['critic_loss'], step.losses['policy_loss']), expected):
        assert got.item() == pytest.approx(want.item(), rel=1e-10)
    torch.testing.assert_close(step.per_sample['advantage'], expected[3], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(step.per_sample['weight'], expected[4][N:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('weighting, policy_loss, normalize', [
    (weighting, policy_loss, (i + j) % 2 == 0)
    for i, weighting in enumerate(WEIGHTINGS) for j, policy_loss in enumerate(LOSS_FORMULAS)
])
def test_two_iterations_equal_separate_updates(weighting, policy_loss, normalize):
    """Each network moved by an Adam of its own on its own loss, then the target; twice. Parameters, weights and
    priorities are those of the formulas."""
    changes = dict(weighting=weighting, policy_loss=policy_loss, normalize_advantage=normalize)
    update, other = make_update(**changes), make_update(**changes)
    parts = {'value': SETTINGS.learning_rate_value, 'critic': SETTINGS.learning_rate_q,
             'policy': SETTINGS.learning_rate_policy}
    optimizers = {
        name: torch.optim.Adam(getattr(other.model, name).parameters(), lr=rate) for name, rate in parts.items()
    }
    for seed in (1, 3):
        step = stepped(update, batch(seed), batch(seed + 1))
        *losses, advantage, weights = reference_losses(other, batch(seed), batch(seed + 1), policy_loss)
        priority = ((advantage - advantage.mean()) / (SETTINGS.temperature * advantage.std())).exp()
        torch.testing.assert_close(step.per_sample['advantage'], advantage)
        torch.testing.assert_close(step.per_sample['weight'], weights[N:])
        torch.testing.assert_close(step.priority, priority.clamp(1e-3, 10.0), rtol=1e-6, atol=0)
        losses = dict(zip(parts, losses))
        gradients = {
            name: torch.autograd.grad(loss.sum(), list(getattr(other.model, name).parameters()))
            for name, loss in losses.items()
        }
        for name, optimizer in optimizers.items():
            for parameter, gradient in zip(getattr(other.model, name).parameters(), gradients[name]):
                parameter.grad = gradient
            optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target_of(other).parameters(), other.model.critic.parameters()):
                slow += SETTINGS.target_theta * (fast - slow)
    for module in ('value', 'critic', 'policy'):
        torch.testing.assert_close(flat(getattr(update.model, module)), flat(getattr(other.model, module)))
    torch.testing.assert_close(flat(target_of(update)), flat(target_of(other)))


def policy_gradient(update: CAWR, data: Table, weight: torch.Tensor, row: int) -> torch.Tensor:
    """Gradient of the whole policy loss to the mean action of one row (A,)."""
    mean = update.model.policy(data['obs']).detach().requires_grad_()
    update.policy_loss(data['action'] - mean, weight).backward()
    return mean.grad[row]


def test_one_samples_weight_changes_that_samples_gradient_alone():
    data, weight = batch(5), torch.ones(N, dtype=torch.float64)
    heavier = weight.clone()
    heavier[3] = 7.0
    for row in range(N):
        before = policy_gradient(make_update(), data, weight, row)
        after = policy_gradient(make_update(), data, heavier, row)
        torch.testing.assert_close(after, before * (7.0 if row == 3 else 1.0))


def test_batch_mean_gives_every_sample_the_mean_weight():
    data = batch(5)
    weight = torch.arange(N, dtype=torch.float64)
    mean = torch.full_like(weight, weight.mean().item())
    for row in (0, N - 1):
        lost = policy_gradient(make_update(weighting='batch_mean'), data, weight, row)
        torch.testing.assert_close(lost, policy_gradient(make_update(), data, mean, row))


def test_weighting_none_is_behaviour_cloning():
    step = stepped(make_update(weighting='none'), batch(1), batch(2))
    assert torch.equal(step.per_sample['weight'], torch.ones(N, dtype=torch.float64))


def test_iql_weights_are_plain():
    update = make_update(normalize_advantage=False)
    step = stepped(update, batch(1), batch(2))
    expected = advantage_weight(step.per_sample['advantage'], 0.5, 10.0, normalize=False)[N:]
    torch.testing.assert_close(step.per_sample['weight'], expected)


def test_cosine_schedule_ends_at_zero():
    update = make_update(cosine_iterations=10)
    rates = []
    for _ in range(10):
        rates.append(update.policy_rate.item())
        stepped(update, batch(1), batch(2))
    assert rates[0] == pytest.approx(3e-2) and rates[5] == pytest.approx(1.5e-2)
    for _ in range(5):  # and stays there
        assert update.policy_rate.item() == pytest.approx(0, abs=1e-12)
        stepped(update, batch(1), batch(2))


@pytest.mark.parametrize('first, then, rate', [(4, None, 3e-2), (None, 4, 1.5e-2), (4, 2, 0)])
def test_a_state_brings_no_learning_rate_along(first, then, rate):
    """The rate follows the configuration of the run that continues."""
    update, other = make_update(cosine_iterations=first), make_update(cosine_iterations=then)
    for _ in range(2):
        stepped(update, batch(1), batch(2))
    state = update.state_dict()
    other.load_state_dict(state, 2)
    assert float(other.policy_rate) == pytest.approx(rate, abs=1e-9)
    stepped(other, batch(1), batch(2))
    assert [other.optimizer.rates[name] for name in ('critic', 'value')] == [1e-2, 2e-2]
    assert state['optimizer']['policy']['step'] == 2


def test_metrics_are_the_steps_own_numbers():
    update = make_update(max_weight=1.5)
    step = stepped(update, batch(1), batch(2))
    metrics = metrics_of(update, step)
    assert metrics['advantage_max'] == step.per_sample['advantage'].max().item()
    assert metrics['weight_clipped_share'] == (step.per_sample['weight'] == 1.5).double().mean().item() > 0
    assert metrics['total_loss'] == pytest.approx(
        metrics['value_loss'] + metrics['critic_loss'] + metrics['policy_loss']
    )


@pytest.mark.parametrize('name', PRIORITIES)
def test_priorities_are_those_of_the_table_clipped(name):
    update = make_update(priority=name)
    seen = []
    for seed in (1, 3):
        step = stepped(update, batch(seed), batch(seed + 1))
        seen.append(step.per_sample['advantage'].min())
        options = {'minimum': min(seen)} if name == 'odpr' else {}
        expected = PRIORITIES[name](step.per_sample['advantage'], 0.5, **options).clamp(1e-3, 10.0)
        assert step.priority is None if name == 'none' else torch.equal(step.priority, expected)


@given(
    st.integers(2, 40), st.integers(0, 99), st.sampled_from(list(POLICY_LOSSES)), st.sampled_from(WEIGHTINGS),
    st.sampled_from([name for name in PRIORITIES if name != 'none'])
)
@settings(deadline=None, max_examples=60)
def test_the_order_of_the_rows_does_not_matter(n, seed, policy_loss, weighting, priority):
    """Batches of any size from 2; what there is per sample moves with its row, everything else stays."""
    changes = dict(policy_loss=policy_loss, weighting=weighting, priority=priority)
    d1, d2 = batch(seed, n), batch(seed + 100, n)
    p1, p2 = (torch.randperm(n, generator=torch.Generator().manual_seed(seed + i)) for i in (0, 1))
    update, other = make_update(**changes), make_update(**changes)
    step, moved = stepped(update, d1, d2), stepped(other, Table(d1.rows[p1], OBS), Table(d2.rows[p2], OBS))
    both = torch.cat([p1, n + p2])
    rows_of = dict(q_value=both, value=both, advantage=both, weight=p2, convex_share=p2)
    pairs = [(moved.per_sample[name], before, rows_of[name]) for name, before in step.per_sample.items()]
    for got, before, rows in [*pairs, (moved.priority, step.priority, both)]:
        torch.testing.assert_close(got, before[rows], rtol=1e-8, atol=1e-10)
    for name in ('value_loss', 'critic_loss', 'policy_loss'):
        assert moved.losses[name].item() == pytest.approx(step.losses[name].item(), rel=1e-9)
    torch.testing.assert_close(flat(target_of(other)), flat(target_of(update)), rtol=1e-6, atol=1e-8)


@given(st.floats(-1e3, 1e3), st.integers(0, 99), st.sampled_from(['normal', 'quantile']))
@settings(deadline=None, max_examples=40)
def test_normalized_weights_ignore_a_constant_in_the_advantage(shift, seed, priority):
    update, shifted = (make_update(priority=priority) for _ in range(2))
    with torch.no_grad():
        shifted.model.value.net[-1].bias += shift
    step, after = stepped(update, batch(seed), batch(seed + 100)), stepped(shifted, batch(seed), batch(seed + 100))
    torch.testing.assert_close(after.per_sample['advantage'], step.per_sample['advantage'] - shift)
    torch.testing.assert_close(after.per_sample['weight'], step.per_sample['weight'], rtol=1e-9, atol=0)
    torch.testing.assert_close(after.priority, step.priority, rtol=1e-9, atol=0)


def test_plain_weights_heed_a_constant_in_the_advantage():
    update, shifted = (make_update(normalize_advantage=False, max_weight=1e9) for _ in range(2))
    with torch.no_grad():
        shifted.model.value.net[-1].bias += 0.5
    step, after = stepped(update, batch(1), batch(2)), stepped(shifted, batch(1), batch(2))
    torch.testing.assert_close(after.per_sample['weight'], step.per_sample['weight'] * math.exp(-1))  # 0.5 / λ = 1
    torch.testing.assert_close(after.priority, step.priority)


@pytest.mark.parametrize('chunk', [1, 3, 8, 16, 17])
def test_estimate_equals_the_networks_in_chunks_of_any_size(chunk, monkeypatch):
    monkeypatch.setattr('ding_cawr.algorithms.cawr.networks.CHUNK', chunk)
    update, data = make_update(), batch(1)
    estimate = update.estimate(data)
    q = torch.minimum(*(q_head(target_of(update), head, data['obs'], data['action']) for head in (0, 1)))
    torch.testing.assert_close(estimate.q_value, q)
    torch.testing.assert_close(estimate.value, update.model.value(data['obs']))
    torch.testing.assert_close(estimate.advantage, q - update.model.value(data['obs']))
    assert not estimate.q_value.requires_grad and not estimate.value.requires_grad


def test_policy_step_moves_the_policy_alone_by_one_adam_step():
    """Adam's first step is lr g / (|g| + 1e-8)."""
    update, weight = make_update(policy_loss='l2', **FROZEN), torch.arange(N, dtype=torch.float64)
    data, estimate, parameters = batch(2), update.estimate(batch(2)), list(update.model.policy.parameters())
    loss = sum(weight[i] * (data['action'][i] - update.model.policy(data['obs'])[i]).square().sum() for i in range(N))
    loss = loss / N / (2 * update.model.sigma**2)
    expected = [
        p.detach() - SETTINGS.learning_rate_policy * g / (g.abs() + 1e-8)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters))
    ]
    before = update.state_dict()
    step = policy_stepped(update, data, weight)
    torch.testing.assert_close([p.detach() for p in parameters], expected)
    assert step.losses['policy_loss'].item() == pytest.approx(loss.item())
    assert (step.losses['value_loss'], step.losses['critic_loss'], step.priority) == (0, 0, None)
    assert torch.equal(step.per_sample['advantage'], estimate.advantage)
    assert torch.equal(step.per_sample['weight'], weight)
    after = update.state_dict()
    for name, tensor in after['model'].items():
        assert torch.equal(tensor, before['model'][name]) is not name.startswith('policy.'), name
    for part in ('target_critic', 'selection'):
        assert all(torch.equal(tensor, before[part][name]) for name, tensor in after[part].items())
    for name in ('critic', 'value'):
        assert not after['optimizer'][name]['exp_avg'].any()


@pytest.mark.parametrize('loss', ['l1', 'l2'])
def test_without_advantages_the_policy_alone_clones_uniform_draws(loss):
    """Every row counts alike, in a step that is that of weights of 1, and the log says nothing of advantages."""
    weighted = make_update(policy_loss=loss, weighting='none', priority='none', **FROZEN)
    update = make_update(policy_loss=loss, weighting='none', priority='none', advantage='none')
    assert update.draw_kinds == ('uniform', )
    data, before = batch(2), update.state_dict()
    wanted = policy_stepped(weighted, data, torch.ones(N, dtype=torch.float64))
    step = update.step({'uniform': Sample(torch.arange(N), data)})
    assert step.losses == {'policy_loss': wanted.losses['policy_loss']} and step.priority is None
    assert torch.equal(flat(update.model.policy), flat(weighted.model.policy))
    after = update.state_dict()
    for name, tensor in after['model'].items():
        assert torch.equal(tensor, before['model'][name]) is not name.startswith('policy.'), name
    names = CAWR.metric_names(update.settings)
    assert set(names) == set(metrics_of(update, step)) == {'cur_lr_policy', 'total_loss', 'policy_loss'}


def test_policy_step_follows_the_cosine_schedule():
    update = make_update(cosine_iterations=2, **FROZEN)
    for rate in (3e-2, 1.5e-2, 0):
        assert update.policy_rate.item() == pytest.approx(rate, rel=1e-6, abs=1e-12)
        policy_stepped(update, batch(2), torch.ones(N, dtype=torch.float64))


def test_a_schedule_that_ends_before_the_run_is_told():
    ends_at_2 = make_update(cosine_iterations=2).settings
    with pytest.warns(UserWarning, match='cosine_iterations is 2, but the run ends at iteration 3.* set it to 3'):
        CAWR.check_length(ends_at_2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        CAWR.check_length(ends_at_2, 2)
        CAWR.check_length(make_update().settings, 10)


def test_frozen_critics_are_those_of_the_state_and_the_policy_stays():
    update, other = make_update(), make_update()
    for seed in (1, 3):
        stepped(other, batch(seed), batch(seed + 1))
    policy = flat(update.model.policy)
    update.load_critics(other.state_dict(), 'other')
    for got, taken in ((update.model.critic, other.model.critic), (update.model.value, other.model.value),
                       (target_of(update), target_of(other))):
        assert torch.equal(flat(got), flat(taken))
    assert torch.equal(flat(update.model.policy), policy) and not torch.equal(policy, flat(other.model.policy))
    assert torch.equal(update.estimate(batch(1)).advantage, other.estimate(batch(1)).advantage)


def test_tightening_widens_the_loss_until_it_ends():
    """f(e / k), k from the first errors: 90 % of them lie where f(e / k) is convex. After three iterations it is f."""
    d1, d2 = batch(1), batch(2)
    update = make_update(policy_loss='flat', tightening=dict(convex_share=0.9, iterations=3))
    sigma = update.model.sigma
    radius, first = convex_radius(POLICY_LOSSES['flat'], sigma), None
    for iteration in range(5):
        error = (d2['action'] - update.model.policy(d2['obs'])).detach()
        first = error.abs().flatten().quantile(0.9, interpolation='higher') / radius if first is None else first
        assert first > 2
        step = stepped(update, d1, d2)
        width = first**max(0, 1 - iteration / 3)
        expected = (step.per_sample['weight'] * flat_loss(error / width, sigma).sum(dim=1)).mean() / (2 * sigma**2)
        assert step.losses['policy_loss'].item() == pytest.approx(expected.item())
        share = (error.abs() <= radius * width * (1 + 1e-12)).double().mean(dim=1)
        assert torch.equal(step.per_sample['convex_share'], share)
        assert iteration > 0 or share.mean() >= 0.9
        metrics = metrics_of(update, step)
        assert metrics['loss_width'] == pytest.approx(width.item()) and 0 <= metrics['convex_share'] <= 1
    assert metrics['loss_width'] == 1


def test_metrics_show_trust_and_temperature():
    update = make_update(trust=dict(type='linear', start=0, iterations=4))
    stepped(update, batch(1), batch(2))
    for trust in (0.25, 0.5, 0.75, 1, 1):
        step = stepped(update, batch(1), batch(2))
        metrics = metrics_of(update, step)
        assert metrics['trust'] == trust and metrics['temperature'] == 0.5
    strength = advantage_weight(step.per_sample['advantage'], 0.5, 10.0) * step.priority
    assert metrics['selection_effective_share'] == pytest.approx(effective_sample_size(strength[:N]).item())

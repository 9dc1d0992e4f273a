"""One iteration against the formulas written out one by one, and the per-sample rule."""
import copy
import dataclasses
import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ding_cawr.advantage import advantage_weight, effective_sample_size
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.selection import TRUSTS, WEIGHTINGS, SelectionSettings
from ding_cawr.algorithms.cawr.tightening import TighteningSettings
from ding_cawr.algorithms.cawr.update import Update, UpdateSettings
from ding_cawr.losses import POLICY_LOSSES, convex_radius
from ding_cawr.priority import PRIORITIES

OBS, ACT, N = 5, 2, 16
SETTINGS = UpdateSettings(
    learning_rate_q=1e-2, learning_rate_value=2e-2, learning_rate_policy=3e-2, discount_factor=0.9, target_theta=0.1,
    expectile=0.7, policy_loss=POLICY_LOSSES['l1'], tightening=None, cosine_iterations=None,
    selection=SelectionSettings(
        temperature=0.5, effective_share=None, trust=TRUSTS['full'], max_weight=10.0, min_priority=1e-3,
        normalize_advantage=True, weighting='per_sample', priority=PRIORITIES['normal'], exponent=1.0
    )
)


def batch(seed: int, n: int = N) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        'obs': normal(n, OBS), 'action': normal(n, ACT).tanh(), 'reward': normal(n), 'next_obs': normal(n, OBS),
        'done': normal(n) > 1
    }


def make_update(**changes) -> Update:
    torch.manual_seed(0)
    model = CAWRModel(OBS, ACT, hidden_sizes=(32, 32)).double()
    for parameter in model.parameters():  # last layers start near zero; the test wants advantages that differ
        torch.nn.init.normal_(parameter, std=0.3)
    selection = {key: changes.pop(key) for key in list(changes) if hasattr(SETTINGS.selection, key)}
    selection = dataclasses.replace(SETTINGS.selection, **selection)
    update = Update(model, dataclasses.replace(SETTINGS, selection=selection, **changes))
    with torch.no_grad():  # a target that is not the critic
        for parameter in update.target_critic.parameters():
            parameter.mul_(0.9)
    return update


def tensors_of(step) -> list[torch.Tensor]:
    return [*step.judgement, *(value for value in step if isinstance(value, torch.Tensor))]


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


def reference_losses(update: Update, d1: dict, d2: dict, policy_loss_name: str = 'l1'):
    """Section by section, per sample, from the formulas (paper, Sec. 4; order of the released code)."""
    model, target = update.model, update.target_critic
    s, selection = update.settings, update.settings.selection
    value_loss = critic_loss = policy_loss = 0
    advantages = []
    for data in (d1, d2):
        q = torch.minimum(*(q_head(target, head, data['obs'], data['action']) for head in (0, 1)))
        advantages.append((q - model.value(data['obs'])).detach())
    advantage = torch.cat(advantages)
    z = (advantage - advantage.mean()) / (advantage.std() + 1e-8) if selection.normalize_advantage else advantage
    weights = torch.minimum((z / selection.temperature).exp(), torch.tensor(selection.max_weight, dtype=z.dtype))
    weights = torch.ones_like(weights) if selection.weighting == 'none' else weights
    factors = weights[N:].mean().expand(N) if selection.weighting == 'batch_mean' else weights[N:]
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
    step = update.step(batch(1), batch(2))
    for got, want in zip((step.value_loss, step.critic_loss, step.policy_loss), expected):
        assert got.item() == pytest.approx(want.item(), rel=1e-10)
    torch.testing.assert_close(step.advantage, expected[3], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(step.weight, expected[4][N:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('weighting, policy_loss, normalize', [
    (weighting, policy_loss, (i + j) % 2 == 0)
    for i, weighting in enumerate(WEIGHTINGS) for j, policy_loss in enumerate(LOSS_FORMULAS)
])
def test_two_iterations_equal_separate_updates(weighting, policy_loss, normalize):
    """Each network moved by an Adam of its own on its own loss, then the target; twice. Parameters, weights and
    priorities are those of the formulas."""
    changes = dict(weighting=weighting, policy_loss=POLICY_LOSSES[policy_loss], normalize_advantage=normalize)
    update, other = make_update(**changes), make_update(**changes)
    parts = {'value': SETTINGS.learning_rate_value, 'critic': SETTINGS.learning_rate_q,
             'policy': SETTINGS.learning_rate_policy}
    optimizers = {
        name: torch.optim.Adam(getattr(other.model, name).parameters(), lr=rate) for name, rate in parts.items()
    }
    for seed in (1, 3):
        step = update.step(batch(seed), batch(seed + 1))
        *losses, advantage, weights = reference_losses(other, batch(seed), batch(seed + 1), policy_loss)
        priority = ((advantage - advantage.mean()) / (SETTINGS.selection.temperature * advantage.std())).exp()
        torch.testing.assert_close(step.advantage, advantage)
        torch.testing.assert_close(step.weight, weights[N:])
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
            for slow, fast in zip(other.target_critic.parameters(), other.model.critic.parameters()):
                slow += SETTINGS.target_theta * (fast - slow)
    for module in ('value', 'critic', 'policy'):
        torch.testing.assert_close(flat(getattr(update.model, module)), flat(getattr(other.model, module)))
    torch.testing.assert_close(flat(update.target_critic), flat(other.target_critic))


def policy_gradient(update: Update, data: dict, weight: torch.Tensor, row: int) -> torch.Tensor:
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
    step = make_update(weighting='none').step(batch(1), batch(2))
    assert torch.equal(step.weight, torch.ones(N, dtype=torch.float64))


def test_iql_weights_are_plain():
    update = make_update(normalize_advantage=False)
    step = update.step(batch(1), batch(2))
    torch.testing.assert_close(step.weight, advantage_weight(step.advantage, 0.5, 10.0, normalize=False)[N:])


def test_cosine_schedule_ends_at_zero():
    update = make_update(cosine_iterations=10)
    rates = []
    for _ in range(10):
        rates.append(update.policy_rate.item())
        update.step(batch(1), batch(2))
    assert rates[0] == pytest.approx(3e-2) and rates[5] == pytest.approx(1.5e-2)
    for _ in range(5):  # and stays there
        assert update.policy_rate.item() == pytest.approx(0, abs=1e-12)
        update.step(batch(1), batch(2))


@pytest.mark.parametrize('changes', [
    dict(cosine_iterations=10),
    dict(policy_loss=POLICY_LOSSES['flat'], tightening=TighteningSettings(0.9, 10)),
    dict(temperature=None, effective_share=0.5, trust=functools.partial(TRUSTS['linear'], iterations=3)),
    dict(priority=PRIORITIES['odpr']),
])
def test_state_continues_exactly(changes):
    update = make_update(**changes)
    update.step(batch(1), batch(2))
    model, state = copy.deepcopy(update.model.state_dict()), copy.deepcopy(update.state_dict())
    step = update.step(batch(3), batch(4))
    other = make_update(**changes)
    other.model.load_state_dict(model)
    other.load_state_dict(state)
    for got, wanted in zip(tensors_of(other.step(batch(3), batch(4))), tensors_of(step)):
        assert torch.equal(got, wanted)
    for name, tensor in update.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    assert torch.equal(flat(update.target_critic), flat(other.target_critic))


@pytest.mark.parametrize('first, then, rate', [(4, None, 3e-2), (None, 4, 1.5e-2), (4, 2, 0)])
def test_a_state_brings_no_learning_rate_along(first, then, rate):
    """The rate follows the configuration of the run that continues."""
    update, other = make_update(cosine_iterations=first), make_update(cosine_iterations=then)
    for _ in range(2):
        update.step(batch(1), batch(2))
    state = update.state_dict()
    other.load_state_dict(state)
    assert float(other.policy_rate) == pytest.approx(rate, abs=1e-9)
    other.step(batch(1), batch(2))
    assert [group['lr'] for group in other.optimizer.param_groups[1:]] == [1e-2, 2e-2]
    assert state['optimizer']['policy']['step'] == 2


def test_metrics_are_the_steps_own_numbers():
    update = make_update(max_weight=1.5)
    step = update.step(batch(1), batch(2))
    metrics = update.metrics(step)
    assert metrics['advantage_max'] == step.advantage.max().item()
    assert metrics['weight_clipped_share'] == (step.weight == 1.5).double().mean().item() > 0
    assert metrics['total_loss'] == pytest.approx(
        metrics['value_loss'] + metrics['critic_loss'] + metrics['policy_loss']
    )


@pytest.mark.parametrize('name', PRIORITIES)
def test_priorities_are_those_of_the_table_clipped(name):
    update = make_update(priority=None if name == 'none' else PRIORITIES[name])
    seen = []
    for seed in (1, 3):
        step = update.step(batch(seed), batch(seed + 1))
        seen.append(step.advantage.min())
        options = {'minimum': min(seen)} if name == 'odpr' else {}
        expected = PRIORITIES[name](step.advantage, 0.5, **options).clamp(1e-3, 10.0)
        assert step.priority is None if name == 'none' else torch.equal(step.priority, expected)


@given(
    st.integers(2, 40), st.integers(0, 99), st.sampled_from(list(POLICY_LOSSES)), st.sampled_from(WEIGHTINGS),
    st.sampled_from([name for name in PRIORITIES if name != 'none'])
)
@settings(deadline=None, max_examples=60)
def test_the_order_of_the_rows_does_not_matter(n, seed, policy_loss, weighting, priority):
    """Batches of any size from 2; what there is per sample moves with its row, everything else stays."""
    changes = dict(policy_loss=POLICY_LOSSES[policy_loss], weighting=weighting, priority=PRIORITIES[priority])
    d1, d2 = batch(seed, n), batch(seed + 100, n)
    p1, p2 = (torch.randperm(n, generator=torch.Generator().manual_seed(seed + i)) for i in (0, 1))
    update, other = make_update(**changes), make_update(**changes)
    step = update.step(d1, d2)
    moved = other.step({key: d1[key][p1] for key in d1}, {key: d2[key][p2] for key in d2})
    both = torch.cat([p1, n + p2])
    for got, before, rows in ((moved.judgement.q_value, step.judgement.q_value, both), (moved.weight, step.weight, p2),
                              (moved.judgement.value, step.judgement.value, both), (moved.error, step.error, p2),
                              (moved.priority, step.priority, both)):
        torch.testing.assert_close(got, before[rows], rtol=1e-8, atol=1e-10)
    for name in ('value_loss', 'critic_loss', 'policy_loss'):
        assert getattr(moved, name).item() == pytest.approx(getattr(step, name).item(), rel=1e-9)
    torch.testing.assert_close(flat(other.target_critic), flat(update.target_critic), rtol=1e-6, atol=1e-8)


@given(st.floats(-1e3, 1e3), st.integers(0, 99), st.sampled_from(['normal', 'quantile']))
@settings(deadline=None, max_examples=40)
def test_normalized_weights_ignore_a_constant_in_the_advantage(shift, seed, priority):
    update, shifted = (make_update(priority=PRIORITIES[priority]) for _ in range(2))
    with torch.no_grad():
        shifted.model.value.net[-1].bias += shift
    step, after = update.step(batch(seed), batch(seed + 100)), shifted.step(batch(seed), batch(seed + 100))
    torch.testing.assert_close(after.advantage, step.advantage - shift)
    torch.testing.assert_close(after.weight, step.weight, rtol=1e-9, atol=0)
    torch.testing.assert_close(after.priority, step.priority, rtol=1e-9, atol=0)


def test_plain_weights_heed_a_constant_in_the_advantage():
    update, shifted = (make_update(normalize_advantage=False, max_weight=1e9) for _ in range(2))
    with torch.no_grad():
        shifted.model.value.net[-1].bias += 0.5
    step, after = update.step(batch(1), batch(2)), shifted.step(batch(1), batch(2))
    torch.testing.assert_close(after.weight, step.weight * math.exp(-1))  # 0.5 / λ = 1
    torch.testing.assert_close(after.priority, step.priority)


@pytest.mark.parametrize('chunk', [1, 3, 8, 16, 17])
def test_judge_equals_the_networks_in_chunks_of_any_size(chunk, monkeypatch):
    monkeypatch.setattr('ding_cawr.algorithms.cawr.update.CHUNK', chunk)
    update, data = make_update(), batch(1)
    judgement = update.judge(data)
    q = torch.minimum(*(q_head(update.target_critic, head, data['obs'], data['action']) for head in (0, 1)))
    torch.testing.assert_close(judgement.q_value, q)
    torch.testing.assert_close(judgement.value, update.model.value(data['obs']))
    torch.testing.assert_close(judgement.advantage, q - update.model.value(data['obs']))
    assert not judgement.q_value.requires_grad and not judgement.value.requires_grad


def test_policy_step_moves_the_policy_alone_by_one_adam_step():
    """Adam's first step is lr g / (|g| + 1e-8)."""
    update, weight = make_update(policy_loss=POLICY_LOSSES['l2']), torch.arange(N, dtype=torch.float64)
    data, judgement, parameters = batch(2), update.judge(batch(2)), list(update.model.policy.parameters())
    loss = sum(weight[i] * (data['action'][i] - update.model.policy(data['obs'])[i]).square().sum() for i in range(N))
    loss = loss / N / (2 * update.model.sigma**2)
    expected = [
        p.detach() - SETTINGS.learning_rate_policy * g / (g.abs() + 1e-8)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters))
    ]
    before = copy.deepcopy((update.model.state_dict(), update.state_dict()))
    step = update.policy_step(data, judgement, weight)
    torch.testing.assert_close([p.detach() for p in parameters], expected)
    assert step.policy_loss.item() == pytest.approx(loss.item())
    assert (step.value_loss, step.critic_loss, step.priority) == (0, 0, None)
    assert torch.equal(step.advantage, judgement.advantage) and torch.equal(step.weight, weight)
    for name, tensor in update.model.state_dict().items():
        assert torch.equal(tensor, before[0][name]) is not name.startswith('policy.'), name
    after = update.state_dict()
    assert all(torch.equal(tensor, before[1]['target_critic'][name]) for name, tensor in after['target_critic'].items())
    for name, value in after['selection'].items():
        assert torch.equal(value, before[1]['selection'][name])
    for name in ('critic', 'value'):
        moments = update.optimizer.state[update.networks.parameters[name]]
        assert not moments or not moments['exp_avg'].any()


def test_policy_step_follows_the_cosine_schedule():
    update = make_update(cosine_iterations=2)
    for rate in (3e-2, 1.5e-2, 0):
        assert update.policy_rate.item() == pytest.approx(rate, rel=1e-6, abs=1e-12)
        update.policy_step(batch(2), update.judge(batch(2)), torch.ones(N, dtype=torch.float64))


def test_load_critics_takes_critics_and_leaves_the_policy():
    update, other = make_update(), make_update()
    for seed in (1, 3):
        other.step(batch(seed), batch(seed + 1))
    policy = flat(update.model.policy)
    update.load_critics({'model': other.model.state_dict(), **other.state_dict()})
    for got, taken in ((update.model.critic, other.model.critic), (update.model.value, other.model.value),
                       (update.target_critic, other.target_critic)):
        assert torch.equal(flat(got), flat(taken))
    assert torch.equal(flat(update.model.policy), policy) and not torch.equal(policy, flat(other.model.policy))
    assert torch.equal(update.judge(batch(1)).advantage, other.judge(batch(1)).advantage)


def test_tightening_widens_the_loss_until_it_ends():
    """f(e / k), k from the first errors: 90 % of them lie where f(e / k) is convex. After three iterations it is f."""
    loss = POLICY_LOSSES['flat']
    update = make_update(policy_loss=loss, tightening=TighteningSettings(0.9, 3))
    sigma = update.model.sigma
    error = make_update(policy_loss=loss).step(batch(1), batch(2)).error
    first = error.abs().flatten().quantile(0.9, interpolation='higher') / convex_radius(loss, sigma)
    assert first > 2
    for iteration in range(5):
        step = update.step(batch(1), batch(2))
        width = first**max(0, 1 - iteration / 3)
        expected = (step.weight * flat_loss(step.error / width, sigma).sum(dim=1)).mean() / (2 * sigma**2)
        assert step.policy_loss.item() == pytest.approx(expected.item())
        if iteration == 0:
            share = (step.error.abs() <= convex_radius(loss, sigma) * width).double().mean().item()
            assert share >= 0.9
        metrics = update.metrics(step)
        assert metrics['loss_width'] == pytest.approx(width.item()) and 0 <= metrics['convex_share'] <= 1
    assert metrics['loss_width'] == 1


def test_metrics_show_trust_and_temperature():
    update = make_update(trust=functools.partial(TRUSTS['linear'], iterations=4))
    update.step(batch(1), batch(2))
    for trust in (0.25, 0.5, 0.75, 1, 1):
        step = update.step(batch(1), batch(2))
        metrics = update.metrics(step)
        assert metrics['trust'] == trust and metrics['temperature'] == 0.5
    strength = advantage_weight(step.advantage, 0.5, 10.0) * step.priority
    assert metrics['selection_effective_share'] == pytest.approx(effective_sample_size(strength[:N]).item())

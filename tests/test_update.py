"""One iteration against the formulas written out one by one, and the per-sample rule."""
import copy
import dataclasses

import pytest
import torch

from ding_cawr.advantage import advantage_weight
from ding_cawr.losses import POLICY_LOSSES
from ding_cawr.model import CAWRModel
from ding_cawr.update import Update, UpdateSettings

OBS, ACT, N = 5, 2, 16
SETTINGS = UpdateSettings(
    learning_rate_q=1e-2, learning_rate_value=2e-2, learning_rate_policy=3e-2, discount_factor=0.9, target_theta=0.1,
    expectile=0.7, temperature=0.5, max_weight=10.0, normalize_advantage=True, weighting='per_sample',
    policy_loss=POLICY_LOSSES['l1'], cosine_iterations=None
)


def batch(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        'obs': normal(N, OBS), 'action': normal(N, ACT).tanh(), 'reward': normal(N), 'next_obs': normal(N, OBS),
        'done': normal(N) > 1
    }


def make_update(**changes) -> Update:
    torch.manual_seed(0)
    model = CAWRModel(OBS, ACT, hidden_sizes=(32, 32)).double()
    for parameter in model.parameters():  # last layers start near zero; the test wants advantages that differ
        torch.nn.init.normal_(parameter, std=0.3)
    update = Update(model, dataclasses.replace(SETTINGS, **changes))
    with torch.no_grad():  # a target that is not the critic
        for parameter in update.target_critic.parameters():
            parameter.mul_(0.9)
    return update


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


def reference_losses(update: Update, d1: dict, d2: dict):
    """Section by section, per sample, from the formulas (paper, Sec. 4; order of the released code)."""
    model, target, s = update.model, update.target_critic, update.settings
    value_loss = critic_loss = policy_loss = 0
    advantages = []
    for data in (d1, d2):
        q = torch.minimum(*(q_head(target, head, data['obs'], data['action']) for head in (0, 1)))
        advantages.append((q - model.value(data['obs'])).detach())
    advantage = torch.cat(advantages)
    z = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    weights = torch.minimum((z / s.temperature).exp(), torch.tensor(s.max_weight, dtype=z.dtype))
    for i in range(N):
        obs, action = d1['obs'][i:i + 1], d1['action'][i:i + 1]
        q_target = min(q_head(target, head, obs, action) for head in (0, 1)).detach()
        u = q_target - model.value(obs)
        value_loss = value_loss + (s.expectile if u >= 0 else 1 - s.expectile) * u**2 / N
        goal = d1['reward'][i] + s.discount_factor * (0 if d1['done'][i] else 1) * model.value(d1['next_obs'][i:i + 1])
        for head in (0, 1):
            critic_loss = critic_loss + (q_head(model.critic, head, obs, action) - goal.detach())**2 / N
        error = d2['action'][i] - model.policy(d2['obs'][i:i + 1])[0]
        policy_loss = policy_loss + weights[N + i] / (2 * model.sigma**2) * error.abs().sum() / N
    return value_loss, critic_loss, policy_loss, advantage, weights


def test_losses_equal_the_formulas():
    update = make_update()
    expected = reference_losses(update, batch(1), batch(2))
    step = update.step(batch(1), batch(2))
    for got, want in zip((step.value_loss, step.critic_loss, step.policy_loss), expected):
        assert got.item() == pytest.approx(want.item(), rel=1e-10)
    torch.testing.assert_close(step.advantage, expected[3], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(step.weight, expected[4][N:], rtol=1e-10, atol=1e-10)


def test_parameters_after_two_steps_equal_separate_updates():
    """Each network moved by an Adam of its own on its own loss, then the target; twice."""
    update, other = make_update(), make_update()
    parts = {'value': SETTINGS.learning_rate_value, 'critic': SETTINGS.learning_rate_q,
             'policy': SETTINGS.learning_rate_policy}
    optimizers = {
        name: torch.optim.Adam(getattr(other.model, name).parameters(), lr=rate) for name, rate in parts.items()
    }
    for seed in (1, 3):
        update.step(batch(seed), batch(seed + 1))
        losses = dict(zip(parts, reference_losses(other, batch(seed), batch(seed + 1))))
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
    captured = []
    handle = update.model.policy.register_forward_hook(
        lambda module, inputs, output: (output.retain_grad(), captured.append(output))[0]
    )
    update.policy_loss(data, weight).backward()
    handle.remove()
    return captured[0].grad[row]


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


def test_no_gradient_reaches_the_wrong_network():
    update = make_update()
    target = copy.deepcopy(update.target_critic.state_dict())
    q_value = update.target_critic(batch(1)['obs'], batch(1)['action']).amin(0)
    update.value_loss(update.model.value(batch(1)['obs']), q_value).backward()
    assert all(parameter.grad is None for parameter in update.target_critic.parameters())
    assert all(parameter.grad is None for parameter in update.model.critic.parameters())
    assert all(torch.equal(before, after) for before, after in
               zip(target.values(), update.target_critic.state_dict().values()))


def test_cosine_schedule_ends_at_zero():
    update = make_update(cosine_iterations=10)
    rates = []
    for _ in range(10):
        rates.append(update.optimizers['policy'].param_groups[0]['lr'])
        update.step(batch(1), batch(2))
    assert rates[0] == pytest.approx(3e-2) and rates[5] == pytest.approx(1.5e-2)
    for _ in range(5):  # and stays there
        assert update.optimizers['policy'].param_groups[0]['lr'] == pytest.approx(0, abs=1e-12)
        update.step(batch(1), batch(2))


def test_state_continues_exactly():
    update = make_update(cosine_iterations=10)
    update.step(batch(1), batch(2))
    model, state = copy.deepcopy(update.model.state_dict()), copy.deepcopy(update.state_dict())
    update.step(batch(3), batch(4))
    other = make_update(cosine_iterations=10)
    other.model.load_state_dict(model)
    other.load_state_dict(state)
    other.step(batch(3), batch(4))
    for name, tensor in update.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    assert torch.equal(flat(update.target_critic), flat(other.target_critic))


def test_metrics_are_the_steps_own_numbers():
    update = make_update(max_weight=1.5)
    step = update.step(batch(1), batch(2))
    metrics = update.metrics(step)
    assert metrics['advantage_max'] == step.advantage.max().item()
    assert metrics['weight_clipped_share'] == (step.weight == 1.5).double().mean().item() > 0
    assert metrics['total_loss'] == pytest.approx(
        metrics['value_loss'] + metrics['critic_loss'] + metrics['policy_loss']
    )

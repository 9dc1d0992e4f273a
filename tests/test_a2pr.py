"""A2PR's losses by hand, and its iteration against an explicit one with plain modules, autograd and torch's Adam."""
import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from trainings import ACT, OBS, ROWS, N, columns, make_model, make_training, replaying, tensors_of

from ding_cawr.algorithms.a2pr.model import A2PRModel
from ding_cawr.algorithms.a2pr.presets import PUBLISHED
from ding_cawr.algorithms.a2pr.settings import A2PRSettings
from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.config import make_config
from ding_cawr.data.buffer import Sample, join_columns
from ding_cawr.tasks import D4RL_IDS
from ding_cawr.training.divergence import Diverged


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def algorithm(**learn) -> A2PR:
    made = A2PR(make_model(A2PR, 0, torch.float64), A2PRSettings.read(learn))
    made.generators = [torch.Generator().manual_seed(0)]
    return made


# ---------------------------------------------------------------- by hand


def test_the_losses_of_critics_and_value():
    """Networks that are constants: Q = 1 and 2, Q̄ = 0.5 and 3, V = 0.3, and rates that leave them there."""
    made = algorithm(discount_factor=0.9, imitation='mask', learning_rate_q=1e-30, learning_rate_value=1e-30)
    constants = [(made.critics, (1.0, 2.0)), (made.target_critics, (0.5, 3.0)), (made.value, (0.3, ))]
    with torch.no_grad():
        for net, values in constants:
            for parameter in net.parameters.values():
                parameter.zero_()
            last = [name for name in net.parameters if 'bias' in name][-1]
            net.parameters[last].copy_(torch.tensor(values).unsqueeze(-1))
    given = {name: column[:2] for name, column in columns().items()}
    given.update(reward=tensor(1, -1), done=torch.tensor([False, True]))
    step = made.step({'uniform': Sample(torch.arange(2), join_columns(given))})
    target, pessimistic = tensor(1 + 0.9 * 0.5, -1), tensor(1 + 0.9 * 0.5, -1)  # of the online critics: 1 + 0.9 * 1
    torch.testing.assert_close(step.per_sample['target'], target)
    wanted = ((1 - target)**2).mean() + ((2 - target)**2).mean()
    torch.testing.assert_close(step.losses['critic_loss'], wanted)
    torch.testing.assert_close(step.losses['value_loss'], ((0.3 - pessimistic)**2).mean())
    torch.testing.assert_close(step.per_sample['advantage'], tensor(0.7, 0.7), rtol=1e-6, atol=0)
    with torch.no_grad():
        made.target_critics.parameters[last].fill_(9)
    step = made.step({'uniform': Sample(torch.arange(2), join_columns(given))})
    torch.testing.assert_close(step.per_sample['target'], tensor(1 + 0.9 * 9, -1))
    pessimistic = tensor(1 + 0.9 * 1, -1)
    torch.testing.assert_close(step.losses['value_loss'], ((0.3 - pessimistic)**2).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize('learn', [dict(imitation='mask'), dict(), dict(imitation='all', priority='normal')])
def test_advantages_are_by_q_after_its_step_and_v_before_its_own(monkeypatch, learn):
    training = make_training(3, dict(learn, learning_rate_q=0.1, learning_rate_value=0.1), algorithm=A2PR)
    made, drawn = training.algorithm, []
    training.iterate()
    before, draw = copy.deepcopy(made.models[0]), training.buffer.draw
    monkeypatch.setattr(training.buffer, 'draw', lambda *given: drawn.append(draw(*given)) or drawn[-1])
    step = training.iterate()
    obs, action = (torch.cat([sample.batch[name] for sample in drawn]) for name in ('obs', 'action'))
    value, pairs = before.value(obs).squeeze(1), torch.cat([obs, action], dim=1)
    torch.testing.assert_close(step.per_sample['value'], value, rtol=1e-9, atol=1e-9)
    q_value = made.models[0].critics[0](pairs).squeeze(1)
    torch.testing.assert_close(step.per_sample['advantage'], q_value - value, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(before.critics[0](pairs).squeeze(1), q_value)
    assert not torch.allclose(made.models[0].value(obs).squeeze(1), value)


def test_the_policys_loss():
    # mean|Q| = 2, so that the scale is 3 / 2; errors 1, 2 and 3 of two actions each, the second one not imitated.
    q_value, on = tensor(1, -2, 3).unsqueeze(0), tensor(1, 0, 1).unsqueeze(0)
    error = tensor([1, -1], [2, 2], [-3, 3]).unsqueeze(0)
    loss = algorithm(alpha=3.0, mask=0.5).policy_loss(q_value, error, on)
    torch.testing.assert_close(loss, tensor(0.5 * (1 + 9) * 2 / 6 - 1.5 * 2 / 3))
    only_q = algorithm(alpha=3.0, mask=0).policy_loss(q_value, error, on)
    torch.testing.assert_close(only_q, tensor(-1.0))


def flat(e: float) -> tuple[float, float]:
    """By the constants 2/σ², 1/σ and 0.5 of σ = exp(-2)."""
    near = math.exp(2 - 2 * math.exp(4) * e**2)
    return math.log((math.exp(2) + 0.5) / (near + 0.5)), 4 * math.exp(4) * e * near / (near + 0.5)


def skew(e: float) -> tuple[float, float]:
    """By the constants 1/σ² and 1/σ, of a positive error."""
    near, far = math.exp(-math.exp(4) * e**2), 1 / (math.exp(2) * e + 1)
    return -math.log((near + far) / 2), (2 * math.exp(4) * e * near + math.exp(2) * far**2) / (near + far)


@pytest.mark.parametrize('policy_loss, of', [
    ('l2', lambda e: (e**2, 2 * e)), ('l1', lambda e: (e, 1)),
    ('huber', lambda e: (e**2, 2 * e) if e < 0.2 else (0.4 * e - 0.04, 0.4)),
    (dict(type='huber', kappa=0.5), lambda e: (e**2, 2 * e) if e < 0.5 else (e - 0.25, 1)),
    ('flat', flat), ('skew', skew),
])
def test_robust_losses_of_the_imitation_and_their_gradients(policy_loss, of):
    """Values and gradients are those of f(e), and the mean goes over samples and dimensions: nothing else scales f."""
    made = algorithm(mask=0.5, policy_loss=policy_loss)
    error = tensor([0.05, -0.1], [0.3, 0.4], [-0.6, 0.01]).unsqueeze(0).requires_grad_()
    q_value, on = tensor(1, 1, 1).unsqueeze(0), tensor(1, 0, 1).unsqueeze(0)
    loss = made.policy_loss(q_value, error, on)
    loss.sum().backward()
    pairs = [of(abs(e)) for e in (0.05, 0.1, 0.6, 0.01)]
    torch.testing.assert_close(loss.detach(), tensor(0.5 * sum(value for value, _ in pairs) / 6 - 2.5))
    slopes = [0.5 / 6 * slope for _, slope in pairs]
    wanted = tensor([slopes[0], -slopes[1]], [0, 0], [-slopes[2], slopes[3]]).unsqueeze(0)
    torch.testing.assert_close(error.grad, wanted)


def test_the_default_loss_is_the_square_to_the_bit():
    made, generator = algorithm(), torch.Generator().manual_seed(0)
    error = torch.randn(1, 50, ACT, generator=generator)
    q_value, on = torch.randn(1, 50, generator=generator), (torch.rand(1, 50, generator=generator) < 0.5).float()
    scale = 2.5 / q_value.abs().mean(dim=-1)
    wanted = (0.5 * on.unsqueeze(-1) * error.square()).mean(dim=(-2, -1)) - scale * q_value.mean(dim=-1)
    assert torch.equal(made.policy_loss(q_value, error, on), wanted)


def test_the_vaes_loss():
    # Of three samples the first has a positive advantage; its error is 0.5 and 1 in two actions.
    action, found = torch.zeros(1, 3, 2, dtype=torch.float64), tensor([[0.5, 1.0], [7, 7], [7, 7]])
    mean, log_std = torch.zeros(1, 3, 4, dtype=torch.float64), torch.zeros(1, 3, 4, dtype=torch.float64)
    mean[0, 1, 2], log_std[0, 2, 3] = 2.0, math.log(3)
    divergence = -0.5 * (-(2.0**2) + (1 + 2 * math.log(3) - 9)) / 12
    made = algorithm(vae_weight=1.5)
    loss = made.vae_loss(action, tensor([0.1, 0.0, -1.0]), found, mean, log_std)
    torch.testing.assert_close(loss, tensor(1.5 * (0.25 + 1) / 6 + 0.5 * divergence))
    shifted = algorithm(vae_weight=1.5, advantage_threshold=-2.0).vae_loss(
        action, tensor([0.1, 0.0, -1.0]), found, mean, log_std
    )
    torch.testing.assert_close(shifted, tensor(1.5 * (0.25 + 1 + 4 * 49) / 6 + 0.5 * divergence))


@pytest.mark.parametrize('log_std, used', [(20.0, 15.0), (-9.0, -4.0), (0.3, 0.3)])
def test_the_latent_numbers_are_clamped(monkeypatch, log_std, used):
    made = algorithm()
    with torch.no_grad():
        for parameter in made.encoder.parameters.values():
            parameter.zero_()
        bias = made.encoder.parameters[max(name for name in made.encoder.parameters if 'bias' in name)]
        bias[..., bias.shape[-1] // 2:] = log_std
    noise = []
    monkeypatch.setattr(made, '_noise', lambda like: noise.append(torch.ones_like(like)) or noise[-1])
    obs, action = torch.zeros(1, 2, OBS, dtype=torch.float64), torch.zeros(1, 2, ACT, dtype=torch.float64)
    found, mean, got = made._reconstruct(obs, action)
    assert torch.equal(got, torch.full_like(got, used)) and noise[0].shape == (1, 2, 2 * ACT)
    latent = torch.full((1, 2, 2 * ACT), math.exp(used), dtype=torch.float64)
    torch.testing.assert_close(found, made.decoder(torch.cat([obs, latent], dim=-1))[:, 0])


@pytest.mark.parametrize('other, advantage, on, takes_the_other', [
    (1.0, 0.5, True, True), (0.5, 1.0, True, False), (-1.0, 0.5, True, False), (0.5, -1.0, True, True),
    (-1.0, -2.0, False, True), (0.5, 0.5, True, True), (0.0, 0.0, True, True), (-1.0, 0.0, False, False),
    (0.0, -1.0, True, True),
])
@pytest.mark.parametrize('threshold', [0.0, 0.5, -2.0])
def test_which_action_is_imitated_and_where(monkeypatch, other, advantage, on, takes_the_other, threshold):
    """Either advantage suffices, and a tie takes the VAE's action; its advantage of 0 counts, the data's does not. The
    threshold is the 0 of both."""
    made, value = algorithm(advantage_threshold=threshold), 3.0
    obs, action = (torch.zeros(1, 1, width, dtype=torch.float64) for width in (OBS, ACT))
    reconstructed = torch.full((1, 1, ACT), 0.7, dtype=torch.float64)
    monkeypatch.setattr(made, '_reconstruct', lambda *inputs, **options: (reconstructed, None, None))
    monkeypatch.setattr('ding_cawr.algorithms.a2pr.update._q1', lambda *inputs: tensor([value + other + threshold]))
    estimated = dict(value=tensor([value]), advantage=tensor([advantage + threshold]))
    target, where = made._imitated(obs, action, action, **estimated)
    assert bool(where) == on and bool((target == (0.7 if takes_the_other else 0.0)).all())


# ---------------------------------------------------------------- against an explicit iteration


class Explicit:
    """The released code's step on one model, in its order, with the noise that is given."""

    def __init__(self, model: A2PRModel, settings: A2PRSettings) -> None:
        self.m, self.s, self.count = copy.deepcopy(model), settings, 0
        self.actor, self.critics = copy.deepcopy(self.m.actor), copy.deepcopy(self.m.critics)
        rates = [(self.m.actor, settings.learning_rate_policy), (self.m.critics, settings.learning_rate_q),
                 (self.m.value, settings.learning_rate_value)]
        self.adams = [torch.optim.Adam(net.parameters(), lr=rate) for net, rate in rates]
        vae = [*self.m.encoder.parameters(), *self.m.decoder.parameters()]
        self.adams.append(torch.optim.Adam(vae, lr=settings.learning_rate_vae))
        self.losses = {'policy_loss': tensor(0.0)[0]}

    def q(self, critics, obs, action):
        return [critic(torch.cat([obs, action], 1)).squeeze(1) for critic in critics]

    def vae(self, obs, action, noise):
        mean, log_std = self.m.encoder(torch.cat([obs, action], 1)).chunk(2, 1)
        std = log_std.clamp(-4, 15).exp()
        return self.m.decoder(torch.cat([obs, mean + std * noise], 1)), mean, std

    def descend(self, number, loss):
        self.losses[('policy_loss', 'critic_loss', 'value_loss', 'vae_loss')[number]] = loss.detach()
        self.adams[number].zero_grad()
        loss.backward()
        self.adams[number].step()

    def step(self, batch, noise, own=None):
        """``own`` is the policy's batch, where it has one; return its advantages and those of the other."""
        s, noise, own = self.s, iter(noise), own or batch
        obs, action, reward, next_obs = (batch[name] for name in ('obs', 'action', 'reward', 'next_obs'))
        keep = s.discount_factor * (1 - batch['done'].double())
        with torch.no_grad():
            clipped = (s.policy_noise * next(noise)).clamp(-s.noise_clip, s.noise_clip)
            next_action = (self.actor(next_obs) + clipped).clamp(-1, 1)
            target = reward + keep * torch.min(*self.q(self.critics, next_obs, next_action))
        self.descend(1, sum(F.mse_loss(q, target) for q in self.q(self.m.critics, obs, action)))
        value = self.m.value(obs).squeeze(1)
        with torch.no_grad():
            online = reward + keep * torch.min(*self.q(self.m.critics, next_obs, next_action))
        before, own_before = value.detach().clone(), self.m.value(own['obs']).squeeze(1).detach()
        if s.uses_value:
            self.descend(2, F.mse_loss(value, torch.min(online, target)))
        advantage = self.q(self.m.critics, obs, action)[0].detach() - before
        advantages = advantage, self.q(self.m.critics, own['obs'], own['action'])[0].detach() - own_before
        if s.imitation == 'a2pr':
            found, mean, std = self.vae(obs, action, next(noise))
            positive = (advantage > s.advantage_threshold).double().unsqueeze(1)
            divergence = -0.5 * (1 + torch.log(std.pow(2)) - mean.pow(2) - std.pow(2)).mean()
            self.descend(3, (s.vae_weight * positive * (found - action)**2).mean() + 0.5 * divergence)
        self.count += 1
        if self.count % s.policy_freq == 0:
            self.step_policy(own['obs'], own['action'], advantages[1], own_before, noise)
        return advantages

    def step_policy(self, obs, action, advantage, before, noise):
        s, mine = self.s, self.m.actor(obs)
        q_value = self.q(self.m.critics, obs, mine)[0]
        loss = -s.alpha / q_value.abs().mean().detach() * q_value.mean()
        if s.imitation == 'all':
            loss = loss + s.mask * s.policy_loss(mine - action, math.exp(-2)).mean()
        elif s.imitation == 'mask':
            on = (advantage > s.advantage_threshold).double().unsqueeze(1)
            loss = loss + s.mask * (on * s.policy_loss(mine - action, math.exp(-2))).mean()
        else:
            other, _, _ = self.vae(obs, mine, next(noise))
            of_other = self.q(self.m.critics, obs, other)[0] - before
            better = (of_other >= advantage).unsqueeze(1)
            on = ((of_other >= s.advantage_threshold) | (advantage > s.advantage_threshold)).double().unsqueeze(1)
            target = torch.where(better, other.detach() if s.detach_target else other, action)
            loss = loss + s.mask * (on * s.policy_loss(mine - target, math.exp(-2))).mean()
        self.descend(0, loss)
        for moving, net in ((self.actor, self.m.actor), (self.critics, self.m.critics)):
            for mine, theirs in zip(moving.parameters(), net.parameters()):
                mine.data.lerp_(theirs.data, s.target_theta)


FORMS = [
    dict(), dict(detach_target=True), dict(imitation='mask', mask=1.0, alpha=5.0, policy_freq=3), dict(imitation='all'),
    dict(mask=0, vae_weight=1.5, policy_noise=0.5, noise_clip=0.3), dict(imitation='all', policy_freq=1, mask=2.0),
    dict(ignore_done=True, discount_factor=0.9, target_theta=0.1), dict(policy_loss='skew', mask=2.0),
    dict(imitation='mask', policy_loss='flat', mask=2.0), dict(priority='normal', temperature=0.5),
    dict(imitation='mask', priority=dict(type='normal', exponent=0.6), temperature=0.7, policy_loss='l1', mask=3.0),
    dict(imitation='all', priority='normal', temperature=2.0, max_weight=1.5, min_priority=0.5),
    dict(advantage_threshold=0.3, mask=2.0), dict(imitation='mask', advantage_threshold=-0.5),
    dict(best_episodes=0.3), dict(imitation='all', best_episodes=0.3),
]


@pytest.mark.parametrize('learn', FORMS)
@pytest.mark.parametrize('layer_norm', [False, True])
@pytest.mark.parametrize('as_on_a_gpu', [False, True])
def test_twenty_iterations_are_those_of_the_released_step(monkeypatch, learn, layer_norm, as_on_a_gpu):
    """On a GPU networks of one shape are one batch of products, with gradients by autograd."""
    if as_on_a_gpu:
        monkeypatch.setattr('ding_cawr.networks.stacked.in_one_batch', lambda like: True)
    learn = dict(learn, learning_rate_q=1e-2, learning_rate_policy=1e-2)
    monkeypatch.setitem(make_model.__globals__['SMALL'], 'a2pr', dict(
        critic_hidden_sizes=(24, 16), vae_hidden_sizes=(20, 20), critic_layer_norm=layer_norm
    ))
    training = make_training(3, learn, algorithm=A2PR)
    made, batches, noise = training.algorithm, [], []
    explicit = Explicit(made.models[0], made.settings)
    step, draw = made.step, made._noise
    monkeypatch.setattr(made, 'step', lambda draws: batches.append(draws) or step(draws))
    monkeypatch.setattr(made, '_noise', lambda like: noise.append(draw(like)) or noise[-1])
    for _ in range(20):
        noise.clear()
        found = training.iterate()
        batch, *own = ({name: column.clone() for name, column in sample.batch.columns.items()}
                       for sample in batches[-1].values())
        if learn.get('ignore_done'):
            batch['done'] = torch.zeros(N)
        advantages = explicit.step(batch, [each[0] for each in noise], *own)
        assert found.losses.keys() == explicit.losses.keys()
        for name, loss in explicit.losses.items():
            torch.testing.assert_close(found.losses[name], loss, rtol=1e-9, atol=1e-9)
        assert len(own) == made.settings.own_batch and (found.priority is not None) == ('priority' in learn)
        if 'priority' in learn:  # CAWR's normal: exp((A - mean) / (λ std)) over both batches, clipped
            of_both = torch.cat(advantages)
            wanted = ((of_both - of_both.mean()) / of_both.std() / made.settings.temperature).exp()
            wanted = wanted.clamp(made.settings.min_priority, made.settings.max_weight)
            torch.testing.assert_close(found.priority, wanted, rtol=1e-6, atol=1e-9)
    found = {'model': made.models[0].state_dict(), **made.tree()['target']}
    wanted = {'model': explicit.m, 'actor': explicit.actor, 'critics': explicit.critics}
    for part, module in wanted.items():
        assert found[part].keys() == module.state_dict().keys()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(found[part][name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('policy_freq, recordings', [(1, 1), (2, 2), (5, 2)])
def test_a_gpu_records_an_iteration_with_the_policys_step_and_one_without(as_if_recorded, policy_freq, recordings):
    replayed, plain = (make_training(3, dict(policy_freq=policy_freq), algorithm=A2PR) for _ in range(2))
    replaying(replayed)
    for _ in range(26):
        for got, wanted in zip(tensors_of(replayed.iterate()), tensors_of(plain.iterate())):
            assert torch.equal(got, wanted)
    assert sum(each._result is not None for each in as_if_recorded) == recordings


def test_the_gradient_passes_through_the_vae_or_not():
    steps = []
    for detach in (False, True):
        training = make_training(3, dict(detach_target=detach, policy_freq=1, mask=5.0), algorithm=A2PR)
        training.iterate()
        steps.append(training.algorithm.models[0].actor.state_dict())
    assert any(not torch.equal(*pair) for pair in zip(*(step.values() for step in steps)))


class TD3BC:
    """TD3+BC of plain modules: two critics, a policy, their targets; the weight of the imitation may be 0 (TD3)."""

    def __init__(self, model: A2PRModel, s: A2PRSettings, weight: float) -> None:
        self.s, self.weight = s, weight
        self.actor, self.critics = copy.deepcopy(model.actor), copy.deepcopy(model.critics)
        self.old_actor, self.old_critics = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.adams = [torch.optim.Adam(self.critics.parameters(), s.learning_rate_q),
                      torch.optim.Adam(self.actor.parameters(), s.learning_rate_policy)]

    def step(self, batch, noise, moves_policy):
        pairs = torch.cat([batch['obs'], batch['action']], 1)
        with torch.no_grad():
            action = (self.old_actor(batch['next_obs']) + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
            next_pairs = torch.cat([batch['next_obs'], action], 1)
            least = torch.minimum(*(critic(next_pairs) for critic in self.old_critics)).squeeze(1)
            target = batch['reward'] + 0.99 * (1 - batch['done'].double()) * least
        self.descend(0, sum(F.mse_loss(critic(pairs).squeeze(1), target) for critic in self.critics))
        if not moves_policy:
            return
        action = self.actor(batch['obs'])
        q_value = self.critics[0](torch.cat([batch['obs'], action], 1))
        gradient = -2.5 / q_value.abs().mean().detach() * q_value.mean()
        self.descend(1, gradient + self.weight * F.mse_loss(action, batch['action']))
        for old, new in ((self.old_actor, self.actor), (self.old_critics, self.critics)):
            for mine, theirs in zip(old.parameters(), new.parameters()):
                mine.data.lerp_(theirs.data, self.s.target_theta)

    def descend(self, number, loss):
        self.adams[number].zero_grad()
        loss.backward()
        self.adams[number].step()


@pytest.mark.parametrize('learn, weight', [
    (dict(imitation='all', mask=0.7), 0.7), (dict(imitation='all', mask=1.0), 1.0),
    (dict(mask=0), 0), (dict(imitation='mask', mask=0), 0), (dict(imitation='all', mask=0), 0),
])
def test_all_is_td3_bc_and_no_imitation_is_td3(monkeypatch, learn, weight):
    training = make_training(3, dict(learn, learning_rate_q=1e-2, learning_rate_policy=1e-2), algorithm=A2PR)
    made, batches, noise = training.algorithm, [], []
    plain, step, draw = TD3BC(made.models[0], made.settings, weight), made.step, made._noise
    monkeypatch.setattr(made, 'step', lambda draws: batches.append(draws['uniform'].batch) or step(draws))
    monkeypatch.setattr(made, '_noise', lambda like: noise.append(draw(like)) or noise[-1])
    for iteration in range(20):
        noise.clear()
        training.iterate()
        plain.step(batches[-1].columns, noise[0][0], iteration % 2 == 1)
    target = made.target_modules[0]
    pairs = [(made.models[0].actor, plain.actor), (made.models[0].critics, plain.critics),
             (target['actor'], plain.old_actor), (target['critics'], plain.old_critics)]
    for mine, theirs in pairs:
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- draws for the policy


def test_without_a_priority_there_are_the_critics_draws_alone():
    plain, named = (make_training(3, learn, algorithm=A2PR) for learn in ({}, dict(priority='none', temperature=0.5)))
    assert plain.algorithm.draw_kinds == ('uniform', ) and 'selection' not in plain.algorithm.tree()
    for _ in range(4):
        steps = plain.iterate(), named.iterate()
        assert steps[0].priority is None and torch.equal(plain._drawn, named._drawn)
        assert all(torch.equal(*pair) for pair in zip(*map(tensors_of, steps)))


def test_the_rows_of_both_batches_get_their_priorities():
    training = make_training(3, dict(priority=dict(type='standard', exponent=0.5), temperature=1.0), algorithm=A2PR)
    assert training.algorithm.draw_kinds == ('uniform', 'prioritized')
    for _ in range(3):
        step = training.iterate()
        assert step.per_sample['advantage'].shape == step.priority.shape == (2 * N, )
        torch.testing.assert_close(step.priority, step.per_sample['advantage'].exp().clamp(1e-6, 100.0))
        torch.testing.assert_close(training.buffer.mass[training._drawn], step.priority.double()**0.5)
    assert training.buffer.mass.unique().numel() > N


@pytest.mark.parametrize('learn', [dict(imitation='mask'), dict(imitation='all'), dict()])
@pytest.mark.parametrize('seeds', [3, [3, 4]])
def test_priorities_of_the_whole_data_are_renewed(monkeypatch, learn, seeds):
    monkeypatch.setattr('ding_cawr.algorithms.a2pr.update.CHUNK', 128)
    learn = dict(learn, priority='standard', temperature=2.0, priority_refresh=3)
    training = make_training(seeds, learn, algorithm=A2PR)
    for _ in range(3):
        training.iterate()
    data, masses = columns(), training.buffer.mass.reshape(-1, ROWS)
    for model, mass in zip(training.algorithm.models, masses):
        q_value = model.critics[0](torch.cat([data['obs'], data['action']], 1)).squeeze(1)
        advantage = q_value - model.value(data['obs']).squeeze(1)
        torch.testing.assert_close(mass, (advantage / 2).exp().detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('learn, has_value', [
    (dict(imitation='all'), False), (dict(imitation='all', priority='aw'), True), (dict(imitation='mask'), True)
])
def test_v_is_trained_where_there_are_advantages(learn, has_value):
    training = make_training(3, learn, algorithm=A2PR)
    before = copy.deepcopy(training.algorithm.models[0].value)
    training.iterate()
    moved = nn.utils.parameters_to_vector(training.algorithm.models[0].value.parameters())
    assert torch.equal(moved, nn.utils.parameters_to_vector(before.parameters())) != has_value
    assert ('value' in training.algorithm.tree()['optimizer']) == has_value


@pytest.mark.parametrize('seeds, replica', [(3, None), ([3, 4], 1)])
def test_a_divergence_names_the_rows_of_the_batch_that_it_is_of(monkeypatch, seeds, replica):
    """Q and its target have the critics' batch alone; the rows of the policy's come behind it."""
    training = make_training(seeds, dict(priority='normal'), algorithm=A2PR)
    training.iterate()
    step, rows = training.algorithm.step, []

    def spoiled(draws):
        sample = draws['uniform']
        sample.batch['reward'][..., 5] = math.nan if replica is None else tensor(0, math.nan)
        rows.append(int(sample.indices[..., 5] if replica is None else sample.indices[replica, 5]))
        return step(draws)

    monkeypatch.setattr(training.algorithm, 'step', spoiled)
    with pytest.raises(Diverged) as raised:
        training.iterate()
    assert f'target is not finite at iteration 1 in 1 of {N} samples, rows {rows} of the data' in str(raised.value)
    assert raised.value.replica == replica


@pytest.mark.parametrize('loss, draw', [('critic_loss', 0), ('value_loss', 0), ('policy_loss', 1)])
def test_a_loss_that_diverges_names_rows_of_its_own_batch(monkeypatch, loss, draw):
    training = make_training(3, dict(priority='normal'), algorithm=A2PR)
    training.iterate()
    step, drawn = training.algorithm.step, []

    def spoiled(draws):
        drawn.append(draws[training.algorithm.draw_kinds[draw]].indices.tolist())
        found = step(draws)
        found.losses[loss].fill_(math.inf)
        return found

    monkeypatch.setattr(training.algorithm, 'step', spoiled)
    with pytest.raises(Diverged, match=f'{loss} is not finite') as raised:
        training.iterate()
    named = re.search(r'in rows \[(.+)\] of the data', str(raised.value))[1].split(', ')
    assert set(map(int, named)) <= set(drawn[0])


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize('name, alpha, mask, vae_weight, discount', [
    ('halfcheetah-medium', 40, 1, 1, 0.99), ('halfcheetah-medium-replay', 40, 0.8, 1.5, 0.995),
    ('halfcheetah-medium-expert', 40, 15, 1, 0.99), ('hopper-medium', 2.5, 0.4, 1, 0.995),
    ('hopper-medium-replay', 2.5, 0.5, 1.5, 0.99), ('hopper-medium-expert', 2.5, 4, 1, 0.99),
    ('hopper-random', 2.5, 1.5, 1.5, 0.995), ('walker2d-medium', 2.5, 1, 1.5, 0.99),
    ('walker2d-medium-replay', 2.5, 1.2, 1.5, 0.995), ('walker2d-medium-expert', 2.5, 0.8, 1, 0.99),
])
def test_published_settings_are_those_of_the_authors_for_the_sets_themselves(name, alpha, mask, vae_weight, discount):
    learn = make_config(f'{name}-v2', 'a2pr')[0].policy.learn
    assert (learn.alpha, learn.mask, learn.vae_weight, learn.discount_factor) == (alpha, mask, vae_weight, discount)
    assert 'alpha' not in make_config(f'{name}-v2', 'a2pr', data_path='mine.hdf5')[0].policy.learn


def test_presets():
    assert set(PUBLISHED) < set(D4RL_IDS) and len(PUBLISHED) == 10
    main, create = make_config('walker2d-expert-v2', 'a2pr')
    assert 'alpha' not in main.policy.learn and main.env.norm_obs.use_norm and create.policy.type == 'a2pr'
    for preset, imitation in (('a2pr_mask', 'mask'), ('a2pr_all', 'all')):
        main = make_config('hopper-medium-v2', preset)[0]
        assert main.policy.learn.imitation == imitation and main.policy.model.vae is False


@pytest.mark.parametrize('preset, iterations, quick', [
    ('a2pr_mask', 100_000, True), ('a2pr_mask', 100_001, False), ('a2pr_all', 1_000, False), ('a2pr', 1_000, False),
])
def test_the_mask_has_quick_rates_in_short_runs(preset, iterations, quick):
    learn = make_config('hopper-medium-v2', preset, iterations=iterations)[0].policy.learn
    named = ('learning_rate_q', 'learning_rate_value', 'learning_rate_policy', 'target_theta')
    assert [learn.get(key) for key in named] == ([1e-3, 1e-3, 1e-3, 0.02] if quick else [None] * 4)
    main = make_config('hopper-medium-v2', preset, iterations=iterations, target_theta=0.01)[0]
    assert main.policy.learn.target_theta == 0.01  # what is given wins


@pytest.mark.parametrize('learn, message', [
    (dict(alpha=0), 'learn.alpha is 0; it must be a positive finite number'),
    *((dict([(key, -0.1)]), f'learn.{key} is -0.1; it must be a finite number of at least 0')
      for key in ('mask', 'vae_weight', 'policy_noise', 'noise_clip')),
    *((dict([(key, 0)]), f'learn.{key} is 0; it must be a positive finite number') for key in (
        'learning_rate_q', 'learning_rate_value', 'learning_rate_policy', 'learning_rate_vae', 'max_weight')),
    (dict(discount_factor=1.1), r'learn.discount_factor is 1.1; it must be a number in \[0, 1\]'),
    (dict(target_theta=0), r'learn.target_theta is 0; it must be a number in \(0, 1\]'),
    (dict(imitation='wpc'), "learn.imitation is 'wpc'; it must be one of 'a2pr', 'mask', 'all'"),
    (dict(policy_freq=0), 'learn.policy_freq is 0; it must be a positive whole number'),
    (dict(policy_loss='l3'), "learn.policy_loss is 'l3'; it must be one of 'l2', 'l1', 'huber', 'flat', 'skew'"),
    (dict(policy_loss=dict(type='huber', kappa=0)), "policy loss 'huber': kappa is 0; it must be a positive finite"),
    (dict(priority='norml'), "learn.priority is 'norml'.*did you mean 'normal'"),
    (dict(temperature=0), 'learn.temperature is 0; it must be a positive number'),
    (dict(min_priority=3.0, max_weight=2.0), r'learn.min_priority is 3.0; it must be a number in \(0, max_weight\]'),
    (dict(priority_refresh=9), "learn.priority_refresh is 9, but priority is 'none'; set it to None"),
])
def test_settings_out_of_range(learn, message):
    with pytest.raises(ValueError, match=message):
        A2PRSettings.read(learn)


@pytest.mark.parametrize('learn, idle', [
    (dict(mask=0, policy_loss='l1', detach_target=True), {'policy_loss', 'detach_target'}),
    (dict(mask=0, vae_weight=2.0, advantage_threshold=1.0), {'vae_weight', 'advantage_threshold'}),
    (dict(mask=0, learning_rate_value=1e-2), {'learning_rate_value'}),
    (dict(mask=0, learning_rate_value=1e-2, priority='normal'), set()),
    (dict(policy_noise=0, noise_clip=0.2), {'policy_noise', 'noise_clip'}),
    (dict(policy_noise=0.3, noise_clip=0), {'policy_noise', 'noise_clip'}),
    (dict(priority='odpr', temperature=2.0, max_weight=3.0), {'temperature'}),
    (dict(imitation='mask', vae_weight=2.0), {'vae_weight'}), (dict(mask=1.0, noise_clip=0.2), set()),
])
def test_settings_that_do_nothing_are_named(learn, idle):
    settings = A2PRSettings.read(learn)
    assert settings.idle & learn.keys() == idle


@pytest.mark.parametrize('learn, other, message', [
    (dict(), dict(imitation='mask'), "was made with learn.imitation 'a2pr', and this configuration without"),
    (dict(imitation='mask'), dict(), "was made without learn.imitation 'a2pr', and this configuration with"),
    (dict(imitation='mask'), dict(imitation='all'), "with learn.imitation 'a2pr' or 'mask', or a learn.priority, and"),
    (dict(), dict(priority='normal'), "was made without a learn.priority other than 'none', and this .* with"),
    (dict(priority='aw'), dict(), "was made with a learn.priority other than 'none', and this configuration without"),
])
def test_a_checkpoint_of_another_form_names_the_setting(learn, other, message):
    first, second = (make_training(3, each, algorithm=A2PR) for each in (learn, other))
    first.iterate()
    with pytest.raises(ValueError, match=message):
        second.load_state_dict(first.state_dict())


def test_the_phase_of_the_policys_step_survives_another_runs_networks_and_a_resume():
    first, begun, resumed = (make_training(seed, dict(policy_freq=3), algorithm=A2PR) for seed in (3, 4, 5))
    for _ in range(7):
        first.iterate()
    begun.begin_with(first.state_dict())
    begun.iterate()
    resumed.load_state_dict(begun.state_dict())
    for training in (begun, resumed):
        moved = []
        for _ in range(6):
            parameters = training.algorithm.target_policy.parameters
            before = {name: each.clone() for name, each in parameters.items()}
            training.iterate()
            moved.append(not all(torch.equal(before[name], each) for name, each in parameters.items()))
        assert moved == [True, False, False] * 2


def test_exploration_is_the_policy_with_td3s_noise_within_the_bounds():
    model = make_model(A2PR, 3, torch.float64)
    obs = torch.randn(1, OBS, dtype=torch.float64).expand(20_000, -1)
    with torch.no_grad():
        action, noisy = model(obs), model.explore(obs)
    assert abs(noisy).max() <= 1
    torch.testing.assert_close((noisy - action).std(dim=0), torch.full((ACT, ), 0.1, dtype=torch.float64), rtol=0.05,
                               atol=0)


def test_a_vae_is_needed_or_not():
    model = A2PRModel(OBS, ACT, hidden_sizes=(8, 8), critic_hidden_sizes=(8, 8), vae=False)
    assert not any('coder' in name for name in model.state_dict())
    with pytest.raises(ValueError, match="learn.imitation is 'a2pr', but model.vae is False"):
        A2PR(model, A2PRSettings.read({}))
    A2PR(model, A2PRSettings.read(dict(imitation='mask')))
    with pytest.warns(UserWarning, match="nothing depends on the VAE with learn.imitation 'mask'.*set model.vae"):
        A2PR(make_model(A2PR, 0, torch.float64), A2PRSettings.read(dict(imitation='mask')))

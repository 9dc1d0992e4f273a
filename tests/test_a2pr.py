"""A2PR's losses by hand, and its iteration against an explicit one with plain modules, autograd and torch's Adam."""
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from trainings import ACT, OBS, N, make_model, make_training

from ding_cawr.algorithms.a2pr.model import A2PRModel
from ding_cawr.algorithms.a2pr.presets import PUBLISHED
from ding_cawr.algorithms.a2pr.settings import A2PRSettings
from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.config import make_config
from ding_cawr.tasks import D4RL_IDS


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def algorithm(**learn) -> A2PR:
    made = A2PR(make_model(A2PR, 0, torch.float64), A2PRSettings.read(learn))
    made.generators = [torch.Generator().manual_seed(0)]
    return made


# ---------------------------------------------------------------- by hand


def test_the_policys_loss():
    # mean|Q| = 2, so that the scale is 3 / 2; errors 1, 4 and 9 of two actions each, the second one not imitated.
    q_value, on = tensor(1, -2, 3).unsqueeze(0), tensor(1, 0, 1).unsqueeze(0)
    error = tensor([1, 1], [4, 4], [9, 9]).unsqueeze(0)
    loss = algorithm(alpha=3.0, mask=0.5).policy_loss(q_value, error, on)
    torch.testing.assert_close(loss, tensor(0.5 * (1 + 9) * 2 / 6 - 1.5 * 2 / 3))
    only_q = algorithm(alpha=3.0, mask=0).policy_loss(q_value, error, on)
    torch.testing.assert_close(only_q, tensor(-1.0))


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
def test_which_action_is_imitated_and_where(monkeypatch, other, advantage, on, takes_the_other):
    """Either advantage suffices, and a tie takes the VAE's action; its advantage of 0 counts, the data's does not."""
    made, value = algorithm(), 3.0
    obs, action = (torch.zeros(1, 1, width, dtype=torch.float64) for width in (OBS, ACT))
    reconstructed = torch.full((1, 1, ACT), 0.7, dtype=torch.float64)
    monkeypatch.setattr(made, '_reconstruct', lambda *inputs, **options: (reconstructed, None, None))
    monkeypatch.setattr('ding_cawr.algorithms.a2pr.update._first', lambda *inputs: tensor([value + other]))
    per_sample = dict(advantage=tensor([advantage]), value=tensor([value]))
    target, where = made._imitated(obs, action, action, per_sample)
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

    def q(self, critics, obs, action):
        return [critic(torch.cat([obs, action], 1)).squeeze(1) for critic in critics]

    def vae(self, obs, action, noise):
        mean, log_std = self.m.encoder(torch.cat([obs, action], 1)).chunk(2, 1)
        std = log_std.clamp(-4, 15).exp()
        return self.m.decoder(torch.cat([obs, mean + std * noise], 1)), mean, std

    def descend(self, number, loss):
        self.adams[number].zero_grad()
        loss.backward()
        self.adams[number].step()

    def step(self, batch, noise):
        s, noise = self.s, iter(noise)
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
        before = value.detach().clone()
        if s.imitation != 'all':
            self.descend(2, F.mse_loss(value, torch.min(online, target)))
        advantage = self.q(self.m.critics, obs, action)[0].detach() - before
        if s.imitation == 'a2pr':
            found, mean, std = self.vae(obs, action, next(noise))
            positive = (advantage > 0).double().unsqueeze(1)
            divergence = -0.5 * (1 + torch.log(std.pow(2)) - mean.pow(2) - std.pow(2)).mean()
            self.descend(3, (s.vae_weight * positive * (found - action)**2).mean() + 0.5 * divergence)
        self.count += 1
        if self.count % s.policy_freq:
            return
        own = self.m.actor(obs)
        q_value = self.q(self.m.critics, obs, own)[0]
        loss = -s.alpha / q_value.abs().mean().detach() * q_value.mean()
        if s.imitation == 'all':
            loss = loss + s.mask * F.mse_loss(own, action)
        elif s.imitation == 'mask':
            loss = loss + s.mask * ((advantage > 0).double().unsqueeze(1) * (own - action)**2).mean()
        else:
            other, _, _ = self.vae(obs, own, next(noise))
            of_other = self.q(self.m.critics, obs, other)[0] - before
            better = (of_other >= advantage).unsqueeze(1)
            on = ((of_other >= 0) | (advantage > 0)).double().unsqueeze(1)
            target = torch.where(better, other.detach() if s.detach_target else other, action)
            loss = loss + s.mask * (on * (own - target)**2).mean()
        self.descend(0, loss)
        for moving, net in ((self.actor, self.m.actor), (self.critics, self.m.critics)):
            for mine, theirs in zip(moving.parameters(), net.parameters()):
                mine.data.lerp_(theirs.data, s.target_theta)


FORMS = [
    dict(), dict(detach_target=True), dict(imitation='mask', mask=1.0, alpha=5.0, policy_freq=3), dict(imitation='all'),
    dict(mask=0, vae_weight=1.5, policy_noise=0.5, noise_clip=0.3), dict(imitation='all', policy_freq=1, mask=2.0),
    dict(ignore_done=True, discount_factor=0.9, target_theta=0.1),
]


@pytest.mark.parametrize('learn', FORMS)
@pytest.mark.parametrize('layer_norm', [False, True])
def test_twenty_iterations_are_those_of_the_released_step(monkeypatch, learn, layer_norm):
    learn = dict(learn, learning_rate_q=1e-2, learning_rate_policy=1e-2)
    monkeypatch.setitem(make_model.__globals__['SMALL'], 'a2pr', dict(
        critic_hidden_sizes=(24, 16), vae_hidden_sizes=(20, 20), critic_layer_norm=layer_norm
    ))
    training = make_training(3, learn, algorithm=A2PR)
    made, batches, noise = training.algorithm, [], []
    explicit = Explicit(made.models[0], made.settings)
    step, draw = made.step, made._noise
    monkeypatch.setattr(made, 'step', lambda draws: batches.append(draws['uniform'].batch) or step(draws))
    monkeypatch.setattr(made, '_noise', lambda like: noise.append(draw(like)) or noise[-1])
    for _ in range(20):
        noise.clear()
        training.iterate()
        batch = {name: column.clone() for name, column in batches[-1].columns.items()}
        if learn.get('ignore_done'):
            batch['done'] = torch.zeros(N)
        explicit.step(batch, [each[0] for each in noise])
    found = {'model': made.models[0].state_dict(), **made.tree()['target']}
    wanted = {'model': explicit.m, 'actor': explicit.actor, 'critics': explicit.critics}
    for part, module in wanted.items():
        assert found[part].keys() == module.state_dict().keys()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(found[part][name], value, rtol=1e-9, atol=1e-9)


def test_the_gradient_passes_through_the_vae_or_not():
    steps = []
    for detach in (False, True):
        training = make_training(3, dict(detach_target=detach, policy_freq=1, mask=5.0), algorithm=A2PR)
        training.iterate()
        steps.append(training.algorithm.models[0].actor.state_dict())
    assert any(not torch.equal(*pair) for pair in zip(*(step.values() for step in steps)))


# ---------------------------------------------------------------- settings


def test_published_settings_and_presets():
    assert set(PUBLISHED) < set(D4RL_IDS)
    learn = make_config('halfcheetah-medium-replay-v2', 'a2pr')[0].policy.learn
    assert (learn.alpha, learn.mask, learn.vae_weight, learn.discount_factor) == (40.0, 0.8, 1.5, 0.995)
    main, create = make_config('walker2d-expert-v2', 'a2pr')
    assert 'alpha' not in main.policy.learn and main.env.norm_obs.use_norm and create.policy.type == 'a2pr'
    for preset, imitation in (('a2pr_mask', 'mask'), ('a2pr_all', 'all')):
        main = make_config('hopper-medium-v2', preset)[0]
        assert main.policy.learn.imitation == imitation and main.policy.model.vae is False


@pytest.mark.parametrize('learn, message', [
    (dict(alpha=0), 'learn.alpha is 0; it must be a positive finite number'),
    (dict(mask=-1.0), 'learn.mask is -1.0; it must be a finite number from 0'),
    (dict(imitation='wpc'), "learn.imitation is 'wpc'; it must be one of 'a2pr', 'mask', 'all'"),
    (dict(policy_freq=0), 'learn.policy_freq is 0; it must be a positive whole number'),
])
def test_settings_out_of_range(learn, message):
    with pytest.raises(ValueError, match=message):
        A2PRSettings.read(learn)


def test_a_vae_is_needed_or_not():
    model = A2PRModel(OBS, ACT, hidden_sizes=(8, 8), critic_hidden_sizes=(8, 8), vae=False)
    assert not any('coder' in name for name in model.state_dict())
    with pytest.raises(ValueError, match="learn.imitation is 'a2pr', but model.vae is False"):
        A2PR(model, A2PRSettings.read({}))
    A2PR(model, A2PRSettings.read(dict(imitation='mask')))

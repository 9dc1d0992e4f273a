"""One A2PR iteration on tensors, in the order of its released code: critics, V, VAE, and every second time the policy.

Shapes lead with R, the number of replicas, 1 for a single run: observations (R, n, O), quantities of samples (R, n).
"""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.a2pr.model import A2PRModel, actor
from ding_cawr.algorithms.a2pr.presets import PRESETS
from ding_cawr.algorithms.a2pr.settings import A2PRSettings, ModelSettings
from ding_cawr.algorithms.base import Algorithm, Step, Tree, adam, replica_of
from ding_cawr.checks import Bound
from ding_cawr.data.buffer import Sample
from ding_cawr.networks.stacked import Stacked, descend

#: Bounds of the logarithm of the VAE's standard deviation.
LOG_STD = -4.0, 15.0


class A2PR(Algorithm):
    """Networks, targets and optimizers, and the iteration that moves them.

    Arguments:
        models: the model, or those of R replicas, which then train at once.
        settings: the same for all.
    """
    name, Model, ModelSettings, Settings, PRESETS = 'a2pr', A2PRModel, ModelSettings, A2PRSettings, PRESETS
    STATE_BOUNDS = {'exp_avg_sq': Bound(0), 'step': Bound(0)}
    draws = ('uniform', )

    def __init__(self, models: A2PRModel | Sequence[A2PRModel], settings: A2PRSettings) -> None:
        self.settings, self.lead = settings, () if isinstance(models, nn.Module) else (len(models), )
        self.models = [models] if isinstance(models, nn.Module) else list(models)
        self._check_vae()
        self.period = settings.policy_freq
        self.policy = Stacked([[model.actor.net] for model in self.models])
        self.critics = Stacked([list(model.critics) for model in self.models])
        self.target_modules = [
            dict(actor=copy.deepcopy(model.actor), critics=copy.deepcopy(model.critics)) for model in self.models
        ]
        self.target_policy = Stacked([[target['actor'].net] for target in self.target_modules])
        self.target_critics = Stacked([list(target['critics']) for target in self.target_modules])
        self.trained = {'critics': [self.critics], 'policy': [self.policy]}
        rates = dict(critics=settings.learning_rate_q, policy=settings.learning_rate_policy)
        if settings.imitation != 'all':
            self.value = Stacked([[model.value] for model in self.models])
            self.trained['value'], rates['value'] = [self.value], settings.learning_rate_value
        if settings.imitation == 'a2pr':
            self.encoder = Stacked([[model.encoder] for model in self.models])
            self.decoder = Stacked([[model.decoder] for model in self.models])
            self.trained['vae'], rates['vae'] = [self.encoder, self.decoder], settings.learning_rate_vae
        #: Parameters by network and name, and an optimizer for each network; the VAE is one.
        self.parameters = {
            name: {f'{number}.{key}': each for number, net in enumerate(nets) for key, each in net.parameters.items()}
            for name, nets in self.trained.items()
        }
        self.optimizers = {name: adam(each, rates[name]) for name, each in self.parameters.items()}
        self.use_products(self.products)  # one for all networks, as a checkpoint says it
        like = next(iter(self.policy.parameters.values()))
        self.iteration = torch.zeros((), dtype=torch.float64, device=like.device)
        #: The latest loss of the policy (R,), which not every iteration has.
        self.latest_policy_loss = torch.zeros(len(self.models), dtype=like.dtype, device=like.device)

    def _check_vae(self) -> None:
        if self.settings.imitation == 'a2pr' and self.models[0].encoder is None:
            raise ValueError(
                "learn.imitation is 'a2pr', but model.vae is False; set it to True, or imitation to 'mask'"
            )

    @property
    def products(self) -> str:
        return self.critics.products.name

    def use_products(self, name: str) -> bool:
        return all([net.use_products(name) for net in self._nets()])

    def _nets(self) -> list[Stacked]:
        trained = [net for nets in self.trained.values() for net in nets]
        return [*trained, self.target_policy, self.target_critics]

    def _descend(self, loss: Tensor, name: str) -> None:
        descend(loss, self.optimizers[name], *self.trained[name])

    def step(self, draws: Mapping[str, Sample]) -> Step:
        """Return what one iteration on n uniform samples gave."""
        obs, action, reward, next_obs, done = self._columns(draws['uniform'])
        keep = self.settings.discount_factor * (1 - done)
        with torch.no_grad():
            next_action = self._smoothed(self.target_policy(next_obs)[:, 0])
            target = reward + keep * _least(self.target_critics, next_obs, next_action)
        q_values = _q(self.critics, obs, action)
        critic_loss = (q_values - target.unsqueeze(1)).square().mean(dim=-1).sum(dim=1)
        self._descend(critic_loss, 'critics')

        losses, per_sample = dict(critic_loss=critic_loss), dict(q_value=q_values[:, 0], target=target)
        if self.settings.imitation != 'all':
            with torch.no_grad():
                pessimistic = torch.minimum(target, reward + keep * _least(self.critics, next_obs, next_action))
            value = self.value(obs)[:, 0, :, 0]
            losses['value_loss'] = (value - pessimistic).square().mean(dim=-1)
            self._descend(losses['value_loss'], 'value')
            # By the critics after their step and V before its own.
            value = value.detach()
            with torch.no_grad():
                advantage = _first(self.critics, obs, action) - value
            per_sample.update(value=value, advantage=advantage)
        if self.settings.imitation == 'a2pr':
            losses['vae_loss'] = self._step_vae(obs, action, advantage)
        if self.phase == self.period - 1:
            self.latest_policy_loss.copy_(self._step_policy(obs, action, per_sample))
        losses['policy_loss'] = self.latest_policy_loss.clone()
        self.iteration += 1
        return Step(self._lead(losses), self._lead(per_sample), None)

    def _columns(self, sample: Sample) -> tuple[Tensor, ...]:
        """Return the columns with R in front; done is 0 everywhere where it is ignored."""
        names = 'obs', 'action', 'reward', 'next_obs', 'done'
        columns = [sample.batch[name] if self.lead else sample.batch[name].unsqueeze(0) for name in names]
        columns[-1] = torch.zeros_like(columns[2]) if self.settings.ignore_done else columns[-1].to(columns[2].dtype)
        return tuple(columns)

    def _noise(self, like: Tensor) -> Tensor:
        """Return standard normal noise (R, n, ...), that of each replica from its generator."""
        return torch.stack([
            torch.randn(like.shape[1:], dtype=like.dtype, device=like.device, generator=generator)
            for generator in self.generators
        ])

    def _smoothed(self, action: Tensor) -> Tensor:
        """Return the target's actions with clipped noise (TD3), within [-1, 1]."""
        bound = self.settings.noise_clip
        noise = (self.settings.policy_noise * self._noise(action)).clamp(-bound, bound)
        return (action + noise).clamp(-1, 1)

    def _reconstruct(self, obs: Tensor, action: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return the VAE's actions (R, n, A), and mean and log standard deviation of its latent numbers (R, n, 2A)."""
        encoded = self.encoder(torch.cat([obs, action], dim=-1), frozen)[:, 0]
        mean, log_std = encoded.chunk(2, dim=-1)
        log_std = log_std.clamp(*LOG_STD)
        latent = mean + log_std.exp() * self._noise(mean)
        return self.decoder(torch.cat([obs, latent], dim=-1), frozen)[:, 0], mean, log_std

    def vae_loss(self, action: Tensor, advantage: Tensor, found: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Return the reconstruction's error, of samples of positive advantage alone, and half the KL divergence."""
        on = (advantage > self.settings.advantage_threshold).to(action.dtype).unsqueeze(-1)
        error = (self.settings.vae_weight * on * (found - action).square()).mean(dim=(-2, -1))
        divergence = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean(dim=(-2, -1))
        return error + 0.5 * divergence

    def _step_vae(self, obs: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
        loss = self.vae_loss(action, advantage, *self._reconstruct(obs, action))
        self._descend(loss, 'vae')
        return loss

    def _step_policy(self, obs: Tensor, action: Tensor, per_sample: Mapping[str, Tensor]) -> Tensor:
        """Move the policy, and with it the targets; return its loss (R,)."""
        own = self.policy(obs)[:, 0]
        q_value = _first(self.critics, obs, own, frozen=True)
        target, on = self._imitated(obs, action, own, per_sample)
        loss = self.policy_loss(q_value, (own - target).square(), on)
        self._descend(loss, 'policy')
        self.target_policy.move(self.policy, self.settings.target_theta)
        self.target_critics.move(self.critics, self.settings.target_theta)
        return loss.detach()

    def policy_loss(self, q_value: Tensor, error: Tensor, on: Tensor) -> Tensor:
        """Return -α / mean|Q| · mean Q + mean(mask · on · error) of Q(s, π) (R, n), squared errors (R, n, A) and the
        samples that are imitated (R, n)."""
        scale = self.settings.alpha / q_value.detach().abs().mean(dim=-1)
        imitation = (self.settings.mask * on.unsqueeze(-1) * error).mean(dim=(-2, -1))
        return imitation - scale * q_value.mean(dim=-1)

    def _imitated(
        self, obs: Tensor, action: Tensor, own: Tensor, per_sample: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the actions (R, n, A) that the policy is drawn to, and where (R, n) it is."""
        if self.settings.imitation == 'all':
            return action, torch.ones_like(action[..., 0])
        advantage, threshold = per_sample['advantage'], self.settings.advantage_threshold
        if self.settings.imitation == 'mask':
            return action, (advantage > threshold).to(action.dtype)
        with torch.set_grad_enabled(not self.settings.detach_target):
            reconstructed, _, _ = self._reconstruct(obs, own, frozen=True)
        with torch.no_grad():
            other = _first(self.critics, obs, reconstructed) - per_sample['value']
        better = (other >= advantage).unsqueeze(-1)  # a tie takes the VAE's
        on = (other >= threshold) | (advantage > threshold)
        return torch.where(better, reconstructed, action), on.to(action.dtype)

    def _lead(self, quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: (each if self.lead else each[0]).detach() for name, each in quantities.items()}

    @classmethod
    def metric_names(cls, settings: A2PRSettings) -> list[str]:
        """Return the names of what ``metrics`` gives."""
        names = ['total_loss', 'critic_loss', 'policy_loss', 'q_value', 'target_value']
        if settings.imitation != 'all':
            names += ['value_loss', 'value', 'advantage_mean', 'advantage_std', 'positive_share']
        return names + ['vae_loss'] * (settings.imitation == 'a2pr')

    def metrics(self, step: Step) -> dict[str, Tensor]:
        """Return means of a step, a scalar or (R,) each; positive_share is that of positive advantages."""
        metrics = {
            **step.losses, 'total_loss': sum(step.losses.values()),
            'q_value': step.per_sample['q_value'].mean(dim=-1), 'target_value': step.per_sample['target'].mean(dim=-1),
        }
        if 'advantage' in step.per_sample:
            advantage = step.per_sample['advantage']
            metrics.update(
                value=step.per_sample['value'].mean(dim=-1), advantage_mean=advantage.mean(dim=-1),
                advantage_std=advantage.std(dim=-1),
                positive_share=(advantage > self.settings.advantage_threshold).double().mean(dim=-1),
            )
        return metrics

    def tree(self, replica: int = 0) -> Tree:
        """Return networks, targets and Adam's moments of one replica; not copies."""
        count = len(self.models)
        moments = {
            name: {key: {what: replica_of(part, replica, count)
                         for what, part in self.optimizers[name].state[parameter].items()}
                   for key, parameter in parameters.items()}
            for name, parameters in self.parameters.items()
        }
        targets = self.target_modules[replica]
        return {
            'model': dict(self.models[replica].state_dict()),
            'target': {name: dict(module.state_dict()) for name, module in targets.items()},
            'optimizer': moments,
            'policy_loss': {'latest': self.latest_policy_loss[replica:replica + 1]},
        }

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an iteration changes."""
        moments = [part for optimizer in self.optimizers.values() for state in optimizer.state.values()
                   for part in state.values()]
        parameters = [parameter.detach() for net in self._nets() for parameter in net.parameters.values()]
        return [self.iteration, self.latest_policy_loss, *parameters, *moments]

    @staticmethod
    def actor(state: Mapping[str, Any], source: str) -> nn.Module:
        """Return π from a checkpoint's state."""
        return actor(state, source)


def _q(critics: Stacked, obs: Tensor, action: Tensor) -> Tensor:
    """Return Q₁ and Q₂ (R, 2, n) of states and actions."""
    return critics(torch.cat([obs, action], dim=-1)).squeeze(-1)


def _first(critics: Stacked, obs: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
    """Return Q₁ (R, n) of states and actions."""
    return critics(torch.cat([obs, action], dim=-1), frozen, count=1)[:, 0, :, 0]


def _least(critics: Stacked, obs: Tensor, action: Tensor) -> Tensor:
    """Return min(Q₁, Q₂) (R, n)."""
    return _q(critics, obs, action).amin(dim=1)

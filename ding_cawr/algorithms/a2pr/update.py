"""One A2PR iteration on tensors, in the order of its released code: critics, V, VAE, and every policy_freq-th time the
policy and the targets.

With a priority, as in CAWR (arXiv 2506.15654), or with the better episodes, the policy's step has a batch of its own.

Shapes lead with R, the number of replicas, 1 for a single run: observations (R, n, O), quantities of samples (R, n).
"""
from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ding_cawr.algorithms.a2pr.model import A2PRModel, actor
from ding_cawr.algorithms.a2pr.presets import PRESETS
from ding_cawr.algorithms.a2pr.settings import A2PRSettings, ModelSettings
from ding_cawr.algorithms.base import CHUNK, Step, Tree
from ding_cawr.algorithms.selection import Selection
from ding_cawr.algorithms.stacked import StackedAlgorithm
from ding_cawr.checks import Bound
from ding_cawr.data.buffer import Sample
from ding_cawr.data.table import Table
from ding_cawr.networks.optimizers import Adam
from ding_cawr.networks.stacked import Stacked

#: Bounds of the logarithm of the VAE's standard deviation.
LOG_STD = -4.0, 15.0
#: σ in the constants of robust losses; a deterministic policy has none of its own, and this is that of CAWR's.
SIGMA = math.exp(-2)
#: Quantities and losses of D1 (0) or D2 (1) alone.
SINGLE_DRAW = dict(q_value=0, target=0, critic_loss=0, value_loss=0, vae_loss=0, policy_loss=1)
#: Quantities per sample of all batches, where V is trained.
ESTIMATED = 'value', 'advantage'
#: Parts of a checkpoint that only some settings train, each with the setting that trains it.
OPTIONAL = {
    ('optimizer', 'vae'): "learn.imitation 'a2pr'",
    ('optimizer', 'value'): "learn.imitation 'a2pr' or 'mask', or a learn.priority",
    ('selection', ): "a learn.priority other than 'none'",
}


class A2PR(StackedAlgorithm):
    """Networks, targets and optimizers, and the iteration that moves them.

    Arguments:
        models: the model, or those of R replicas, which then train at once.
        settings: the same for all.
    """
    name, Model, ModelSettings, Settings, PRESETS = 'a2pr', A2PRModel, ModelSettings, A2PRSettings, PRESETS
    STATE_BOUNDS = {'exp_avg_sq': Bound(0), 'step': Bound(0), **Selection.STATE_BOUNDS}
    #: An iteration without and one with the policy's step.
    variants = 2
    SYNONYMS = {  # DI-engine's names, in td3_bc
        'learning_rate_critic': 'learn.learning_rate_q',
        'model.critic_head_hidden_size': 'model.critic_hidden_sizes',
        'model.critic_head_layer_num': 'model.critic_hidden_sizes',
        'actor_update_freq': 'learn.policy_freq', 'noise': 'learn.policy_noise', 'noise_sigma': 'learn.policy_noise',
        'noise_range': 'learn.noise_clip',
    }
    HOMONYMS = {
        'alpha': (('auto_alpha', 'learning_rate_alpha'), "the weight of the entropy (DI-engine's sac, cql, edac)")
    }

    def __init__(self, models: A2PRModel | Sequence[A2PRModel], settings: A2PRSettings) -> None:
        super().__init__(models, settings)
        if settings.imitation == 'a2pr' and self.models[0].encoder is None:
            raise ValueError(
                "learn.imitation is 'a2pr', but model.vae is False; set it to True, or imitation to 'mask'"
            )
        if settings.imitation != 'a2pr' and self.models[0].encoder is not None:
            warnings.warn(
                f'nothing depends on the VAE with learn.imitation {settings.imitation!r}, and every checkpoint holds '
                'it; set model.vae to False', stacklevel=2
            )
        self.period = settings.policy_freq
        self.policy = Stacked([[model.actor.net] for model in self.models])
        self.critics = Stacked([list(model.critics) for model in self.models])
        self.target_modules = [
            dict(actor=copy.deepcopy(model.actor), critics=copy.deepcopy(model.critics)) for model in self.models
        ]
        self.target_policy = Stacked([[target['actor'].net] for target in self.target_modules])
        self.target_critics = Stacked([list(target['critics']) for target in self.target_modules])
        self.targets = self.target_policy, self.target_critics
        trained = {'critics': [self.critics], 'policy': [self.policy]}
        rates = dict(critics=settings.learning_rate_q, policy=settings.learning_rate_policy)
        if settings.uses_value:
            self.value = Stacked([[model.value] for model in self.models])
            trained['value'], rates['value'] = [self.value], settings.learning_rate_value
        if settings.imitation == 'a2pr':
            self.encoder = Stacked([[model.encoder] for model in self.models])
            self.decoder = Stacked([[model.decoder] for model in self.models])
            trained['vae'], rates['vae'] = [self.encoder, self.decoder], settings.learning_rate_vae
        self._train(trained, lambda name, parameters: Adam(parameters, rates[name]), latest=['policy'])
        self.selection = Selection(settings, self.like.device, self.replica_shape) if settings.priority else None
        self.draw_kinds = ('uniform', 'prioritized') if settings.own_batch else ('uniform', )

    @property
    def variant(self) -> int:
        return int(self.phase == self.period - 1)

    def step(self, draws: Mapping[str, Sample]) -> Step:
        """Return what one iteration on D1 (uniform) gave; with a batch of the policy's own also on D2 (prioritized).

        Q and its target per sample are those of D1 (n,), V and the advantage those of D1, or of D1 ∪ D2 (2n,).
        """
        obs, action, reward, next_obs, done = self._columns(
            draws['uniform'], 'obs', 'action', 'reward', 'next_obs', 'done'
        )
        batches = [(obs, action), *(self._columns(draws[kind], 'obs', 'action') for kind in self.draw_kinds[1:])]
        discount = self.settings.discount_factor * (1 - done)
        with torch.no_grad():
            next_action = self._smoothed(self.target_policy(next_obs)[:, 0])
            target = reward + discount * _min_q(self.target_critics, next_obs, next_action)
        q_values = _twin_q(self.critics, obs, action)
        critic_loss = (q_values - target.unsqueeze(1)).square().mean(dim=-1).sum(dim=1)
        self._descend(critic_loss, 'critics')

        losses, per_sample = dict(critic_loss=critic_loss), dict(q_value=q_values[:, 0], target=target)
        if self.settings.uses_value:
            with torch.no_grad():
                pessimistic = torch.minimum(target, reward + discount * _min_q(self.critics, next_obs, next_action))
            losses['value_loss'], estimated = self._step_value(batches, pessimistic)
            per_sample.update(estimated)
        if self.settings.imitation == 'a2pr':
            losses['vae_loss'] = self._step_vae(obs, action, per_sample['advantage'][:, :reward.shape[1]])
        if self.variant:
            estimated = {name: per_sample[name][:, -reward.shape[1]:] for name in ESTIMATED if name in per_sample}
            self._step_policy(*batches[-1], **estimated)
        losses['policy_loss'] = self.latest['policy'].clone()
        per_sample, priority = self._without_replicas(per_sample), None
        if self.selection:
            priority = self.selection.step(per_sample['advantage'], self.iteration).priority
        self.iteration += 1
        single_draw = SINGLE_DRAW if self.settings.own_batch else {}
        return Step(self._without_replicas(losses), per_sample, priority, single_draw)

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

    def vae_loss(
        self, action: Tensor, advantage: Tensor, reconstructed: Tensor, mean: Tensor, log_std: Tensor
    ) -> Tensor:
        """Return the reconstruction's error, of samples of positive advantage alone, and half the KL divergence."""
        is_positive = (advantage > self.settings.advantage_threshold).to(action.dtype).unsqueeze(-1)
        error = (self.settings.vae_weight * is_positive * (reconstructed - action).square()).mean(dim=(-2, -1))
        divergence = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean(dim=(-2, -1))
        return error + 0.5 * divergence

    def _step_value(
        self, batches: Sequence[tuple[Tensor, Tensor]], target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Move V to the target of the first batch; return the loss (R,), and value and advantage of all batches, by the
        critics after their step and V before its own."""
        value = self.value(batches[0][0])[:, 0, :, 0]
        values = [value.detach(), *(self._value(obs) for obs, _ in batches[1:])]
        loss = (value - target).square().mean(dim=-1)
        self._descend(loss, 'value')
        with torch.no_grad():
            advantages = [_q1(self.critics, *batch) - each for batch, each in zip(batches, values)]
        return loss, dict(value=torch.cat(values, dim=-1), advantage=torch.cat(advantages, dim=-1))

    def _value(self, obs: Tensor) -> Tensor:
        """Return V (R, n) of states, without gradients."""
        return self.value(obs, frozen=True)[:, 0, :, 0]

    def _step_vae(self, obs: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
        loss = self.vae_loss(action, advantage, *self._reconstruct(obs, action))
        self._descend(loss, 'vae')
        return loss

    def _step_policy(self, obs: Tensor, action: Tensor, **estimated: Tensor) -> None:
        """Move the policy by its batch, of which V and the advantage (R, n) are estimated, and with it the targets."""
        policy_action = self.policy(obs)[:, 0]
        q_value = _q1(self.critics, obs, policy_action, frozen=True)
        target, is_imitated = self._imitated(obs, action, policy_action, **estimated)
        self._descend(self.policy_loss(q_value, policy_action - target, is_imitated), 'policy')
        self.target_policy.move(self.policy, self.settings.target_theta)
        self.target_critics.move(self.critics, self.settings.target_theta)

    def policy_loss(self, q_value: Tensor, error: Tensor, is_imitated: Tensor) -> Tensor:
        """Return -α / mean|Q| · mean Q + mean(mask · is_imitated · f(error)), (R,).

        f is taken as it is in ``POLICY_LOSSES``, elementwise, and the mean goes over samples and dimensions: f(e) = e²
        gives TD3+BC's squared error. That is CAWR's loss, Σ_j f(e_j) / (2σ²), times 2σ² / A for every f alike, so that
        losses stand to each other as in CAWR. σ has a part in the defaults of the constants of flat and skew alone.

        Arguments:
            q_value: Q(s, π), (R, n).
            error: policy's action minus the imitated one, (R, n, A).
            is_imitated: 1 where a sample is imitated, else 0, (R, n).
        """
        scale = self.settings.alpha / q_value.detach().abs().mean(dim=-1)
        error = self.settings.policy_loss(error, SIGMA)
        imitation = (self.settings.mask * is_imitated.unsqueeze(-1) * error).mean(dim=(-2, -1))
        return imitation - scale * q_value.mean(dim=-1)

    def _imitated(
        self, obs: Tensor, action: Tensor, policy_action: Tensor, value: Tensor | None = None,
        advantage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the actions (R, n, A) that are imitated, and where (R, n) they are; 'all' needs no estimates."""
        if self.settings.imitation == 'all':
            return action, torch.ones_like(action[..., 0])
        threshold = self.settings.advantage_threshold
        if self.settings.imitation == 'mask':
            return action, (advantage > threshold).to(action.dtype)
        with torch.set_grad_enabled(not self.settings.detach_target):
            reconstructed, _, _ = self._reconstruct(obs, policy_action, frozen=True)
        with torch.no_grad():
            vae_advantage = _q1(self.critics, obs, reconstructed) - value
        is_better = (vae_advantage >= advantage).unsqueeze(-1)  # a tie takes the VAE's
        is_imitated = (vae_advantage >= threshold) | (advantage > threshold)
        return torch.where(is_better, reconstructed, action), is_imitated.to(action.dtype)

    def quantities(self, data: Table) -> dict[str, Tensor]:
        """Return V and the advantage (N,) of a whole dataset."""
        estimated, size = [], CHUNK // len(self.models)
        for chunk in zip(data['obs'].split(size), data['action'].split(size)):
            obs, action = (each.expand(len(self.models), *each.shape) for each in chunk)
            value = self._value(obs)
            estimated.append((value, _q1(self.critics, obs, action, frozen=True) - value))
        value, advantage = (torch.cat(parts, dim=-1) for parts in zip(*estimated))
        return self._without_replicas(dict(value=value, advantage=advantage))

    @classmethod
    def metric_names(cls, settings: A2PRSettings) -> list[str]:
        """Return the names of what ``metrics`` gives."""
        names = ['total_loss', 'critic_loss', 'policy_loss', 'q_value', 'target_value']
        if settings.uses_value:
            names += ['value_loss', 'value', 'advantage_mean', 'advantage_std', 'positive_share']
        names += ['temperature', 'selection_effective_share'] * (settings.priority is not None)
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
                advantage_std=advantage.std(dim=-1, correction=0),
                positive_share=(advantage > self.settings.advantage_threshold).double().mean(dim=-1),
            )
        if self.selection:
            metrics.update(
                temperature=self.selection.temperature, selection_effective_share=self.selection.share(advantage)
            )
        return metrics

    def tree(self, replica: int = 0) -> Tree:
        """Return networks, targets, Adam's moments and, with a priority, the selection of one replica; not copies."""
        targets = self.target_modules[replica]
        return {
            **super().tree(replica),
            'target': {name: dict(module.state_dict()) for name, module in targets.items()},
            **({'selection': self.selection.tree(replica)} if self.selection else {}),
        }

    def check_settings(self, state: Mapping[str, Any]) -> None:
        """Raise a ValueError for a checkpoint of another imitation, or with a priority where there is none."""
        own = self.tree()
        for place, setting in OPTIONAL.items():
            asked, found = (_has(tree, *place) for tree in (own, state))
            if asked != found:
                raise ValueError(
                    f'the checkpoint was made with{"" if found else "out"} {setting}, and this configuration '
                    f'with{"" if asked else "out"}; set it as in the checkpoint, or take another checkpoint'
                )

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an iteration changes."""
        return super().tensors() + (self.selection.tensors() if self.selection else [])

    actor = staticmethod(actor)


def _has(tree: Any, *place: str) -> bool:
    for name in place:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree is not None


def _twin_q(critics: Stacked, obs: Tensor, action: Tensor) -> Tensor:
    """Return Q₁ and Q₂ (R, 2, n) of states and actions."""
    return critics(torch.cat([obs, action], dim=-1)).squeeze(-1)


def _q1(critics: Stacked, obs: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
    """Return Q₁ (R, n) of states and actions."""
    return critics(torch.cat([obs, action], dim=-1), frozen, count=1)[:, 0, :, 0]


def _min_q(critics: Stacked, obs: Tensor, action: Tensor) -> Tensor:
    """Return min(Q₁, Q₂) (R, n)."""
    return _twin_q(critics, obs, action).amin(dim=1)

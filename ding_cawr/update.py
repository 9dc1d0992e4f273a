"""One CAWR iteration on tensors: Algorithm 1 of the paper, in the order of its released code.

Every forward pass precedes every step, and the soft target Q̄ gives both V's target and the advantage.
"""
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ding_cawr.advantage import advantage_weight, effective_sample_size
from ding_cawr.losses import expectile_loss
from ding_cawr.model import CAWRModel

Batch = Mapping[str, Tensor]  # obs (n, O), action (n, A), reward (n,), next_obs (n, O), done (n,) bool

WEIGHTINGS = ('per_sample', 'batch_mean', 'none')


@dataclass(frozen=True)
class UpdateSettings:
    """What one iteration depends on, by the names of the configuration."""
    learning_rate_q: float
    learning_rate_value: float
    learning_rate_policy: float
    discount_factor: float
    target_theta: float
    expectile: float
    temperature: float
    max_weight: float
    normalize_advantage: bool
    weighting: str
    policy_loss: Callable[[Tensor, float], Tensor]
    cosine_iterations: int | None


class Step(NamedTuple):
    """What one iteration saw, detached: per-sample quantities are over D1 ∪ D2, (2n,), those of the policy over D2."""
    advantage: Tensor
    weight: Tensor
    q_value: Tensor
    value: Tensor
    value_loss: Tensor
    critic_loss: Tensor
    policy_loss: Tensor


class Update:
    """Networks, target and optimizers, and the iteration that moves them."""

    def __init__(self, model: CAWRModel, settings: UpdateSettings) -> None:
        self.model, self.settings = model, settings
        self.target_critic = copy.deepcopy(model.critic).requires_grad_(False)
        self.optimizers = {
            'value': torch.optim.Adam(model.value.parameters(), lr=settings.learning_rate_value, fused=True),
            'critic': torch.optim.Adam(model.critic.parameters(), lr=settings.learning_rate_q, fused=True),
            'policy': torch.optim.Adam(model.policy.parameters(), lr=settings.learning_rate_policy, fused=True),
        }
        self.schedule = settings.cosine_iterations and torch.optim.lr_scheduler.LambdaLR(
            self.optimizers['policy'], lambda done: cosine(done / settings.cosine_iterations)
        )
        self._clip = math.inf if settings.weighting == 'none' else settings.max_weight
        self._soft_update_pairs = list(self.target_critic.parameters()), list(model.critic.parameters())

    def step(self, uniform_batch: Batch, prioritized_batch: Batch) -> Step:
        """One iteration on D1 (uniform) and D2 (prioritized), n samples each."""
        d1, d2, model = uniform_batch, prioritized_batch, self.model
        n = len(d1['reward'])
        with torch.no_grad():
            q_value = self.target_critic(_both(d1, d2, 'obs'), _both(d1, d2, 'action')).amin(dim=0)
            next_value, value_d2 = model.value(torch.cat([d1['next_obs'], d2['obs']])).split(n)
        value_d1 = model.value(d1['obs'])

        value_loss = self.value_loss(value_d1, q_value[:n])
        critic_loss = self.critic_loss(d1, next_value)
        value = torch.cat([value_d1.detach(), value_d2])
        advantage = q_value - value
        weight = self.policy_weight(advantage)[n:]
        policy_loss = self.policy_loss(d2, weight)

        self._descend(value_loss + critic_loss + policy_loss)
        losses = value_loss.detach(), critic_loss.detach(), policy_loss.detach()
        return Step(advantage, weight, q_value, value, *losses)

    def value_loss(self, value: Tensor, q_value: Tensor) -> Tensor:
        """Expectile regression of V (n,) towards min Q̄ (n,) (IQL, Eq. 5)."""
        return expectile_loss(q_value - value, self.settings.expectile).mean()

    def critic_loss(self, batch: Batch, next_value: Tensor) -> Tensor:
        """Squared error of both Q to r + γ (1 - done) V(s'), batch means summed over the heads (IQL, Eq. 6)."""
        not_done = 1 - batch['done'].to(next_value.dtype)
        target = batch['reward'] + self.settings.discount_factor * not_done * next_value
        q_value = self.model.critic(batch['obs'], batch['action'])
        return F.mse_loss(q_value, target.expand_as(q_value), reduction='none').mean(dim=1).sum()

    def policy_weight(self, advantage: Tensor) -> Tensor:
        """Weights (2n,) of the policy's samples, normalized over D1 ∪ D2."""
        settings = self.settings
        if settings.weighting == 'none':
            return torch.ones_like(advantage)
        return advantage_weight(advantage, settings.temperature, settings.max_weight, settings.normalize_advantage)

    def policy_loss(self, batch: Batch, weight: Tensor) -> Tensor:
        """mean_i [w_i / (2σ²) Σ_j f(a_ij - μ_j(s_i))] (CAWR, Eq. 9), or with 'batch_mean' mean(w) times the mean of the
        rest, which is what the released code computes."""
        error = batch['action'] - self.model.policy(batch['obs'])
        loss = self.settings.policy_loss(error, self.model.sigma).sum(dim=-1) / (2 * self.model.sigma**2)
        if self.settings.weighting == 'batch_mean':
            return weight.mean() * loss.mean()
        return (weight * loss).mean()

    def _descend(self, loss: Tensor) -> None:
        """One Adam step for V, Q and the policy, which share no parameter, then the target's step."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        if self.schedule:
            self.schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(*self._soft_update_pairs, self.settings.target_theta)

    def metrics(self, step: Step) -> dict[str, float]:
        """Means and shares of a step as floats; each waits for the device, so only for steps that are shown."""
        advantage, weight = step.advantage, step.weight
        tensors = {
            'value_loss': step.value_loss,
            'critic_loss': step.critic_loss,
            'policy_loss': step.policy_loss,
            'total_loss': step.value_loss + step.critic_loss + step.policy_loss,
            'advantage_mean': advantage.mean(),
            'advantage_std': advantage.std(),
            'advantage_min': advantage.amin(),
            'advantage_max': advantage.amax(),
            'weight_clipped_share': (weight >= self._clip).double().mean(),
            'weight_effective_share': effective_sample_size(weight),
            'q_value': step.q_value.mean(),
            'value': step.value.mean(),
        }
        return {name: tensor.item() for name, tensor in tensors.items()}

    def state_dict(self) -> dict:
        """Target, optimizers and schedule in plain containers; the model saves itself."""
        return {
            'target_critic': self.target_critic.state_dict(),
            **{f'optimizer_{name}': optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            'schedule': self.schedule.state_dict() if self.schedule else None,
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Inverse of ``state_dict``."""
        self.target_critic.load_state_dict(state['target_critic'])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[f'optimizer_{name}'])
        if self.schedule and state['schedule']:
            self.schedule.load_state_dict(state['schedule'])


def cosine(progress: float) -> float:
    """Factor of a learning rate that falls from 1 to 0 while ``progress`` goes from 0 to 1, and stays there."""
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))


def _both(d1: Batch, d2: Batch, name: str) -> Tensor:
    return torch.cat([d1[name], d2[name]])

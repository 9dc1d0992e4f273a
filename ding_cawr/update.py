"""One CAWR iteration on tensors: Algorithm 1 of the paper, in the order of its released code.

Every forward pass precedes every step, and the soft target Q̄ gives both V's target and the advantage.
"""
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ding_cawr.advantage import effective_sample_size
from ding_cawr.losses import expectile_loss
from ding_cawr.model import CAWRModel
from ding_cawr.selection import Selection, SelectionSettings
from ding_cawr.tightening import Tightening, TighteningSettings

Batch = Mapping[str, Tensor]  # obs (n, O), action (n, A), reward (n,), next_obs (n, O), done (n,) bool

#: Rows judged at a time when the critics judge a whole dataset.
CHUNK = 1 << 15


@dataclass(frozen=True)
class UpdateSettings:
    """What one iteration depends on, by the names of the configuration."""
    learning_rate_q: float
    learning_rate_value: float
    learning_rate_policy: float
    discount_factor: float
    target_theta: float
    expectile: float
    selection: SelectionSettings
    policy_loss: Callable[[Tensor, float], Tensor]
    tightening: TighteningSettings | None
    cosine_iterations: int | None


class Judgement(NamedTuple):
    """What the critics make of samples (B,), detached: min(Q̄1, Q̄2)(s, a) and V(s)."""
    q_value: Tensor
    value: Tensor

    @property
    def advantage(self) -> Tensor:
        """A = min(Q̄1, Q̄2)(s, a) - V(s), (B,)."""
        return self.q_value - self.value


class Step(NamedTuple):
    """What one iteration saw, detached. Judgement and priorities are over D1 ∪ D2, (2n,), D1's ``uniform`` samples
    first, or over D2 alone where the critics are frozen; weights (n,) and errors (n, A) are those of D2."""
    uniform: int
    judgement: Judgement
    weight: Tensor
    priority: Tensor | None
    error: Tensor
    value_loss: Tensor
    critic_loss: Tensor
    policy_loss: Tensor

    @property
    def advantage(self) -> Tensor:
        """A of the samples judged."""
        return self.judgement.advantage


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
        self.selection = Selection(settings.selection, next(model.parameters()).device)
        self.tightening = settings.tightening and Tightening(settings.tightening, settings.policy_loss, model.sigma)
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
        judgement = Judgement(q_value, torch.cat([value_d1.detach(), value_d2]))
        weight, priority = self.selection.step(judgement.advantage)
        error = self.policy_error(d2)
        self._tighten(error)
        policy_loss = self.policy_loss(error, weight[n:])

        self._descend(value_loss + critic_loss + policy_loss, self.optimizers)
        self.move_target()
        losses = value_loss.detach(), critic_loss.detach(), policy_loss.detach()
        return Step(n, judgement, weight[n:], priority, error.detach(), *losses)

    def policy_step(self, batch: Batch, judgement: Judgement, weight: Tensor) -> Step:
        """One iteration of the policy alone on D2, whose judgement and weights (n,) by frozen critics are known."""
        error = self.policy_error(batch)
        self._tighten(error)
        policy_loss = self.policy_loss(error, weight)
        self._descend(policy_loss, ['policy'])
        none = torch.zeros_like(policy_loss.detach())
        return Step(0, judgement, weight, None, error.detach(), none, none, policy_loss.detach())

    def judge(self, columns: Batch) -> Judgement:
        """The critics' judgement of a whole dataset (N,), in chunks."""
        with torch.no_grad():
            chunks = [
                (self.target_critic(obs, action).amin(dim=0), self.model.value(obs))
                for obs, action in zip(columns['obs'].split(CHUNK), columns['action'].split(CHUNK))
            ]
        return Judgement(*map(torch.cat, zip(*chunks)))

    def load_critics(self, state: Mapping) -> None:
        """V, Q and Q̄ of a learner's state, frozen from here on."""
        critics = {'critic.': self.model.critic, 'value.': self.model.value}
        for prefix, network in critics.items():
            network.load_state_dict({
                name.removeprefix(prefix): tensor for name, tensor in state['model'].items() if name.startswith(prefix)
            })
        self.target_critic.load_state_dict(state['target_critic'])

    def value_loss(self, value: Tensor, q_value: Tensor) -> Tensor:
        """Expectile regression of V (n,) towards min Q̄ (n,) (IQL, Eq. 5)."""
        return expectile_loss(q_value - value, self.settings.expectile).mean()

    def critic_loss(self, batch: Batch, next_value: Tensor) -> Tensor:
        """Squared error of both Q to r + γ (1 - done) V(s'), batch means summed over the heads (IQL, Eq. 6)."""
        not_done = 1 - batch['done'].to(next_value.dtype)
        target = batch['reward'] + self.settings.discount_factor * not_done * next_value
        q_value = self.model.critic(batch['obs'], batch['action'])
        return F.mse_loss(q_value, target.expand_as(q_value), reduction='none').mean(dim=1).sum()

    def policy_error(self, batch: Batch) -> Tensor:
        """a - μ(s), (n, A)."""
        return batch['action'] - self.model.policy(batch['obs'])

    def policy_loss(self, error: Tensor, weight: Tensor) -> Tensor:
        """mean_i [w_i / (2σ²) Σ_j f(e_ij)] (CAWR, Eq. 9) of errors (n, A), weights (n,); with 'batch_mean' mean(w)
        times the mean of the rest, as in the released code."""
        sigma = self.model.sigma
        scaled = error / self.tightening.width if self.tightening else error
        loss = self.settings.policy_loss(scaled, sigma).sum(dim=-1) / (2 * sigma**2)
        if self.settings.selection.weighting == 'batch_mean':
            return weight.mean() * loss.mean()
        return (weight * loss).mean()

    def _tighten(self, error: Tensor) -> None:
        if self.tightening:
            self.tightening.step(error)

    def _descend(self, loss: Tensor, names: Iterable[str]) -> None:
        """One Adam step for each network named; they share no parameter."""
        optimizers = [self.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if self.schedule:
            self.schedule.step()

    @torch.no_grad()
    def move_target(self) -> None:
        """Q̄ ← Q̄ + theta (Q - Q̄)."""
        torch._foreach_lerp_(*self._soft_update_pairs, self.settings.target_theta)

    def metrics(self, step: Step) -> dict[str, float]:
        """Means and shares of a step as floats; each waits for the device, so only for steps that are shown."""
        advantage, weight = step.advantage, step.weight
        clips = self.settings.selection.weighting != 'none'
        limit = self.settings.selection.max_weight * (1 - 1e-6)  # float32's exp(log(w_max)) may lie below w_max
        tensors = {
            'value_loss': step.value_loss,
            'critic_loss': step.critic_loss,
            'policy_loss': step.policy_loss,
            'total_loss': step.value_loss + step.critic_loss + step.policy_loss,
            'advantage_mean': advantage.mean(),
            'advantage_std': advantage.std(),
            'advantage_min': advantage.amin(),
            'advantage_max': advantage.amax(),
            'weight_clipped_share': (weight >= limit).double().mean() * clips,
            'weight_effective_share': effective_sample_size(weight),
            'temperature': self.selection.temperature,
            'trust': self.selection.trust,
            'q_value': step.judgement.q_value.mean(),
            'value': step.judgement.value.mean(),
        }
        if step.uniform:
            share = self.selection.running_share
            share = self.selection.measured_share(advantage, step.uniform) if share is None else share
            tensors['selection_effective_share'] = share
        if self.tightening:
            tensors['loss_width'] = self.tightening.width
            tensors['convex_share'] = self.tightening.convex_share(step.error)
        return {name: tensor.item() for name, tensor in tensors.items()}

    def state_dict(self) -> dict:
        """Target, optimizers, schedules and selection in plain containers; the model saves itself."""
        parts = {'schedule': self.schedule, 'tightening': self.tightening}
        return {
            'target_critic': self.target_critic.state_dict(),
            **{f'optimizer_{name}': optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            'selection': self.selection.state_dict(),
            **{name: part.state_dict() if part else None for name, part in parts.items()},
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Inverse of ``state_dict``.

        Raises:
            ValueError: a part is missing.
        """
        missing = [name for name in self.state_dict() if name not in state]
        if missing:
            raise ValueError(f'the checkpoint has no {" and no ".join(missing)}: another version of ding_cawr wrote it')
        self.target_critic.load_state_dict(state['target_critic'])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[f'optimizer_{name}'])
        self.selection.load_state_dict(state['selection'])
        for name, part in (('schedule', self.schedule), ('tightening', self.tightening)):
            if part and state[name]:
                part.load_state_dict(state[name])


def cosine(progress: float) -> float:
    """Factor of a learning rate that falls from 1 to 0 while ``progress`` goes from 0 to 1, and stays there."""
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))


def _both(d1: Batch, d2: Batch, name: str) -> Tensor:
    return torch.cat([d1[name], d2[name]])

"""One CAWR iteration on tensors: Algorithm 1 of the paper, in the order of its released code.

Every forward pass precedes every step, and the soft target Q̄ gives both V's target and the advantage. Shapes are of one
run; of R replicas that train at once all of them lead with R, and replicas have nothing in common but the iteration.
Where several ranks train one run, batches are a rank's part, m of n samples; the rest is said of all n, and is the same
on all ranks.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import effective_sample_size
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.networks import JUDGING, ROWS, TRAINED, Networks, Pass
from ding_cawr.algorithms.cawr.selection import Selection, SelectionSettings
from ding_cawr.algorithms.cawr.tightening import Tightening, TighteningSettings
from ding_cawr.losses import expectile_weight
from ding_cawr.ranks import ALONE, Ranks
from ding_cawr.runs.state import check_finite, check_shapes

Batch = Mapping[str, Tensor]  # obs (n, O), action (n, A), reward (n,), next_obs (n, O), done (n,) bool

#: Samples judged at a time, those of all replicas counted, when the critics judge a whole dataset.
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
    ignore_done: bool = False
    precision: str = 'float32'


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
    first, or over D2 alone where the critics are frozen; weights (n,) and errors (n, A) are those of D2, of errors only
    this rank's."""
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
    """Networks, targets and optimizers, and the iteration that moves them.

    Arguments:
        models: the model, or those of R replicas, which then train at once.
        settings: the same for all.
        ranks: the processes that share the batches of one run.
    """

    def __init__(
        self, models: CAWRModel | Sequence[CAWRModel], settings: UpdateSettings, ranks: Ranks = ALONE
    ) -> None:
        self.settings, self.ranks = settings, ranks
        self.networks = Networks(models, settings.precision)
        self.model, self.target_critic = self.networks.models[0], self.networks.target_critics[0]
        device = self.networks.target.device
        rates = {
            'policy': settings.learning_rate_policy, 'critic': settings.learning_rate_q,
            'value': settings.learning_rate_value
        }
        if settings.cosine_iterations:  # float32 is what Adam's fused kernel reads on a GPU
            rates['policy'] = torch.tensor(rates['policy'], dtype=torch.float32, device=device)
        groups = [
            dict(params=[parameter], lr=rates[name], name=name) for name, parameter in self.networks.parameters.items()
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True, capturable=device.type == 'cuda')
        self.iteration = torch.zeros((), dtype=torch.float64, device=device)
        self.selection = Selection(settings.selection, device, self.networks.lead)
        self.tightening = settings.tightening and Tightening(
            settings.tightening, settings.policy_loss, self.model.sigma, device, self.networks.lead,
            self.networks.target.dtype
        )

    @torch.no_grad()
    def step(self, uniform_batch: Batch, prioritized_batch: Batch) -> Step:
        """One iteration on D1 (uniform) and D2 (prioritized), n samples each; of ranks, on this one's m of each."""
        d1, d2, m = uniform_batch, prioritized_batch, uniform_batch['reward'].shape[-1]
        q_value, next_value, value_d2 = self._judge(d1, d2)
        forward = self._predict(d1, d2)
        mean, *q_values, value = forward.outputs  # in the order of ROWS

        value_loss, value_gradient = self.value_loss(value.squeeze(-1), q_value[..., :m])
        critic_loss, critic_gradient = self.critic_loss(torch.stack(q_values).squeeze(-1), d1, next_value)
        judgement = self._of_all_ranks(Judgement(q_value, torch.cat([value.squeeze(-1), value_d2], dim=-1)))
        weight, priority = self.selection.step(judgement.advantage, self.iteration)
        weight = weight[..., m * self.ranks.size:]
        error = d2['action'] - mean
        self._tighten(error)
        policy_loss, mean_gradient = self._differentiate(error, self._of_this_rank(weight))

        gradients = [mean_gradient, *critic_gradient.unsqueeze(-1), value_gradient.unsqueeze(-1)]
        self._descend(forward, gradients, [value_loss, critic_loss, policy_loss])
        self.move_target()
        return Step(m * self.ranks.size, judgement, weight, priority, error, value_loss, critic_loss, policy_loss)

    @torch.no_grad()
    def policy_step(self, batch: Batch, judgement: Judgement, weight: Tensor) -> Step:
        """One iteration of the policy alone on D2, whose judgement and weights (n,) by frozen critics are known; of
        ranks, on this one's m samples of it."""
        forward = self.networks.forward(ROWS['policy'], [batch['obs']])
        error = batch['action'] - forward.outputs[0]
        self._tighten(error)
        policy_loss, mean_gradient = self._differentiate(error, self._of_this_rank(weight))
        self._descend(forward, [mean_gradient], [policy_loss])
        none = torch.zeros_like(policy_loss)
        return Step(0, judgement, weight, None, error, none, none, policy_loss)

    def judge(self, columns: Batch) -> Judgement:
        """The critics' judgement of a whole dataset (N,), in chunks."""
        networks, judged = self.networks, []
        size = CHUNK // len(networks.models)
        # Memory of its own: a recorded graph goes on writing to that of the iterations.
        scratch = networks.scratch(JUDGING, size)
        for obs, action in zip(columns['obs'].split(size), columns['action'].split(size)):
            pairs = torch.cat([obs, action], dim=-1)
            inputs = [each.expand(*networks.lead, *each.shape) for each in (obs, pairs, pairs)]
            hidden = [[each[..., :len(obs), :] for each in layers] for layers in scratch]
            value, *q_values = (output.squeeze(-1) for output in networks.forward(JUDGING, inputs, hidden).outputs)
            judged.append((torch.minimum(*q_values), value))
        return Judgement(*(torch.cat(parts, dim=-1) for parts in zip(*judged)))

    def load_critics(self, state: Mapping) -> None:
        """V, Q and Q̄ of a learner's state, frozen from here on: without gradients the optimizer leaves them alone."""
        critics = {'critic.': self.model.critic, 'value.': self.model.value}
        for prefix, network in critics.items():
            network.load_state_dict({
                name.removeprefix(prefix): tensor for name, tensor in state['model'].items() if name.startswith(prefix)
            })
        self.target_critic.load_state_dict(state['target_critic'])
        for name in ('critic', 'value'):
            self.networks.parameters[name].grad = None

    def value_loss(self, value: Tensor, q_value: Tensor) -> tuple[Tensor, Tensor]:
        """Expectile regression of V (n,) towards min Q̄ (n,) (IQL, Eq. 5): the loss, and its gradient to V (n,)."""
        error = q_value - value
        weighted = expectile_weight(error, self.settings.expectile) * error
        return (weighted * error).mean(dim=-1), weighted * (-2 / error.shape[-1])

    def critic_loss(self, q_values: Tensor, batch: Batch, next_value: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of both Q (2, n) to r + γ (1 - done) V(s'), batch means summed over the heads (IQL, Eq. 6): the
        loss, and its gradient to Q (2, n)."""
        if not self.settings.ignore_done:
            next_value = next_value * (1 - batch['done'].to(next_value.dtype))
        error = q_values - (batch['reward'] + self.settings.discount_factor * next_value)
        return error.square().mean(dim=-1).sum(dim=0), error * (2 / error.shape[-1])

    def policy_loss(self, error: Tensor, weight: Tensor) -> Tensor:
        """mean_i [w_i / (2σ²) Σ_j f(e_ij)] (CAWR, Eq. 9) of errors a - μ(s) (n, A) and weights (n,); with 'batch_mean'
        mean(w) times the mean of the rest, as in the released code."""
        sigma, selection = self.model.sigma, self.settings.selection
        scaled = error / self.tightening.width if self.tightening else error
        loss = self.settings.policy_loss(scaled, sigma).sum(dim=-1) / (2 * sigma**2)
        if selection.weighting == 'batch_mean':
            return weight.mean(dim=-1) * loss.mean(dim=-1)
        return (weight * loss).mean(dim=-1)

    def _judge(self, d1: Batch, d2: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """min Q̄(s, a) of D1 ∪ D2 (2n,), V(s') of D1 and V(s) of D2 (n,)."""
        pairs = torch.cat([_pairs(d1), _pairs(d2)], dim=-2)
        states = torch.cat([d1['next_obs'], d2['obs']], dim=-2)
        value, *q_values = (
            output.squeeze(-1) for output in self.networks.forward(JUDGING, [states, pairs, pairs]).outputs
        )
        return torch.minimum(*q_values), *value.tensor_split(2, dim=-1)

    def _predict(self, d1: Batch, d2: Batch) -> Pass:
        """μ(s) of D2 (n, A), Q1(s, a), Q2(s, a) and V(s) of D1 (n, 1)."""
        pairs = _pairs(d1)
        return self.networks.forward(TRAINED, [d2['obs'], pairs, pairs, d1['obs']])

    def _differentiate(self, error: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's loss, and its gradient to μ (n, A), of errors a - μ(s) (n, A) and weights (n,); by autograd, so
        that a robust loss is one formula."""
        with torch.enable_grad():
            error = error.detach().requires_grad_()
            loss = self.policy_loss(error, weight)
            gradient, = torch.autograd.grad(loss.sum(), error)
        return loss.detach(), -gradient

    def _tighten(self, error: Tensor) -> None:
        if self.tightening:
            self.tightening.step(error, self.iteration, self.ranks)

    def _of_all_ranks(self, judgement: Judgement) -> Judgement:
        """The judgement (2n,) of D1 ∪ D2 of all ranks, D1 first, from that of each rank's (2m,)."""
        if self.ranks.size == 1:
            return judgement
        halves = torch.stack(judgement).unflatten(-1, (2, -1))  # (2, 2, m): quantities, then D1 and D2
        return Judgement(*self.ranks.gather(halves).flatten(-2))

    def _of_this_rank(self, weight: Tensor) -> Tensor:
        """This rank's (m,) of the weights (n,) of D2; with 'batch_mean' their mean stands for each."""
        if self.ranks.size == 1:
            return weight
        if self.settings.selection.weighting == 'batch_mean':
            weight = weight.mean(dim=-1, keepdim=True).expand_as(weight)
        return weight[..., self.ranks.share(weight.shape[-1])]

    def _descend(self, forward: Pass, gradients: Sequence[Tensor], losses: Sequence[Tensor]) -> None:
        """One Adam step of the networks of a pass, from the gradients to its outputs; they share no parameter. Losses,
        like gradients, become those of the batches of all ranks."""
        self.networks.backward(forward, gradients)
        trained = [parameter.grad for parameter in self.networks.parameters.values() if parameter.grad is not None]
        self.ranks.average([*trained, *losses])
        self.optimizer.step()
        self.iteration += 1
        self._move_rate()

    def _move_rate(self) -> None:
        if self.settings.cosine_iterations:
            rate = self.settings.learning_rate_policy * cosine(self.iteration / self.settings.cosine_iterations)
            self.policy_rate.copy_(rate)

    @property
    def policy_rate(self) -> float | Tensor:
        """The policy's learning rate; a tensor, changed in place, where it follows a schedule."""
        return self.optimizer.param_groups[0]['lr']

    def move_target(self) -> None:
        """Q̄ ← Q̄ + theta (Q - Q̄)."""
        self.networks.target.lerp_(self.networks.parameters['critic'].detach(), self.settings.target_theta)

    def metrics(self, step: Step) -> dict[str, float | list[float]]:
        """Means and shares of a step, a float or one a replica; waits for the device, so only for steps shown."""
        advantage, weight = step.advantage, step.weight
        clips = self.settings.selection.weighting != 'none'
        limit = self.settings.selection.max_weight
        tensors = {
            'value_loss': step.value_loss,
            'critic_loss': step.critic_loss,
            'policy_loss': step.policy_loss,
            'total_loss': step.value_loss + step.critic_loss + step.policy_loss,
            'advantage_mean': advantage.mean(dim=-1),
            'advantage_std': advantage.std(dim=-1),
            'advantage_min': advantage.amin(dim=-1),
            'advantage_max': advantage.amax(dim=-1),
            'weight_clipped_share': (weight >= limit).double().mean(dim=-1) * clips,
            'weight_effective_share': effective_sample_size(weight),
            'temperature': self.selection.temperature,
            'trust': self.selection.trust,
            'q_value': step.judgement.q_value.mean(dim=-1),
            'value': step.judgement.value.mean(dim=-1),
        }
        if step.uniform:
            share = self.selection.running_share
            share = self.selection.measured_share(advantage, step.uniform) if share is None else share
            tensors['selection_effective_share'] = share
        if self.tightening:
            tensors['loss_width'] = self.tightening.width
            tensors['convex_share'] = self.tightening.convex_share(step.error)
            self.ranks.average([tensors['convex_share']])
        lead = self.networks.lead
        return {name: tensor.squeeze().expand(lead).tolist() for name, tensor in tensors.items()}

    def state_dict(self, replica: int = 0) -> dict:
        """One replica's target, Adam's moments and steps by network, selection and tightening, in plain containers; the
        model saves itself."""
        target = self.networks.target_critics[replica].state_dict()
        return {
            'target_critic': {name: tensor.clone() for name, tensor in target.items()},
            'optimizer': {
                name: _replica_of(self.optimizer.state.get(parameter, {}), replica)
                for name, parameter in self.networks.parameters.items()
            },
            'selection': self.selection.state_dict(replica),
            'tightening': self.tightening and self.tightening.state_dict(replica),
            'iteration': int(self.iteration),
        }

    def tensors(self) -> list[Tensor]:
        """All that an iteration changes, once there was a first one."""
        moments = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        rate = [self.policy_rate] if self.settings.cosine_iterations else []
        tightening = self.tightening.tensors() if self.tightening else []
        return [
            self.iteration, *self.networks.tensors(), *moments, *rate, *self.selection.tensors(), *tightening
        ]

    def check_state(self, state: Mapping) -> None:
        """Whether moments, selection and tightening of a state can go on here.

        Raises:
            ValueError: they are missing, of other shapes, or not finite.
        """
        moments = {name: state['optimizer'].get(name) for name in self.networks.parameters}
        absent = [name for name, found in moments.items() if isinstance(found, dict) and not found]
        # Before the first step there are none, and afterwards none of critics that were frozen.
        if absent == (['critic', 'value'] if state['iteration'] else list(moments)):
            moments = {name: found for name, found in moments.items() if name not in absent}
        for name, found in moments.items():
            shape = tuple(self.networks.parameters[name].shape)
            wanted = {'step': (), 'exp_avg': shape, 'exp_avg_sq': shape}
            check_shapes(f'optimizer of {name}', found, wanted)
            check_finite(f'optimizer of {name}', found)
            if not 0 <= found['step'] <= state['iteration'] or (found['exp_avg_sq'] < 0).any():
                raise ValueError(
                    f'the checkpoint: its optimizer of {name} has {found["step"]:g} steps after {state["iteration"]} '
                    'iterations, or mean squares below 0; take an earlier one'
                )
        self.selection.check_state(state['selection'])
        if self.tightening:
            self.tightening.check_state(state.get('tightening'), bool(state['iteration']))

    def load_state_dict(self, state: Mapping) -> None:
        """Inverse of ``state_dict``, of a single run."""
        self.target_critic.load_state_dict(state['target_critic'])
        self.optimizer.state.clear()
        for name, parameter in self.networks.parameters.items():
            if state['optimizer'].get(name):
                self.optimizer.state[parameter] = {
                    key: tensor.to(parameter.device, copy=True) for key, tensor in state['optimizer'][name].items()
                }
        self.iteration.fill_(state['iteration'])
        self._move_rate()
        self.selection.load_state_dict(state['selection'], self.iteration)
        if self.tightening and state['tightening']:
            self.tightening.load_state_dict(state['tightening'])


def _replica_of(moments: Mapping[str, Tensor], replica: int) -> dict[str, Tensor]:
    """Of Adam's moments (rows, R, P) those of one replica, (rows, 1, P); the count of steps, (), is common."""
    return {
        name: (tensor[:, replica:replica + 1] if tensor.dim() else tensor).clone() for name, tensor in moments.items()
    }


def cosine(progress: Tensor) -> Tensor:
    """Factor of a learning rate that falls from 1 to 0 while ``progress`` goes from 0 to 1, and stays there."""
    return 0.5 + 0.5 * (math.pi * progress.clamp(max=1)).cos()


def _pairs(batch: Batch) -> Tensor:
    """Observations and actions side by side (n, O + A)."""
    return torch.cat([batch['obs'], batch['action']], dim=-1)

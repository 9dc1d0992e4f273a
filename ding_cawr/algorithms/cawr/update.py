"""One CAWR iteration on tensors: Algorithm 1 of the paper, in the order of its released code.

Every forward pass precedes every step, and the soft target Q̄ gives both V's target and the advantage. Shapes are of one
run; of R replicas that train at once all of them lead with R, and replicas have nothing in common but the iteration.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import effective_sample_size
from ding_cawr.algorithms.base import Algorithm, Step, Tree, copy_tree
from ding_cawr.algorithms.cawr.model import CAWRModel, actor
from ding_cawr.algorithms.cawr.networks import Estimate, Networks, Predictions
from ding_cawr.algorithms.cawr.presets import PRESETS
from ding_cawr.algorithms.cawr.settings import CAWRSettings, ModelSettings
from ding_cawr.algorithms.cawr.tightening import Tightening
from ding_cawr.algorithms.selection import Selection
from ding_cawr.checks import Bound
from ding_cawr.data.buffer import Sample
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions
from ding_cawr.losses import expectile_weight
from ding_cawr.networks.optimizers import Adam
from ding_cawr.runs.checkpoint import check_parts, check_same_observations, read_state
from ding_cawr.runs.state import brief, check_tree

#: Quantities and losses of D1 (0) or D2 (1) alone.
SINGLE_DRAW = dict(weight=1, convex_share=1, value_loss=0, critic_loss=0, policy_loss=1)
#: Metrics that a run without critics, and those that a run without advantages does not have.
OF_CRITICS = ('value_loss', 'critic_loss', 'q_value', 'value')
OF_ADVANTAGE = (
    'advantage_mean', 'advantage_std', 'advantage_min', 'advantage_max', 'temperature', 'trust', 'weight_clipped_share',
    'weight_effective_share', 'selection_effective_share'
)
LACKING = {'critics': (), 'dataset': OF_CRITICS, 'none': OF_CRITICS + OF_ADVANTAGE}


class Frozen(NamedTuple):
    """Keeps what is computed once for a whole dataset whose advantages do not change.

    Attributes:
        quantities: by name (N,): the advantage, and where critics gave it also Q and V.
        weight: (N,).
        measured_share: effective share of the dataset.
    """
    quantities: dict[str, Tensor]
    weight: Tensor
    measured_share: float


class CAWR(Algorithm):
    """Networks, targets and optimizers, and the iteration that moves them.

    Arguments:
        models: the model, or those of R replicas, which then train at once.
        settings: the same for all.
    """
    name, Model, ModelSettings, Settings, PRESETS = 'cawr', CAWRModel, ModelSettings, CAWRSettings, PRESETS
    STATE_BOUNDS = {'exp_avg_sq': Bound(0), 'step': Bound(0), 'first_width': Bound(0), **Selection.STATE_BOUNDS}
    SYNONYMS = {  # DI-engine's names
        'learning_rate_critic': 'learn.learning_rate_q', 'model.critic_head_hidden_size': 'model.hidden_sizes',
        'model.critic_head_layer_num': 'model.hidden_sizes',
    }

    def __init__(self, models: CAWRModel | Sequence[CAWRModel], settings: CAWRSettings) -> None:
        self.settings = settings
        self.networks = Networks(models, settings.precision)
        self.models, self.replica_shape = self.networks.models, self.networks.replica_shape
        self.model = self.models[0]
        parameters = self.networks.parameters
        device, dtype = parameters['policy'].device, parameters['policy'].dtype
        rates = dict(
            policy=settings.learning_rate_policy, critic=settings.learning_rate_q, value=settings.learning_rate_value
        )
        if settings.cosine_iterations:  # float32 is what Adam's fused kernel reads on a GPU
            rates['policy'] = torch.tensor(rates['policy'], dtype=torch.float32, device=device)
        self.optimizer = Adam(parameters, rates)
        self.iteration = torch.zeros((), dtype=torch.float64, device=device)
        self.selection = Selection(settings, device, self.replica_shape)
        self.tightening = settings.tightening and Tightening(
            settings.tightening, settings.policy_loss, self.model.sigma, device, self.replica_shape, dtype
        )
        self._is_alone = settings.fixed_by is not None  # the policy trains without critics
        self.draw_kinds = ('uniform', 'prioritized')
        if self._is_alone:
            self.draw_kinds = ('prioritized', ) if settings.takes_whole_data else ('uniform', )
        self.reads = ('advantage', ) if settings.advantage == 'dataset' else ()
        self.frozen: Frozen | None = None
        if self._is_alone:
            for name in ('critic', 'value'):  # the optimizer skips parameters without gradients
                parameters[name].grad = None

    @property
    def products(self) -> str:
        return self.networks.block.products.name

    def use_products(self, name: str) -> bool:
        return self.networks.block.use_products(name)

    @torch.no_grad()
    def step(self, draws: Mapping[str, Sample]) -> Step:
        """Return what one iteration on D1 (uniform) and D2 (prioritized), n samples each, gave.

        Quantities per sample are those of D1 ∪ D2 (2n,), D1 first, but for the weights (n,) of D2.
        """
        if self._is_alone:
            return self._step_policy(*draws.values())
        d1, d2 = draws['uniform'].batch, draws['prioritized'].batch
        n = d1['reward'].shape[-1]
        (q_value, value), predicted = self.networks.evaluate(
            _both(d1.obs_action, d2.obs_action), _both(d1['next_obs'], d2['obs']), d2['obs'], d1['obs'], d1.obs_action
        )
        next_value, value_d2 = value.tensor_split(2, dim=-1)

        estimate = Estimate(q_value, torch.cat([predicted.value, value_d2], dim=-1))
        weight, priority = self.selection.step(estimate.advantage, self.iteration)
        weight = weight[..., n:]
        error = d2['action'] - predicted.mean
        value_loss, value_gradient = self.value_loss(predicted.value, q_value[..., :n])
        critic_loss, critic_gradient = self.critic_loss(predicted.q_values, d1, next_value)
        policy_loss, mean_gradient = self._differentiate(error, weight)
        self._descend(predicted, mean_gradient, critic_gradient, value_gradient)
        self.networks.move_target(self.settings.target_theta)
        losses = dict(value_loss=value_loss, critic_loss=critic_loss, policy_loss=policy_loss)
        return Step(losses, self._per_sample(_named(estimate), weight, error), priority, SINGLE_DRAW)

    def _step_policy(self, sample: Sample) -> Step:
        """Return what one iteration of the policy alone on a draw gave: with weights that stay, or with none."""
        frozen, batch = self.frozen, sample.batch
        weight = frozen.weight[sample.indices] if frozen else torch.ones_like(batch['reward'])
        quantities = {name: column[sample.indices] for name, column in (frozen.quantities if frozen else {}).items()}
        predicted = self.networks.predict_mean(batch['obs'])
        error = batch['action'] - predicted.mean
        policy_loss, mean_gradient = self._differentiate(error, weight)
        self._descend(predicted, mean_gradient)
        none = torch.zeros_like(policy_loss)
        losses = dict(value_loss=none, critic_loss=none) if self.settings.advantage == 'critics' else {}
        return Step({**losses, 'policy_loss': policy_loss}, self._per_sample(quantities, weight, error), None)

    def _per_sample(self, quantities: dict[str, Tensor], weight: Tensor, error: Tensor) -> dict[str, Tensor]:
        per_sample = dict(quantities, weight=weight)
        if self.tightening:
            per_sample['convex_share'] = self.tightening.convex_share(error)
        return per_sample

    def value_loss(self, value: Tensor, q_value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expectile loss of V (n,) towards min Q̄ (n,) (IQL, Eq. 5), and its gradient to V (n,)."""
        error = q_value - value
        weighted = expectile_weight(error, self.settings.expectile) * error
        return (weighted * error).mean(dim=-1), weighted * (-2 / error.shape[-1])

    def critic_loss(self, q_values: Tensor, batch: Table, next_value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared error of both Q (2, n) to r + γ (1 - done) V(s'), batch means summed over the heads (IQL,
        Eq. 6), and its gradient to Q (2, n)."""
        if not self.settings.ignore_done:
            next_value = next_value * (1 - batch['done'].to(next_value.dtype))
        error = q_values - (batch['reward'] + self.settings.discount_factor * next_value)
        return error.square().mean(dim=-1).sum(dim=0), error * (2 / error.shape[-1])

    def policy_loss(self, error: Tensor, weight: Tensor) -> Tensor:
        """Return mean_i [w_i / (2σ²) Σ_j f(e_ij)] (CAWR, Eq. 9) of errors a - μ(s) (n, A) and weights (n,).

        With 'batch_mean' it is mean(w) times the mean of the rest, as in the released code.
        """
        sigma = self.model.sigma
        scaled = error / self.tightening.width if self.tightening else error
        loss = self.settings.policy_loss(scaled, sigma).sum(dim=-1) / (2 * sigma**2)
        if self.settings.weighting == 'batch_mean':
            return weight.mean(dim=-1) * loss.mean(dim=-1)
        return (weight * loss).mean(dim=-1)

    def _differentiate(self, error: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the policy's loss and its gradient to μ (n, A); by autograd, so that a robust loss is one formula."""
        if self.tightening:
            self.tightening.step(error, self.iteration)
        with torch.enable_grad():
            error = error.detach().requires_grad_()
            loss = self.policy_loss(error, weight)
            gradient, = torch.autograd.grad(loss.sum(), error)
        return loss.detach(), -gradient

    def _descend(self, predicted: Predictions, *gradients: Tensor) -> None:
        """Take one Adam step along the gradients of the predictions; the networks share no parameter."""
        self.networks.descend(self.optimizer, predicted, *gradients)
        self.iteration += 1
        self._move_rate()

    def _move_rate(self) -> None:
        if self.settings.cosine_iterations:
            rate = self.settings.learning_rate_policy * cosine(self.iteration / self.settings.cosine_iterations)
            self.policy_rate.copy_(rate)

    @property
    def policy_rate(self) -> float | Tensor:
        """The policy's learning rate; a tensor, changed in place, where it follows a schedule."""
        return self.optimizer.rates['policy']

    def estimate(self, data: Table) -> Estimate:
        """Return the critics' estimate of a whole dataset (N,)."""
        return self.networks.estimate(data['obs'], data.obs_action)

    def quantities(self, data: Table) -> dict[str, Tensor]:
        """Return Q, V and the advantage (N,) of a whole dataset."""
        return _named(self.estimate(data))

    def begin(self, data: Table, obs_statistics: Tensor | None) -> Tensor | None:
        """Take the advantages of the dataset, or the critics that ``pretrained_critics`` names and their estimate of
        it: they give, once and exactly, normalization, weights and priorities."""
        if not self.settings.takes_whole_data:
            return None
        if self.settings.advantage == 'dataset':
            quantities = dict(advantage=data.advantage.to(data.rows.dtype))
        else:
            self._take_critics(self.settings.pretrained_critics, obs_statistics)
            quantities = self.quantities(data)
        # All replicas have these advantages, and so one λ: it is found once, without their leading dimension.
        selection = Selection(self.settings, data.rows.device)
        weight, priority = selection.fit(quantities['advantage'])
        for replica in range(len(self.models)):
            copy_tree(selection.tree(), self.selection.tree(replica))
        share = selection.measured_share(quantities['advantage'], len(data)).item()
        self.frozen = Frozen(quantities, weight, share)
        return None if priority is None else priority.expand(*self.replica_shape, -1)

    def _take_critics(self, path: str, obs_statistics: Tensor | None) -> None:
        """Take V, Q and Q̄ of a checkpoint over; it must be one of this algorithm and of such observations."""
        state = read_state(path, dict(model=dict))
        if state.get('algorithm', self.name) != self.name:
            raise ValueError(
                f"learn.pretrained_critics: {path} is of the algorithm {brief(state['algorithm'])}; it must be of "
                f'{self.name!r}'
            )
        check_parts(path, state, dict(target_critic=dict))
        check_same_observations(path, state.get('obs_statistics'), obs_statistics)
        self.load_critics(state, path)
        own, target = self.model.critic.state_dict(), self.networks.target_critics[0].state_dict()
        untouched = state.get('optimizer', {}).get('critic', {}).get('step') == 0
        if untouched and all(torch.equal(tensor, own[name]) for name, tensor in target.items()):
            warnings.warn(
                f"{path}: its critics were never trained; a run with learn.advantage 'dataset' or 'none' trains none. "
                'Take a checkpoint of trained ones', stacklevel=2
            )

    def load_critics(self, state: Mapping[str, Any], source: str) -> None:
        """Take V, Q and Q̄ of a checkpoint's state over.

        Raises:
            ValueError: they have other shapes, or are not finite.
        """
        own = {
            'critic': self.model.critic, 'value': self.model.value, 'target_critic': self.networks.target_critics[0]
        }
        parts = {
            part: {
                name.removeprefix(f'{part}.'): tensor for name, tensor in state['model'].items()
                if str(name).startswith(f'{part}.')
            } for part in ('critic', 'value')
        }
        parts['target_critic'] = state['target_critic']
        for part, network in own.items():
            check_tree(parts[part], network.state_dict(), f'{source}: {part}')
        for part, network in own.items():
            network.load_state_dict(parts[part])

    @classmethod
    def metric_names(cls, settings: CAWRSettings) -> list[str]:
        """Return the names of what ``metrics`` gives.

        Effective shares are (Σw)² / (n Σw²): of the policy's batch for the weights, of the dataset for the selection.
        Metrics of critics are left out where critics do not give the advantages, those of advantages where there are
        none.
        """
        names = ['cur_lr_policy', 'total_loss', 'policy_loss', *OF_CRITICS, *OF_ADVANTAGE]
        names = [name for name in names if name not in LACKING[settings.advantage]]
        return names + ['loss_width', 'convex_share'] * (settings.tightening is not None)

    def metrics(self, step: Step) -> dict[str, Tensor]:
        """Return means and shares of a step, a scalar or (R,) each."""
        metrics = {
            **step.losses,
            'total_loss': sum(step.losses.values()),
            **{name: step.per_sample[name].mean(dim=-1) for name in OF_CRITICS if name in step.per_sample},
            'cur_lr_policy': torch.as_tensor(self.policy_rate, dtype=torch.float64),
        }
        if 'advantage' in step.per_sample:
            metrics |= self._selection_metrics(step.per_sample['advantage'], step.per_sample['weight'])
        if self.tightening:
            metrics['loss_width'] = self.tightening.width
            metrics['convex_share'] = step.per_sample['convex_share'].mean(dim=-1)
        return metrics

    def _selection_metrics(self, advantage: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return means and shares of the advantages (..., B) and the weights (..., n) of a step."""
        clipped = (weight >= self.settings.max_weight).double().mean(dim=-1)
        return {
            'advantage_mean': advantage.mean(dim=-1),
            'advantage_std': advantage.std(dim=-1, correction=0),
            'advantage_min': advantage.amin(dim=-1),
            'advantage_max': advantage.amax(dim=-1),
            'weight_clipped_share': clipped * (self.settings.weighting != 'none'),
            'weight_effective_share': effective_sample_size(weight),
            'selection_effective_share': self._selection_share(advantage),
            'temperature': self.selection.temperature,
            'trust': self.selection.trust,
        }

    def _selection_share(self, advantage: Tensor) -> Tensor:
        """Return the effective share of the dataset that weights and draws together select."""
        if self.frozen:
            return torch.tensor(self.frozen.measured_share, dtype=torch.float64)
        return self.selection.share(advantage)

    def tree(self, replica: int = 0) -> Tree:
        """Return networks, target, Adam's moments, selection and tightening of one replica; not copies."""
        return {
            'model': dict(self.models[replica].state_dict()),
            'target_critic': dict(self.networks.target_critics[replica].state_dict()),
            # Adam's moments are (rows, R, P); the count of steps, (), is common.
            'optimizer': {
                name: {key: part[:, replica:replica + 1] if part.dim() else part for key, part in parts.items()}
                for name, parts in self.optimizer.moments.items()
            },
            'selection': self.selection.tree(replica),
            'tightening': self.tightening.tree(replica) if self.tightening else {},
        }

    def check_state(self, state: Tree, iteration: int) -> None:
        """Raise a ValueError for more steps of Adam than iterations, for a least advantage that is -inf or no number,
        for a width before the first iteration or none after it, and for other critics than those that
        ``pretrained_critics`` gave."""
        for name, moments in state['optimizer'].items():
            if moments['step'] > iteration:
                raise ValueError(
                    f'the checkpoint: optimizer {name} step is {moments["step"]:g} after {iteration} iterations; take '
                    'another checkpoint'
                )
        super().check_state(state, iteration)
        if self.tightening and bool((state['tightening']['first_width'] >= 1).all()) != (iteration > 0):
            raise ValueError(
                f'the checkpoint: tightening first_width is {state["tightening"]["first_width"].item():g} after '
                f'{iteration} iterations; it must be 0 before the first one, and then 1 or more'
            )
        if self.frozen and self.settings.pretrained_critics and not self._has_critics_of(state):
            raise ValueError(
                f'the checkpoint was trained on other critics than those of {self.settings.pretrained_critics} '
                '(learn.pretrained_critics); take the file that the run began with, or begin a new run'
            )

    def _has_critics_of(self, state: Tree) -> bool:
        """Return whether the critics of a state are those here, bit by bit."""
        own = self.tree()
        critics = ((part, name) for part in ('model', 'target_critic') for name in own[part])
        return all(
            torch.equal(state[part][name].to(own[part][name]), own[part][name]) for part, name in critics
            if not name.startswith('policy.')
        )

    @classmethod
    def check_length(cls, settings: CAWRSettings, total: int) -> None:
        """Warn where the policy's learning rate is 0 before the end of a run of this number of iterations."""
        length = settings.cosine_iterations
        if length and length < total:
            warnings.warn(
                f'learn.cosine_iterations is {length}, but the run ends at iteration {total}: the learning rate of the '
                f'policy is 0 from iteration {length} on, and it does not move; set it to {total}, or to None',
                stacklevel=2
            )

    def resumed(self) -> None:
        """Follow a state: rate, trust and width are those of the step to come."""
        super().resumed()
        self._move_rate()
        if self.tightening:
            self.tightening.resumed()
        critic_steps = self.optimizer.moments['critic']['step']
        if self.iteration > 0 and critic_steps == 0 and not self._is_alone:
            warnings.warn(
                "the checkpoint's critics were frozen, or never trained where they did not give the advantages, so "
                'Adam begins anew for them', stacklevel=2
            )

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an iteration changes."""
        rate = [self.policy_rate] if self.settings.cosine_iterations else []
        tightening = self.tightening.tensors() if self.tightening else []
        parts = self.networks, self.optimizer, self.selection
        return [self.iteration, *(tensor for part in parts for tensor in part.tensors()), *rate, *tightening]

    actor = staticmethod(actor)

    @classmethod
    def check_replicas(cls, settings: CAWRSettings) -> None:
        """Raise a ValueError for settings that only a single run can have."""
        if settings.pretrained_critics is not None:
            raise ValueError('learn.pretrained_critics is for one policy; run the seeds one by one, or leave it out')

    @classmethod
    def check_online(cls, settings: CAWRSettings) -> None:
        """Raise a ValueError for settings that need a dataset's columns."""
        super().check_online(settings)
        if settings.takes_whole_data:
            raise ValueError(f'learn.{settings.fixed_by} is for datasets; leave it out where the policy collects')

    @classmethod
    def check_dataset(cls, settings: CAWRSettings, data: Transitions) -> None:
        """Raise a ValueError for a dataset that does not give the advantages that are asked for."""
        super().check_dataset(settings, data)
        if settings.advantage == 'dataset' and data.table.advantage is None:
            raise ValueError(
                f"{data.source} has no advantages, or not in every file, but learn.advantage is 'dataset'; add a "
                "column of finite numbers, one a row, under the name advantages (D4RL's layout) or advantage "
                "(DI-engine's), or set learn.advantage to 'critics'"
            )

    @classmethod
    def check_stock_rows(cls, settings: CAWRSettings, data_type: str) -> None:
        """Raise a ValueError for settings that need a dataset's columns."""
        super().check_stock_rows(settings, data_type)
        if settings.takes_whole_data:
            raise ValueError(
                f'learn.{settings.fixed_by} needs a whole dataset, which data_type {data_type!r} does not give; take '
                "'offline_transitions'"
            )


def _named(estimate: Estimate) -> dict[str, Tensor]:
    """Return Q, V and the advantage of an estimate by name."""
    return dict(estimate._asdict(), advantage=estimate.advantage)


def cosine(progress: Tensor) -> Tensor:
    """Return the factor of a learning rate that falls from 1 to 0 while ``progress`` goes from 0 to 1, and stays."""
    return 0.5 + 0.5 * (math.pi * progress.clamp(max=1)).cos()


def _both(d1: Tensor, d2: Tensor) -> Tensor:
    """Return the samples (n, ...) of D1 and D2 one after the other, (2n, ...)."""
    return torch.cat([d1, d2], dim=-2)

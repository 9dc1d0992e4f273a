"""AWR on tensors, in the order of its released code: returns, steps of V, returns again, weights, steps of the policy.

An iteration is one step, of V or of the policy. A round is the steps of V and then those of the policy. Shapes
lead with R, the number of replicas, 1 for a single run: observations (R, n, O), quantities of samples (R, n), of all
rows (R, N).
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ding_cawr.advantage import effective_sample_size, exp_weight
from ding_cawr.algorithms.awr.model import AWRModel, actor
from ding_cawr.algorithms.awr.presets import PRESETS
from ding_cawr.algorithms.awr.settings import AWRSettings, ModelSettings
from ding_cawr.algorithms.base import CHUNK, Step, Tree
from ding_cawr.algorithms.stacked import StackedAlgorithm
from ding_cawr.checks import POSITIVE, Bound
from ding_cawr.data.buffer import Sample
from ding_cawr.data.table import Table
from ding_cawr.networks.optimizers import MOMENTS, SGD, Adam, Optimizer, moments_of
from ding_cawr.networks.stacked import Stacked
from ding_cawr.returns import lambda_returns, one_step_returns

#: Names of the metrics of a step of V, and of a step of the policy.
OF_VALUE = ('value_loss', 'value', 'target_value')
OF_POLICY = ('policy_loss', 'advantage_mean', 'advantage_std', 'weight_mean', 'weight_effective_share')


class AWR(StackedAlgorithm):
    """Trains policy and V in rounds; has networks, optimizers, and the returns and weights of all rows.

    Arguments:
        models: the model, or those of R replicas, which then train at once.
        settings: the same for all.
    """
    name, Model, ModelSettings, Settings, PRESETS = 'awr', AWRModel, ModelSettings, AWRSettings, PRESETS
    STATE_BOUNDS = {
        'exp_avg_sq': Bound(0), 'step': Bound(0), 'row_weight': Bound(0), 'obs_count': Bound(0),
        **{f'policy.{kind}.obs_std': POSITIVE for kind in ('gaussian', 'softmax')},
    }
    draw_kinds = ('uniform', )
    takes_discrete = True
    whole_trajectories = True
    buffer_size = 50_000
    n_sample = 2048
    SYNONYMS = {  # DI-engine's names, and rlox's
        'learning_rate_critic': 'learn.learning_rate_value', 'model.critic_head_hidden_size': 'model.hidden_sizes',
        'model.critic_head_layer_num': 'model.hidden_sizes',
        'beta': 'learn.temperature', 'max_advantage': 'learn.max_weight', 'n_critic_updates': 'learn.critic_steps',
        'learning_starts': 'policy.random_collect_size', 'gamma': 'learn.discount_factor',
        'buffer_size': 'other.replay_buffer.replay_buffer_size', 'hidden': 'model.hidden_sizes',
    }

    def __init__(self, models: AWRModel | Sequence[AWRModel], settings: AWRSettings) -> None:
        super().__init__(models, settings)
        self.critic_steps, self.policy_steps, _ = settings.round
        #: Factor from the output of V's network to V: that of the settings, or of the networks that were loaded.
        self.scale = settings.scale
        self.policy = Stacked([[model.actor.net] for model in self.models])
        self.value = Stacked([[model.value] for model in self.models])
        rates = {'value': settings.learning_rate_value, 'policy': settings.learning_rate_policy}

        def optimizer(name: str, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
            if settings.optimizer == 'adam':
                return Adam(parameters, rates[name])
            return SGD(parameters, rates[name], settings.momentum)

        self._train({'value': [self.value], 'policy': [self.policy]}, optimizer, latest=['value', 'policy'])
        #: Return, value and weight of all rows (R, N), by which the present round goes.
        self.rows: dict[str, Tensor] = {}
        self._keeps_rows = False

    # ------------------------------------------------------------ rounds

    @property
    def in_rounds(self) -> bool:
        """Return whether an iteration is one step of a round; otherwise it is a whole round, on one batch."""
        return self.settings.returns == 'lambda'

    @property
    def reads(self) -> tuple[str, ...]:
        return ('ends', ) if self.in_rounds else ()

    @property
    def period(self) -> int:
        return self.critic_steps + self.policy_steps if self.in_rounds else 1

    @property
    def variants(self) -> int:
        return 2 if self.in_rounds else 1

    @property
    def variant(self) -> int:
        return int(self.in_rounds and self.phase >= self.critic_steps)

    def begin(self, data: Table, obs_statistics: Tensor | None) -> None:
        """Make room for what is kept of all rows of a dataset."""
        self._make_rows(data)
        self._keeps_rows = True

    def _make_rows(self, data: Table) -> None:
        if not self.in_rounds:
            return
        self.check_ends(data, 'the dataset')
        shape = len(self.models), len(data)
        self.rows = {name: self.like.new_zeros(shape) for name in ('return', 'row_value')}
        self.rows['row_weight'] = self.like.new_ones(shape)

    def check_ends(self, data: Table, source: str) -> None:
        """Raise a ValueError for λ-returns of rows in any order."""
        if self.in_rounds and data.ends is None:
            raise ValueError(
                f"learn.returns is 'lambda', which needs to know where episodes end, but {source} has rows in any "
                "order; take data in D4RL's or Minari's layout, or learn.returns 'td'"
            )

    def begin_round(self, data: Table, new: Table) -> int:
        """Return the iterations of a round that rows which came online bring; V's scale and the rest stay.

        Arguments:
            data: all rows of the buffer.
            new: those that came since the last round.
        """
        is_new = self.iteration == 0
        for model in self.models:
            # Networks that were trained without statistics, offline, go on without.
            if (is_new or model.obs_count > 0) and model.obs_count < self.settings.normalizer_steps:
                model.observe((data if is_new else new)['obs'])  # a dataset that the buffer began with is not new
        critic_steps, policy_steps, round_steps = self.settings.round
        share = len(new) / round_steps
        if not self.in_rounds:
            return math.ceil(share)
        self.critic_steps, self.policy_steps = math.ceil(critic_steps * share), math.ceil(policy_steps * share)
        self._make_rows(data)
        return self.period

    def prepare(self, data: Table) -> dict[str, Tensor]:
        """Compute the returns of all rows for the steps of V; before the policy's first step compute them again with
        the new V, and the weights."""
        if not self.in_rounds or self.phase not in (0, self.critic_steps):
            return {}
        value, target = self.returns_of(data)
        self.rows['row_value'].copy_(value)
        self.rows['return'].copy_(target)
        if self.phase:
            self.rows['row_weight'].copy_(self.weights(target - value))
        return self._without_replicas({'value': value, 'return': target})

    @torch.no_grad()
    def returns_of(self, data: Table) -> tuple[Tensor, Tensor]:
        """Return V(s) and the λ-returns (R, N) of all rows, by V as it is."""
        value, next_value = (self._values_of_rows(data[name]) for name in ('obs', 'next_obs'))
        done = torch.zeros_like(data['reward']) if self.settings.ignore_done else data['done']
        reward, done = data['reward'].to(value.dtype), done.to(value.dtype)
        discount_factor, td_lambda = self.settings.discount_factor, self.settings.td_lambda
        return value, lambda_returns(reward, next_value, done, data.ends, discount_factor, td_lambda)

    def _values_of_rows(self, obs: Tensor) -> Tensor:
        parts = obs.split(CHUNK // len(self.models))
        return torch.cat([self.values(part.to(self.like).expand(len(self.models), -1, -1)) for part in parts], dim=-1)

    def weights(self, advantage: Tensor) -> Tensor:
        """Return w = min(exp(z / λ), max_weight) (R, n)."""
        settings = self.settings
        return exp_weight(advantage, settings.temperature, settings.max_weight, settings.normalize_advantage)

    # ------------------------------------------------------------ steps

    def values(self, obs: Tensor) -> Tensor:
        """Return V(s) (R, n) of raw observations (R, n, O)."""
        return self.scale * self.value(self._normalized(obs))[:, 0, :, 0]

    def _normalized(self, obs: Tensor) -> Tensor:
        mean, std = (
            torch.stack([getattr(model.actor, name) for model in self.models]).unsqueeze(1)
            for name in ('obs_mean', 'obs_std')
        )
        return (obs - mean) / std

    def value_loss(self, value: Tensor, target: Tensor) -> Tensor:
        """Return ½ mean ((R - V) / c)² (R,) of values and returns (R, n)."""
        return 0.5 * ((target - value) / self.scale).square().mean(dim=-1)

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s) (R, n) of means or logits (R, n, A) and actions (R, n, A), of discrete ones (R, n, 1)."""
        if self.models[0].discrete:
            return output.log_softmax(dim=-1).gather(-1, action.long()).squeeze(-1)
        std = self.models[0].action_std
        return (-0.5 * ((action - output) / std).square() - math.log(std * math.sqrt(2 * math.pi))).sum(dim=-1)

    def penalty(self, output: Tensor) -> Tensor:
        """Return what means beyond [-1, 1], or logits, cost (R,)."""
        settings = self.settings
        if self.models[0].discrete:
            return settings.logit_weight * 0.5 * output.square().sum(dim=-1).mean(dim=-1)
        return settings.bound_weight * 0.5 * (output.abs() - 1).clamp(min=0).square().sum(dim=-1).mean(dim=-1)

    def policy_loss(self, output: Tensor, action: Tensor, weight: Tensor) -> Tensor:
        """Return -mean(w log π(a|s)) and the penalty (R,)."""
        return self.penalty(output) - (weight * self.log_prob(output, action)).mean(dim=-1)

    def step(self, draws: Mapping[str, Sample]) -> Step:
        """Return what one iteration on n uniform samples gave."""
        sample = draws['uniform']
        obs, action = self._columns(sample, 'obs', 'action')
        of_rows = {name: rows.gather(-1, sample.indices.reshape(len(self.models), -1))
                   for name, rows in self.rows.items()}
        if not self.in_rounds:
            value, target, weight = self._step_both(sample, obs, action)
        elif self.variant == 0:
            target, weight = of_rows['return'], of_rows['row_weight']
            value = self._step_value(obs, target)
        else:
            value, target, weight = of_rows['row_value'], of_rows['return'], of_rows['row_weight']
            self._step_policy(obs, action, weight)
        self.iteration += 1
        losses = {f'{name}_loss': latest.clone() for name, latest in self.latest.items()}
        per_sample = {'value': value, 'target': target, 'advantage': target - value, 'weight': weight}
        return Step(self._without_replicas(losses), self._without_replicas(per_sample), None)

    def _step_both(self, sample: Sample, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move V towards one-step returns, and the policy by the advantages over V as it is then."""
        reward, next_obs, done = self._columns(sample, 'reward', 'next_obs', 'done')
        with torch.no_grad():
            target = one_step_returns(reward, self.values(next_obs), done, self.settings.discount_factor)
        for _ in range(self.critic_steps):
            self._step_value(obs, target)
        with torch.no_grad():
            value = self.values(obs)
        weight = self.weights(target - value)
        for _ in range(self.policy_steps):
            self._step_policy(obs, action, weight)
        return value, target, weight

    def _step_value(self, obs: Tensor, target: Tensor) -> Tensor:
        """Move V; return what it was (R, n)."""
        value = self.values(obs)
        self._descend(self.value_loss(value, target), 'value')
        return value.detach()

    def _step_policy(self, obs: Tensor, action: Tensor, weight: Tensor) -> None:
        output = self.policy(self._normalized(obs))[:, 0]
        self._descend(self.policy_loss(output, action, weight), 'policy')

    # ------------------------------------------------------------ the rest of the contract

    @classmethod
    def check_stock_rows(cls, settings: AWRSettings, data_type: str) -> None:
        """Raise a ValueError for λ-returns, or draws by return, of rows that come in any order."""
        super().check_stock_rows(settings, data_type)
        if settings.returns == 'lambda':
            raise ValueError(
                f"learn.returns is 'lambda', which needs whole episodes, but data_type {data_type!r} gives rows in any "
                "order; take offline_transitions, or learn.returns 'td'"
            )

    @classmethod
    def metric_names(cls, settings: AWRSettings) -> list[str]:
        """Return the names of what ``metrics`` gives, of V's steps and of the policy's."""
        return [*OF_VALUE, *OF_POLICY, *(['total_loss'] if settings.returns == 'td' else [])]

    def metrics(self, step: Step) -> dict[str, Tensor]:
        """Return means of a step, a scalar or (R,) each: in a round those of V or of the policy, whichever moved."""
        each = step.per_sample
        found = {
            **step.losses, 'total_loss': sum(step.losses.values()),
            'value': each['value'].mean(dim=-1), 'target_value': each['target'].mean(dim=-1),
            'advantage_mean': each['advantage'].mean(dim=-1),
            'advantage_std': each['advantage'].std(dim=-1, correction=0),
            'weight_mean': each['weight'].mean(dim=-1),
            'weight_effective_share': effective_sample_size(each['weight']),
        }
        if not self.in_rounds:
            return found
        return {name: found[name] for name in (OF_POLICY if self.variant else OF_VALUE)}

    def check_settings(self, state: Mapping[str, Any]) -> None:
        """Raise a ValueError for the moments of the other optimizer."""
        found = moments_of(state.get('optimizer'))
        asked, kind = self.settings.optimizer, next((name for name, names in MOMENTS.items() if names == found), None)
        if kind not in (asked, None):
            raise ValueError(
                f'learn.optimizer is {asked!r}, but the checkpoint was trained with {kind!r}; set it to {kind!r}, or '
                'take another checkpoint'
            )

    @property
    def units(self) -> dict[str, float]:
        return {**super().units, 'value_scale': float(self.scale)}

    def check_units(self, found: Mapping[str, float]) -> None:
        """Raise a ValueError for a scale of V that cannot be, or another than the settings ask for."""
        super().check_units(found)
        asked, scale = self.settings.value_scale, POSITIVE.check("the checkpoint's value_scale", found['value_scale'])
        if asked is not None and asked != scale:
            raise ValueError(
                f'learn.value_scale is {asked}, but V of the checkpoint is {scale:g} times its network; set it to '
                'that, or to None, which keeps it'
            )

    def load_state_dict(self, state: Tree, iteration: int) -> None:
        """Go on from a state, with V in the scale of its network, so that V is what it was."""
        super().load_state_dict(state, iteration)
        self.scale = (state.get('units') or self.units)['value_scale']

    def tree(self, replica: int = 0) -> Tree:
        """Return networks and moments of one replica and, of a dataset, returns and weights of its rows; not copies."""
        rows = {name: each[replica:replica + 1] for name, each in self.rows.items()} if self._keeps_rows else {}
        return {**super().tree(replica), 'rows': rows}

    actor = staticmethod(actor)

"""AWR's settings: the keys of ``policy.learn`` and ``policy.model``, their bounds, defaults and comments."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ding_cawr.algorithms.settings import LearnSettings, Settings, WidthsKind, setting
from ding_cawr.checks import POSITIVE, POSITIVE_INT, Bound, Flag, Names, or_none

#: Defaults by ``returns``: critic steps and policy steps of a round, and new environment steps between two rounds.
ROUNDS = {'lambda': (200, 1000, 2048), 'td': (1, 1, 1)}
#: Names of continuous actions, ours first; DI-engine's other policies have the others.
CONTINUOUS = ('continuous', 'regression', 'reparameterization')


class ActionSpace:
    """The kind of actions."""

    def __str__(self) -> str:
        return "'continuous' or 'discrete'"

    def check(self, key: str, value: Any) -> str:
        """Return 'continuous' or 'discrete'; names of DI-engine's policies are taken for the first."""
        if value not in ('discrete', *CONTINUOUS):
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        return 'discrete' if value == 'discrete' else 'continuous'


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """The keys of ``policy.model`` beside the widths of the data. Defaults are those of the released code."""
    hidden_sizes: list[int] = setting((128, 64), WidthsKind(), 'Widths of the hidden layers of the policy, and of V.')
    action_space: str = setting(
        'continuous', ActionSpace(), "'continuous': a Gaussian of fixed deviation, within [-1, 1]; "
        "'discrete': one of action_shape actions, by softmax."
    )
    action_std: float = setting(
        0.4, POSITIVE, "Standard deviation of the Gaussian; an action's range is 2. Released: 0.4, Ant 0.2."
    )


@dataclass(frozen=True, kw_only=True)
class AWRSettings(LearnSettings):
    """The keys of ``policy.learn``. Defaults are those of the released code (github xbpeng/awr) for Hopper.

    V: ½ mean ((R - V(s)) / c)², c = value_scale. Policy: -mean(w log π(a|s)), w = min(exp(z / λ), max_weight), z the
    advantages A = R - V(s), normalized over all rows.
    """
    batch_size: int = setting(256, POSITIVE_INT, 'Samples n of the batch that an iteration draws.')
    returns: str = setting(
        'lambda', Names(tuple(ROUNDS)), "R. 'lambda': λ-returns of all rows, by trajectories, once before the critic's "
        "steps of a round and again before the policy's; 'td': r + γ V(s') of each batch."
    )
    td_lambda: float = setting(0.95, Bound(0, 1), 'λ of the returns.')
    critic_steps: int | None = setting(
        None, or_none(POSITIVE_INT), "Steps of V in a round. None: 200, or 1 with returns 'td', where all steps of a "
        'round are on the same batch.'
    )
    policy_steps: int | None = setting(
        None, or_none(POSITIVE_INT), "Steps of the policy in a round, after those of V. None: 1000, or 1 with returns "
        "'td'."
    )
    round_steps: int | None = setting(
        None, or_none(POSITIVE_INT), 'Online: new steps of the environment after which a round has critic_steps and '
        "policy_steps. After k times as many new steps a round has k times as many of both. None: 2048, or 1 with "
        "returns 'td'."
    )
    temperature: float = setting(1.0, POSITIVE, 'λ of the weights exp(z / λ), which the paper calls β.')
    max_weight: float = setting(20.0, POSITIVE, 'Bound of the weights.')
    normalize_advantage: bool = setting(
        True, Flag(), "z = (A - mean A) / std A, over all rows; over the batch with returns 'td'. Else z = A."
    )
    value_scale: float | None = setting(
        None, or_none(POSITIVE), 'c: V is c times the output of its network. None: 1 / (1 - γ).'
    )
    bound_weight: float = setting(
        10.0, Bound(0), "Weight in the policy's loss of ½ mean Σ max(|μ| - 1, 0)² (continuous)."
    )
    logit_weight: float = setting(0.0, Bound(0), "Weight in the policy's loss of ½ mean Σ logits² (discrete).")
    optimizer: str = setting('sgd', Names(('sgd', 'adam')), "Of both networks. 'sgd' has the momentum below.")
    momentum: float = setting(0.9, Bound(0, 1, open_high=True), "Momentum of 'sgd'.")
    learning_rate_value: float = setting(1e-2, POSITIVE, 'Learning rate of V.')
    learning_rate_policy: float = setting(
        1e-4, POSITIVE, 'Learning rate of the policy. Released: Hopper 1e-4, HalfCheetah and Ant 5e-5, Walker2d 2.5e-5.'
    )
    normalizer_steps: int = setting(
        300_000, Bound(0, whole=True), 'Online, observations are normalized with the mean and deviation of those that '
        'came. After this number of observations both stay as they are. 0: raw observations.'
    )

    def __post_init__(self) -> None:
        """Raise a ValueError for a scale of V that nothing says."""
        if self.value_scale is None and self.discount_factor == 1:
            raise ValueError(
                'learn.discount_factor is 1, so that 1 / (1 - γ) is infinite; give learn.value_scale, about the size '
                'of the returns'
            )

    @property
    def idle(self) -> set[str]:
        returns = set() if self.returns == 'lambda' else {'td_lambda'}
        return super().idle | returns | (set() if self.optimizer == 'sgd' else {'momentum'})

    @property
    def round(self) -> tuple[int, int, int]:
        """Return critic steps, policy steps, and the new steps that these belong to."""
        given = self.critic_steps, self.policy_steps, self.round_steps
        return tuple(default if each is None else each for each, default in zip(given, ROUNDS[self.returns]))

    @property
    def scale(self) -> float:
        """Return the factor from the output of the network to V."""
        return 1 / (1 - self.discount_factor) if self.value_scale is None else self.value_scale

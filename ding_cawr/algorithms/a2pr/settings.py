"""A2PR's settings: the keys of ``policy.learn`` and ``policy.model``, their bounds, defaults and comments."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ding_cawr.algorithms.settings import (
    Auto,
    Draws,
    LossKind,
    PriorityKind,
    SelectionSettings,
    Settings,
    TemperatureKind,
    WidthsKind,
    setting,
)
from ding_cawr.checks import POSITIVE, POSITIVE_INT, Bound, Flag, Names

IMITATIONS = ('a2pr', 'mask', 'all')


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """The keys of ``policy.model`` beside the widths of the data. Widths are those of the released code."""
    hidden_sizes: list[int] = setting((256, 256, 256), WidthsKind(), 'Widths of the hidden layers of the policy.')
    critic_hidden_sizes: list[int] = setting(
        (256, 256, 256, 256), WidthsKind(), 'Widths of the hidden layers of Q and V.'
    )
    critic_layer_norm: bool = setting(False, Flag(), 'Normalize after each hidden layer of Q and V.')
    vae: bool = setting(True, Flag(), "Whether there is a VAE of actions, which learn.imitation 'a2pr' needs.")
    vae_hidden_sizes: list[int] = setting((750, 750), WidthsKind(), "Widths of the VAE's encoder and decoder.")


@dataclass(frozen=True, kw_only=True)
class A2PRSettings(SelectionSettings):
    """The keys of ``policy.learn``. Defaults are those of the released code, github ltlhuuu/A2PR.

    The policy's loss is -alpha / mean|Q₁(s, π)| · mean Q₁(s, π) + mean(c f(π - e)), c = mask where a sample is
    imitated, else 0; f is policy_loss, the square as released. With a priority or ``best_episodes`` the policy has a
    batch of its own. With a priority its samples are drawn with probability p_i^exponent / Σ p^exponent, p = h(A)
    clipped to [min_priority, max_weight].
    """
    batch_size: int = setting(256, POSITIVE_INT, 'Samples n of each batch that an iteration draws.')
    alpha: float = setting(2.5, POSITIVE, "Weight of the policy gradient, after its scale is taken out (TD3+BC's α).")
    mask: float = setting(0.5, Bound(0), 'Weight of the imitation where it is on.')
    imitation: str = setting(
        'a2pr', Names(IMITATIONS), "'a2pr': of the better of the dataset's action and the VAE's, where its advantage "
        "is positive; 'mask' (wPC): of the dataset's action where its advantage is positive; 'all' (TD3+BC): of every "
        'action.'
    )
    advantage_threshold: float = setting(0.0, Bound(), 'ε_A: an advantage above it counts as positive.')
    detach_target: bool = setting(
        False, Flag(), "Whether the VAE's action is a constant in the policy's loss. Released: no, the gradient passes "
        'through encoder and decoder.'
    )
    vae_weight: float = setting(1.0, Bound(0), "Weight of the VAE's reconstruction of actions of positive advantage.")
    target_theta: float = setting(
        0.005, Bound(0, 1, open_low=True), 'Soft update of the targets, with each step of the policy.'
    )
    policy_noise: float = setting(0.2, Bound(0), "Standard deviation of the noise on the target's action (TD3).")
    noise_clip: float = setting(0.5, Bound(0), 'Bound of that noise.')
    policy_freq: int = setting(2, POSITIVE_INT, 'Iterations between two steps of the policy and the targets.')
    learning_rate_q: float = setting(3e-4, POSITIVE, "Adam's learning rate of Q.")
    learning_rate_value: float = setting(3e-4, POSITIVE, "Adam's learning rate of V.")
    learning_rate_policy: float = setting(3e-4, POSITIVE, "Adam's learning rate of the policy.")
    learning_rate_vae: float = setting(1e-3, POSITIVE, "Adam's learning rate of the VAE.")
    policy_loss: Callable[[Tensor, float], Tensor] = setting(
        'l2', LossKind(), "Loss f of the imitation, CAWR's (arXiv 2506.15654, Sec. 4.1), as a mean over the action's "
        "dimensions. σ, which is in the defaults of flat's and skew's constants, is CAWR's exp(-2)."
    )
    priority: Draws | None = setting(
        'none', PriorityKind(), "Priority of the draws of a batch of the policy's own, and its exponent (CAWR, Sec. "
        "4.2). 'none': the policy learns from the batch of the critics."
    )
    temperature: float | Auto = setting(
        'auto', TemperatureKind(0.8), "λ of the priorities: larger is closer to uniform draws. 'auto' holds the "
        'effective sample size at a share of the dataset.'
    )
    max_weight: float = setting(100.0, POSITIVE, 'Upper bound of priorities.')

    added_later: ClassVar[tuple[str, ...]] = (
        *SelectionSettings.added_later, 'policy_loss', 'priority', 'temperature', 'max_weight', 'min_priority',
        'priority_refresh'
    )

    @property
    def idle(self) -> set[str]:
        vae = set() if self.imitation == 'a2pr' else {'vae_weight', 'learning_rate_vae', 'detach_target'}
        mask = set() if self.imitation != 'all' else {'advantage_threshold'}
        imitation = set() if self.mask else {
            'detach_target', 'policy_loss', 'advantage_threshold', 'vae_weight', 'learning_rate_vae'}
        noise = set() if self.policy_noise and self.noise_clip else {'policy_noise', 'noise_clip'}
        value = set() if self.priority or (self.mask and self.imitation != 'all') else {'learning_rate_value'}
        return super().idle | vae | mask | imitation | noise | value

    @property
    def own_batch(self) -> bool:
        """Return whether the policy has a batch of its own, beside that of critics, V and VAE."""
        return self.priority is not None or self.best_episodes is not None

    @property
    def uses_value(self) -> bool:
        """Return whether V is trained, which advantages need."""
        return self.imitation != 'all' or self.priority is not None

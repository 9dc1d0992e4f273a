"""The networks: a deterministic policy, twin Q, V, and a VAE of actions."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.a2pr.settings import ModelSettings
from ding_cawr.algorithms.models import model_width, read_actor

#: Standard deviation of the noise on actions that collect data (TD3).
EXPLORATION = 0.1


def _mlp(sizes: Sequence[int], layer_norm: bool = False, bounded: bool = False) -> nn.Sequential:
    """Return fully connected layers with ReLU in between, and a tanh at the end where outputs are bounded."""
    layers: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:]):
        layers += [nn.Linear(i, o), nn.ReLU(), *([nn.LayerNorm(o)] if layer_norm else [])]
    after_the_last = 2 if layer_norm else 1
    return nn.Sequential(*layers[:-after_the_last], *([nn.Tanh()] if bounded else []))


class Actor(nn.Module):
    """π: (B, O) to actions (B, A) in [-1, 1]."""

    def __init__(self, obs_shape: int, action_shape: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.obs_shape, self.action_shape = obs_shape, action_shape
        self.net = _mlp((obs_shape, *hidden_sizes, action_shape), bounded=True)

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)


class A2PRModel(nn.Module):
    """
    Overview:
        Policy, twin Q, V and VAE of A2PR, of the released code's shapes and PyTorch's own initial weights.
    Interfaces:
        ``actor``, ``critics``, ``value``, ``encoder``, ``decoder``, ``forward``, ``explore``
    """

    def __init__(self, obs_shape: int, action_shape: int, **widths: Any) -> None:
        """
        Overview:
            Create the networks.
        Arguments:
            - obs_shape (:obj:`int`): Width O of an observation.
            - action_shape (:obj:`int`): Width A of an action.
            - widths: The keys of ``ModelSettings``.
        """
        super().__init__()
        self.obs_shape = model_width('obs_shape', obs_shape)
        self.action_shape = model_width('action_shape', action_shape)
        settings = ModelSettings.read(widths, 'model', exact=True)
        o, a = self.obs_shape, self.action_shape
        self.actor = Actor(o, a, settings.hidden_sizes)
        critic, norm = settings.critic_hidden_sizes, settings.critic_layer_norm
        self.critics = nn.ModuleList(_mlp((o + a, *critic, 1), norm) for _ in range(2))
        self.value = _mlp((o, *critic, 1), norm)
        self.encoder = self.decoder = None
        if settings.vae:  # the latent space is twice as wide as an action; its mean and log std are side by side
            self.encoder = _mlp((o + a, *settings.vae_hidden_sizes, 4 * a))
            self.decoder = _mlp((o + 2 * a, *settings.vae_hidden_sizes, a), bounded=True)

    def forward(self, obs: Tensor) -> Tensor:
        """
        Overview:
            Return the action that evaluation takes.
        Arguments:
            - obs (:obj:`Tensor`): (B, O).
        Returns:
            - action (:obj:`Tensor`): π(s), within [-1, 1], (B, A).
        """
        return self.actor(obs)

    def explore(self, obs: Tensor) -> Tensor:
        """
        Overview:
            Return the action that collecting takes.
        Arguments:
            - obs (:obj:`Tensor`): (B, O).
        Returns:
            - action (:obj:`Tensor`): π(s) with Gaussian noise, clipped to [-1, 1], (B, A).
        """
        action = self.actor(obs)
        return (action + EXPLORATION * torch.randn_like(action)).clamp(-1, 1)


#: Return π from a checkpoint's state.
actor = partial(read_actor, part='actor', build=Actor)

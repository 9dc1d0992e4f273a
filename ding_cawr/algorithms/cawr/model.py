"""The networks: a Gaussian policy of fixed standard deviation, twin Q functions, V."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.cawr.settings import ModelSettings
from ding_cawr.algorithms.models import model_width, read_actor

LAST_LAYER_RANGE = 3e-3


class EnsembleLinear(nn.Module):
    """E linear layers of equal shape in one batched product: (E, B, I) to (E, B, O), initialized like ``nn.Linear``."""

    def __init__(self, ensemble: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(ensemble, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def _mlp(sizes: Sequence[int], linear) -> nn.Sequential:
    """Return fully connected layers with ReLU in between; the last one starts near zero, uniform in ±3e-3."""
    layers: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:]):
        layers += [linear(i, o), nn.ReLU()]
    last = layers[-2]
    nn.init.uniform_(last.weight, -LAST_LAYER_RANGE, LAST_LAYER_RANGE)
    nn.init.uniform_(last.bias, -LAST_LAYER_RANGE, LAST_LAYER_RANGE)
    return nn.Sequential(*layers[:-1])


class TwinQ(nn.Module):
    """Two Q functions side by side: (B, O), (B, A) to (2, B)."""

    def __init__(self, obs_shape: int, action_shape: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = (obs_shape + action_shape, *hidden_sizes, 1)
        self.net = _mlp(sizes, lambda i, o: EnsembleLinear(2, i, o))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([obs, action], dim=-1)
        return self.net(x.expand(2, *x.shape)).squeeze(-1)


class Value(nn.Module):
    """V: (B, O) to (B,)."""

    def __init__(self, obs_shape: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.net = _mlp((obs_shape, *hidden_sizes, 1), nn.Linear)

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs).squeeze(-1)


class MeanPolicy(nn.Module):
    """μ, the mean of the policy: (B, O) to (B, A), unbounded; whoever acts clips to [-1, 1]."""

    def __init__(self, obs_shape: int, action_shape: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.obs_shape, self.action_shape = obs_shape, action_shape
        self.net = _mlp((obs_shape, *hidden_sizes, action_shape), nn.Linear)

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)


class CAWRModel(nn.Module):
    """
    Overview:
        Policy mean, twin Q and V of CAWR (Table 4: two hidden ReLU layers of 256).
    Interfaces:
        ``policy``, ``critic``, ``value``, ``forward``, ``explore``
    """

    def __init__(self, obs_shape: int, action_shape: int, **settings: Any) -> None:
        """
        Overview:
            Create the networks.
        Arguments:
            - obs_shape (:obj:`int`): Width O of an observation.
            - action_shape (:obj:`int`): Width A of an action.
            - settings: The keys of ``ModelSettings``.
        """
        super().__init__()
        self.obs_shape = model_width('obs_shape', obs_shape)
        self.action_shape = model_width('action_shape', action_shape)
        read = ModelSettings.read(settings, 'model', exact=True)
        widths = self.obs_shape, self.action_shape
        self.policy = MeanPolicy(*widths, read.hidden_sizes)
        self.critic = TwinQ(*widths, read.hidden_sizes)
        self.value = Value(self.obs_shape, read.hidden_sizes)
        self.sigma = math.exp(read.log_std)

    def forward(self, obs: Tensor) -> Tensor:
        """
        Overview:
            Return the action that evaluation takes.
        Arguments:
            - obs (:obj:`Tensor`): (B, O).
        Returns:
            - action (:obj:`Tensor`): μ(s), clipped to [-1, 1], (B, A).
        """
        return self.policy(obs).clamp(-1, 1)

    def explore(self, obs: Tensor) -> Tensor:
        """
        Overview:
            Return the action that collecting takes.
        Arguments:
            - obs (:obj:`Tensor`): (B, O).
        Returns:
            - action (:obj:`Tensor`): A draw from N(μ(s), σ²), clipped to [-1, 1], (B, A).
        """
        mean = self.policy(obs)
        return (mean + self.sigma * torch.randn_like(mean)).clamp(-1, 1)


#: Return μ from a checkpoint's state.
actor = partial(read_actor, part='policy', build=MeanPolicy)

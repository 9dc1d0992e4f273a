"""The networks: a policy, Gaussian or softmax, and V; and the running statistics of observations."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.awr.settings import ModelSettings
from ding_cawr.algorithms.models import model_width, read_actor

#: Bound of the policy's first weights in its last layer.
HEAD = 0.01
#: Least standard deviation that observations are divided by.
LEAST_STD = 0.01


def _mlp(sizes: Sequence[int], head: float | None = None) -> nn.Sequential:
    """Return fully connected layers with ReLU in between.

    Weights are Xavier's, those of the last layer uniform within ``head`` where that is given; biases are 0.
    """
    layers: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:]):
        layers += [nn.Linear(i, o), nn.ReLU()]
        nn.init.xavier_uniform_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    if head is not None:
        nn.init.uniform_(layers[-2].weight, -head, head)
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """Turns observations (B, O) into what the policy is made of (B, A): a Gaussian's mean, or logits.

    ``discrete`` says whether it acts by one of A actions.
    """
    discrete: bool

    def __init__(self, obs_shape: int, action_shape: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.obs_shape, self.action_shape = obs_shape, action_shape
        self.net = _mlp((obs_shape, *hidden_sizes, action_shape), HEAD)
        self.register_buffer('obs_mean', torch.zeros(obs_shape))
        self.register_buffer('obs_std', torch.ones(obs_shape))

    def output(self, obs: Tensor) -> Tensor:
        """Return mean or logits (B, A)."""
        return self.net((obs - self.obs_mean) / self.obs_std)


class GaussianActor(Actor):
    """π(a|s) = N(μ(s), σ²): (B, O) to the mean (B, A)."""
    discrete = False

    def forward(self, obs: Tensor) -> Tensor:
        return self.output(obs)


class SoftmaxActor(Actor):
    """π(a|s) = softmax: (B, O) to the likeliest action (B,), int64."""
    discrete = True

    def forward(self, obs: Tensor) -> Tensor:
        return self.output(obs).argmax(dim=-1)


#: By the name of the policy's module in the model.
ACTORS: Mapping[str, type[Actor]] = {'gaussian': GaussianActor, 'softmax': SoftmaxActor}


class AWRModel(nn.Module):
    """
    Overview:
        Policy and V of AWR (released: two hidden ReLU layers of 128 and 64 each).
    Interfaces:
        ``actor``, ``value``, ``forward``, ``explore``, ``observe``
    """

    def __init__(self, obs_shape: int, action_shape: int, **settings: Any) -> None:
        """
        Overview:
            Create the networks.
        Arguments:
            - obs_shape (:obj:`int`): Width O of an observation.
            - action_shape (:obj:`int`): Width A of an action, or the number of discrete actions.
            - settings: The keys of ``ModelSettings``.
        """
        super().__init__()
        self.obs_shape = model_width('obs_shape', obs_shape)
        self.action_shape = model_width('action_shape', action_shape)
        read = ModelSettings.read(settings, 'model', exact=True)
        self.action_std, self.discrete = read.action_std, read.action_space == 'discrete'
        # V comes first: its weights are the same whatever the actions are.
        self.value = _mlp((self.obs_shape, *read.hidden_sizes, 1))
        self.kind = 'softmax' if self.discrete else 'gaussian'
        self.policy = nn.ModuleDict({
            self.kind: ACTORS[self.kind](self.obs_shape, self.action_shape, read.hidden_sizes)
        })
        self.register_buffer('obs_count', torch.zeros((), dtype=torch.float64))

    @property
    def actor(self) -> Actor:
        """Return the policy."""
        return self.policy[self.kind]

    def forward(self, obs: Tensor) -> Tensor:
        """
        Overview:
            Return the action that evaluation takes.
        Arguments:
            - obs (:obj:`Tensor`): (B, O).
        Returns:
            - action (:obj:`Tensor`): The mean, clipped to [-1, 1], (B, A); or the likeliest action (B,), int64.
        """
        action = self.actor(obs)
        return action if self.discrete else action.clamp(-1, 1)

    def explore(self, obs: Tensor) -> Tensor:
        """
        Overview:
            Return the action that collecting takes.
        Arguments:
            - obs (:obj:`Tensor`): (B, O).
        Returns:
            - action (:obj:`Tensor`): A draw from the policy, (B, A), which the environment clips to [-1, 1] and the \
              buffer keeps as it is; or (B,), int64.
        """
        output = self.actor.output(obs)
        if self.discrete:
            return torch.distributions.Categorical(logits=output).sample()
        return output + self.action_std * torch.randn_like(output)

    @torch.no_grad()
    def observe(self, obs: Tensor) -> None:
        """
        Overview:
            Take observations into the mean and the standard deviation that the networks' inputs are normalized with.
        Arguments:
            - obs (:obj:`Tensor`): (B, O), raw.
        """
        actor, obs = self.actor, obs.double()
        count, total = self.obs_count.item(), self.obs_count.item() + len(obs)
        mean, variance = actor.obs_mean.double(), actor.obs_std.double().square()
        new_variance, new_mean = torch.var_mean(obs, dim=0, correction=0)
        difference, share = new_mean - mean, len(obs) / total
        between = difference.square() * share * (1 - share) if count else 0
        variance = variance * (1 - share) + new_variance * share + between
        actor.obs_mean.copy_(mean + difference * share)
        actor.obs_std.copy_(variance.sqrt().clamp(min=LEAST_STD))
        self.obs_count.fill_(total)


def actor(state: Mapping[str, Any], source: str) -> Actor:
    """Return π from a checkpoint's state, on the CPU in float32; raise a ValueError where that cannot be used."""
    model = state.get('model')
    names = [name for name in (model if isinstance(model, dict) else {}) if isinstance(name, str)]
    kind = next((kind for kind in ACTORS if any(name.startswith(f'policy.{kind}.') for name in names)), 'gaussian')
    return read_actor(state, source, f'policy.{kind}', ACTORS[kind])

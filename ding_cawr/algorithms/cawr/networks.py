"""CAWR's networks by name, run by the block of parameters.

``model.py`` says what the networks are; tests/test_networks.py compares the passes here with its modules and with
autograd.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ding_cawr.algorithms.base import CHUNK
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.networks.block import Block, Pass
from ding_cawr.networks.optimizers import Adam

#: Rows of the block: μ, Q1, Q2, V are trained; V, Q̄1, Q̄2 estimate.
TRAINED, ESTIMATING = range(0, 4), range(3, 6)


class Estimate(NamedTuple):
    """Values of samples (B,) by the critics, detached: min(Q̄1, Q̄2)(s, a) and V(s)."""
    q_value: Tensor
    value: Tensor

    @property
    def advantage(self) -> Tensor:
        """A = min(Q̄1, Q̄2)(s, a) - V(s), (B,)."""
        return self.q_value - self.value


class Predictions(NamedTuple):
    """Outputs of the networks that train: μ(s) (n, A), Q1 and Q2 (2, n), V (n,); ``forward`` is for ``backward``."""
    mean: Tensor
    q_values: Tensor | None
    value: Tensor | None
    forward: Pass


class Networks:
    """μ, Q, V and the soft target Q̄ of one model, or of R replicas.

    ``replica_shape``, () for one model and (R,) for a list of R, comes first in the shapes of all inputs and outputs.

    Arguments:
        precision: name in ``networks.block.PRECISIONS``.
        as_one: whether networks run as one batch, padded, or one by one; None: as one on a GPU.
    """

    def __init__(
        self, models: CAWRModel | Sequence[CAWRModel], precision: str = 'float32', as_one: bool | None = None
    ) -> None:
        self.models = [models] if isinstance(models, CAWRModel) else list(models)
        self.replica_shape = () if isinstance(models, CAWRModel) else (len(self.models), )
        self.target_critics = [copy.deepcopy(model.critic).requires_grad_(False) for model in self.models]
        networks = [
            dict(policy=model.policy.net, critic=model.critic.net, value=model.value.net, target=target.net)
            for model, target in zip(self.models, self.target_critics)
        ]
        self.block = Block(networks, self.replica_shape, ('policy', 'critic', 'value'), [ESTIMATING], precision, as_one)
        #: For the optimizer, by name, (rows, R, P) each.
        self.parameters = self.block.parameters

    def tensors(self) -> list[Tensor]:
        """Return all tensors that training changes."""
        return self.block.tensors()

    def evaluate(
        self, pairs: Tensor, states: Tensor, policy_obs: Tensor, obs: Tensor, obs_action: Tensor
    ) -> tuple[Estimate, Predictions]:
        """Return min Q̄(s, a) (m,) of pairs (m, O + A) with V(s) (m,) of as many states (m, O), which are not those of
        the pairs, and the predictions μ(s) of ``policy_obs`` and V(s) of ``obs`` (n, O), Q(s, a) of ``obs_action``
        (n, O + A)."""
        estimated, predicted = self.block.forwards(
            (ESTIMATING, [states, pairs, pairs]), (TRAINED, [policy_obs, obs_action, obs_action, obs])
        )
        mean, *q_values, value = predicted.outputs
        return (
            self._estimated(estimated),
            Predictions(mean, torch.stack(q_values).squeeze(-1), value.squeeze(-1), predicted)
        )

    def estimate(self, states: Tensor, pairs: Tensor) -> Estimate:
        """Return the estimate of a whole dataset (N,), whose rows the replicas share, in chunks."""
        estimated, size = [], CHUNK // len(self.models)
        # Memory of its own: a recorded graph goes on writing to that of the iterations.
        scratch = self.block.scratch(ESTIMATING, size)
        for chunk in zip(states.split(size), pairs.split(size)):
            obs, pair = (each.expand(*self.replica_shape, *each.shape) for each in chunk)
            hidden = [[[each[..., :len(chunk[0]), :] for each in net] for net in task] for task in scratch]
            estimated.append(self._estimated(self.block.forward(ESTIMATING, [obs, pair, pair], hidden)))
        return Estimate(*(torch.cat(parts, dim=-1) for parts in zip(*estimated)))

    def _estimated(self, forward: Pass) -> Estimate:
        value, *q_values = (output.squeeze(-1) for output in forward.outputs)
        return Estimate(torch.minimum(*q_values), value)

    def predict_mean(self, obs: Tensor) -> Predictions:
        """Return μ(s) (n, A) alone."""
        forward = self.block.forward(self.block.rows['policy'], [obs])
        return Predictions(forward.outputs[0], None, None, forward)

    def descend(
        self, optimizer: Adam, predictions: Predictions, mean: Tensor, q_values: Tensor | None = None,
        value: Tensor | None = None
    ) -> None:
        """Take a step of the networks that predicted, along the gradients of the predictions."""
        gradients = [mean]
        if predictions.q_values is not None:
            gradients += [*q_values.unsqueeze(-1), value.unsqueeze(-1)]
        self.block.descend(predictions.forward, gradients, optimizer)

    def move_target(self, theta: float) -> None:
        """Move the target a little: Q̄ ← Q̄ + theta (Q - Q̄)."""
        self.block.others.lerp_(self.parameters['critic'].detach(), theta)

"""A trained policy without its training: actions from a checkpoint."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ding_cawr.algorithms import algorithm_of
from ding_cawr.environments import env_settings
from ding_cawr.runs.checkpoint import observation_statistics, read_state


class Normalize(nn.Module):
    """Raw observations (..., O) to those that the network was trained on."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer('mean', mean)
        self.register_buffer('std', std)

    def forward(self, obs: Tensor) -> Tensor:
        return (obs - self.mean) / self.std


class ActingPolicy(nn.Module):
    """
    Overview:
        The policy that a checkpoint holds, from raw observations to the actions that evaluation takes.
    Properties:
        ``obs_shape`` O, ``action_shape`` A, ``env_id`` (None where unknown), ``env_settings`` (what else its \
        environment was made with), ``iteration`` that it was saved at, ``source``, the file's name, and ``graph``, \
        all that is between tensors, which can be exported.
    """

    def __init__(
            self,
            network: nn.Module,
            obs_statistics: Tensor | None = None,
            env_id: str | None = None,
            iteration: int | None = None,
            env_settings: dict[str, Any] | None = None,
            source: str = 'the policy',
    ) -> None:
        """
        Overview:
            Put normalization before the network and clipping after it.
        Arguments:
            - network (:obj:`nn.Module`): What an algorithm acts with, (B, O) to (B, A), or to (B,) if it has an \
              attribute ``discrete`` that is True.
            - obs_statistics (:obj:`Tensor`): Mean and standard deviation (2, O) of what the network was trained on, \
              None for raw observations.
        """
        super().__init__()
        normalize = [] if obs_statistics is None else [Normalize(*obs_statistics)]
        #: True if an action is the number of one of ``action_shape`` choices.
        self.discrete = getattr(network, 'discrete', False)
        self.graph = nn.Sequential(*normalize, network, *([] if self.discrete else [nn.Hardtanh(-1, 1)]))
        self.obs_shape, self.action_shape = network.obs_shape, network.action_shape
        self.env_id, self.iteration, self.env_settings = env_id, iteration, env_settings or {}
        self.source = source

    def forward(self, obs: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """
        Overview:
            Return the actions that evaluation takes.
        Arguments:
            - obs (:obj:`np.ndarray` or :obj:`Tensor`): Raw observations (B, O), or one (O,).
        Returns:
            - action: Within [-1, 1], (B, A) or (A,), float32; where ``discrete`` the number of an action, (B,) or \
              (), int64. An array for an array, a tensor on the device of ``obs`` for a tensor.
        """
        if not isinstance(obs, Tensor):
            return self(torch.from_numpy(np.array(obs, dtype=np.float32))).numpy(force=True)
        if obs.dim() not in (1, 2) or obs.shape[-1] != self.obs_shape:
            raise ValueError(
                f'obs has the shape {tuple(obs.shape)}, but the policy takes observations that are {self.obs_shape} '
                f'wide: (B, {self.obs_shape}) or ({self.obs_shape},)'
            )
        parameter = next(self.parameters())
        return self.graph(obs.to(parameter)).to(obs.device)


def load_policy(checkpoint: str | Path) -> ActingPolicy:
    """Return the policy of a learner's checkpoint, on the CPU; no environment, dataset or configuration is needed.

    Arguments:
        checkpoint: a file in EXP_NAME/ckpt. Nothing that it contains is run.

    Returns:
        A function from observations, (B, O) or (O,), raw as the environment gives them, to actions, (B, A) or (A,),
        within [-1, 1]; NumPy to NumPy, torch to torch, float32. Where it is ``discrete``, to numbers of actions (B,),
        int64. It has ``obs_shape`` O, ``action_shape`` A, ``env_id`` (None where the checkpoint does not say) and
        ``iteration``, and is a ``torch.nn.Module``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind (the message says what is missing); the function raises it
            where observations have another width.
    """
    state = read_state(checkpoint, {'model': dict, 'obs_statistics': (Tensor, type(None)), 'iteration': int})
    env_id = state.get('env_id')  # which older checkpoints do not have
    if not isinstance(env_id, (str, type(None))):
        raise ValueError(f'{checkpoint}: its env_id is a {type(env_id).__name__}; it must be a text')
    network = algorithm_of(state, str(checkpoint)).actor(state, str(checkpoint))
    statistics = observation_statistics(state, network.obs_shape, str(checkpoint))
    settings = _env_settings(state, checkpoint)
    policy = ActingPolicy(network, statistics, env_id, state['iteration'], settings, str(checkpoint))
    return policy.requires_grad_(False).eval()


def _env_settings(state: dict[str, Any], checkpoint: str | Path) -> dict[str, Any]:
    """Return what the environment of a checkpoint's run was made with beside its id, {} where it does not say."""
    if state.get('configuration') is None:
        return {}
    try:
        return env_settings(json.loads(state['configuration']).get('env', {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{checkpoint}: its configuration cannot be used ({error})') from None

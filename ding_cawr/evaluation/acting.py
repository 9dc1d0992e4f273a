"""A trained policy without its training: actions from a checkpoint, and what they reach."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ding_cawr.algorithms.cawr.model import MeanPolicy
from ding_cawr.checks import positive_int
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.runs.checkpoint import read_policy
from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task


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
        ``obs_shape`` O, ``action_shape`` A, ``env_id`` (None where unknown), ``iteration`` that it was saved at, and \
        ``graph``, all that is between tensors, which can be exported.
    """

    def __init__(
            self,
            network: MeanPolicy,
            obs_statistics: Tensor | None = None,
            env_id: str | None = None,
            iteration: int | None = None,
    ) -> None:
        """
        Overview:
            Put normalization before the network and clipping behind it.
        Arguments:
            - network (:obj:`MeanPolicy`): The mean of the policy.
            - obs_statistics (:obj:`Tensor`): Mean and standard deviation (2, O) of what the network was trained on, \
              None for raw observations.
        """
        super().__init__()
        normalize = [] if obs_statistics is None else [Normalize(*obs_statistics)]
        self.graph = nn.Sequential(*normalize, network, nn.Hardtanh(-1, 1))
        self.obs_shape, self.action_shape = network.net[0].in_features, network.net[-1].out_features
        self.env_id, self.iteration = env_id, iteration

    def forward(self, obs: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """
        Overview:
            The actions that evaluation takes.
        Arguments:
            - obs (:obj:`np.ndarray` or :obj:`Tensor`): Raw observations (B, O), or one (O,).
        Returns:
            - action: Within [-1, 1], (B, A) or (A,), float32; an array for an array, a tensor on the device of \
              ``obs`` for a tensor.
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
    """The policy of a cawr learner's checkpoint, on the CPU; no environment, dataset or configuration is needed.

    Arguments:
        checkpoint: a file in EXP_NAME/ckpt. Nothing that it contains is run.

    Returns:
        A function from observations, (B, O) or (O,), raw as the environment gives them, to actions, (B, A) or (A,),
        within [-1, 1]; NumPy to NumPy, torch to torch, float32. It has ``obs_shape`` O, ``action_shape`` A,
        ``env_id`` (None where the checkpoint does not say) and ``iteration``, and is a ``torch.nn.Module``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind (the message says what is missing); the function raises it
            where observations have another width.
    """
    return ActingPolicy(**read_policy(checkpoint)).requires_grad_(False).eval()


@dataclass(frozen=True)
class Evaluation:
    """What one episode from each of n start states reached; ``scores`` is None where no score is defined."""
    env_id: str
    seed: int
    returns: np.ndarray  # (n,) undiscounted
    scores: np.ndarray | None  # (n,) normalized
    lengths: np.ndarray  # (n,) steps
    actions: np.ndarray  # (lengths[0], A) those of the first episode


def evaluate(policy: ActingPolicy, env_id: str | None = None, episodes: int = 50, seed: int = 0) -> Evaluation:
    """One episode from each of so many start states, all at once.

    The start states are those of the first evaluation of a training run with this seed and so many episodes.

    Arguments:
        policy: what ``load_policy`` gives.
        env_id: a D4RL id or a gymnasium id; None for that of the policy.
        episodes: number of start states and of environments, which step together.
        seed: of the start states.

    Raises:
        ValueError: the environment is unknown or has other widths than the policy, or ``episodes`` is not positive.
    """
    env_id = env_id or policy.env_id
    if env_id is None:
        raise ValueError(
            'the checkpoint does not say its environment, as older ones and those of other datasets than '
            'offline_transitions do not; give its D4RL or gymnasium id as env_id (--env-id)'
        )
    envs = evaluation_envs(MujocoEnv, env_id, positive_int(episodes, 'episodes'))
    try:
        _check_widths(policy, envs[0], env_id)
        infos, actions = _run(policy, envs, [start(env, seed, index) for index, env in enumerate(envs)])
    finally:
        for env in envs:
            env.close()
    returns = np.array([info['eval_episode_return'] for info in infos])
    return Evaluation(
        env_id=env_id,
        seed=seed,
        returns=returns,
        scores=normalized_score(env_id, returns) if find_task(env_id) else None,
        lengths=np.array([info['episode_info']['episode_length'] for info in infos]),
        actions=actions,
    )


def evaluation_envs(env_class: type[MujocoEnv], env_id: str, episodes: int) -> list[MujocoEnv]:
    """An environment for each episode, as DI-engine's pipeline makes them for its evaluator."""
    cfg = env_class.default_config()
    cfg.update(env_id=env_id, n_evaluator_episode=episodes)
    return [env_class(each) for each in env_class.create_evaluator_env_cfg(cfg)]


def start(env: MujocoEnv, seed: int, index: int) -> np.ndarray:
    """First observation (O,) that environment ``index`` of a run with this seed gives at the first evaluation."""
    env.seed(seed + index, dynamic_seed=False)
    env.reset()  # DI-engine's manager resets where it is launched, and its evaluator again
    return env.reset()


def _run(
    policy: Callable[[np.ndarray], np.ndarray], envs: list[MujocoEnv], observations: list[np.ndarray]
) -> tuple[list[dict], np.ndarray]:
    """To the end of every episode: the info of each one's last step, and the actions (L, A) of the first."""
    infos, first_actions, running = [{}] * len(envs), [], list(range(len(envs)))
    while running:
        actions = policy(np.stack([observations[index] for index in running]))
        if running[0] == 0:
            first_actions.append(actions[0])
        for index, action in zip(running, actions):
            observations[index], _, _, infos[index] = envs[index].step(action)
        running = [index for index in running if 'eval_episode_return' not in infos[index]]
    return infos, np.array(first_actions)


def _check_widths(policy: ActingPolicy, env: MujocoEnv, env_id: str) -> None:
    widths, spaces = (policy.obs_shape, policy.action_shape), (env.observation_space.shape, env.action_space.shape)
    if spaces != ((widths[0], ), (widths[1], )):
        raise ValueError(
            f'the policy takes observations that are {widths[0]} wide and gives actions that are {widths[1]} wide, but '
            f'env_id {env_id!r} has {spaces[0][0]} and {spaces[1][0]}: it was trained for another environment'
        )

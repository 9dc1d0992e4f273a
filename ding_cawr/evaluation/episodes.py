"""Evaluate a policy: run episodes in the environment and score them."""
from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from ding_cawr.checks import positive_int
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.imports import check_id, import_modules
from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task


@dataclass(frozen=True)
class Evaluation:
    """The result of one episode from each of n start states reached; ``scores`` is None where no score is defined."""
    env_id: str
    seed: int
    returns: np.ndarray  # (n,) undiscounted
    scores: np.ndarray | None  # (n,) normalized
    lengths: np.ndarray  # (n,) steps
    actions: np.ndarray  # (lengths[0], A) those of the first episode


def evaluate(
    policy: ActingPolicy, env_id: str | None = None, episodes: int = 50, seed: int = 0,
    import_names: Collection[str] = ()
) -> Evaluation:
    """Run one episode from each of so many start states, all at once.

    The start states are those of the first evaluation of a training run with this seed and so many episodes.

    Arguments:
        policy: what ``load_policy`` gives.
        env_id: a D4RL id or a gymnasium id; None for that of the policy.
        episodes: number of start states and of environments, which step together.
        seed: of the start states.
        import_names: modules to import, which register the environment.

    Raises:
        ValueError: the environment is unknown, or its module is named by the checkpoint alone, or it has other widths
            than the policy, or ``episodes`` is not positive.
    """
    import_modules(import_names)
    if env_id is None:
        check_id(policy.env_id, policy.source, import_names)
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
    """Return an environment for each episode, as DI-engine's pipeline makes them for its evaluator."""
    cfg = env_class.default_config()
    cfg.update(env_id=env_id, n_evaluator_episode=episodes)
    return [env_class(each) for each in env_class.create_evaluator_env_cfg(cfg)]


def start(env: MujocoEnv, seed: int, index: int) -> np.ndarray:
    """Return the first observation (O,) that environment ``index`` of a run with this seed gives at the first
    evaluation."""
    env.seed(seed + index, dynamic_seed=False)
    env.reset()  # DI-engine's manager resets where it is launched, and its evaluator again
    return env.reset()


def _run(
    policy: Callable[[np.ndarray], np.ndarray], envs: list[MujocoEnv], observations: list[np.ndarray]
) -> tuple[list[dict], np.ndarray]:
    """Step to the end of every episode; return the info of each one's last step, and the actions (L, A) of the
    first."""
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

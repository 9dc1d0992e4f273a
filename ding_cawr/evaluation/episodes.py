"""Evaluate a policy: run episodes in the environment and score them."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ding_cawr.checks import POSITIVE_INT
from ding_cawr.environments import (
    EVALUATOR,
    Environment,
    env_settings,
    import_modules,
    run_episodes,
    several,
    start_seed,
)
from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.score import score_or_none
from ding_cawr.tasks import check_untrusted_id, check_untrusted_settings, without_module


@dataclass(frozen=True)
class Evaluation:
    """The result of one episode from each of n start states reached; ``scores`` is None where no score is defined."""
    env_id: str
    settings: dict[str, Any]  # what the environments were made with, beside the id
    seed: int
    returns: np.ndarray  # (n,) undiscounted
    scores: np.ndarray | None  # (n,) normalized, see ``score_or_none``
    lengths: np.ndarray  # (n,) steps
    actions: np.ndarray  # (lengths[0], A), or (lengths[0],) discrete ones, of the first episode


def evaluate(
    policy: ActingPolicy, env_id: str | None = None, episodes: int = 50, seed: int = 0,
    kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None, import_names: Collection[str] = (),
) -> Evaluation:
    """Run one episode from each of the given number of start states, all at once.

    The start states are those of the first evaluation of a training run with this seed and number of episodes. An
    episode in which the environment gives a number that is not finite ends there and has the return NaN.

    Arguments:
        policy: what ``load_policy`` gives.
        env_id: a D4RL id or a gymnasium id; None for that of the policy.
        episodes: number of start states and of environments, which step together.
        seed: of the start states.
        kwargs, max_episode_steps: arguments of the environment and its time limit; None for those that the policy was
            trained with, and where it was trained in another environment for the environment's own.
        import_names: modules to import, which register the environment.

    Raises:
        ValueError: the environment is unknown, or its module is named by the checkpoint alone, or it has other widths
            than the policy, or ``episodes`` is not positive.
    """
    import_names = import_modules(import_names)
    settings = _settings(policy, env_id, kwargs, max_episode_steps, import_names)
    env_id = policy.env_id if env_id is None else env_id
    episodes = POSITIVE_INT.check('episodes', episodes)
    with several(episodes, env_id, **settings, discrete=policy.discrete) as envs:
        _check_widths(policy, envs[0])
        ended = run_episodes(policy, envs, [first_start(seed, index) for index in range(episodes)])
    ended.sort(key=lambda episode: episode.index)
    returns = np.array([episode.episode_return for episode in ended])
    return Evaluation(
        env_id=env_id,
        settings=settings,
        seed=seed,
        returns=returns,
        scores=score_or_none(env_id, returns, **settings),
        lengths=np.array([len(episode.rewards) for episode in ended]),
        actions=np.array(ended[0].actions),
    )


def _settings(
    policy: ActingPolicy, env_id: str | None, kwargs: Mapping[str, Any] | None, max_episode_steps: int | None,
    import_names: Collection[str],
) -> dict[str, Any]:
    """Return what to make the environment with; the policy's own id must be a plain one."""
    if env_id is None:
        if policy.env_id is None:
            raise ValueError(
                'the checkpoint does not say its environment: its run had none (env.env_id None), was online, is an '
                'older one or of another dataset than offline_transitions; give a D4RL or gymnasium id as env_id '
                '(--env-id)'
            )
        check_untrusted_id(policy.env_id, policy.source, import_names)
    # 'MODULE:ID' given by the user is the policy's ID, from that module.
    same = env_id is None or policy.env_id is not None and without_module(env_id) == without_module(policy.env_id)
    known = policy.env_settings if same else {}
    if kwargs is None:
        check_untrusted_settings(known, f'{policy.source}, env', import_names)
    given = {'kwargs': kwargs, 'max_episode_steps': max_episode_steps}
    return env_settings({**known, **{key: value for key, value in given.items() if value is not None}})


def first_start(seed: int, index: int) -> int:
    """Return the seed of the start state that environment ``index`` of a run with this seed has at the first
    evaluation: DI-engine's manager resets where it is launched, and its evaluator again."""
    return start_seed(seed + index, EVALUATOR, index, 1)


def _check_widths(policy: ActingPolicy, env: Environment) -> None:
    widths = policy.obs_shape, policy.action_shape
    spaces = env.obs_shape, (env.choices, ) if env.discrete else env.action_shape
    if spaces != ((widths[0], ), (widths[1], )):
        raise ValueError(
            f'the policy takes observations that are {widths[0]} wide and gives actions that are {widths[1]} wide, but '
            f'env_id {env.env_id!r} has {spaces[0][0]} and {spaces[1][0]}: it was trained for another environment'
        )

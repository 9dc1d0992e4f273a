"""D4RL's normalized score."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ding_cawr.tasks import D4RL_IDS, EPISODE_STEPS, TASKS, find_task


def normalized_score(env_id: str, episode_return):
    """Return D4RL's score 100 (return - random) / (expert - random): 0 is a random policy, 100 D4RL's expert.

    Arguments:
        env_id: a D4RL id (``hopper-medium-v2``) or the gymnasium id with the same dynamics (``Hopper-v4``).
        episode_return: undiscounted return of an episode, a float, an array of any shape, or a list.

    Returns:
        The score, of the shape of ``episode_return``; an array for a list.

    Raises:
        ValueError: the environment has no reference returns (Fu et al., 2020, appendix).
    """
    task = find_task(env_id)
    if task is None:
        known = ', '.join(D4RL_IDS + tuple(task.gymnasium_id for task in TASKS.values() if not task.kwargs))
        raise ValueError(f'{env_id!r} has no reference returns, so no normalized score; ids that have: {known}')
    if isinstance(episode_return, (list, tuple)):
        episode_return = np.asarray(episode_return)
    return 100 * (episode_return - task.random_return) / (task.expert_return - task.random_return)


def score_or_none(
    env_id: str | None, episode_return, kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None
):
    """Return ``normalized_score``, None where the environment has no reference returns.

    It has none either where it was made with arguments, or with another time limit than D4RL's.
    """
    if find_task(env_id) is None or kwargs or max_episode_steps not in (None, EPISODE_STEPS):
        return None
    return normalized_score(env_id, episode_return)

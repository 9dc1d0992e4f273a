"""Collect datasets by rolling a function out, and write them: whole episodes in D4RL's layout."""
from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ding_cawr.checks import POSITIVE_INT
from ding_cawr.data.columns import FLAGS, MATRICES
from ding_cawr.data.layouts import D4RL_LAYOUT, episode_returns
from ding_cawr.data.transitions import ACTION_SCALE, check_actions, check_choices, check_columns
from ding_cawr.environments import COLLECTOR, Episode, env_settings, run_episodes, several, start_seed
from ding_cawr.files import new_file, to_json, unfinished
from ding_cawr.score import score_or_none

Columns = dict[str, np.ndarray]
ENVIRONMENTS = 8
EPISODE_LIMIT = 1000
CHUNK_ROWS = 4096


def collect_with_policy(
    act: Callable[[np.ndarray], np.ndarray], env_id: str, steps: int, seed: int,
    kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None,
) -> Columns:
    """Roll a function out: whole episodes until at least ``steps`` transitions are there.

    Arguments:
        act: observations (n, O) float32 to actions (n, A), which are clipped to [-1, 1], or (n,) discrete ones; n
            changes from call to call.
        env_id: a D4RL id (``hopper-medium-v2``) or a gymnasium id.
        seed: of the start states; ``act`` brings its own randomness.
        kwargs: arguments of the environment's constructor.
        max_episode_steps: time limit of an episode; None for the registered one, or 1000 where there is none.

    Returns:
        The columns of D4RL's layout, episode after episode, each in time order: ``observations`` (N, O), ``actions``
        (N, A) as executed, in [-1, 1] whatever the bounds of the environment, or (N,) int64, ``rewards`` (N,) float32,
        ``terminals`` (N,) and ``timeouts`` (N,) bool.

    Raises:
        ValueError: unknown or unsuitable ``env_id``, ``steps`` below 1, actions of another shape or not finite, or an
            environment that gave a number which is not finite.
    """
    count = environments_for(POSITIVE_INT.check('steps', steps), ENVIRONMENTS)
    settings = env_settings({'kwargs': kwargs, 'max_episode_steps': max_episode_steps})
    generator, kept, rounds = np.random.default_rng(seed), [], 0
    with several(count, env_id, **settings, discrete=None) as envs:
        while sum(len(episode.rewards) for episode in kept) < steps:
            seeds = [start_seed(seed + index, COLLECTOR, index, rounds) for index in range(count)]
            ended, rounds = run_episodes(act, envs, seeds), rounds + 1
            _check_whole(ended)
            # They come in the order in which they ended, and to cut there would favour the short ones.
            for index in generator.permutation(count):
                if sum(len(episode.rewards) for episode in kept) < steps:
                    kept.append(ended[index])
    columns = [_columns(episode, envs[0].discrete) for episode in kept]
    return {name: np.concatenate([each[name] for each in columns]) for name in D4RL_LAYOUT}


def environments_for(steps: int, most: int) -> int:
    """Return the number of environments: at most ``most``, and at most the full-length episodes in ``steps``."""
    return min(most, -(-steps // EPISODE_LIMIT))


def _check_whole(episodes: list[Episode]) -> None:
    """Raise a ValueError for an episode that broke off because the environment gave a number that is not finite."""
    for episode in episodes:
        if not np.isfinite(episode.episode_return):
            raise ValueError(
                f'an episode of environment {episode.index} broke off at step {len(episode.rewards)}: the environment '
                'gave a reward or an observation that is not finite, which a warning named; '
                'correct the environment and collect again'
            )


def _columns(episode: Episode, discrete: bool) -> Columns:
    """Return the columns of an episode."""
    ends = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
    return {
        'observations': np.stack(episode.observations),
        'actions': np.stack(episode.actions).astype(np.int64 if discrete else np.float32),
        'rewards': np.array(episode.rewards, dtype=np.float32),
        'terminals': ends & episode.is_terminated,
        'timeouts': ends & (not episode.is_terminated),
    }


def write_d4rl_file(path: str | Path, columns: Columns, attributes: dict) -> None:
    """Write columns and attributes as a new .hdf5 file, which appears whole or not at all. An attribute that is neither
    a text nor a number is written as JSON; ``action_scale`` says that continuous actions are in [-1, 1]. Discrete ones
    (N,) stay integers. Raises what ``new_file`` does, and a ValueError for columns that are not a dataset of whole
    episodes with finite numbers and actions in [-1, 1]."""
    _check_dataset(columns, str(path))
    discrete = _is_discrete(columns)
    kinds = {
        name: bool if name in FLAGS else np.int64 if name == 'actions' and discrete else np.float32
        for name in D4RL_LAYOUT
    }
    columns = {name: columns[name].astype(kind, copy=False) for name, kind in kinds.items()}
    write_columns(path, columns, {**attributes, **({} if discrete else {ACTION_SCALE: 'unit'})})


def write_columns(path: str | Path, columns: Columns, attributes: dict) -> None:
    """Write columns, floats in float32, and attributes as ``write_d4rl_file`` does, unchecked. Raises what ``new_file``
    does."""
    path = new_file(path, ('.hdf5', ))
    memory = io.BytesIO()  # h5py would end the process where the disk is full
    with h5py.File(memory, 'w') as file:
        for name, data in columns.items():
            data = data.astype(np.float32, copy=False) if data.dtype.kind == 'f' else data
            chunks = (min(len(data), CHUNK_ROWS), *data.shape[1:])
            file.create_dataset(name, data=data, chunks=chunks, compression='gzip', shuffle=True)
        for key, value in attributes.items():
            file.attrs[key] = value if isinstance(value, (str, int, float)) else to_json(value)
    with unfinished(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def _is_discrete(columns: Columns) -> bool:
    return 'actions' in columns and columns['actions'].dtype.kind in 'iu'


def _check_dataset(columns: Columns, source: str) -> None:
    shapes = {name: column.shape for name, column in columns.items()}
    discrete = _is_discrete(columns)
    matrices = [name for name in MATRICES if not (discrete and name == 'actions')]
    if {name: len(shape) for name, shape in shapes.items()} != {
        name: 2 if name in matrices else 1 for name in D4RL_LAYOUT
    }:
        raise ValueError(
            f'{source}: columns have shapes {shapes}; observations and actions must be (N, width), discrete actions, '
            'rewards, terminals and timeouts (N,)'
        )
    check_columns(columns, source)
    if discrete:
        check_choices(columns['actions'][:, None], source)
    else:
        check_actions(columns['actions'], source)
    if not (columns['terminals'][-1] or columns['timeouts'][-1]):
        raise ValueError(f'{source}: the last row does not end an episode; only whole episodes are written')


def summary(columns: Columns, env_id: str, **settings: Any) -> dict:
    """Return size and quality of whole episodes; the score only where the environment has one, see ``score_or_none``.
    """
    returns = episode_returns(columns['rewards'], columns['terminals'] | columns['timeouts'])
    mean = float(returns.mean())
    score = score_or_none(env_id, mean, **settings)
    found = dict(transitions=len(columns['rewards']), episodes=len(returns), mean_return=mean)
    return found if score is None else {**found, 'normalized_score': score}

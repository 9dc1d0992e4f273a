"""Collecting datasets with policies: whole episodes in D4RL's layout, with a record of how they were made."""
from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from ding.config import compile_config, read_config
from ding.envs import BaseEnvManager, BaseEnvTimestep, create_env_manager, get_env_cls
from ding.policy import Policy, create_policy
from ding.utils import set_pkg_seed
from ding.worker import EpisodeSerialCollector
from easydict import EasyDict

from ding_cawr.checks import positive_int
from ding_cawr.data.d4rl import sha256
from ding_cawr.data.layouts import D4RL_LAYOUT, FLAGS, MATRICES, episode_returns
from ding_cawr.data.transitions import check_actions, check_columns
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.files import new_file, unfinished
from ding_cawr.machine import versions
from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task, gymnasium_id

Columns = dict[str, np.ndarray]
ENVIRONMENTS = 8
EPISODE_LIMIT = 1000
CHUNK_ROWS = 4096


def collect_with_policy(act: Callable[[np.ndarray], np.ndarray], env_id: str, steps: int, seed: int) -> Columns:
    """Roll a function out: whole episodes until at least ``steps`` transitions are there.

    Arguments:
        act: observations (n, O) float32 to actions (n, A), which are clipped to [-1, 1]; n changes from call to call.
        env_id: a D4RL id (``hopper-medium-v2``) or a gymnasium id.
        seed: of the start states; ``act`` brings its own randomness.

    Returns:
        The columns of D4RL's layout, episode after episode, each in time order: ``observations`` (N, O), ``actions``
        (N, A) as executed, ``rewards`` (N,) float32, ``terminals`` (N,) and ``timeouts`` (N,) bool.

    Raises:
        ValueError: unknown or unsuitable ``env_id``, ``steps`` below 1, or actions of another shape or not finite.
    """
    def forward(observations: dict[int, np.ndarray]) -> dict[int, dict]:
        actions = np.asarray(act(np.stack(list(observations.values()))), dtype=np.float32)
        needed, finite = (len(observations), *action_shape), bool(np.isfinite(actions).all())
        if actions.shape != needed or not finite:
            raise ValueError(
                f'act returned actions of shape {actions.shape}, finite: {finite}; they must be finite and of shape '
                f'{needed} for {env_id}'
            )
        return {index: {'action': action} for index, action in zip(observations, actions)}

    cfg = MujocoEnv.default_config()
    cfg.update(env_id=env_id, manager={**BaseEnvManager.default_config(), 'type': 'base'})
    action_shape = MujocoEnv(cfg).action_space.shape
    # What the collector calls on a policy, and nothing else; it asks for attributes only to log them.
    policy = Policy.collect_function(forward, None, None, lambda ids=None: None, lambda name: None, None, None, None)
    return _roll_out(policy, MujocoEnv, cfg, steps, seed)


def collect_with_checkpoint(config: str | Path | tuple, checkpoint: str | Path, steps: int, seed: int) -> Columns:
    """Roll a DI-engine policy out as ``collect_with_policy`` does a function: in collect mode, exploring as it does in
    training, on the CPU. Seeds the global random generators, as DI-engine's own entries do.

    Arguments:
        config: a DI-engine config file, or (main_config, create_config).
        checkpoint: a checkpoint of DI-engine's learner for that config.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        ValueError: the checkpoint is unreadable or does not fit the config, the config normalizes observations, or
            ``steps`` is below 1.
    """
    cfg, state = _compile(_read_config(config), seed), _read_checkpoint(checkpoint)
    set_pkg_seed(seed, use_cuda=False)
    policy = create_policy(cfg.policy, enable_field=['collect'])
    try:
        policy.collect_mode.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f'checkpoint {checkpoint} does not fit the policy {cfg.policy.type!r} of the config: {error}'
        ) from error
    return _roll_out(policy.collect_mode, get_env_cls(cfg.env), cfg.env, steps, seed)


def collect_dataset(
    config: str | Path, checkpoints: Sequence[str | Path], steps: int, seed: int, out: str | Path
) -> dict:
    """Collect with each checkpoint in turn, part i with ``seed + i``, in equal shares of ``steps``, into one file that
    says how it was made. Raise what ``collect_with_checkpoint`` and ``write_d4rl_file`` raise.

    Returns:
        The file's attributes, with ``parts`` and ``versions`` decoded, its ``path``, ``bytes`` and ``sha256``.
    """
    out = new_file(out, ('.hdf5', ))
    cfg = _compile(_read_config(config), seed)
    env_id = gymnasium_id(cfg.env.get('env_id', cfg.env.type))
    for path in checkpoints:  # a wrong file is an error now, not after the parts before it
        _read_checkpoint(path)
    digests = [sha256(path) for path in checkpoints]
    share = -(-steps // len(checkpoints))
    parts = [collect_with_checkpoint(config, path, share, seed + i) for i, path in enumerate(checkpoints)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in D4RL_LAYOUT}
    words = [word for path in checkpoints for word in ('--checkpoint', Path(path).name)]
    command = ['cawr', 'data', 'collect', '--config', Path(config).name, *words, '--steps', str(steps), '--seed',
               str(seed), '--out', out.name]
    record = dict(
        env_id=env_id, made_with=shlex.join(command), config=Path(config).name, seed=seed, **_summary(columns, env_id),
        parts=[
            dict(checkpoint=Path(path).name, sha256=digest, seed=seed + i, **_summary(part, env_id))
            for i, (path, digest, part) in enumerate(zip(checkpoints, digests, parts))
        ],
        versions=versions(),
    )
    write_d4rl_file(out, columns, record)
    return dict(path=str(out), bytes=out.stat().st_size, sha256=sha256(out), **record)


def write_d4rl_file(path: str | Path, columns: Columns, attributes: dict) -> None:
    """Write columns and attributes as a new .hdf5 file, which appears whole or not at all. An attribute that is neither
    a text nor a number is written as JSON. Raises what ``new_file`` does, and a ValueError for columns that are not a
    dataset of whole episodes with finite numbers and actions in [-1, 1]."""
    path = new_file(path, ('.hdf5', ))
    _check_dataset(columns, str(path))
    with unfinished(path) as temporary, h5py.File(temporary, 'w') as file:
        for name in D4RL_LAYOUT:
            data = columns[name].astype(bool if name in FLAGS else np.float32, copy=False)
            chunks = (min(len(data), CHUNK_ROWS), *data.shape[1:])
            file.create_dataset(name, data=data, chunks=chunks, compression='gzip', shuffle=True)
        for key, value in attributes.items():
            file.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)


def _roll_out(policy: Policy.collect_function, env_class: type, env_cfg: EasyDict, steps: int, seed: int) -> Columns:
    """Return the columns of the first episodes of ``policy`` that together have at least ``steps`` transitions."""
    positive_int(steps, 'steps')
    env_cfg.manager.auto_reset = True  # DI-engine's collector expects every environment to begin its next episode
    # No more environments than it takes episodes of full length: each runs at least one episode to its end.
    env_cfg.collector_env_num = min(env_cfg.get('collector_env_num', ENVIRONMENTS), -(-steps // EPISODE_LIMIT))
    env_cfgs = env_class.create_collector_env_cfg(env_cfg)
    manager = create_env_manager(env_cfg.manager, [partial(env_class, cfg=cfg) for cfg in env_cfgs])
    manager.seed(seed)
    generator = np.random.default_rng(seed)
    rows = []
    with _collector(policy._replace(process_transition=_transition), manager) as collector:
        while len(rows) < steps:
            batch = collector.collect(n_episode=len(env_cfgs))
            # They come in the order in which they ended, and to cut there would favour the short ones.
            for index in generator.permutation(len(batch)):
                rows += batch[index] if len(rows) < steps else []
    return {name: np.stack([row[name] for row in rows]) for name in D4RL_LAYOUT}


def _transition(obs: np.ndarray, output: dict, timestep: BaseEnvTimestep) -> dict:
    """Return one row. The policy's own ``process_transition`` does not tell a time limit from an end."""
    timeout = bool(timestep.done and timestep.info.get('TimeLimit.truncated', False))
    return {
        'observations': np.asarray(obs),
        'actions': np.clip(np.asarray(output['action']), -1, 1),  # as MujocoEnv executes it
        'rewards': np.asarray(timestep.reward, dtype=np.float32).reshape(()),
        'terminals': np.bool_(timestep.done and not timeout),
        'timeouts': np.bool_(timeout),
    }


@contextlib.contextmanager
def _collector(policy: Policy.collect_function, manager: BaseEnvManager) -> Iterator[EpisodeSerialCollector]:
    """Give DI-engine's collector, with its log in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        # The collector writes to './' + exp_name, so an absolute path would land below the current folder.
        collector = EpisodeSerialCollector(
            EpisodeSerialCollector.default_config(), manager, policy, exp_name=os.path.relpath(folder),
            instance_name='dataset_collector'
        )
        try:
            yield collector
        finally:
            collector.close()
            log = logging.getLogger('dataset_collector_logger')
            for handler in list(log.handlers):
                log.removeHandler(handler)
                handler.close()


def _read_config(config: str | Path | tuple) -> tuple[EasyDict, EasyDict]:
    if isinstance(config, tuple):
        return config
    if not Path(config).is_file():
        raise FileNotFoundError(f'config file {config} does not exist')
    return read_config(str(config))


def _compile(config: tuple[EasyDict, EasyDict], seed: int) -> EasyDict:
    """Return the complete config; DI-engine's file of it is not written."""
    main_config, create_config = config
    cfg = compile_config(main_config, seed=seed, auto=True, create_cfg=create_config, save_cfg=False)
    if cfg.env.get('norm_obs', {}).get('use_norm'):
        raise ValueError(
            f'{cfg.exp_name}: env.norm_obs.use_norm is True, but datasets hold raw observations and in collect mode a '
            'policy does not know the statistics that it was trained with; collect with one trained on raw observations'
        )
    cfg.policy.cuda = False  # a batch of a few observations a step: the way to a GPU would cost more than it saves
    return cfg


def _read_checkpoint(path: str | Path) -> dict:
    if not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(f'{path} ({Path(path).stat().st_size} bytes) is not a readable checkpoint: {error}') from error


def _check_dataset(columns: Columns, source: str) -> None:
    shapes = {name: column.shape for name, column in columns.items()}
    if {name: len(shape) for name, shape in shapes.items()} != {
        name: 2 if name in MATRICES else 1 for name in D4RL_LAYOUT
    }:
        raise ValueError(
            f'{source}: columns have shapes {shapes}; observations and actions must be (N, width), '
            'rewards, terminals and timeouts (N,)'
        )
    check_columns(columns, source)
    check_actions(columns['actions'], source)
    if not (columns['terminals'][-1] or columns['timeouts'][-1]):
        raise ValueError(f'{source}: the last row does not end an episode; only whole episodes are written')


def _summary(columns: Columns, env_id: str) -> dict:
    """Return size and quality of whole episodes; the score only where ``env_id`` has reference returns."""
    returns = episode_returns(columns['rewards'], columns['terminals'] | columns['timeouts'])
    mean = float(returns.mean())
    score = {'normalized_score': float(normalized_score(env_id, mean))} if find_task(env_id) else {}
    return dict(transitions=len(columns['rewards']), episodes=len(returns), mean_return=mean, **score)

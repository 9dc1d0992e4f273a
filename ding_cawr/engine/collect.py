"""Collect datasets with checkpoints of DI-engine policies, with a record of how they were made."""
from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ding.config import compile_config
from ding.envs import BaseEnvManager, BaseEnvTimestep, create_env_manager, get_env_cls
from ding.policy import Policy, create_policy, get_policy_cls
from ding.utils import set_pkg_seed
from ding.worker import EpisodeSerialCollector
from easydict import EasyDict

from ding_cawr.checks import POSITIVE_INT, SEED
from ding_cawr.data.collect import ENVIRONMENTS, Columns, environments_for, summary, write_d4rl_file
from ding_cawr.data.layouts import D4RL_LAYOUT
from ding_cawr.data.transitions import ENV_KWARGS
from ding_cawr.engine.env import environment_id, simulator_settings
from ding_cawr.engine.folders import close_files
from ding_cawr.engine.keys import read_configuration
from ding_cawr.files import new_file, sha256
from ding_cawr.machine import versions
from ding_cawr.runs.checkpoint import read_state
from ding_cawr.tasks import gymnasium_id


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
    cfg, state = _compile(read_configuration(config), seed), read_state(checkpoint)
    set_pkg_seed(seed, use_cuda=False)
    policy = create_policy(cfg.policy, enable_field=['collect'])
    try:
        policy.collect_mode.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f'checkpoint {checkpoint} does not fit the policy {cfg.policy.type!r} of the config: {error}'
        ) from error
    return _roll_out(policy.collect_mode, get_env_cls(cfg.env), cfg.env, steps, seed, _exploration(cfg.policy, state))


def _exploration(policy_cfg: EasyDict, state: Mapping) -> dict:
    """Return what DI-engine's command mode hands to a policy for collecting at the checkpoint's step: ε, where it takes
    one."""
    if 'eps' not in inspect.signature(get_policy_cls(policy_cfg)._forward_collect).parameters:
        return {}
    command = create_policy(EasyDict({**policy_cfg, 'type': f'{policy_cfg.type}_command'}), enable_field=['command'])
    iteration, step = state.get('last_iter', 0), state.get('last_step', 0)
    return command.command_mode.get_setting_collect(dict(
        learner_train_iter=iteration, learner_step=iteration, envstep=step,
    ))


def collect_dataset(
    config: str | Path, checkpoints: Sequence[str | Path], steps: int, seed: int, out: str | Path
) -> dict:
    """Collect with each checkpoint in turn, part i with ``seed + i``, in equal shares of ``steps``, into one file that
    says how it was made. Raise what ``collect_with_checkpoint`` and ``write_d4rl_file`` raise.

    Returns:
        The file's attributes, with ``parts`` and ``versions`` decoded, its ``path``, ``bytes`` and ``sha256``.
    """
    out = new_file(out, ('.hdf5', ))
    for each in (seed, seed + len(checkpoints) - 1):  # that of the first checkpoint and that of the last
        SEED.check('the seed', each)
    env_cfg = _compile(read_configuration(config), seed).env
    env_id, settings = _environment_id(env_cfg), simulator_settings(env_cfg)
    for path in checkpoints:  # a wrong file is an error now, not after the parts before it
        read_state(path)
    digests = [sha256(path) for path in checkpoints]
    share = -(-steps // len(checkpoints))
    parts = [collect_with_checkpoint(config, path, share, seed + i) for i, path in enumerate(checkpoints)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in D4RL_LAYOUT}
    words = [word for path in checkpoints for word in ('--checkpoint', Path(path).name)]
    command = ['cawr', 'data', 'collect', '--config', Path(config).name, *words, '--steps', str(steps), '--seed',
               str(seed), '--out', out.name]
    record = dict(
        env_id=env_id, made_with=shlex.join(command), config=Path(config).name, seed=seed,
        **({ENV_KWARGS: settings['kwargs']} if settings.get('kwargs') else {}), **summary(columns, env_id, **settings),
        parts=[
            dict(checkpoint=Path(path).name, sha256=digest, seed=seed + i, **summary(part, env_id, **settings))
            for i, (path, digest, part) in enumerate(zip(checkpoints, digests, parts))
        ],
        versions=versions(),
    )
    write_d4rl_file(out, columns, record)
    return dict(path=str(out), bytes=out.stat().st_size, sha256=sha256(out), **record)


def _roll_out(
    policy: Policy.collect_function, env_class: type, env_cfg: EasyDict, steps: int, seed: int,
    exploration: Mapping | None = None,
) -> Columns:
    """Return the columns of the first episodes of ``policy`` that together have at least ``steps`` transitions."""
    steps = POSITIVE_INT.check('steps', steps)
    env_cfg.manager.auto_reset = True  # DI-engine's collector expects every environment to begin its next episode
    env_cfg.collector_env_num = environments_for(steps, env_cfg.get('collector_env_num', ENVIRONMENTS))
    env_cfgs = env_class.create_collector_env_cfg(env_cfg)
    manager = create_env_manager(env_cfg.manager, [partial(env_class, cfg=cfg) for cfg in env_cfgs])
    manager.seed(seed)
    generator = np.random.default_rng(seed)
    rows = []
    with _collector(policy._replace(process_transition=_transition), manager) as collector:
        while len(rows) < steps:
            batch = collector.collect(n_episode=len(env_cfgs), policy_kwargs=exploration)
            # They come in the order in which they ended, and to cut there would favour the short ones.
            for index in generator.permutation(len(batch)):
                rows += batch[index] if len(rows) < steps else []
    return {name: np.stack([row[name] for row in rows]) for name in D4RL_LAYOUT}


def _environment_id(env_cfg: EasyDict) -> str:
    """Return the gymnasium id of a config's environment, for the record; its type where it does not say one."""
    env = get_env_cls(env_cfg)(env_cfg)
    try:
        env.reset()  # before which DI-engine's own have no id
        return gymnasium_id(environment_id(env) or env_cfg.type)
    finally:
        env.close()


def _transition(obs: np.ndarray, output: dict, timestep: BaseEnvTimestep) -> dict:
    """Return one row. The policy's own ``process_transition`` does not tell a time limit from an end."""
    action = np.asarray(output['action'])
    if action.dtype.kind == 'f':
        action = np.clip(action, -1, 1)  # as MujocoEnv executes it
    else:
        action = action.astype(np.int64).reshape(())  # the number of a discrete one
    timeout = bool(timestep.done and timestep.info.get('TimeLimit.truncated', False))
    return {
        'observations': np.asarray(obs),
        'actions': action,
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
            close_files(log, list(log.handlers))


def _compile(config: tuple[EasyDict, EasyDict], seed: int) -> EasyDict:
    """Return the complete config; DI-engine's file of it is not written."""
    main_config, create_config = config
    cfg = compile_config(main_config, seed=seed, auto=True, create_cfg=create_config, save_cfg=False)
    if (cfg.env.get('norm_obs') or {}).get('use_norm'):
        raise ValueError(
            f'{cfg.exp_name}: env.norm_obs.use_norm is True, but datasets hold raw observations and in collect mode a '
            'policy does not know the statistics that it was trained with; collect with one trained on raw '
            'observations, or in Python by ding_cawr.data.collect.collect_with_policy(ding_cawr.load_policy(PATH), ...)'
        )
    cfg.policy.cuda = False  # a batch of a few observations a step: the way to a GPU would cost more than it saves
    return cfg

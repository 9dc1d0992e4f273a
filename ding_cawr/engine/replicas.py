"""Several seeds of one configuration trained at once, as one batched program."""
from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ding.config import compile_config
from ding.entry import serial_entry_offline
from ding.envs import create_env_manager, get_vec_env_setting
from ding.policy import create_policy
from ding.utils import set_pkg_seed
from ding.utils.data import create_dataset
from easydict import EasyDict
from tensorboardX import SummaryWriter

from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.checks import NEVER, POSITIVE_INT, SEED, listed, plain
from ding_cawr.engine import folders, keys
from ding_cawr.engine.dataset import OWN_DATA_TYPE, OfflineTransitions, as_text
from ding_cawr.engine.follower import Follower
from ding_cawr.engine.policy import OfflinePolicy
from ding_cawr.runs.checkpoint import last_checkpoint
from ding_cawr.runs.progress import Display
from ding_cawr.training.divergence import Diverged
from ding_cawr.training.loop import Training


class Replica:
    """Holds one seed: its policy, DI-engine's learner and evaluator, and the ``Follower``, as those of a single run."""

    def __init__(self, cfg: EasyDict, seed: int, total: int, display: Display) -> None:
        self.seed, self.cfg, self.exp_name = seed, cfg, cfg.exp_name
        with contextlib.ExitStack() as held:  # closed where something below fails
            self._make(cfg, seed, total, display, held)
            self._held = held.pop_all()

    def _make(self, cfg: EasyDict, seed: int, total: int, display: Display, held: contextlib.ExitStack) -> None:
        env_fn, _, evaluator_env_cfg = get_vec_env_setting(cfg.env, collect=False)
        environments = create_env_manager(cfg.env.manager, [partial(env_fn, cfg=each) for each in evaluator_env_cfg])
        environments.seed(seed, dynamic_seed=False)
        # Whatever is drawn from here on is what a single run with this seed draws.
        set_pkg_seed(seed, use_cuda=cfg.policy.cuda)
        self.policy: OfflinePolicy = create_policy(cfg.policy, enable_field=['learn', 'eval'])
        self._logged = 0
        tb_logger = SummaryWriter(str(Path(self.exp_name) / 'log' / 'serial'))
        held.callback(tb_logger.close)
        self._learner = serial_entry_offline.BaseLearner(
            cfg.policy.learn.learner, self.policy.learn_mode, tb_logger, exp_name=self.exp_name
        )
        held.callback(self._learner.close)
        self.follower = Follower(self._learner, total, {}, display)
        held.callback(self.follower.close)
        self._evaluator = serial_entry_offline.InteractionSerialEvaluator(
            cfg.policy.eval.evaluator, environments, self.policy.eval_mode, tb_logger, exp_name=self.exp_name
        )
        held.callback(self._evaluator.close)

    @contextlib.contextmanager
    def _own_files(self) -> Iterator[None]:
        """Have DI-engine's loggers, which all replicas share, write to the files of this one alone."""
        before = {logger: logger.handlers for logger in map(logging.getLogger, folders.LOGGERS)}
        for logger, handlers in before.items():
            logger.handlers = [each for each in handlers if not folders.writes_elsewhere(each, self.exp_name)]
        try:
            yield
        finally:
            for logger, handlers in before.items():
                logger.handlers = handlers

    def log(self, iterations: int, metrics: dict[str, float]) -> None:
        """Do what DI-engine's learner does after the last of this number of iterations."""
        missed = iterations - 1 - self._logged
        if missed:  # the log shows means over a number of iterations, of which it did not see these
            self._learner.monitor.time.step(missed)
        self._logged = iterations
        self._learner.last_iter.update(iterations - 1)
        self._learner.log_buffer['scalar'].update(metrics)
        with self._own_files():
            self._learner.call_hook('after_iter')
        self._learner.last_iter.update(iterations)

    def save(self, iterations: int) -> None:
        """Write a checkpoint of this number of iterations."""
        self._learner.last_iter.update(iterations)
        with self._own_files():
            self.follower.save(self._learner)

    def evaluate(self, iterations: int) -> None:
        """Evaluate the policy, which is kept if it is the best so far."""
        self._learner.last_iter.update(iterations)
        with self._own_files():
            reached, _ = self._evaluator.eval(self._learner.save_checkpoint, iterations)
        if reached:
            warnings.warn(f'seed {self.seed} reached env.stop_value; replicas train on to the end', stacklevel=2)

    def finish(self, iterations: int) -> dict[str, Any]:
        """Write last checkpoint, summary and learning curve; return the summary."""
        self._learner.last_iter.update(iterations)
        with self._own_files():
            self._learner.call_hook('after_run')
        return {'seed': self.seed, 'exp_name': self.exp_name, **self.follower.finish(self._learner, iterations)}

    def close(self) -> None:
        """Give back what the run holds."""
        self._held.close()


def train_replicas(
    config: str | os.PathLike | tuple[dict, dict], seeds: Sequence[int], max_train_iter: int | None = None
) -> list[dict[str, Any]]:
    """Train a configuration with several seeds at once; replica r is what a single run with ``seeds[r]`` would be.

    Every product, draw and step is one batched operation over the replicas, which share the dataset's rows. Each seed
    has a folder of its own, ``<exp_name>_seed<seed>``, with the log, the checkpoints, the summary and the learning
    curve of a single run; its checkpoints continue as a single run. All begin at iteration 0 and train to the end: one
    that diverges ends all.

    Arguments:
        config: (main_config, create_config), or the path of a file that has both; ``data_type`` offline_transitions.
        seeds: one a replica, all different.
        max_train_iter: iterations; None for ``policy.learn.train_epoch``.

    Returns:
        A summary for each seed, in their order: 'seed', 'exp_name' and what ``summary.json`` holds.

    Raises:
        ValueError: seeds that are none or not different, a policy of another package, or a mode that trains alone.
        FloatingPointError: a replica diverged; its seed and its last good checkpoint are named.
    """
    main_config, create_config = keys.read_configuration(config)
    seeds = _check_seeds(seeds)
    total = _check(main_config, create_config, seeds[0], max_train_iter)
    main_config.setdefault('exp_name', create_config.policy.type)
    cfgs: list[EasyDict] = []
    with contextlib.ExitStack() as held:
        with folders.beginning(cfgs):
            for seed in seeds:
                own = {**main_config, 'exp_name': f'{main_config.exp_name}_seed{seed}'}
                cfgs.append(_compile(own, create_config, seed=seed))
            replicas, training, display = _begin(cfgs, seeds, total, held)
        folders.begun()
        return _run(replicas, training, total, display)


def _begin(
    cfgs: Sequence[EasyDict], seeds: Sequence[int], total: int, held: contextlib.ExitStack
) -> tuple[list[Replica], Training, Display]:
    """Make the dataset, the replicas and what trains them; ``held`` closes them."""
    for cfg in cfgs:
        keys.normalize(cfg)
    configurations = [as_text(cfg) for cfg in cfgs]
    keys.check_gpu(*(cfg.policy for cfg in cfgs))
    dataset, display, replicas = create_dataset(cfgs[0]), Display(total), []
    _check_cadence(cfgs[0], total)  # the dataset turned an eval_freq of -1 into iterations
    held.callback(display.stop)
    for cfg, seed in zip(cfgs, seeds):
        _hand_over_statistics(cfg, dataset)
        replicas.append(held.enter_context(contextlib.closing(Replica(cfg, seed, total, display))))
    policies = [replica.policy for replica in replicas]
    training = policies[0].join(policies)
    policies[0].learn_mode.get_attribute('check_length')(total)
    for configuration, policy in zip(configurations, policies):
        policy.set_statistic(replace(dataset.statistics, configuration=configuration))
    return replicas, training, display


def _run(replicas: list[Replica], training: Training, total: int, display: Display) -> list[dict[str, Any]]:
    """Iterate, and in between do what is due: logs and checkpoints by DI-engine's hooks, evaluations."""
    hook, eval_freq = replicas[0].cfg.policy.learn.learner.hook, replicas[0].cfg.policy.eval.evaluator.eval_freq
    for iteration in range(total):
        shown = iteration % hook.log_show_after_iter == 0 and hook.log_show_after_iter < NEVER
        with _named(replicas):
            step = training.iterate()
            if shown:
                training.check_finite()
        if shown:
            metrics = training.metrics(step)
            for r, replica in enumerate(replicas):
                replica.log(iteration + 1, {name: _of(value, r) for name, value in metrics.items()})
        for replica in replicas if (iteration + 1) % eval_freq == 0 else []:
            replica.evaluate(iteration + 1)
        for replica in replicas if (iteration + 1) % hook.save_ckpt_after_iter == 0 and iteration + 1 < total else []:
            replica.save(iteration + 1)
        display.show(iteration + 1, replicas[0].follower.evaluations)
    display.close(total, replicas[0].follower.evaluations)
    return [replica.finish(total) for replica in replicas]


@contextlib.contextmanager
def _named(replicas: list[Replica]) -> Iterator[None]:
    """Name the seed whose values are not finite."""
    try:
        yield
    except Diverged as error:
        if error.replica is None:
            raise
        replica = replicas[error.replica]
        message = f'with seed {replica.seed}, {error} {last_checkpoint(replica.exp_name)}'
        raise Diverged(message, error.replica) from None


def _of(value: float | list[float], replica: int) -> float:
    return value[replica] if isinstance(value, list) else value


def _hand_over_statistics(cfg: EasyDict, dataset: OfflineTransitions) -> None:
    """Give the dataset's statistics to an environment that normalizes observations with them."""
    norm_obs = cfg.env.get('norm_obs') or {}
    if norm_obs.get('use_norm') and norm_obs.get('offline_stats', {}).get('use_offline_stats'):
        norm_obs.offline_stats.update({'mean': dataset.mean, 'std': dataset.std})


def _compile(main_config: dict, create_config: dict, **options: Any) -> EasyDict:
    main_config, create_config = EasyDict(deepcopy(main_config)), EasyDict(deepcopy(create_config))
    create_config.policy.type += '_command'
    return compile_config(main_config, auto=True, create_cfg=create_config, **options)


def _check_seeds(seeds: Sequence[int]) -> list[int]:
    """Return the seeds as ints."""
    found = plain(seeds)
    if not isinstance(found, (list, tuple, range)):
        raise ValueError(f'seeds are {seeds!r}; they must be a list of whole numbers, such as [0, 1, 2]')
    found = [SEED.check('an entry of seeds', each) for each in found]
    if not found or len(set(found)) < len(found):
        raise ValueError(f'seeds are {found}; they must be one or more, all different')
    return found


def _check(main_config: EasyDict, create_config: EasyDict, seed: int, max_train_iter: int | None) -> int:
    """Return the number of iterations, if everything can be trained as replicas."""
    algorithm = ALGORITHMS.get(create_config.policy.type)
    if algorithm is None:
        raise ValueError(
            f'the policy is {create_config.policy.type!r}; to train replicas it must be one of {listed(ALGORITHMS)}'
        )
    cfg = _compile(main_config, create_config, seed=seed, save_cfg=False)
    keys.normalize(cfg)
    policy = cfg.policy
    data_type = policy.collect.data_type
    if data_type != OWN_DATA_TYPE:
        raise ValueError(f'collect.data_type is {data_type!r}; replicas share the columns of {OWN_DATA_TYPE!r}')
    algorithm.check_replicas(algorithm.Settings.read(policy.learn))
    checkpoint = policy.learn.learner.hook.load_ckpt_before_run
    if checkpoint:
        raise ValueError(
            f'learn.learner.hook.load_ckpt_before_run is {checkpoint!r}, but replicas begin at iteration 0; continue '
            "a replica's checkpoint in a single run"
        )
    total = POSITIVE_INT.check('max_train_iter', policy.learn.train_epoch if max_train_iter is None else max_train_iter)
    _check_cadence(cfg, total)
    return total


def _check_cadence(cfg: EasyDict, total: int) -> None:
    """Raise a ValueError where a run with an environment ends before its first evaluation."""
    eval_freq = cfg.policy.eval.evaluator.eval_freq
    if total < eval_freq < NEVER and cfg.env.get('env_id', '') is not None:
        raise ValueError(
            f'{total} iterations end before the first evaluation, which comes at {eval_freq} (eval.evaluator.eval_freq)'
        )

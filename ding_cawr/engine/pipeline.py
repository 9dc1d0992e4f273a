"""Replace what makes dataset, policy and evaluator in DI-engine's offline pipeline, and policy and collector in its
online ones.

The pipelines find them by name in their modules, after a configuration was compiled and so after this was imported.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ding import policy as di_engine
from ding.entry import serial_entry, serial_entry_offline, serial_entry_onpolicy
from ding.envs import BaseEnvManager
from ding.policy import Policy
from ding.utils import data
from ding.worker import InteractionSerialEvaluator, collector
from easydict import EasyDict
from torch.utils.data import Dataset

from ding_cawr.algorithms import own_algorithm
from ding_cawr.checks import NEVER
from ding_cawr.engine import folders, keys
from ding_cawr.engine.configuration import check_values
from ding_cawr.engine.dataset import OWN_DATA_TYPE
from ding_cawr.engine.env import check_reward_norm, dataset_normalizes, has_no_simulator


@folders.beginning()
def create_dataset(cfg: EasyDict, **kwargs) -> Dataset:
    """
    Overview:
        Check the values of the compiled configuration, make them plain in place, and create the dataset, the first \
        thing that the pipeline makes. A run without a policy or a dataset of this package is not changed.
    """
    algorithm = own_algorithm(cfg.policy.get('type'))
    ours = algorithm is not None
    if ours or cfg.policy.collect.get('data_type') == OWN_DATA_TYPE:
        keys.normalize(cfg, strict=ours)
    if ours:
        check_values(cfg, algorithm)  # before data are downloaded
    dataset = data.create_dataset(cfg, **kwargs)  # which may turn a stock data_type into ours
    if ours and cfg.policy.collect.data_type != OWN_DATA_TYPE:
        _check_reach(cfg, dataset)
    return dataset


def _check_reach(cfg: EasyDict, dataset: Dataset) -> None:
    """Raise a ValueError for normalization that the rows of a stock dataset do not have."""
    asked = {
        'env.reward_norm': (check_reward_norm(cfg.env), 'None'),
        # The statistics are those of the rows, which a dataset that has them has normalized.
        'env.norm_obs': (dataset_normalizes(cfg.env) and not hasattr(dataset, 'mean'), 'dict(use_norm=False)'),
    }
    for key, (is_asked, instead) in asked.items():
        if is_asked:
            raise ValueError(
                f'{key} would not reach the rows of data_type {cfg.policy.collect.data_type!r}; take '
                f'{OWN_DATA_TYPE!r}, or set it to {instead}'
            )


@folders.beginning()
def create_policy(*args, **kwargs) -> Policy:
    """
    Overview:
        Create the policy; leave no folder behind where that fails.
    """
    return di_engine.create_policy(*args, **kwargs)


class Evaluator(InteractionSerialEvaluator):
    """
    Overview:
        Evaluates when that is due, and never where the run has no environment or no ``eval_freq``.
    Notes:
        The pipeline prints the last result at its end, and would fail where there was none: it is None here.
    """

    def __init__(self, cfg: dict, env: BaseEnvManager, policy: Policy.eval_function, *args, **kwargs) -> None:
        """
        Overview:
            Have a policy of this package take note of the environment. Say where there will be no evaluation, and why.
        """
        if own_algorithm(policy.get_attribute('cfg').get('type')):
            policy.get_attribute('take_environment')(env.env_ref)
        without = has_no_simulator(env.env_ref)
        if without:
            cfg.eval_freq = NEVER
        self._never = cfg.eval_freq >= NEVER
        super().__init__(cfg, env, policy, *args, **kwargs)
        self._result: Any = None
        if self._never:
            why = 'env.env_id is None' if without else 'eval.evaluator.eval_freq is 0 or None'
            print(f'{self._exp_name} trains without evaluation, because {why}: no scores, no best checkpoint.')

    def reset_env(self, _env: BaseEnvManager | None = None) -> None:
        """
        Overview:
            Start the environments, unless nothing will be evaluated.
        """
        if self._never:
            self._env = _env or self._env
        else:
            super().reset_env(_env)

    def should_eval(self, train_iter: int) -> bool:
        """
        Overview:
            Have the pipeline ask for a result after every epoch.
        """
        return True

    def eval(self, save_ckpt_fn: Callable | None = None, train_iter: int = -1, *args, **kwargs) -> tuple[bool, Any]:
        """
        Overview:
            Evaluate, if that is due.
        Returns:
            - stop (:obj:`bool`): Whether ``env.stop_value`` was reached just now.
            - result: What DI-engine's evaluator returned last, None before its first evaluation.
        """
        if self._never or not super().should_eval(train_iter):
            return False, self._result
        stop, self._result = super().eval(save_ckpt_fn, train_iter, *args, **kwargs)
        return stop, self._result


@folders.beginning()
def create_serial_collector(
    cfg: EasyDict, env: BaseEnvManager, policy: Policy.collect_function, **kwargs
) -> collector.ISerialCollector:
    """
    Overview:
        Create the online pipeline's collector, after a policy of this package has looked at its environment.
    Raises:
        - ValueError: The collector gives whole episodes and keeps them from the policy, or nothing says how much it \
            collects.
    """
    if own_algorithm(policy.get_attribute('cfg').type):
        if cfg.type == 'episode' and not cfg.get('get_train_sample', False):
            raise ValueError(
                "the collector's type is 'episode' and its get_train_sample is False, so that the policy would never "
                "see what is collected; set policy.collect.collector.get_train_sample to True, or take type 'sample'"
            )
        key, what = ('n_episode', 'episodes') if cfg.type == 'episode' else ('n_sample', 'steps')
        if policy.get_attribute(key) is None:
            raise ValueError(
                f'policy.collect.{key} is not given; it must be how many {what} a collection of the collector '
                f'{cfg.type!r} has'
            )
        policy.get_attribute('check_environment')(env.env_ref, env.env_num)
    return collector.create_serial_collector(cfg, env=env, policy=policy, **kwargs)


@folders.beginning()
def create_onpolicy_collector(
    cfg: EasyDict, env: BaseEnvManager, policy: Policy.collect_function, **kwargs
) -> collector.ISerialCollector:
    """
    Overview:
        Create the collector of ``ding -m serial_onpolicy``, as ``create_serial_collector`` does.
    Raises:
        - ValueError: The policy does not learn in rounds, so that it would have one iteration for each collection.
    """
    algorithm = own_algorithm(policy.get_attribute('cfg').type)
    if algorithm and not algorithm.whole_trajectories:
        raise ValueError(
            f"the {algorithm.name} policy would have one iteration for each collection in DI-engine's pipeline for "
            'on-policy learning; take ding -m serial, whose policy.learn.update_per_collect says how many'
        )
    return create_serial_collector(cfg, env, policy, **kwargs)


serial_entry.create_serial_collector = create_serial_collector
serial_entry_onpolicy.create_serial_collector = create_onpolicy_collector
serial_entry_offline.create_dataset = create_dataset
for _entry in (serial_entry, serial_entry_onpolicy, serial_entry_offline):
    _entry.create_policy = create_policy
serial_entry_offline.InteractionSerialEvaluator = Evaluator

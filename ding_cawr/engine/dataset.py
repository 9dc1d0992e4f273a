"""OfflineTransitions: a dataset of columns in DI-engine's registry."""
from __future__ import annotations

import copy
import json
import os
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ding.utils import DATASET_REGISTRY
from ding.utils.data.dataset import DatasetStatistics
from easydict import EasyDict
from torch import Tensor
from torch.utils.data import Dataset

from ding_cawr.algorithms import own_algorithm
from ding_cawr.checks import POSITIVE_INT, unknown_keys
from ding_cawr.data.corruption import corrupt, corruption_options
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions, check_columns, reward_options
from ding_cawr.engine import keys
from ding_cawr.engine.env import check_env_keys, check_reward_norm, simulator_settings, uses_normalized_observations
from ding_cawr.environments import env_settings, try_out
from ding_cawr.score import score_or_none

#: This dataset's name in DI-engine's registry.
OWN_DATA_TYPE = 'offline_transitions'
COLLECT_KEYS = ('data_path', 'data_type', 'action_scale', 'corruption', 'reward', 'epoch_iterations')
#: DI-engine's own keys that look a little like ours.
KNOWN_COLLECT_KEYS = ('save_path', 'state_dict_path')
#: The type that DI-engine gives an environment that a configuration lacks.
NO_ENV = 'ding_env_wrapper_generated'


@dataclass
class Statistics(DatasetStatistics):
    """DI-engine's statistics, the columns, what the behaviour that made them reached, and the environment's id (None
    where unknown)."""
    transitions: Transitions
    behaviour_return: float | None
    behaviour_score: float | None
    env_id: str | None = None
    configuration: str | None = None


@DATASET_REGISTRY.register(OWN_DATA_TYPE)
class OfflineTransitions(Dataset):
    """
    Overview:
        A dataset of continuous control as columns (see ``load_transitions`` for what ``collect.data_path`` takes). \
        DI-engine's own policies get the list of dicts they expect. Those of this package take the columns through \
        ``statistics`` and draw their batches themselves: for them this dataset is one batch long, so that an epoch of \
        the pipeline is one iteration.
    Notes:
        For every other policy an epoch is a pass over all rows, and DI-engine's offline pipeline evaluates, and looks \
        whether it is at the end, only between epochs. ``collect.epoch_iterations=K`` makes an epoch K iterations, \
        whatever the number of rows: every batch is then drawn uniformly, with replacement, from all rows, by a \
        generator of this dataset's own with the run's seed, and the indices that the loader asks for do not matter. \
        Evaluations and the end come at exact multiples of ``eval_freq`` and ``max_train_iter`` where K, 2 or more, \
        divides both. This package's policies, for which an epoch is one iteration anyway, ignore the key.

        ``collect.corruption=dict(columns=..., rate=0.3, scale=1.0, seed=0)`` corrupts a share of the rows on purpose \
        (see ``corrupt``). Rewards are corrupted as they are in the file, and then scaled by the factor of the clean \
        episodes; observations are normalized with what the corrupted ones give; what the behaviour reached is that of \
        the clean data.

        ``collect.reward=dict(scale=1.0, shift=0.0)`` replaces every reward r of the dataset by r * scale + shift, as \
        antmaze's r - 1. It comes after the corruption and before ``env.reward_norm``, whose factor is that of the \
        episodes as they are in the file. Evaluation and what the behaviour reached have the environment's rewards.
    Properties:
        ``transitions``, ``statistics``, ``mean``, ``std``, ``action_bounds``
    """

    def __init__(self, cfg: EasyDict) -> None:
        """
        Overview:
            Load and check the data; corrupt them (``collect.corruption``), scale and shift rewards \
            (``collect.reward``), normalize rewards (``env.reward_norm='iql_locomotion'``) and observations \
            (``env.norm_obs``) as the configuration asks.
        Arguments:
            - cfg (:obj:`EasyDict`): The compiled configuration.
        """
        env, policy = cfg.get('env', {}), cfg.policy
        self._is_clock = own_algorithm(policy.get('type')) is not None
        keys.normalize(cfg, strict=self._is_clock)
        # Before anything is read: a slip in the name of the path must not end in other data.
        unknown_keys(policy.collect, 'policy.collect', COLLECT_KEYS, known=KNOWN_COLLECT_KEYS)
        check_env_keys(env)
        if env.get('type') == NO_ENV:
            raise ValueError(
                "create_config has no env; give env=dict(type='d4rl_gymnasium', import_names=['ding_cawr'])"
            )
        changes = corruption_options(policy.collect.get('corruption')), reward_options(policy.collect.get('reward'))
        transitions = _loaded(env, policy)
        if self._is_clock:
            self._keep_cadence(policy, len(transitions))
            warn_of_unkept(cfg)
        self._env_id, self._configuration = env.get('env_id'), as_text(cfg)
        keys.check_gpu(policy)
        self._behaviour = _behaviour(transitions, env)
        self.transitions = _changed(transitions, env, *changes)
        self._table = Table(torch.from_numpy(self.transitions.rows), self.transitions.obs_shape)
        self._length, self._generator = len(self.transitions), None
        if self._is_clock:
            # torch's loader would stumble over a wrong size before the policy could name it.
            self._length = POSITIVE_INT.check('learn.batch_size', policy.learn.batch_size)
        elif policy.collect.get('epoch_iterations') is not None:
            iterations = POSITIVE_INT.check('collect.epoch_iterations', policy.collect.epoch_iterations)
            self._length = iterations * POSITIVE_INT.check('learn.batch_size', policy.learn.batch_size)
            self._generator = torch.Generator().manual_seed(cfg.get('seed', 0))

    @staticmethod
    def _keep_cadence(policy: EasyDict, rows: int) -> None:
        """Have DI-engine's ``eval_freq=-1``, after each epoch, mean a pass over the rows where an epoch is one
        iteration."""
        evaluator = policy.get('eval', {}).get('evaluator', {})
        if evaluator.get('eval_freq') == -1:
            evaluator.eval_freq = -(-rows // policy.learn.batch_size)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """
        Overview:
            Return one transition as DI-engine's policies take it.
        """
        # A range, because whoever iterates over items waits for an index to be out of it.
        row = self._chosen([range(len(self))[index]])[0]
        return {name: column[row] for name, column in self._as_rows(self._table.columns).items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]] | Tensor:
        """
        Overview:
            Return what the loader hands on for a batch: rows, or for the policies of this package an empty tensor.
        """
        if self._is_clock:
            return torch.empty(0)
        batch = self._as_rows(Table(self._table.rows[self._chosen(indices)], self._table.obs_shape).columns)
        return [dict(zip(batch, row)) for row in zip(*batch.values())]

    def _as_rows(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return columns as DI-engine's policies take them: discrete actions are (N,), int64."""
        if not self.transitions.discrete:
            return columns
        return {**columns, 'action': columns['action'].squeeze(-1).long()}

    def _chosen(self, indices: list[int]) -> Tensor:
        """Return the rows for a list of indices: these rows, or with ``collect.epoch_iterations`` as many draws."""
        if self._generator is None:
            return torch.as_tensor(indices)
        return torch.randint(len(self.transitions), (len(indices), ), generator=self._generator)

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        if self.transitions.obs_mean is not None:
            return self.transitions.obs_mean, self.transitions.obs_std
        return self.transitions.observation_moments()

    @property
    def mean(self) -> np.ndarray:
        """Mean (O,) of the observations before they were normalized."""
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Standard deviation (O,) of the observations before they were normalized, plus 1e-3."""
        return self._moments[1]

    @property
    def action_bounds(self) -> np.ndarray:
        """Least and greatest actions (2, A)."""
        return np.stack([self.transitions.action.min(0), self.transitions.action.max(0)])

    @property
    def statistics(self) -> Statistics:
        """The argument that DI-engine's pipeline gives to ``policy.set_statistic``."""
        return Statistics(
            self.mean, self.std, self.action_bounds, self.transitions, *self._behaviour, self._env_id,
            self._configuration
        )


def as_text(cfg: EasyDict) -> str | None:
    """Return a compiled configuration as JSON, with files by their whole paths; None where it holds what JSON cannot
    (see ``warn_of_unkept``)."""
    if any(keys.unkept(cfg)):
        return None
    cfg = copy.deepcopy(cfg)
    algorithm = own_algorithm(cfg.policy.get('type'))
    taken_from = algorithm.Settings.taken_from if algorithm else ()
    for section, key in ((cfg.policy.collect, 'data_path'), *((cfg.policy.learn, key) for key in taken_from)):
        if key in section:
            section[key] = _whole_path(section[key])
    return json.dumps(cfg)


def warn_of_unkept(cfg: EasyDict) -> None:
    """Warn of a configuration that a checkpoint cannot keep, so that ``cawr resume`` could not read it."""
    if places := list(keys.unkept(cfg)):
        warnings.warn(
            f'{", ".join(places)}: a checkpoint keeps a configuration of numbers, texts, lists and dicts alone, so '
            'cawr resume will not continue this run; learner.hook.load_ckpt_before_run in its configuration does',
            stacklevel=3
        )


def _whole_path(path: Any) -> Any:
    """Return the whole path of a file or folder, or those of a list; anything else as it is."""
    if isinstance(path, (list, tuple)):
        return [_whole_path(each) for each in path]
    if isinstance(path, (str, os.PathLike)) and Path(path).expanduser().exists():
        return str(Path(path).expanduser().resolve())
    return path


def _check_shapes(transitions: Transitions, model: Any) -> None:
    """Raise a ValueError where the configuration gives a ``model.obs_shape`` or ``action_shape`` that the data do not
    have."""
    for key in ('obs_shape', *(() if transitions.discrete else ('action_shape', ))):
        shape = model.get(key)
        width = getattr(transitions, key)
        if shape is not None and shape not in (width, [width], (width, )):
            raise ValueError(f'policy.model.{key} is {shape}, but {transitions.source} has {width}; set it to {width}')


def _check_spaces(transitions: Transitions, env: EasyDict) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the actions of the environment that evaluates, in which a step is tried; of discrete ones
    there are none.

    Raises:
        ValueError: the data have other widths than the environment, or that cannot be used.
    """
    discrete = transitions.discrete
    spaces = try_out(env.env_id, env_settings(env), None if discrete else False)
    if discrete and spaces.low is not None:
        raise ValueError(
            f'{transitions.source}: actions are numbers of discrete ones, but those of env_id {env.env_id!r} are '
            "continuous; store them as floats, and leave policy.model.action_space 'continuous', or take the data of "
            'that environment'
        )
    # Discrete actions are numbers that need not all occur.
    actions = max(spaces.widths[1], int(transitions.action.max()) + 1) if discrete else transitions.action_shape
    widths = transitions.obs_shape, actions
    if widths != spaces.widths:
        raise ValueError(
            f'{transitions.source}: observations are {widths[0]} wide and actions {widths[1]}, but env_id '
            f'{env.env_id!r} has {spaces.widths[0]} and {spaces.widths[1]}: these are data of another environment'
        )
    return spaces.low, spaces.high


def _loaded(env: EasyDict, policy: EasyDict) -> Transitions:
    """Return the dataset that a configuration names, after checks against its model and environment; actions in
    [-1, 1]."""
    data_path, env_id = policy.collect.get('data_path'), env.get('env_id')
    if data_path is not None and simulator_settings(env).get('kwargs'):
        env_id = None  # with arguments it is another environment than the id's; ``_check_spaces`` compares with it
    transitions = load_transitions(data_path, env_id, unit_actions=False)
    model, bounds = policy.get('model', {}), None
    # Files may also have the numbers of discrete actions as floats, for a model that takes them.
    if model.get('action_space') == 'discrete' and transitions.action_shape == 1 and _are_whole(transitions.action):
        transitions = replace(transitions, discrete=True)
    _check_shapes(transitions, model)
    if env.get('type') == 'd4rl_gymnasium' and env.env_id is not None:
        bounds = _check_spaces(transitions, env)
    return transitions.scale_actions(policy.collect.get('action_scale'), bounds)


def _are_whole(numbers: np.ndarray) -> bool:
    return bool((numbers == np.floor(numbers)).all())


def _changed(
    transitions: Transitions, env: EasyDict, corruption: dict[str, Any] | None, reward: dict[str, float] | None
) -> Transitions:
    """Return a dataset with the changes that a configuration asks for.

    Raises:
        ValueError: numbers leave the range that training can hold, or a change cannot be made.
    """
    asked = {'collect.corruption': corruption, 'collect.reward': reward, 'env.reward_norm': check_reward_norm(env)}
    if corruption is not None:  # before rewards are scaled: the protocol replaces those of the file
        transitions = corrupt(transitions, **corruption)
    if reward is not None:
        transitions = transitions.transform_rewards(**reward)
    if asked['env.reward_norm']:
        transitions = transitions.scale_rewards()
    if changes := [key for key, value in asked.items() if value is not None]:
        columns = {f'{name} after {", ".join(changes)}': column for name, column in transitions.table.columns.items()}
        check_columns(columns, transitions.source)
    if uses_normalized_observations(env):
        transitions = transitions.normalize_observations()
    return transitions


def _behaviour(transitions: Transitions, env: EasyDict) -> tuple[float | None, float | None]:
    """Return the mean return of the dataset's episodes and its normalized score, None where unknown."""
    returns = transitions.episode_returns
    if returns is None or len(returns) == 0:
        return None, None
    mean = float(returns.mean())
    return mean, score_or_none(env.get('env_id'), mean, **simulator_settings(env))

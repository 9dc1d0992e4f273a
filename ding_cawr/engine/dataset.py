"""OfflineTransitions: a dataset of columns in DI-engine's registry."""
from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
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

from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.checks import nearest, positive_int, unknown_keys
from ding_cawr.data.corruption import corrupt, corruption_options
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions
from ding_cawr.engine.env import uses_normalized_observations
from ding_cawr.environments import env_settings, try_out
from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task

#: This dataset's name in DI-engine's registry.
OWN_DATA_TYPE = 'offline_transitions'
COLLECT_KEYS = ('data_path', 'data_type', 'action_scale', 'corruption', 'epoch_iterations')
ENV_KEYS = ('env_id', 'kwargs', 'max_episode_steps', 'import_names', 'reward_norm', 'norm_obs')
#: DI-engine's own keys that look a little like ours.
KNOWN_COLLECT_KEYS = ('data_path', 'data_type', 'save_path', 'state_dict_path')
KNOWN_ENV_KEYS = ('norm_reward', )
REWARD_NORMS = (None, 'iql_locomotion')


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
    Properties:
        ``transitions``, ``statistics``, ``mean``, ``std``, ``action_bounds``
    """

    def __init__(self, cfg: EasyDict) -> None:
        """
        Overview:
            Load and check the data; corrupt them (``collect.corruption``), normalize rewards \
            (``env.reward_norm='iql_locomotion'``) and observations (``env.norm_obs``) as the configuration asks.
        Arguments:
            - cfg (:obj:`EasyDict`): The compiled configuration.
        """
        env, policy = cfg.get('env', {}), cfg.policy
        # Before anything is read: a slip in the name of the path must not end in other data.
        unknown_keys(policy.collect, 'policy.collect', COLLECT_KEYS, known=KNOWN_COLLECT_KEYS)
        unknown_keys(env, 'env', ENV_KEYS, known=KNOWN_ENV_KEYS)
        corruption = corruption_options(policy.collect.get('corruption'))
        transitions = load_transitions(policy.collect.get('data_path'), env.get('env_id'), unit_actions=False)
        _check_shapes(transitions, policy.get('model', {}))
        bounds = None
        if env.get('type') == 'd4rl_gymnasium':
            bounds = _check_spaces(transitions, env)
        transitions = transitions.scale_actions(policy.collect.get('action_scale'), bounds)
        self._env_id, self._configuration = env.get('env_id'), as_text(cfg)
        self._behaviour = _behaviour(transitions, self._env_id)
        if corruption is not None:  # before rewards are scaled: the protocol replaces those of the file
            transitions = corrupt(transitions, **corruption)
        reward_norm = env.get('reward_norm')
        if reward_norm not in REWARD_NORMS:
            raise ValueError(
                f'env.reward_norm is {reward_norm!r}; it must be one of {", ".join(map(repr, REWARD_NORMS))}'
                f'{nearest(reward_norm, REWARD_NORMS)}'
            )
        if reward_norm:
            transitions = transitions.scale_rewards()
        if uses_normalized_observations(env):
            transitions = transitions.normalize_observations()
        self.transitions = transitions
        self._table = Table(torch.from_numpy(transitions.rows), transitions.obs_shape)
        self._is_clock = str(policy.get('type')).removesuffix('_command') in ALGORITHMS
        self._length, self._generator = len(transitions), None
        if self._is_clock:
            # torch's loader would stumble over a wrong size before the policy could name it.
            self._length = positive_int(policy.learn.batch_size, 'learn.batch_size')
        elif policy.collect.get('epoch_iterations') is not None:
            iterations = positive_int(policy.collect.epoch_iterations, 'collect.epoch_iterations')
            self._length = iterations * positive_int(policy.learn.batch_size, 'learn.batch_size')
            self._generator = torch.Generator().manual_seed(cfg.get('seed', 0))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """
        Overview:
            Return one transition as DI-engine's policies take it.
        """
        # A range, because whoever iterates over items waits for an index to be out of it.
        row = self._chosen([range(len(self))[index]])[0]
        return {name: column[row] for name, column in self._table.columns.items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]] | Tensor:
        """
        Overview:
            Return what the loader hands on for a batch: rows, or for the policies of this package an empty tensor.
        """
        if self._is_clock:
            return torch.empty(0)
        batch = Table(self._table.rows[self._chosen(indices)], self._table.obs_shape).columns
        return [dict(zip(batch, row)) for row in zip(*batch.values())]

    def _chosen(self, indices: list[int]) -> Tensor:
        """
        Overview:
            Return the rows to give for so many indices: those, or with ``collect.epoch_iterations`` as many draws.
        """
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
    (functions)."""
    cfg = copy.deepcopy(cfg)
    for section, key in ((cfg.policy.collect, 'data_path'), (cfg.policy.learn, 'pretrained_critics')):
        path = section.get(key)
        if isinstance(path, (str, os.PathLike)) and Path(path).is_file():
            section[key] = str(Path(path).resolve())
    try:
        return json.dumps(cfg)
    except TypeError:
        return None


def _check_shapes(transitions: Transitions, model: Any) -> None:
    """Raise a ValueError where the configuration gives a ``model.obs_shape`` or ``action_shape`` that the data do not
    have."""
    for key in ('obs_shape', 'action_shape'):
        shape = model.get(key)
        width = getattr(transitions, key)
        if shape is not None and shape not in (width, [width], (width, )):
            raise ValueError(f'policy.model.{key} is {shape}, but {transitions.source} has {width}; set it to {width}')


def _check_spaces(transitions: Transitions, env: EasyDict) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the actions of the environment that evaluates, in which a step is tried.

    Raises:
        ValueError: the data have other widths than the environment, or that cannot be used.
    """
    spaces, widths = try_out(env.env_id, env_settings(env)), (transitions.obs_shape, transitions.action_shape)
    if widths != spaces.widths:
        raise ValueError(
            f'{transitions.source}: observations are {widths[0]} wide and actions {widths[1]}, but env_id '
            f'{env.env_id!r} has {spaces.widths[0]} and {spaces.widths[1]}: these are data of another environment'
        )
    return spaces.low, spaces.high


def _behaviour(transitions: Transitions, env_id: str | None) -> tuple[float | None, float | None]:
    """Return the mean return of the dataset's episodes and its normalized score, None where unknown."""
    returns = transitions.episode_returns
    if returns is None or len(returns) == 0:
        return None, None
    mean = float(returns.mean())
    return mean, float(normalized_score(env_id, mean)) if env_id and find_task(env_id) else None

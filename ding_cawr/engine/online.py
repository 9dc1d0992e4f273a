"""Online runs: what they begin with, and what they keep of what they collect."""
from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from ding.envs import BaseEnv
from easydict import EasyDict
from torch import Tensor

from ding_cawr.algorithms import check_actions_of
from ding_cawr.algorithms.base import Step
from ding_cawr.data.buffer import join_columns
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.trajectories import TrajectoryRing
from ding_cawr.data.transitions import REWARD_BOUND, Transitions, check_columns, check_rows, reward_options
from ding_cawr.engine.buffer import stack_rows
from ding_cawr.engine.env import action_bounds, check_reward_norm, environment_id
from ding_cawr.returns import trajectory_lengths
from ding_cawr.runs.checkpoint import observation_statistics, read_state
from ding_cawr.runs.state import brief
from ding_cawr.tasks import environment_name, is_d4rl_id
from ding_cawr.training.loop import Training

#: Number of rows that are kept and dropped at a time, where they are in any order.
PART = 64
#: Key of ``env`` that has rewards scaled by the returns of a dataset.
NORM = 'reward_norm'
#: The part of an online run's state that says how rewards are learned from.
REWARDS = 'rewards'


@dataclass(frozen=True)
class Rewards:
    """Turn rewards r into those that are learned from, (r * scale + shift) * factor.

    Attributes:
        scale, shift: those of ``collect.reward``.
        factor: that of ``env.reward_norm``.
    """
    scale: float = 1.0
    shift: float = 0.0
    factor: float = 1.0

    def learned(self, reward: Tensor) -> Tensor:
        """Return rewards as they are learned from."""
        return reward * (self.scale * self.factor) + self.shift * self.factor

    def asked(self, entry: Mapping | None) -> Rewards:
        """Return a copy with the scale and shift of ``collect.reward``, an equal one where that is None."""
        return replace(self, **(reward_options(entry) or {}))

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Rewards | None:
        """Return those that an online run's state has, None for a state that has none.

        Raises:
            ValueError: they are damaged.
        """
        found = state.get(REWARDS)
        if found is None:
            return None
        names = [each.name for each in fields(cls)]
        if not isinstance(found, dict) or set(found) != set(names) or \
                not all(type(each) in (int, float) and each in REWARD_BOUND for each in found.values()):
            raise ValueError(
                f'the checkpoint: its {REWARDS} are {brief(found)}; they must be a dict with the finite numbers '
                f'{", ".join(names)}. Take another checkpoint'
            )
        return cls(**found)

    @classmethod
    def of_offline_run(
        cls, state: Mapping[str, Any], checkpoint: str | None, transitions: Transitions | None
    ) -> Rewards:
        """Return the transformation of rewards that an offline run was trained with. Without a run it changes nothing.
        """
        try:
            told = json.loads(state.get('configuration') or '{}')
            reward, is_scaled = told.get('policy', {}).get('collect', {}).get('reward'), told.get('env', {}).get(NORM)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f'learn.load_path {checkpoint}: its configuration cannot be used; take another checkpoint'
            ) from None
        known = cls().asked(reward)
        if not is_scaled:
            return known
        if transitions is None:
            raise ValueError(
                f'learn.load_path {checkpoint}: its rewards were scaled by the returns of its dataset '
                '(env.reward_norm); give that dataset as collect.data_path'
            )
        return replace(known, factor=transitions.reward_factor)


class Online:
    """Begin a run with the networks of a checkpoint and the rows of a dataset, and keep what it collects.

    Arguments:
        training: that of the run, before its first iteration.
        cfg: the compiled ``policy`` section. ``learn.load_path`` is the checkpoint, of the same algorithm and networks,
            of an offline run or an online one; ``collect.data_path`` the dataset.

    Attributes:
        obs_statistics: mean and standard deviation (2, O) that the networks' observations are normalized with, None for
            raw ones.
        rewards: how rewards are learned from, as those that the networks know.

    Raises:
        ValueError: the checkpoint is of another algorithm or of other networks, its rewards were scaled by the returns
            of a dataset that is not given, or the dataset is not one of the model's; and what reading a file raises.
    """

    def __init__(self, training: Training, cfg: EasyDict) -> None:
        self._training, self._cfg, self._algorithm = training, cfg, training.algorithm
        self._model, = training.algorithm.models
        self._discrete = getattr(self._model, 'discrete', False)
        state, statistics, known = self._load(cfg.learn.load_path)
        data_path = cfg.collect.data_path
        #: The dataset as its file has it, None without one.
        self._data = None if data_path is None else _load_data(data_path)
        known = known or Rewards.of_offline_run(state, cfg.learn.load_path, self._data)
        self.obs_statistics, self.rewards = statistics, known.asked(cfg.collect.reward)
        if state:
            self._warn_of_other_rewards(known)
        if self._data is not None:
            source = f'collect.data_path {self._data.source}'
            check_actions_of(type(self._algorithm), self._data.discrete, source)
            check_rows(self._data.table.columns, source, self._model, self._data.discrete)
        #: The same with actions in [-1, 1] by the bounds of the environment, once that was seen.
        self._dataset: Transitions | None = None
        self._trajectories = self._empty_ring()
        self._trajectory_lengths: dict[int, int] = {}  # of the trajectories that go on, by environment
        #: Steps of all trajectories that go on and were begun by DI-engine's random policy, and the number of
        #: environments.
        self._random_steps, self._environments = 0, 1

    def _load(self, checkpoint: str | None) -> tuple[Mapping[str, Any], Tensor | None, Rewards | None]:
        """Take networks and optimizers from a checkpoint; return its state and what ``read`` gives for it."""
        if checkpoint is None:
            return {}, None, None
        state = read_state(checkpoint, {'model': dict, 'iteration': int})
        try:
            statistics, known = self.read(state)
            self._training.begin_with(state)
        except ValueError as error:
            raise ValueError(f'learn.load_path {checkpoint}: {error}') from None
        return state, statistics, known

    def _warn_of_other_rewards(self, known: Rewards) -> None:
        """Warn of a ``collect.reward`` that is not that of the networks which the run begins with."""
        if self.rewards != known:
            warnings.warn(
                f'collect.reward makes r * {self.rewards.scale:g} + {self.rewards.shift:g} of rewards, but the '
                f'networks of the checkpoint know r * {known.scale:g} + {known.shift:g}: their estimates of '
                'returns begin as those of that; to go on as before, leave collect.reward None', stacklevel=4
            )

    def _empty_ring(self) -> TrajectoryRing:
        return TrajectoryRing(self._cfg.other.replay_buffer.replay_buffer_size, self._algorithm.iteration.device)

    # ------------------------------------------------------------ states

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the state of training."""
        return {REWARDS: asdict(self.rewards)}

    def read(self, state: Mapping[str, Any]) -> tuple[Tensor | None, Rewards | None]:
        """Return the statistics of observations and the rewards that a state names, None for each that it lacks.

        Raises:
            ValueError: they are damaged.
        """
        return observation_statistics(state, self._model.obs_shape, 'the checkpoint'), Rewards.read(state)

    def go_on(self, statistics: Tensor | None, rewards: Rewards | None) -> None:
        """Adopt the statistics and rewards, which ``read`` gave, of a state that training was just loaded from."""
        self.obs_statistics = statistics
        if rewards:
            self.rewards = rewards.asked(self._cfg.collect.reward)
            self._warn_of_other_rewards(rewards)
        self._keep_dataset()  # as the networks of this state know it

    # ------------------------------------------------------------ the dataset

    def check_environment(self, env: BaseEnv, environments: int = 1) -> None:
        """Compare the environment that is collected in with the model, before the first step, and read the actions of
        the dataset by its bounds.

        Arguments:
            environments: number of those that are collected in at once.

        Raises:
            ValueError: they have other actions, or those of the dataset do not fit.
        """
        self._environments = environments
        space, widths = env.action_space, (self._model.obs_shape, self._model.action_shape)
        discrete, what = hasattr(space, 'n'), f'the environment {env}'
        check_actions_of(type(self._algorithm), discrete, what)
        if discrete != self._discrete:
            kind = 'discrete' if discrete else 'continuous'
            raise ValueError(f'{what} has the actions {space}; set policy.model.action_space={kind!r}')
        found = env.observation_space.shape, (space.n, ) if discrete else space.shape
        if found != tuple((width, ) for width in widths):
            raise ValueError(
                f'{what} has observations of shape {found[0]} and actions {space}, but policy.model has obs_shape '
                f'{widths[0]} and action_shape {widths[1]}; they must agree'
            )
        if not discrete:
            self._warn_of_bounds(env)
        self._take_reward_norm(getattr(env, '_cfg', {}))
        if self._data is not None:
            self._warn_of_other_environment(env)
            self._dataset = self._data
            if not discrete:
                self._dataset = self._data.scale_actions(self._cfg.collect.action_scale, action_bounds(env))
            self._keep_dataset()

    @staticmethod
    def _warn_of_bounds(env: BaseEnv) -> None:
        """Warn of an environment that takes actions of another range than [-1, 1] and does not scale a policy's."""
        space = env.action_space
        is_unit = (space.low == -1).all() and (space.high == 1).all()
        if not is_unit and (np.abs(action_bounds(env)) == 1).all():
            warnings.warn(
                f'the environment {env} takes actions from {space.low} to {space.high}, but the policy gives those in '
                '[-1, 1] and nothing scales them; where the environment has act_scale, set env.act_scale=True',
                stacklevel=4
            )

    def _take_reward_norm(self, env_cfg: Mapping) -> None:
        """Have rewards be scaled as ``env.reward_norm`` of the environment's configuration says.

        Networks that the run begins with know their scale, which stays.

        Raises:
            ValueError: it scales by the returns of a dataset, and none is given.
        """
        asked = check_reward_norm(env_cfg)
        if asked is None or self.rewards.factor != 1:
            return
        if self._cfg.learn.load_path is not None:
            warnings.warn(
                f'env.reward_norm is {asked!r}, but the networks of learn.load_path know rewards without it: it is not '
                'applied; to go on without this warning, leave it None', stacklevel=4
            )
            return
        if self._data is None:
            raise ValueError(
                f'env.reward_norm is {asked!r}, which scales rewards by the returns of a dataset, and '
                'collect.data_path names none; give one, or scale by policy.collect.reward=dict(scale=...)'
            )
        self.rewards = replace(self.rewards, factor=self._data.reward_factor)

    def _warn_of_other_environment(self, env: BaseEnv) -> None:
        """Warn of a dataset whose file says that it is of another environment, whatever its version."""
        said, here = self._data.attributes.get('env_id'), environment_id(env)
        if isinstance(said, str) and here and _kind_of(said) != _kind_of(here):
            warnings.warn(
                f'{self._data.source} says that it holds data of {said[:60]}, but the run collects in {here}: the '
                'buffer begins with rows of another environment', stacklevel=4
            )

    def _keep_dataset(self) -> None:
        """Have the buffer hold the dataset, where there is one, and nothing else.

        Raises:
            ValueError: its rows are in any order, where the algorithm must know where trajectories end.
        """
        if self._dataset is None:
            return
        table = self._dataset.table
        rows = join_columns(self._learned({name: torch.from_numpy(each) for name, each in table.columns.items()}))
        if not self._algorithm.whole_trajectories:
            self._training.buffer.clear()
            self._training.buffer.push_columns(rows.columns)
            return
        self._algorithm.check_ends(table, f'collect.data_path {self._dataset.source}')
        self._trajectories = self._empty_ring()
        lengths = min(PART, self._trajectories.capacity)
        if table.ends is not None:
            lengths = trajectory_lengths(torch.from_numpy(table.ends)).tolist()
        for part in rows.rows.split(lengths):
            self._trajectories.push(Table(part, rows.obs_shape), f'collect.data_path {self._dataset.source}')
        self._trajectories.take_new()

    def _learned(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return raw columns with transformed rewards and normalized observations."""
        columns = dict(columns, reward=self.rewards.learned(columns['reward']))
        if self.obs_statistics is not None:
            mean, std = self.obs_statistics.to(columns['obs'])
            columns.update({name: (columns[name] - mean) / std for name in ('obs', 'next_obs')})
        return columns

    # ------------------------------------------------------------ what is collected

    def count_step(self, env_ids: list[int]) -> None:
        """Count a step of the trajectories of these environments.

        Raises:
            ValueError: one has become longer than the buffer that is to keep it.
        """
        if self._algorithm.whole_trajectories and self._cfg.traj_len_inf:
            for env_id in env_ids:
                self._trajectory_lengths[env_id] = self._trajectory_lengths.get(env_id, 0) + 1
            self._trajectories.check_length(max(self._trajectory_lengths.values()))

    def count_random_step(self) -> None:
        """Count a step of DI-engine's random policy, which does not say of which environment.

        Raises:
            ValueError: a trajectory has become longer than the buffer that is to keep it.
        """
        if self._algorithm.whole_trajectories and self._cfg.traj_len_inf:
            self._random_steps += 1
            least = -(-self._random_steps // self._environments)  # steps that the longest one has
            self._trajectories.check_length(least)

    def forget_trajectories(self, env_ids: list[int] | None) -> None:
        """Forget how long the trajectories of these environments are, or those of all."""
        if env_ids is None:
            self._random_steps = 0
        for env_id in list(self._trajectory_lengths) if env_ids is None else env_ids:
            self._trajectory_lengths.pop(env_id, None)

    def keep(self, transitions: list[dict]) -> None:
        """Keep the rows of a trajectory, or of a part of it, as ``_process_transition`` gave them."""
        self._random_steps = max(0, self._random_steps - len(transitions))
        columns = stack_rows(transitions, self._discrete)
        check_columns({name: column.numpy() for name, column in columns.items()}, 'the environment')
        learned = self._learned(columns)
        if self._algorithm.whole_trajectories:
            instead = 'give it a shorter time limit' if self._cfg.traj_len_inf else 'take a smaller collect.n_sample'
            self._trajectories.push(join_columns(learned), 'the environment', f', or {instead}')
        else:
            self._training.buffer.push_columns(learned)

    # ------------------------------------------------------------ learning

    @property
    def rows(self) -> Table:
        """The rows that are kept."""
        return self._trajectories.table if self._algorithm.whole_trajectories else self._training.buffer.table

    def iterate(self) -> Iterator[Step]:
        """Do the iterations that are due for the rows since the last call, and yield the step of each."""
        rows, new = self.rows, None
        if self._algorithm.whole_trajectories:
            self._training.buffer.replace(rows)
            new = self._trajectories.take_new()
        return self._training.iterate_round(rows if new is None else Table(rows.rows[len(rows) - new:], rows.obs_shape))


def _load_data(data_path: Any) -> Transitions:
    """Return the dataset that ``collect.data_path`` names, also by the id of one of D4RL's."""
    is_id = isinstance(data_path, str) and is_d4rl_id(data_path) and not os.path.exists(data_path)
    # Offline, None means the D4RL set of env_id; online it means no dataset.
    path, env_id = (None, data_path) if is_id else (data_path, None)
    return load_transitions(path, env_id, unit_actions=False)


def _kind_of(env_id: str) -> str:
    """Return the name of an environment without its version."""
    return environment_name(env_id).rpartition('/')[2].split('-')[0].lower()

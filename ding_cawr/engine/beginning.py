"""Begin an online run with the networks of a checkpoint, and with a dataset in its buffer."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ding_cawr.data.buffer import join_columns
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import REWARD_BOUND, Transitions, reward_options
from ding_cawr.runs.checkpoint import read_state
from ding_cawr.runs.state import shown
from ding_cawr.training.loop import Training

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
        """Return them with scale and shift of a ``collect.reward``, as they are where that is None."""
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
                f'the checkpoint: its {REWARDS} are {shown(found)}; they must be a dict with the finite numbers '
                f'{", ".join(names)}. Take another checkpoint'
            )
        return cls(**found)


@dataclass(frozen=True)
class Beginning:
    """Hold what an online run begins with.

    Attributes:
        obs_statistics: mean and standard deviation (2, O) that the networks' observations were normalized with, None
            for raw ones.
        rewards: how rewards are learned from, as those that the networks know.
        data: the dataset, as its file has it, None without one.
    """
    obs_statistics: Tensor | None = None
    rewards: Rewards = Rewards()
    data: Transitions | None = None

    def learned(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return columns as the environment gives them as those that are learned from."""
        columns = dict(columns, reward=self.rewards.learned(columns['reward']))
        if self.obs_statistics is not None:
            mean, std = self.obs_statistics.to(columns['obs'])
            columns.update({name: (columns[name] - mean) / std for name in ('obs', 'next_obs')})
        return columns

    def learned_rows(self, transitions: Transitions) -> Table:
        """Return transitions as the environment gives them as the rows (N, W) that are learned from."""
        table = transitions.table
        rows = join_columns(self.learned({name: torch.from_numpy(column) for name, column in table.columns.items()}))
        rows.ends = None if table.ends is None else torch.from_numpy(table.ends)
        return rows


def begin(
    training: Training, checkpoint: str | None, data_path: Any, reward: Mapping | None
) -> Beginning:
    """Have a run's networks and optimizers be those of a checkpoint; return what else it begins with.

    Arguments:
        training: that of the run, before its first iteration.
        checkpoint: path of one of the same algorithm and networks, offline or online, or None.
        data_path: as of ``load_transitions``; None for an empty buffer.
        reward: ``collect.reward``; None for that of the checkpoint's run.

    Raises:
        ValueError: the checkpoint is of another algorithm or of other networks, or its rewards were scaled by the
            returns of a dataset that is not given; and what reading a file raises.
    """
    state, known = {}, None
    if checkpoint is not None:
        state = read_state(checkpoint, {'model': dict, 'iteration': int})
        try:
            known = Rewards.read(state)
            training.begin_with(state)
        except ValueError as error:
            raise ValueError(f'learn.load_path {checkpoint}: {error}') from None
    transitions = None if data_path is None else load_transitions(data_path, unit_actions=False)
    known = known or _offline_rewards(state, checkpoint, transitions)
    return Beginning(state.get('obs_statistics'), known.asked(reward), transitions)


def _offline_rewards(state: Mapping[str, Any], checkpoint: str | None, transitions: Transitions | None) -> Rewards:
    """Return what rewards the networks of an offline run know, by its configuration and its dataset."""
    told = json.loads(state.get('configuration') or '{}')
    known = Rewards().asked(told.get('policy', {}).get('collect', {}).get('reward'))
    if not told.get('env', {}).get('reward_norm'):
        return known
    if transitions is None:
        raise ValueError(
            f'learn.load_path {checkpoint}: its rewards were scaled by the returns of its dataset '
            '(env.reward_norm); give that dataset as collect.data_path'
        )
    return replace(known, factor=transitions.reward_factor)

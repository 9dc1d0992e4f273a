"""How an online run begins: with the networks of a checkpoint, and with a dataset in its buffer."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ding_cawr.data.buffer import join_columns
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import REWARD_DEFAULTS, Transitions, reward_options
from ding_cawr.runs.checkpoint import read_state
from ding_cawr.training.loop import Training


@dataclass(frozen=True)
class Beginning:
    """What an online run begins with.

    Attributes:
        obs_statistics: mean and standard deviation (2, O) that the networks' observations were normalized with, None
            for raw ones.
        scale, shift: rewards r are learned from as r * scale + shift, as those that the networks know.
        data: the dataset, as its file has it, None without one.
    """
    obs_statistics: Tensor | None = None
    scale: float = 1.0
    shift: float = 0.0
    data: Transitions | None = None

    def learned(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return columns as the environment gives them as those that are learned from."""
        columns = dict(columns, reward=columns['reward'] * self.scale + self.shift)
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
    state: dict[str, Any] = {}
    if checkpoint is not None:
        state = read_state(checkpoint, {'model': dict, 'iteration': int})
        try:
            training.begin_with(state)
        except ValueError as error:
            raise ValueError(f'learn.load_path {checkpoint}: {error}') from None
    told = json.loads(state.get('configuration') or '{}')
    affine = reward_options(reward or told.get('policy', {}).get('collect', {}).get('reward')) or REWARD_DEFAULTS
    transitions = None if data_path is None else load_transitions(data_path, unit_actions=False)
    factor = 1.0
    if told.get('env', {}).get('reward_norm'):
        if transitions is None:
            raise ValueError(
                f'learn.load_path {checkpoint}: its rewards were scaled by the returns of its dataset '
                '(env.reward_norm); give that dataset as collect.data_path'
            )
        factor = transitions.reward_factor
    return Beginning(state.get('obs_statistics'), affine['scale'] * factor, affine['shift'] * factor, transitions)

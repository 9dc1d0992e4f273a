"""The buffer in DI-engine's registry: ``PriorityBuffer`` behind DI-engine's IBuffer, and its lists of dicts as
columns."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ding.utils import BUFFER_REGISTRY
from ding.worker.replay_buffer import IBuffer
from easydict import EasyDict
from torch import Tensor

from ding_cawr.data.buffer import PriorityBuffer
from ding_cawr.data.load import load_transitions
from ding_cawr.data.table import COLUMNS
from ding_cawr.files import unfinished


@BUFFER_REGISTRY.register('advantage_priority')
class AdvantagePriorityBuffer(PriorityBuffer, IBuffer):
    """
    Overview:
        Draws over transitions, uniform or by an advantage-based priority: see ``PriorityBuffer``.
    Interfaces:
        ``attach``, ``push``, ``sample_uniform``, ``sample_prioritized``, ``update_priority``, and IBuffer's
    """

    config = dict(
        type='advantage_priority',
        # (int) Most rows that pushing keeps.
        replay_buffer_size=1000000,
        # (float) Exponent on the priority: 1.0 is the paper's text, 0.6 its released code.
        exponent=1.0,
        # (int or list of ints) Seed of the draws; a list has one for each replica.
        seed=0,
        # (str) Device of the rows, the priorities and the draws.
        device='cpu',
    )

    def __init__(self, cfg: Mapping, tb_logger=None, exp_name: str = 'buffer', instance_name: str = 'buffer') -> None:
        """
        Overview:
            Make an empty buffer.
        Arguments:
            - cfg (:obj:`Mapping`): Keys of ``config``; what is missing has its default.
            - tb_logger, exp_name, instance_name: What DI-engine passes to every buffer; not used.
        """
        cfg = {**self.config, **cfg}
        super().__init__(cfg['replay_buffer_size'], cfg['exponent'], cfg['seed'], cfg['device'])

    @classmethod
    def default_config(cls) -> EasyDict:
        cfg = EasyDict(copy.deepcopy(cls.config))
        cfg.cfg_type = cls.__name__ + 'Dict'
        return cfg

    def push(self, data: list[dict] | Mapping[str, Tensor], cur_collector_envstep: int = -1) -> None:
        """
        Overview:
            Add rows. A new row gets the mean of the priorities so far, so it counts like its neighbours.
        Arguments:
            - data: DI-engine's list of dicts, one a row, or columns (B, ...).
            - cur_collector_envstep (:obj:`int`): Not used.
        """
        if len(data):
            columns = stack_rows(data) if isinstance(data, (list, tuple)) else data
            self.push_columns({name: torch.as_tensor(column) for name, column in columns.items()})

    def sample(self, size: int, cur_learner_iter: int = -1) -> list[dict]:
        """
        Overview:
            Draw by priority, as DI-engine's list of dicts with ``replay_buffer_idx``; of a single seed only.
        Arguments:
            - size (:obj:`int`): Rows to draw.
            - cur_learner_iter (:obj:`int`): Not used.
        """
        self._check_single('draw lists of rows, or draw with sample_prioritized')
        indices, batch = self.sample_prioritized(size)
        return [
            {**{name: column[i] for name, column in batch.columns.items()}, 'replay_buffer_idx': index}
            for i, index in enumerate(indices.tolist())
        ]

    def update(self, info: Mapping[str, list]) -> None:
        """
        Overview:
            Set priorities as DI-engine hands them over.
        Arguments:
            - info (:obj:`Mapping[str, list]`): ``replay_buffer_idx`` and ``priority``, one entry a row.
        Raises:
            - ValueError: A row does not exist, or has no priority.
        """
        indices, priority = (
            torch.as_tensor(info[name], device=self._device) for name in ('replay_buffer_idx', 'priority')
        )
        if indices.shape != priority.shape:
            raise ValueError(
                f'{tuple(priority.shape)} priorities came for {tuple(indices.shape)} rows; every row must have one'
            )
        if not indices.numel():
            return
        low, high = (int(bound) for bound in indices.aminmax())
        if low < 0 or high >= self._count:
            raise ValueError(
                f'replay_buffer_idx has {low if low < 0 else high}, but the buffer has rows 0 to {self._count - 1}'
            )
        self.update_priority(indices, priority)

    def state_dict(self) -> dict[str, Any]:
        """
        Overview:
            Return priorities, of attached rows only (pushed rows come again from the loader), and the random \
            generator; of a single seed only.
        """
        self._check_single('have a state; that of a replica is replica_state')
        return self.replica_state()

    def load_state_dict(self, _state_dict: Mapping[str, Any]) -> None:
        """
        Overview:
            Go on from what ``state_dict`` gave, after the same rows were attached; of a single seed only.
        Raises:
            - ValueError: The state is of other rows, or damaged.
        """
        self._check_single('go on from a state; replicas do by load_replica_states')
        self.check_state(_state_dict)
        self.load_replica_states([_state_dict])

    def _check_single(self, to: str) -> None:
        if not self._is_single:
            raise RuntimeError(f'this buffer has {len(self.generators)} seeds; give it a single seed to {to}')

    def save_data(self, file_name: str) -> None:
        """Write the rows to a .npz file that ``load_data`` and ``load_transitions`` read."""
        if self._count == 0:
            raise RuntimeError(f'the buffer is empty; nothing to write to {file_name}')
        with unfinished(_archive(file_name)) as temporary:
            np.savez(temporary, **{name: column.cpu().numpy() for name, column in self.table.columns.items()})

    def load_data(self, file_name: str) -> None:
        """Push the rows of a file that ``load_transitions`` reads, such as ``save_data`` writes. Raise what
        ``load_transitions`` raises."""
        self.push(load_transitions(_archive(file_name), unit_actions=False).table.columns)


def _archive(file_name: str) -> Path:
    """Return the path of the .npz file that a name, with or without that ending, stands for."""
    path = Path(file_name)
    return path if path.suffix == '.npz' else path.with_name(f'{path.name}.npz')


def stack_rows(rows: list[dict], discrete: bool = False) -> dict[str, Tensor]:
    """Return DI-engine's list of B dicts as columns: obs (B, O), action (B, A), reward (B,), next_obs (B, O), done
    (B,).

    Arguments:
        discrete: whether an action is a number of one; the column is (B, 1) then.

    Raises:
        ValueError: a column is missing, actions are of the other kind, or observations are not vectors.
    """
    missing = [name for name in COLUMNS if name not in rows[0]]
    if missing:
        raise ValueError(f'rows of the dataset have no {missing}; they have {sorted(rows[0])}')
    stacked = {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in COLUMNS}
    if stacked['action'].is_floating_point() == discrete:
        found, wanted = ('continuous', 'discrete') if discrete else ('discrete', 'continuous')
        raise ValueError(
            f"action has dtype {stacked['action'].dtype}: actions are {found}, and the model's are {wanted}"
        )
    if discrete:
        stacked['action'] = stacked['action'].reshape(len(rows), 1)
    for name in ('obs', 'action', 'next_obs'):
        if stacked[name].dim() != 2:
            raise ValueError(
                f'{name} of a row has shape {tuple(stacked[name].shape[1:])}; only vectors are supported, not images'
            )
    size = len(rows)
    return {
        'obs': stacked['obs'].float(),
        'action': stacked['action'].float(),
        'reward': stacked['reward'].float().reshape(size),
        'next_obs': stacked['next_obs'].float(),
        'done': stacked['done'].reshape(size) > 0,
    }

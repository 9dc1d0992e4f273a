"""AdvantagePriorityBuffer: uniform and prioritized draws over columns."""
from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from ding.utils import BUFFER_REGISTRY
from ding.worker.replay_buffer import IBuffer
from easydict import EasyDict
from torch import Tensor

from ding_cawr.sum_tree import SumTree

COLUMNS = ('obs', 'action', 'reward', 'next_obs', 'done')


class Sample(NamedTuple):
    """Rows (n,) that were drawn and their columns, each (n, ...)."""
    indices: Tensor
    batch: dict[str, Tensor]


@BUFFER_REGISTRY.register('advantage_priority')
class AdvantagePriorityBuffer(IBuffer):
    """
    Overview:
        Draws over columns, uniform or with probability p_i^exponent / Σ p^exponent. It either shares the columns of a \
        dataset (``attach``, nothing is copied) or holds rows pushed to it, at most ``replay_buffer_size``, oldest out \
        first. All p_i start equal. It owns its random generator, so its draws can be resumed exactly.
    Interfaces:
        ``attach``, ``push``, ``sample_uniform``, ``sample_prioritized``, ``update_priority``, and IBuffer's
    """

    config = dict(
        type='advantage_priority',
        # (int) Most rows that pushing keeps.
        replay_buffer_size=1000000,
        # (float) Exponent on the priority: 1.0 is the paper's text, 0.6 its released code.
        exponent=1.0,
        # (int) Seed of the draws.
        seed=0,
        # (str) Device of the columns, the priorities and the draws.
        device='cpu',
    )

    def __init__(self, cfg: Mapping, tb_logger=None, exp_name: str = 'buffer', instance_name: str = 'buffer') -> None:
        """
        Overview:
            An empty buffer.
        Arguments:
            - cfg (:obj:`Mapping`): Keys of ``config``; what is missing has its default.
            - tb_logger, exp_name, instance_name: What DI-engine passes to every buffer; not used.
        """
        cfg = {**self.config, **cfg}
        if cfg['replay_buffer_size'] < 1:
            raise ValueError(f"replay_buffer_size is {cfg['replay_buffer_size']}; allowed is 1 or more")
        if not cfg['exponent'] >= 0:
            raise ValueError(f"the priority's exponent is {cfg['exponent']}; allowed is 0 or more")
        self._capacity, self._exponent = int(cfg['replay_buffer_size']), float(cfg['exponent'])
        self._device = torch.device(cfg['device'])
        self._generator = torch.Generator(self._device).manual_seed(cfg['seed'])
        self.clear()

    @classmethod
    def default_config(cls) -> EasyDict:
        cfg = EasyDict(copy.deepcopy(cls.config))
        cfg.cfg_type = cls.__name__ + 'Dict'
        return cfg

    def attach(self, columns: Mapping[str, Tensor]) -> None:
        """
        Overview:
            Share the columns of a dataset, which pushing cannot change afterwards.
        Arguments:
            - columns (:obj:`Mapping[str, Tensor]`): obs (N, O), action (N, A), reward (N,), next_obs (N, O), done (N,).
        """
        self._columns = {name: columns[name].to(self._device) for name in COLUMNS}
        self._count = len(self._columns['reward'])
        self._attached = True
        self._tree = SumTree(self._count, self._device)
        self._tree.set(torch.arange(self._count, device=self._device), torch.ones(self._count, device=self._device))

    def push(self, data: list[dict] | Mapping[str, Tensor], cur_collector_envstep: int = -1) -> None:
        """
        Overview:
            Add rows. A new row gets the mean of the priorities so far, so it counts like its neighbours.
        Arguments:
            - data: DI-engine's list of dicts, one a row, or columns (B, ...).
            - cur_collector_envstep (:obj:`int`): Not used.
        """
        if self._attached:
            raise RuntimeError('this buffer shares the columns of a dataset; rows cannot be pushed into it')
        if len(data) == 0:
            return
        rows = stack_rows(data) if isinstance(data, (list, tuple)) else data
        rows = {name: rows[name][-self._capacity:].to(self._device) for name in COLUMNS}
        size = len(rows['reward'])
        if self._columns is None:
            # Memory is taken as rows fill it, not before.
            self._columns = {
                name: torch.empty(self._capacity, *column.shape[1:], dtype=column.dtype, device=self._device)
                for name, column in rows.items()
            }
            self._tree = SumTree(self._capacity, self._device)
        mean = self._tree.total / self._count if self._count else torch.ones((), device=self._device)
        indices = (self._next + torch.arange(size, device=self._device)) % self._capacity
        for name, column in rows.items():
            self._columns[name][indices] = column
        self._tree.set(indices, mean.expand(size))
        self._next = (self._next + size) % self._capacity
        self._count = min(self._count + size, self._capacity)

    def sample_uniform(self, size: int) -> Sample:
        """
        Overview:
            Draw with replacement, every row alike.
        Arguments:
            - size (:obj:`int`): Rows n to draw; may exceed the buffer's.
        Returns:
            - sample (:obj:`Sample`): Indices (n,) and columns (n, ...).
        """
        self._check_not_empty()
        return self._gather(torch.randint(self._count, (size, ), device=self._device, generator=self._generator))

    def sample_prioritized(self, size: int) -> Sample:
        """
        Overview:
            Draw with replacement, row i with probability p_i^exponent / Σ p^exponent.
        Arguments:
            - size (:obj:`int`): Rows n to draw; may exceed the buffer's.
        Returns:
            - sample (:obj:`Sample`): Indices (n,) and columns (n, ...).
        """
        self._check_not_empty()
        return self._gather(self._tree.draw(size, self._generator))

    def update_priority(self, indices: Tensor, priority: Tensor) -> None:
        """
        Overview:
            Set priorities.
        Arguments:
            - indices (:obj:`Tensor`): Rows (B,). A row that comes twice must come with the same priority.
            - priority (:obj:`Tensor`): Positive and finite, (B,).
        Raises:
            - ValueError: A value that is not; looked for on the CPU only, since a GPU would have to wait for it.
        """
        weights = priority.double()
        if self._device.type == 'cpu':
            low, high = (bound.item() for bound in priority.aminmax())
            if not 0 < low <= high < math.inf:
                wrong = high if low > 0 else low
                raise ValueError(f'a priority is {wrong}; allowed are positive finite numbers. Has training diverged?')
        else:  # a sum that is not finite would send draws out of bounds before the policy can name what went wrong
            weights = weights.nan_to_num(nan=1.0, posinf=1.0)
        self._tree.set(indices, weights if self._exponent == 1 else weights**self._exponent)

    def set_priorities(self, priority: Tensor) -> None:
        """
        Overview:
            Set the priorities of all rows.
        Arguments:
            - priority (:obj:`Tensor`): Positive and finite, (N,).
        """
        self.update_priority(torch.arange(self._count, device=self._device), priority)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The rows: obs (N, O), action (N, A), reward (N,), next_obs (N, O), done (N,)."""
        return {name: column[:self._count] for name, column in self._columns.items()}

    @property
    def priority(self) -> Tensor:
        """Priorities raised to the exponent (N,), float64: what draws are proportional to."""
        return self._tree.weights[:self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of the columns and of what the draws need beside them."""
        return sum(column.nbytes for column in self._columns.values()) + self._tree.nbytes

    def _gather(self, indices: Tensor) -> Sample:
        return Sample(indices, {name: column.index_select(0, indices) for name, column in self._columns.items()})

    def _check_not_empty(self) -> None:
        if self._count == 0:
            raise RuntimeError('the buffer is empty; attach columns or push rows before drawing from it')

    def sample(self, size: int, cur_learner_iter: int = -1) -> list[dict]:
        """
        Overview:
            IBuffer's draw: prioritized, as DI-engine's list of dicts with ``replay_buffer_idx``.
        Arguments:
            - size (:obj:`int`): Rows to draw.
            - cur_learner_iter (:obj:`int`): Not used.
        """
        indices, batch = self.sample_prioritized(size)
        return [
            {**{name: column[i] for name, column in batch.items()}, 'replay_buffer_idx': index}
            for i, index in enumerate(indices.tolist())
        ]

    def update(self, info: Mapping[str, list]) -> None:
        """
        Overview:
            IBuffer's update of priorities.
        Arguments:
            - info (:obj:`Mapping[str, list]`): ``replay_buffer_idx`` and ``priority``, one entry a row.
        """
        indices = torch.as_tensor(info['replay_buffer_idx'], device=self._device)
        self.update_priority(indices, torch.as_tensor(info['priority'], device=self._device))

    def clear(self) -> None:
        """Forget all rows and priorities."""
        self._columns, self._tree, self._attached = None, None, False
        self._count = self._next = 0

    def count(self) -> int:
        """Number of rows."""
        return self._count

    def state_dict(self) -> dict[str, Any]:
        """
        Overview:
            Priorities, of attached columns only (pushed rows come again from the loader), and the random generator.
        """
        return {
            'priority': self.priority.clone() if self._attached else None,
            'generator': self._generator.get_state(),
        }

    def load_state_dict(self, _state_dict: Mapping[str, Any]) -> None:
        """
        Overview:
            Inverse of ``state_dict``, after the same columns were attached.
        """
        priority = _state_dict['priority']
        if priority is not None:
            if len(priority) != self._count:
                raise ValueError(
                    f'the checkpoint has priorities of {len(priority)} transitions, but the dataset has {self._count}; '
                    'continue on the dataset that the checkpoint was trained on'
                )
            self._tree.set(torch.arange(self._count, device=self._device), priority.to(self._device))
        self._generator.set_state(_state_dict['generator'].cpu())

    def save_data(self, file_name: str) -> None:
        """Write the rows to a .npz file that ``load_data`` and ``load_transitions`` read."""
        if self._count == 0:
            raise RuntimeError(f'the buffer is empty; nothing to write to {file_name}')
        np.savez(file_name, **{name: column[:self._count].cpu().numpy() for name, column in self._columns.items()})

    def load_data(self, file_name: str) -> None:
        """Push the rows that ``save_data`` wrote."""
        with np.load(file_name, allow_pickle=False) as archive:
            self.push({name: torch.from_numpy(archive[name]) for name in COLUMNS})


def stack_rows(rows: list[dict]) -> dict[str, Tensor]:
    """DI-engine's list of B dicts as columns: obs (B, O), action (B, A), reward (B,), next_obs (B, O), done (B,).

    Raises:
        ValueError: a column is missing, or is not continuous actions and vector observations.
    """
    missing = [name for name in COLUMNS if name not in rows[0]]
    if missing:
        raise ValueError(f'rows of the dataset have no {missing}; they have {sorted(rows[0])}')
    stacked = {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in COLUMNS}
    if not stacked['action'].is_floating_point():
        raise ValueError(f"action has dtype {stacked['action'].dtype}: discrete actions are not supported")
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

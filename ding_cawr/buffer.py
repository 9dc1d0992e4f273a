"""AdvantagePriorityBuffer: uniform and prioritized draws over rows."""
from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ding.utils import BUFFER_REGISTRY
from ding.worker.replay_buffer import IBuffer
from easydict import EasyDict
from torch import Tensor

from ding_cawr.data.table import COLUMNS, LAYOUT, Table
from ding_cawr.files import unfinished
from ding_cawr.state import is_dense
from ding_cawr.sum_tree import SumTree


class Sample(NamedTuple):
    """A draw.

    Attributes:
        indices: (n,), the numbers of the rows that were drawn; (R, n) where R replicas draw.
        table: the rows themselves (n, W) or (R, n, W), or of them the part that was wanted.
    """
    indices: Tensor
    table: Table

    @property
    def batch(self) -> dict[str, Tensor]:
        """The columns (n, ...) or (R, n, ...) by name."""
        return self.table.columns


@BUFFER_REGISTRY.register('advantage_priority')
class AdvantagePriorityBuffer(IBuffer):
    """
    Overview:
        Draws over transitions, uniform or with probability p_i^exponent / Σ p^exponent. It either shares the rows of \
        a dataset (``attach``) or holds rows pushed to it, at most ``replay_buffer_size``, oldest out first. All p_i \
        start equal. It owns its random generators, so its draws can be resumed exactly.

        With a list of R seeds it draws for R replicas at once, over the same rows. Each replica has its own \
        priorities and draws exactly as a buffer with its seed alone would. Indices, batches and priorities then have \
        a leading R.

        On a GPU, draws and ``update_priority`` over attached rows never wait for the device and change their state in \
        place, so that a CUDA graph can hold them; it has to register ``generators``.
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
        self._on_cpu = self._device.type == 'cpu'
        self._is_single = not isinstance(cfg['seed'], (list, tuple))
        seeds = [cfg['seed']] if self._is_single else cfg['seed']
        if not seeds:
            raise ValueError('seed is an empty list; allowed are an int and a list of ints, one for each replica')
        self._generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]
        self.clear()

    @classmethod
    def default_config(cls) -> EasyDict:
        cfg = EasyDict(copy.deepcopy(cls.config))
        cfg.cfg_type = cls.__name__ + 'Dict'
        return cfg

    def attach(self, table: Table) -> None:
        """
        Overview:
            Share the rows of a dataset, which pushing cannot change afterwards. They are copied only to another device.
        Arguments:
            - table (:obj:`Table`): Rows (N, W), such as ``Transitions.table``.
        """
        self._hold(Table(torch.as_tensor(table.rows, device=self._device), table.obs_shape))
        self._count, self._attached = len(table), True
        self._tree.fill(torch.ones(1, 1, device=self._device).expand(-1, self._count))

    def _hold(self, table: Table) -> None:
        self._table, self._tree = table, SumTree(len(table), self._device, trees=len(self._generators))

    def push(self, data: list[dict] | Mapping[str, Tensor], cur_collector_envstep: int = -1) -> None:
        """
        Overview:
            Add rows. A new row gets the mean of the priorities so far, so it counts like its neighbours.
        Arguments:
            - data: DI-engine's list of dicts, one a row, or columns (B, ...).
            - cur_collector_envstep (:obj:`int`): Not used.
        """
        if self._attached:
            raise RuntimeError('this buffer shares the rows of a dataset; rows cannot be pushed into it')
        if not self._is_single:
            raise RuntimeError(
                f'this buffer has {len(self._generators)} seeds, and replicas share the rows of a dataset; give it a '
                'single seed to push rows'
            )
        if len(data) == 0:
            return
        columns = stack_rows(data) if isinstance(data, (list, tuple)) else data
        rows = join_columns({name: columns[name][-self._capacity:].to(self._device) for name in COLUMNS}).rows
        if self._table is None:
            # Memory is taken as rows fill it, not before.
            self._hold(Table(rows.new_empty(self._capacity, rows.shape[1]), columns['obs'].shape[1]))
        mean = self._tree.total / self._count if self._count else torch.ones(1, device=self._device)
        indices = (self._next + torch.arange(len(rows), device=self._device)) % self._capacity
        self._table.rows[indices] = rows.to(self._table.rows.dtype)
        self._tree.set(indices.unsqueeze(0), mean.expand(1, len(rows)))
        self._next = (self._next + len(rows)) % self._capacity
        self._count = min(self._count + len(rows), self._capacity)

    def sample_uniform(self, size: int, part: slice = slice(None)) -> Sample:
        """
        Overview:
            Draw with replacement, every row alike.
        Arguments:
            - size (:obj:`int`): Rows n to draw; may exceed the buffer's.
            - part (:obj:`slice`): Of the rows drawn, those whose columns are wanted.
        Returns:
            - sample (:obj:`Sample`): Indices (n,) and columns (n, ...), with a leading R for replicas.
        """
        self._check_not_empty()
        drawn = [
            torch.randint(self._count, (size, ), device=self._device, generator=generator)
            for generator in self._generators
        ]
        return self._gather(torch.stack(drawn) if len(drawn) > 1 else drawn[0].unsqueeze(0), part)

    def sample_prioritized(self, size: int, part: slice = slice(None)) -> Sample:
        """
        Overview:
            Draw with replacement, row i with probability p_i^exponent / Σ p^exponent.
        Arguments:
            - size (:obj:`int`): Rows n to draw; may exceed the buffer's.
            - part (:obj:`slice`): Of the rows drawn, those whose columns are wanted.
        Returns:
            - sample (:obj:`Sample`): Indices (n,) and columns (n, ...), with a leading R for replicas.
        """
        self._check_not_empty()
        return self._gather(self._tree.draw(size, self._generators), part)

    def update_priority(self, indices: Tensor, priority: Tensor) -> None:
        """
        Overview:
            Set priorities.
        Arguments:
            - indices (:obj:`Tensor`): Rows (B,), for replicas (R, B). A row that comes twice must come with the same \
                priority.
            - priority (:obj:`Tensor`): Positive and finite, (B,), for replicas (R, B).
        Raises:
            - ValueError: A value that is not; looked for on the CPU only, since a GPU would have to wait for it.
        """
        self._tree.set(indices.unsqueeze(0) if self._is_single else indices, self._weights(priority))

    def set_priorities(self, priority: Tensor) -> None:
        """
        Overview:
            Set the priorities of all rows.
        Arguments:
            - priority (:obj:`Tensor`): Positive and finite, (N,), for replicas (R, N).
        """
        self._tree.fill(self._weights(priority))

    def _weights(self, priority: Tensor) -> Tensor:
        """What draws are proportional to, (R, ...) in float64, of priorities (R, ...), or (...) of a single seed."""
        if self._on_cpu:
            low, high = (bound.item() for bound in priority.aminmax())
            if not 0 < low <= high < math.inf:
                wrong = high if low > 0 else low
                raise ValueError(f'a priority is {wrong}; allowed are positive finite numbers. Has training diverged?')
        weights = priority.double()
        if self._exponent != 1:
            weights = weights**self._exponent
        if not self._on_cpu:
            # A sum that is not finite would send draws out of bounds before the policy can name what went wrong.
            weights = weights.nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        return weights.unsqueeze(0) if self._is_single else weights

    @property
    def columns(self) -> dict[str, Tensor]:
        """The rows: obs (N, O), action (N, A), reward (N,), next_obs (N, O), done (N,), views of one matrix."""
        return {name: column[:self._count] for name, column in self._table.columns.items()}

    @property
    def priority(self) -> Tensor:
        """Priorities raised to the exponent, float64, (N,), for replicas (R, N): what draws are proportional to."""
        weights = self._tree.weights[:, :self._count]
        return weights[0] if self._is_single else weights

    @property
    def generators(self) -> list[torch.Generator]:
        """The random generators, one for each seed."""
        return self._generators

    def tensors(self) -> list[Tensor]:
        """What ``update_priority`` changes, in place; draws from attached rows change nothing but ``generators``."""
        return self._tree.levels

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of what the draws need beside them."""
        return self._table.rows.nbytes + self._tree.nbytes

    def _gather(self, indices: Tensor, part: slice) -> Sample:
        wanted = indices[:, part]
        rows = self._table.rows.index_select(0, wanted.reshape(-1))
        if self._is_single:
            return Sample(indices[0], Table(rows, self._table.obs_shape))
        return Sample(indices, Table(rows.view(*wanted.shape, -1), self._table.obs_shape))

    def _check_not_empty(self) -> None:
        if self._count == 0:
            raise RuntimeError('the buffer is empty; attach columns or push rows before drawing from it')

    def sample(self, size: int, cur_learner_iter: int = -1) -> list[dict]:
        """
        Overview:
            IBuffer's draw: prioritized, as DI-engine's list of dicts with ``replay_buffer_idx``. Of a single seed only.
        Arguments:
            - size (:obj:`int`): Rows to draw.
            - cur_learner_iter (:obj:`int`): Not used.
        """
        if not self._is_single:
            raise RuntimeError(
                f'this buffer has {len(self._generators)} seeds; give it a single seed to draw lists of rows, or draw '
                'with sample_prioritized'
            )
        drawn = self.sample_prioritized(size)
        return [
            {**{name: column[i] for name, column in drawn.batch.items()}, 'replay_buffer_idx': index}
            for i, index in enumerate(drawn.indices.tolist())
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
        self._table, self._tree, self._attached = None, None, False
        self._count = self._next = 0

    def count(self) -> int:
        """Number of rows."""
        return self._count

    def state_dict(self) -> dict[str, Any]:
        """
        Overview:
            Priorities, of attached rows only (pushed rows come again from the loader), and the random generator; for \
            replicas the list of their states.
        """
        states = [self.replica_state(replica) for replica in range(len(self._generators))]
        return states[0] if self._is_single else {'replicas': states}

    def replica_state(self, replica: int) -> dict[str, Any]:
        """
        Overview:
            What ``state_dict`` of a buffer with this replica's seed alone would give: a replica continues as a single \
            run.
        Arguments:
            - replica (:obj:`int`): Number of the replica, from 0.
        """
        return {
            'priority': self._tree.weights[replica].clone() if self._attached else None,
            'generator': self._generators[replica].get_state(),
        }

    def load_state_dict(self, _state_dict: Mapping[str, Any]) -> None:
        """
        Overview:
            Inverse of ``state_dict``, after the same rows were attached.
        Raises:
            - ValueError: The state is that of another dataset or of another number of replicas.
        """
        states = _state_dict.get('replicas', [_state_dict])
        if not isinstance(states, list) or not all(
            isinstance(state, dict) and {'priority', 'generator'} <= state.keys() for state in states
        ):
            raise ValueError("the checkpoint's buffer has no priority or no generator; take another checkpoint")
        if self._is_single == ('replicas' in _state_dict) or len(states) != len(self._generators):
            kind = f'{len(states)} replicas' if 'replicas' in _state_dict else 'a single run'
            own = 'a single seed' if self._is_single else f'a list of {len(self._generators)} seeds'
            raise ValueError(f'the checkpoint is that of {kind}, but the buffer has {own}; they must agree')
        priorities = [state['priority'] for state in states if state['priority'] is not None]
        if priorities and not self._attached:
            raise ValueError(
                'the checkpoint has the priorities of a whole dataset, but here rows are pushed; continue it with '
                "data_type 'offline_transitions'"
            )
        for priority in priorities:
            is_whole = isinstance(priority, Tensor) and is_dense(priority)
            if is_whole and priority.shape != (self._count, ):
                raise ValueError(
                    f'the checkpoint has priorities of {priority.numel()} transitions, but the dataset has '
                    f'{self._count}; continue on the dataset that the checkpoint was trained on'
                )
            if not is_whole or not 0 < priority.min() <= priority.max() < math.inf:
                raise ValueError("the checkpoint's priorities are no finite positive numbers; take another checkpoint")
        for generator, state in zip(self._generators, states):
            try:
                generator.set_state(state['generator'].cpu())
            except (RuntimeError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"the checkpoint's random state is none of a generator on {self._device.type}; continue on the "
                    f'kind of device that it was trained on ({error})'
                ) from None
        if priorities:
            self._tree.fill(torch.stack([priority.to(self._device) for priority in priorities]))

    def save_data(self, file_name: str) -> None:
        """Write the rows to a .npz file that ``load_data`` and ``load_transitions`` read."""
        if self._count == 0:
            raise RuntimeError(f'the buffer is empty; nothing to write to {file_name}')
        path = Path(file_name)
        with unfinished(path if path.suffix == '.npz' else path.with_name(f'{path.name}.npz')) as temporary:
            np.savez(temporary, **{name: column.cpu().numpy() for name, column in self.columns.items()})

    def load_data(self, file_name: str) -> None:
        """Push the rows that ``save_data`` wrote."""
        with np.load(file_name, allow_pickle=False) as archive:
            self.push({name: torch.from_numpy(archive[name]) for name in COLUMNS})


def join_columns(columns: Mapping[str, Tensor]) -> Table:
    """Return the table (N, W) of columns obs (N, O), action (N, A), reward (N,), next_obs (N, O), done (N,), copied."""
    parts = [columns[name] if columns[name].dim() == 2 else columns[name][:, None] for name in LAYOUT]
    return Table(torch.cat(parts, dim=1), columns['obs'].shape[1])


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

"""Rows of transitions, and uniform and prioritized draws over them."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ding_cawr.checks import POSITIVE, POSITIVE_INT, Bound, plain
from ding_cawr.data.sum_tree import SumTree
from ding_cawr.data.table import COLUMNS, LAYOUT, Table
from ding_cawr.runs.state import check_tree, shape_of


class Sample(NamedTuple):
    """A draw.

    Attributes:
        indices: (n,), the indices of the rows that were drawn; (R, n) where R replicas draw.
        batch: the rows themselves, a table (n, W) or (R, n, W).
    """
    indices: Tensor
    batch: Table


class PriorityBuffer:
    """Draws over transitions, uniform or with probability p_i^exponent / Σ p^exponent.

    The buffer either shares the rows of a dataset (``attach``) or holds rows pushed to it, oldest out first. All p_i
    start equal. It owns its random generators, so its draws can be resumed exactly. Rows of a dataset may have weights,
    which prioritized draws then go by, with probability p_i^exponent w_i / Σ p^exponent w, and uniform ones where
    ``attach`` says so, with w_i / Σ w.

    With R seeds it draws for R replicas at once, over the same rows. Each replica has its own priorities and draws
    exactly as a buffer with its seed alone would. Indices, batches and priorities then have a leading R.

    On a GPU, draws and ``update_priority`` over attached rows never wait for the device and change their state in
    place, so that a CUDA graph can hold them; it has to register ``generators``.

    Arguments:
        capacity: number of pushed rows that are kept.
        exponent: exponent on the priority.
        seed: an int, or a list with one for each replica.
        device: where rows, priorities and draws are.

    Raises:
        ValueError: a capacity below 1, an exponent below 0, or an empty list of seeds.
    """
    #: Bounds of what ``replica_state`` gives, by name.
    STATE_BOUNDS = {'mass': POSITIVE, 'generator': None}

    def __init__(
        self, capacity: int = 1_000_000, exponent: float = 1.0, seed: int | Sequence[int] = 0,
        device: torch.device | str = 'cpu'
    ) -> None:
        self._capacity = POSITIVE_INT.check('replay_buffer_size', capacity)
        self._exponent = float(Bound(0).check("the priority's exponent", exponent))
        self._device = torch.device(device)
        self._on_cpu = self._device.type == 'cpu'
        seed = plain(seed)
        self._is_single = not isinstance(seed, (list, tuple))
        seeds = [seed] if self._is_single else seed
        if not seeds:
            raise ValueError('seed is an empty list; it must be an int, or a list of ints, one for each replica')
        seeds = [Bound(whole=True).check('seed', each) for each in seeds]
        #: The random generators, one for each seed.
        self.generators = [torch.Generator(self._device).manual_seed(each) for each in seeds]
        self.clear()

    def attach(self, table: Table, weight: Tensor | None = None, weighs_uniform: bool = True) -> None:
        """Share the rows of a dataset, such as ``Transitions.table``; they are copied only to another device.

        Arguments:
            table: N rows.
            weight: positive, (N,) in float64 on the CPU; None where all rows count alike.
            weighs_uniform: whether uniform draws go by the weights, too.
        """
        rows, ends, advantage = (
            None if each is None else torch.as_tensor(each, device=self._device)
            for each in (table.rows, table.ends, table.advantage)
        )
        self._hold(Table(rows, table.obs_shape, ends, advantage))
        self._count, self._attached = len(table), True
        self._row_weight = None if weight is None else weight.to(self._device)
        # Summed on the CPU, since a GPU's sums differ in their rounding from run to run.
        self._weight_sums = weight.cumsum(0).to(self._device) if weight is not None and weighs_uniform else None
        masses = torch.ones(1, device=self._device).expand(self._count) if weight is None else self._row_weight
        self._tree.fill(masses.unsqueeze(0))

    def replace(self, table: Table) -> None:
        """Replace the rows, for example by a ``TrajectoryRing``'s. As of pushed rows, a state has none of them."""
        self.attach(table)
        self._attached = False

    def _hold(self, table: Table) -> None:
        self._held, self._tree = table, SumTree(len(table), self._device, trees=len(self.generators))

    def push_columns(self, columns: Mapping[str, Tensor]) -> None:
        """Add rows, given as columns (B, ...). A new row gets the mean of the priorities so far.

        Raises:
            RuntimeError: the buffer shares a dataset's rows, or has several seeds.
            ValueError: their widths differ from those of the rows before.
        """
        if self._attached:
            raise RuntimeError('this buffer shares the rows of a dataset; rows cannot be pushed into it')
        if not self._is_single:
            raise RuntimeError(
                f'this buffer has {len(self.generators)} seeds, and replicas share the rows of a dataset; give it a '
                'single seed to push rows'
            )
        added = join_columns({name: columns[name][-self._capacity:].to(self._device) for name in COLUMNS})
        rows = added.rows
        if self._held is None:
            # Memory is taken as rows fill it, not before.
            self._hold(Table(rows.new_empty(self._capacity, rows.shape[1]), added.obs_shape))
        here, new = ((each.obs_shape, each.rows.shape[1]) for each in (self._held, added))
        if here != new:
            raise ValueError(
                f'pushed rows have observations {new[0]} wide, {new[1]} numbers in all, and those of the buffer '
                f'{here[0]}, {here[1]}; they must be of one environment'
            )
        mean = self._tree.total / self._count if self._count else torch.ones(1, device=self._device)
        indices = (self._next + torch.arange(len(rows), device=self._device)) % self._capacity
        self._held.rows[indices] = rows.to(self._held.rows.dtype)
        self._tree.set(indices.unsqueeze(0), mean.expand(1, len(rows)))
        self._next = (self._next + len(rows)) % self._capacity
        self._count = min(self._count + len(rows), self._capacity)

    def sample_uniform(self, size: int) -> Sample:
        """
        Overview:
            Draw with replacement, every row alike, or by its weight where ``attach`` says so.
        Arguments:
            - size (:obj:`int`): Rows n to draw; may exceed the buffer's.
        Returns:
            - sample (:obj:`Sample`): Indices (n,) and rows (n, W), with a leading R for replicas.
        """
        self._check_not_empty()
        drawn = [self._uniform(size, generator) for generator in self.generators]
        return self._gather(torch.stack(drawn) if len(drawn) > 1 else drawn[0].unsqueeze(0))

    def sample_prioritized(self, size: int) -> Sample:
        """
        Overview:
            Draw with replacement, row i with probability p_i^exponent / Σ p^exponent, times its weight.
        Arguments:
            - size (:obj:`int`): Rows n to draw; may exceed the buffer's.
        Returns:
            - sample (:obj:`Sample`): Indices (n,) and rows (n, W), with a leading R for replicas.
        """
        self._check_not_empty()
        return self._gather(self._tree.draw(size, self.generators))

    def draw(self, kind: str, size: int) -> Sample:
        """
        Overview:
            Draw in one of the two ways.
        Arguments:
            - kind (:obj:`str`): 'uniform' or 'prioritized'.
            - size (:obj:`int`): Rows n to draw.
        """
        return {'uniform': self.sample_uniform, 'prioritized': self.sample_prioritized}[kind](size)

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
        weight = None if self._row_weight is None else self._row_weight[indices]
        self._tree.set(indices.unsqueeze(0) if self._is_single else indices, self._masses(priority, weight))

    def set_priorities(self, priority: Tensor) -> None:
        """
        Overview:
            Set the priorities of all rows.
        Arguments:
            - priority (:obj:`Tensor`): Positive and finite, (N,), for replicas (R, N).
        """
        self._tree.fill(self._masses(priority, self._row_weight))

    def _masses(self, priority: Tensor, weight: Tensor | None) -> Tensor:
        """Return the masses of draws (R, ...) in float64, from priorities (R, ...), or (...) of a single seed, and
        weights of their rows."""
        if self._on_cpu:
            low, high = (bound.item() for bound in priority.aminmax())
            if not 0 < low <= high < math.inf:
                wrong = high if low > 0 else low
                raise ValueError(f'a priority is {wrong}; it must be a positive finite number. Has training diverged?')
        masses = priority.double()
        if self._exponent != 1:
            masses = masses**self._exponent
        if not self._on_cpu:
            # A sum that is not finite would send draws out of bounds before the policy can name what went wrong.
            masses = masses.nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        masses = masses if weight is None else masses * weight
        return masses.unsqueeze(0) if self._is_single else masses

    @property
    def table(self) -> Table:
        """The rows (N, W), with the ends of their trajectories and the advantages where rows of a dataset have them."""
        held = self._held
        return Table(held.rows[:self._count], held.obs_shape, held.ends, held.advantage)

    @property
    def mass(self) -> Tensor:
        """Unnormalized probabilities of the draws: priorities raised to the exponent times the weights, float64, (N,),
        for replicas (R, N)."""
        masses = self._tree.masses[:, :self._count]
        return masses[0] if self._is_single else masses

    def tensors(self) -> list[Tensor]:
        """Return the tensors that ``update_priority`` changes in place; draws of attached rows change ``generators``
        alone."""
        return self._tree.levels

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of what the draws need beside them."""
        weights = [each for each in (self._row_weight, self._weight_sums) if each is not None]
        return self._held.rows.nbytes + self._tree.nbytes + sum(each.nbytes for each in weights)

    def _uniform(self, size: int, generator: torch.Generator) -> Tensor:
        """Return indices (n,) of rows for one seed, all alike or by weight."""
        if self._weight_sums is None:
            return torch.randint(self._count, (size, ), device=self._device, generator=generator)
        uniform = torch.rand(size, dtype=torch.float64, device=self._device, generator=generator)
        # Below the sum, whatever the rounding.
        return torch.searchsorted(self._weight_sums, uniform * (1 - 1e-12) * self._weight_sums[-1], right=True)

    def _gather(self, indices: Tensor) -> Sample:
        rows = self._held.rows.index_select(0, indices.reshape(-1))
        if self._is_single:
            return Sample(indices[0], Table(rows, self._held.obs_shape))
        return Sample(indices, Table(rows.view(*indices.shape, -1), self._held.obs_shape))

    def _check_not_empty(self) -> None:
        if self._count == 0:
            raise RuntimeError('the buffer is empty; attach columns or push rows before drawing from it')

    def clear(self) -> None:
        """Forget all rows and priorities."""
        self._held, self._tree, self._attached = None, None, False
        self._row_weight = self._weight_sums = None
        self._count = self._next = 0

    def count(self) -> int:
        """Return the number of rows."""
        return self._count

    def replica_state(self, replica: int = 0) -> dict[str, Any]:
        """Return what one replica's draws go on from: a replica continues as a single run.

        Returns:
            'mass' (N,), a copy, None where rows were pushed, since the loader brings them again; 'generator'.
        """
        return {
            'mass': self._tree.masses[replica].clone() if self._attached else None,
            'generator': self.generators[replica].get_state(),
        }

    def check_state(self, state: Any) -> None:
        """Compare one replica's state with what can go on here.

        Raises:
            ValueError: it is of other rows, of another kind of device, or damaged.
        """
        mass = state.get('mass') if isinstance(state, dict) else None
        if mass is not None and not self._attached:
            raise ValueError(
                'the checkpoint has the priorities of a whole dataset, but here rows are pushed; continue it with '
                "data_type 'offline_transitions', or give it as learn.load_path where the policy collects"
            )
        wanted = self.replica_state()
        generator = shape_of(state.get('generator') if isinstance(state, dict) else None)
        if generator not in ('missing', tuple(wanted['generator'].shape)):
            raise self._other_generator('')
        if mass is None:  # of pushed rows: those of a dataset begin alike
            wanted['mass'] = None
        check_tree(state, wanted, 'the checkpoint: buffer', self.STATE_BOUNDS)

    def load_replica_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from the state of each replica, after the same rows were attached.

        Raises:
            ValueError: a random state is not that of a generator on this device.
        """
        for generator, state in zip(self.generators, states):
            try:
                generator.set_state(state['generator'].cpu())
            except (RuntimeError, TypeError, AttributeError) as error:
                raise self._other_generator(f' ({error})') from None
        if self._attached and states[0]['mass'] is not None:
            self._tree.fill(torch.stack([state['mass'].to(self._device) for state in states]))

    def _other_generator(self, why: str) -> ValueError:
        return ValueError(
            f"the checkpoint's random state is not that of a generator on {self._device.type}; continue on the kind of "
            f'device that it was trained on{why}'
        )


def join_columns(columns: Mapping[str, Tensor]) -> Table:
    """Return the table (N, W) of columns obs (N, O), action (N, A), reward (N,), next_obs (N, O), done (N,), copied."""
    parts = [columns[name] if columns[name].dim() == 2 else columns[name][:, None] for name in LAYOUT]
    return Table(torch.cat(parts, dim=1), columns['obs'].shape[1])

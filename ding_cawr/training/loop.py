"""Iterations over a buffer: draws, step, priorities. One run's, or those of several replicas at once."""
from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ding_cawr.advantage import effective_sample_size
from ding_cawr.algorithms.base import Algorithm, Step, Tree
from ding_cawr.checks import Bound
from ding_cawr.data.buffer import PriorityBuffer
from ding_cawr.data.table import Table
from ding_cawr.networks.graph import Replay
from ding_cawr.networks.lanes import lanes
from ding_cawr.networks.products import Plain
from ding_cawr.returns import episode_weights
from ding_cawr.runs.state import brief, check_tree
from ding_cawr.training.divergence import Watch, check_step, check_whole_data, diverging

_SHA256 = re.compile('[0-9a-f]{64}')


class OtherData(ValueError):
    """A checkpoint was trained on other data than these."""


class Training:
    """An algorithm and the buffer that feeds it.

    Arguments:
        algorithm: of one model, or of R.
        buffer: with one seed, or with R.
        batch_size: samples n of each draw.
        cuda_graph: on a GPU, replay the iteration as a CUDA graph.
    """

    def __init__(
        self, algorithm: Algorithm, buffer: PriorityBuffer, batch_size: int, cuda_graph: bool = False
    ) -> None:
        self.algorithm, self.buffer, self.batch_size = algorithm, buffer, batch_size
        algorithm.generators = buffer.generators
        #: Iterations done.
        self.iteration = 0
        self._round_start = 0  # the iteration that a round began at, from which its phases are counted
        #: SHA-256 of the attached rows and of what training reads beside them; None where rows are pushed.
        self.data_digest: str | None = None
        self._drawn: Tensor | None = None  # rows of the latest iteration, in the order of the draws
        self._on_gpu = algorithm.iteration.is_cuda
        self._replays = cuda_graph and self._on_gpu
        self._warned = False
        self._record()

    def attach(self, table: Table, obs_statistics: Tensor | None = None) -> None:
        """Train on the rows of a dataset: see ``PriorityBuffer.attach`` and ``Algorithm.begin``."""
        share, weight = self.algorithm.settings.best_episodes, None
        read = (getattr(table, name) for name in self.algorithm.reads)
        parts = [torch.as_tensor(each) for each in (table.rows, *read) if each is not None]
        if share is not None:
            ends = torch.as_tensor(table.ends)
            whole = None if table.whole is None else torch.as_tensor(table.whole)
            weight = episode_weights(torch.as_tensor(table['reward']), ends, share, whole)
            parts += [ends] if whole is None else [ends, whole]
        self.data_digest = digest(*parts)
        # Where the policy has a batch of its own, critics learn from all rows.
        self.buffer.attach(table, weight, weighs_uniform=len(self.algorithm.draw_kinds) == 1)
        priority = self.algorithm.begin(self.buffer.table, obs_statistics)
        if priority is not None:
            self.buffer.set_priorities(priority)
        self._record()

    def iterate(self) -> Step:
        """Do one iteration.

        Raises:
            Diverged: losses or quantities per sample are not finite. A GPU would have to be waited for; there
                ``check_finite`` says so.
        """
        algorithm = self.algorithm
        algorithm.phase = (self.iteration - self._round_start) % algorithm.period
        prepared = algorithm.prepare(self.buffer.table)
        if prepared and not self._on_gpu:  # on which the next step is looked at
            check_whole_data(prepared, self.iteration - 1)
        with lanes():
            step = self._iterates[algorithm.variant]()
        self.iteration += 1
        refresh = self.algorithm.settings.priority_refresh
        if refresh and step.priority is not None and self.iteration % refresh == 0:
            self._refresh()
        return step

    def iterate_round(self, new: Table) -> Iterator[Step]:
        """Do the iterations that are due for rows which came online, and yield the step of each.

        Arguments:
            new: those rows, which are in the buffer.
        """
        count = self.algorithm.begin_round(self.buffer.table, new)
        if count is None:
            yield self.iterate()
            return
        self._round_start = self.iteration
        for _ in range(count):
            yield self.iterate()

    def _refresh(self) -> None:
        """Renew the priorities of all rows."""
        per_sample = self.algorithm.quantities(self.buffer.table)
        if not self._on_gpu:  # on which the next step is looked at
            check_whole_data(per_sample, self.iteration - 1)
        self.buffer.set_priorities(self.algorithm.renew(per_sample))

    def _record(self) -> None:
        """Have the iteration replayed; anew when the tensors that it works on were replaced."""
        self._watch = Watch()
        #: Functions that do an iteration, one for each variant.
        self._iterates = [
            Replay(self._train, self._tensors, self.buffer.generators) if self._replays else self._train
            for _ in range(self.algorithm.variants)
        ]

    def _tensors(self) -> list[Tensor]:
        """Return all tensors that an iteration changes, once there was a first one."""
        return [*self.algorithm.tensors(), *self.buffer.tensors(), *self._watch.tensors()]

    def _train(self) -> Step:
        """Draw, step, and set priorities, on the device and without waiting for it."""
        draws = {kind: self.buffer.draw(kind, self.batch_size) for kind in self.algorithm.draw_kinds}
        self._drawn = torch.cat([sample.indices for sample in draws.values()], dim=-1)
        step = self.algorithm.step(draws)
        if self._on_gpu:
            self._watch.see(step, self._drawn, self.algorithm.iteration)
        else:
            check_step(step, self._drawn, self.algorithm.iteration, self.buffer.table)
        if step.priority is not None:
            self.buffer.update_priority(self._drawn, step.priority)
        return step

    def check_finite(self) -> None:
        """Stop a run that has diverged, if the iterations themselves, which do not wait for a GPU, have not.

        Raises:
            Diverged: names the first iteration that was not finite, however long ago.
        """
        if self.buffer.count():  # before, there was no step
            self._watch.check(self.buffer.table)

    @classmethod
    def metric_names(cls, algorithm: type[Algorithm], settings: Any) -> list[str]:
        """Return the names of what ``metrics`` gives."""
        return [*algorithm.metric_names(settings), 'priority_effective_share']

    def metrics(self, step: Step) -> dict[str, float | list[float]]:
        """Return the algorithm's quantities and how the buffer draws; waits for the device. Warn once of a |Q| that
        no policy can reach."""
        if not self._warned and (message := diverging(step, self._largest_return())):
            self._warned = True
            warnings.warn(message, stacklevel=2)
        replica_shape = self.algorithm.replica_shape
        metrics = {
            **self.algorithm.metrics(step), 'priority_effective_share': effective_sample_size(self.buffer.mass)
        }
        return {name: tensor.squeeze().expand(replica_shape).tolist() for name, tensor in metrics.items()}

    def _largest_return(self) -> float:
        left = 1 - self.algorithm.settings.discount_factor
        return self.buffer.table['reward'].abs().max().item() / left if left else math.inf

    def state_dict(self, replica: int = 0) -> dict[str, Any]:
        """Return the state of one run, or of one replica as if it were one."""
        return {
            'algorithm': self.algorithm.name, **self.algorithm.state_dict(replica), 'iteration': self.iteration,
            'buffer': self.buffer.replica_state(replica), 'data': self.data_digest,
            'products': self.algorithm.products, 'units': self.algorithm.units,
            'best_episodes': self.algorithm.settings.best_episodes,
        }

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Go on with the networks, optimizers and iteration of another run's state, whatever its data were.

        Raises:
            ValueError: the state is of another algorithm, of other shapes, or damaged.
        """
        self._check_origin({**state, 'data': None})
        self._check_parts(state, {name: part for name, part in self.algorithm.tree().items() if part != {}})
        self.algorithm.check_state(state, state['iteration'])
        self._check_units(state)
        self.algorithm.load_state_dict(state, state['iteration'])
        self.iteration = state['iteration']

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue one run from its state; nothing of it is taken before all of it was compared with this one's.

        Raises:
            RuntimeError: replicas train here.
            ValueError: the state is of another algorithm or dataset, of other shapes, or damaged.
        """
        if self.algorithm.replica_shape:
            raise RuntimeError("replicas train here; a checkpoint's state continues in a single run")
        found, here = state.get('best_episodes'), self.algorithm.settings.best_episodes
        if type(found) is not type(here) or found != here:
            raise ValueError(
                f'learn.best_episodes is {here}, but the checkpoint was trained with {brief(found)}; set it to that'
            )
        self._check_origin(state)
        self._check_parts(state, self.algorithm.tree())
        self.buffer.check_state(state.get('buffer'))
        if state.get('data') is not None and state['buffer']['mass'] is None:
            raise ValueError('the checkpoint: buffer mass is None, but it was trained on a dataset; take another one')
        self.algorithm.check_state(state, state['iteration'])
        products = state.get('products', Plain.name)
        if not isinstance(products, str):
            raise ValueError(f'the checkpoint: its products is {brief(products)}; it must be a name')
        self._check_units(state)
        self.buffer.load_replica_states([state['buffer']])  # which may refuse a random state
        if not self.algorithm.use_products(products):
            warnings.warn(
                f'the checkpoint was trained with the products of {brief(products)}, which cannot be had here; it goes '
                f'on with those of {self.algorithm.products!r}, whose results differ by rounding', stacklevel=2
            )
        self.algorithm.load_state_dict(state, state['iteration'])
        self.iteration, self._round_start = state['iteration'], 0
        self._record()

    def _check_parts(self, state: Mapping[str, Any], tree: Tree) -> None:
        """Compare a state with a tree of the algorithm, and its iteration."""
        self.algorithm.check_settings(state)
        wanted = {**tree, 'iteration': 0}
        check_tree({name: state.get(name) for name in wanted}, wanted, 'the checkpoint:', self.algorithm.STATE_BOUNDS)

    def _check_units(self, state: Mapping[str, Any]) -> None:
        """Look at the units of a state's networks, which older states do not say."""
        found, wanted = state.get('units'), self.algorithm.units
        if found is None:
            return
        fits = isinstance(found, dict) and found.keys() == wanted.keys()
        if not fits or not all(type(each) is float and each in Bound(0) for each in found.values()):
            raise ValueError(
                f'the checkpoint: its units are {brief(found)}; they must be a dict with the numbers '
                f'{", ".join(wanted)}; take another one'
            )
        self.algorithm.check_units(found)

    def _check_origin(self, state: Mapping[str, Any]) -> None:
        """Raise a ValueError for the state of another algorithm or of other data."""
        if state.get('algorithm') != self.algorithm.name:
            raise ValueError(
                f'the checkpoint is of the algorithm {brief(state.get("algorithm"))}, but the policy is '
                f'{self.algorithm.name!r}; take a checkpoint of that'
            )
        trained_on = state.get('data')  # None where rows were pushed
        if trained_on is not None and not (isinstance(trained_on, str) and _SHA256.fullmatch(trained_on)):
            raise ValueError('the checkpoint: its data is not a SHA-256; take another one')
        if None not in (trained_on, self.data_digest) and trained_on != self.data_digest:
            raise OtherData(
                f'the checkpoint was trained on other data (their hash is {trained_on}, that of these is '
                f'{self.data_digest})'
            )


def digest(*tensors: Tensor) -> str:
    """Return the SHA-256 of the tensors' values, in hexadecimal; waits for the device."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy())
    return found.hexdigest()

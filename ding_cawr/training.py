"""Iterations over a buffer: draws, update, priorities. One run's, or those of several replicas at once."""
from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import effective_sample_size
from ding_cawr.buffer import AdvantagePriorityBuffer
from ding_cawr.data.table import Table
from ding_cawr.divergence import Watch, check_judgement, check_step
from ding_cawr.graph import Replay
from ding_cawr.ranks import digest
from ding_cawr.update import Judgement, Step, Update

_SHA256 = re.compile('[0-9a-f]{64}')


class Frozen(NamedTuple):
    """What frozen critics say of the whole dataset: their judgement and the weights (N,), and the effective share."""
    judgement: Judgement
    weight: Tensor
    measured_share: float


class Training:
    """An update and the buffer that feeds it.

    Arguments:
        update: of one model, or of R; where its ranks are several, all of them do all of this at once.
        buffer: with one seed, or with R.
        batch_size: samples n of each of the two batches, those of all ranks counted.
        priority_refresh: renew the priorities of all rows every so many iterations; None: never.
        cuda_graph: on a GPU, and on one rank alone, replay the iteration as a CUDA graph.
    """

    def __init__(
        self, update: Update, buffer: AdvantagePriorityBuffer, batch_size: int, priority_refresh: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        self.update, self.buffer, self.batch_size = update, buffer, batch_size
        #: Iterations done.
        self.iteration = 0
        self.frozen: Frozen | None = None
        #: SHA-256 of the attached rows; None where rows are pushed.
        self.data_digest: str | None = None
        self._drawn: Tensor | None = None  # rows of the latest iteration, as the step's samples are ordered
        self._priority_refresh = priority_refresh
        self._on_gpu = update.iteration.is_cuda
        self._replays = cuda_graph and self._on_gpu and update.ranks.size == 1
        self._record()

    def attach(self, table: Table) -> None:
        """Train on the rows of a dataset: see ``AdvantagePriorityBuffer.attach``.

        Raises:
            RuntimeError: other ranks have other rows.
        """
        self.data_digest = digest([torch.as_tensor(table.rows)])
        self.update.ranks.check_same('the data', self.data_digest, self.update.iteration.device)
        self.buffer.attach(table)
        self._record()

    def iterate(self) -> Step:
        """One iteration.

        Raises:
            Diverged: losses or advantages are not finite; on a GPU, which would have to be waited for,
                ``check_finite`` says so.
        """
        step = self._iterate()
        self.iteration += 1
        if step.priority is not None and self._priority_refresh and self.iteration % self._priority_refresh == 0:
            self._refresh()
        return step

    def _refresh(self) -> None:
        """Priorities of all rows anew."""
        judgement = self.update.judge(self.buffer.columns)
        if not self._on_gpu:  # on which the next step is looked at
            check_judgement(judgement, self.iteration - 1)
        self.buffer.set_priorities(self.update.selection.renew(judgement.advantage).priority)

    @property
    def _share(self) -> slice:
        """Of the samples of a batch, those of this rank."""
        return self.update.ranks.share(self.batch_size)

    def _record(self) -> None:
        """Have the iteration replayed; anew when the tensors that it works on were replaced."""
        self._iterate, self._watch = self._train_policy if self.frozen else self._train_all, Watch()
        if self._replays:
            self._iterate = Replay(self._iterate, self._tensors, self.buffer.generators)

    def _tensors(self) -> list[Tensor]:
        """All that an iteration changes, once there was a first one."""
        return [*self.update.tensors(), *self.buffer.tensors(), *self._watch.tensors()]

    def _train_all(self) -> Step:
        """Critics and policy, on the device from the draws to the priorities, without waiting for it."""
        uniform = self.buffer.sample_uniform(self.batch_size, self._share)
        prioritized = self.buffer.sample_prioritized(self.batch_size, self._share)
        self._drawn = torch.cat([uniform.indices, prioritized.indices], dim=-1)
        step = self.update.step(uniform.batch, prioritized.batch)
        self._look_at(step)
        if step.priority is not None:
            self.buffer.update_priority(self._drawn, step.priority)
        return step

    def _train_policy(self) -> Step:
        """The policy alone."""
        prioritized = self.buffer.sample_prioritized(self.batch_size, self._share)
        self._drawn = prioritized.indices
        judgement = Judgement(*(column[self._drawn] for column in self.frozen.judgement))
        step = self.update.policy_step(prioritized.batch, judgement, self.frozen.weight[self._drawn])
        self._look_at(step)
        return step

    def _look_at(self, step: Step) -> None:
        """Stop at a step that is not finite, or on a GPU, which would have to be waited for, remember it."""
        if self._on_gpu:
            self._watch.see(step, self._drawn, self.update.iteration)
        else:
            check_step(step, self._drawn, self.update.iteration, self.buffer.columns)

    def freeze_critics(self, state: Mapping) -> None:
        """Take critics over from a learner's state, for one run; their judgement of the whole dataset gives, once and
        exactly, normalization, weights and priorities."""
        self.update.load_critics(state)
        selection, judgement = self.update.selection, self.update.judge(self.buffer.columns)
        weight, priority = selection.fit(judgement.advantage)
        if priority is not None:
            self.buffer.set_priorities(priority)
        share = selection.measured_share(judgement.advantage, len(weight)).item()
        self.frozen = Frozen(judgement, weight, share)
        self._record()

    def check_finite(self) -> None:
        """Stop a run that has diverged, if the iterations themselves, which do not wait for a GPU, have not.

        Raises:
            Diverged: names the first iteration that was not finite, however long ago.
        """
        self._watch.check(self.buffer.columns)

    def check_ranks(self) -> None:
        """Whether the ranks still do the same; waits for the device.

        Raises:
            RuntimeError: their networks or priorities differ.
        """
        if self.update.ranks.size > 1:
            found = digest([*self.update.networks.tensors(), self.buffer.priority])
            self.update.ranks.check_same('networks and priorities', found, self.update.iteration.device)

    def metrics(self, step: Step) -> dict[str, float | list[float]]:
        """The update's, and how the buffer draws."""
        metrics = {
            **self.update.metrics(step),
            'priority_effective_share': effective_sample_size(self.buffer.priority).tolist(),
            'cur_lr_policy': float(self.update.policy_rate),
        }
        if self.frozen:
            metrics['selection_effective_share'] = self.frozen.measured_share
        return metrics

    def state_dict(self, replica: int = 0) -> dict:
        """Of one run, or of one replica as if it were one."""
        replicated = bool(self.update.networks.lead)
        buffer = self.buffer.replica_state(replica) if replicated else self.buffer.state_dict()
        return {**self.update.state_dict(replica), 'buffer': buffer, 'data': self.data_digest}

    def load_state_dict(self, state: Mapping) -> None:
        """Continue one run from its state.

        Raises:
            RuntimeError: replicas train here.
            ValueError: the state is that of another dataset, or of other shapes.
        """
        if self.update.networks.lead:
            raise RuntimeError("replicas train here; a checkpoint's state continues in a single run")
        self._check_data(state)
        self.update.check_state(state)  # this and the buffer may refuse, so before anything else is changed
        self.buffer.load_state_dict(state['buffer'])
        self.update.load_state_dict(state)
        self.iteration = int(self.update.iteration)
        self._record()
        if state['iteration'] and not state['optimizer']['critic'] and not self.frozen:
            warnings.warn("the checkpoint's critics were frozen, so Adam begins anew for them", stacklevel=2)

    def _check_data(self, state: Mapping) -> None:
        trained_on = state.get('data')  # which older checkpoints do not have; None where rows were pushed
        if trained_on is not None and not (isinstance(trained_on, str) and _SHA256.fullmatch(trained_on)):
            raise ValueError('the checkpoint: its data is no SHA-256; take another one')
        if None not in (trained_on, self.data_digest) and trained_on != self.data_digest:
            raise ValueError(
                f'the checkpoint was trained on other data (their hash is {trained_on}, that of these is '
                f'{self.data_digest}); continue on the dataset that the checkpoint was trained on'
            )
        if trained_on is not None and state['buffer'].get('priority') is None:
            raise ValueError("the checkpoint has no priorities of the data's rows; take another one")

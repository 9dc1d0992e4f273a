"""Iterations over a buffer: draws, update, priorities. One run's, or those of several replicas at once."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import effective_sample_size
from ding_cawr.buffer import AdvantagePriorityBuffer
from ding_cawr.graph import Replay
from ding_cawr.update import Judgement, Step, Update

#: Rows that a message names.
SHOWN_ROWS = 3


class Frozen(NamedTuple):
    """What frozen critics say of the whole dataset: their judgement and the weights (N,), and the effective share."""
    judgement: Judgement
    weight: Tensor
    measured_share: float


class Diverged(FloatingPointError):
    """Losses or advantages are not finite.

    Attributes:
        replica: number of the replica whose they are, from 0; None for a single run.
    """

    def __init__(self, message: str, replica: int | None) -> None:
        super().__init__(message)
        self.replica = replica


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
        self._drawn: Tensor | None = None  # rows of the latest iteration, as the step's samples are ordered
        self._priority_refresh = priority_refresh
        self._on_gpu = update.iteration.is_cuda
        self._replays = cuda_graph and self._on_gpu and update.ranks.size == 1
        self._record()

    def attach(self, columns: Mapping[str, Tensor]) -> None:
        """Train on the rows of a dataset: see ``AdvantagePriorityBuffer.attach``."""
        self.buffer.attach(columns)
        self.update.ranks.check_same('the data', list(self.buffer.columns.values()))
        self._record()

    def iterate(self) -> Step:
        """One iteration.

        Raises:
            Diverged: losses or advantages are not finite; on a GPU, which would have to be waited for, only
                ``check_finite`` looks.
        """
        step = self._iterate()
        self.iteration += 1
        if step.priority is not None and self._priority_refresh and self.iteration % self._priority_refresh == 0:
            advantage = self.update.judge(self.buffer.columns).advantage
            self.buffer.set_priorities(self.update.selection.renew(advantage).priority)
        return step

    @property
    def _share(self) -> slice:
        """Of the samples of a batch, those of this rank."""
        return self.update.ranks.share(self.batch_size)

    def _record(self) -> None:
        """Have the iteration replayed; anew when the tensors that it works on were replaced."""
        self._iterate = self._train_policy if self.frozen else self._train_all
        if self._replays:
            self._iterate = Replay(
                self._iterate, lambda: [*self.update.tensors(), *self.buffer.tensors()], self.buffer.generators
            )

    def _train_all(self) -> Step:
        """Critics and policy, on the device from the draws to the priorities, without waiting for it."""
        uniform = self.buffer.sample_uniform(self.batch_size, self._share)
        prioritized = self.buffer.sample_prioritized(self.batch_size, self._share)
        self._drawn = torch.cat([uniform.indices, prioritized.indices], dim=-1)
        step = self.update.step(uniform.batch, prioritized.batch)
        if not self._on_gpu:
            self.check_finite(step)
        if step.priority is not None:
            self.buffer.update_priority(self._drawn, step.priority)
        return step

    def _train_policy(self) -> Step:
        """The policy alone."""
        self._drawn, batch = self.buffer.sample_prioritized(self.batch_size, self._share)
        judgement = Judgement(*(column[self._drawn] for column in self.frozen.judgement))
        step = self.update.policy_step(batch, judgement, self.frozen.weight[self._drawn])
        if not self._on_gpu:
            self.check_finite(step)
        return step

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

    def check_finite(self, step: Step) -> None:
        """Stop a diverged run. Losses and advantages are finite only if all that they come from is.

        Raises:
            Diverged: names the iteration, the first tensor that is not finite, and rows of the batch: those of its
                samples that are not, or for a loss those with the largest values.
        """
        losses = {name: getattr(step, name) for name in ('value_loss', 'critic_loss', 'policy_loss')}
        if math.isfinite((sum(losses.values()).sum() + step.advantage.sum()).item()):
            return
        tensors = {**step.judgement._asdict(), 'advantage': step.advantage, 'weight': step.weight, **losses}
        # Where all are finite, their sum overflowed.
        name, tensor = next((each for each in tensors.items() if not each[1].isfinite().all()), ('total_loss', None))
        replica = None
        if self.update.networks.lead and tensor is not None:
            replica = next(r for r, each in enumerate(tensor) if not each.isfinite().all())
        iteration = int(self.update.iteration) - 1
        raise Diverged(
            f'training diverged: {name} is not finite at iteration {iteration}{self._rows(tensor, replica)}; lower the '
            'learning rates, or look at the scale of the rewards.', replica
        )

    def _rows(self, tensor: Tensor | None, replica: int | None) -> str:
        """Which rows of the dataset a tensor of a step that is not finite came from, as far as it can be told."""
        drawn = self._drawn if replica is None else self._drawn[replica]
        tensor = tensor if replica is None or tensor is None else tensor[replica]
        if tensor is not None and tensor.shape == drawn.shape:
            rows = drawn[~tensor.isfinite()]
            return f' in {len(rows)} of {len(drawn)} samples, rows {rows[:SHOWN_ROWS].tolist()} of the data first'
        rows = drawn.unique()
        sizes = [column[rows].double().abs().view(len(rows), -1).amax(dim=1) for column in self.buffer.columns.values()]
        largest = rows[torch.stack(sizes).amax(dim=0).topk(min(SHOWN_ROWS, len(rows))).indices]
        return f' (the largest values of its batch are in rows {largest.tolist()} of the data)'

    def check_ranks(self) -> None:
        """Whether the ranks still do the same; waits for the device.

        Raises:
            RuntimeError: their networks or priorities differ.
        """
        self.update.ranks.check_same('networks and priorities', [*self.update.networks.tensors(), self.buffer.priority])

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
        return {**self.update.state_dict(replica), 'buffer': buffer}

    def load_state_dict(self, state: Mapping) -> None:
        """Continue one run from its state.

        Raises:
            RuntimeError: replicas train here.
            ValueError: the state is that of another dataset.
        """
        if self.update.networks.lead:
            raise RuntimeError("replicas train here; a checkpoint's state continues in a single run")
        self.buffer.load_state_dict(state['buffer'])  # which may refuse, so before anything else is changed
        self.update.load_state_dict(state)
        self.iteration = int(self.update.iteration)
        self._record()

"""Find, keep and describe the first step whose numbers are not finite, and a |Q| that no policy can reach."""
from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ding_cawr.algorithms.base import Step
from ding_cawr.data.table import Table

#: Rows that a message names.
SHOWN_ROWS = 3
#: The iteration of a step that was not found yet.
NONE = -1
REMEDY = 'lower the learning rates, or look at the scale of the rewards.'
#: Critics count as diverged where the mean |Q| exceeds this many times the largest return that rewards allow, or this
#: many times 1 where that is smaller: new networks have outputs below 1 whatever the rewards.
TOO_LARGE = 10


class Diverged(FloatingPointError):
    """Losses or advantages are not finite.

    Attributes:
        replica: index of the replica that they belong to; None for a single run.
    """

    def __init__(self, message: str, replica: int | None) -> None:
        super().__init__(message)
        self.replica = replica


class Watch:
    """Looks at every step on the device, without waiting for it, and keeps the first one that is not finite.

    The state changes in place, so that a CUDA graph can hold ``see``.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._draws: Mapping[str, int] = {}

    def see(self, step: Step, drawn: Tensor, iteration: Tensor) -> None:
        """Look at a step on rows (..., B) of the data; ``iteration`` as for ``check_step``."""
        seen, self._draws = _evidence(step, drawn, iteration), step.single_draw
        if not self._kept:
            self._kept = {name: tensor.clone() for name, tensor in seen.items()}
            self._kept['iteration'].fill_(NONE)
        stays = _total(step).isfinite() | (self._kept['iteration'] != NONE)
        for name, tensor in seen.items():
            torch.where(stays, self._kept[name], tensor, out=self._kept[name])

    def check(self, data: Table) -> None:
        """Stop a run of which some step was not finite; waits for the device.

        Arguments:
            data: the rows.

        Raises:
            Diverged: as ``check_step`` for that step.
        """
        if self._kept and self._kept['iteration'].item() != NONE:
            raise _described(self._kept, self._draws, data)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that ``see`` changes."""
        return list(self._kept.values())


def check_step(step: Step, drawn: Tensor, iteration: Tensor, data: Table) -> None:
    """Stop a run whose latest step is not finite; waits for the device.

    Arguments:
        step: on rows ``drawn`` (..., B) of the data.
        iteration: how many there were, this one counted, a float64 scalar.
        data: the rows.

    Raises:
        Diverged: names the iteration, the first tensor that is not finite, and rows of the batch: those of its samples
            that are not, or for a loss those with the largest values.
    """
    if not math.isfinite(_total(step).item()):
        raise _described(_evidence(step, drawn, iteration), step.single_draw, data)


def check_whole_data(per_sample: Mapping[str, Tensor], iteration: int) -> None:
    """Stop a run whose quantities for the whole data (..., N), after this iteration (-1: before the first), are not
    finite; waits for the device.

    Raises:
        Diverged: names the iteration, the quantity and rows of the data.
    """
    for name, tensor in per_sample.items():
        wrong = ~tensor.isfinite()
        if wrong.any():
            replica = int(wrong.any(dim=1).nonzero()[0]) if wrong.dim() > 1 else None
            rows = wrong.view(-1, wrong.shape[-1])[replica or 0].nonzero().view(-1)
            when = f'after iteration {iteration}' if iteration >= 0 else 'before the first iteration'
            raise Diverged(
                f'training diverged: {name} of the whole data is not finite {when} in '
                f'{len(rows)} of {wrong.shape[-1]} rows, {rows[:SHOWN_ROWS].tolist()} first; {REMEDY}', replica
            )


def diverging(step: Step, largest_return: float) -> str | None:
    """Return a message where |Q| is finite but far above what any policy can reach, else None; waits for the device.

    Arguments:
        step: on whose ``per_sample['q_value']`` it looks, if there is one.
        largest_return: the largest discounted return that rewards allow, max|r| / (1 - γ).
    """
    if 'q_value' not in step.per_sample:
        return None
    size = step.per_sample['q_value'].abs().mean(dim=-1).max().item()
    if not TOO_LARGE * max(1.0, largest_return) < size < math.inf:
        return None
    return (
        f'the critics diverge, or were trained with other rewards: the mean |q_value| of a batch is {size:.3g}, but '
        f'the rewards allow discounted returns of at most {largest_return:.3g}; {REMEDY}'
    )


def _quantities(step: Step) -> dict[str, Tensor]:
    """Return all tensors of a step, in the order in which one comes from another."""
    priority = {} if step.priority is None else {'priority': step.priority}
    return {**step.per_sample, **priority, **step.losses}


def _total(step: Step) -> Tensor:
    """Return a sum that is finite only if all quantities are."""
    return sum(tensor.sum() for tensor in _quantities(step).values())


def _evidence(step: Step, drawn: Tensor, iteration: Tensor) -> dict[str, Tensor]:
    """Return what a message about a step needs."""
    return {'iteration': iteration - 1, 'drawn': drawn, **_quantities(step)}


def _described(seen: Mapping[str, Tensor], draws: Mapping[str, int], data: Table) -> Diverged:
    """Return the error for a step that is not finite: the first tensor that is not, its replica, and the rows.

    Arguments:
        seen: what ``_evidence`` gives.
        draws: those of the step.
    """
    tensors = {name: tensor for name, tensor in seen.items() if name not in ('iteration', 'drawn')}
    # Where all are finite, their sum overflowed.
    wrong = (each for each in tensors.items() if not each[1].isfinite().all())
    name, tensor = next(wrong, ('the sum of all quantities', None))
    replica, drawn = None, seen['drawn']
    if drawn.dim() > 1 and tensor is not None:
        replica = next(r for r, each in enumerate(tensor) if not each.isfinite().all())
        drawn, tensor = drawn[replica], tensor[replica]
    if name in draws:
        drawn = drawn.chunk(1 + max(draws.values()))[draws[name]]
    return Diverged(
        f'training diverged: {name} is not finite at iteration {int(seen["iteration"])}'
        f'{_rows(tensor, drawn, data)}; {REMEDY}', replica
    )


def _rows(tensor: Tensor | None, drawn: Tensor, data: Table) -> str:
    """Return which rows of the data a tensor that is not finite came from, as far as it can be told."""
    if tensor is not None and tensor.shape == drawn.shape:
        rows = drawn[~tensor.isfinite()]
        return f' in {len(rows)} of {len(drawn)} samples, rows {rows[:SHOWN_ROWS].tolist()} of the data first'
    rows = drawn.unique()
    sizes = [column[rows].double().abs().view(len(rows), -1).amax(dim=1) for column in data.columns.values()]
    largest = rows[torch.stack(sizes).amax(dim=0).topk(min(SHOWN_ROWS, len(rows))).indices]
    return f' (the largest values of its batch are in rows {largest.tolist()} of the data)'

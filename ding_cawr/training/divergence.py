"""Steps whose numbers are not finite: how the first one is found and kept, and what is said of it."""
from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ding_cawr.algorithms.cawr.update import Judgement, Step

#: Rows that a message names.
SHOWN_ROWS = 3
#: The iteration of a step that was not found yet.
NONE = -1
REMEDY = 'lower the learning rates, or look at the scale of the rewards.'
LOSSES = ('value_loss', 'critic_loss', 'policy_loss')


class Diverged(FloatingPointError):
    """Losses or advantages are not finite.

    Attributes:
        replica: number of the replica whose they are, from 0; None for a single run.
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

    def see(self, step: Step, drawn: Tensor, iteration: Tensor) -> None:
        """A step on rows (..., B) of the data; ``iteration`` as for ``check_step``."""
        seen = _evidence(step, drawn, iteration)
        if not self._kept:
            self._kept = {name: tensor.clone() for name, tensor in seen.items()}
            self._kept['iteration'].fill_(NONE)
        stays = _total(step).isfinite() | (self._kept['iteration'] != NONE)
        for name, tensor in seen.items():
            torch.where(stays, self._kept[name], tensor, out=self._kept[name])

    def check(self, columns: Mapping[str, Tensor]) -> None:
        """Stop a run of which some step was not finite; waits for the device.

        Arguments:
            columns: the data.

        Raises:
            Diverged: as ``check_step`` for that step.
        """
        if self._kept and self._kept['iteration'].item() != NONE:
            raise _described(self._kept, columns)

    def tensors(self) -> list[Tensor]:
        """All that ``see`` changes."""
        return list(self._kept.values())


def check_step(step: Step, drawn: Tensor, iteration: Tensor, columns: Mapping[str, Tensor]) -> None:
    """Stop a run whose latest step is not finite; waits for the device.

    Arguments:
        step: on rows ``drawn`` (..., B) of the data.
        iteration: how many there were, this one counted, a float64 scalar.
        columns: the data.

    Raises:
        Diverged: names the iteration, the first tensor that is not finite, and rows of the batch: those of its samples
            that are not, or for a loss those with the largest values.
    """
    if not math.isfinite(_total(step).item()):
        raise _described(_evidence(step, drawn, iteration), columns)


def check_judgement(judgement: Judgement, iteration: int) -> None:
    """Stop a run whose critics, after this iteration, judge the whole data (..., N) by numbers that are not finite;
    waits for the device.

    Raises:
        Diverged: names the iteration, the tensor and rows of the data.
    """
    for name, tensor in judgement._asdict().items():
        wrong = ~tensor.isfinite()
        if wrong.any():
            replica = int(wrong.any(dim=1).nonzero()[0]) if wrong.dim() > 1 else None
            rows = wrong.view(-1, wrong.shape[-1])[replica or 0].nonzero().view(-1)
            raise Diverged(
                f'training diverged: {name} of the whole data is not finite after iteration {iteration} in '
                f'{len(rows)} of {wrong.shape[-1]} rows, {rows[:SHOWN_ROWS].tolist()} first; {REMEDY}', replica
            )


def _total(step: Step) -> Tensor:
    """A sum that is finite only if losses, advantages and priorities are, and they only if all that they come from
    is."""
    total = (step.value_loss + step.critic_loss + step.policy_loss).sum() + step.advantage.sum()
    return total if step.priority is None else total + step.priority.sum()


def _evidence(step: Step, drawn: Tensor, iteration: Tensor) -> dict[str, Tensor]:
    """What is said of a step."""
    last = {name: getattr(step, name) for name in ('weight', 'priority', *LOSSES)}
    seen = {'iteration': iteration - 1, 'drawn': drawn, **step.judgement._asdict(), **last}
    return {name: tensor for name, tensor in seen.items() if tensor is not None}


def _described(seen: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Diverged:
    """The error for a step that is not finite: the first tensor that is not, whose it is, and which rows it met."""
    tensors = {name: seen[name] for name in ('q_value', 'value')}
    tensors |= {'advantage': seen['q_value'] - seen['value']}
    tensors |= {name: seen[name] for name in ('weight', 'priority', *LOSSES) if name in seen}
    # Where all are finite, their sum overflowed.
    name, tensor = next((each for each in tensors.items() if not each[1].isfinite().all()), ('total_loss', None))
    replica, drawn = None, seen['drawn']
    if drawn.dim() > 1 and tensor is not None:
        replica = next(r for r, each in enumerate(tensor) if not each.isfinite().all())
        drawn, tensor = drawn[replica], tensor[replica]
    return Diverged(
        f'training diverged: {name} is not finite at iteration {int(seen["iteration"])}'
        f'{_rows(tensor, drawn, columns)}; {REMEDY}', replica
    )


def _rows(tensor: Tensor | None, drawn: Tensor, columns: Mapping[str, Tensor]) -> str:
    """Which rows of the data a tensor that is not finite came from, as far as it can be told."""
    if tensor is not None and tensor.shape == drawn.shape:
        rows = drawn[~tensor.isfinite()]
        return f' in {len(rows)} of {len(drawn)} samples, rows {rows[:SHOWN_ROWS].tolist()} of the data first'
    rows = drawn.unique()
    sizes = [column[rows].double().abs().view(len(rows), -1).amax(dim=1) for column in columns.values()]
    largest = rows[torch.stack(sizes).amax(dim=0).topk(min(SHOWN_ROWS, len(rows))).indices]
    return f' (the largest values of its batch are in rows {largest.tolist()} of the data)'

"""Show a run while it trains: its evaluations, and how far it has come."""
from __future__ import annotations

import atexit
import math
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Seconds between two drawings: of a bar on a terminal, of a line elsewhere.
BAR_INTERVAL, LINE_INTERVAL = 0.25, 5.0
#: Seconds over which the speed is a mean, evaluations included: several times as long as one of those.
SPEED_PERIOD = 120.0


@dataclass
class Evaluations:
    """The evaluations of a run, in order; ``unit`` is 'normalized score', or 'return' where no score is defined."""
    unit: str = 'return'
    iterations: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Return them in plain containers, for a checkpoint; ``Evaluations(**state)`` is the inverse."""
        return {'unit': self.unit, 'iterations': list(self.iterations), 'values': list(self.values)}

    def record(self, tag: str, value: float, iteration: int) -> None:
        """Take one scalar of the evaluator; a score replaces the return of the same evaluation."""
        if tag == 'evaluator_iter/reward_mean':
            self.iterations.append(int(iteration))
            self.values.append(float(value))
        elif tag == 'evaluator_iter/normalized_score_mean':
            self.unit = 'normalized score'
            self.values[-1] = float(value)

    @property
    def last(self) -> float | None:
        """The last value; None where there is none, as in ``best`` and ``mean_last_three``."""
        return self.values[-1] if self.values else None

    @property
    def best(self) -> float | None:
        """The best of the values that are finite; None where there is none."""
        return max(filter(math.isfinite, self.values), default=None)

    @property
    def mean_last_three(self) -> float | None:
        return sum(self.values[-3:]) / len(self.values[-3:]) if self.values else None


def score_text(value: float | None) -> str:
    """Return a score with one decimal, 'none' for None and for what is not finite."""
    return 'none' if value is None or not math.isfinite(value) else f'{value:.1f}'


class Display:
    """Shows where a run has got to: a live bar on a terminal, a line every few seconds elsewhere.

    Arguments:
        total: the iteration at which the run ends, None where that is not known.
        start: the iteration at which it begins.
    """

    def __init__(self, total: int | None, start: int = 0) -> None:
        self._is_bar, self._start, self._next = sys.stdout.isatty(), time.perf_counter(), 0.0
        self._progress = Progress(
            TextColumn('iteration'), MofNCompleteColumn(), BarColumn(bar_width=None), TextColumn('{task.fields[pace]}'),
            TimeRemainingColumn(), TextColumn('left | {task.fields[scores]}'), console=Console(file=sys.stdout),
            speed_estimate_period=SPEED_PERIOD, auto_refresh=False,
        )
        self._progress.add_task('', total=total, completed=start, pace='', scores='')
        self._task, = self._progress.tasks
        self._is_started = False

    @property
    def seconds(self) -> float:
        """Seconds since this was made."""
        return time.perf_counter() - self._start

    def show(self, iteration: int, evaluations: Evaluations) -> None:
        """Draw now and then; called at every iteration."""
        if self.seconds >= self._next:
            self._next = self.seconds + (BAR_INTERVAL if self._is_bar else LINE_INTERVAL)
            self._draw(iteration, evaluations)

    def close(self, iteration: int, evaluations: Evaluations) -> None:
        """Draw for the last time, and leave that standing."""
        self._draw(iteration, evaluations)
        self.stop()

    def _start_bar(self) -> None:
        # DI-engine's handlers write around the bar unless they are plain ones, which they ask for at every record.
        self._disable_rich = os.environ.get('DISABLE_RICH')
        os.environ['DISABLE_RICH'] = '1'
        self._is_started = True
        self._progress.start()
        atexit.register(self.stop)  # an interrupted run must not leave the terminal without a cursor

    def _draw(self, iteration: int, evaluations: Evaluations) -> None:
        scores = 'no evaluation yet'
        if evaluations.values:
            scores = f'{evaluations.unit} last {score_text(evaluations.last)} best {score_text(evaluations.best)}'
        self._progress.update(self._task.id, completed=iteration)
        pace = f'{self._task.speed:.1f} it/s' if self._task.speed else ''
        self._progress.update(self._task.id, pace=pace, scores=scores)
        if self._is_bar:
            if not self._is_started:
                self._start_bar()
            self._progress.refresh()
        else:
            of_total = f'/{self._task.total:.0f}' if self._task.total else ''
            seconds = self._task.time_remaining
            left = '' if seconds is None else f'{int(seconds) // 60}:{int(seconds) % 60:02d} left'
            print(' | '.join(filter(None, (f'iteration {iteration}{of_total}', pace, left, scores))), flush=True)

    def stop(self) -> None:
        """Give the terminal back; nothing is drawn from then on."""
        if not self._is_started:
            return
        self._is_started = False
        atexit.unregister(self.stop)
        self._progress.stop()
        os.environ.pop('DISABLE_RICH', None)
        if self._disable_rich is not None:
            os.environ['DISABLE_RICH'] = self._disable_rich

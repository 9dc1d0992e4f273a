"""What a comparison shows while it runs: a live table on a terminal, lines elsewhere."""
from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ding_cawr.compare.jobs import Job
from ding_cawr.compare.launchers import Event
from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task

#: Rows of runs that have ended or wait, beside those that run.
OTHERS_SHOWN = 12


@dataclass
class State:
    """How far a job has come."""
    job: Job
    status: str = 'waiting'
    iteration: int = 0
    started: float = 0.0
    score: str = ''
    marks: list[tuple[float, int]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Iterations a second over the last marks, evaluations included."""
        if len(self.marks) < 2:
            return 0.0
        (then, before), (now, iteration) = self.marks[0], self.marks[-1]
        return (iteration - before) / max(now - then, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        return (self.job.budget.iterations - self.iteration) / self.speed if self.speed else None


class Progress:
    """The jobs of a comparison and what they last said.

    Arguments:
        jobs: those to run.
        finished: how many runs were there before.
        slots: jobs at once, for the time that is left.
    """

    def __init__(self, jobs: Sequence[Job], finished: int, slots: int) -> None:
        self.states = {job.title: State(job) for job in jobs}
        self._finished, self._slots = finished, slots
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=2)
        self._on_terminal = self._console.is_terminal

    def __enter__(self) -> Progress:
        if self._on_terminal:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._on_terminal:
            self._live.stop()

    def started(self, job: Job) -> None:
        """A job begins."""
        state = self.states[job.title]
        state.status, state.started = 'running', time.monotonic()
        self._say(f'{job.title}: begins')

    def heard(self, event: Event) -> None:
        """What a job said."""
        state = self.states[event.job.title]
        if event.kind == 'progress':
            state.iteration = event.value
            state.marks = [*state.marks[-40:], (time.monotonic(), event.value)]
        elif event.kind == 'evaluation':
            state.iteration, mean_return = event.value
            state.score = _score(event.job, mean_return)
            left = f', {_clock(state.seconds_left)} left' if state.seconds_left else ''
            self._say(f'{event.job.title}: {state.iteration}/{event.job.budget.iterations}, {state.speed:.0f} it/s, '
                      f'{state.score}{left}')
        else:
            state.status = event.kind
            self._say(f'{event.job.title}: {event.kind}{"" if event.kind == "done" else ": " + event.value}')

    def _say(self, text: str) -> None:
        if not self._on_terminal:
            print(text, file=sys.stderr, flush=True)

    def _table(self) -> Table:
        states = list(self.states.values())
        running = [state for state in states if state.status == 'running']
        ended = [state for state in states if state.status in ('done', 'failed')]
        waiting = [state for state in states if state.status == 'waiting']
        table = Table(
            title=f'{self._finished + sum(len(s.job.seeds) for s in ended if s.status == "done")} of '
            f'{self._finished + sum(len(s.job.seeds) for s in states)} runs done, '
            f'{sum(s.status == "failed" for s in ended)} failed{self._time_left(running, waiting)}'
        )
        for column in ('dataset', 'policy', 'seed', '', 'iteration', 'it/s', 'last evaluation', 'time left'):
            table.add_column(column, justify='right' if column in ('iteration', 'it/s', 'time left') else 'left')
        shown = [*ended[-OTHERS_SHOWN // 2:], *running, *waiting[:OTHERS_SHOWN // 2]]
        for state in shown:
            table.add_row(*_row(state))
        if len(shown) < len(states):
            table.add_row(f'and {len(states) - len(shown)} more')
        return table

    def _time_left(self, running: Sequence[State], waiting: Sequence[State]) -> str:
        known = [state.seconds_left for state in running if state.seconds_left]
        if not known:
            return ''
        whole = [state.job.budget.iterations / state.speed for state in running if state.speed]
        seconds = max(known) + sum(whole) / len(whole) * len(waiting) / self._slots
        return f', about {_clock(seconds)} left'


def _row(state: State) -> list[str]:
    job, seconds = state.job, state.seconds_left if state.status == 'running' else None
    colours = {'running': 'cyan', 'done': 'green', 'failed': 'red', 'waiting': 'dim'}
    corrupted = f' ({job.dataset.corruption["columns"]} {job.dataset.corruption["rate"]})' if job.dataset.corruption \
        else ''
    return [
        job.dataset.name + corrupted, job.entrant.name, ', '.join(map(str, job.seeds)),
        f'[{colours[state.status]}]{state.status}', f'{state.iteration:,}/{job.budget.iterations:,}',
        f'{state.speed:.0f}' if state.speed else '', state.score, _clock(seconds) if seconds else ''
    ]


def _score(job: Job, mean_return: float) -> str:
    if find_task(job.dataset.env_id) is None:
        return f'return {mean_return:.1f}'
    return f'score {normalized_score(job.dataset.env_id, mean_return):.1f}'


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'

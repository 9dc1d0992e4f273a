"""Show how far a comparison has come: bars on a terminal, lines elsewhere."""
from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ding_cawr.compare.jobs import Job
from ding_cawr.compare.launchers import Event
from ding_cawr.score import normalized_score
from ding_cawr.tasks import find_task


class Speed(progress.ProgressColumn):
    """Iterations a second, evaluations included."""

    def render(self, task: progress.Task) -> Text:
        return Text(f'{task.speed:,.0f} it/s' if task.speed else '', justify='right')


class Progress:
    """A bar for all iterations of a comparison, and one for each job that runs.

    Arguments:
        jobs: those to run.
        finished: number of runs that were there before.
    """

    def __init__(self, jobs: Sequence[Job], finished: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, soft_wrap=True)
        self._bars = progress.Progress(
            progress.TextColumn('{task.description}'), progress.BarColumn(), progress.MofNCompleteColumn(), Speed(),
            progress.TimeRemainingColumn(), progress.TextColumn('{task.fields[score]}'), console=self._console,
            refresh_per_second=2, speed_estimate_period=60, disable=not self._console.is_terminal,
        )
        self._runs, self._done, self._failed = finished + sum(len(job.seeds) for job in jobs), finished, 0
        self._all = self._bars.add_task('', total=sum(job.budget.iterations for job in jobs), score='')
        self._tasks: dict[str, progress.Task] = {}
        for job in jobs:
            self._bars.add_task(escape(job.title), False, job.budget.iterations, visible=False, score='')
            self._tasks[job.title] = self._bars.tasks[-1]
        self._update_all()

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_) -> None:
        self._bars.stop()

    def started(self, job: Job) -> None:
        """Show that a job begins."""
        self._bars.start_task(self._tasks[job.title].id)
        self._bars.update(self._tasks[job.title].id, visible=True)
        self._say(f'{job.title}: begins')

    def heard(self, event: Event) -> None:
        """Show what a job said."""
        title, task = event.job.title, self._tasks[event.job.title]
        if event.kind == 'progress':
            self._bars.update(task.id, completed=event.value)
        elif event.kind == 'evaluation':
            iteration, mean_return = event.value
            score = _score(event.job, mean_return)
            self._bars.update(task.id, completed=iteration, score=score)
            speed = f'{task.speed:.0f} it/s, ' if task.speed else ''
            left = f', {timedelta(seconds=int(task.time_remaining))} left' if task.time_remaining else ''
            self._say(f'{title}: {iteration}/{task.total}, {speed}{score}{left}')
        else:
            self._bars.update(task.id, completed=task.total, visible=False)
            self._done += len(event.job.seeds) if event.kind == 'done' else 0
            self._failed += event.kind == 'failed'
            self._say(f'{title}: {event.kind}{"" if event.kind == "done" else ": " + event.value}', always=True)
        self._update_all()

    def _update_all(self) -> None:
        self._bars.update(self._all, completed=sum(task.completed for task in self._tasks.values()),
                          description=f'{self._done} of {self._runs} runs done, {self._failed} failed')

    def _say(self, text: str, always: bool = False) -> None:
        """Print a line where there are no bars, or above them."""
        if always or not self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)


def _score(job: Job, mean_return: float) -> str:
    if find_task(job.dataset.env_id) is None:
        return f'return {mean_return:.1f}'
    return f'score {normalized_score(job.dataset.env_id, mean_return):.1f}'

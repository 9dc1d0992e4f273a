"""Show how far a comparison has come: bars on a terminal, lines elsewhere."""
from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich import progress
from rich.console import Console
from rich.markup import escape

from ding_cawr.compare import results
from ding_cawr.compare.jobs import Job
from ding_cawr.compare.launchers import Event


class Progress(progress.Progress):
    """A bar for all iterations of the jobs to run, and one for each that runs; so many runs had finished before."""

    def __init__(self, jobs: Sequence[Job], finished: int, console: Console | None = None) -> None:
        console = console or Console(stderr=True, soft_wrap=True)
        super().__init__(
            progress.TextColumn('{task.description}'), progress.BarColumn(), progress.MofNCompleteColumn(),
            progress.TextColumn('{task.fields[speed]}'), progress.TimeRemainingColumn(),
            progress.TextColumn('{task.fields[score]}'), console=console, refresh_per_second=2,
            speed_estimate_period=60, disable=not console.is_terminal,
        )
        self._runs, self._done, self._failed = finished + sum(len(job.seeds) for job in jobs), finished, 0
        self.add_task('', total=sum(job.budget.iterations for job in jobs), speed='', score='')
        self._number = {job.title: self.add_task(
            escape(job.title), start=False, total=job.budget.iterations, visible=False, speed='', score=''
        ) for job in jobs}
        self._update_all()

    def started(self, job: Job) -> None:
        """Show that a job begins."""
        self.start_task(self._number[job.title])
        self.update(self._number[job.title], visible=True)
        self._say(f'{job.title}: begins')

    def heard(self, event: Event) -> None:
        """Show what a job said."""
        title, task = event.job.title, self.tasks[self._number[event.job.title]]
        speed = f'{task.speed:,.0f} it/s' if task.speed else ''
        if event.kind == 'progress':
            self.update(task.id, completed=event.value, speed=speed)
        elif event.kind == 'evaluation':
            iteration, mean_return = event.value
            found = results.scores(event.job.dataset.env_id, [mean_return])
            score = f'score {found[0]:.1f}' if found else f'return {mean_return:.1f}'
            self.update(task.id, completed=iteration, score=score)
            left = f'{timedelta(seconds=int(task.time_remaining))} left' if task.time_remaining else ''
            self._say(f'{title}: {", ".join(filter(None, [f"{iteration}/{task.total}", speed, score, left]))}')
        else:
            self.update(task.id, completed=task.total, visible=False)
            self._done += len(event.job.seeds) if event.kind == 'done' else 0
            self._failed += event.kind == 'failed'
            self._say(f'{title}: {event.kind}{"" if event.kind == "done" else ": " + event.value}', always=True)
        self._update_all()

    def _update_all(self) -> None:
        self.update(self.tasks[0].id, completed=sum(task.completed for task in self.tasks[1:]),
                    description=f'{self._done} of {self._runs} runs done, {self._failed} failed')

    def _say(self, text: str, always: bool = False) -> None:
        """Print a line where there are no bars, or above them."""
        if always or not self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)

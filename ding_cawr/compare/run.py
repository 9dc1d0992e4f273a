"""Run a comparison: what is missing is run, what ends is written down, and how far it has come is shown."""
from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path

import filelock
from rich import progress
from rich.console import Console
from rich.markup import escape

from ding_cawr.compare import results
from ding_cawr.compare.jobs import RECORD, Job, folder_of, missing
from ding_cawr.compare.launchers import LOG, Event, LocalLauncher, RayLauncher, describe_error
from ding_cawr.machine import now

#: Seconds between two looks at what could begin.
POLL = 0.5
UNFINISHED, FAILED = '.part', '.failed'


@dataclass
class Outcome:
    """The end of a comparison: finished runs in all, those of this call, and failures (run, error, log)."""
    results: Path
    finished: int
    ran: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)


class Comparison:
    """Jobs in an output folder, which only one comparison at a time may use.

    The folder holds ``results.jsonl`` and in ``runs/`` a folder for each run: NAME once it has finished, NAME.failed
    with its log if it failed. NAME.part is a run that is not at its end. Interrupted, it goes on where it has a record
    of its evaluations and a whole checkpoint, and otherwise begins anew.
    """

    def __init__(self, out: Path, jobs: Sequence[Job], launcher: LocalLauncher | RayLauncher) -> None:
        self._out, self._jobs, self._launcher = out.resolve(), list(jobs), launcher
        self._outcome = Outcome(self._out / 'results.jsonl', sum(len(job.seeds) for job in jobs))

    def run(self) -> Outcome:
        """Run what is missing. Interrupted, it leaves finished runs alone. Raises a ValueError if another comparison
        uses the folder."""
        if self._out.exists() and not self._out.is_dir():
            raise NotADirectoryError(f'{str(self._out)!r} is a file, but --out must be a folder; give another one')
        (self._out / 'runs').mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self._out / '.lock', timeout=0):
                self._remove_interrupted()
                try:
                    self._run()
                finally:
                    self._launcher.stop()
                    self._remove_interrupted()
        except filelock.Timeout:
            raise ValueError(
                f'another comparison is running in {self._out}; wait for it, or give another --out'
            ) from None
        self._outcome.finished -= len(self._outcome.failures)
        return self._outcome

    def _run(self) -> None:
        waiting = missing(self._jobs, self._finished())
        # Critics whose run has finished, but whose checkpoint is gone, are needed again.
        gone = {job.critics.title: job.critics for job in waiting if job.critics and not self._critics(job)}
        waiting = [*gone.values(), *(job for job in waiting if job.title not in gone)]
        finished = self._outcome.finished - sum(len(job.seeds) for job in waiting)
        with Progress(waiting, finished) as shown:
            while waiting or self._launcher.running:
                for event in chain(self._start(waiting, shown), self._launcher.poll(POLL)):
                    if event.ends:
                        self._write_down(event)
                    shown.heard(event)

    def _finished(self) -> set[str]:
        file = self._outcome.results
        return set(results.read(file).finished.identity) if file.exists() else set()

    def _start(self, waiting: list[Job], shown: Progress) -> Iterator[Event]:
        """Start the jobs that can begin, while there is room; yield the failures of those that cannot."""
        for job in list(waiting):
            if not self._launcher.takes_more:
                break
            critics = self._critics(job)
            if bool(critics) == bool(job.critics):
                waiting.remove(job)
                self._make_folder(job)
                shown.started(job)
                try:
                    self._launcher.start(job, self._part(job), critics)
                except Exception as error:  # a configuration file may hold anything
                    why = 'its configuration cannot be sent to another process, or that cannot be started'
                    yield Event(job, 'failed', f'{why}: {describe_error(error)}')
        while waiting and not self._launcher.running:
            job = waiting.pop(0)
            yield Event(job, 'failed', f'the run that gives its critics, {job.critics.title}, failed')

    def _make_folder(self, job: Job) -> None:
        """Make the folder that a job is about to begin in."""
        self._part(job).mkdir(exist_ok=True)

    def _critics(self, job: Job) -> Path | None:
        """Return the last checkpoint of the run that gives a job's critics, None where it is not there."""
        if job.critics is None:
            return None
        folder = folder_of(self._out, job.critics, job.seeds[0]) / 'run' / 'ckpt'
        checkpoint = folder / f'iteration_{job.critics.budget.iterations}.pth.tar'
        return checkpoint if checkpoint.is_file() else None

    def _write_down(self, event: Event) -> None:
        """Write down how a job ended."""
        if event.kind == 'done':
            self._keep(event.job)
            results.append(self._outcome.results, event.value)
            self._outcome.ran += len(event.job.seeds)
        else:
            self._fail(event.job, event.value)

    def _keep(self, job: Job) -> None:
        """Give the runs of a job their last names. Without a line of results such a run would begin anew."""
        for seed in job.seeds:
            target = folder_of(self._out, job, seed)
            for old in (target, self._failed(job), target.with_name(target.name + FAILED)):
                shutil.rmtree(old, ignore_errors=True)
            target.mkdir()
            shutil.copy(self._part(job) / LOG, target)
            (self._part(job) / job.run_folder(seed)).rename(target / 'run')
        shutil.rmtree(self._part(job))

    def _fail(self, job: Job, error: str) -> None:
        if self._part(job).exists():
            shutil.rmtree(self._failed(job), ignore_errors=True)
            self._part(job).rename(self._failed(job))
            log = self._failed(job) / LOG
        else:  # it never began, because of its critics
            log = self._failed(job.critics) / LOG
        about = dict(error=error, log=str(log), time=now())
        self._outcome.failures += [dict(run=job.name(seed), error=error, log=str(log)) for seed in job.seeds]
        results.append(self._outcome.results, [{'kind': 'failure', **job.about(seed), **about} for seed in job.seeds])

    def _remove_interrupted(self) -> None:
        """Remove the folders of runs that cannot go on."""
        for folder in (self._out / 'runs').glob(f'*{UNFINISHED}'):
            if not (folder / RECORD).is_file():
                shutil.rmtree(folder, ignore_errors=True)

    def _part(self, job: Job) -> Path:
        return self._out / 'runs' / (job.title + UNFINISHED)

    def _failed(self, job: Job) -> Path:
        return self._out / 'runs' / (job.title + FAILED)


class Progress(progress.Progress):
    """Shows how far a comparison has come: bars on a terminal, lines elsewhere. There is a bar for all iterations of
    the jobs to run, and one for each that runs; ``finished`` runs had ended before."""

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
            found = results.scores(event.job.dataset.env_id, [mean_return], event.job.settings)
            score = f'score {found[0]:.1f}' if found else f'return {mean_return:.1f}'
            self.update(task.id, completed=iteration, score=score)
            left = f'{timedelta(seconds=int(task.time_remaining))} left' if task.time_remaining else ''
            self._say(f'{title}: {", ".join(filter(None, [f"{iteration}/{task.total}", speed, score, left]))}')
        else:
            self.update(task.id, completed=task.total, visible=False)
            self._done += len(event.job.seeds) if event.kind == 'done' else 0
            self._failed += len(event.job.seeds) if event.kind == 'failed' else 0
            self._say(f'{title}: {event.kind}{"" if event.kind == "done" else ": " + event.value}', always=True)
        self._update_all()

    def _update_all(self) -> None:
        self.update(self.tasks[0].id, completed=sum(task.completed for task in self.tasks[1:]),
                    description=f'{self._done} of {self._runs} runs done, {self._failed} failed')

    def _say(self, text: str, always: bool = False) -> None:
        """Print a line where there are no bars, or above them."""
        if always or not self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)

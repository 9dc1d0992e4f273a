"""Run a comparison: what is missing is run, what ends is written down."""
from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path

import filelock

from ding_cawr.compare import results
from ding_cawr.compare.jobs import Job, folder_of, missing
from ding_cawr.compare.launchers import LOG, Event, LocalLauncher, RayLauncher, describe_error
from ding_cawr.compare.progress import Progress

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
    with its log if it failed. NAME.part, a run that goes on or was interrupted, begins anew.

    Arguments:
        out: the folder; made where it is missing.
        jobs: all runs that there should be.
        launcher: where they run.
    """

    def __init__(self, out: Path, jobs: Sequence[Job], launcher: LocalLauncher | RayLauncher) -> None:
        self._out, self._jobs, self._launcher = out.resolve(), list(jobs), launcher
        self._outcome = Outcome(self._out / 'results.jsonl', sum(len(job.seeds) for job in jobs))

    def run(self) -> Outcome:
        """Run what is missing. Interrupted, it leaves finished runs alone.

        Raises:
            ValueError: another comparison uses the folder.
        """
        (self._out / 'runs').mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._out / '.lock')
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(
                f'another comparison is running in {self._out}; wait for it, or give another --out'
            ) from None
        try:
            self._run()
        finally:
            self._launcher.stop()
            self._tidy()
            lock.release()
        self._outcome.finished -= len(self._outcome.failures)
        return self._outcome

    def _run(self) -> None:
        self._tidy()
        waiting = missing(self._jobs, self._finished())
        # Critics whose run has finished, but whose checkpoint is gone, are needed again.
        gone = {job.critics.title: job.critics for job in waiting if job.critics and not self._critics(job)}
        waiting = [*(gone[title] for title in gone.keys() - {job.title for job in waiting}), *waiting]
        finished = self._outcome.finished - sum(len(job.seeds) for job in waiting)
        with Progress(waiting, finished) as progress:
            while waiting or self._launcher.running:
                for event in chain(self._start(waiting, progress), self._launcher.poll(POLL)):
                    if event.ends:
                        self._write_down(event)
                    progress.heard(event)

    def _finished(self) -> set[str]:
        file = self._outcome.results
        return set(results.read(file).finished.identity) if file.exists() else set()

    def _start(self, waiting: list[Job], progress: Progress) -> Iterator[Event]:
        """Start the next job that can begin, if there is room; yield the failure of one that cannot."""
        for job in list(waiting) if self._launcher.takes_more else []:
            if job.critics is None or self._critics(job):
                waiting.remove(job)
                self._make_folder(job)
                progress.started(job)
                try:
                    return self._launcher.start(job, self._part(job), self._critics(job))
                except Exception as error:  # a configuration file may hold anything
                    why = 'its configuration cannot be sent to another process, or that cannot be started'
                    yield Event(job, 'failed', f'{why}: {describe_error(error)}')
                    return
        while waiting and not self._launcher.running:
            job = waiting.pop(0)
            yield Event(job, 'failed', f'the run that gives its critics, {job.critics.title}, failed')

    def _make_folder(self, job: Job) -> None:
        """Make the folder that a job is about to begin in."""
        self._part(job).mkdir()

    def _critics(self, job: Job) -> Path | None:
        """Return the last checkpoint of the run that gives a job's critics."""
        if job.critics is None:
            return None
        path = folder_of(self._out, job.critics, job.seeds[0]) / 'run' / 'ckpt'
        checkpoint = path / f'iteration_{job.critics.budget.iterations}.pth.tar'
        return checkpoint if checkpoint.is_file() else None

    def _write_down(self, event: Event) -> None:
        """Write the results, then rename the folder: a folder without results would be a run that nobody finds."""
        if event.kind == 'done':
            results.append(self._outcome.results, event.value)
            self._outcome.ran += len(event.job.seeds)
            for seed in event.job.seeds:
                self._keep(self._part(event.job), event.job, seed)
            shutil.rmtree(self._part(event.job), ignore_errors=True)
        else:
            self._fail(event.job, event.value)

    def _keep(self, folder: Path, job: Job, seed: int) -> None:
        """Give the run of a seed its last name; once that was done, doing it again changes nothing."""
        target, run = folder_of(self._out, job, seed), folder / f'run_seed{seed}'
        if not (run.exists() or (folder / 'run').exists()):
            return
        for old in (target, target.with_name(target.name + FAILED)):
            shutil.rmtree(old, ignore_errors=True)
        if not run.exists():
            folder.rename(target)
            return
        moved = target.with_name(target.name + UNFINISHED)
        moved.mkdir(exist_ok=True)
        shutil.copy(folder / LOG, moved)
        run.rename(moved / 'run')
        moved.rename(target)

    def _fail(self, job: Job, error: str) -> None:
        folder, target = self._part(job), self._out / 'runs' / (job.title + FAILED)
        log = target / LOG
        if folder.exists():
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
        elif job.critics:  # it never began, because of theirs
            log = self._out / 'runs' / (job.critics.title + FAILED) / LOG
        about = dict(error=error, log=str(log), time=datetime.now(timezone.utc).isoformat(timespec='seconds'))
        self._outcome.failures += [dict(run=job.name(seed), error=error, log=str(log)) for seed in job.seeds]
        results.append(self._outcome.results, [
            {'kind': 'failure', **job.about(seed), **about} for seed in job.seeds
        ])

    def _tidy(self) -> None:
        """Remove what was interrupted, but for runs whose results were already written down."""
        finished = self._finished()
        for job in self._jobs:
            for seed in job.seeds:
                if results.identity(job.about(seed)) in finished:
                    for folder in (self._out / 'runs').glob(f'{job.name(job.seeds[0])}*{UNFINISHED}'):
                        self._keep(folder, job, seed)
        for folder in (self._out / 'runs').glob(f'*{UNFINISHED}'):
            shutil.rmtree(folder, ignore_errors=True)

    def _part(self, job: Job) -> Path:
        return self._out / 'runs' / (job.title + UNFINISHED)

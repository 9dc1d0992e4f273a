"""A comparison: what is missing is run, what ends is written down."""
from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import filelock

from ding_cawr.compare import results
from ding_cawr.compare.jobs import Job, folder_of, missing
from ding_cawr.compare.launchers import LOG, Event, LocalLauncher, RayLauncher
from ding_cawr.compare.live import Progress

#: Seconds between two looks at what could begin.
POLL = 0.5
UNFINISHED, FAILED = '.part', '.failed'


@dataclass
class Outcome:
    """What a comparison came to: finished runs in all, those of this call, and failures (run, error, log)."""
    results: Path
    finished: int
    ran: int
    failures: list[dict[str, str]]


class Comparison:
    """Jobs in an output folder, which only one comparison at a time may use.

    The folder holds ``results.jsonl`` and in ``runs/`` a folder for each run: NAME once it has finished, NAME.failed
    with its log if it failed. NAME.part, a run that goes on or was interrupted, begins anew.

    Arguments:
        out: the folder; made where it is missing.
        jobs: all runs that there should be.
        launcher: where they run.
        slots: jobs at once, for the display.
    """

    def __init__(self, out: Path, jobs: Sequence[Job], launcher: LocalLauncher | RayLauncher, slots: int) -> None:
        self._out, self._jobs, self._launcher, self._slots = out.resolve(), list(jobs), launcher, slots
        self.results = self._out / 'results.jsonl'
        self._failures: list[dict[str, str]] = []
        self._ran = 0

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
            return self._run()
        finally:
            self._launcher.stop()
            self._tidy()
            lock.release()

    def _run(self) -> Outcome:
        self._tidy()
        waiting = missing(self._jobs, self._finished())
        # Critics whose run has finished, but whose checkpoint is gone, are needed again.
        gone = {job.critics.title: job.critics for job in waiting if job.critics and not self._critics(job)}
        waiting = [*(gone[title] for title in gone.keys() - {job.title for job in waiting}), *waiting]
        asked = sum(len(job.seeds) for job in self._jobs)
        with Progress(waiting, asked - sum(len(job.seeds) for job in waiting), self._slots) as progress:
            while waiting or self._launcher.running:
                for job in self._startable(waiting, progress):
                    waiting.remove(job)
                    self._launcher.start(job, self._make_folder(job), self._critics(job))
                    progress.started(job)
                for event in self._launcher.poll(POLL):
                    if event.ends:
                        self._write_down(event)
                    progress.heard(event)
        return Outcome(self.results, asked - len(self._failures), self._ran, self._failures)

    def _finished(self) -> set[str]:
        return {run.identity for run in results.read(self.results).runs} if self.results.exists() else set()

    def _startable(self, waiting: list[Job], progress: Progress) -> Sequence[Job]:
        """The next job that can begin, if there is room; jobs whose critics never came are failures."""
        if not self._launcher.takes_more:
            return []
        for job in list(waiting):
            if job.critics is None or self._critics(job) is not None:
                return [job]
        for job in waiting if not self._launcher.running else []:
            event = Event(job, 'failed', f'the run that gives its critics, {job.critics.title}, failed')
            self._write_down(event)
            progress.heard(event)
        if not self._launcher.running:
            waiting.clear()
        return []

    def _critics(self, job: Job) -> Path | None:
        """The last checkpoint of the run that gives a job's critics."""
        if job.critics is None:
            return None
        path = folder_of(self._out, job.critics, job.seeds[0]) / 'run' / 'ckpt'
        checkpoint = path / f'iteration_{job.critics.budget.iterations}.pth.tar'
        return checkpoint if checkpoint.is_file() else None

    def _make_folder(self, job: Job) -> Path:
        folder = self._part(job)
        folder.mkdir()
        return folder

    def _write_down(self, event: Event) -> None:
        """Results first: a folder without them would be a run that nobody finds."""
        if event.kind == 'done':
            results.append(self.results, event.value)
            self._ran += len(event.job.seeds)
            self._keep(event.job)
        else:
            self._fail(event.job, event.value)

    def _keep(self, job: Job) -> None:
        folder = self._part(job)
        for seed in job.seeds:
            self._keep_seed(folder, job, seed)
        shutil.rmtree(folder, ignore_errors=True)

    def _keep_seed(self, folder: Path, job: Job, seed: int) -> None:
        """Give the run of a seed its last name; once that was done, doing it again changes nothing."""
        target, run = folder_of(self._out, job, seed), folder / f'run_seed{seed}'
        if not (run.exists() or (folder / 'run').exists()):
            return
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(target.with_name(target.name + FAILED), ignore_errors=True)
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
        now = datetime.now(timezone.utc).isoformat(timespec='seconds')
        lines: list[dict[str, Any]] = []
        for seed in job.seeds:
            self._failures.append(dict(run=job.name(seed), error=error, log=str(log)))
            lines.append({'kind': 'failure', **job.about(seed), 'error': error, 'log': str(log), 'time': now})
        results.append(self.results, lines)

    def _tidy(self) -> None:
        """Remove what was interrupted, but for runs whose results were already written down."""
        finished = self._finished()
        for job in self._jobs:
            seeds = [seed for seed in job.seeds if results.identity(job.about(seed)) in finished]
            for folder in (self._out / 'runs').glob(f'{job.name(job.seeds[0])}*{UNFINISHED}'):
                for seed in seeds:
                    self._keep_seed(folder, job, seed)
        for folder in (self._out / 'runs').glob(f'*{UNFINISHED}'):
            shutil.rmtree(folder, ignore_errors=True)

    def _part(self, job: Job) -> Path:
        return self._out / 'runs' / (job.title + UNFINISHED)

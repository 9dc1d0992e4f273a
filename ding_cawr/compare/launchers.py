"""Run jobs: in processes of this machine, or on a Ray cluster."""
from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NamedTuple

from ding_cawr.compare.jobs import Job

LOG = 'log.txt'
#: The program of a process of ``LocalLauncher``. Its imports are in the run's log too.
COMMAND = 'import sys; from ding_cawr.compare.launchers import work; work(int(sys.argv[1]))'


class Event(NamedTuple):
    """Tells what a job said: 'progress' (iteration), 'evaluation' ((iteration, mean return)), or at its end 'done'
    (lines of the results) or 'failed' (a sentence)."""
    job: Job
    kind: str
    value: Any

    @property
    def ends(self) -> bool:
        return self.kind in ('done', 'failed')


class LocalLauncher:
    """Processes of this machine: ``slots`` at once, each with ``threads`` threads for torch's operations. They end when
    this process does, however it ends."""
    running = property(lambda self: len(self._running))
    takes_more = property(lambda self: self.running < self._slots)

    def __init__(self, slots: int, threads: int) -> None:
        self._slots, self._threads = slots, threads
        self._running: dict[Connection, tuple[Job, subprocess.Popen]] = {}

    def start(self, job: Job, folder: Path, critics: Path | None) -> None:
        """Begin a job in a folder that exists. Raises what pickling the job raises."""
        arguments = pickle.dumps((job, folder, self._threads, critics))
        ours, theirs = Pipe()
        with theirs, open(folder / LOG, 'ab') as log:
            process = subprocess.Popen(
                [sys.executable, '-c', COMMAND, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its processes
            )
        self._running[ours] = job, process
        with suppress(BrokenPipeError):  # it ended at once; ``poll`` says so
            ours.send_bytes(arguments)

    def poll(self, timeout: float) -> Iterator[Event]:
        """Yield what jobs said, waiting at most this number of seconds for the first of them."""
        for connection in wait(list(self._running), timeout):
            job, process = self._running[connection]
            try:
                event = Event(job, *connection.recv())
            except (EOFError, OSError):
                event = Event(job, 'failed', f'its process ended with exit code {process.wait()}')
            if event.ends:
                self._end(connection)
            yield event

    def stop(self) -> None:
        """End what runs."""
        for connection, (_, process) in list(self._running.items()):
            process.kill()
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        self._running.pop(connection)[1].wait()
        connection.close()


class RayLauncher:
    """Tasks of a Ray cluster: the one that $RAY_ADDRESS names, else one that is started here. The output folder and the
    data must lie under the same paths on all nodes. A task takes the given number of CPUs and, with ``cuda``, a GPU."""
    running = property(lambda self: len(self._running))
    takes_more = True  # Ray knows when there is room

    def __init__(self, threads: int, cuda: bool) -> None:
        try:
            import ray
            from ray.util.queue import Queue
        except ImportError:
            raise ValueError("--launcher ray needs Ray: pip install 'ding_cawr[ray]'") from None
        self._ray, self._threads = ray, threads
        ray.init(log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
        # A process for each task, since DI-engine's pipeline leaves a process changed.
        options = dict(num_cpus=threads, num_gpus=int(cuda), max_calls=1, max_retries=0)
        self._task, self._queue = ray.remote(**options)(_ray_task), Queue(actor_options=dict(num_cpus=0))
        self._running: dict[Any, Job] = {}

    def start(self, job: Job, folder: Path, critics: Path | None) -> None:
        """Hand a job to Ray."""
        self._running[self._task.remote(job, folder, self._threads, critics, self._queue)] = job

    def poll(self, timeout: float) -> Iterator[Event]:
        """Yield what jobs said, waiting at most this number of seconds for one of them to end."""
        ended, _ = self._ray.wait(list(self._running), timeout=timeout) if self._running else ([], [])
        jobs = {job.title: job for job in self._running.values()}
        for title, *said in self._queue.get_nowait_batch(self._queue.qsize()):
            if title in jobs:
                yield Event(jobs[title], *said)
        for task in ended:
            job = self._running.pop(task)
            try:
                yield Event(job, *self._ray.get(task))
            except self._ray.exceptions.RayError as error:
                yield Event(job, 'failed', describe_error(error))

    def stop(self) -> None:
        """End what runs, and the cluster if it was started here."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()


def work(descriptor: int) -> None:
    """Run a job in a process of ``LocalLauncher``, which talks through a pipe and ends when that is closed."""
    connection = Connection(descriptor)
    arguments = pickle.loads(connection.recv_bytes())

    def end_with_parent() -> None:
        with suppress(EOFError, OSError):
            connection.recv()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    connection.send(_outcome(*arguments, lambda *said: connection.send(said)))


def _ray_task(job: Job, folder: Path, threads: int, critics: Path | None, queue: Any) -> tuple[str, Any]:
    with open(folder / LOG, 'ab') as log:  # all output, that of torch and MuJoCo too
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
    return _outcome(job, folder, threads, critics, lambda *said: queue.put((job.title, *said)))


def _outcome(job: Job, folder: Path, threads: int, critics: Path | None, report: Callable) -> tuple[str, Any]:
    """Run a job and return the last thing that it says."""
    from ding_cawr.compare.worker import run_job
    from ding_cawr.engine.host import close_writer
    try:
        return 'done', run_job(job, folder, threads, critics, report)
    except BaseException as error:  # DI-engine's policies fail in all ways there are, exits included
        traceback.print_exc()
        sys.stderr.flush()
        close_writer(error)
        return 'failed', describe_error(error)


def describe_error(error: BaseException) -> str:
    """Return the last line of a traceback."""
    return ''.join(traceback.format_exception_only(error)).strip().splitlines()[-1]

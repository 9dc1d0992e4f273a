"""Keep a run's folder to one run at a time."""
from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import filelock

#: Seconds between two looks at whether a run has ended.
POLL = 1.0


class FolderLock:
    """Keeps others out of a folder, until released or until this process has ended.

    DI-engine's pipeline has no hook for a run that fails or is interrupted, and a notebook keeps the traceback with the
    run's objects. ``watch`` therefore looks whether the run's function is still on its thread's stack.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        # Not of a thread, since the one that watches releases it.
        self._file = filelock.FileLock(self.folder / '.lock', thread_local=False)
        self._watched: tuple[FrameType, int] | None = None
        self._unwatched = threading.Event()
        self._watcher: threading.Thread | None = None

    def acquire(self) -> None:
        """Acquire the lock. Wait a moment for a run of another process that is just ending."""
        try:
            self._file.acquire(timeout=2 * POLL)
        except filelock.Timeout:
            raise ValueError(f'another process is training in {self.folder}; wait for it, or stop it first') from None
        except NotImplementedError:
            warnings.warn(f'the disk of {self.folder} has no locks: nothing keeps other processes out', stacklevel=3)
        _held[self.folder] = self

    @property
    def is_busy(self) -> bool:
        """Whether the function that is watched runs."""
        return self._watched is not None and _runs(*self._watched)

    def watch(self, frame: FrameType, at_end: Callable[[], None]) -> None:
        """Release the folder and call ``at_end`` when a function of this thread has ended without a ``release``."""
        self._watched, self._unwatched = (frame, threading.get_ident()), threading.Event()
        arguments = self._watched, self._unwatched, at_end
        self._watcher = threading.Thread(target=self._wait, args=arguments, daemon=True, name='ding_cawr_lock')
        self._watcher.start()

    def _wait(
        self, watched: tuple[FrameType, int], unwatched: threading.Event, at_end: Callable[[], None]
    ) -> None:
        missed = 0
        while missed < 2:  # a stack that changes under the look can hide a function once
            if unwatched.wait(POLL):
                return
            missed = 0 if _runs(*watched) else missed + 1
        with _guard:
            if self._watched is watched:
                self.release()
                at_end()

    def unwatch(self) -> None:
        """Keep the folder whatever runs."""
        self._watched = None
        self._unwatched.set()
        if self._watcher not in (None, threading.current_thread()):
            self._watcher.join(timeout=POLL)  # it holds the function, and with it all that the run has

    def release(self) -> None:
        """Let others have the folder; a second call does nothing."""
        self.unwatch()
        self._file.release()
        if _held.get(self.folder) is self:
            del _held[self.folder]

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


_held: dict[Path, FolderLock] = {}
_guard = threading.RLock()


def _runs(frame: FrameType, thread: int) -> bool:
    """Return whether a function is among those that run in a thread."""
    running = sys._current_frames().get(thread)
    while running is not None and running is not frame:
        running = running.f_back
    return running is frame


def lock_folder(exp_name: str | Path) -> FolderLock:
    """Keep other runs out of a run's folder; this process may take it again where its own run has ended.

    Raises:
        ValueError: another run trains there.
        OSError: nothing can be written there.
    """
    folder = Path(exp_name)
    folder.mkdir(parents=True, exist_ok=True)
    with _guard:
        held = _held.get(folder.resolve())
        if held is None:
            held = FolderLock(folder)
            held.acquire()
        elif held.is_busy:
            raise ValueError(f'this process is training in {folder}; wait for it, or stop it first')
        held.unwatch()
        return held

"""The checkpoints of a run: when they are written, what they hold, and which are kept.

They take the place of DI-engine's own, which are written in place, have one update more than their name says, and know
nothing of the evaluations.
"""
from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from ding.worker import BaseLearner
from ding.worker.learner.learner_hook import LearnerHook, SaveCkptHook

from ding_cawr.files import unfinished
from ding_cawr.runs.checkpoint import load_whole
from ding_cawr.runs.state import random_state

BEST = 'ckpt_best.pth.tar'
_NUMBERED = re.compile(r'iteration_(\d+)\.pth\.tar')


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; the file is whole or, if this is interrupted or the disk is full, what it was before.

    Raises:
        OSError: it could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with unfinished(path) as temporary:
            torch.save(dict(state), temporary)
    except (OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
        reason, free = str(error).strip().splitlines()[0], shutil.disk_usage(path.parent).free / 2**20
        raise OSError(
            f'{path} could not be written, with {free:.1f} MiB free on its disk ({reason}); the checkpoints before it '
            'are whole: make room, then go on with cawr resume'
        ) from error


def numbered(folder: Path) -> dict[int, Path]:
    """The files ``iteration_<k>.pth.tar`` of a folder by k, the updates that they hold, in ascending order."""
    found = {int(match[1]): path for path in folder.glob('iteration_*') if (match := _NUMBERED.fullmatch(path.name))}
    return dict(sorted(found.items()))


def lock_folder(exp_name: str | Path) -> filelock.FileLock:
    """Keep other processes from training in a run's folder, until released or until this process has ended.

    Raises:
        ValueError: another process trains there.
    """
    Path(exp_name).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(Path(exp_name) / '.lock')
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f'another process is training in {exp_name}; wait for it, or stop it first') from None
    return lock


def score_of_best(folder: Path) -> float:
    """The score that a folder's best checkpoint was kept for; -inf where there is none, or a damaged one."""
    path = folder / BEST
    if not path.exists():
        return -math.inf
    try:
        return float(load_whole(path)['run']['evaluations']['values'][-1])
    except Exception as error:  # a damaged file makes torch's reader fail in many ways
        warnings.warn(
            f'{path} is damaged ({type(error).__name__}); the best evaluation from here on takes its place',
            stacklevel=2
        )
        return -math.inf


class Saving:
    """Writes a learner's checkpoints: every so many updates, at the end, and of the best evaluation.

    The periodic one of k updates is written when update k + 1 is about to begin, so that an evaluation at k belongs to
    it; a run that continues from it does what comes after k and nothing twice.

    Arguments:
        engine: DI-engine's learner.
        keep: how many of the files named by iterations stay; None: all.
        run_state: gives what the run, as opposed to the policy, has to remember, in plain containers, with its
            'evaluations'.
    """

    def __init__(self, engine: BaseLearner, keep: int | None, run_state: Callable[[], dict]) -> None:
        self._folder = Path(engine.exp_name) / 'ckpt'
        self._keep, self._run_state = keep, run_state
        #: The score of the best checkpoint here.
        self._best = score_of_best(self._folder)
        #: Updates that were done, and the random states then.
        self._after: tuple[int, dict[str, Any]] | None = None
        for left in self._folder.glob('.*.pth.tar'):  # by a process that was killed while it wrote
            left.unlink()
        hooks = engine._hooks  # DI-engine has no other door to hooks that are there
        periodic = [hook for hook in hooks['after_iter'] if isinstance(hook, SaveCkptHook)]
        self._freq = periodic[0]._freq if periodic else None
        for position, found in hooks.items():
            hooks[position] = [hook for hook in found if not isinstance(hook, SaveCkptHook)]
        engine.register_hook(Call('save_ckpt_random', 20, position='after_iter', call=self._after_update))
        engine.register_hook(Call('save_ckpt_before_iter', 20, position='before_iter', call=self._before_update))
        # The name by which DI-engine's evaluator has its best checkpoint saved.
        engine.register_hook(Call('save_ckpt_after_run', 20, position='after_run', call=self._save_named))

    def _is_due(self, updates: int) -> bool:
        return self._freq is not None and updates > 0 and updates % self._freq == 0

    def _after_update(self, engine: BaseLearner) -> None:
        """Random states as they are now: what DI-engine's loader draws before the next update, it will draw again."""
        if self._is_due(engine.last_iter.val + 1):
            self._after = engine.last_iter.val + 1, random_state()

    def _before_update(self, engine: BaseLearner) -> None:
        if self._after and self._after[0] == engine.last_iter.val:
            self.save(engine)

    def _save_named(self, engine: BaseLearner) -> None:
        if engine.ckpt_name != BEST:
            self.save(engine)
            return
        score = self._run_state()['evaluations']['values'][-1]
        if score > self._best:  # DI-engine's evaluator forgets its best when a run is continued
            self._write(engine, BEST)
            self._best = score

    def save(self, engine: BaseLearner) -> None:
        """The checkpoint of the present state, named by its updates."""
        if engine.rank != 0:
            return
        self._write(engine, f'iteration_{engine.last_iter.val}.pth.tar')
        files = list(numbered(self._folder).values())
        for path in files[:-self._keep] if self._keep else []:
            path.unlink()

    def _write(self, engine: BaseLearner, name: str) -> None:
        updates, random_then = self._after or (None, None)
        state = {
            **engine.policy.state_dict(), 'last_iter': engine.last_iter.val, 'last_step': engine.collector_envstep,
            'run': {
                **self._run_state(), 'random': random_then if updates == engine.last_iter.val else random_state()
            },
        }
        write_checkpoint(self._folder / name, state)
        engine.info(f'{engine.instance_name} save ckpt in {self._folder / name}')


class Call(LearnerHook):
    """A hook that calls a function."""

    def __init__(self, *args, call: Callable[[BaseLearner], None], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._call = call

    def __call__(self, engine: BaseLearner) -> None:
        self._call(engine)

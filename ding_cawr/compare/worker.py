"""Run one job in a process of its own: DI-engine's pipeline, whose evaluations are recorded."""
from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ding.entry import serial_entry_offline, serial_pipeline_offline
from ding.worker import BaseLearner, InteractionSerialEvaluator

from ding_cawr.compare import results
from ding_cawr.compare.jobs import Job
from ding_cawr.engine import host, replicas
from ding_cawr.machine import machine, versions

#: Seconds between two messages of progress.
PROGRESS_INTERVAL = 0.5

Report = Callable[[str, Any], None]  # ('progress', iteration) or ('score', value)


def run_job(job: Job, folder: Path, threads: int, critics: Path | None, report: Report) -> list[dict[str, Any]]:
    """Train and evaluate; return the lines of the results.

    Arguments:
        folder: where the runs' folders are made, ``run`` or for replicas ``run_seed<seed>``.
        threads: of torch's operations.
        critics: a checkpoint whose critics are taken, where the policy asks for such.
        report: called with what is shown while the job runs.
    """
    torch.set_num_threads(threads)
    warnings.simplefilter('ignore')  # the log of a run is for what DI-engine and the run say
    os.chdir(folder)
    main, create = deepcopy(job.configuration)
    if critics is not None:
        main.policy.learn.pretrained_critics = str(critics)
    recorder, single = Recorder(report), len(job.seeds) == 1
    # DI-engine's pipeline makes its learner and evaluator by these names, and does not return what they find.
    entry = serial_entry_offline if single else replicas
    with host.replaced(entry, InteractionSerialEvaluator=recorder.evaluator(), BaseLearner=recorder.learner()):
        if single:
            serial_pipeline_offline((main, create), seed=job.seeds[0], max_train_iter=job.budget.iterations)
        else:
            replicas.train_replicas((main, create), job.seeds, max_train_iter=job.budget.iterations)
    about = {
        'kind': 'evaluation', 'versions': versions(),
        'machine': {**machine(job.budget.cuda), 'seeds_at_once': len(job.seeds)},
    }
    return [
        {**about, **job.about(seed), 'run': attempt, **each, 'scores': results.scores(job.dataset.env_id,
        each['returns'])} for seed, attempt in ((seed, f'{job.name(seed)}_{uuid.uuid4().hex[:8]}') for seed in
        job.seeds) for each in recorder.evaluations['run' if single else f'run_seed{seed}']
    ]


class Recorder:
    """Records every evaluation, by the run's folder, and the time that training took."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.evaluations: dict[str, list[dict[str, Any]]] = {}
        self._start, self._evaluating, self._next = time.perf_counter(), 0.0, 0.0

    @property
    def training_seconds(self) -> float:
        """Seconds since the first iteration, evaluations aside."""
        return time.perf_counter() - self._start - self._evaluating

    def progress(self, iteration: int) -> None:
        """Report an iteration. The first one, in which libraries choose their kernels, starts the clock."""
        now = time.perf_counter()
        if not self._next:
            self._start = now
        if now >= self._next:
            self._next = now + PROGRESS_INTERVAL
            self.report('progress', iteration)

    def evaluator(self) -> type[InteractionSerialEvaluator]:
        """Return DI-engine's evaluator, which tells this recorder what it finds."""
        recorder = self

        class RecordedEvaluator(InteractionSerialEvaluator):

            def eval(self, save_ckpt_fn=None, train_iter=-1, *args, **kwargs):
                start, trained = time.perf_counter(), recorder.training_seconds
                stop, episodes = super().eval(save_ckpt_fn, train_iter, *args, **kwargs)
                recorder._keep(self._exp_name, train_iter, episodes, trained, time.perf_counter() - start)
                return stop, episodes

        return RecordedEvaluator

    def learner(self) -> type[BaseLearner]:
        """Return DI-engine's learner, which tells this recorder how far it has come."""
        recorder = self

        class RecordedLearner(BaseLearner):

            def call_hook(self, name: str) -> None:
                super().call_hook(name)
                if name == 'after_iter':
                    recorder.progress(self.last_iter.val + 1)

        return RecordedLearner

    def _keep(self, exp_name: str, iteration: int, episodes: dict[str, Any], trained: float, seconds: float) -> None:
        self._evaluating += seconds
        evaluations = self.evaluations.setdefault(exp_name, [])
        before = evaluations[-1] if evaluations else dict(iteration=1, seconds=0.0)
        returns = [float(value) for value in np.ravel(episodes['eval_episode_return'])]
        evaluations.append(dict(
            iteration=int(iteration), returns=returns, seconds=trained, evaluation_seconds=seconds,
            iterations_per_second=(iteration - before['iteration']) / max(trained - before['seconds'], 1e-9),
            time=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        ))
        self.report('evaluation', (iteration, sum(returns) / len(returns)))

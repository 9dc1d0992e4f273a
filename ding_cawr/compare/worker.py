"""Run one job, or the rest of it, in a process of its own: DI-engine's pipeline, whose evaluations are recorded."""
from __future__ import annotations

import json
import math
import os
import shutil
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ding.entry import serial_entry_offline, serial_pipeline_offline
from ding.worker import BaseLearner, InteractionSerialEvaluator

from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.compare import results
from ding_cawr.compare.jobs import RECORD, Job
from ding_cawr.engine import host, replicas
from ding_cawr.engine.resume import can_resume, resume
from ding_cawr.files import unfinished
from ding_cawr.machine import machine, now, versions

#: Seconds between two messages of progress.
PROGRESS_INTERVAL = 0.5

Report = Callable[[str, Any], None]  # ('progress', iteration) or ('evaluation', (iteration, mean return))


def run_job(job: Job, folder: Path, threads: int, critics: Path | None, report: Report) -> list[dict[str, Any]]:
    """Train and evaluate in a folder; return the lines of the results.

    A single run of this package's policies that was interrupted goes on from its last checkpoint, where that can be
    used, and else begins anew.

    Arguments:
        threads: number of threads for torch's operations.
        critics: checkpoint of the critics, None where the policy asks for none.
        report: called with the kind and the value of each event, such as an evaluation.
    """
    torch.set_num_threads(threads)
    warnings.simplefilter('ignore')  # the log of a run is for what DI-engine and the run say
    os.chdir(folder)
    main, create = deepcopy(job.configuration)
    if critics is not None:
        main.policy.learn.pretrained_critics = str(critics)
    single = len(job.seeds) == 1
    recorder = Recorder(report, folder / RECORD if single and create.policy.type in ALGORITHMS else None)
    names = [*create.policy.get('import_names', ()), *create.env.import_names]
    if recorder.evaluations and not _goes_on(folder / job.run_folder(job.seeds[0]), job.budget.iterations, names):
        recorder.evaluations.clear()
    # DI-engine's pipeline makes its learner and evaluator by these names, and does not return what they find.
    with host.replaced(serial_entry_offline, **recorder.parts()):
        if recorder.evaluations:
            resume(job.run_folder(job.seeds[0]), job.budget.iterations, job.dataset.data_path, names)
        elif single:
            serial_pipeline_offline((main, create), seed=job.seeds[0], max_train_iter=job.budget.iterations)
        else:
            replicas.train_replicas((main, create), job.seeds, max_train_iter=job.budget.iterations)
    lines = []
    for seed in job.seeds:
        about = {
            'kind': 'evaluation', **job.about(seed), 'versions': versions(),
            'run': f'{job.name(seed)}_{uuid.uuid4().hex[:8]}',
            'machine': {**machine(job.budget.cuda), 'seeds_at_once': len(job.seeds)},
        }
        lines += [{**about, **each, 'scores': results.scores(job.dataset.env_id, each['returns'], job.settings)}
                  for each in recorder.evaluations[job.run_folder(seed)]]
    return lines


def _goes_on(run: Path, total: int, import_names: list[str]) -> bool:
    """Return whether an interrupted run can go on, without a checkpoint at its end; remove it where it cannot."""
    # It may have been killed in its last evaluation, after its last checkpoint.
    (run / 'ckpt' / f'iteration_{total}.pth.tar').unlink(missing_ok=True)
    if can_resume(run, import_names):
        return True
    shutil.rmtree(run, ignore_errors=True)
    return False


class Recorder:
    """Records every evaluation, by the run's folder, and the time that training took.

    Arguments:
        file: where a run that goes on after an interruption keeps its evaluations, and may have some; None: nowhere.
    """

    def __init__(self, report: Report, file: Path | None) -> None:
        self._report, self._file = report, file
        self.evaluations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        if file and file.exists():
            self.evaluations.update(json.loads(file.read_text()))
        self._start, self._evaluating, self._next = time.perf_counter(), 0.0, 0.0

    def parts(self) -> dict[str, type]:
        """Return DI-engine's learner and evaluator, by their names, which tell this recorder what they do."""
        recorder = self

        class RecordedLearner(BaseLearner):

            def call_hook(self, name: str) -> None:
                super().call_hook(name)
                if name == 'after_iter':
                    recorder._progress(self.last_iter.val + 1)

        class RecordedEvaluator(InteractionSerialEvaluator):

            def eval(self, save_ckpt_fn=None, train_iter=-1, *args, **kwargs):
                start = time.perf_counter()
                stop, episodes = super().eval(save_ckpt_fn, train_iter, *args, **kwargs)
                recorder._keep(self._exp_name, int(train_iter), episodes['eval_episode_return'], start)
                return stop, episodes

        return {'BaseLearner': RecordedLearner, 'InteractionSerialEvaluator': RecordedEvaluator}

    def _progress(self, iteration: int) -> None:
        """Report an iteration. The first one, in which libraries choose their kernels, starts the clock."""
        now = time.perf_counter()
        if not self._next:
            self._start, self._evaluating = now - self._seconds_before(iteration), 0.0
        if now >= self._next:
            self._next = now + PROGRESS_INTERVAL
            self._report('progress', iteration)

    def _seconds_before(self, iteration: int) -> float:
        """Return the seconds of training that a run had at an iteration before it was interrupted."""
        recorded = [each for evaluations in self.evaluations.values() for each in evaluations]
        if not recorded:
            return 0.0
        nearest = max((each for each in recorded if each['iteration'] <= iteration), default=recorded[0],
                      key=lambda each: each['iteration'])
        return nearest['seconds'] + (iteration - nearest['iteration']) / (nearest['iterations_per_second'] or math.inf)

    def _keep(self, exp_name: str, iteration: int, returns: Any, start: float) -> None:
        """Record an evaluation that began at ``start``; the seconds of training leave evaluations out. It replaces
        those that an interrupted run had made from that iteration on."""
        trained, seconds = start - self._start - self._evaluating, time.perf_counter() - start
        if self.evaluations and not self._next:  # it goes on, and has not trained yet
            trained = self._seconds_before(iteration)
        self._evaluating += seconds
        evaluations = [each for each in self.evaluations[exp_name] if each['iteration'] < iteration]
        self.evaluations[exp_name], returns = evaluations, [float(value) for value in np.ravel(returns)]
        before = evaluations[-1] if evaluations else dict(iteration=1, seconds=0.0)
        evaluations.append(dict(
            iteration=iteration, returns=returns, seconds=trained, evaluation_seconds=seconds,
            iterations_per_second=(iteration - before['iteration']) / max(trained - before['seconds'], 1e-9),
            time=now(),
        ))
        if self._file:
            with unfinished(self._file) as temporary:
                temporary.write_text(json.dumps(self.evaluations))
        self._report('evaluation', (iteration, sum(returns) / len(returns)))

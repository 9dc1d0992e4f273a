"""What a run shows while it trains and when it ends: progress, scores, a summary and a learning curve."""
from __future__ import annotations

import atexit
import inspect
import json
import logging
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from ding.entry.cli import cli as ding_command
from ding.worker.learner import base_learner
from ding.worker.learner.learner_hook import LearnerHook, LogReduceHook, register_learner_hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ding_cawr.engine.saving import Call, Saving, lock_folder
from ding_cawr.files import unfinished
from ding_cawr.runs.picture import learning_curve
from ding_cawr.runs.state import restore_random_state

SPEED_SECONDS = 10.0


class EndedBeforeEvaluation(RuntimeError):
    """Training stopped where it should, but before the first evaluation, so the pipeline has no score to return."""


@dataclass
class Evaluations:
    """What the evaluator logged, in order; ``unit`` is 'normalized score', or 'return' where no score is defined."""
    unit: str = 'return'
    iterations: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """In plain containers, for a checkpoint; ``Evaluations(**state)`` is its inverse."""
        return {'unit': self.unit, 'iterations': list(self.iterations), 'values': list(self.values)}

    def record(self, tag: str, value: float, iteration: int) -> None:
        """One scalar of the evaluator; a score replaces the return of the same evaluation."""
        if tag == 'evaluator_iter/reward_mean':
            self.iterations.append(iteration)
            self.values.append(float(value))
        elif tag == 'evaluator_iter/normalized_score_mean':
            self.unit = 'normalized score'
            self.values[-1] = float(value)

    @property
    def last(self) -> float:
        return self.values[-1]

    @property
    def best(self) -> float:
        return max(self.values)

    @property
    def mean_last_three(self) -> float:
        return sum(self.values[-3:]) / len(self.values[-3:])


class RunMonitor(LearnerHook):
    """
    Overview:
        A learner hook, called before the run, that follows it: evaluations come at exact multiples of \
        ``eval.evaluator.eval_freq``, progress is a live bar on a terminal and a line every few seconds elsewhere, and \
        at the end come a summary (``summary.json``) and a learning curve (``learning_curve.png``) in the run's folder.
    """

    def __init__(self, *args, ext_args: dict | None = None, **kwargs) -> None:
        """
        Overview:
            Made by DI-engine from ``learner.hook.monitor``.
        Arguments:
            - ext_args (:obj:`dict`): What DI-engine passes to every hook; not used.
        """
        super().__init__(*args, **kwargs)

    def __call__(self, engine: Any) -> None:
        """
        Overview:
            Attach to the learner before its run, and go on where the checkpoint that it loaded, if any, was. Of \
            several ranks the first one follows the run; the others only keep its cadence.
        Arguments:
            - engine (:obj:`BaseLearner`): The learner.
        """
        # The policy's count is that of its state; DI-engine's own checkpoints have one less beside it.
        engine.last_iter.update(engine.policy.get_attribute('updates'))
        self._schedule(engine)
        if engine.rank == 0:
            self._follow(engine)
        # Behind the summary (10) and the last checkpoint (20).
        engine.register_hook(Call('monitor_end', 40, position='after_run', call=self._leave_without_score))

    def _schedule(self, engine: Any) -> None:
        """Evaluations at exact multiples; DI-engine's evaluator counts from iteration -1: its first one is due so many
        iterations after that."""
        self._evaluator_cfg = engine.policy.get_attribute('cfg').eval.evaluator
        self._eval_freq = self._evaluator_cfg.eval_freq
        self._first = (engine.last_iter.val // self._eval_freq + 1) * self._eval_freq
        self._evaluator_cfg.eval_freq = self._first + 1
        engine.register_hook(Call('monitor_cadence', 30, position='after_iter', call=self._after_first))
        # What the policy logs is of all ranks; DI-engine's hook that would average it needs a GPU.
        hooks = engine._hooks['after_iter']
        hooks[:] = [hook for hook in hooks if not isinstance(hook, LogReduceHook)]

    def _after_first(self, engine: Any) -> None:
        if engine.last_iter.val + 1 > self._first:
            self._evaluator_cfg.eval_freq = self._eval_freq

    def _follow(self, engine: Any) -> None:
        """Progress, checkpoints, and at the end a summary."""
        self._lock = lock_folder(engine.exp_name)
        engine.policy.set_attribute('exp_name', engine.exp_name)
        before, start = engine.policy.get_attribute('run_state') or {}, engine.last_iter.val
        self._evaluations = Evaluations(**before.get('evaluations', {}))
        self._evaluated_before, self._seconds_before = len(self._evaluations.values), before.get('seconds', 0.0)
        watch_evaluator(engine.tb_logger, self._evaluations)
        policy_cfg = engine.policy.get_attribute('cfg')
        self._total = total_iterations(policy_cfg, engine.policy.get_attribute('shares_columns'), start)
        if self._total is not None and self._total < self._first and not self._evaluations.values:
            print(
                f'This run ends at iteration {self._total}, before the first evaluation, which comes at {self._first} '
                '(eval.evaluator.eval_freq); with offline_transitions an epoch is one iteration.'
            )
        self._display = make_display(self._total)
        engine.register_hook(Call('monitor_iteration', 30, position='after_iter', call=self._after_iteration))
        Saving(engine, policy_cfg.learn.keep_checkpoints, self._state)
        # Before the last checkpoint (20): a run that has that has all.
        engine.register_hook(Call('monitor_summary', 10, position='after_run', call=self._after_run))
        if before:
            restore_random_state(before['random'])

    def _state(self) -> dict[str, Any]:
        """What the run remembers in its checkpoints."""
        seconds = self._seconds_before + self._display.seconds
        here = len(self._evaluations.values) - self._evaluated_before
        return {
            'evaluations': self._evaluations.state(), 'evaluated_here': here, 'total': self._total, 'seconds': seconds
        }

    def _after_iteration(self, engine: Any) -> None:
        self._display.show(engine.last_iter.val + 1, self._evaluations)

    def _after_run(self, engine: Any) -> None:
        self._total = engine.last_iter.val  # it may have reached env.stop_value before
        self._display.close(engine.last_iter.val, self._evaluations)
        folder = Path(engine.exp_name)
        if self._evaluations.values:
            summary = write_summary(
                folder, self._evaluations, engine.policy, self._evaluator_cfg.n_episode, engine.last_iter.val,
                self._seconds_before + self._display.seconds
            )
            print(describe(summary, folder), flush=True)

    def _leave_without_score(self, engine: Any) -> None:
        """Where this process made no evaluation, DI-engine's pipeline has no score to print."""
        if engine.rank == 0:
            self._lock.release()
        if engine.last_iter.val < self._first:
            _end_without_score(
                f'Training ended at iteration {engine.last_iter.val}, before the next evaluation, which comes at '
                f'{self._first} (eval.evaluator.eval_freq). The checkpoint is in {Path(engine.exp_name) / "ckpt"}; '
                f'evaluate it with "ding -m eval -c CONFIG --load-path CHECKPOINT", or train to {self._first} '
                'iterations.'
            )


def silence_learner() -> None:
    """Have DI-engine's learner in this process write to no file: the log of a run is that of its first rank, and only
    that one knows the run's folder."""
    def without_file(path: str, name: str | None = None, **kwargs: Any) -> tuple[logging.Logger, None]:
        return logging.getLogger(f'{name}_logger'), None

    base_learner.build_logger = without_file


def watch_evaluator(tb_logger: Any, evaluations: Evaluations) -> None:
    """DI-engine hands scores to nobody but its TensorBoard writer, so this listens there."""
    add_scalar = tb_logger.add_scalar

    def record_and_add(tag, value, step=None, *args, **kwargs):
        evaluations.record(tag, value, step)
        add_scalar(tag, value, step, *args, **kwargs)

    tb_logger.add_scalar = record_and_add


def write_summary(
    folder: Path, evaluations: Evaluations, policy: Any, episodes: int, iterations: int, seconds: float
) -> dict:
    """``summary.json`` and the learning curve of a run that ended after so many iterations; gives the summary.

    Arguments:
        policy: DI-engine's learn mode of the policy, which knows the behaviour policy's mean.
    """
    scored = evaluations.unit == 'normalized score'
    summary = {
        'unit': evaluations.unit,
        'last': evaluations.last,
        'mean_last_three': evaluations.mean_last_three,
        'best': evaluations.best,
        'behaviour_mean': policy.get_attribute('behaviour_score' if scored else 'behaviour_return'),
        'episodes': episodes,
        'iterations': iterations,
        'seconds': seconds,
        'evaluated_at': evaluations.iterations,
        'evaluations': evaluations.values,
        'checkpoint_last': str(folder / 'ckpt' / f'iteration_{iterations}.pth.tar'),
        'checkpoint_best': str(folder / 'ckpt' / 'ckpt_best.pth.tar'),
    }
    with unfinished(folder / 'summary.json') as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + '\n')
    with unfinished(folder / 'learning_curve.png') as temporary:
        learning_curve(temporary, summary, title=folder.name)
    return summary


def _end_without_score(sentence: str) -> None:
    """Leave before DI-engine's pipeline, which has no score to print, fails on that: its command ends with a sentence
    and a caller in Python gets an exception."""
    context = click.get_current_context(silent=True)
    if context is None or context.find_root().command is not ding_command:
        raise EndedBeforeEvaluation(sentence)
    print(sentence, flush=True)
    seeds = context.find_root().params.get('seed') or ()
    if len(seeds) > 1:
        print(f'Of the seeds {list(seeds)} none after this one is trained; give a number of iterations that has an '
              'evaluation, or the seeds one by one.', flush=True)
    sys.exit(int(len(seeds) > 1))


def describe(summary: dict, folder: Path) -> str:
    """The summary as the sentences that end a run."""
    behaviour = summary['behaviour_mean']
    beside = 'unknown' if behaviour is None else f'{behaviour:.1f}'
    return (
        f"\n{summary['unit']}: last {summary['last']:.1f} (at iteration {summary['evaluated_at'][-1]}), mean of the "
        f"last three evaluations {summary['mean_last_three']:.1f}, best so far {summary['best']:.1f} "
        f"(behaviour policy's mean: {beside})\n"
        f"checkpoint: {summary['checkpoint_last']} (best so far: {summary['checkpoint_best']})\n"
        f"learning curve: {folder / 'learning_curve.png'}"
    )


def total_iterations(policy_cfg: Any, clock: bool, start: int = 0) -> int | None:
    """Iteration at which a run that begins at ``start`` will stop, None where that cannot be known.

    With offline_transitions an epoch is an iteration. ``max_train_iter`` is told to DI-engine's pipeline alone, so it
    is read there.
    """
    pipeline = next((each.frame for each in inspect.stack(0) if each.function == 'serial_pipeline_offline'), None)
    asked = float((pipeline.f_locals['max_train_iter'] if pipeline else None) or math.inf)
    total = min(max(asked, start + 1), start + policy_cfg.learn.train_epoch if clock else math.inf)
    return None if total >= 1e8 else int(total)


class _Speed:
    """Iterations a second over the last few seconds."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self._marks = [(self.start, None)]

    def update(self, iteration: int) -> float | None:
        now = time.perf_counter()
        self._marks.append((now, iteration))
        while len(self._marks) > 2 and now - self._marks[0][0] > SPEED_SECONDS:
            self._marks.pop(0)
        then, before = self._marks[0]
        return (iteration - before) / (now - then) if before is not None and now > then else None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def _scores(evaluations: Evaluations) -> str:
    if not evaluations.values:
        return 'no evaluation yet'
    return f'{evaluations.unit} last {evaluations.last:.1f} best {evaluations.best:.1f}'


class Display:
    """Where a run has got to, drawn anew every few seconds."""
    interval: float  # seconds between two drawings

    def __init__(self, total: int | None) -> None:
        self._total, self._speed, self._next = total, _Speed(), 0.0

    @property
    def seconds(self) -> float:
        return self._speed.seconds

    def show(self, iteration: int, evaluations: Evaluations) -> None:
        """Called at every iteration; draws only now and then."""
        if self.seconds >= self._next:
            self._next = self.seconds + self.interval
            self._draw(iteration, evaluations)

    def close(self, iteration: int, evaluations: Evaluations) -> None:
        """The last drawing, which is left standing."""
        self._draw(iteration, evaluations)

    def _draw(self, iteration: int, evaluations: Evaluations) -> None:
        raise NotImplementedError


class LineDisplay(Display):
    """A line every few seconds, for logs and pipes."""
    interval = 5.0

    def _draw(self, iteration: int, evaluations: Evaluations) -> None:
        speed = self._speed.update(iteration)
        left = ''
        if speed and self._total:
            minutes, seconds = divmod(int((self._total - iteration) / speed), 60)
            left = f' | {minutes}:{seconds:02d} left'
        of_total = f'/{self._total}' if self._total else ''
        pace = f' | {speed:.1f} it/s' if speed else ''
        print(f'iteration {iteration}{of_total}{pace}{left} | {_scores(evaluations)}', flush=True)


class BarDisplay(Display):
    """A live bar, for terminals; what DI-engine logs appears above it."""
    interval = 0.25

    def __init__(self, total: int | None) -> None:
        super().__init__(total)
        self._progress = Progress(
            TextColumn('iteration'), MofNCompleteColumn(), BarColumn(bar_width=None), TextColumn('{task.fields[pace]}'),
            TimeRemainingColumn(), TextColumn('left | {task.fields[scores]}'), console=Console(file=sys.stdout)
        )
        self._task = self._progress.add_task('', total=total, pace='', scores='')
        # DI-engine's handlers write around the bar unless they are plain ones, which they ask for at every record.
        self._disable_rich = os.environ.get('DISABLE_RICH')
        os.environ['DISABLE_RICH'] = '1'
        self._progress.start()
        atexit.register(self._stop)  # an interrupted run must not leave the terminal without a cursor

    def close(self, iteration: int, evaluations: Evaluations) -> None:
        """Leave the finished bar standing."""
        super().close(iteration, evaluations)
        self._stop()

    def _draw(self, iteration: int, evaluations: Evaluations) -> None:
        speed = self._speed.update(iteration)
        pace = f'{speed:.1f} it/s' if speed else ''
        self._progress.update(self._task, completed=iteration, pace=pace, scores=_scores(evaluations))

    def _stop(self) -> None:
        self._progress.stop()
        os.environ.pop('DISABLE_RICH', None)
        if self._disable_rich is not None:
            os.environ['DISABLE_RICH'] = self._disable_rich


def make_display(total: int | None) -> Display:
    """A bar on a terminal, lines elsewhere."""
    return BarDisplay(total) if sys.stdout.isatty() else LineDisplay(total)


register_learner_hook('cawr_monitor', RunMonitor)

"""Follow a run beside DI-engine's learner: checkpoints, progress, evaluation cadence, summary."""
from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ding.worker import BaseLearner
from ding.worker.learner.learner_hook import LearnerHook, LogShowHook, SaveCkptHook, register_learner_hook

from ding_cawr.checks import NEVER, POSITIVE_INT, Or
from ding_cawr.engine import folders, host
from ding_cawr.runs.checkpoint import BEST, numbered, score_of_best, write_checkpoint
from ding_cawr.runs.lock import lock_folder
from ding_cawr.runs.progress import Display, Evaluations
from ding_cawr.runs.state import random_state, restore_random_state
from ding_cawr.runs.summary import describe, write_summary

#: What a pipeline's limit may be; DI-engine's default is 1e10.
LIMIT = Or(POSITIVE_INT, [(each, math.inf) for each in (None, math.inf, 1e10)], 'None for no limit')


class Call(LearnerHook):
    """A hook that calls a function."""

    def __init__(self, *args, call: Callable[[BaseLearner], None], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._call = call

    def __call__(self, engine: BaseLearner) -> None:
        self._call(engine)


class Follower:
    """Follows one run: hears its evaluations, writes its checkpoints, and at the end its summary.

    The checkpoints take the place of DI-engine's own, which are written in place, have one update more than their name
    says, and know nothing of the evaluations. The periodic one of k updates is written when update k + 1 is about to
    begin, so that an evaluation at k belongs to it; a run that continues from it does what comes after k and nothing
    twice.

    Arguments:
        engine: DI-engine's learner. Its folder is locked until ``close``, or until what ``watch`` is told of has ended.
        total: the iteration at which the run ends, None where that is not known.
        before: what the run remembered in the checkpoint that it continues from, {} for a new run.
        display: where progress is shown.
    """

    def __init__(self, engine: BaseLearner, total: int | None, before: dict[str, Any], display: Display) -> None:
        self.folder, self.total, self.display = Path(engine.exp_name), total, display
        self._lock = lock_folder(self.folder)
        engine.policy.set_attribute('exp_name', engine.exp_name)
        self.evaluations = Evaluations(**before.get('evaluations', {}))
        self._evaluated_before, self._seconds_before = len(self.evaluations.values), before.get('seconds', 0.0)
        host.listen_to_scores(engine.tb_logger, self.evaluations.record)
        cfg = engine.policy.get_attribute('cfg')
        self._keep, self._episodes = cfg.learn.keep_checkpoints, cfg.eval.evaluator.n_episode
        self._ckpt = self.folder / 'ckpt'
        #: The score of the best checkpoint here.
        self._best = score_of_best(self._ckpt)
        #: Updates that were done, and the random states then.
        self._after: tuple[int, dict[str, Any]] | None = None
        self._is_behind = False  # whether a checkpoint is due that was not written yet
        for left in self._ckpt.glob('.*.pth.tar'):  # by a process that was killed while it wrote
            left.unlink()
        periodic = host.take_hooks(engine, SaveCkptHook)
        self._freq = periodic[0]._freq if periodic else NEVER
        if cfg.learn.learner.hook.log_show_after_iter == NEVER:  # DI-engine's hook would show the first iteration
            host.take_hooks(engine, LogShowHook)
        engine.register_hook(Call('save_ckpt_random', 20, position='after_iter', call=self._after_update))
        engine.register_hook(Call('save_ckpt_before_iter', 20, position='before_iter', call=self._before_update))
        # The name by which DI-engine's evaluator has its best checkpoint saved.
        engine.register_hook(Call('save_ckpt_after_run', 20, position='after_run', call=self._save_named))

    @property
    def seconds(self) -> float:
        """Seconds of training, those before the run was continued counted."""
        return self._seconds_before + self.display.seconds

    def _is_due(self, updates: int) -> bool:
        return updates > 0 and updates % self._freq == 0

    def _after_update(self, engine: BaseLearner) -> None:
        """Keep the random states as they are now: what DI-engine's loader draws before the next update, it will draw
        again."""
        if self._is_due(engine.last_iter.val + 1):
            self._after, self._is_behind = (engine.last_iter.val + 1, random_state()), True

    def _before_update(self, engine: BaseLearner) -> None:
        """Write the checkpoint that is due. Online several updates are done at once, and it is written after them."""
        if self._is_behind:
            self.save(engine)
            self._is_behind = False

    def _save_named(self, engine: BaseLearner) -> None:
        if engine.ckpt_name != BEST:
            self.save(engine)
        # DI-engine's evaluator forgets its best when a run is continued.
        elif math.isfinite(self.evaluations.last) and self.evaluations.last > self._best:
            self._write(engine, BEST)
            self._best = self.evaluations.last

    def save(self, engine: BaseLearner) -> None:
        """Write the checkpoint of the present state, named by its updates; delete those that are too many."""
        self._write(engine, f'iteration_{engine.last_iter.val}.pth.tar')
        files = list(numbered(self._ckpt).values())
        for path in files[:-self._keep] if self._keep else []:
            path.unlink()

    def _write(self, engine: BaseLearner, name: str) -> None:
        updates, random_then = self._after or (None, None)
        run = {
            'evaluations': self.evaluations.state(),
            'evaluated_here': len(self.evaluations.values) - self._evaluated_before,
            'total': self.total, 'seconds': self.seconds,
            'random': random_then if updates == engine.last_iter.val else random_state(),
        }
        write_checkpoint(self._ckpt / name, {
            **engine.policy.state_dict(), 'last_iter': engine.last_iter.val, 'last_step': engine.collector_envstep,
            'run': run,
        })
        engine.info(f'{engine.instance_name} save ckpt in {self._ckpt / name}')

    def finish(self, engine: BaseLearner, iterations: int) -> dict[str, Any]:
        """Write the summary of a run that ended after this number of iterations; return it."""
        scored = self.evaluations.unit == 'normalized score'
        behaviour = engine.policy.get_attribute('behaviour_score' if scored else 'behaviour_return')
        return write_summary(self.folder, self.evaluations, behaviour, self._episodes, iterations, self.seconds)

    def watch(self, pipeline: FrameType) -> None:
        """Close, and give the terminal back, when the function that trains fails or is interrupted."""
        if pipeline.f_code.co_name != '<module>':  # a notebook's cell may end before the run does
            self._lock.watch(pipeline, self.display.stop)

    def close(self) -> None:
        """Let others train in the folder."""
        self._lock.release()


class RunMonitor(LearnerHook):
    """
    Overview:
        A learner hook, called before the run, that follows it: evaluations come at exact multiples of \
        ``eval.evaluator.eval_freq``, progress is a live bar on a terminal and a line every few seconds elsewhere, and \
        at the end come a summary (``summary.json``) and, where there were evaluations, a learning curve \
        (``learning_curve.png``) in the run's folder.
    """

    @folders.beginning()
    def __call__(self, engine: Any) -> None:
        """
        Overview:
            Attach to the learner before its run, and go on where the checkpoint that it loaded, if any, was.
        Arguments:
            - engine (:obj:`BaseLearner`): The learner.
        """
        if (continued := host.Continued.take()) is not None:
            engine.policy.load_state_dict(continued)
            del continued
        # The policy's count is that of its state; DI-engine's own checkpoints have one less beside it.
        self._start = engine.policy.get_attribute('updates')
        engine.last_iter.update(self._start)
        self._schedule(engine)
        before = engine.policy.get_attribute('run_state') or {}
        pipeline = _pipeline()
        total = self._take_end(engine, pipeline.f_locals)
        folders.close_logs_of_others(engine.exp_name)
        self._follower = Follower(engine, total, before, Display(total, self._start))
        self._follower.watch(pipeline)
        if not self._follower.evaluations.values and (total or NEVER) < self._first < NEVER:
            print(
                f'This run ends at iteration {total}, before the first evaluation, which comes at {self._first} '
                '(eval.evaluator.eval_freq).'
            )
        engine.register_hook(Call('monitor_iteration', 30, position='after_iter', call=self._after_iteration))
        # Before the last checkpoint (20): a run that has that has all.
        engine.register_hook(Call('monitor_summary', 10, position='after_run', call=self._after_run))
        engine.register_hook(Call('monitor_end', 40, position='after_run', call=self._leave))
        if before:
            restore_random_state(before['random'])
        folders.begun()

    def _schedule(self, engine: Any) -> None:
        """Have evaluations come at exact multiples; DI-engine's evaluator counts from iteration -1, and its first one
        is due that number of iterations later. Online the first one comes before anything is collected, as in a new run
        there, and several iterations are done at once."""
        self._evaluator_cfg = engine.policy.get_attribute('cfg').eval.evaluator
        self._eval_freq = self._evaluator_cfg.eval_freq
        self._first = (self._start // self._eval_freq + 1) * self._eval_freq
        if engine.policy.get_attribute('is_online'):
            self._first = self._start
        self._evaluator_cfg.eval_freq = self._first + 1

    def _take_end(self, engine: Any, pipeline: Mapping[str, Any]) -> int | None:
        """Return the iteration at which the run ends, None where nothing says. Have the algorithm look at its settings
        for a run of that length.

        Arguments:
            pipeline: local variables of the function that trains, as DI-engine's pipelines name them.
        """
        cfg, clock = engine.policy.get_attribute('cfg'), engine.policy.get_attribute('shares_columns')
        loader, limit = pipeline.get('dataloader'), pipeline.get('max_train_iter', math.inf)
        epoch = 1 if clock else None if loader is None else len(loader)  # an epoch is one iteration of the clock
        if limit is None:
            host.allow_no_limit(engine)
        total = end_of_run(self._start, epoch, cfg.learn.train_epoch, limit)
        if total is not None:
            engine.policy.get_attribute('check_length')(total)
        return total

    def _after_iteration(self, engine: Any) -> None:
        iteration = engine.last_iter.val + 1
        if iteration > self._first:
            self._evaluator_cfg.eval_freq = self._eval_freq
        self._follower.display.show(iteration, self._follower.evaluations)

    def _after_run(self, engine: Any) -> None:
        follower, iteration = self._follower, engine.last_iter.val
        follower.total = iteration  # it may have reached env.stop_value before
        follower.display.close(iteration, follower.evaluations)
        print(describe(follower.finish(engine, iteration), follower.folder), flush=True)

    def _leave(self, engine: Any) -> None:
        """Release the folder. Print what to do where the run ended before its first evaluation."""
        self._follower.close()
        if engine.last_iter.val < self._first < NEVER:
            print(
                f'Training ended at iteration {engine.last_iter.val}, before the next evaluation, which comes at '
                f'{self._first} (eval.evaluator.eval_freq). The checkpoint is in {Path(engine.exp_name) / "ckpt"}; '
                f'evaluate it with "cawr eval CHECKPOINT", or train to {self._first} iterations.', flush=True
            )


def end_of_run(start: int, epoch: int | None, epochs: int, limit: float | None) -> int | None:
    """Return the iteration at which a pipeline ends, None where nothing says.

    Arguments:
        start: the iteration at which it begins.
        epoch: iterations after each of which it looks at its limit; None online, where they are not known.
        epochs: their number.
        limit: its ``max_train_iter``.

    Raises:
        ValueError: the limit is not a positive whole number.
    """
    limit = LIMIT.check('max_train_iter (--train-iter)', limit)
    end = math.inf if epoch is None else start + epochs * epoch
    if end < limit < math.inf:
        warnings.warn(
            f'max_train_iter (--train-iter) is {limit}, but the run ends at iteration {end}, as '
            'policy.learn.train_epoch (in make_config: iterations) says; raise that, too', stacklevel=2
        )
    if limit < math.inf:  # at least one epoch comes before the pipeline looks
        end = min(end, start + max(1, math.ceil((limit - start) / (epoch or 1))) * (epoch or 1))
    return None if end == math.inf else end


def _pipeline() -> FrameType:
    """Return the function that has a learner call the hooks of which one calls this."""
    frame, call_hook = sys._getframe(1), BaseLearner.call_hook.__name__
    while frame.f_code.co_name != call_hook:
        frame = frame.f_back
    while frame.f_code.co_name == call_hook:  # a subclass's calls that of its base
        frame = frame.f_back
    return frame


register_learner_hook('cawr_monitor', RunMonitor)

"""DI-engine's own ``serial_pipeline_offline``, entered from within so that its loop can be timed and paused."""
from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from ding.entry import serial_pipeline_offline
from ding.worker.learner.learner_hook import LearnerHook, register_learner_hook
from easydict import EasyDict

from ding_cawr.bench.parts import ENDLESS, HIDDEN
from ding_cawr.bench.synthetic import environment_id
from ding_cawr.engine.env import space_widths

LOGGERS = ('learner_logger', 'evaluator_logger')
HOOK = 'cawr_bench'

#: Given the seconds from the pipeline's start to the end of its first iteration, goes on iteration by iteration.
Visit = Callable[[float], Generator[None, None, None]]


class _Enough(Exception):
    """The visit is over; there is nothing to wait for in the pipeline."""


class _VisitHook(LearnerHook):
    """A learner hook that advances the visit by one iteration. DI-engine makes it from the configuration, which cannot
    hold a function, so the visit waits at the class."""
    visit: Visit | None = None

    def __init__(self, *args, ext_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._start, self._steps = ext_args['start'], None

    def __call__(self, engine: Any) -> None:
        if self._steps is None:
            self._steps = type(self).visit(time.perf_counter() - self._start)
        try:
            next(self._steps)
        except StopIteration:
            raise _Enough from None


register_learner_hook(HOOK, _VisitHook)


def run_pipeline(configs: tuple, folder: Path, visit: Visit) -> None:
    """Run DI-engine's offline pipeline until the visit ends.

    Arguments:
        configs: (main_config, create_config); not changed.
        folder: where the experiment's files go.
        visit: called at the end of the first iteration, after all that DI-engine does in it (its log, its first
            checkpoint). The loop stands still until it yields, and then goes on for one iteration.
    """
    main, create = configs
    _import_what_comes_late(main.env.env_id)
    hook = dict(type=HOOK, name=HOOK, position='after_iter', priority=100, ext_args=dict(start=time.perf_counter()))
    main = _with_hook(main, hook)
    _VisitHook.visit = visit
    try:
        with _inside(folder), _closing_logs():
            serial_pipeline_offline((main, create), seed=0)
    except _Enough:
        pass
    finally:
        _VisitHook.visit = None
        gc.collect()  # learner and evaluator close their writers when they go, and hold the columns until then


def _import_what_comes_late(env_id: str) -> None:
    """Import what the first use would import, so that the time to the first iteration leaves it out: the simulator, and
    torch's compiler, which comes with the first optimizer."""
    space_widths(env_id)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


def _with_hook(main: EasyDict, hook: dict) -> EasyDict:
    """Return the configuration with one more hook of the learner."""
    learn = main.policy.learn
    learner = learn.get('learner', {})
    learner = {**learner, 'hook': {**learner.get('hook', {}), HOOK: hook}}
    return EasyDict({**main, 'policy': {**main.policy, 'learn': {**learn, 'learner': learner}}})


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, because DI-engine writes there, and without output, because stdout is for results."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with open(os.devnull, 'w') as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _closing_logs() -> Iterator[None]:
    """Close the files of DI-engine's loggers, which would go on writing to them."""
    before = {name: list(logging.getLogger(name).handlers) for name in LOGGERS}
    try:
        yield
    finally:
        for name, handlers in before.items():
            logger = logging.getLogger(name)
            for handler in [each for each in logger.handlers if each not in handlers]:
                logger.removeHandler(handler)
                handler.close()


def td3_bc_configuration(batch_size: int, obs_shape: int, action_shape: int, device: str, data_path: Path) -> tuple:
    """Return a configuration of DI-engine's td3_bc: its settings, its list of dicts; networks and batch as ours."""
    main = dict(
        exp_name='td3_bc',
        env=dict(env_id=environment_id(obs_shape, action_shape), n_evaluator_episode=1, stop_value=ENDLESS),
        policy=dict(
            cuda=device == 'cuda',
            model=dict(
                obs_shape=obs_shape, action_shape=action_shape, actor_head_hidden_size=HIDDEN,
                critic_head_hidden_size=HIDDEN
            ),
            learn=dict(train_epoch=ENDLESS, batch_size=batch_size),
            collect=dict(data_type='naive', data_path=str(data_path)),
            eval=dict(evaluator=dict(eval_freq=ENDLESS)),
        ),
    )
    create = dict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']),
        env_manager=dict(type='base'),
        policy=dict(type='td3_bc', import_names=['ding.policy.td3_bc']),
    )
    return EasyDict(main), EasyDict(create)

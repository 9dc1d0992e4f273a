"""DI-engine's own ``serial_pipeline_offline``, entered from within so that its loop can be timed and paused."""
from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import torch
from ding.entry import serial_entry_offline
from ding.worker import BaseLearner
from easydict import EasyDict

from ding_cawr.bench.parts import ENDLESS, HIDDEN
from ding_cawr.bench.synthetic import environment_id
from ding_cawr.engine import host
from ding_cawr.engine.folders import LOGGERS, close_files
from ding_cawr.environments import try_out

#: Given the seconds from the pipeline's start to the end of its first iteration, goes on iteration by iteration.
Visit = Callable[[float], Generator[None, None, None]]


class _Enough(Exception):
    """The visit is over; there is nothing to wait for in the pipeline."""


def run_pipeline(configs: tuple, folder: Path, visit: Visit) -> None:
    """Run DI-engine's offline pipeline, with its files in a folder, until the visit ends.

    The visit is called at the end of the first iteration, after all that DI-engine does in it (its log, its first
    checkpoint). The loop stands still until it yields, and then goes on for one iteration.
    """
    # What the first use would import is left out of the time: the simulator, and torch's compiler with an optimizer.
    try_out(configs[0].env.env_id)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    start = time.perf_counter()

    class VisitedLearner(BaseLearner):
        steps = None

        def call_hook(self, name: str) -> None:
            super().call_hook(name)
            if name == 'after_iter':
                self.steps = self.steps or visit(time.perf_counter() - start)
                try:
                    next(self.steps)
                except StopIteration:
                    raise _Enough from None

    try:
        with _inside(folder), _closing_logs(), host.replaced(serial_entry_offline, BaseLearner=VisitedLearner):
            serial_entry_offline.serial_pipeline_offline(configs, seed=0)
    except _Enough:
        pass
    finally:
        gc.collect()  # learner and evaluator close their writers when they go, and hold the columns until then


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
            close_files(logging.getLogger(name), set(logging.getLogger(name).handlers) - set(handlers))


def td3_bc_configuration(batch_size: int, obs_shape: int, action_shape: int, device: str, data_path: Path) -> tuple:
    """Return a configuration of DI-engine's td3_bc: its settings, its list of dicts; networks and batch as ours."""
    widths = dict(obs_shape=obs_shape, action_shape=action_shape)
    main = dict(
        exp_name='td3_bc',
        env=dict(env_id=environment_id(**widths), n_evaluator_episode=1, stop_value=ENDLESS),
        policy=dict(
            cuda=device == 'cuda',
            model=dict(**widths, actor_head_hidden_size=HIDDEN, critic_head_hidden_size=HIDDEN),
            learn=dict(train_epoch=ENDLESS, batch_size=batch_size),
            collect=dict(data_type='naive', data_path=str(data_path)),
            eval=dict(evaluator=dict(eval_freq=ENDLESS)),
        ),
    )
    create = dict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']), env_manager=dict(type='base'),
        policy=dict(type='td3_bc', import_names=['ding.policy.td3_bc']),
    )
    return EasyDict(main), EasyDict(create)

"""Runs that go on where they were stopped."""
from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ding.config import compile_config
from ding.entry import serial_entry_offline, serial_pipeline_offline
from easydict import EasyDict

from ding_cawr.checkpoint import load_whole
from ding_cawr.monitor import EndedBeforeEvaluation
from ding_cawr.ranks import Ranks
from ding_cawr.saving import numbered


def resume(exp_dir: str | Path, train_iter: int | None = None) -> Path:
    """Continue a run in its own folder, by DI-engine's offline pipeline, from its last checkpoint that is whole.

    On a CPU of the same kind it ends with what it would have ended with if it had never been stopped: networks,
    optimizers, priorities, random states, scores. Evaluations between that checkpoint and the stop are made again. A
    run of several ranks can go on in one process, and the other way round, up to rounding.

    Arguments:
        exp_dir: the run's folder, which has ``ckpt``; the data must still be where its configuration says.
        train_iter: iterations in all, those before counted; None: what the run was to do.

    Returns:
        The last checkpoint.

    Raises:
        FileNotFoundError: no such folder, or no whole checkpoint in it.
        ValueError: a checkpoint that does not say how its run was configured, a run that is at its end already, or one
            that another process trains.
    """
    folder = Path(exp_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {str(exp_dir)!r}; give the folder of a run, which has ckpt/')
    updates, path, state = _last(folder)
    main, create = _configuration(path, state)
    total = train_iter or state['run']['total']
    if total is None:
        raise ValueError(f'{path} does not say how long its run was to be; give --train-iter')
    if total <= updates:
        raise ValueError(f'{folder} has its {updates} iterations; to go on, give --train-iter with more than that')
    main.exp_name = os.path.relpath(folder)
    main.policy.learn.train_epoch = total - updates  # an epoch is an iteration, and they count from here on
    main.policy.learn.learner.hook.load_ckpt_before_run = str(path)
    main.policy.multi_gpu = Ranks.of_process_group().size > 1  # not what it was: any number of ranks can go on
    main.env.evaluations_before = main.env.get('evaluations_before', 0) + state['run']['evaluated_here']
    # The next evaluation may come after the end.
    with _in_the_same_folder(), suppress(EndedBeforeEvaluation):
        serial_pipeline_offline((main, create), seed=main.seed, max_train_iter=total)
    return folder / 'ckpt' / f'iteration_{total}.pth.tar'


def _last(folder: Path) -> tuple[int, Path, dict[str, Any]]:
    """The newest checkpoint that is whole: its updates, path and state."""
    for updates, path in reversed(numbered(folder / 'ckpt').items()):
        try:
            state = load_whole(path)
        except Exception as error:  # a damaged file makes torch's reader fail in many ways
            warnings.warn(f'{path} is damaged and passed over ({type(error).__name__})', stacklevel=2)
            continue
        return updates, path, state
    raise FileNotFoundError(f'{folder / "ckpt"} has no whole checkpoint iteration_<k>.pth.tar to go on from')


def _configuration(path: Path, state: dict[str, Any]) -> tuple[EasyDict, EasyDict]:
    """(main_config, create_config) of the run that wrote a checkpoint."""
    text = state.get('configuration')
    if text is None or 'run' not in state:
        raise ValueError(
            f'{path} does not say how its run was configured (data_type offline_transitions and the cawr_monitor hook '
            'write that); continue it with learner.hook.load_ckpt_before_run in its configuration'
        )
    cfg = EasyDict(json.loads(text))
    create = EasyDict(
        env={key: cfg.env[key] for key in ('type', 'import_names') if key in cfg.env},
        env_manager=dict(type=cfg.env.manager.type),
        policy={key: cfg.policy[key] for key in ('type', 'import_names') if key in cfg.policy},
    )
    create.policy.type = create.policy.type.removesuffix('_command')
    for section in (cfg.env, cfg.policy):  # what create_config brings along
        section.pop('type', None)
    return cfg, create


@contextmanager
def _in_the_same_folder() -> Iterator[None]:
    """DI-engine would otherwise take a new folder where one of that name exists."""
    before = serial_entry_offline.compile_config
    serial_entry_offline.compile_config = partial(compile_config, renew_dir=False)
    try:
        yield
    finally:
        serial_entry_offline.compile_config = before

"""A small launcher of data-parallel training on CPUs, where DI-engine's own wants CUDA: one process a rank, by gloo.

    launch(2, 'forms', folder)

starts this file twice, ``python ranks.py forms FOLDER RANK 2``; each process joins a process group and runs the task.
"""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from ding.entry import serial_pipeline_offline
from ding.worker.learner.learner_hook import LearnerHook, register_learner_hook
from easydict import EasyDict
from test_training import FORMS, make_model, make_training
from torch import distributed as dist

from ding_cawr import make_config
from ding_cawr.ranks import Ranks
from ding_cawr.training.loop import Training

ITERATIONS = 30
SEED = 3


def launch(size: int, task: str, folder: Path, timeout: float = 240) -> list[subprocess.CompletedProcess]:
    """Run a task on so many ranks; what each of them printed, and how it ended."""
    (folder / 'store').unlink(missing_ok=True)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo', 'PYTHONWARNINGS': 'ignore'}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, task, str(folder), str(rank), str(size)], cwd=folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) for rank in range(size)
    ]
    try:
        return [
            subprocess.CompletedProcess(each.args, each.returncode, printed)
            for each in processes for printed, _ in [each.communicate(timeout=timeout)]
        ]
    finally:
        for each in processes:
            each.kill()


def frozen_state() -> dict[str, Any]:
    """A learner's state whose critics are taken over."""
    model = make_model(8)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return {'model': model.state_dict(), 'target_critic': model.critic.state_dict()}


def trainings(ranks: Ranks) -> dict[str, Training]:
    """Every form, and the policy alone with frozen critics, which differ from rank to rank in nothing."""
    made = {
        name: make_training(SEED, learn, ranks=ranks, priority_refresh=None if learn.get('priority') == 'none' else 20)
        for name, learn in FORMS.items()
    }
    for weighting in ('per_sample', 'batch_mean'):
        made[f'frozen, {weighting}'] = make_training(SEED, dict(weighting=weighting, temperature=0.5), ranks=ranks)
        made[f'frozen, {weighting}'].freeze_critics(frozen_state())
    return made


def history(training: Training) -> dict[str, Any]:
    """Of some iterations: the gradients of the first, the metrics of all, and the state after the last."""
    found: dict[str, Any] = {'metrics': []}
    for _ in range(ITERATIONS):
        step = training.iterate()
        found.setdefault('gradients', {
            name: parameter.grad.clone() for name, parameter in training.update.networks.parameters.items()
            if parameter.grad is not None
        })
        found['metrics'].append(training.metrics(step))
    training.check_ranks()
    return {**found, 'state': training.state_dict(), 'model': training.update.model.state_dict()}


def forms(folder: Path, ranks: Ranks) -> None:
    """Histories of all forms, in a file for each rank."""
    torch.save({name: history(each) for name, each in trainings(ranks).items()}, folder / f'forms_{ranks.rank}.pt')


def pipeline_config(folder: Path, exp_name: str, multi_gpu: bool, **more) -> tuple[EasyDict, EasyDict]:
    """A short run on the file data.hdf5 of a folder, in float32 as all runs are."""
    return make_config(
        'hopper-medium-v2', data_path=str(folder / 'data.hdf5'), exp_name=exp_name, iterations=60, eval_freq=20,
        batch_size=32, n_evaluator_episode=2, policy=dict(
            multi_gpu=multi_gpu, model=dict(hidden_sizes=(16, 16)),
            learn=dict(learner=dict(hook=dict(log_show_after_iter=10, save_ckpt_after_iter=15))),
        ), **more
    )


def pipeline(folder: Path, ranks: Ranks) -> None:
    """DI-engine's offline pipeline, as a user's script has it."""
    serial_pipeline_offline(pipeline_config(folder, 'together', multi_gpu=True), seed=SEED)


def further(folder: Path, ranks: Ranks) -> None:
    """On from a checkpoint of ``pipeline``, by DI-engine's own way."""
    main, create = pipeline_config(folder, 'further', multi_gpu=True)
    main.policy.learn.learner.hook.load_ckpt_before_run = 'together/ckpt/iteration_45.pth.tar'
    serial_pipeline_offline((main, create), seed=SEED, max_train_iter=60)


def short(folder: Path, ranks: Ranks) -> None:
    """A run that ends before its first evaluation."""
    serial_pipeline_offline(pipeline_config(folder, 'short', multi_gpu=True), seed=SEED, max_train_iter=15)


def naive(folder: Path, ranks: Ranks) -> None:
    """On DI-engine's stock dataset, whose loader brings other rows to each rank; what each of them then holds."""
    main, create = pipeline_config(folder, 'naive', multi_gpu=True)
    main.policy.collect = dict(data_type='naive', data_path=str(folder / 'rows.pkl'))
    main.policy.learn.train_epoch = 3
    main.policy.eval.evaluator.eval_freq = 9
    policy, _ = serial_pipeline_offline((main, create), seed=SEED)
    buffer = policy._training.buffer
    torch.save({**buffer.columns, 'priority': buffer.priority}, folder / f'naive_{ranks.rank}.pt')


class Dying(LearnerHook):
    """The last rank is killed in the middle of its 30th iteration."""

    def __call__(self, engine) -> None:
        if engine.last_iter.val == 30 and engine.rank == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def dying(folder: Path, ranks: Ranks) -> None:
    """A run of which one rank is killed."""
    register_learner_hook('dying', Dying)
    main, create = pipeline_config(folder, 'dying', multi_gpu=True)
    main.policy.learn.learner.hook.dying = dict(type='dying', name='dying', position='before_iter', priority=30)
    serial_pipeline_offline((main, create), seed=SEED)


def uneven(folder: Path, ranks: Ranks) -> None:
    """A batch that two ranks cannot share."""
    main, create = pipeline_config(folder, 'uneven', multi_gpu=True)
    main.policy.learn.batch_size = 31
    serial_pipeline_offline((main, create), seed=SEED)


def several_for_one(folder: Path, ranks: Ranks) -> None:
    """Several processes that were not told of each other."""
    serial_pipeline_offline(pipeline_config(folder, 'unasked', multi_gpu=False), seed=SEED)


def other_data(folder: Path, ranks: Ranks) -> None:
    """Ranks that read different files."""
    _on_two_files(folder, ranks, 'other.hdf5')


def other_order(folder: Path, ranks: Ranks) -> None:
    """Ranks that read the same rows in another order."""
    _on_two_files(folder, ranks, 'turned.hdf5')


def _on_two_files(folder: Path, ranks: Ranks, other: str) -> None:
    main, create = pipeline_config(folder, 'other', multi_gpu=True)
    main.policy.collect.data_path = str(folder / ('data.hdf5' if ranks.rank == 0 else other))
    serial_pipeline_offline((main, create), seed=SEED)


TASKS = {
    each.__name__: each
    for each in (forms, pipeline, further, short, naive, dying, uneven, several_for_one, other_data, other_order)
}


def main() -> None:
    task, folder, rank, size = sys.argv[1:]
    store = dist.FileStore(str(Path(folder) / 'store'), int(size))
    dist.init_process_group('gloo', store=store, rank=int(rank), world_size=int(size))
    try:
        TASKS[task](Path(folder), Ranks.of_process_group())
        dist.barrier()
    finally:  # its threads would now and then abort a Python that is ending
        dist.destroy_process_group()


if __name__ == '__main__':
    main()

"""d3rlpy's IQL, timed block by block for speed.py; runs in an environment that has d3rlpy, and needs nothing of ours.

    python speed_d3rlpy.py FILE.hdf5 BATCH_SIZE BLOCK DEVICE THREADS

FILE is in D4RL's layout. Writes a line of JSON with versions when it is ready; then for each line that it reads, 'loop'
or 'update', runs BLOCK iterations and writes {"ms": milliseconds of one}.
"""
import json
import logging
import os
import sys
import time

import d3rlpy
import h5py
import structlog
import torch
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models import VectorEncoderFactory

ENDLESS = 10**6


def open_dataset(path: str) -> d3rlpy.dataset.MDPDataset:
    """Return the file as d3rlpy's own dataset."""
    with h5py.File(path) as file:
        columns = {name: file[name][()] for name in ('observations', 'actions', 'rewards', 'terminals', 'timeouts')}
    columns['timeouts'][-1] = not columns['terminals'][-1]  # d3rlpy wants the last episode to end
    return d3rlpy.dataset.MDPDataset(**{
        name: column.astype('float32') if name in ('terminals', 'timeouts') else column
        for name, column in columns.items()
    })


def main(path: str, batch_size: int, block: int, device: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # stdout is for answers, whatever d3rlpy writes there
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if threads:
        torch.set_num_threads(threads)
    dataset, encoder = open_dataset(path), VectorEncoderFactory([256, 256])
    algorithm = d3rlpy.algos.IQLConfig(
        batch_size=batch_size, actor_encoder_factory=encoder, critic_encoder_factory=encoder,
        value_encoder_factory=encoder
    ).create(device={'cuda': 'cuda:0'}.get(device, device))
    epochs = algorithm.fitter(
        dataset, n_steps=ENDLESS * block, n_steps_per_epoch=block, show_progress=False,
        logger_adapter=NoopAdapterFactory(), save_interval=ENDLESS
    )
    next(epochs)  # builds the networks, and warms up
    batch = dataset.sample_transition_batch(batch_size)

    def update() -> None:
        for _ in range(block):
            algorithm.update(batch)

    commands = {'loop': lambda: next(epochs), 'update': update}
    print(json.dumps({'d3rlpy': d3rlpy.__version__, 'torch': torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        commands[line.strip()]()
        print(json.dumps({'ms': 1e3 * (time.perf_counter() - start) / block}), file=answers, flush=True)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))

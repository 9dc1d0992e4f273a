"""Trains for an hour and watches the memory, the open files and the threads of the process.

    python benchmarks/soak.py [--minutes 60] [--transitions 200000] [--out FILE.json]

`ding -m serial_offline` on synthetic data of hopper's width, with the default networks and batch, an evaluation every
500 iterations and a checkpoint every 250, far more often than in use. What its process holds is read every ten seconds.
The first quarter of the time counts as warming up; growth is the slope of a line through the rest.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ding_cawr.bench.synthetic import synthetic_columns, write_d4rl_file
from ding_cawr.machine import machine, versions
from ding_cawr.runs.checkpoint import numbered

CONFIG = """
from ding_cawr import make_config

main_config, create_config = make_config(
    'Hopper-v4', data_path={data!r}, exp_name='run', iterations=10**9, eval_freq=500, n_evaluator_episode=2,
    policy=dict(learn=dict(learner=dict(hook=dict(save_ckpt_after_iter=250, log_show_after_iter=100)))),
)
"""
EVERY = 10.0  # seconds
MIB = 2**20


def sample(process: subprocess.Popen) -> dict[str, float]:
    """Return the resources of a process: resident memory in MiB, open files, threads."""
    folder = Path('/proc') / str(process.pid)
    pages = int((folder / 'statm').read_text().split()[1])
    return {
        'rss_mib': pages * os.sysconf('SC_PAGE_SIZE') / MIB,
        'files': len(list((folder / 'fd').iterdir())),
        'threads': len(list((folder / 'task').iterdir())),
    }


def watch(process: subprocess.Popen, seconds: float) -> list[dict[str, float]]:
    """Return samples until the time is over.

    Raises:
        RuntimeError: the run ended before.
    """
    start, samples = time.monotonic(), []
    while (now := time.monotonic() - start) < seconds:
        if process.poll() is not None:
            raise RuntimeError(f'the run ended with {process.returncode} after {now:.0f} s')
        samples.append({'seconds': now, **sample(process)})
        time.sleep(EVERY)
    return samples


def growth(samples: list[dict[str, float]], name: str) -> dict[str, float]:
    """Return first and last value, extremes and slope an hour of one figure after the first quarter."""
    late = samples[len(samples) // 4:]
    seconds, values = (np.array([each[key] for each in late]) for key in ('seconds', name))
    slope = np.polyfit(seconds, values, 1)[0] * 3600
    found = {'first': values[0], 'last': values[-1], 'least': values.min(), 'most': values.max(), 'an_hour': slope}
    return {key: round(float(value), 2) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--transitions', type=int, default=200_000)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / 'data.hdf5'
        write_d4rl_file(data, synthetic_columns(args.transitions, 11, 3))
        (Path(folder) / 'config.py').write_text(CONFIG.format(data=str(data)))
        command = [str(Path(sys.executable).parent / 'ding'), '-m', 'serial_offline', '-c', 'config.py']
        with open(Path(folder) / 'log.txt', 'wb') as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            samples = watch(process, args.minutes * 60)
        except RuntimeError:
            print((Path(folder) / 'log.txt').read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()
        iterations = max(numbered(Path(folder) / 'run' / 'ckpt'))
    result = dict(
        minutes=args.minutes, transitions=args.transitions, iterations=iterations, evaluations=iterations // 500,
        checkpoints=iterations // 250, samples=len(samples), machine=machine(cuda=False), versions=versions(),
        **{name: growth(samples, name) for name in ('rss_mib', 'files', 'threads')},
    )
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

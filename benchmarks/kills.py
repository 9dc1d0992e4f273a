"""Kills a run again and again, and compares what it ends with with a run that was never killed.

    python benchmarks/kills.py [--kills 100] [--iterations 3000] [--seed 0] [--out FILE.json]

A run on synthetic data saves every 50 iterations and evaluates every 100. SIGKILL falls at a random moment after the
run has begun to train, every other time just when a checkpoint is being written; `cawr resume` continues it. A run
that has reached its end is compared, every checkpoint bit by bit, and another one begins, until there were enough.
"""
from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ding_cawr.bench.synthetic import synthetic_columns, write_d4rl_file
from ding_cawr.saving import numbered

CONFIG = """
from ding_cawr import make_config

main_config, create_config = make_config(
    'Hopper-v4', data_path={data!r}, exp_name='run', iterations={iterations}, eval_freq=100, batch_size=64,
    n_evaluator_episode=2, policy=dict(
        model=dict(hidden_sizes=(32, 32)), learn=dict(learner=dict(hook=dict(save_ckpt_after_iter=50))),
    ),
)
"""
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
#: Of a state: how long it took, what of it the last process did, and where it came from.
ASIDE = ('/run/seconds', '/run/evaluated_here', '/configuration')


def begin(folder: Path, resuming: bool) -> subprocess.Popen:
    """Start or continue the run of a folder."""
    words = ['-m', 'ding_cawr', 'resume', 'run']
    if not resuming:
        words = [str(Path(sys.executable).parent / 'ding'), '-m', 'serial_offline', '-c', 'config.py']
    with open(folder / 'log.txt', 'ab') as log:
        return subprocess.Popen([sys.executable, *words], cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT)


def until_killed(folder: Path, rng: random.Random, tally: dict[str, int]) -> bool:
    """Let the run train for a random while and kill it; whether it ended before."""
    checkpoints = folder / 'run' / 'ckpt'
    before = max(numbered(checkpoints), default=0)
    process = begin(folder, resuming=before > 0)
    while process.poll() is None and max(numbered(checkpoints), default=0) <= before:
        time.sleep(0.005)
    end = time.monotonic() + rng.uniform(0, 3)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    aimed = rng.random() < 0.5  # at a file that is being written
    while aimed and process.poll() is None and not list(checkpoints.glob('.*.pth.tar')):
        pass
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        tally['kills'] += 1
        tally['killed while a checkpoint was written'] += bool(list(checkpoints.glob('.*.pth.tar')))
        return False
    if process.returncode != 0:
        tally['runs that could not go on'] += 1
        print((folder / 'log.txt').read_text()[-2000:], file=sys.stderr)
    return True


def checkpoints_of(folder: Path) -> dict[str, dict]:
    """States by name; a file that cannot be read is None."""
    states = {}
    for path in (folder / 'run' / 'ckpt').iterdir():
        try:
            states[path.name] = torch.load(path, weights_only=True)
        except Exception:  # a damaged file makes torch's reader fail in many ways
            states[path.name] = None
    return states


def flattened(state: object, prefix: str = '') -> dict[str, object]:
    """Values of nested containers by their path."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else None
    if items is None:
        return {prefix: state}
    return {key: value for name, part in items for key, value in flattened(part, f'{prefix}/{name}').items()}


def same(got: dict, wanted: dict) -> bool:
    """Whether two states agree bit by bit."""
    got, wanted = flattened(got), flattened(wanted)
    return got.keys() == wanted.keys() and all(
        torch.equal(got[name], value) if isinstance(value, torch.Tensor) else got[name] == value
        for name, value in wanted.items() if name not in ASIDE
    )


def compare(folder: Path, wanted: dict[str, dict], tally: dict[str, int]) -> None:
    """Count what a run that was killed and reached its end has, beside the run that was not."""
    got = checkpoints_of(folder)
    tally['runs that reached their end'] += 1
    tally['checkpoints compared'] += len(wanted)
    tally['lost checkpoints'] += len(wanted.keys() - got.keys())
    tally['damaged files'] += sum(state is None for state in got.values())
    tally['other results'] += sum(not same(got[name], wanted[name]) for name in wanted if got.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--iterations', type=int, default=3000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    tally = dict.fromkeys((
        'kills', 'killed while a checkpoint was written', 'runs that reached their end', 'runs that could not go on',
        'checkpoints compared', 'lost checkpoints', 'damaged files', 'other results'
    ), 0)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = work / 'data.hdf5'
        write_d4rl_file(data, synthetic_columns(5000, 11, 3))
        folders = (work / str(number) for number in range(10**6))
        whole = next(folders)
        prepare(whole, data, args.iterations)
        if begin(whole, resuming=False).wait() != 0:
            raise RuntimeError((whole / 'log.txt').read_text()[-2000:])
        wanted = checkpoints_of(whole)
        while tally['kills'] < args.kills:
            killed = next(folders)
            prepare(killed, data, args.iterations)
            while not until_killed(killed, rng, tally) and not is_complete(killed, args.iterations):
                print(tally, file=sys.stderr, flush=True)
            compare(killed, wanted, tally)
    for name, count in tally.items():
        print(f'{count:6} {name}')
    if args.out:
        args.out.write_text(json.dumps({**vars(args), 'out': None, **tally}, indent=1) + '\n')


def is_complete(folder: Path, iterations: int) -> bool:
    """Whether a run that was killed had written its last checkpoint."""
    return iterations in numbered(folder / 'run' / 'ckpt')


def prepare(folder: Path, data: Path, iterations: int) -> None:
    """The folder of a run, with its configuration."""
    folder.mkdir()
    (folder / 'config.py').write_text(CONFIG.format(data=str(data), iterations=iterations))


if __name__ == '__main__':
    main()

"""Kill runs and commands again and again, and compare their results with those of uninterrupted ones.

    python benchmarks/kills.py [--kills 100] [--iterations 2000] [--seed 0] [--out FILE.json]

SIGKILL falls, in turn, while a run starts or is resumed, somewhere in training, while a checkpoint is being written,
during an evaluation, during a download and while data are collected or written. A run trains on synthetic data, saves
every 50 iterations and evaluates every 100; `cawr resume` continues it, or `ding` begins again where it had saved
nothing, and at its end every checkpoint and the summary are compared, bit by bit. `cawr data
download`, from a server of this script's, and `cawr data collect` are started again until they end, and the file is
compared byte by byte; a file that bears its name before must be that file. Ends with 1 if anything was lost, damaged or
different.
"""
from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tests'))

from conftest import FileServer  # noqa: E402  (tests/conftest.py)
from helpers import differences  # noqa: E402  (tests/helpers.py)

from ding_cawr.bench.synthetic import synthetic_columns, write_d4rl_file  # noqa: E402
from ding_cawr.files import sha256  # noqa: E402
from ding_cawr.machine import machine, versions  # noqa: E402
from ding_cawr.runs.checkpoint import numbered  # noqa: E402

EPISODES = 5
CONFIG = """
from ding_cawr import make_config

main_config, create_config = make_config(
    'Hopper-v4', data_path={data!r}, exp_name='run', iterations={iterations}, eval_freq=100, batch_size=64,
    n_evaluator_episode={episodes}, trust=dict(type='linear', start={iterations} // 4, iterations={iterations} // 4),
    policy=dict(
        model=dict(hidden_sizes=(32, 32)), learn=dict(learner=dict(hook=dict(save_ckpt_after_iter=50))),
    ),
)
"""
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', 'no_proxy': '127.0.0.1'}
IN_A_RUN = ('start', 'training', 'checkpoint', 'evaluation')
START = 8.0  # seconds in which a run has begun to train, about
DATASET = 'hopper-medium-v2'
ROWS = 60_000  # of the file that is downloaded
STEPS = 20_000  # of the dataset that is collected


@dataclass
class Tally:
    """Kills by what was going on, and what came of it."""
    kills: Counter = field(default_factory=Counter)
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys((
        'checkpoints compared', 'downloads compared', 'datasets compared', 'lost', 'damaged', 'different',
        'could not go on'
    ), 0))

    @property
    def failed(self) -> bool:
        return any(self.found[name] for name in ('lost', 'damaged', 'different', 'could not go on'))


def start(words: list[str], folder: Path) -> subprocess.Popen:
    """Start a command of a user in a folder; what it prints goes to log.txt."""
    with open(folder / 'log.txt', 'ab') as log:
        return subprocess.Popen([sys.executable, *words], cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT)


def kill(process: subprocess.Popen) -> bool:
    """Send SIGKILL; return whether it came before the process had ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def wait(process: subprocess.Popen, until: Callable[[], bool], pause: float = 0.002) -> None:
    """Wait until something is so, or the process has ended."""
    while process.poll() is None and not until():
        time.sleep(pause)


class Run:
    """A training run that is killed and resumed until its end."""

    def __init__(self, folder: Path, data: Path, iterations: int) -> None:
        folder.mkdir()
        text = CONFIG.format(data=str(data), iterations=iterations, episodes=EPISODES)
        (folder / 'config.py').write_text(text)
        self.folder, self.iterations, self.checkpoints = folder, iterations, folder / 'run' / 'ckpt'

    def begin(self) -> subprocess.Popen:
        """Start it, or go on."""
        if any(self.checkpoints.glob('[!.]*')):
            return start(['-m', 'ding_cawr', 'resume', 'run'], self.folder)
        shutil.rmtree(self.folder / 'run', ignore_errors=True)
        ding = str(Path(sys.executable).parent / 'ding')
        return start([ding, '-m', 'serial_offline', '-c', 'config.py'], self.folder)

    def last(self) -> int:
        """Return the updates of its newest checkpoint, 0 for none."""
        return max(numbered(self.checkpoints), default=0)

    def is_writing(self) -> bool:
        return bool(list(self.checkpoints.glob('.*.pth.tar')))

    def evaluated(self) -> int:
        """Return the episodes of evaluations that the log tells of."""
        log = self.folder / 'run' / 'log' / 'evaluator' / 'evaluator_logger.txt'
        return log.read_text().count('finish episode') if log.exists() else 0

    def is_over(self) -> bool:
        return self.last() >= self.iterations

    def kill_once(self, moment: str, rng: random.Random, tally: Tally) -> None:
        """Let it train for a random while and kill it at such a moment."""
        before, process = self.last(), self.begin()
        episodes = self.evaluated()
        if moment != 'start':
            wait(process, lambda: self.last() > before)
        end = time.monotonic() + rng.uniform(0, START if moment == 'start' else 2)
        wait(process, lambda: time.monotonic() > end)
        if moment == 'checkpoint':
            wait(process, self.is_writing, pause=0)
        elif moment == 'evaluation':
            wait(process, lambda: (self.evaluated() - episodes) % EPISODES > 0)
        if kill(process):
            evaluating = (self.evaluated() - episodes) % EPISODES > 0
            going = 'training' if self.last() > before else 'start'
            tally.kills['checkpoint' if self.is_writing() else 'evaluation' if evaluating else going] += 1
        elif process.returncode:
            tally.found['could not go on'] += 1
            raise RuntimeError((self.folder / 'log.txt').read_text()[-3000:])

    def compare(self, whole: Run, tally: Tally) -> None:
        """Count what it has beside a run that was not killed."""
        got, wanted = self.states(), whole.states()
        tally.found['checkpoints compared'] += len(wanted)
        tally.found['lost'] += len(wanted.keys() - got.keys())
        tally.found['damaged'] += sum(state is None for state in got.values())
        tally.found['different'] += self.summary() != whole.summary()
        tally.found['different'] += sum(bool(differences(got[name], wanted[name])) for name in wanted if got.get(name))

    def summary(self) -> dict:
        """Return ``summary.json`` but for the time that it took."""
        return {**json.loads((self.folder / 'run' / 'summary.json').read_text()), 'seconds': None}

    def states(self) -> dict[str, dict | None]:
        """Checkpoints by name; one that cannot be read is None."""
        found = {}
        for path in self.checkpoints.iterdir():
            try:
                found[path.name] = torch.load(path, weights_only=True)
            except Exception:  # a damaged file makes torch's reader fail in many ways
                found[path.name] = None
        return found


class Command:
    """A command that makes a file, killed and started again until it ends.

    Arguments:
        words: of the command, after ``cawr``.
        name: of the file in the command's folder.
    """

    def __init__(self, moment: str, words: list[str], name: str, folder: Path) -> None:
        self.moment, self.words, self.name, self.folder = moment, ['-m', 'ding_cawr', *words], name, folder
        began = time.monotonic()
        self.wanted = self._finish(folder / 'whole')
        self.seconds = time.monotonic() - began

    def kill_once(self, rng: random.Random, tally: Tally, number: int) -> None:
        """Kill it at some moment, look at what it left, and let it end."""
        folder = self.folder / str(number)
        folder.mkdir(parents=True)
        process = start(self.words, folder)
        end = time.monotonic() + self.seconds * rng.uniform(0.3, 1)  # before, Python starts
        writes = rng.random() < 0.5
        wait(process, lambda: time.monotonic() > end or (writes and self._is_writing(folder)), pause=0)
        tally.kills[self.moment] += kill(process)
        if (folder / self.name).exists():
            tally.found['damaged'] += sha256(folder / self.name) != self.wanted
            return
        tally.found[f'{self.moment}s compared'] += 1
        tally.found['different'] += self._finish(folder) != self.wanted
        tally.found['damaged'] += any(path.suffix == '.part' for path in folder.rglob('*'))

    def _is_writing(self, folder: Path) -> bool:
        return any(path.name.startswith('.') for path in folder.iterdir())

    def _finish(self, folder: Path) -> str:
        """Let it end; the hash of the file."""
        folder.mkdir(parents=True, exist_ok=True)
        if start(self.words, folder).wait() != 0:
            raise RuntimeError((folder / 'log.txt').read_text()[-3000:])
        return sha256(folder / self.name)


def commands(work: Path, whole: Run) -> list[Command]:
    """Return a download that takes seconds, and a dataset made by the policy of a run."""
    server = FileServer()
    server.wait = 0.01
    write_d4rl_file(work / 'served.hdf5', synthetic_columns(ROWS, 11, 3), compressed=False)
    server.content = (work / 'served.hdf5').read_bytes()
    ENVIRONMENT['D4RL_DATASET_DIR'] = 'cache'
    collecting = [
        'data', 'collect', '--config', str(whole.folder / 'config.py'), '--checkpoint',
        str(whole.checkpoints / 'ckpt_best.pth.tar'), '--steps', str(STEPS), '--seed', '0', '--out', 'mine.hdf5'
    ]
    return [
        Command('download', ['data', 'download', DATASET, '--mirror', server.url], 'cache/hopper_medium-v2.hdf5',
                work / 'downloads'),
        Command('dataset', collecting, 'mine.hdf5', work / 'datasets'),
    ]


def kill_all(work: Path, kills: int, iterations: int, rng: random.Random) -> Tally:
    """Kill so many times, two thirds of them in runs."""
    tally, data = Tally(), work / 'data.hdf5'
    write_d4rl_file(data, synthetic_columns(5000, 11, 3))
    whole = Run(work / 'whole', data, iterations)
    if whole.begin().wait() != 0:
        raise RuntimeError((whole.folder / 'log.txt').read_text()[-3000:])
    made = commands(work, whole)
    run = Run(work / 'run0', data, iterations)
    number = 0
    while tally.kills.total() < kills or not run.is_over():
        number += 1
        moment = (*IN_A_RUN, *made)[number % 6] if tally.kills.total() < kills else 'training'
        if isinstance(moment, Command):
            moment.kill_once(rng, tally, number)
            continue
        run.kill_once(moment, rng, tally)
        print(dict(tally.kills), tally.found, file=sys.stderr, flush=True)
        if run.is_over():
            run.compare(whole, tally)
            run = Run(work / f'run{number}', data, iterations) if tally.kills.total() < kills else run
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--iterations', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_all(Path(folder), args.kills, args.iterations, random.Random(args.seed))
    for name, count in {**{f'kills, {name}': count for name, count in tally.kills.items()}, **tally.found}.items():
        print(f'{count:6} {name}')
    if args.out:
        result = dict(
            kills=tally.kills.total(), iterations=args.iterations, seed=args.seed, moments=dict(tally.kills),
            **tally.found, machine=machine(cuda=False), versions=versions()
        )
        args.out.write_text(json.dumps(result, indent=1) + '\n')
    return int(tally.failed)


if __name__ == '__main__':
    sys.exit(main())

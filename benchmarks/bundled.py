"""Every algorithm on the bundled set at the same budget: config/hopper_bundled_{cawr,iql,bc}.py, several seeds.

    python benchmarks/bundled.py [--algorithms cawr,bc,iql] [--seeds 0,1,2] [--jobs 2] [--out FILE.json]

Runs DI-engine's own command, one thread a run, keeps every run's folder under --work, and writes a JSON file with each
run's summary and prints a table. A run that is already in --work is not run again.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def run(algorithm: str, seed: int, work: Path) -> dict:
    """Train once, or take the finished run's summary."""
    folder = work / f'{algorithm}_seed{seed}'
    summary = folder / f'hopper_bundled_{algorithm}' / 'summary.json'
    if not summary.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        config = ROOT / 'config' / f'hopper_bundled_{algorithm}.py'
        ding = Path(sys.executable).parent / 'ding'
        with open(folder / 'log.txt', 'w') as log:
            subprocess.run(
                [sys.executable, ding, '-m', 'serial_offline', '-c', config, '-s', str(seed)], cwd=folder, check=True,
                stdout=log, stderr=subprocess.STDOUT, env={**os.environ, 'OMP_NUM_THREADS': '1'}
            )
    return {'algorithm': algorithm, 'seed': seed, **json.loads(summary.read_text())}


def table(results: list[dict]) -> str:
    """Mean ± std over seeds of each figure, in Markdown."""
    lines = [
        '| algorithm | seeds | last | mean of the last three | mean of the second half | best so far |',
        '| --- | --- | --- | --- | --- | --- |'
    ]
    for algorithm in dict.fromkeys(result['algorithm'] for result in results):
        runs = [result for result in results if result['algorithm'] == algorithm]
        half = [np.mean(result['evaluations'][len(result['evaluations']) // 2:]) for result in runs]
        columns = [[result[key] for result in runs] for key in ('last', 'mean_last_three')]
        columns += [half, [result['best'] for result in runs]]
        cells = [f'{np.mean(column):.1f} ± {np.std(column):.1f}' for column in columns]
        seeds = ', '.join(str(result['seed']) for result in runs)
        lines.append(f'| {algorithm} | {seeds} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--algorithms', default='cawr,bc,iql')
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--work', type=Path, default=Path('bundled_runs'))
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'bundled.json')
    args = parser.parse_args()
    jobs = [(algorithm, int(seed)) for seed in args.seeds.split(',') for algorithm in args.algorithms.split(',')]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: run(*job, args.work.resolve()), jobs))
    versions = {name: metadata.version(name) for name in ('ding_cawr', 'DI-engine', 'torch', 'gymnasium', 'mujoco')}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({'python': platform.python_version(), 'versions': versions, 'runs': results}, indent=1) + '\n'
    )
    print(table(results))


if __name__ == '__main__':
    main()

"""Measure AWR online: return against environment steps, beside DI-engine's own DQN and TD3 on the same steps.

    python benchmarks/awr.py --seeds 0,1,2,3,4                    # what is missing; may be stopped and started again
    python benchmarks/awr.py --seeds 0 --environments hopper      # a million steps
    python benchmarks/awr.py --draw                               # docs/awr_online.png from what is there

Each run is one of DI-engine's serial pipeline, one after the other, with one thread: config/cartpole_awr.py and
config/pendulum_awr.py, and the configurations that DI-engine ships for DQN and TD3; config/hopper_awr.py alone. None
stops at a return. They are evaluated about every 2,000 steps, 5 episodes each, hopper every 20,000 steps, 10 episodes.
A run is a line of JSON in benchmarks/results/awr/runs.jsonl.
"""
from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / 'benchmarks' / 'results' / 'awr' / 'runs.jsonl'
FIGURE = ROOT / 'docs' / 'awr_online.png'
SHIPPED = 'dizoo.classic_control.{0}.config.{0}_{1}_config'
#: environment -> (steps, policy -> (configuration, iterations between two evaluations)).
PLAN: dict[str, tuple[int, dict[str, tuple[str, int]]]] = {
    'cartpole': (30_000, {'awr': ('cartpole_awr', 1200), 'dqn': (SHIPPED.format('cartpole', 'dqn'), 1250)}),
    'pendulum': (100_000, {'awr': ('pendulum_awr', 1200), 'td3': (SHIPPED.format('pendulum', 'td3'), 80)}),
    'hopper': (1_000_000, {'awr': ('hopper_awr', 12_000)}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', default='0,1,2,3,4', help='seeds, with commas between them')
    parser.add_argument('--environments', default='cartpole,pendulum', help='of cartpole, pendulum, hopper')
    parser.add_argument('--draw', action='store_true', help='draw the figure alone')
    parser.add_argument('--one', nargs=3, metavar=('ENV', 'POLICY', 'SEED'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        env, policy, seed = arguments.one
        print('RESULT ' + json.dumps(run(env, policy, int(seed))), flush=True)
        return
    if not arguments.draw:
        for seed in map(int, arguments.seeds.split(',')):
            for env in arguments.environments.split(','):
                for policy in PLAN[env][1]:
                    measure(env, policy, seed)
    draw(results())


def measure(env: str, policy: str, seed: int) -> None:
    """Do a run in a process of its own, unless it is there, and append its result."""
    if any((each['env'], each['policy'], each['seed']) == (env, policy, seed) for each in results()):
        return
    command = [sys.executable, __file__, '--one', env, policy, str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}
        )
    line = next((each for each in done.stdout.splitlines() if each.startswith('RESULT ')), None)
    if line is None:
        raise SystemExit(f'{" ".join(command)} failed:\n{done.stderr[-3000:]}')
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    with RUNS.open('a') as file:
        file.write(line.removeprefix('RESULT ') + '\n')
    print(line, flush=True)


def results() -> list[dict[str, Any]]:
    """Return the runs that are there."""
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []


def run(env: str, policy: str, seed: int) -> dict[str, Any]:
    """Train here, and return the curve."""
    from ding.entry import serial_pipeline
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps, policies = PLAN[env]
    name, every = policies[policy]
    sys.path.insert(0, str(ROOT / 'config'))
    module = importlib.import_module(name)
    main_config, create_config = module.main_config, module.create_config
    main_config.exp_name, main_config.env.stop_value = 'run', 1e10
    main_config.policy.eval.evaluator.eval_freq = every
    start = time.time()
    serial_pipeline((main_config, create_config), seed=seed, max_env_step=steps)
    seconds = time.time() - start
    events = EventAccumulator('run/log/serial')
    events.Reload()
    tag = next(tag for tag in events.Tags()['scalars']
               if tag.startswith('evaluator_step') and tag.endswith('eval_episode_return_mean'))
    curve = [(each.step, each.value) for each in events.Scalars(tag)]
    return dict(env=env, policy=policy, seed=seed, seconds=round(seconds, 1), steps=[step for step, _ in curve],
                returns=[round(value, 2) for _, value in curve])


def draw(runs: list[dict[str, Any]]) -> None:
    """Draw the mean over seeds, and each seed thin."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(1, len(PLAN), figsize=(12, 3.4), layout='constrained')
    for axis, (env, (steps, policies)) in zip(axes, PLAN.items()):
        grid = np.linspace(0, steps, 60)
        for color, policy in enumerate(policies):
            curves = [each for each in runs if (each['env'], each['policy']) == (env, policy)]
            lines = [np.interp(grid, each['steps'], each['returns']) for each in curves]
            for line in lines:
                axis.plot(grid, line, color=f'C{color}', alpha=0.25, linewidth=0.8)
            if lines:
                seeds = f'{len(lines)} seeds' if len(lines) > 1 else 'one seed'
                axis.plot(grid, np.mean(lines, axis=0), color=f'C{color}', label=f'{policy} ({seeds})')
        axis.set(title=env, xlabel='environment steps', ylabel='return, mean of the episodes', xlim=(0, steps))
        axis.legend(loc='lower right')
    figure.savefig(FIGURE, dpi=110)


if __name__ == '__main__':
    main()

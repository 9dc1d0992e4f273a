"""Time the bare iteration (draws, update, priorities) over transitions, batch, width of observations, replicas.

    python benchmarks/scaling.py [--device cpu] [--threads 2] [--iterations 200] [--sizes 1e4,1e5,1e6,1e7]
                                 [--batches 256,512,1024,2048,4096] [--widths 11,17,27,60,111]
                                 [--replicas 1,2,4,8,12] [--size 1e6]
                                 [--out benchmarks/results/scaling.json] [--figure docs/scaling.png]

On synthetic data; actions are 3 wide throughout. Where they are not what varies, there are --size transitions of width
11, batches of 512 and one replica. Writes the results and a figure, and prints a table. The points of a panel take
turns, round by round; the floor beside them is what ``cawr bench`` calls so. Replicas train at once: an iteration is an
update of each.
"""
import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ding_cawr.bench import measure, report
from ding_cawr.bench.parts import Parts, block, floor
from ding_cawr.bench.synthetic import synthetic_columns, write_d4rl_file
from ding_cawr.data.load import load_transitions
from ding_cawr.data.transitions import Transitions

ROOT = Path(__file__).parent.parent
WIDTH, ACTION, BATCH, ROUNDS = 11, 3, 512, 10
LINES = {
    'bare': ('whole iteration, each replica an update', dict(color='C0', marker='o')),
    'floor': ('floor: products of the hidden layers', dict(color='0.5', linestyle='--', marker='.')),
    'selection': ('draws and priorities alone', dict(color='C1', marker='s')),
}


@dataclass(frozen=True)
class Point:
    """One setting that is measured."""
    size: int
    batch_size: int = BATCH
    obs_shape: int = WIDTH
    replicas: int = 1


def transitions(size: int, obs_shape: int) -> Transitions:
    """Return synthetic transitions."""
    with tempfile.TemporaryDirectory(prefix='cawr_bench_') as folder:
        write_d4rl_file(Path(folder) / 'data.hdf5', synthetic_columns(size, obs_shape, ACTION), compressed=False)
        return load_transitions(Path(folder) / 'data.hdf5')


def replicas(parts: Parts, count: int) -> Callable:
    """Return the policy's iteration of so many replicas at once."""
    policies = [parts.policy(seed) for seed in range(count)]
    training = policies[0].join(policies)
    for policy in policies:
        policy.set_statistic(parts.statistics)
    return training.iterate


def blocks(points: list[Point], device: str, iterations: int) -> dict[tuple[Point, str], Callable[[], float]]:
    """Timers of every part of every point; points of equal size and width share their columns."""
    data, timers = {}, {}
    for point in points:
        key = point.size, point.obs_shape
        if key not in data:
            data[key] = transitions(*key)
        parts = Parts(data[key], point.batch_size, device, {})
        iteration = {
            'floor': floor(point.batch_size, device),
            'bare': parts.bare() if point.replicas == 1 else replicas(parts, point.replicas),
            'sampling': lambda parts=parts: (parts.draw_uniform(), parts.draw_prioritized()),
            'priorities': parts.priorities(),
        }
        timers.update({(point, name): block(each, iterations, device) for name, each in iteration.items()})
    return timers


def run(points: list[Point], device: str, iterations: int) -> list[dict]:
    """Return medians over the rounds, a dict a point."""
    timers = blocks(points, device, -(-iterations // ROUNDS))
    rounds = []
    for number in range(ROUNDS + 1):  # the first warms up
        print(f'round {number} of {ROUNDS}', file=sys.stderr, flush=True)
        rounds.append({key: timer() for key, timer in timers.items()})
    return [_row(point, rounds[1:]) for point in points]


def _row(point: Point, rounds: list[dict]) -> dict:
    milliseconds = {
        name: statistics.median(each[point, name] for each in rounds)
        for name in ('bare', 'floor', 'sampling', 'priorities')
    }
    return {
        **asdict(point), 'action_shape': ACTION,
        **{f'{name}_ms': value for name, value in milliseconds.items()},
        'selection_ms': statistics.median(each[point, 'sampling'] + each[point, 'priorities'] for each in rounds),
        'updates_per_second': 1e3 * point.replicas / milliseconds['bare'],
        'update_per_floor': statistics.median(
            each[point, 'bare'] / each[point, 'floor'] / point.replicas for each in rounds
        ),
    }


def table(panels: dict[str, list[dict]]) -> str:
    """Return all points in Markdown."""
    lines = [
        '| transitions | batch | obs width | replicas | updates/s | ms | x floor | sampling, ms | priorities, ms |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    for row in (row for rows in panels.values() for row in rows):
        lines.append(
            f"| {row['size']:,} | {row['batch_size']:,} | {row['obs_shape']} | {row['replicas']} "
            f"| {row['updates_per_second']:,.1f} | {row['bare_ms']:.3f} | {row['update_per_floor']:.2f} "
            f"| {row['sampling_ms']:.3f} | {row['priorities_ms']:.3f} |"
        )
    return '\n'.join(lines)


def draw(path: Path, panels: dict[str, list[dict]], device: str) -> None:
    """Draw the updates a second of the whole, of the floor and of the draws, a panel for each quantity that varies."""
    labels = {'size': 'transitions', 'batch_size': 'batch', 'obs_shape': 'width of observations',
              'replicas': 'replicas at once'}
    figure = Figure(figsize=(13, 4), layout='constrained', dpi=120)
    every = figure.subplots(1, len(panels), sharey=True)
    for axes, (varied, rows) in zip(every, panels.items()):
        x = [row[varied] for row in rows]
        for name, (label, style) in LINES.items():
            replicas = [row['replicas'] if name == 'bare' else 1 for row in rows]
            y = [1e3 * count / row[f'{name}_ms'] for count, row in zip(replicas, rows)]
            axes.plot(x, y, label=label, **style)
        axes.set(xscale='log', yscale='log', xlabel=labels[varied])
        axes.set_xticks(x, [f'{value:,}' if value < 1e4 else f'{value:.0e}'.replace('e+0', 'e') for value in x])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    every[0].set_ylabel(f'updates a second ({device})')
    figure.legend(*every[0].get_legend_handles_labels(), loc='outside upper center', ncols=3, frameon=False)
    figure.savefig(path)


def numbers(text: str) -> list[int]:
    """Return '1e4,100' as [10000, 100]."""
    return [int(float(part)) for part in text.split(',')]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int)
    parser.add_argument('--iterations', type=int, default=None, help='Of each part of each point in all.')
    parser.add_argument('--sizes', type=numbers, default=numbers('1e4,1e5,1e6,1e7'))
    parser.add_argument('--batches', type=numbers, default=numbers('256,512,1024,2048,4096'))
    parser.add_argument('--widths', type=numbers, default=numbers('11,17,27,60,111'))
    parser.add_argument('--replicas', type=numbers, default=numbers('1,2,4,8,12'))
    parser.add_argument('--size', type=lambda text: numbers(text)[0], default=1_000_000)
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'scaling.json')
    parser.add_argument('--figure', type=Path, default=ROOT / 'docs' / 'scaling.png')
    return parser.parse_args()


def main() -> None:
    given = arguments()
    measure.check_device(given.device)
    iterations = given.iterations or {'cpu': 200, 'cuda': 2000}[given.device]
    varied = {
        'size': [Point(size) for size in given.sizes],
        'batch_size': [Point(given.size, batch_size=batch_size) for batch_size in given.batches],
        'obs_shape': [Point(given.size, obs_shape=width) for width in given.widths],
        'replicas': [Point(given.size, replicas=count) for count in given.replicas],
    }
    with measure.threads(given.threads):
        panels = {name: run(points, given.device, iterations) for name, points in varied.items()}
    result = {
        'date': report.now(), 'device': given.device,
        'iterations': iterations, 'rounds': ROUNDS,
        'machine': report.machine(given.device == 'cuda', given.threads), 'versions': report.versions(),
        'panels': panels,
    }
    given.out.write_text(json.dumps(result, indent=2) + '\n')
    draw(given.figure, panels, given.device)
    print(table(panels))


if __name__ == '__main__':
    main()

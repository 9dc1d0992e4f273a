"""Time ``cawr bench`` and d3rlpy's IQL in one run: same data, batch, networks and machine, each in turn.

    python benchmarks/speed.py --d3rlpy-python d3rlpy_venv/bin/python [--size 1000000] [--batch-size 512]
                               [--iterations 300] [--device cpu] [--threads 2] [--out FILE.json]

d3rlpy and DI-engine need different versions of gym, so d3rlpy has an environment of its own:

    python3 -m venv d3rlpy_venv
    d3rlpy_venv/bin/pip install d3rlpy==2.8.1 torch==VERSION   # the version of torch that ding_cawr has here

It runs in a process of its own (speed_d3rlpy.py), which stands still while the other parts are measured, and so do they
while it has its turn. Its IQL has one batch of n where CAWR has two, and no priorities: it does less an iteration.
"""
import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ding_cawr.bench import measure, report
from ding_cawr.bench.synthetic import synthetic_columns, write_d4rl_file

NAMES = {'d3rlpy_iql': "d3rlpy's IQL, its loop", 'd3rlpy_iql_update': "d3rlpy's IQL, update alone"}


class D3rlpy:
    """d3rlpy's process: says once what it is, then times a block whenever it is asked to."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.versions = self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"d3rlpy's process ended with exit code {self._process.wait()}; its error is above")
        return json.loads(line)

    def _block(self, command: str) -> float:
        self._process.stdin.write(f'{command}\n')
        self._process.stdin.flush()
        return self._answer()['ms']

    def blocks(self) -> dict[str, measure.Block]:
        """Its parts, as ``measure`` takes them."""
        return {'d3rlpy_iql': lambda: self._block('loop'), 'd3rlpy_iql_update': lambda: self._block('update')}


@contextlib.contextmanager
def d3rlpy(python: Path, options: measure.Options) -> Iterator[D3rlpy]:
    """d3rlpy's process on the synthetic data; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix='cawr_speed_') as folder:
        file = Path(folder) / 'synthetic.hdf5'
        write_d4rl_file(file, synthetic_columns(options.size, options.obs_shape, options.action_shape))
        script = Path(__file__).with_name('speed_d3rlpy.py')
        block, threads = min(options.block, measure.SLOW_BLOCK), options.threads or 0
        arguments = [file, options.batch_size, block, options.device, threads]
        with subprocess.Popen(
            [python, script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield D3rlpy(process)
            finally:
                process.kill()


def options_and_paths() -> tuple[measure.Options, Path, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--d3rlpy-python', type=Path, required=True)
    parser.add_argument('--out', type=Path)
    for name in ('size', 'obs_shape', 'action_shape', 'batch_size', 'iterations', 'threads'):
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=getattr(measure.Options, name))
    parser.add_argument('--device', default='cpu')
    given = vars(parser.parse_args())
    python, out = given.pop('d3rlpy_python'), given.pop('out')
    if not python.is_file():
        parser.error(f'--d3rlpy-python is {python}, which is not a file; the head of this script says how to make one')
    return measure.Options(**given), python, out


def main() -> None:
    options, python, out = options_and_paths()
    measure.check(options)
    with d3rlpy(python, options) as other:
        measurement = measure.measure(options, other.blocks(), lambda line: print(line, file=sys.stderr, flush=True))
        result = {**report.report(measurement), 'd3rlpy': other.versions}
    rounds = measurement.rounds
    faster = report.median_ratio(rounds, lambda each: each['d3rlpy_iql'] / each['pipeline'])
    result['figures']['d3rlpy_per_pipeline'] = faster
    print(report.text(result, NAMES))
    versions = ', '.join(f'{name} {version}' for name, version in other.versions.items())
    print(f"The pipeline does {faster:.1f} iterations in the time of one of d3rlpy's IQL ({versions}).")
    if out:
        out.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()

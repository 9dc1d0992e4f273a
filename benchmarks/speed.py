"""Time ``cawr bench``, d3rlpy's IQL and JAX-CORL's IQL in one run: same data, batch and machine, each in turn.

    python benchmarks/speed.py [--d3rlpy-python d3rlpy_venv/bin/python]
                               [--jax-python jax_venv/bin/python --jax-corl CHECKOUT]
                               [--size 1000000] [--batch-size 512] [--iterations 300] [--device cpu] [--threads 2]
                               [--algorithm cawr] [--busy 0] [--out FILE.json]

Each needs other versions of packages than DI-engine, so each has an environment of its own:

    python3 -m venv d3rlpy_venv
    d3rlpy_venv/bin/pip install d3rlpy==2.8.1 torch==VERSION   # the version of torch that ding_cawr has here
    python3 -m venv jax_venv
    jax_venv/bin/pip install "jax[cpu]" flax optax distrax tqdm omegaconf pydantic h5py
    git clone https://github.com/nissymori/JAX-CORL CHECKOUT

They run in processes of their own (speed_d3rlpy.py, speed_jax_corl.py), which stand still while the other parts are
measured, and so do those while they have their turn. Their IQL has one batch of n where CAWR has two, and no
priorities: it does less an iteration. ``--busy N`` lets N processes compete for the processors all the time; with it
the package may be timed without peers.
"""
import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ding_cawr.bench import measure, report
from ding_cawr.bench.synthetic import synthetic_columns, write_d4rl_file

#: Part -> (its name in the report, the command that asks the process for a block of it).
PARTS = {
    'd3rlpy_iql': ("d3rlpy's IQL, its loop", 'loop'), 'd3rlpy_iql_update': ("d3rlpy's IQL, update alone", 'update'),
    'jax_corl_iql': ("JAX-CORL's IQL, its loop", 'loop'),
}
D3RLPY, JAX_CORL = ('d3rlpy_iql', 'd3rlpy_iql_update'), ('jax_corl_iql', )


class Peer:
    """A peer's process: says once what it is, then times a block whenever it is asked to.

    Arguments:
        process: reads commands and writes lines of JSON.
        parts: names in PARTS that it has.
    """

    def __init__(self, process: subprocess.Popen, parts: Sequence[str]) -> None:
        self._process, self._parts = process, parts
        self.versions = self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the process of {PARTS[self._parts[0]][0]} ended with exit code {self._process.wait()}; its error is "
                'above'
            )
        return json.loads(line)

    def _block(self, command: str) -> float:
        self._process.stdin.write(f'{command}\n')
        self._process.stdin.flush()
        return self._answer()['ms']

    def blocks(self) -> dict[str, measure.TimedBlock]:
        """Return its parts, as ``measure`` takes them."""
        return {part: lambda command=PARTS[part][1]: self._block(command) for part in self._parts}


@contextlib.contextmanager
def peer(parts: Sequence[str], *command: object) -> Iterator[Peer]:
    """Give a peer's process, which ends with the block."""
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Peer(process, parts)
        finally:
            process.kill()


@contextlib.contextmanager
def peers(options: measure.Options, paths: argparse.Namespace) -> Iterator[list[Peer]]:
    """Give the peers that were asked for, on the synthetic data."""
    here, block, threads = Path(__file__).parent, min(options.block, measure.SLOW_BLOCK), options.threads or 0
    with tempfile.TemporaryDirectory(prefix='cawr_speed_') as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / 'synthetic.hdf5'
        write_d4rl_file(file, synthetic_columns(options.size, options.obs_shape, options.action_shape))
        found = []
        if paths.d3rlpy_python:
            script = here / 'speed_d3rlpy.py'
            command = paths.d3rlpy_python, script, file, options.batch_size, block, options.device, threads
            found.append(stack.enter_context(peer(D3RLPY, *command)))
        if paths.jax_python:
            script = here / 'speed_jax_corl.py'
            command = paths.jax_python, script, paths.jax_corl, file, options.batch_size, block, threads
            found.append(stack.enter_context(peer(JAX_CORL, *command)))
        yield found


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Let so many processes compete for the processors."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            process = stack.enter_context(subprocess.Popen([sys.executable, '-c', 'while True: pass']))
            stack.callback(process.kill)
        yield


def options_and_paths() -> tuple[measure.Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('d3rlpy-python', 'jax-python', 'jax-corl', 'out'):
        parser.add_argument(f'--{name}', type=Path)
    parser.add_argument('--busy', type=int, default=0)
    keys = 'size', 'obs_shape', 'action_shape', 'batch_size', 'iterations', 'threads'
    for name in keys:
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=getattr(measure.Options, name))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--algorithm', default=measure.Options.algorithm, help='as of cawr bench')
    given = parser.parse_args()
    if not (given.d3rlpy_python or given.jax_python or given.busy):
        parser.error('neither --d3rlpy-python nor --jax-python is given; the head of this script says how to make them')
    for name in ('d3rlpy_python', 'jax_python'):
        path = getattr(given, name)
        if path and not path.is_file():
            parser.error(f'--{name.replace("_", "-")} is {path}, which is not a file; see the head of this script')
    if given.jax_python and not (given.jax_corl and (given.jax_corl / 'algos' / 'iql.py').is_file()):
        parser.error(f'--jax-corl is {given.jax_corl}; it must be a checkout of JAX-CORL, with algos/iql.py')
    return measure.Options(**{key: getattr(given, key) for key in (*keys, 'device', 'algorithm')}), given


def main() -> None:
    options, given = options_and_paths()
    measure.check(options)
    with peers(options, given) as others, busy(given.busy):
        blocks = {name: block for other in others for name, block in other.blocks().items()}
        measurement = measure.measure(options, blocks, lambda line: print(line, file=sys.stderr, flush=True))
        result = {**report.report(measurement), 'busy': given.busy, 'peers': [other.versions for other in others]}
    print(report.text(result, {part: PARTS[part][0] for part in blocks}))
    for part in (D3RLPY[0], JAX_CORL[0]):
        if part in blocks:
            faster = report.median_ratio(measurement.rounds, lambda each, part=part: each[part] / each['pipeline'])
            result['figures'][f'{part}_per_pipeline'] = faster
            print(f'The pipeline does {faster:.2f} iterations in the time of one of {PARTS[part][0]}.')
    if given.busy:
        print(f'{given.busy} processes competed for the processors.')
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()

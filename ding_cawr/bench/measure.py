"""One measurement: every part in turn, round after round, so that changes of the machine's speed affect all alike."""
from __future__ import annotations

import ast
import contextlib
import math
import resource
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ding_cawr.bench.parts import PRESET, Parts, TimedBlock, block, configuration, floor, loop_block
from ding_cawr.bench.pipeline import run_pipeline, td3_bc_configuration
from ding_cawr.bench.synthetic import EPISODE, synthetic_columns, write_d4rl_file, write_rows
from ding_cawr.checks import POSITIVE_INT, nearest, one_of
from ding_cawr.config import PRESETS
from ding_cawr.data.load import load_transitions

DEVICES = ('cpu', 'cuda')
ROUNDS = 20
#: Iterations of each part in all.
ITERATIONS = {'cpu': 300, 'cuda': 5000}
#: Iterations in a round of what is slow on any device.
SLOW_BLOCK = 30
#: A million rows as dicts of tensors would take gigabytes and minutes.
TD3_BC_ROWS = 50_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Options of a measurement, as ``cawr bench`` describes them. None stands for ``ITERATIONS`` of the device, and for
    the threads that torch has."""
    size: int = 1_000_000
    obs_shape: int = 11
    action_shape: int = 3
    batch_size: int = 512
    iterations: int | None = None
    device: str = 'cpu'
    threads: int | None = None
    learn: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = PRESET

    @property
    def total(self) -> int:
        return self.iterations or ITERATIONS[self.device]

    @property
    def rounds(self) -> int:
        return min(ROUNDS, self.total)

    @property
    def block(self) -> int:
        """Iterations of a part in each round."""
        return math.ceil(self.total / self.rounds)

    @property
    def column_bytes(self) -> int:
        """Bytes of a transition's columns, in float32 and a bool."""
        return 4 * (2 * self.obs_shape + self.action_shape + 1) + 1


@dataclass
class Measurement:
    """Milliseconds of each part's iteration, a dict a round, and memory."""
    options: Options
    rounds: list[dict[str, float]] = field(default_factory=list)
    seconds_to_first_iteration: float = math.nan
    bytes_before: int = 0
    bytes_peak: int = 0
    bytes_peak_device: int | None = None
    bytes_buffer: int = 0
    td3_bc_rows: int = 0
    period: int = 1


def measure(
    options: Options, others: Mapping[str, TimedBlock] | None = None, progress: Progress = lambda line: None,
) -> Measurement:
    """Time every part on synthetic data, and ``others`` by name, which take their turn in every round; each times a
    block of its own and returns the milliseconds of an iteration. Raises what ``check`` raises."""
    check(options)
    with threads(options.threads), tempfile.TemporaryDirectory(prefix='cawr_bench_') as folder:
        measurement = Measurement(options, bytes_before=_peak_memory())
        _measure_cawr(measurement, Path(folder), others or {}, progress)
        _measure_td3_bc(measurement, Path(folder), progress)
    return measurement


def check(options: Options) -> None:
    """Raise a ValueError where an option is out of its bounds."""
    for name in ('size', 'obs_shape', 'action_shape', 'batch_size', 'iterations', 'threads'):
        if getattr(options, name) is not None:
            POSITIVE_INT.check(f'--{name.replace("_", "-")}', getattr(options, name))
    if options.size < options.batch_size:
        raise ValueError(
            f'--size is {options.size}; it must be --batch-size ({options.batch_size}) or more, or a batch of '
            "DI-engine's loader would be smaller than it should be"
        )
    check_device(options.device)
    trains = PRESETS[one_of('--algorithm', options.algorithm, PRESETS)].algorithm
    allowed = [key for key in trains.Settings.defaults() if key not in ('batch_size', 'train_epoch')]
    for key in options.learn:
        if key not in allowed:
            raise ValueError(f'--learn sets {key!r}; it must be one of {", ".join(allowed)}{nearest(key, allowed)}')
    main, _ = configuration(options.batch_size, options.obs_shape, options.action_shape, options.device, None,
                            options.learn, options.algorithm)
    trains.Settings.read({**trains.Settings.defaults(), **main.policy.learn})
    if main.policy.learn.get('best_episodes') is not None and options.size < EPISODE:
        raise ValueError(
            f'--size is {options.size}; it must be {EPISODE} or more, as learn.best_episodes draws from whole '
            'episodes, which have that many steps here'
        )


def check_device(device: str) -> None:
    """Raise a ValueError where the device is unknown, or a GPU that is not there."""
    one_of('--device', device, DEVICES)
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f"--device is 'cuda', but torch {torch.__version__} finds no GPU; take --device cpu, or fix the driver or "
            'the installation of torch'
        )


def parse_learn(entries: Sequence[str]) -> dict[str, Any]:
    """Return ``('temperature=0.5', 'policy_loss=l2')`` as a dict; what Python cannot read as a value is a string."""
    parsed = {}
    for entry in entries:
        key, equals, text = entry.partition('=')
        if not (key and equals):
            raise ValueError(f'--learn is {entry!r}; it must be KEY=VALUE, with a key of policy.learn')
        try:
            parsed[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def _measure_cawr(measurement: Measurement, folder: Path, others: Mapping[str, TimedBlock], progress: Progress) -> None:
    """Time the loop in DI-engine's pipeline; while it stands still between two rounds the parts take their turns."""
    options, file = measurement.options, folder / 'synthetic.hdf5'
    widths = options.obs_shape, options.action_shape
    progress(f'writing {options.size:,} transitions')
    write_d4rl_file(file, synthetic_columns(options.size, *widths))

    def visit(seconds: float) -> Generator[None, None, None]:
        measurement.seconds_to_first_iteration = seconds
        yield from loop_block(options.block, options.device)  # training has reached its peak of memory then
        measurement.bytes_peak = _peak_memory()
        if options.device == 'cuda':
            measurement.bytes_peak_device = torch.cuda.max_memory_allocated()
        parts = Parts(load_transitions(file), options.batch_size, options.device, options.learn, options.algorithm)
        measurement.bytes_buffer, measurement.period = parts.buffer.nbytes, parts.period
        blocks = {name: block(each, options.block, options.device) for name, each in parts.all().items()}
        yield from _rounds(measurement, 'pipeline', options.block, {**blocks, **others}, progress)

    progress('starting the pipeline')
    configs = configuration(options.batch_size, *widths, options.device, file, options.learn, options.algorithm)
    run_pipeline(configs, folder, visit)


def _measure_td3_bc(measurement: Measurement, folder: Path, progress: Progress) -> None:
    """Time the loop of DI-engine's td3_bc, with the floor beside it once more."""
    options, rows = measurement.options, folder / 'rows.pkl'
    measurement.td3_bc_rows = min(options.size, TD3_BC_ROWS)
    progress(f"starting DI-engine's td3_bc on {measurement.td3_bc_rows:,} rows")
    write_rows(rows, load_transitions(folder / 'synthetic.hdf5'), measurement.td3_bc_rows)
    blocks = {'floor': block(floor(options.batch_size, options.device), options.block, options.device)}
    run_pipeline(
        td3_bc_configuration(options.batch_size, options.obs_shape, options.action_shape, options.device, rows), folder,
        lambda seconds: _rounds(measurement, 'td3_bc', min(options.block, SLOW_BLOCK), blocks, progress)
    )


def _rounds(
    measurement: Measurement, name: str, iterations: int, blocks: Mapping[str, TimedBlock], progress: Progress,
) -> Generator[None, None, None]:
    """Time each part from within a loop that is the part ``name`` itself. A round that warms up is left out."""
    rounds = measurement.options.rounds
    for number in range(rounds + 1):
        progress(f'{name}: round {number} of {rounds}' if number else f'{name}: warming up')
        milliseconds = {each: run() for each, run in blocks.items()}
        milliseconds[name] = yield from loop_block(iterations, measurement.options.device)
        measurement.rounds += [milliseconds] if number else []


def _peak_memory() -> int:
    """Return the most bytes of main memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set the number of threads for torch's operations on the CPU; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

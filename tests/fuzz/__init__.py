"""Files damaged or made to do harm, and what came of loading them: every try ends in a clear error or a correct load.

A mutation takes the path of a clean file and a random generator and changes the file in place. It returns what the file
may now be read as, by the file's names, or None where only the clean values may come out of it. ``KINDS`` has the kinds
of files with their mutations, ``run`` tries them in a process of their own, with bounds on time and memory.
"""
from __future__ import annotations

import math
import multiprocessing
import os
import resource
import shutil
import signal
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from fuzz import checkpoints, hdf5, npz, resumed
from fuzz.columns import d4rl_columns, ding_columns
from fuzz.files import RANDOM, Kind, Values, same

SECONDS = 30  # of the processor: how busy the machine is does not count
PATIENCE = 600  # seconds for a case that waits for what never comes
ADDRESS_SPACE = 3 << 30
PEAK = 700 << 20  # a load of some kilobytes may take 256 MiB of declared columns and their rows
DIFFERS = 'the load differs from the file'
NUMBERS = 'a number in the file is another one'
TABLES = "HDF5's tables are other ones, and the file one that could have been meant so"
VERDICTS = ('error', 'correct', 'undetectable', 'crash', 'hang', 'wrong')
KINDS: dict[str, Kind] = {**hdf5.KINDS, **npz.KINDS, **checkpoints.KINDS, **resumed.KINDS}


@dataclass(frozen=True)
class Case:
    kind: str
    mutation: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a case: one of ``VERDICTS``, and the message of the error or what is wrong."""
    case: Case
    verdict: str
    detail: str = ''


def tables(seed: int = 0) -> list[Case]:
    """Every mutation of the tables once."""
    return [Case(kind, name, seed) for kind, each in KINDS.items() for name in {**each.mutations, **RANDOM}]


def draws(count: int, seed: int = 0) -> Iterator[Case]:
    """So many random changes of bytes, with the kinds and ways in turn."""
    ways = [(kind, name) for name in RANDOM for kind in KINDS]
    for index in range(count):
        yield Case(*ways[index % len(ways)], 1000 * seed + 1 + index)


def attempt(case: Case, folder: Path) -> Outcome:
    """Write the case's file in ``folder``, load it and judge what comes."""
    kind = KINDS[case.kind]
    path = folder / kind.file
    kind.write(path)
    clean = path.read_bytes()
    mutate = {**kind.mutations, **RANDOM}[case.mutation]
    other = mutate(path, np.random.default_rng([case.seed, zlib.crc32(case.mutation.encode())]))
    verdict, detail = _judge(kind, path, other)
    if detail == DIFFERS and case.mutation in RANDOM and kind.plain:
        verdict, detail = _judge_plain(kind, path, clean)
    if (folder / 'made').exists():
        verdict, detail = 'wrong', 'code of the file was run'
    return Outcome(case, verdict, detail)


def _judge(kind: Kind, path: Path, other: Values | None) -> tuple[str, str]:
    try:
        found = kind.load(path)
    except Exception as error:
        return ('error', str(error)) if _is_clear(error, path) else ('wrong', f'{type(error).__name__}: {error}')
    if same(found, kind.meaning(kind.values()), kind.dtype):
        return 'correct', ''
    if other is not None and same(found, kind.meaning(other), kind.dtype):
        return 'correct', ''
    return 'wrong', DIFFERS


def _judge_plain(kind: Kind, path: Path, clean: bytes) -> tuple[str, str]:
    """A load that differs, of a file without checksums: can that be known from the file?"""
    found, numbers = kind.load(path), _reread(clean, path.read_bytes(), kind.values())
    if numbers is not None and same(found, kind.meaning(numbers)):
        return 'undetectable', NUMBERS
    with h5py.File(path, 'r') as file:
        read = {name: file[name][()] for name in kind.values() if name in file}
    return ('undetectable', TABLES) if same(found, kind.meaning(read)) else ('wrong', DIFFERS)


def _is_clear(error: Exception, path: Path) -> bool:
    """An error of the kinds that are documented, which names the file in a line that can be read."""
    text = str(error)
    kinds = (ValueError, FileNotFoundError, OSError)
    return type(error) in kinds and path.name in text and text.isprintable() and len(text) < 800


def _reread(clean: bytes, changed: bytes, values: Values) -> Values | None:
    """The values, each from where the clean file has its bytes; None where the file has another length."""
    if len(clean) != len(changed):
        return None
    places = {name: clean.index(column.tobytes()) for name, column in values.items()}
    return {
        name: np.frombuffer(changed, np.uint8 if column.dtype == bool else column.dtype, column.size, places[name])
        .reshape(column.shape) for name, column in values.items()
    }


def _serve(connection, folder: Path, seconds: float) -> None:
    """The child: answers cases with outcomes. Its memory is bounded, and each outcome is asked for its peak.

    The system ends it with SIGXCPU where a case takes more than ``seconds`` of the processor.
    """
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    hdf5.write_hdf5(folder / 'outside.hdf5', {**d4rl_columns(7), **ding_columns(7)})
    if not (folder / 'outside.pipe').exists():
        os.mkfifo(folder / 'outside.pipe')
    for name, kind in KINDS.items():  # what is imported and allocated once is none of the cases' memory
        kind.write(folder / kind.file)
        assert same(kind.load(folder / kind.file), kind.meaning(kind.values()), kind.dtype), name
        _clear(folder / kind.file)
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, ) * 2)
    baseline = _peak()
    connection.send(None)
    while True:
        case = connection.recv()
        used = resource.getrusage(resource.RUSAGE_SELF)
        end = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            outcome = attempt(case, folder)
        except Exception as error:  # the mutation's own
            connection.send((error, False))
            continue
        _clear(folder / KINDS[case.kind].file, folder / 'made')
        grown = _peak() - baseline
        if grown > PEAK:
            outcome = Outcome(case, 'wrong', f'took {grown >> 20} MiB; {outcome.verdict}: {outcome.detail}')
        connection.send((outcome, grown > PEAK))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _clear(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _child(folder: Path, seconds: float) -> Iterator[tuple]:
    context = multiprocessing.get_context('fork')  # so that a child that died costs no second import
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, folder, seconds), daemon=True)
    process.start()
    there.close()  # so that its end is an end of the pipe
    try:
        if not here.poll(PATIENCE):
            raise TimeoutError(f'the process that loads the files has not started within {PATIENCE} s')
        here.recv()
        yield here, process
    finally:
        process.kill()
        process.join()


def run(cases: Iterable[Case], folder: Path, seconds: float = SECONDS, patience: float = PATIENCE) -> list[Outcome]:
    """Try the cases one after the other in a child, which is started anew where one killed it, hung or filled it.

    Arguments:
        folder: an empty one, in which the files are written.
        seconds: of the processor that a case may take.
        patience: seconds after which a case that takes none hangs.
    """
    waiting, outcomes = list(cases), []
    while waiting:
        with _child(folder, seconds) as (connection, process):
            while waiting:
                case = waiting.pop(0)
                connection.send(case)
                if not connection.poll(patience):
                    outcomes.append(Outcome(case, 'hang', f'no end within {patience} s'))
                    break
                try:
                    outcome, is_full = connection.recv()
                except EOFError:
                    process.join()
                    outcomes.append(_ended(case, process.exitcode, seconds))
                    break
                if isinstance(outcome, Exception):
                    raise RuntimeError(f'{case} could not be made') from outcome
                outcomes.append(outcome)
                if is_full:
                    break
        for path in folder.glob('*'):
            _clear(path)
    return outcomes


def _ended(case: Case, status: int, seconds: float) -> Outcome:
    if status == -signal.SIGXCPU:
        return Outcome(case, 'hang', f'no end within {seconds} s of the processor')
    return Outcome(case, 'crash', f'the process ended with {status}')


def counts(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """How many of each verdict, by kind."""
    table = {kind: dict.fromkeys(('tried', *VERDICTS), 0) for kind in KINDS}
    for outcome in outcomes:
        table[outcome.case.kind]['tried'] += 1
        table[outcome.case.kind][outcome.verdict] += 1
    return table

"""What several tests share: running the commands a user runs."""
from __future__ import annotations

import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import forks
import pytest
import torch
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
DING = Path(sys.executable).parent / 'ding'
DIZOO = Path(importlib.util.find_spec('dizoo').origin).parent  # DI-engine's own configurations and environments
PATIENCE = 600  # seconds for what will come: how busy the machine is must not decide


def start(*words, cwd: Path | None = None, output: int | None = None, **environment) -> forks.Process:
    """Start ``python WORDS``, here unless told otherwise, with variables changed, or with None removed."""
    variables = {**os.environ, 'OMP_NUM_THREADS': '1', **environment}
    return forks.Process(words, cwd or Path.cwd(), {k: str(v) for k, v in variables.items() if v is not None}, output)


def python(*words, check: bool = True, timeout: float = PATIENCE, **options) -> subprocess.CompletedProcess:
    """Run ``python WORDS`` to its end; the options are those of ``start``."""
    process = start(*words, **options)
    try:
        stdout, stderr = process.communicate(timeout)
    finally:
        process.kill()
    assert not check or process.returncode == 0, f'{stdout[-3000:]}\n{stderr[-6000:]}'
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def ding(*arguments, **options) -> subprocess.CompletedProcess:
    """Run DI-engine's own command, as a user types it."""
    return python(DING, *arguments, **options)


def cawr(*arguments, **options) -> subprocess.CompletedProcess:
    """Run ``cawr``, whatever its exit code is."""
    return python('-m', 'ding_cawr', *arguments, check=False, **options)


def train_offline(config: Path, *arguments, cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    """``ding -m serial_offline -c CONFIG ...``"""
    return ding('-m', 'serial_offline', '-c', config, *arguments, cwd=cwd, **kwargs)


class MakesFolder:
    """Pickled, it says that loading it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path, )


def write_config(path: Path, text: str) -> Path:
    """A user's configuration file."""
    path.write_text(text)
    return path


def flattened(state: object, prefix: str = '') -> dict[str, object]:
    """Values of nested containers by their path."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else None
    if items is None:
        return {prefix: state}
    return {key: value for name, part in items for key, value in flattened(part, f'{prefix}/{name}').items()}


def differences(got: dict, wanted: dict, aside: Sequence[str] = ()) -> list[str]:
    """Paths of what two checkpoints do not agree in, bit by bit: but for how long it took, what of it the last process
    did, where it came from, and what else is set aside."""
    aside = ('/run/seconds', '/run/evaluated_here', '/configuration', *aside)
    if int(version('rich').split('.')[0]) < 15:  # which draws from Python's generator for what it prints in colours
        aside = (*aside, *(name for name in flattened(wanted) if name.startswith('/run/random/python/')))
    got, wanted = flattened(got), flattened(wanted)
    differ = [name for name in got.keys() & wanted.keys() if not _same(got[name], wanted[name])]
    return [name for name in sorted({*differ, *(got.keys() ^ wanted.keys())}) if name not in aside]


def _same(got: object, wanted: object) -> bool:
    return torch.equal(got, wanted) if isinstance(wanted, torch.Tensor) else got == wanted


def benchmark(name: str) -> ModuleType:
    """The script benchmarks/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'benchmarks' / f'{name}.py')
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_roots_rights() -> list[str]:
    """The beginning of a command that may read only what its modes allow, and not everything, as root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which('setpriv'):
        pytest.skip('root needs setpriv to do without its rights')
    rights = '-dac_override,-dac_read_search'
    return ['setpriv', '--bounding-set', rights, '--inh-caps', rights]


def click_runner() -> CliRunner:
    """A runner of click's commands that keeps stderr apart, which before click 8.2 has to be asked for."""
    asked = {'mix_stderr': False} if 'mix_stderr' in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**asked)

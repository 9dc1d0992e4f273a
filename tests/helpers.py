"""What several tests share: running the commands a user runs."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def ding(*arguments, cwd: Path, check: bool = True, **environment) -> subprocess.CompletedProcess:
    """DI-engine's own command, as a user types it."""
    script = Path(sys.executable).parent / 'ding'
    result = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **environment}
    )
    assert not check or result.returncode == 0, f'{result.stdout[-3000:]}\n{result.stderr[-6000:]}'
    return result


def train_offline(config: Path, *arguments, cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    """``ding -m serial_offline -c CONFIG ...``"""
    return ding('-m', 'serial_offline', '-c', config, *arguments, cwd=cwd, **kwargs)


def write_config(path: Path, text: str) -> Path:
    """A user's configuration file."""
    path.write_text(text)
    return path

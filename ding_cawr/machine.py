"""Describing the machine and the versions that something was measured with."""
from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import ding_cawr

PACKAGES = ('DI-engine', 'torch', 'numpy', 'gymnasium', 'mujoco')


def machine(cuda: bool, threads: int | None = None) -> dict[str, Any]:
    """Return processor, cores that this process may use, threads of torch's operations, GPU (None without), system."""
    return {
        'cpu': _cpu_model(),
        'cores': cores(),
        'threads': threads or torch.get_num_threads(),
        'gpu': torch.cuda.get_device_name() if cuda and torch.cuda.is_available() else None,
        'system': f'{platform.system()} {platform.machine()}',
    }


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601's form."""
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def versions() -> dict[str, str | None]:
    """Return the versions of Python, of what results depend on, and of CUDA (None without)."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        'python': platform.python_version(), 'ding_cawr': ding_cawr.__version__, **packages,
        'torch': torch.__version__, 'cuda': torch.version.cuda,
    }


def _cpu_model() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text(encoding='utf-8', errors='replace').splitlines() if info.is_file() else []
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')),
                platform.processor() or 'unknown')

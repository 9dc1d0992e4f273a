"""Advantage-weighted offline reinforcement learning for DI-engine.

Importing this registers its parts with DI-engine. Only the command ``cawr`` registers them later, in the
subcommands that need DI-engine: importing it takes seconds.
"""
from __future__ import annotations

import importlib
import sys
from pathlib import PurePath
from typing import Any

__version__ = '0.2.0.dev0'

#: The public names, each with its module.
PUBLIC = {
    'advantage_weight': 'advantage',
    'load_policy': 'evaluation.acting',
    'load_transitions': 'data.load',
    'make_config': 'config',
    'normalized_score': 'score',
    'train_replicas': 'engine.replicas',
}
__all__ = list(PUBLIC)


def register() -> None:
    """Register the parts of this package with DI-engine; a second call does nothing.

    Raises:
        ImportError: the installed DI-engine does not have what this package needs.
    """
    importlib.import_module('ding_cawr.engine')


def is_command(argv: list[str], orig_argv: list[str]) -> bool:
    """Return whether a process is the command: ``cawr`` or ``python -m ding_cawr``.

    Processes that it starts are not: they may inherit ``sys.argv``, but not ``sys.orig_argv``.
    """
    program = argv[0] if argv else ''
    if program == '-m':  # as long as Python looks for the module to run
        return ['-m', 'ding_cawr'] in map(list, zip(orig_argv, orig_argv[1:]))
    names = ('cawr', 'cawr.exe')
    return PurePath(program).name in names and any(PurePath(word).name in names for word in orig_argv)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'ding_cawr.{PUBLIC[name]}'), name)


if not is_command(sys.argv, sys.orig_argv):
    register()

"""Entries of a configuration that name a function of a table: ``'l1'`` or ``dict(type='huber', kappa=0.2)``."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ding_cawr.tasks import nearest


def options_of(entry: Any) -> dict:
    """An entry as a mapping of its own: ``'l1'`` is ``{'type': 'l1'}``."""
    return dict(entry) if isinstance(entry, Mapping) else {'type': entry}


def component(entry: str | Mapping, table: Mapping[str, Callable], key: str) -> Callable:
    """The function of ``table`` that ``entry`` names, with the entry's constants bound.

    Arguments:
        entry: a name, or a mapping with ``type`` and constants of that function.
        table: functions by name; their keyword arguments with defaults are the constants.
        key: the configuration key, for messages.

    Raises:
        ValueError: unknown name or constant.
    """
    constants = options_of(entry)
    name = constants.pop('type', None)
    if name not in table:
        raise ValueError(f'{key} is {name!r}; allowed are {", ".join(map(repr, table))}{nearest(name, table)}')
    parameters = inspect.signature(table[name]).parameters.values()
    allowed = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
    for constant in constants:
        if constant not in allowed:
            raise ValueError(
                f'{key} {name!r} has no constant {constant!r}; it has {allowed or "none"}{nearest(constant, allowed)}'
            )
    return functools.partial(table[name], **constants)

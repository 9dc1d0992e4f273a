"""Import the modules that a user names. What a file names is never imported unless the user names it, too."""
from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Iterable
from typing import Any

from ding_cawr.environments import check_untrusted_id


def import_modules(names: Iterable[str]) -> None:
    """Import modules, those in the current folder included, which may register environments.

    Raises:
        ValueError: there is no such module, or it fails; names it and its error.
    """
    for name in names:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as error:  # a user's module may fail in any way
            raise ValueError(
                f'the module {name!r} cannot be imported ({type(error).__name__}: {error}); it must be the name of an '
                'installed module or of one in the current folder, such as package.module'
            ) from error


def is_confirmed(module: str, names: Collection[str]) -> bool:
    """Return whether a module, or a package that it is in, is among those that the user named."""
    return any(module == name or module.startswith(f'{name}.') for name in names)


def check_id(env_id: str | None, source: Any, names: Collection[str] = ()) -> None:
    """Check an id that a file names: gymnasium would import the module of 'MODULE:ID'.

    Arguments:
        names: the modules that the user named.

    Raises:
        ValueError: its module is not among them; names the file and the id.
    """
    if not is_confirmed((env_id or '').partition(':')[0], names):
        check_untrusted_id(env_id, source)

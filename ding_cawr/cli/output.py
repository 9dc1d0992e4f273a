"""Writing results to stdout, as JSON with --json; progress and errors go to stderr, and no hints of libraries."""
from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings

import click
import numpy as np

import ding_cawr
from ding_cawr.files import to_json

json_option = click.option('--json', 'as_json', is_flag=True, help='Write JSON to stdout, for programs.')


def register() -> None:
    """Register with DI-engine, without the hints that it and what it builds on give when they are imported.

    Raises:
        ImportError: the installed DI-engine does not have what this package needs.
    """
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # gym prints there that it is not maintained; where it is missing, what needs it says so.
            with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(ImportError):
                importlib.import_module('gym')
            warnings.simplefilter('ignore')  # after gym, which asks for some
            ding_cawr.register()
    finally:
        logging.disable(logging.NOTSET)


def write_json(value) -> None:
    """Write a value to stdout as JSON, NumPy's values and bytes by their nearest equivalents."""
    click.echo(to_json(value, default=jsonable, indent=2))


def jsonable(value):
    """Return what JSON can hold instead of a value."""
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)

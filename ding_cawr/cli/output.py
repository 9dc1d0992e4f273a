"""Writing results to stdout, as JSON with --json; progress and errors go to stderr."""
from __future__ import annotations

import click
import numpy as np

from ding_cawr.files import to_json

json_option = click.option('--json', 'as_json', is_flag=True, help='Write JSON to stdout, for programs.')


def write_json(value) -> None:
    """Write a value to stdout as JSON, NumPy's values and bytes by their nearest equivalents."""
    click.echo(to_json(value, default=jsonable, indent=2))


def jsonable(value):
    """Return what JSON can hold instead of a value."""
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)

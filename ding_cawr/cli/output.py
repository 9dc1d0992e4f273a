"""Writing results to stdout, as JSON with --json; progress and errors go to stderr."""
from __future__ import annotations

import json

import click
import numpy as np

json_option = click.option('--json', 'as_json', is_flag=True, help='Write JSON to stdout, for programs.')


def write_json(value) -> None:
    """Write a value to stdout as JSON, NumPy's values and bytes by their nearest equivalents; a number that is not
    finite, which JSON does not have, is null."""
    # Read again where Python's writer would have written NaN.
    plain_value = json.loads(json.dumps(value, default=plain), parse_constant=lambda name: None)
    click.echo(json.dumps(plain_value, indent=2, allow_nan=False))


def plain(value):
    """Return what JSON can hold instead of a value."""
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)

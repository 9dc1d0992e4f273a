"""``cawr resume``: a run goes on."""
from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

import ding_cawr
from ding_cawr.cli.output import json_option, write_json


@click.command()
@click.argument('exp_dir', type=click.Path(path_type=Path))
@click.option('--train-iter', type=click.IntRange(min=1), help='Iterations in all.  [default: those of the run]')
@json_option
def resume(exp_dir: Path, train_iter: int | None, as_json: bool) -> None:
    """Continue the run in EXP_DIR, in the same folder, from its last whole checkpoint.

    It ends with what it would have ended with if it had not been stopped.
    """
    ding_cawr.register()
    from ding_cawr.engine import resume as runs

    # DI-engine and the run say on stdout how it goes.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        checkpoint = runs.resume(exp_dir, train_iter)
    if as_json:
        write_json({'exp_dir': exp_dir, 'checkpoint': checkpoint})

"""The command ``cawr``.

These modules import DI-engine and torch within the subcommands that need them, after ``output.register()``. The
others answer at once.
"""
from __future__ import annotations

import sys
from collections.abc import Callable

import click

from ding_cawr.cli.bench import bench
from ding_cawr.cli.compare import compare
from ding_cawr.cli.data import data
from ding_cawr.cli.report import report
from ding_cawr.cli.trained import eval_, export, resume
from ding_cawr.tasks import EnvironmentFailed

#: Errors that the user can fix. A ConnectionError is an OSError.
USER_ERRORS = (ValueError, OSError, FloatingPointError, ImportError, EnvironmentFailed)


class Cawr(click.Group):
    """The group of all commands. It reports an error that the user can fix in one line, with exit code 1."""

    def make_context(self, *args, **kwargs) -> click.Context:
        """Read the command line, which also answers --help."""
        return self._reporting(super().make_context, *args, **kwargs)

    def invoke(self, ctx: click.Context):
        return self._reporting(super().invoke, ctx)

    def _reporting(self, function: Callable, *args, **kwargs):
        """Call a function; report those of its errors that the user can fix."""
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if 'ding' in sys.modules:
                from ding_cawr.engine.host import close_writer
                close_writer(error)
            # Where the reader of a pipe has gone, `cawr ... | head`, click leaves quietly.
            if isinstance(error, USER_ERRORS) and not isinstance(error, BrokenPipeError):
                raise click.ClickException(' '.join(str(error).split())) from error
            raise


@click.group(cls=Cawr)
@click.version_option(package_name='ding_cawr')
def cawr() -> None:
    """Advantage-weighted offline reinforcement learning in DI-engine."""


for command in (data, compare, report, resume, eval_, export, bench):
    cawr.add_command(command)

"""The command ``cawr``."""
from __future__ import annotations

import click

from ding_cawr.cli.bench import bench
from ding_cawr.cli.compare import compare
from ding_cawr.cli.data import data
from ding_cawr.cli.policy import eval_, export
from ding_cawr.cli.report import report
from ding_cawr.cli.resume import resume
from ding_cawr.engine.host import close_at_exit


class Cawr(click.Group):
    """The group of all commands: what the user can mend is reported in one line, with exit code 1."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe has gone, `cawr ... | head`: click leaves quietly
            raise
        except (ValueError, OSError, FloatingPointError) as error:  # FileNotFoundError, ConnectionError are OSErrors
            close_at_exit()
            raise click.ClickException(' '.join(str(error).split())) from error


@click.group(cls=Cawr)
def cawr() -> None:
    """Offline reinforcement learning with CAWR in DI-engine."""


for command in (data, compare, report, resume, eval_, export, bench):
    cawr.add_command(command)

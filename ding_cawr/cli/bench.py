"""``cawr bench``: how fast training is."""
from __future__ import annotations

import functools
import sys

import click

from ding_cawr.cli.output import json_option, register, write_json


@click.command()
@click.option('--algorithm', metavar='PRESET', help='Preset of make_config to measure.  [default: cawr]')
@click.option('--size', default=1_000_000, show_default=True, help='Transitions of the synthetic data.')
@click.option('--obs-shape', default=11, show_default=True, help='Width of their observations.')
@click.option('--action-shape', default=3, show_default=True, help='Width of their actions.')
@click.option('--batch-size', default=512, show_default=True, help='Samples of each batch.')
@click.option('--iterations', type=int, help='Iterations of each part.  [default: 300, on a GPU 5000]')
@click.option('--device', default='cpu', show_default=True, metavar='cpu|cuda', help='Where to train.')
@click.option('--threads', type=int, help="Threads of torch's operations on the CPU.  [default: torch's own]")
@click.option('--learn', 'learn_entries', multiple=True, metavar='KEY=VALUE',
              help='A setting of policy.learn; may be repeated.')
@json_option
def bench(as_json: bool, learn_entries: tuple[str, ...], **options) -> None:
    """Measure how fast training is, part by part, beside a lower bound of its arithmetic, and compare it with targets.

    The data are synthetic; everything is in one process, the parts in turn; nothing is left on the disk.
    """
    register()
    from ding_cawr.bench import measure, report

    show = functools.partial(print, file=sys.stderr, flush=True)  # stderr as it is now: DI-engine is kept quiet
    given = {name: value for name, value in options.items() if value is not None}
    settings = measure.Options(**given, learn=measure.parse_learn(learn_entries))
    result = report.report(measure.measure(settings, progress=show))
    if as_json:
        return write_json(result)
    click.echo(report.text(result))

"""``cawr report``: write the report of a comparison."""
from __future__ import annotations

from pathlib import Path

import click

from ding_cawr.cli.output import json_option, write_json


@click.command()
@click.argument('results', metavar='RESULTS...', nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option('--out', metavar='DIR', type=click.Path(path_type=Path),
              help='Folder of the report.  [default: report, beside the first RESULTS]')
@json_option
def report(results: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Report a comparison: tables and figures in report.md, report.html, report.json and figures/.

    RESULTS are results.jsonl files, or folders that hold one. Runs of several files are put together, unless they
    differ in what makes them comparable. A report that is there is replaced.
    """
    from ding_cawr.compare import sections  # imports pandas and matplotlib, for which --help need not wait
    from ding_cawr.compare.gathering import gather

    gathered = gather(results)
    document = sections.report(gathered)
    out = out or gathered.files[0].parent / 'report'
    document.write(out)
    for warning in sections.warnings(gathered):
        click.echo(f'Warning: {warning}', err=True)
    counts = dict(finished=len(gathered.runs), unfinished=len(gathered.unfinished), failed=len(gathered.failures))
    if as_json:
        return write_json({
            'report': out / 'report.html', 'markdown': out / 'report.md', 'results': gathered.files, **counts,
            'skipped_lines': len(gathered.skipped), 'tables': document.as_json()
        })
    click.echo(f'{", ".join(f"{number} {name}" for name, number in counts.items())}: {out / "report.html"}')
    click.echo(f'as Markdown: {out / "report.md"}')

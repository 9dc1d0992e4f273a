"""``cawr report``: what a comparison came to."""
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
    """Report a comparison: tables and figures in report.md, report.html and figures/.

    RESULTS are results.jsonl files, or folders that hold one. Runs of several files are put together, unless they
    differ in what makes them comparable. A report that is there is replaced.
    """
    # They take a second to import.
    from ding_cawr.compare.document import as_json as tables_of
    from ding_cawr.compare.document import write
    from ding_cawr.compare.gathering import gather
    from ding_cawr.compare.report import sections, skipped

    gathered = gather(results)
    blocks = sections(gathered)
    out = out or gathered.files[0].parent / 'report'
    write(blocks, out)
    if gathered.skipped_lines:
        click.echo(f'Warning: {skipped(gathered)}', err=True)
    if not gathered.entries:
        click.echo('Warning: no run has finished, so there is no score', err=True)
    counts = {
        'finished': len(gathered.entries), 'unfinished': len(gathered.unfinished), 'failed': len(gathered.failures)
    }
    if as_json:
        files = {'report': out / 'report.html', 'markdown': out / 'report.md', 'results': gathered.files}
        tables = tables_of(blocks)
        return write_json({**files, **counts, 'skipped_lines': gathered.skipped_lines, 'tables': tables})
    click.echo(f'{", ".join(f"{number} {name}" for name, number in counts.items())}: {out / "report.html"}')
    click.echo(f'as Markdown: {out / "report.md"}')

"""What a report is made of, and how it is written: Markdown, one HTML file, JSON."""
from __future__ import annotations

import base64
import dataclasses
import functools
import html
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from tabulate import tabulate

from ding_cawr.compare import plots
from ding_cawr.compare.statistics import Estimate, Spread


@dataclass(frozen=True)
class Heading:
    """A section's title; the report's own has level 1."""
    text: str
    level: int = 2
    kind = 'heading'


@dataclass(frozen=True)
class Paragraph:
    text: str
    kind = 'paragraph'


@dataclass(frozen=True)
class Table:
    """Rows are {column: value}; values are text, numbers, ``Spread``, ``Estimate`` or None. ``digits`` are those behind
    the point, ``notes`` are printed below."""
    title: str
    rows: list[dict[str, Any]]
    notes: Sequence[str] = ()
    digits: int = 1
    kind = 'table'

    @property
    def header(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))

    @property
    def cells(self) -> list[list[str]]:
        return [[cell(row.get(column), self.digits) for column in self.header] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers."""
        values = [{type(row.get(column)) for row in self.rows} - {type(None)} for column in self.header]
        return [bool(types) and str not in types for types in values]


@dataclass(frozen=True)
class Picture:
    """A figure, its file's name without an ending, and its caption."""
    name: str
    caption: str
    figure: Figure
    kind = 'picture'

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        return plots.render(self.figure)


@dataclass(frozen=True)
class Code:
    text: str
    kind = 'code'


@dataclass(frozen=True)
class Collapsed:
    """Blocks that are shown when the summary is clicked."""
    summary: str
    blocks: list
    kind = 'collapsed'


Block = Heading | Paragraph | Table | Picture | Code | Collapsed


def cell(value: Any, digits: int) -> str:
    """A table's value as text."""
    match value:
        case None:
            return '-'
        case Spread(mean, std, _):
            return f'{mean:.{digits}f}' if std is None else f'{mean:.{digits}f} ± {std:.{digits}f}'
        case Estimate(value, low, high):
            interval = '-' if low is None else f'{low:.{digits}f}, {high:.{digits}f}'
            return f'{value:.{digits}f} [{interval}]'
        case float():
            return f'{value:,.{digits}f}'
        case int():
            return f'{value:,}'
    return ' '.join(str(value).split())


def slug(*words: str) -> str:
    """A file's name; of a long path its end."""
    return re.sub(r'[^A-Za-z0-9.]+', '_', '_'.join(word[-80:] for word in words)).strip('_')


def as_markdown(blocks: Iterable[Block]) -> str:
    """The document in GitHub's Markdown; pictures are files beside it."""
    return '\n\n'.join(_markdown(block) for block in blocks) + '\n'


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f'{"#" * level} {_escaped(text)}'
        case Paragraph(text):
            return _escaped(text)
        case Table(title, notes=notes):
            rows = [[_escaped(text) for text in row] for row in block.cells]
            header = [_escaped(text) for text in block.header]
            align = ['right' if numeric else 'left' for numeric in block.numeric]
            text = tabulate(rows, header, tablefmt='github', disable_numparse=True, colalign=align)
            return '\n\n'.join([f'**{_escaped(title)}**', text, *map(_escaped, notes)])
        case Picture(name, caption):
            return f'![{_escaped(caption)}](figures/{name}.png)'
        case Code(text):
            return f'```json\n{text}\n```'
        case Collapsed(summary, inner):
            return f'<details>\n<summary>{html.escape(summary)}</summary>\n\n{as_markdown(inner)}\n</details>'


def _escaped(text: str) -> str:
    """What Markdown would take for its own; underscores within words it leaves alone."""
    return re.sub(r'[\\`*<>|&~]|\](?=\()|(?<!\w)_|_(?!\w)', r'\\\g<0>', text)


def as_html(blocks: Sequence[Block]) -> str:
    """The document as one HTML file that needs no other."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('ding_cawr.compare'), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined
    )
    environment.filters['anchor'] = lambda text: slug(text).lower()
    return environment.get_template('report.html').render(blocks=blocks, picture=_data_url)


def _data_url(picture: Picture) -> str:
    """A picture as an address that holds it; as an image of its own, so that names in two pictures do not collide."""
    return 'data:image/svg+xml;base64,' + base64.b64encode(picture.files['svg']).decode()


def as_json(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """The tables as plain values; what is not finite is None, since JSON has no word for it."""
    tables = []
    for block in blocks:
        if isinstance(block, Table):
            rows = [{column: _plain(value) for column, value in row.items()} for row in block.rows]
            tables.append({'title': block.title, 'notes': list(block.notes), 'rows': rows})
        elif isinstance(block, Collapsed):
            tables += as_json(block.blocks)
    return tables


def _plain(value: Any) -> Any:
    if isinstance(value, (Spread, Estimate)):
        return {name: _plain(each) for name, each in dataclasses.asdict(value).items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(blocks: Sequence[Block], out: Path) -> None:
    """Write report.md, report.html and figures/ into a folder, replacing file by file what is there. Everything is
    written elsewhere first, so that nothing half-written is left.

    Raises:
        OSError: the folder cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f'{str(out)!r} is a file, and a report is a folder; give another --out')
    files = {'report.md': as_markdown(blocks).encode(), 'report.html': as_html(blocks).encode()}
    for block in blocks:
        if isinstance(block, Picture):
            files.update({f'figures/{block.name}.{ending}': content for ending, content in block.files.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{out.name}_', dir=out.parent))
    try:
        for name, content in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(content)
        (out / 'figures').mkdir(parents=True, exist_ok=True)
        for name in files:
            os.replace(temporary / name, out / name)
    finally:
        shutil.rmtree(temporary)

"""Write a report: one Markdown text, the same as one HTML file, and its tables as JSON."""
from __future__ import annotations

import base64
import dataclasses
import html
import os
import re
import string
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markdown import Markdown
from matplotlib.figure import Figure

from ding_cawr.compare import figures
from ding_cawr.compare.statistics import Estimate, Spread
from ding_cawr.files import to_json, writing

PAGE = Path(__file__).parent / 'templates' / 'report.html'


@dataclass(frozen=True)
class ReportTable:
    """A table of text, numbers, ``Spread``, ``Estimate`` and None, with the number of decimals."""
    title: str
    frame: pd.DataFrame
    notes: Sequence[str] = ()
    digits: int = 1

    @property
    def cells(self) -> pd.DataFrame:
        return self.frame.apply(lambda column: column.map(lambda value: cell(value, self.digits)))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.frame.to_dict('records')

    def markdown(self) -> str:
        numeric = [not any(isinstance(value, str) for value in column) and column.notna().any()
                   for _, column in self.frame.items()]
        return self.cells.map(escaped).to_markdown(
            index=False, headers=list(map(escaped, self.frame)), disable_numparse=True,
            colalign=['right' if each else 'left' for each in numeric]
        )


def cell(value: Any, digits: int) -> str:
    if value is None:
        return '-'
    if isinstance(value, (float, Spread, Estimate)):
        return f'{value:,.{digits}f}'
    return f'{value:,}' if isinstance(value, (int, np.integer)) else ' '.join(str(value).split())


def escaped(text: str) -> str:
    """Return text without what Markdown or HTML would take for its own; underscores within words stay."""
    text = re.sub(r'[\\`*|]|\](?=\()|(?<!\w)_|_(?!\w)', r'\\\g<0>', text)
    return html.escape(text, quote=False).replace('~', '&#126;')


def slug(*words: str) -> str:
    """Return a file's name; of a long path its end is used."""
    return re.sub(r'[^A-Za-z0-9.]+', '_', '_'.join(word[-80:] for word in words)).strip('_')


@dataclass
class Document:
    """A report that grows section by section: Markdown, the tables in it, and {name: figure}."""
    title: str
    parts: list[str] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)

    def heading(self, text: str, level: int = 2) -> None:
        self.parts.append(f'{"#" * level} {escaped(text)}')

    def text(self, *paragraphs: str) -> None:
        self.parts += map(escaped, paragraphs)

    def code(self, value: Any) -> None:
        self.parts.append(f'```json\n{to_json(value, indent=2, sort_keys=True)}\n```')

    def table(self, title: str, rows: pd.DataFrame | list[dict], notes: Sequence[str] = (), digits: int = 1) -> None:
        """Add a table with notes below it. Missing values of a DataFrame become None; those of rows stay."""
        frame = pd.DataFrame(rows, dtype=object)
        frame = frame.where(rows.notna(), None) if isinstance(rows, pd.DataFrame) else frame
        self.tables.append(ReportTable(title, frame, notes, digits))
        self.heading(title, 3)
        self.parts.append(self.tables[-1].markdown())
        self.text(*notes)

    def figure(self, name: str, caption: str, figure: Figure) -> None:
        """Add a figure. A name that another figure has gets a number."""
        taken = sum(re.fullmatch(rf'{re.escape(name)}(_\d+)?', other) is not None for other in self.figures)
        name = f'{name}_{taken + 1}' if taken else name
        self.figures[name] = figure
        self.parts.append(f'![{escaped(caption)}](figures/{name}.png)')

    @contextmanager
    def collapsed(self, summary: str) -> Iterator[None]:
        """Hide what is added within until the summary is clicked."""
        self.parts.append(f'<details markdown="1">\n<summary>{html.escape(summary)}</summary>')
        yield
        self.parts.append('</details>')

    def as_markdown(self) -> str:
        """Return the document in GitHub's Markdown; pictures are files beside it."""
        return '\n\n'.join([f'# {self.title}', *self.parts]) + '\n'

    def as_html(self, pictures: dict[str, bytes]) -> str:
        """Return the document as one HTML file that holds its pictures, of which the SVG files are given."""
        reader = Markdown(extensions=['tables', 'fenced_code', 'md_in_html', 'toc'],
                          extension_configs={'toc': {'toc_depth': 2}})
        body = reader.convert('\n\n'.join(self.parts))

        def embedded(match: re.Match) -> str:
            data = base64.b64encode(pictures[f'{match[2]}.svg']).decode()
            # An image of its own, so that identifiers in two pictures do not collide.
            return (f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{match[1]}">'
                    f'<figcaption>{match[1]}</figcaption></figure>')

        body = re.sub(r'<p><img alt="([^"]*)" src="(figures/[^"]+)\.png" ?/?></p>', embedded, body)
        page = string.Template(PAGE.read_text(encoding='utf-8'))
        return page.substitute(title=self.title, contents=reader.toc, body=body)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the tables as plain values, for ``to_json``."""
        return [
            {'title': table.title, 'notes': list(table.notes),
             'rows': [{column: _plain(value) for column, value in row.items()} for row in table.rows]}
            for table in self.tables
        ]

    def write(self, out: Path) -> None:
        """Write report.md, report.html, report.json and figures/ into a folder, replacing the report that is there.
        Everything is written elsewhere first, so that nothing half-written is left. Raises an OSError if it cannot."""
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(f'{str(out)!r} is a file, and a report is a folder; give another --out')
        pictures = {f'figures/{name}.{ending}': content for name, figure in self.figures.items()
                    for ending, content in figures.render(figure).items()}
        files = {
            'report.md': self.as_markdown().encode(), 'report.html': self.as_html(pictures).encode(),
            'report.json': to_json(self.as_json(), indent=2).encode(), **pictures,
        }
        with writing(out):
            self._write(files, out)

    @staticmethod
    def _write(files: Mapping[str, bytes], out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{out.name}_', dir=out.parent) as temporary:
            Path(temporary, 'figures').mkdir()
            for name, content in files.items():
                Path(temporary, name).write_bytes(content)
            (out / 'figures').mkdir(parents=True, exist_ok=True)
            for name in files:
                os.replace(Path(temporary, name), out / name)
            for old in (out / 'figures').iterdir():  # of the report that was there
                if f'figures/{old.name}' not in files and old.suffix[1:] in figures.KINDS:
                    old.unlink()


def _plain(value: Any) -> Any:
    if isinstance(value, (Spread, Estimate)):
        return dataclasses.asdict(value)
    return value.item() if isinstance(value, np.generic) else value

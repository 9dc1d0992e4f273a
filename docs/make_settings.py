"""Write docs/settings.md from the code: every key, its default, what it must be and its comment.

    python docs/make_settings.py

The keys of ``policy.learn`` and ``policy.model`` are the fields of each algorithm's ``Settings`` and ``ModelSettings``.
The other keys are those of ``CONFIG`` in ding_cawr/engine/configuration.py and of the environment, each with the
comment above it. tests/test_docs.py compares the checked-in page with what this script writes.
"""
from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.algorithms.settings import Settings
from ding_cawr.config import ITERATIONS, PRESETS
from ding_cawr.engine import configuration
from ding_cawr.engine.env import MujocoEnv

PAGE = Path(__file__).with_name('settings.md')
PRESET_OF = 'hopper-medium-v2'
HEAD = """# Settings

<!-- Written by docs/make_settings.py; do not edit. -->

All keys below belong to `main_config`; `make_config` takes the settings of the algorithm
and common keys of `env` by their own names, and any key within `policy=dict(...)` or `env=dict(...)`.
A misspelt key is an error that names the nearest one. Keys of DI-engine's other policies are ignored with one warning.
"""


def page() -> str:
    """Return the text of docs/settings.md."""
    parts = [HEAD]
    for name, algorithm in ALGORITHMS.items():
        parts.append(f'## policy.learn of {name}\n\n{fields_table(algorithm.Settings)}')
        parts.append(f'## policy.model of {name}\n\nobs_shape and action_shape: the widths of the data; they have no '
                     f'default.\n\n{fields_table(algorithm.ModelSettings)}')
    source = inspect.getsource(configuration)
    parts.append(f'## The rest of policy\n\n{config_table(source, "CONFIG", configuration.CONFIG)}')
    source = textwrap.dedent(inspect.getsource(MujocoEnv))
    parts.append(f'## env\n\n{config_table(source, "config", MujocoEnv.config)}')
    parts.append(
        f'## Presets\n\nWhat `make_config({PRESET_OF!r}, algorithm=PRESET)` sets beside the defaults, for '
        f'{ITERATIONS:,} iterations.\nOther datasets differ where [methods](methods.md) says so.\n\n{presets_table()}'
    )
    return '\n'.join(parts)


def fields_table(settings: type[Settings]) -> str:
    """Return a table of the fields of a ``Settings`` class."""
    rows = (
        (f'`{field.name}`', shown(field.metadata['default']), str(field.metadata['kind']), field.metadata['doc'])
        for field in dataclasses.fields(settings)
    )
    return table(('key', 'default', 'must be', 'meaning'), rows)


def config_table(source: str, name: str, config: dict) -> str:
    """Return a table of the keys of ``name = dict(...)`` in a source that have a comment above them."""
    assigned = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign))
    call = next(node.value for node in assigned if [ast.unparse(target) for target in node.targets] == [name])
    rows = ((f'`{key}`', shown(value), comment) for key, value, comment in commented(call, config, source.splitlines()))
    return table(('key', 'default', 'meaning'), rows)


def commented(call: ast.expr, config: dict, lines: list[str], place: str = '') -> Iterator[tuple[str, Any, str]]:
    """Yield key, default and comment of a nested ``dict(...)``."""
    for keyword in getattr(call, 'keywords', ()):
        first = last = keyword.value.lineno - 1
        while lines[first - 1].strip().startswith('#'):
            first -= 1
        if first < last:
            text = ' '.join(line.strip(' #') for line in lines[first:last])
            yield f'{place}{keyword.arg}', config[keyword.arg], text
        else:
            yield from commented(keyword.value, config[keyword.arg], lines, f'{place}{keyword.arg}.')


def presets_table() -> str:
    """Return a table of the settings of each preset."""
    rows = []
    for name, (algorithm, preset) in PRESETS.items():
        sections = preset.sections(PRESET_OF, None, ITERATIONS)
        given = [(f'{section}.{key}', value) for section in ('learn', 'model', 'env') for key, value in
                 sections.get(section, {}).items()]
        settings = ', '.join(f'`{key}={_shown(value)}`' for key, value in given)
        rows.append((f'`{name}`', algorithm.name, preset.description, settings))
    return table(('preset', 'policy', 'what', 'settings'), rows)


def shown(value: Any) -> str:
    """Return a value as code, dicts as ``dict(...)``."""
    return f'`{_shown(value)}`'


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={_shown(part)}" for key, part in value.items())})'
    if isinstance(value, float):
        return '1/3' if value == 1 / 3 else repr(value)
    return repr(value)


def table(head: tuple[str, ...], rows: Any) -> str:
    """Return a Markdown table."""
    lines = [head, ('---', ) * len(head), *rows]
    return ''.join(f'| {" | ".join(re.sub("[|]", chr(92) + "|", cell) for cell in line)} |\n' for line in lines)


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')

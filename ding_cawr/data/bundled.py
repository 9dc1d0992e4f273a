"""The datasets that come with the package, for a first run without a download."""
from __future__ import annotations

from pathlib import Path

from ding_cawr.checks import nearest

SCHEME = 'bundled'
FOLDER = Path(__file__).parent / 'bundled_sets'


def names() -> list[str]:
    """Return the names that ``bundled:NAME`` takes."""
    return sorted(path.stem for path in FOLDER.glob('*.hdf5'))


def path(name: str) -> Path:
    """Return the file of a bundled set.

    Raises:
        ValueError: there is no set of that name.
    """
    if name not in names():
        raise ValueError(f'no bundled dataset {name!r}; bundled are: {", ".join(names())}{nearest(name, names())}')
    return FOLDER / f'{name}.hdf5'


def is_bundled(data_path: object) -> bool:
    """Return whether a data_path, or its only entry, names a set that comes with the package."""
    paths = data_path if isinstance(data_path, (list, tuple)) else [data_path]
    return len(paths) == 1 and str(paths[0]).startswith(f'{SCHEME}:')

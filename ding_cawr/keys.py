"""Configuration keys: misspelt and misplaced ones are errors, whoever reads the section."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

#: How alike a key must be to one of ours to be taken for a slip of the pen.
RESEMBLANCE = 0.8


def unknown_keys(
    section: Mapping,
    place: str,
    own: Collection[str],
    known: Collection[str],
    elsewhere: Mapping[str, str] | None = None,
) -> list[str]:
    """Keys of a section that nobody here reads, after refusing those that look like ours.

    Arguments:
        section: the configuration's section.
        place: its name in messages, such as ``policy.learn``.
        own: keys that this package reads in it.
        known: keys that belong to DI-engine or to its other policies in such a section; they are never refused.
        elsewhere: keys that this package reads in another section, with that section's name.

    Raises:
        ValueError: an unknown key resembles one of ours, or is one of ours in the wrong section.
    """
    others = {key: where for key, where in (elsewhere or {}).items() if key not in own}
    unknown = [key for key in section if key not in own]
    for key in unknown:
        if key in known:
            continue
        places = {**others, **dict.fromkeys(own, place)}
        close = [key] if key in others else get_close_matches(key, places, n=3, cutoff=RESEMBLANCE)
        if close:
            meant = ' or '.join(f'{places[name]}.{name}' for name in close)
            raise ValueError(f'{place}.{key} is no key that anything reads; did you mean {meant}?')
    return [f'{place}.{key}' for key in unknown]


def positive_int(value: Any, key: str) -> int:
    """``value``, if it is a positive whole number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{key} is {value!r}; allowed is a positive whole number')
    return value

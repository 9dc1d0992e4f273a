"""Checks of what a user gives: names, numbers, flags, and the keys of a configuration.

A message names the key, its value, what it must be and, for a name, the nearest one that exists.
"""
from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

#: Similarity (0 to 1) from which an unknown key counts as a misspelling of one of ours.
RESEMBLANCE = 0.8


def plain(value: Any) -> Any:
    """Return a value as plain Python holds it, where that means the same; any other value as it is.

    NumPy's and torch's numbers, flags, texts and arrays become Python's, and paths become texts; also within dicts,
    lists and tuples.
    """
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, 'tolist') else value


def nearest(name: Any, names: Iterable) -> str:
    """Return ``'; did you mean ...?'`` for the closest of the names, or an empty string: the tail of a message."""
    close = difflib.get_close_matches(str(name), [str(item) for item in names], n=1)
    return f'; did you mean {close[0]!r}?' if close else ''


def listed(names: Iterable) -> str:
    """Return names as part of a message: ``'l2', 'l1'``."""
    return ', '.join(map(repr, names))


def one_of(key: str, value: Any, names: Collection) -> Any:
    """Return ``value``, which must be one of the names.

    Raises:
        ValueError: it is not.
    """
    if value not in list(names):
        raise ValueError(f'{key} is {value!r}; it must be one of {listed(names)}{nearest(value, names)}')
    return value


class Kind(Protocol):
    """The values that a setting may have; ``str`` gives them as part of a sentence."""

    def check(self, key: str, value: Any) -> Any:
        """Return ``value`` as it is used, or raise a ValueError that names the key, the value and what it must be."""


@dataclass(frozen=True)
class Bound:
    """The numbers that a setting may have.

    Attributes:
        low, high: least and greatest number.
        open_low, open_high: whether that number itself is left out; infinity always is.
        whole: whether the number must be an int.
    """
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        above = self.low < value if self.open_low else self.low <= value
        below = value < self.high if self.open_high else value <= self.high
        return above and below and -math.inf < value < math.inf

    def __str__(self) -> str:
        kind = 'whole' if self.whole else 'finite'
        if self.high < math.inf:
            low, high = (f'{each:g}' if isinstance(each, float) else each for each in (self.low, self.high))
            span = f'{"(" if self.open_low else "["}{low}, {high}{")" if self.open_high else "]"}'
            return f'a {"whole " if self.whole else ""}number in {span}'
        if (self.low, self.open_low) == ((1, False) if self.whole else (0, True)):
            return f'a positive {kind} number'
        if self.low == -math.inf:
            return f'a {kind} number'
        return f'a {kind} number {"above" if self.open_low else "of at least"} {self.low:g}'

    def check(self, key: str, value: Any) -> Any:
        """Return ``value`` as a number of Python, which must be one of these.

        A number of NumPy or torch, and a whole float such as 1e6 where the number must be whole, are taken.

        Raises:
            ValueError: it is not one of these numbers.
        """
        taken = plain(value)
        if self.whole and isinstance(taken, float) and taken.is_integer():
            taken = int(taken)
        if taken not in self:
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        return taken


POSITIVE = Bound(0, open_low=True)
POSITIVE_INT = Bound(1, whole=True)
SHARE = Bound(0, 1, open_low=True, open_high=True)
SEED = Bound(0, 2**32 - 1, whole=True)
#: A number of iterations that no run reaches.
NEVER = 10**18


@dataclass(frozen=True)
class Names:
    """The names that a setting may have."""
    names: Collection[str]

    def __str__(self) -> str:
        return f'one of {listed(self.names)}'

    def check(self, key: str, value: Any) -> Any:
        """Return ``value``, which must be one of the names."""
        return one_of(key, value, self.names)


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def __str__(self) -> str:
        return 'True or False'

    def check(self, key: str, value: Any) -> bool:
        """Return ``value`` as a bool, which it must be in Python, NumPy or torch.

        Raises:
            ValueError: it is not.
        """
        taken = plain(value)
        if not isinstance(taken, bool):
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        return taken


@dataclass(frozen=True)
class Or:
    """Accepts the values of another kind, and special values that stand for others.

    Attributes:
        instead: special values, each with the value that is used in its place.
        text: names the special values, as the end of a sentence.
    """
    kind: Kind
    instead: Sequence[tuple[Any, Any]]
    text: str

    def __str__(self) -> str:
        return f'{self.kind}, or {self.text}'

    def check(self, key: str, value: Any) -> Any:
        """Return the value that is used for ``value``."""
        taken = plain(value)
        for special, meaning in self.instead:
            if taken == special and not isinstance(taken, bool):
                return meaning
        try:
            return self.kind.check(key, value)
        except ValueError as error:
            raise ValueError(f'{error}, or {self.text}') from None


def or_none(kind: Kind) -> Or:
    """Return a kind that also accepts None."""
    return Or(kind, [(None, None)], 'None')


#: Iterations between two events.
EVERY = Or(POSITIVE_INT, [(0, NEVER), (None, NEVER)], '0 or None for never')


def options(key: str, given: Any, known: Mapping[str, tuple[Any, Kind]]) -> dict[str, Any]:
    """Return the options that are known, checked: those given, and the defaults of the others.

    Arguments:
        known: default and kind of each option.

    Raises:
        ValueError: ``given`` is not a mapping, or has an option that is not known or a wrong value.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'{key} is {given!r}; it must be None or a dict with {", ".join(known)}')
    for name in given:
        if name not in known:
            has = ', '.join(known) or 'none'
            raise ValueError(f'{key} has no option {name!r}; it has {has}{nearest(name, known)}')
    return {name: kind.check(f'{key}.{name}', given.get(name, default)) for name, (default, kind) in known.items()}


def typed(key: str, entry: Any, names: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Return the type that an entry names, and its constants: ``'l1'`` and ``dict(type='l1')`` give ``('l1', {})``.

    Raises:
        ValueError: the type is missing, or is none of the names.
    """
    if not isinstance(entry, Mapping):
        return one_of(key, entry, names), {}
    if 'type' not in entry:
        raise ValueError(f"{key} is {entry!r}; a dict must have a 'type', one of {listed(names)}")
    constants = dict(entry)
    return one_of(f'{key}.type', constants.pop('type'), names), constants


def component(
    entry: str | Mapping, table: Mapping[str, Callable], key: str, others: Collection[str] = ()
) -> Callable:
    """Return the function of ``table`` that ``entry`` names, with the entry's constants bound.

    Arguments:
        entry: a name, ``'l1'``, or a mapping with ``type`` and constants of that function,
            ``dict(type='huber', kappa=0.2)``.
        table: functions by name; their keyword arguments with defaults are the constants.
        key: the configuration key, for messages.
        others: constants that the entry may have beside, for messages; they are not among those given.

    Raises:
        ValueError: unknown name or constant.
    """
    name, constants = typed(key, entry, table)
    parameters = inspect.signature(table[name]).parameters.values()
    allowed = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
    for constant in constants:
        if constant not in allowed:
            names = [*allowed, *others]
            raise ValueError(
                f'{key} {name!r} has no constant {constant!r}; it has {listed(names) or "none"}'
                f'{nearest(constant, names)}'
            )
    return functools.partial(table[name], **constants)


def unknown_keys(
    section: Mapping,
    place: str,
    own: Collection[str],
    known: Collection[str],
    elsewhere: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the keys of a section that this package does not read.

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
        close = [key] if key in others else difflib.get_close_matches(key, places, n=3, cutoff=RESEMBLANCE)
        if close:
            meant = ' or '.join(f'{places[name]}.{name}' for name in close)
            raise ValueError(f'{place}.{key} is not a key that anything reads; did you mean {meant}?')
    return [f'{place}.{key}' for key in unknown]

"""The policy's configuration, checked: values, unknown keys, and keys that other DI-engine policies own."""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from ding_cawr.components import component
from ding_cawr.losses import POLICY_LOSSES
from ding_cawr.priority import PRIORITIES
from ding_cawr.tasks import nearest
from ding_cawr.update import WEIGHTINGS, UpdateSettings

#: How alike a key must be to one of ours to be taken for a slip of the pen.
RESEMBLANCE = 0.8


def update_settings(learn: Mapping) -> UpdateSettings:
    """The ``learn`` section as settings of the update.

    Raises:
        ValueError: a value is not allowed; the message names the key, the value and what is.
    """
    positive = ('learning_rate_q', 'learning_rate_value', 'learning_rate_policy', 'temperature', 'max_weight')
    for key in positive:
        _check(learn, key, lambda value: 0 < value < math.inf, 'a positive number')
    _check(learn, 'discount_factor', lambda value: 0 <= value <= 1, 'a number in [0, 1]')
    _check(learn, 'target_theta', lambda value: 0 < value <= 1, 'a number in (0, 1]')
    _check(learn, 'expectile', lambda value: 0 < value < 1, 'a number in (0, 1)')
    if not isinstance(learn['normalize_advantage'], bool):
        raise ValueError(f"learn.normalize_advantage is {learn['normalize_advantage']!r}; allowed are True, False")
    if learn['weighting'] not in WEIGHTINGS:
        raise ValueError(
            f"learn.weighting is {learn['weighting']!r}; allowed are {', '.join(map(repr, WEIGHTINGS))}"
            f"{nearest(learn['weighting'], WEIGHTINGS)}"
        )
    if learn['cosine_iterations'] is not None:
        _check(learn, 'cosine_iterations', lambda value: value == int(value) >= 1, 'None or a positive whole number')
    names = {field: learn[field] for field in UpdateSettings.__dataclass_fields__ if field != 'policy_loss'}
    return UpdateSettings(**names, policy_loss=component(learn['policy_loss'], POLICY_LOSSES, 'learn.policy_loss'))


def batch_size(learn: Mapping) -> int:
    """``learn.batch_size``.

    Raises:
        ValueError: it is no positive whole number.
    """
    _check(learn, 'batch_size', lambda value: value == int(value) >= 1, 'a positive whole number')
    return int(learn['batch_size'])


def priority_settings(learn: Mapping) -> tuple[Callable | None, float]:
    """The function h and the exponent on the priority, from ``learn.priority``; h is None for ``'none'``.

    Raises:
        ValueError: unknown priority or option.
    """
    entry = learn['priority']
    options = dict(entry) if isinstance(entry, Mapping) else {'type': entry}
    exponent = options.pop('exponent', 1.0)
    _check({'priority exponent': exponent}, 'priority exponent', lambda value: 0 <= value < math.inf, '0 or more')
    function = component(options, PRIORITIES, 'learn.priority')
    return (None if options['type'] == 'none' else function), float(exponent)


def _check(section: Mapping, key: str, holds: Callable, allowed: str) -> None:
    value = section[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not holds(value):
        raise ValueError(f'learn.{key} is {value!r}; allowed is {allowed}')


def check_keys(policy_cfg: Mapping, known: Mapping[str, Iterable[str]], foreign: Iterable[str]) -> None:
    """Refuse keys that look like ours misspelt or misplaced; warn once of all others that nothing here reads.

    Arguments:
        policy_cfg: the compiled ``policy`` section.
        known: our keys by section (``''`` is the policy's own level).
        foreign: keys of DI-engine's other policies, which a drop-in configuration brings along.

    Raises:
        ValueError: an unknown key resembles one of ours.
    """
    ours = {key: section for section, keys in known.items() for key in keys if section in ('learn', 'model')}
    ignored = []
    for section, keys in known.items():
        for key in (policy_cfg[section] if section else policy_cfg):
            if key in keys:
                continue
            place = f'policy.{section}.{key}' if section else f'policy.{key}'
            close = get_close_matches(key, ours, n=1, cutoff=RESEMBLANCE)
            if close and key not in foreign:
                meant = f'policy.{ours[close[0]]}.{close[0]}'
                raise ValueError(f'{place} is no key of the cawr policy; did you mean {meant}?')
            ignored.append(place)
    if ignored:
        warnings.warn(f'the cawr policy does not use, and ignores: {", ".join(sorted(ignored))}', stacklevel=2)

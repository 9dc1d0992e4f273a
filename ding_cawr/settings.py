"""The policy's configuration, checked: values, unknown keys, and keys that other DI-engine policies own."""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping

from ding_cawr.components import component
from ding_cawr.keys import positive_int, unknown_keys
from ding_cawr.losses import POLICY_LOSSES
from ding_cawr.priority import PRIORITIES
from ding_cawr.tasks import nearest
from ding_cawr.update import WEIGHTINGS, UpdateSettings


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
        positive_int(learn['cosine_iterations'], 'learn.cosine_iterations')
    _check(learn, 'min_priority', lambda value: 0 < value <= learn['max_weight'], 'a number in (0, max_weight]')
    names = {field: learn[field] for field in UpdateSettings.__dataclass_fields__ if field != 'policy_loss'}
    return UpdateSettings(**names, policy_loss=component(learn['policy_loss'], POLICY_LOSSES, 'learn.policy_loss'))


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


def check_keys(policy_cfg: Mapping, own: Mapping[str, Collection[str]], known: Mapping[str, Collection[str]]) -> None:
    """Refuse keys that look like ours misspelt or misplaced; warn once of all others that nothing here reads.

    Arguments:
        policy_cfg: the compiled ``policy`` section.
        own: the keys that this policy or the pipeline reads, by section ('' is the policy's own level, 'learn', ...).
        known: the keys of DI-engine's other policies by section, which a drop-in configuration brings along.

    Raises:
        ValueError: an unknown key resembles one of ours, or ``policy.priority`` holds what belongs to learn.priority.
    """
    if not isinstance(policy_cfg['priority'], bool):
        raise ValueError(
            f"policy.priority is {policy_cfg['priority']!r}, but it is DI-engine's switch (True, False) for its own "
            'replay; the priority of CAWR is policy.learn.priority'
        )
    elsewhere = {key: 'policy.learn' for key in own['learn']}
    ignored = []
    for section, keys in own.items():
        place, values = 'policy', policy_cfg
        for name in filter(None, section.split('.')):
            place, values = f'{place}.{name}', values[name]
        ignored += unknown_keys(values, place, keys, known.get(section, ()), elsewhere)
    if ignored:
        warnings.warn(f'the cawr policy does not use, and ignores: {", ".join(sorted(ignored))}', stacklevel=2)

"""The policy's configuration, checked: values, unknown keys, and keys that other DI-engine policies own."""
from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Collection, Mapping

import torch

from ding_cawr.algorithms.cawr.networks import PRECISIONS
from ding_cawr.algorithms.cawr.selection import TRUSTS, WEIGHTINGS, SelectionSettings
from ding_cawr.algorithms.cawr.tightening import TighteningSettings
from ding_cawr.algorithms.cawr.update import UpdateSettings
from ding_cawr.checks import component, nearest, options_of, positive_int, unknown_keys
from ding_cawr.losses import POLICY_LOSSES
from ding_cawr.priority import PRIORITIES, WITHOUT_TEMPERATURE

#: Of 'auto' where no share is given.
EFFECTIVE_SHARE = 0.8


def update_settings(learn: Mapping) -> UpdateSettings:
    """The ``learn`` section as settings of the update.

    Raises:
        ValueError: a value is not allowed; the message names the key, the value and what is.
    """
    for key in ('learning_rate_q', 'learning_rate_value', 'learning_rate_policy'):
        _check(learn, key, lambda value: 0 < value < math.inf, 'a positive number')
    _check(learn, 'discount_factor', lambda value: 0 <= value <= 1, 'a number in [0, 1]')
    _check(learn, 'target_theta', lambda value: 0 < value <= 1, 'a number in (0, 1]')
    _check(learn, 'expectile', lambda value: 0 < value < 1, 'a number in (0, 1)')
    if learn['cosine_iterations'] is not None:
        positive_int(learn['cosine_iterations'], 'learn.cosine_iterations')
    keys = ('learning_rate_q', 'learning_rate_value', 'learning_rate_policy', 'discount_factor', 'target_theta',
            'expectile', 'cosine_iterations', 'ignore_done', 'precision')
    _check_name(learn, 'precision', PRECISIONS)
    for flag in ('ignore_done', 'cuda_graph'):
        _check_flag(learn, flag)
    policy_loss = component(learn['policy_loss'], POLICY_LOSSES, 'learn.policy_loss')
    policy_loss(torch.zeros(1), 1.0)  # it checks its constants itself
    return UpdateSettings(
        **{key: learn[key] for key in keys},
        selection=selection_settings(learn),
        policy_loss=policy_loss,
        tightening=tightening_settings(learn),
    )


def selection_settings(learn: Mapping) -> SelectionSettings:
    """Temperature, trust, weights and priorities of the ``learn`` section.

    Raises:
        ValueError: a value, a name or an option is not allowed.
    """
    _check(learn, 'max_weight', lambda value: 0 < value < math.inf, 'a positive number')
    _check(learn, 'min_priority', lambda value: 0 < value <= learn['max_weight'], 'a number in (0, max_weight]')
    _check_flag(learn, 'normalize_advantage')
    _check_name(learn, 'weighting', WEIGHTINGS)
    temperature, effective_share = _temperature(learn)
    priority, exponent = _priority(learn)
    _check_modes(learn, priority)
    draws_depend = priority is not None and exponent > 0 and priority.func not in WITHOUT_TEMPERATURE
    if effective_share is not None and learn['weighting'] != 'per_sample' and not draws_depend:
        temperature, effective_share = 1.0, None  # nothing depends on λ, so there is nothing to adapt
    return SelectionSettings(
        temperature=temperature, effective_share=effective_share, trust=_trust(learn),
        priority=priority, exponent=exponent,
        **{key: learn[key] for key in ('max_weight', 'min_priority', 'normalize_advantage', 'weighting')},
    )


def tightening_settings(learn: Mapping) -> TighteningSettings | None:
    """``learn.tightening``, None where the loss keeps its width.

    Raises:
        ValueError: a value is not allowed.
    """
    if learn['tightening'] is None:
        return None
    options = _options(learn, 'tightening', dict(convex_share=0.95, iterations=100_000))
    _check({'tightening.convex_share': options['convex_share']}, 'tightening.convex_share', lambda v: 0 < v < 1,
           'a number in (0, 1)')
    positive_int(options['iterations'], 'learn.tightening.iterations')
    return TighteningSettings(**options)


def _temperature(learn: Mapping) -> tuple[float | None, float | None]:
    """λ and None, or for 'auto' None and the effective share."""
    entry = learn['temperature']
    if isinstance(entry, (str, Mapping)):
        options = options_of(entry)
        if options.pop('type', None) != 'auto':
            raise ValueError(
                f"learn.temperature is {entry!r}; allowed is a positive number, 'auto', or "
                f"dict(type='auto', effective_share={EFFECTIVE_SHARE})"
            )
        options = _options({'temperature': options}, 'temperature', dict(effective_share=EFFECTIVE_SHARE))
        key = 'temperature.effective_share'
        _check({key: options['effective_share']}, key, lambda value: 0 < value < 1, 'a number in (0, 1)')
        return None, float(options['effective_share'])
    _check(learn, 'temperature', lambda value: 0 < value < math.inf, "a positive number, or 'auto'")
    return float(entry), None


def _trust(learn: Mapping) -> Callable:
    trust = component(learn['trust'], TRUSTS, 'learn.trust')
    for key, value in trust.keywords.items():
        least = 0 if key == 'start' else 1
        _check(
            {f'trust.{key}': value}, f'trust.{key}', lambda value, least=least: least <= value < math.inf,
            f'a number of iterations from {least}'
        )
    return trust if learn['pretrained_critics'] is None else TRUSTS['full']


def _check_modes(learn: Mapping, priority: Callable | None) -> None:
    """``priority_refresh`` and ``pretrained_critics``, and what they exclude."""
    refresh, critics = learn['priority_refresh'], learn['pretrained_critics']
    if refresh is not None:
        positive_int(refresh, 'learn.priority_refresh')
        if priority is None or critics is not None:
            why = "priority is 'none'" if priority is None else 'pretrained_critics give priorities that stay'
            raise ValueError(f'learn.priority_refresh is {refresh}, but {why}; set it to None')
    if critics is not None and not isinstance(critics, (str, os.PathLike)):
        raise ValueError(f"learn.pretrained_critics is {critics!r}; allowed is None or a checkpoint's path")


def _priority(learn: Mapping) -> tuple[Callable | None, float]:
    """The function h, None for ``'none'``, and the exponent on the priority."""
    options = options_of(learn['priority'])
    exponent = options.pop('exponent', 1.0)
    _check({'priority exponent': exponent}, 'priority exponent', lambda value: 0 <= value < math.inf, '0 or more')
    function = component(options, PRIORITIES, 'learn.priority')
    function(torch.zeros(2), 1.0)  # it checks its options itself
    return (None if options['type'] == 'none' else function), float(exponent)


def _options(section: Mapping, key: str, defaults: dict) -> dict:
    """The mapping at ``key``, completed by defaults.

    Raises:
        ValueError: it is no mapping, or has other keys than the defaults.
    """
    given = section[key]
    if not isinstance(given, Mapping):
        raise ValueError(f'learn.{key} is {given!r}; allowed is None or a dict with {", ".join(defaults)}')
    for name in given:
        if name not in defaults:
            raise ValueError(f'learn.{key} has no option {name!r}; it has {list(defaults)}{nearest(name, defaults)}')
    return {**defaults, **given}


def _check_flag(learn: Mapping, key: str) -> None:
    """Raise a ValueError for an entry of ``learn`` that is not a bool."""
    if not isinstance(learn[key], bool):
        raise ValueError(f'learn.{key} is {learn[key]!r}; allowed are True, False')


def _check_name(learn: Mapping, key: str, names: Collection[str]) -> None:
    if learn[key] not in list(names):
        allowed = ', '.join(map(repr, names))
        raise ValueError(f'learn.{key} is {learn[key]!r}; allowed are {allowed}{nearest(learn[key], names)}')


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

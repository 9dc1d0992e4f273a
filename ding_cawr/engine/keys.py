"""The keys of a compiled policy section: ours, those of DI-engine's other policies, and misspelt ones."""
from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from ding_cawr.checks import unknown_keys

SECTIONS = ('', 'learn', 'model', 'collect', 'eval', 'eval.evaluator', 'other', 'other.replay_buffer')


def check_keys(
    policy_cfg: Mapping, policy: str, own: Mapping[str, Collection[str]], known: Mapping[str, Collection[str]]
) -> None:
    """Refuse keys that look like ours misspelt or misplaced; warn once of all others that nothing here reads.

    Arguments:
        policy_cfg: the compiled ``policy`` section.
        policy: its type, for messages.
        own: the keys that this policy or the pipeline reads, by section ('' is the policy's own level, 'learn', ...).
        known: the keys of DI-engine's other policies by section, which a drop-in configuration brings along.

    Raises:
        ValueError: an unknown key resembles one of ours, or ``policy.priority`` holds what belongs to learn.priority.
    """
    if not isinstance(policy_cfg['priority'], bool):
        raise ValueError(
            f"policy.priority is {policy_cfg['priority']!r}, but it is DI-engine's switch (True, False) for its own "
            f'replay; the priority of {policy} is policy.learn.priority'
        )
    elsewhere = {key: 'policy.learn' for key in own['learn']}
    ignored = []
    for section, names in own.items():
        place, values = 'policy', policy_cfg
        for name in filter(None, section.split('.')):
            place, values = f'{place}.{name}', values[name]
        ignored += unknown_keys(values, place, names, known.get(section, ()), elsewhere)
    if ignored:
        warnings.warn(f'the {policy} policy does not use, and ignores: {", ".join(sorted(ignored))}', stacklevel=2)


def keys_of(config: Any, section: str) -> set[str]:
    """Return the keys of a section such as 'eval.evaluator', none where it is absent."""
    for name in filter(None, section.split('.')):
        config = config.get(name, {}) if isinstance(config, dict) else {}
    return set(config) if isinstance(config, dict) else set()

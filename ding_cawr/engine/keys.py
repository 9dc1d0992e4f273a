"""The keys and values of a compiled configuration: ours, those of DI-engine's other policies, and misspelt ones."""
from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ding.config import read_config
from easydict import EasyDict

from ding_cawr.checks import EVERY, POSITIVE_INT, SEED, Bound, Flag, Kind, Or, or_none, plain, unknown_keys

SECTIONS = (
    '', 'learn', 'learn.learner', 'learn.learner.hook', 'model', 'collect', 'eval', 'eval.evaluator', 'other',
    'other.replay_buffer'
)
HOOKS = 'learn.learner.hook'


def read_configuration(config: str | os.PathLike | tuple | list) -> tuple[EasyDict, EasyDict]:
    """Return (main_config, create_config), of the file that has both where ``config`` is its path.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: ``config`` is neither a path nor such a pair, or the file cannot be run or does not have both.
    """
    source = 'config'
    if isinstance(config, (str, os.PathLike)):
        source = f'config file {os.fspath(config)}'
        if not Path(config).is_file():
            raise FileNotFoundError(f'{source} does not exist')
        try:
            config = read_config(os.fspath(config))
        except Exception as error:  # a file may do anything
            # A syntax error names the copy that DI-engine made of the file.
            said = f'{error.msg} in line {error.lineno}' if isinstance(error, SyntaxError) else error
            raise ValueError(f'{source}: {type(error).__name__}: {said}; it must be Python that defines the dicts '
                             'main_config and create_config') from error
    if not isinstance(config, (tuple, list)) or len(config) != 2 or not all(isinstance(each, dict) for each in config):
        raise ValueError(f'{source} is {config!r}; it must be (main_config, create_config), or the path of a file')
    main, create = map(EasyDict, config)
    for name, section in (('main_config', main), ('create_config', create)):
        if not isinstance(section.get('policy'), dict):
            raise ValueError(f"{source}: {name} has no dict 'policy'; it must have one")
    if 'type' not in create.policy:
        raise ValueError(f"{source}: create_config.policy has no 'type'; it must name the policy")
    return main, create


#: Iterations between two evaluations. -1 stays as it is.
CADENCE = Or(EVERY, [(-1, -1)], '-1 for after each pass over the data')
#: The mean return of an evaluation that ends a run.
LIMIT = Or(Bound(), [(None, math.inf), (math.inf, math.inf), (-math.inf, -math.inf)], 'None for never')
#: What DI-engine, or what follows a run, reads from a compiled configuration as it stands there, and what it may be.
VALUES: dict[str, Kind] = {
    'seed': SEED,
    'env.n_evaluator_episode': POSITIVE_INT,
    'env.stop_value': LIMIT,
    'env.evaluations_before': Bound(0, whole=True),
    'policy.cuda': Flag(),
    'policy.multi_gpu': Flag(),
    'policy.learn.train_epoch': POSITIVE_INT,
    'policy.learn.batch_size': POSITIVE_INT,
    'policy.learn.keep_checkpoints': or_none(POSITIVE_INT),
    'policy.learn.learner.hook.log_show_after_iter': EVERY,
    'policy.learn.learner.hook.save_ckpt_after_iter': EVERY,
    'policy.collect.epoch_iterations': or_none(POSITIVE_INT),
    'policy.collect.unroll_len': POSITIVE_INT,
    'policy.eval.evaluator.eval_freq': CADENCE,
    'policy.eval.evaluator.n_episode': POSITIVE_INT,
    'policy.eval.evaluator.stop_value': LIMIT,
    'policy.other.replay_buffer.replay_buffer_size': POSITIVE_INT,
}
#: Keys that DI-engine fills in from others.
COPIES = {
    'policy.eval.evaluator.n_episode': 'env.n_evaluator_episode', 'policy.eval.evaluator.stop_value': 'env.stop_value'
}
_REPLAY = "DI-engine's own prioritized replay is not used"
#: DI-engine's switches that must be off here, and why.
SWITCHES = {
    'priority': _REPLAY, 'priority_IS_weight': _REPLAY, 'on_policy': 'rows are drawn from a dataset or from a buffer'
}
#: Keys of the buffer that a run sets itself, and what it takes them from.
BUFFER_KEYS = {
    'exponent': ('policy.learn.priority=dict(type=..., exponent=...), where the policy has that', 1.0),
    'seed': ("the run's seed (ding --seed, serial_pipeline_offline(seed=...))", 0),
    'device': ('policy.cuda', 'cpu'),
}
#: The key that does the same as an ignored one.
INSTEAD = {
    'policy.learn.data_path': 'collect.data_path',
    'policy.learn.learning_rate_actor': 'learn.learning_rate_policy',
    'policy.load_path': 'learn.load_path where a run goes online, learn.learner.hook.load_ckpt_before_run offline',
    'policy.learn.load_path': 'learn.learner.hook.load_ckpt_before_run',
    'policy.learn.update_per_collect': 'an iteration is one update',
    'policy.learn.resume_training': 'cawr resume, or learn.learner.hook.load_ckpt_before_run',
    'policy.learn.learner.train_iterations': 'learn.train_epoch, or --train-iter',
    f'policy.{HOOKS}.save_ckpt_after_run': 'the last checkpoint is always written',
    'policy.model.actor_head_hidden_size': 'model.hidden_sizes',
    'policy.model.actor_head_layer_num': 'model.hidden_sizes',
    'policy.collect.normalize_states': 'env.norm_obs',
    'policy.collect.epoch_iterations': 'an epoch is one iteration',
    'policy.other.replay_buffer.replay_buffer_size': 'the dataset is drawn from as a whole',
}


def normalize(cfg: dict, strict: bool = True) -> None:
    """Make the values of a compiled configuration those of plain Python, in place, and check those of ``VALUES``.

    DI-engine reads many of them itself: this must come before it does.

    Arguments:
        cfg: a compiled configuration, or one with its ``policy`` section alone.
        strict: whether a wrong value is an error; else it stays as it is, for the policy that reads it.

    Raises:
        ValueError: a value is not what its key may be; the message names the key, the value and what it must be.
    """
    _make_plain(cfg)
    for place, kind in VALUES.items():
        path, _, name = place.rpartition('.')
        section = section_of(cfg, path)
        if name not in section or isinstance(section[name], Mapping):
            continue
        try:
            section[name] = kind.check(COPIES.get(place, place), section[name])
        except ValueError:
            if strict:
                raise


def _make_plain(section: dict) -> None:
    for key, value in list(section.items()):
        if isinstance(value, dict):
            _make_plain(value)
        elif (taken := plain(value)) is not value:
            section[key] = taken


def check_gpu(*policies: dict) -> None:
    """Turn ``cuda`` off in compiled ``policy`` sections, with one warning, where it is on and there is no GPU."""
    asked = [each for each in policies if each.get('cuda')]
    if not asked or torch.cuda.is_available():
        return
    warnings.warn(f'policy.cuda is True, but torch {torch.__version__} finds no GPU: the CPU is used', stacklevel=3)
    for each in asked:
        each['cuda'] = False


def unkept(part: Any, place: str = '') -> Iterator[str]:
    """Yield what a configuration holds that JSON cannot give back, as ``place is value``."""
    if isinstance(part, dict):
        for key, value in part.items():
            if isinstance(key, str):
                yield from unkept(value, f'{place}.{key}' if place else key)
            else:
                yield f'{place} has the key {key!r}'
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from unkept(value, place)
    elif not isinstance(part, (str, int, float, type(None))):
        yield f'{place} is {part!r}'


def check_keys(
    policy_cfg: Mapping, policy: str, own: Mapping[str, Collection[str]], known: Mapping[str, Collection[str]],
    unread: Mapping[str, Mapping[str, Any]], synonyms: Mapping[str, str], refused_elsewhere: Mapping[str, Any]
) -> None:
    """Refuse keys that look like ours misspelt or misplaced; warn once of all others that nothing here reads.

    Arguments:
        policy_cfg: the compiled ``policy`` section.
        policy: its type, for messages.
        own: the keys that this policy or the pipeline has, by section ('' is the policy's own level, 'learn', ...).
        known: the keys of DI-engine's other policies by section, which a drop-in configuration brings along.
        unread: those of ``own`` that are there always and that nothing reads, with their defaults.
        synonyms: by an ignored key, one of ``learn`` or with its section before it, the key that does the same.
        refused_elsewhere: keys of ``learn`` that are an error where ``own`` lacks them, with the values allowed.

    Raises:
        ValueError: an unknown key resembles one of ours, or a key asks for what another one does.
    """
    _check_switches(policy_cfg, policy, own['learn'])
    ignored = ignored_keys(policy_cfg, own, known)
    for key, idle in refused_elsewhere.items():
        if key not in own['learn'] and (value := policy_cfg['learn'].get(key, idle)) != idle:
            raise ValueError(
                f'policy.learn.{key} is {value!r}, but the {policy} policy does not have this key; it must be '
                f'{idle!r} or absent, or the policy one that has it'
            )
    for section, defaults in unread.items():
        values = section_of(policy_cfg, section)
        ignored += [_place(section, key) for key, default in defaults.items() if values.get(key, default) != default]
    if ignored:
        rates = ', '.join(f'learn.{name}' for name in sorted(own['learn']) if name.startswith('learning_rate_'))
        synonyms = {_place(key if '.' in key else f'learn.{key}'): same for key, same in synonyms.items()}
        instead = {**INSTEAD, 'policy.learn.learning_rate': rates, **synonyms}
        told = [f'{key} (here: {instead[key]})' if instead.get(key) else key for key in sorted(ignored)]
        warnings.warn(f'the {policy} policy does not use, and ignores: {", ".join(told)}', stacklevel=2)


def ignored_keys(
    policy_cfg: Mapping, own: Mapping[str, Collection[str]], known: Mapping[str, Collection[str]]
) -> list[str]:
    """Return the keys of a ``policy`` section that are not among ``own``, with their places.

    Arguments:
        own, known: as in ``check_keys``.

    Raises:
        ValueError: one that is not ``known`` resembles one of ``own``, or is a hook that nobody knows; or a section is
            not a dict.
    """
    # Those of the other sections are DI-engine's, which its own configurations have in several places.
    elsewhere, ignored = {key: _place(section) for section in ('model', 'learn') for key in own[section]}, []
    for section, names in own.items():
        values = section_of(policy_cfg, section)
        for key, value in values.items():
            if f'{section}.{key}'.lstrip('.') in SECTIONS and not isinstance(value, Mapping):
                raise ValueError(f'{_place(section, key)} is {value!r}; it must be a dict')
        if section == HOOKS:
            names = {*names, *_own_hooks(values, _place(section), names)}
        ignored += unknown_keys(values, _place(section), names, known.get(section, ()), elsewhere)
    return ignored


def _place(*sections: str) -> str:
    """Return the name of a section of ``policy``, or of a key in it, in messages."""
    return '.'.join(filter(None, ('policy', *sections)))


def reset_homonyms(
    learn: dict, policy: str, homonyms: Mapping[str, tuple[Collection[str], str]], defaults: Mapping[str, Any]
) -> None:
    """Give a key that the configuration of another policy brings, and that is also one of ours, our default, in place;
    warn of it.

    Arguments:
        learn: the compiled section.
        policy: the policy's type.
        homonyms: ``Algorithm.HOMONYMS``.
        defaults: its own keys of the section, with their defaults.
    """
    for key, (marks, meaning) in homonyms.items():
        beside = [mark for mark in marks if mark in learn]
        if beside and learn[key] != defaults[key]:
            warnings.warn(
                f'policy.learn.{key} is {learn[key]!r}: beside {beside[0]} it is {meaning}, and the {policy} policy '
                f'takes the default of its own {key}, {defaults[key]!r}; to set that, remove {beside[0]}', stacklevel=2
            )
            learn[key] = defaults[key]


def warn_of_idle(learn: Mapping, policy: str, idle: Collection[str], defaults: Mapping[str, Any]) -> None:
    """Warn of keys of the compiled section ``learn`` that are not at their defaults, though nothing depends on them."""
    found = sorted(key for key in idle if key in defaults and learn.get(key, defaults[key]) != defaults[key])
    if found:
        named = ', '.join(f'policy.learn.{key}' for key in found)
        warnings.warn(f'nothing depends on {named} with these settings of the {policy} policy', stacklevel=2)


def _check_switches(policy_cfg: Mapping, policy: str, learn_keys: Collection[str]) -> None:
    """Raise a ValueError for a key of DI-engine's that is set and that another key of ours does."""
    instead = f'; the priority of {policy} is policy.learn.priority' if 'priority' in learn_keys else ''
    if not isinstance(policy_cfg['priority'], bool):
        raise ValueError(
            f"policy.priority is {policy_cfg['priority']!r}, but it is DI-engine's switch (True, False) for its own "
            f'replay; it must be False{instead}'
        )
    for key, why in SWITCHES.items():
        if Flag().check(f'policy.{key}', policy_cfg[key]):
            raise ValueError(f'policy.{key} is True; it must be False: {why}{instead if why == _REPLAY else ""}')
    buffer = policy_cfg['other']['replay_buffer']
    for key, (instead, default) in BUFFER_KEYS.items():
        if buffer.get(key, default) != default:
            raise ValueError(
                f'policy.other.replay_buffer.{key} is {buffer[key]!r}, but a run takes it from {instead}; set that and '
                'remove this'
            )


def _own_hooks(hooks: Mapping, place: str, names: Collection[str]) -> list[str]:
    """Return the names of hooks that the user defines as dicts. Raise a ValueError for any other unknown hook."""
    own = [key for key, value in hooks.items() if isinstance(value, Mapping)]
    for key in unknown_keys(hooks, place, {*names, *own}, ()):
        raise ValueError(f'{key} is not a hook; a hook of your own must be a dict with type, name and position')
    return own


def section_of(config: Any, section: str) -> dict:
    """Return a section such as 'eval.evaluator', an empty one where it is absent."""
    for name in filter(None, section.split('.')):
        config = config.get(name, {}) if isinstance(config, dict) else {}
    return config if isinstance(config, dict) else {}

"""make_config, and the table of settings behind config/."""
from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from ding.utils import deep_merge_dicts
from easydict import EasyDict

from ding_cawr.algorithms import ALGORITHMS, check_actions_of
from ding_cawr.algorithms.base import Algorithm
from ding_cawr.algorithms.settings import Preset
from ding_cawr.checks import POSITIVE_INT, nearest, one_of, plain
from ding_cawr.choice import AUTO, CHOICES, choose
from ding_cawr.data.bundled import is_bundled
from ding_cawr.data.load import KINDS, load_transitions
from ding_cawr.data.quality import quality_of
from ding_cawr.engine import keys
from ding_cawr.engine.configuration import check_values
from ding_cawr.environments import env_settings, import_modules, try_out
from ding_cawr.tasks import find_task, without_module

ITERATIONS, BUNDLED_ITERATIONS = 400_000, 20_000


class Row(NamedTuple):
    """A preset and the algorithm that it is of."""
    algorithm: type[Algorithm]
    preset: Preset


#: The presets of all algorithms by name.
PRESETS = {name: Row(each, preset) for each in ALGORITHMS.values() for name, preset in each.PRESETS.items()}
assert len(PRESETS) == sum(len(each.PRESETS) for each in ALGORITHMS.values()), 'two algorithms have presets of one name'


def make_config(env_id: str | None, algorithm: str = 'cawr', **overrides: Any) -> tuple[EasyDict, EasyDict]:
    """Return the configuration of one dataset and algorithm, as DI-engine's pipelines take it.

    Arguments:
        env_id: a D4RL id (``hopper-medium-v2``), or a gymnasium id together with ``data_path``. None, together with
            ``data_path``, for data without a simulator: nothing is evaluated, and the widths are those of the data.
        algorithm: a preset, one of ``PRESETS``; README's table says what each is. 'auto' reads the dataset, which is
            downloaded where training would do so, takes the preset that ``ding_cawr.choice`` has for its quality, and
            logs which and why; the configuration is that of the preset.
        overrides: ``iterations``, ``exp_name``, ``data_path``, ``action_scale``, ``reward``, ``corruption``,
            ``eval_freq``, ``cuda``, any key of the environment (``kwargs``, ``max_episode_steps``, ``reward_norm``,
            ``norm_obs``, ``n_evaluator_episode``) or of ``policy.learn`` (``temperature``, ...), or whole sections
            ``env=dict(...)``, ``policy=dict(...)``, which are merged in. ``import_names`` are modules that register an
            environment of yours; they are imported here and wherever it is made. Numbers of NumPy and paths become
            plain Python's.

    Returns:
        (main_config, create_config).

    Raises:
        ValueError: unknown id, algorithm or override; the message says what it must be.
        FileNotFoundError, OSError, ConnectionError: 'auto' cannot read the dataset.
    """
    one_of('algorithm', algorithm, [*PRESETS, AUTO])
    _check_env_id(env_id)
    import_names = import_modules(overrides.pop('import_names', None))
    if algorithm == AUTO:
        algorithm = _chosen(env_id, overrides)
    trains, preset = PRESETS[algorithm]
    sections = _sections(plain(overrides), [*trains.Settings.defaults(), 'learner'])
    _check_agrees('env.env_id', sections['env'].get('env_id', env_id), env_id, 'the first argument')
    _check_agrees('policy.type', sections['policy'].get('type', trains.name), trains.name, 'algorithm')
    data_path = sections['policy']['collect'].get('data_path')
    bundled = is_bundled(data_path)
    iterations = sections['policy']['learn'].get('train_epoch', BUNDLED_ITERATIONS if bundled else ITERATIONS)
    iterations = POSITIVE_INT.check('iterations', iterations)
    left_out = {*sections['policy']['learn']}
    if sections['policy']['learn'].get('load_path'):  # the file's iterations count, and a schedule would have ended
        left_out.update(trains.Settings.spans_run)
    special = _preset_sections(preset, left_out, env_id, data_path, iterations)
    discrete = sections['policy']['model'].get('action_space') == 'discrete'
    obs_shape, action_shape = _widths(trains, env_id, data_path, env_settings(sections['env']), discrete)
    main_config = dict(
        exp_name=f'{_experiment(env_id, data_path)}_{algorithm}',
        env=dict(env_id=env_id, n_evaluator_episode=10, stop_value=int(1e10), **special['env']),
        policy=dict(
            cuda=False,
            model=dict(obs_shape=obs_shape, action_shape=action_shape, **special['model']),
            learn=dict(train_epoch=iterations, **special['learn']),
            collect=dict(data_type='offline_transitions', data_path=data_path),
            eval=dict(evaluator=dict(eval_freq=2000 if bundled else 10000)),
        ),
    )
    main_config = deep_merge_dicts(main_config, sections)
    main_config['policy']['learn']['train_epoch'] = iterations
    keys.normalize(deepcopy(main_config))
    check_values(main_config, trains)
    create_config = dict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr', *import_names]),
        env_manager=dict(type='base'),
        policy=dict(type=trains.name, import_names=['ding_cawr']),
    )
    return EasyDict(main_config), EasyDict(create_config)


def _check_env_id(env_id: Any) -> None:
    if env_id is not None and not isinstance(env_id, str):
        raise ValueError(f'env_id is {env_id!r}; it must be a D4RL or gymnasium id, or None without a simulator')
    if env_id is not None and env_id.partition(':')[0] in KINDS:
        raise ValueError(f"env_id is {env_id!r}, a dataset; give it as data_path, and its environment, such as "
                         "'Hopper-v4', as env_id")


def _check_agrees(key: str, given: Any, argument: Any, name: str) -> None:
    """Raise a ValueError where a key of a section contradicts an argument, which goes by the name."""
    if given != argument:
        raise ValueError(f'make_config has {key}={given!r} beside {argument!r}; give it as {name}')


def _preset_sections(
    preset: Preset, left_out: Collection[str], env_id: str | None, data_path: Any, iterations: int
) -> dict[str, dict]:
    """Return the sections env, model and learn of a preset, without the keys of ``learn`` that are to be left out.

    An override replaces a setting as a whole: dict(type=...) is not mixed with the one that it replaces.
    """
    sections = {'env': {}, 'model': {}, 'learn': {}, **preset.sections(env_id, data_path, iterations)}
    return {**sections, 'learn': {key: value for key, value in sections['learn'].items() if key not in left_out}}


def _chosen(env_id: str | None, overrides: dict[str, Any]) -> str:
    """Return the preset for the dataset that a configuration with these overrides would train on, and log why."""
    keys = {key for name in CHOICES for key in PRESETS[name].algorithm.Settings.defaults()}
    data_path = _sections(plain(overrides), [*keys, 'learner'])['policy']['collect'].get('data_path')
    transitions = load_transitions(data_path, env_id, unit_actions=False)
    chosen, reason = choose(quality_of(transitions, env_id))
    check_actions_of(PRESETS[chosen].algorithm, transitions.discrete, transitions.source)
    # A warning, as Python shows what is below that only to those who ask for it.
    logging.getLogger(__name__).warning("algorithm='auto' takes %s for %s: %s", chosen, transitions.source, reason)
    return chosen


def _widths(
    algorithm: type[Algorithm], env_id: str | None, data_path: Any, settings: dict[str, Any], discrete: bool
) -> tuple[int, int]:
    """Return the widths of observations and actions, or the number of discrete ones: from the task table; for other
    ids, and where arguments of the environment are given, from the environment itself; without one from the data."""
    if env_id is None:
        if data_path is None:
            raise ValueError('env_id is None and so is data_path; give the file of the data, or a D4RL id')
        transitions = load_transitions(data_path, unit_actions=False)
        return transitions.obs_shape, int(transitions.action.max()) + 1 if discrete else transitions.action_shape
    task = find_task(env_id)
    if task is not None and not settings['kwargs']:
        return task.obs_shape, task.action_shape
    spaces = try_out(env_id, settings, discrete if algorithm.takes_discrete else None)
    check_actions_of(algorithm, spaces.low is None, f'the environment {env_id}')
    return spaces.widths


def _experiment(env_id: str | None, data_path: Any) -> str:
    """Return 'hopper_medium' for D4RL's sets, 'hopper_bundled' for a bundled one, the environment's name otherwise, or
    without one that of the data."""
    if env_id is None:
        first = data_path[0] if isinstance(data_path, (list, tuple)) else data_path
        return re.sub(r'\W+', '_', Path(first).stem).lower()
    if is_bundled(data_path):
        return f"{find_task(env_id).name if find_task(env_id) else env_id.lower()}_bundled"
    return re.sub(r'\W+', '_', without_module(env_id).removesuffix('-v2')).lower()


def _sections(overrides: dict[str, Any], learn_keys: Iterable[str]) -> dict:
    """Return flat overrides in the sections where they belong."""
    env_keys = {'kwargs', 'max_episode_steps', 'reward_norm', 'norm_obs', 'n_evaluator_episode', 'stop_value'}
    sections: dict = {'env': {}, 'policy': {'model': {}, 'learn': {}, 'collect': {}, 'eval': {'evaluator': {}}}}
    places = {
        **{key: sections['policy']['learn'] for key in learn_keys},
        'iterations': sections['policy']['learn'],
        **{key: sections['env'] for key in env_keys},
        'data_path': sections['policy']['collect'],
        'action_scale': sections['policy']['collect'],
        'reward': sections['policy']['collect'],
        'corruption': sections['policy']['collect'],
        'eval_freq': sections['policy']['eval']['evaluator'],
        'cuda': sections['policy'],
        'exp_name': sections,
    }
    whole = {key: overrides.pop(key) for key in ('env', 'policy') if key in overrides}
    for key, value in overrides.items():
        if key not in places:
            allowed = sorted({*places, 'env', 'import_names', 'policy'})
            raise ValueError(
                f'make_config has no override {key!r}; it must be one of {", ".join(allowed)}{nearest(key, allowed)}'
            )
        name = 'train_epoch' if key == 'iterations' else key
        if name in places[key]:
            raise ValueError('make_config has both iterations and train_epoch, which are the same; give one of them')
        places[key][name] = value
    _check_sections(whole, sections)
    return deep_merge_dicts(sections, whole)


def _check_sections(given: Mapping[str, Any], own: Mapping[str, Any], place: str = '') -> None:
    """Raise a ValueError for a section that is not a dict, or that repeats an override with another value."""
    for key, value in given.items():
        where = f'{place}{key}'
        if isinstance(own.get(key), dict):
            if not isinstance(value, Mapping):
                raise ValueError(f'{where} is {value!r}; it must be a dict')
            _check_sections(value, own[key], f'{where}.')
        elif key in own and own[key] != value:
            raise ValueError(f'make_config has {where} twice, {own[key]!r} and {value!r}; give one of them')

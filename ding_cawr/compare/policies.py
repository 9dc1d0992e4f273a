"""Find the policies of a comparison: this package's algorithms, DI-engine's policies, and configuration files."""
from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import ding
from ding.utils import POLICY_REGISTRY, deep_merge_dicts
from easydict import EasyDict

from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.checks import nearest
from ding_cawr.choice import AUTO
from ding_cawr.compare.datasets import Dataset
from ding_cawr.config import PRESETS, make_config
from ding_cawr.engine.keys import read_configuration
from ding_cawr.tasks import is_d4rl_id

#: The module by which a name stands for an algorithm of this package.
OWN = 'ding_cawr'
DI_ENGINE = f'DI-engine {metadata.version("DI-engine")}'
if Path(metadata.distribution('DI-engine').locate_file('ding')).resolve() != Path(ding.__file__).resolve().parent:
    DI_ENGINE = f'DI-engine {ding.__version__.lstrip("v")} (a checkout, not the installed package)'
#: Two hidden layers of 256 for DI-engine's actors and critics, as this package's policies have them.
_HEADS = dict(actor_head_hidden_size=256, critic_head_hidden_size=256)
#: Settings of DI-engine's policies, beside their defaults: those of its own D4RL configurations, with our widths.
RECIPES: dict[str, dict[str, dict]] = {
    'td3_bc': dict(
        model=_HEADS, learn=dict(learning_rate_actor=3e-4, learning_rate_critic=3e-4, alpha=2.5, batch_size=256)
    ),
    'iql': dict(  # in DI-engine's main branch, not in its releases up to 0.5.3
        model=_HEADS, env=dict(reward_norm='iql_locomotion'),
        learn=dict(learning_rate_q=3e-4, learning_rate_policy=1e-4, beta=0.05, tau=0.7, batch_size=4096)
    ),
    'cql': dict(model=_HEADS, learn=dict(
        learning_rate_q=3e-4, learning_rate_policy=1e-4, learning_rate_alpha=1e-4, alpha=0.2, auto_alpha=False,
        lagrange_thresh=-1.0, min_q_weight=5.0, batch_size=256
    )),
    'edac': dict(model=dict(ensemble_num=10, actor_head_layer_num=3, critic_head_layer_num=3, **_HEADS), learn=dict(
        learning_rate_q=3e-4, learning_rate_policy=3e-4, learning_rate_alpha=3e-4, alpha=1, auto_alpha=True,
        eta=1.0, with_q_entropy=False, batch_size=256
    )),
    'bcq': dict(model=dict(actor_head_hidden_size=[256, 256], critic_head_hidden_size=[256, 256], phi=0.05), learn=dict(
        learning_rate_q=3e-3, learning_rate_policy=3e-3, learning_rate_alpha=3e-3, lmbda=0.75, batch_size=100
    )),
}


@dataclass(frozen=True)
class Budget:
    """Settings of all runs: iterations, iterations between evaluations, episodes of each, device."""
    iterations: int
    eval_freq: int
    episodes: int
    cuda: bool = False


@dataclass(frozen=True)
class PolicySpec:
    """A policy of a comparison: a preset of this package's algorithms, or a configuration."""
    name: str
    #: The meaning of the name, for the reader of the results.
    source: str
    #: The preset; 'auto' stands for one on each dataset (``on``), and cannot be built itself.
    algorithm: str | None = None
    #: Keys of ``policy.learn``, for an algorithm.
    overrides: Mapping[str, Any] = field(default_factory=dict)
    configuration: tuple[Mapping, Mapping] | None = None
    #: The policy whose run, of the same dataset and seed, gives the frozen critics.
    critics: PolicySpec | None = None
    #: Length of a run that gives critics, where it is not the budget's.
    iterations: int | None = None

    @property
    def trains_replicas(self) -> bool:
        """Return whether several seeds can train at once."""
        return self.algorithm is not None and self.critics is None

    def on(self, dataset: Dataset) -> PolicySpec:
        """Return the policy itself or, for 'auto', what it stands for on a dataset."""
        return find_policy(dataset.choice.algorithm) if self.algorithm == AUTO else self

    def build(self, dataset: Dataset, budget: Budget) -> tuple[EasyDict, EasyDict]:
        """Return (main_config, create_config) of a run: the policy's own settings, and what all have in common."""
        if self.algorithm is not None:
            # A D4RL id brings the settings of its data, which a path would not.
            data_path = None if is_d4rl_id(dataset.env_id) else dataset.data_path
            main, create = make_config(
                dataset.env_id, self.algorithm, data_path=data_path, iterations=budget.iterations, **self.overrides
            )
        else:
            main, create = (EasyDict(deepcopy(each)) for each in self.configuration)
        create.env = EasyDict(type='d4rl_gymnasium', import_names=['ding_cawr'])
        create.env_manager = EasyDict(type='base')
        clock = create.policy.type in ALGORITHMS
        policy = dict(
            cuda=budget.cuda,
            model=dict(obs_shape=dataset.obs_shape, action_shape=dataset.action_shape),
            # An epoch of this package's policies is an iteration, one of DI-engine's ends with an evaluation.
            learn=dict(train_epoch=budget.iterations if clock else budget.iterations // budget.eval_freq,
                       learner=dict(hook=dict(load_ckpt_before_run=''))),  # all begin at iteration 0
            collect=dict(data_type='offline_transitions', data_path=dataset.data_path,
                         epoch_iterations=budget.eval_freq,
                         corruption=dataset.corruption and dict(dataset.corruption)),
            eval=dict(evaluator=dict(eval_freq=budget.eval_freq)),
        )
        env = dict(env_id=dataset.env_id, n_evaluator_episode=budget.episodes, stop_value=int(1e10))
        return EasyDict(deep_merge_dicts(main, dict(exp_name='run', env=env, policy=policy))), create


def settings_of(main: Mapping, create: Mapping) -> dict[str, Any]:
    """Return the policy's configuration as it runs, with its defaults, as JSON can hold it. The path of the data, whose
    hash identifies them, and what only concerns logs and checkpoints are left out."""
    for module in create['policy'].get('import_names', []):
        importlib.import_module(module)
    # Copied, because merging shares the sections that the policy's defaults do not have.
    settings = deepcopy(
        deep_merge_dicts(POLICY_REGISTRY.get(create['policy']['type']).default_config(), main['policy'])
    )
    for section, key in (('collect', 'data_path'), ('collect', 'corruption'), ('learn', 'learner'),
                         ('learn', 'keep_checkpoints')):
        settings[section].pop(key, None)
    # Keys that newer versions added do not count while they have their defaults: stored results stay the same runs.
    for key in ('action_scale', 'reward'):
        if settings['collect'].get(key) is None:
            settings['collect'].pop(key, None)
    if algorithm := ALGORITHMS.get(create['policy']['type']):
        defaults = algorithm.Settings.defaults()
        for key in ('load_path', 'update_per_collect'):  # of online runs
            settings['learn'].pop(key, None)
        for key in algorithm.Settings.added_later:
            if settings['learn'][key] == defaults[key]:
                del settings['learn'][key]
    asked = ('reward_norm', 'norm_obs', 'kwargs', 'max_episode_steps')
    env = {key: main['env'][key] for key in asked if key in main['env']}

    def named(value: Any) -> str:
        """Return a name that is the same in every process."""
        return f'{value.__module__}.{value.__qualname__}' if hasattr(value, '__qualname__') else str(value)

    return json.loads(json.dumps({**settings, 'type': create['policy']['type'], 'env': env}, default=named))


def find_policy(name: str) -> PolicySpec:
    """Return what a name stands for: an algorithm of this package, a policy in DI-engine's registry (``td3_bc``, or
    with the module that registers it, ``name@package.module``), or a configuration file. ``NAME@ding_cawr`` is this
    package's where DI-engine has a policy of that name, too. Raises a FileNotFoundError or a ValueError where there is
    no such file, name or module, or the file is not a configuration."""
    if name.endswith('.py'):
        path = Path(name).expanduser()
        return PolicySpec(path.stem, f'the configuration {path.name}', configuration=read_configuration(path))
    policy, _, module = name.partition('@')
    if policy == AUTO and module in ('', OWN):
        return PolicySpec(AUTO, f"{OWN}: what a dataset's quality asks for", algorithm=AUTO)
    if policy not in PRESETS or module not in ('', OWN):
        return _from_registry(name, policy, module or None)
    preset = PRESETS[policy].preset
    theirs = not module and preset.namesake
    if theirs and importlib.util.find_spec(theirs):
        return _from_registry(name, policy, theirs)
    lacking = f' (the installed {DI_ENGINE.replace(" ", ", ")}, has no {policy} of its own)' if theirs else ''
    return PolicySpec(name, f'{OWN}: {preset.description}{lacking}', algorithm=policy)


def _from_registry(name: str, policy: str, module: str | None) -> PolicySpec:
    try:
        importlib.import_module(module or 'ding.policy')
    except ImportError as error:
        raise ValueError(f'policy {name!r}: the module {module!r} cannot be imported: {error}') from error
    registered = sorted(key for key in POLICY_REGISTRY if not key.endswith('_command'))
    if policy not in registered:
        raise ValueError(
            f'policy {name!r} is neither an algorithm of ding_cawr ({", ".join([*PRESETS, AUTO])}), nor in '
            f"DI-engine's registry, nor a .py file; one that another package registers is named as NAME@MODULE"
            f'{nearest(policy, [*PRESETS, AUTO, *registered])}'
        )
    module = module or POLICY_REGISTRY.get(policy).__module__
    recipe = deepcopy(RECIPES.get(policy, {})) if module.startswith('ding.') else {}
    source = (f'{policy} of {DI_ENGINE if module.startswith("ding.") else module}, '
              f'{"settings of its D4RL configuration" if recipe else "its default settings"}')
    main = dict(env=recipe.pop('env', {}), policy=dict(model={}, learn={}, collect={}) | recipe)
    return PolicySpec(name, source, configuration=(main, dict(policy=dict(type=policy, import_names=[module]))))

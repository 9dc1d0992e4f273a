"""DI-engine, the host: whether the one that is installed has what this package builds on; importing this looks. How a
pipeline of its that failed is left."""
from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import re
from operator import attrgetter

import ding

#: Versions from the first to before the second, as in setup.py.
VERSIONS = (0, 5, 3), (0, 6)

#: (module, name in it, parameters that it takes, attributes that it sets): what this package reaches into.
DOORS = (
    ('ding.config', 'compile_config', ('cfg', 'seed', 'auto', 'create_cfg', 'save_cfg', 'renew_dir'), ()),
    ('ding.entry.cli', 'cli', (), ()),
    ('ding.entry.serial_entry_offline', 'serial_pipeline_offline', ('input_cfg', 'seed', 'max_train_iter'), ()),
    ('ding.entry.serial_entry_offline', 'compile_config', (), ()),
    ('ding.envs', 'create_env_manager', (), ()),
    ('ding.envs', 'get_vec_env_setting', ('cfg', 'collect'), ()),
    ('ding.policy', 'Policy', ('cfg', 'model', 'enable_field'), ('_cfg', '_device', '_model')),
    ('ding.policy', 'Policy._create_model', ('cfg', 'model'), ()),
    ('ding.policy.command_mode_policy_instance', 'DummyCommandModePolicy', (), ()),
    ('ding.utils', 'set_pkg_seed', ('seed', 'use_cuda'), ()),
    ('ding.utils.data', 'create_dataset', (), ()),
    ('ding.utils.data.dataset', 'DatasetStatistics', ('mean', 'std', 'action_bounds'), ()),
    ('ding.worker', 'BaseLearner', ('cfg', 'policy', 'tb_logger', 'exp_name'), ('_hooks', '_rank')),
    ('ding.worker', 'BaseLearner.call_hook', ('name', ), ()),
    ('ding.worker', 'BaseLearner.register_hook', ('hook', ), ()),
    ('ding.worker', 'InteractionSerialEvaluator', ('cfg', 'env', 'policy', 'tb_logger', 'exp_name'), ('_cfg', )),
    ('ding.worker', 'InteractionSerialEvaluator.eval', ('save_ckpt_fn', 'train_iter'), ()),
    ('ding.worker.learner.learner_hook', 'LogReduceHook', (), ()),
    ('ding.worker.learner.learner_hook', 'SaveCkptHook', (), ('_freq', )),
    ('ding.worker.learner.learner_hook', 'register_learner_hook', ('name', 'hook_type'), ()),
    ('ding.worker.replay_buffer', 'IBuffer', (), ()),
)


def close_at_exit() -> None:
    """After a pipeline failed and its error was caught: have what it left closed before its TensorBoard writer is.

    The writer's own exit holds a lock; were DI-engine's evaluator collected within it, its ``__del__`` would wait for
    that lock for ever.
    """
    atexit.register(gc.collect)  # what is registered last runs first


def check_host() -> None:
    """Whether DI-engine is one that this package works with.

    Raises:
        ImportError: another version, or one that was changed; names what is missing.
    """
    oldest, below = VERSIONS
    allowed = f'{".".join(map(str, oldest))} or newer, below {".".join(map(str, below))}'
    text = str(getattr(ding, '__version__', 'of an unknown version'))
    version = tuple(int(number) for number in re.findall(r'\d+', text)[:3])
    if not oldest <= version < below:
        raise ImportError(
            f'ding_cawr needs DI-engine {allowed}, and {ding.__file__} is {text}; pip install "DI-engine>='
            f'{".".join(map(str, oldest))},<{".".join(map(str, below))}"'
        )
    missing = [what for door in DOORS for what in _missing(*door)]
    if missing:
        raise ImportError(
            f'ding_cawr builds on parts of DI-engine that {ding.__file__} ({text}) does not have: '
            f'{", ".join(missing)}; it was changed, or is no release; install DI-engine {allowed}'
        )


def _missing(module: str, name: str, parameters: tuple[str, ...], attributes: tuple[str, ...]) -> list[str]:
    """What there is not of a door."""
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return [f'{module}.{name}']
    function = found.__init__ if inspect.isclass(found) else found
    taken = inspect.signature(found).parameters if parameters else ()
    set_there = function.__code__.co_names if attributes else ()
    return [
        *(f'parameter {each} of {module}.{name}' for each in parameters if each not in taken),
        *(f'attribute {each} of {module}.{name}' for each in attributes if each not in set_there),
    ]


check_host()

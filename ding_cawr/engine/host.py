"""DI-engine, the host: what this package reaches into beyond plain imports, which importing this checks, and what it
changes there while a run lasts."""
from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from operator import attrgetter
from types import ModuleType
from typing import Any

import ding

#: Versions from the first to before the second, as in setup.py.
VERSIONS = (0, 5, 3), (0, 6)

#: (module, name in it, parameters that it takes, attributes that it sets).
NEEDED = (
    ('ding.config', 'compile_config', ('cfg', 'seed', 'auto', 'create_cfg', 'save_cfg', 'renew_dir'), ()),
    ('ding.config.config', 'compile_config', (), ('os', 'exists', 'makedirs', 'save_project_state', 'save_config')),
    ('ding.config.config', 'save_config_py', (), ()),
    ('ding.entry.cli', 'cli', (), ()),
    ('ding.entry.serial_entry', 'create_serial_collector', (), ()),
    ('ding.entry.serial_entry', 'create_policy', (), ()),
    ('ding.entry.serial_entry_onpolicy', 'create_serial_collector', (), ()),
    ('ding.entry.serial_entry_onpolicy', 'create_policy', (), ()),
    ('ding.entry.serial_entry', 'serial_pipeline', ('max_train_iter', ), ()),
    ('ding.entry.serial_entry_offline', 'serial_pipeline_offline', ('input_cfg', 'seed', 'max_train_iter'), ()),
    ('ding.entry.serial_entry_offline', 'compile_config', (), ()),
    ('ding.entry.serial_entry_offline', 'InteractionSerialEvaluator', (), ()),
    ('ding.entry.serial_entry_offline', 'create_dataset', (), ()),
    ('ding.entry.serial_entry_offline', 'create_policy', (), ()),
    ('ding.envs', 'create_env_manager', (), ()),
    ('ding.envs', 'get_vec_env_setting', ('cfg', 'collect'), ()),
    ('ding.policy', 'Policy', ('cfg', 'model', 'enable_field'), ('_cfg', '_device', '_model')),
    ('ding.policy', 'Policy._create_model', ('cfg', 'model'), ()),
    ('ding.policy.command_mode_policy_instance', 'DummyCommandModePolicy', (), ()),
    ('ding.utils', 'set_pkg_seed', ('seed', 'use_cuda'), ()),
    ('ding.utils.data', 'create_dataset', (), ()),
    ('ding.utils.data.dataset', 'DatasetStatistics', ('mean', 'std', 'action_bounds'), ()),
    ('ding.worker.collector', 'create_serial_collector', ('cfg', ), ()),
    ('ding.worker', 'BaseLearner', ('cfg', 'policy', 'tb_logger', 'exp_name'), ('_hooks', '_rank')),
    ('ding.worker', 'BaseLearner.call_hook', ('name', ), ()),
    ('ding.worker', 'BaseLearner.register_hook', ('hook', ), ()),
    ('ding.worker', 'BaseLearner.train_iter', (), ()),
    ('ding.worker', 'InteractionSerialEvaluator', ('cfg', 'env', 'policy', 'tb_logger', 'exp_name'), ('_cfg', )),
    ('ding.worker', 'InteractionSerialEvaluator.reset_env', ('_env', ), ('_env', )),
    ('ding.worker', 'InteractionSerialEvaluator.should_eval', ('train_iter', ), ()),
    ('ding.worker', 'InteractionSerialEvaluator.eval', ('save_ckpt_fn', 'train_iter'), ()),
    ('ding.worker.learner.learner_hook', 'LogShowHook', (), ()),
    ('ding.worker.learner.learner_hook', 'SaveCkptHook', (), ('_freq', )),
    ('ding.worker.learner.learner_hook', 'LoadCkptHook', (), ()),
    ('ding.worker.learner.learner_hook', 'hook_mapping', (), ()),
    ('ding.worker.learner.learner_hook', 'register_learner_hook', ('name', 'hook_type'), ()),
    ('ding.worker.replay_buffer', 'IBuffer', (), ()),
)


def close_writer(error: BaseException | None) -> None:
    """Close the TensorBoard writer of the pipeline that an error came from, or goes to, while all that uses it is
    alive.

    DI-engine's learner and evaluator close it, too, when they are collected. One of them that is collected while the
    other is closing it would wait for ever for a lock that the writer holds; and as Python exits, a writer that has
    written nothing yet cannot start the thread that it closes with.
    """
    frames = [frame for frame, _ in traceback.walk_stack(None)]
    while error is not None:
        frames += [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    for frame in frames:
        is_pipeline = frame.f_globals.get('__name__', '').startswith('ding.entry.')
        if is_pipeline and (writer := frame.f_locals.get('tb_logger')):  # None in processes that write nothing
            writer.close()


@contextlib.contextmanager
def replaced(module: ModuleType, **names: Any) -> Iterator[None]:
    """Have a module of DI-engine find other things under these names for a while."""
    before = {name: getattr(module, name) for name in names}
    for name, value in names.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def import_stock_env() -> None:
    """Import DI-engine's module of the environment ``d4rl``, which registers itself and refuses a second one of that
    name; without the package d4rl, which it would import or else complain of."""
    level, before = logging.root.manager.disable, sys.modules.get('d4rl')
    logging.disable(logging.WARNING)
    sys.modules['d4rl'] = None
    try:
        importlib.import_module('dizoo.d4rl.envs.d4rl_env')
    finally:
        logging.disable(level)
        del sys.modules['d4rl']
        if before is not None:
            sys.modules['d4rl'] = before


class Continued:
    """Holds the state that the next run in this process continues from. DI-engine makes the run's hook from a
    configuration, which cannot hold tensors."""
    state: dict[str, Any] | None = None
    #: The file that the state comes from, for messages.
    path: Any = None

    @classmethod
    def take(cls) -> dict[str, Any] | None:
        """Return the state, once, None where there is none; it is not kept for as long as the run lasts."""
        state, cls.state = cls.state, None
        return state

    @classmethod
    @contextlib.contextmanager
    def by(cls, state: dict[str, Any], path: Any) -> Iterator[None]:
        """Have runs in this context go on from a state."""
        cls.state, cls.path = state, path
        try:
            yield
        finally:
            cls.state = cls.path = None


def listen_to_scores(tb_logger: Any, hear: Callable[[str, float, int], None]) -> None:
    """Call a function with each scalar (name, value, iteration) that is logged: DI-engine's evaluator hands its scores
    to nobody but its TensorBoard writer."""
    add_scalar = tb_logger.add_scalar

    def listen_and_add(tag, value, step=None, *args, **kwargs):
        hear(tag, value, step)
        add_scalar(tag, value, step, *args, **kwargs)

    tb_logger.add_scalar = listen_and_add


def take_hooks(learner: Any, kind: type) -> list:
    """Remove the hooks of a kind from a learner, and return them."""
    taken = []
    for position, hooks in learner._hooks.items():  # DI-engine has no other way to hooks that are there
        taken += [hook for hook in hooks if isinstance(hook, kind)]
        learner._hooks[position] = [hook for hook in hooks if not isinstance(hook, kind)]
    return taken


class _Iterations(int):
    """A number of iterations that is below a limit of None, too."""

    def __ge__(self, limit: float | None) -> bool:
        return limit is not None and int(self) >= limit

    def __reduce__(self) -> tuple:
        return int, (int(self), )  # a copy is a plain number


def allow_no_limit(learner: Any) -> None:
    """Have DI-engine's pipeline take ``max_train_iter=None``, with which it compares the learner's ``train_iter``, for
    no limit."""

    class UnlimitedLearner(type(learner)):

        @property
        def train_iter(self) -> int:
            return _Iterations(super().train_iter)

    learner.__class__ = UnlimitedLearner


def check_host() -> None:
    """Check that DI-engine is one that this package works with.

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
    missing = [what for need in NEEDED for what in _missing(*need)]
    if missing:
        raise ImportError(
            f'ding_cawr builds on parts of DI-engine that {ding.__file__} ({text}) does not have: '
            f'{", ".join(missing)}; it was changed, or is not a release; install DI-engine {allowed}'
        )


def _missing(module: str, name: str, parameters: tuple[str, ...], attributes: tuple[str, ...]) -> list[str]:
    """Return what is missing of an entry of ``NEEDED``."""
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except AttributeError:
        return [f'{module}.{name}']
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name).split('.')[0] == 'ding':
            return [f'{module}.{name}']
        how = f'; pip install {error.name.split(".")[0]}' if isinstance(error, ModuleNotFoundError) else ''
        raise ImportError(
            f'{module} of DI-engine ({ding.__file__}) cannot be imported: {type(error).__name__}: {error}{how}'
        ) from error
    function = found.__init__ if inspect.isclass(found) else found
    taken = inspect.signature(found).parameters if parameters else ()
    set_there = function.__code__.co_names if attributes else ()
    return [
        *(f'parameter {each} of {module}.{name}' for each in parameters if each not in taken),
        *(f'attribute {each} of {module}.{name}' for each in attributes if each not in set_there),
    ]


check_host()

"""Runs that go on where they were stopped."""
from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ding.config import compile_config
from ding.entry import serial_entry_offline, serial_pipeline_offline
from ding.worker.learner.learner_hook import LoadCkptHook, hook_mapping
from easydict import EasyDict

from ding_cawr.algorithms import ALGORITHMS, own_algorithm
from ding_cawr.checks import listed
from ding_cawr.engine import host
from ding_cawr.engine.dataset import OWN_DATA_TYPE
from ding_cawr.engine.online import REWARDS
from ding_cawr.environments import import_modules
from ding_cawr.runs.checkpoint import BEST, numbered, read_state
from ding_cawr.runs.lock import lock_folder
from ding_cawr.runs.state import COUNT, check_format, check_run_state
from ding_cawr.tasks import check_untrusted_id, check_untrusted_settings, is_confirmed

#: Packages whose modules a configuration that comes out of a checkpoint may have imported.
OWN_PACKAGES = ('ding_cawr', 'ding', 'dizoo')


def resume(
    exp_dir: str | Path, train_iter: int | None = None, data_path: str | Path | Sequence[str | Path] | None = None,
    import_names: Collection[str] = ()
) -> Path:
    """Continue a run in its own folder, by DI-engine's offline pipeline, from its last checkpoint that is whole.

    On a CPU of the same kind it ends with what it would have ended with if it had never been stopped: networks,
    optimizers, priorities, random states, scores. Evaluations between that checkpoint and the stop are made again.

    Arguments:
        exp_dir: the run's folder, which has ``ckpt``.
        train_iter: iterations in all, those before counted; None: what the run was to do.
        data_path: the file, or the files in order, of the run's data now; None: where its configuration says. They
            must be the same data.
        import_names: modules to import first. Those of others that the configuration names must be among them.

    Returns:
        The last checkpoint.

    Raises:
        FileNotFoundError: no such folder, or no whole checkpoint in it.
        ValueError: a checkpoint that does not say how its run was configured, or whose configuration names code of
            others that ``import_names`` does not, a run that is at its end already or that another process trains, or
            other data.
    """
    folder = Path(exp_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {str(exp_dir)!r}; give the folder of a run, which has ckpt/')
    if not (folder / 'ckpt').is_dir():
        raise FileNotFoundError(f'{folder} has no folder ckpt, so it is not the folder of a run; give EXP_NAME')
    import_names = import_modules(import_names)
    with lock_folder(folder):  # before anything is read or written there
        return _go_on(folder, train_iter, data_path, import_names)


def can_resume(exp_dir: str | Path, import_names: Collection[str] = ()) -> bool:
    """Return whether a run's folder has a checkpoint that ``resume`` could go on from."""
    try:
        _, path, state = _last(Path(exp_dir))
        configuration_of(path, state, import_modules(import_names))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _go_on(
    folder: Path, train_iter: int | None, data_path: str | Path | Sequence[str | Path] | None,
    import_names: Collection[str]
) -> Path:
    """Continue the run in a folder, which is locked."""
    updates, path, state = _last(folder)
    main, create = configuration_of(path, state, import_names)
    run = state['run']
    total = run['total'] if train_iter is None else train_iter
    if total is None:
        raise ValueError(f'{path} does not say how long its run was to be; give --train-iter')
    if total <= updates:
        raise ValueError(f'{folder} has its {updates} iterations; to go on, give --train-iter with more than that')
    main.exp_name = os.path.relpath(folder)
    learn, settings = main.policy.learn, own_algorithm(create.policy.type).Settings
    for key in settings.spans_run:  # whose length is new
        if run['total'] is not None and learn.get(key) == run['total']:
            learn[key] = total
    learn.train_epoch = total - updates  # an epoch is an iteration, and they count from here on
    learn.learner.hook.load_ckpt_before_run = ''
    main.env.evaluations_before = main.env.get('evaluations_before', 0) + run['evaluated_here']
    _find_files(main.policy, settings.taken_from, path, data_path)
    # DI-engine would otherwise take a new folder where one of that name exists.
    same_folder = host.replaced(serial_entry_offline, compile_config=partial(compile_config, renew_dir=False))
    continued = host.Continued.by(state, path)
    del state, run  # which would stay for as long as the new run
    with same_folder, continued:
        serial_pipeline_offline((main, create), seed=main.seed, max_train_iter=total)
    return list(numbered(folder / 'ckpt').values())[-1]  # it may have reached env.stop_value before


def _find_files(
    policy: EasyDict, taken_from: Collection[str], path: Path, data_path: str | Path | Sequence[str | Path] | None
) -> None:
    """Set the paths of files that a run reads, which may have moved since its checkpoint was written.

    Arguments:
        taken_from: keys of ``learn`` that name other runs' checkpoints.
        path: the checkpoint.
    """
    now = [data_path] if isinstance(data_path, (str, os.PathLike)) else list(data_path or ())
    if now:
        policy.collect.data_path = str(now[0]) if len(now) == 1 else [str(each) for each in now]
    data = policy.collect.get('data_path')
    for file in data if isinstance(data, list) else [data]:
        if isinstance(file, str) and os.path.isabs(file) and not os.path.exists(file):
            raise FileNotFoundError(f'{path}: its data are not at {file}; say where they lie now with --data PATH')
    for key in taken_from:
        file = policy.learn.get(key)
        if isinstance(file, str) and not os.path.exists(file):
            policy.learn[key] = str(path)  # which has the same networks, since they are not trained


def _last(folder: Path) -> tuple[int, Path, dict[str, Any]]:
    """Return updates, path and state of the newest checkpoint that is whole.

    A run that was stopped before its first periodic checkpoint may have that of the best evaluation, the last choice.
    """
    for path in (*reversed(numbered(folder / 'ckpt').values()), folder / 'ckpt' / BEST):
        if not path.exists():
            continue
        try:
            state = read_state(path)
        except (ValueError, FileNotFoundError) as error:  # it may be a folder
            warnings.warn(f'{path} is damaged and passed over ({error})', stacklevel=2)
            continue
        check_run(path, state)
        return state['iteration'], path, state
    raise FileNotFoundError(
        f'{folder / "ckpt"} has no whole checkpoint to go on from; where a run was stopped before its first one, start '
        'it again with ding'
    )


def check_run(path: str | Path, state: dict[str, Any]) -> None:
    """Check that a checkpoint is of a run that can go on by itself: it says how that was configured and how far it was.

    Raises:
        ValueError: it is of another format or of an online run, a part of that is missing, or it contradicts itself.
    """
    try:
        check_format(state)
        if REWARDS in state:
            raise ValueError(
                'it is of an online run, whose collected rows are in no checkpoint, so that cawr resume cannot go on '
                'with it; in its configuration set policy.learn.learner.hook.load_ckpt_before_run to this file, and '
                'policy.learn.resume_training=True to count on in its folder, and start ding -m serial again'
            )
        if None in (state.get('configuration'), state.get('run'), state.get('data')):
            raise ValueError(
                'it does not say how its run was configured (data_type offline_transitions and the cawr_monitor hook '
                'write that, where it holds nothing but numbers, texts, lists and dicts); continue it with '
                'learner.hook.load_ckpt_before_run in its configuration'
            )
        check_run_state(state['run'])
        updates = [state.get(name) for name in ('iteration', 'last_iter')]
        if not all(each in COUNT for each in updates) or len(set(updates)) > 1:
            raise ValueError('its iteration cannot be used; take another checkpoint')
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def configuration_of(
    path: str | Path, state: dict[str, Any], import_names: Collection[str] = ()
) -> tuple[EasyDict, EasyDict]:
    """Return (main_config, create_config) of the run that wrote a checkpoint.

    Arguments:
        import_names: modules of others that it may name.

    Raises:
        ValueError: the text there is not a configuration, or is one that could run any code.
    """
    try:
        cfg = EasyDict(json.loads(state['configuration']))
        names = sorted({str(name) for name in _imports(cfg)})
        data_type, policy, env = cfg.policy.collect.data_type, cfg.policy.type, dict(cfg.env)
        hooks = [hook.get('type') for hook in cfg.policy.learn.learner.hook.values() if isinstance(hook, dict)]
        main_and_create = _split(cfg)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{path}: its configuration cannot be used ({error}); take another checkpoint') from None
    # It can name modules to import and files to unpickle, and may name neither but ours and DI-engine's.
    foreign = [name for name in names if not is_confirmed(name, (*OWN_PACKAGES, *import_names))]
    if foreign:
        raise ValueError(
            f'{path}: its configuration imports {listed(foreign)}, which could be any code; if you trust '
            f'them, confirm that: {" ".join(f"--import {name}" for name in foreign)}'
        )
    check_untrusted_id(env.get('env_id'), path, import_names)
    check_untrusted_settings(env, f'{path}, env', import_names)
    if data_type != OWN_DATA_TYPE or own_algorithm(policy) is None or any(map(_reads, hooks)):
        raise ValueError(
            f'{path}: its configuration has the policy {policy!r}, data_type {data_type!r} and hooks {hooks}; to be '
            f'resumed it must have one of {listed(ALGORITHMS)} on {OWN_DATA_TYPE!r} with hooks that load '
            'nothing, since others could be any code. Continue it with learner.hook.load_ckpt_before_run in a '
            'configuration of your own'
        )
    return main_and_create


def _reads(hook: Any) -> bool:
    """Return whether a learner's hook is of an unknown type, or of one that reads a file."""
    kind = hook_mapping.get(hook) if isinstance(hook, str) else None
    return kind is None or issubclass(kind, LoadCkptHook)


def _imports(section: Any) -> Iterator[Any]:
    """Yield the modules that any part of a configuration has DI-engine import."""
    if isinstance(section, dict):
        yield from section.get('import_names') or ()
    for part in section.values() if isinstance(section, dict) else section if isinstance(section, list) else ():
        yield from _imports(part)


def _split(cfg: EasyDict) -> tuple[EasyDict, EasyDict]:
    """Return a compiled configuration as the two that DI-engine's entries take."""
    create = EasyDict(
        env={key: cfg.env[key] for key in ('type', 'import_names') if key in cfg.env},
        env_manager=dict(type=cfg.env.manager.type),
        policy={key: cfg.policy[key] for key in ('type', 'import_names') if key in cfg.policy},
    )
    create.policy.type = create.policy.type.removesuffix('_command')
    hooks, counts = cfg.policy.learn.learner.hook, [cfg.seed, cfg.env.get('evaluations_before', 0)]
    if not all(count in COUNT and count < 2**32 for count in counts) or not isinstance(hooks, dict):
        raise ValueError('seed or env.evaluations_before is not a count, or its learner has no hooks')
    if not isinstance(cfg.env.get('env_id'), (str, type(None))):
        raise ValueError('env.env_id is not a text')
    for section in (cfg.env, cfg.policy):  # what create_config brings along
        section.pop('type', None)
    return cfg, create

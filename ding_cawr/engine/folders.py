"""Give every run a folder of its own, in one place.

DI-engine's ``compile_config`` chooses the folder. Where one of that name exists it appends the time to the second, so
that runs which begin at the same moment would share a folder. What has an absolute name would later be written below
the current folder, too. The folder of a run that fails before it trains is removed, so that the next attempt has its
name.
"""
from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import pprint
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ding.config import config as di_engine
from easydict import EasyDict

from ding_cawr.engine import host
from ding_cawr.files import writing

#: DI-engine's loggers, which belong to the process and not to a run.
LOGGERS = 'learner_logger', 'evaluator_logger'


class _Choice(threading.local):
    """The folder that ``compile_config`` is choosing in this thread.

    Attributes:
        found: a name that exists.
        name: the name that it makes or uses.
        made: the folder that was made, until its run begins to train.
        parents: folders above ``made`` that were made with it, and those of other runs that begin with it; the nearest
            first.
    """
    found: str | None = None
    name: str = ''
    made: Path | None = None
    parents: Sequence[Path] = ()


_choice = _Choice()


def _exists(name: str) -> bool:
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise ValueError(f'exp_name is {name!r}; it must be the name of a folder for the run')
    exists = os.path.exists(name)
    _choice.found = name if exists else None
    return exists


def _makedirs(name: str) -> None:
    """Make a folder, of another name where another run was faster."""
    lacking = [each for each in Path(name).resolve().parents if not each.exists()]
    for _choice.name in itertools.chain([name], (f'{name}_{number}' for number in itertools.count(2))):
        try:
            os.makedirs(_choice.name)
        except FileExistsError:
            pass
        except NotADirectoryError:
            _remove_empty(lacking)
            raise ValueError(f'exp_name is {name!r}, but a part of it is a file, not a folder') from None
        except OSError as error:
            _remove_empty(lacking)
            raise ValueError(
                f'exp_name is {name!r}, but that folder cannot be made: {error.strerror}; take another one'
            ) from None
        else:
            _choice.made = Path(_choice.name).resolve()
            _choice.parents = [*lacking, *_choice.parents]
            return
        if _choice.name == _choice.found:  # renew_dir=False: this folder is wanted
            _choice.made = None
            return


def _save_project_state(exp_name: str) -> None:
    with writing(Path(_choice.name)), beginning(), contextlib.suppress(UnicodeDecodeError):  # a changed file's
        _SAVE_PROJECT_STATE(_choice.name)


def _save_config(config: EasyDict, path: str, *args, **kwargs) -> None:
    if os.path.dirname(path) != config.get('exp_name'):  # not from compile_config
        return _SAVE_CONFIG(config, path, *args, **kwargs)
    with writing(Path(_choice.name)), beginning():
        # DI-engine writes to './' + exp_name.
        config.exp_name = os.path.relpath(_choice.name) if os.path.isabs(_choice.name) else _choice.name
        _SAVE_CONFIG(config, os.path.join(_choice.name, os.path.basename(path)), *args, **kwargs)


class _Printer(pprint.PrettyPrinter):
    """Prints numbers so that Python reads them again."""

    def format(self, value: Any, *args: Any) -> tuple[str, bool, bool]:
        if isinstance(value, float) and not math.isfinite(value):
            return f"float('{value}')", True, False
        return super().format(value, *args)


def _save_config_py(config: EasyDict, path: str) -> None:
    """Write a configuration as a Python file, as DI-engine does, whose formatter takes 1.5 s for it."""
    Path(path).write_text(f'exp_config = \\\n{_Printer(width=120, sort_dicts=False).pformat(config)}\n')


@contextlib.contextmanager
def beginning(runs: Sequence[EasyDict] = ()) -> Iterator[None]:
    """Remove the folders that were made for runs which fail here, before they train.

    Arguments:
        runs: compiled configurations of runs that begin together, more of which may be appended within; one that begins
            alone needs none.
    """
    try:
        yield
    except BaseException as error:
        host.close_writer(error)
        for folder in {_choice.made, *(Path(cfg.exp_name).resolve() for cfg in runs)} - {None}:
            if not any(folder.glob('ckpt/*')):
                shutil.rmtree(folder, ignore_errors=True)
        _remove_empty(_choice.parents)
        begun()
        raise


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it is absent or not empty
            folder.rmdir()


def begun() -> None:
    """Keep the folders of runs that are about to train, whatever happens to them."""
    _choice.made, _choice.parents = None, ()


def writes_elsewhere(handler: logging.Handler, exp_name: str | Path) -> bool:
    """Return whether a handler writes to a file outside of a run's folder."""
    return hasattr(handler, 'file_path') and Path(exp_name).resolve() not in Path(handler.file_path).resolve().parents


def close_files(logger: logging.Logger, handlers: Iterable[logging.Handler]) -> None:
    """Close handlers of a logger, which writes to them no more."""
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()


def close_logs_of_others(exp_name: str | Path) -> None:
    """Close the log files of the runs before in this process, which would get this run's lines, too."""
    for logger in map(logging.getLogger, LOGGERS):
        close_files(logger, [each for each in logger.handlers if writes_elsewhere(each, exp_name)])


_SAVE_PROJECT_STATE, _SAVE_CONFIG = di_engine.save_project_state, di_engine.save_config
# They are found there by name also by a compile_config that imports this package on its way.
di_engine.os = SimpleNamespace(**{
    **vars(os), 'makedirs': _makedirs, 'path': SimpleNamespace(**{**vars(os.path), 'exists': _exists})
})
di_engine.save_project_state, di_engine.save_config = _save_project_state, _save_config
di_engine.save_config_py = _save_config_py

"""Resolve a D4RL locomotion id such as ``hopper-medium-v2``: environment, quality, shapes, reference returns."""
from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ding_cawr.checks import nearest

#: D4RL's time limit of an episode.
EPISODE_STEPS = 1000
QUALITIES = ('random', 'medium', 'medium-replay', 'medium-expert', 'expert')


@dataclass(frozen=True)
class Task:
    """One MuJoCo locomotion task of D4RL.

    The v2 data match the dynamics of gymnasium's v4; v5 changed rewards and friction and is not comparable.
    ``random_return`` and ``expert_return`` are D4RL's reference returns (undiscounted, one episode). The height
    of the body, an observation's first entry, is within ``height``: those that terminate end their episodes beyond it.
    ``kwargs`` are arguments of the gymnasium environment.
    """
    name: str
    gymnasium_id: str
    obs_shape: int
    action_shape: int
    random_return: float
    expert_return: float
    height: tuple[float, float]
    terminates: bool
    kwargs: Mapping[str, Any] = field(default_factory=dict)


TASKS = {
    task.name: task
    for task in (
        Task('hopper', 'Hopper-v4', 11, 3, -20.272305, 3234.3, (0.7, math.inf), True),
        Task('walker2d', 'Walker2d-v4', 17, 6, 1.629008, 4592.3, (0.8, 2.0), True),
        Task('halfcheetah', 'HalfCheetah-v4', 17, 6, -280.178953, 12135.0, (-1.0, 0.75), False),
        # In D4RL's data the 84 contact forces are 0, as its MuJoCo 2.0 did not compute them, and so is their cost
        # (https://github.com/Farama-Foundation/D4RL/issues/143). This range makes them 0 in gymnasium, too.
        Task('ant', 'Ant-v4', 111, 8, -325.6, 3879.7, (0.2, 1.0), True,
             dict(use_contact_forces=True, contact_force_range=(0.0, 0.0))),
    )
}
D4RL_IDS = tuple(f'{task}-{quality}-v2' for task in TASKS for quality in QUALITIES)
_D4RL_ID = re.compile(rf"({'|'.join(TASKS)})-({'|'.join(sorted(QUALITIES, key=len, reverse=True))})-v2")
_ID_OF_MODULE = re.compile(r'[\w.]+:[\w./-]+')
#: Beginnings of the names of D4RL's sets that are not served.
_OTHER_D4RL = re.compile(r'(antmaze|maze2d|kitchen|pen|door|hammer|relocate|flow|carla|minigrid)-|\w+-full-replay')


class EnvironmentFailed(RuntimeError):
    """An environment raised an error of its own."""


def instead_of(name: str, names: Collection[str]) -> str:
    """Return the tail of a message about a name that is none of ``names``: the closest one, or for D4RL's other sets
    what to do."""
    if _OTHER_D4RL.match(name):
        return (
            f"; of D4RL's sets those of {', '.join(TASKS)} are served, {', '.join(QUALITIES)}: give data_path a file "
            'of this one, and env_id None or an id that gymnasium can make'
        )
    return nearest(name, names)


def is_d4rl_id(env_id: str | None) -> bool:
    return isinstance(env_id, str) and _D4RL_ID.fullmatch(env_id) is not None


def split_d4rl_id(env_id: str) -> tuple[Task, str]:
    """Return the task and the quality of a D4RL id.

    Raises:
        ValueError: ``env_id`` is not one of ``D4RL_IDS``.
    """
    match = _D4RL_ID.fullmatch(env_id)
    if match is None:
        raise ValueError(
            f'{env_id!r} is not a D4RL locomotion id; known: {", ".join(D4RL_IDS)}{instead_of(env_id, D4RL_IDS)}'
        )
    return TASKS[match[1]], match[2]


def d4rl_id_of(path: Path) -> str | None:
    """Return the D4RL id that a file is named for, None for any other name."""
    named = path.stem.replace('_', '-')
    return named if is_d4rl_id(named) else None


def find_task(env_id: str | None) -> Task | None:
    """Return the task of a D4RL id or a gymnasium v4 id, None where there is none (and so no reference returns).

    A gymnasium id means that environment as gymnasium makes it. It is not a task where the task has ``kwargs``.
    """
    if is_d4rl_id(env_id):
        return split_d4rl_id(env_id)[0]
    return next((task for task in TASKS.values() if task.gymnasium_id == env_id and not task.kwargs), None)


def gymnasium_id(env_id: str) -> str:
    """Return the gymnasium id to simulate: that of the task for a D4RL id, ``env_id`` itself for any other."""
    task = find_task(env_id)
    return task.gymnasium_id if task else env_id


def without_module(env_id: str) -> str:
    """Return the gymnasium id within 'MODULE:ID', any other id itself."""
    return env_id.rpartition(':')[2]


def environment_name(env_id: str) -> str:
    """Return gymnasium's id without a module. Two ids of the same simulated environment have the same name."""
    return gymnasium_id(without_module(env_id))


def check_untrusted_id(env_id: str | None, source: Any, confirmed: Collection[str] = ()) -> None:
    """Check that an id which a file names is a plain one. gymnasium would import the module of 'MODULE:ID'.

    Arguments:
        confirmed: modules that the user named, which may be imported.

    Raises:
        ValueError: the id names a module of its own; names the file and the id.
    """
    module, colon, _ = (env_id or '').partition(':')
    if colon and not is_confirmed(module, confirmed):
        raise ValueError(
            f'{source}: its env_id is {env_id[:80]!r}, which would import a module, and nothing that a file names is '
            'imported; if you trust that module, give the id yourself (--env-id), or name the module (--import MODULE) '
            'where the command has that'
        )


def check_untrusted_settings(part: Any, source: str, confirmed: Collection[str] = ()) -> None:
    """Check every text in a section of a file.

    An environment may take an id among its arguments; see ``check_untrusted_id``.
    """
    if isinstance(part, str) and _ID_OF_MODULE.fullmatch(part):
        check_untrusted_id(part, source, confirmed)
    elif isinstance(part, Mapping):
        for key, value in part.items():
            check_untrusted_settings(value, f'{source}.{key}', confirmed)
    elif isinstance(part, (list, tuple)):
        for value in part:
            check_untrusted_settings(value, source, confirmed)


def is_confirmed(module: str, names: Collection[str]) -> bool:
    """Return whether a module, or a package that it is in, is among those that the user named."""
    return any(module == name or module.startswith(f'{name}.') for name in names)

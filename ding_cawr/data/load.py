"""Loading what ``data_path`` names."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ding_cawr.checks import nearest
from ding_cawr.data import bundled, d4rl
from ding_cawr.data.layouts import read_transitions
from ding_cawr.data.transitions import Transitions
from ding_cawr.tasks import find_task, is_d4rl_id, split_d4rl_id


def load_transitions(
    data_path: str | Path | None, env_id: str | None = None, unit_actions: bool = True
) -> Transitions:
    """Load a dataset as Transitions.

    Arguments:
        data_path: None for the D4RL set that ``env_id`` names (from the cache, else downloaded); the path of a .hdf5 or
            .npz file in D4RL's or DI-engine's layout; ``bundled:NAME`` for a set that comes with the package.
        env_id: environment that the data should be of: a D4RL or gymnasium id. None skips that check.
        unit_actions: whether actions must be in [-1, 1]; else they are as in the file, and
            ``Transitions.scale_actions`` scales them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown ``data_path`` or unusable content; the message names what and why.
        ConnectionError: the D4RL file is not in the cache and cannot be downloaded.
    """
    if data_path is None:
        if env_id is None or not is_d4rl_id(env_id):
            raise ValueError(
                f'data_path is None, which means the D4RL dataset of env_id, but env_id {env_id!r} names none; give a '
                "data_path (.hdf5, .npz, bundled:NAME) or a D4RL id such as 'hopper-medium-v2'"
            )
        return read_transitions(d4rl.fetch(env_id), env_id, unit_actions)
    scheme, colon, name = str(data_path).partition(':')
    if colon and scheme == bundled.SCHEME:
        return replace(read_transitions(bundled.path(name), env_id, unit_actions), source=str(data_path))
    if colon and len(scheme) > 1 and '/' not in scheme:
        raise ValueError(
            f'data_path {str(data_path)!r}: unknown kind {scheme!r}; it must be None, a .hdf5 or .npz file, or '
            f'{bundled.SCHEME}:NAME{nearest(scheme, [bundled.SCHEME])}'
        )
    _check_name(Path(data_path), env_id)
    return read_transitions(data_path, env_id, unit_actions)


def _check_name(path: Path, env_id: str | None) -> None:
    """Raise a ValueError for a file that has D4RL's name for a dataset of another environment."""
    named = path.stem.replace('_', '-')
    task = find_task(env_id) if env_id else None
    if task is not None and is_d4rl_id(named) and split_d4rl_id(named)[0] != task:
        raise ValueError(f'{path} is named for {named}, a dataset of another environment than env_id {env_id!r}')

"""The datasets of a comparison: which file, whose, and what made it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py

from ding_cawr.checks import nearest
from ding_cawr.data import bundled, d4rl
from ding_cawr.data.corruption import corruption_options
from ding_cawr.data.load import load_transitions
from ding_cawr.data.transitions import Transitions
from ding_cawr.score import normalized_score
from ding_cawr.tasks import D4RL_IDS, find_task, is_d4rl_id


@dataclass(frozen=True)
class Dataset:
    """A dataset as all runs of a comparison see it.

    Attributes:
        name: as it was asked for: a D4RL id, 'bundled:NAME' or a path.
        path: the file.
        env_id: the environment that evaluates, a D4RL or gymnasium id.
        origin: 'D4RL', 'stand-in', 'bundled' or 'file' (see ``results``).
        corruption: None, or dict(columns, rate, scale, seed).
    """
    name: str
    path: Path
    env_id: str
    obs_shape: int
    action_shape: int
    sha256: str
    origin: str
    behaviour_score: float | None
    corruption: Mapping[str, Any] | None = None

    @property
    def slug(self) -> str:
        """A name for folders."""
        words = [Path(self.name.replace(':', '_')).stem]
        if self.corruption:
            words += [self.corruption['columns'], str(self.corruption['rate'])]
        return '_'.join(words).replace('-', '_')

    @property
    def has_d4rl_settings(self) -> bool:
        """Whether it goes by a D4RL id, whose settings are then taken."""
        return is_d4rl_id(self.env_id)

    def corrupted(self, column: str, rate: float, scale: float, seed: int = 0) -> Dataset:
        """The same rows with a share of a column corrupted; itself at rate 0. Raises what ``corrupt`` raises."""
        corruption = corruption_options(dict(columns=column, rate=rate, scale=scale, seed=seed))
        return replace(self, corruption=corruption) if rate else self


def find_dataset(name: str, env_id: str | None = None) -> Dataset:
    """Read a dataset once, fetching D4RL's where it is not in the cache.

    Arguments:
        name: a D4RL id, which may go without its '-v2', 'bundled:NAME', or the path of a .hdf5 or .npz file.
        env_id: the environment of a file that does not say whose it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such name, or a file whose environment is not known.
        ConnectionError: D4RL's file cannot be fetched.
    """
    name = f'{name}-v2' if is_d4rl_id(f'{name}-v2') else name
    path = _path(name)
    named = path.stem.replace('_', '-')
    known = named if is_d4rl_id(named) else None
    transitions = load_transitions(path, known or env_id)
    env_id = known or env_id or transitions.attributes.get('env_id')
    env_id = env_id.decode() if isinstance(env_id, bytes) else env_id
    if env_id is None:
        raise ValueError(f'{path} does not say of which environment it is; give it with --env-id')
    return Dataset(
        name=name, path=path, env_id=env_id, obs_shape=transitions.obs_shape, action_shape=transitions.action_shape,
        sha256=d4rl.sha256(path), origin=_origin(name, path, known), behaviour_score=_behaviour(transitions, env_id),
    )


def _path(name: str) -> Path:
    if is_d4rl_id(name):
        return d4rl.fetch(name).resolve()
    if name.startswith(f'{bundled.SCHEME}:'):
        return Path(bundled.path(name.partition(':')[2])).resolve()
    path = Path(name).expanduser()
    if not path.is_file():
        names = [*D4RL_IDS, *(f'{bundled.SCHEME}:{each}' for each in bundled.names())]
        raise FileNotFoundError(
            f'dataset {name!r} is neither a file nor a D4RL id nor {bundled.SCHEME}:NAME (`cawr data list` lists the '
            f'names){nearest(name, names)}'
        )
    return path.resolve()


def _origin(name: str, path: Path, d4rl_id: str | None) -> str:
    """Whose the data are. D4RL's own v2 files hold the simulator's states, which hardly any other maker writes."""
    if name.startswith(f'{bundled.SCHEME}:'):
        return 'bundled'
    if d4rl_id is None:
        return 'file'
    if path.suffix != '.hdf5':
        return 'stand-in'
    with h5py.File(path, 'r') as file:
        return 'D4RL' if 'infos/qpos' in file and 'infos/qvel' in file else 'stand-in'


def _behaviour(transitions: Transitions, env_id: str) -> float | None:
    returns = transitions.episode_returns
    if returns is None or len(returns) == 0 or find_task(env_id) is None:
        return None
    return float(normalized_score(env_id, returns.mean()))

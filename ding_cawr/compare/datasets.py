"""Find the datasets of a comparison: which file, whose, and what made it."""
from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ding_cawr.choice import Choice, choose
from ding_cawr.data import bundled, minari
from ding_cawr.data.corruption import corruption_options
from ding_cawr.data.load import find_file, load_transitions, whole_name
from ding_cawr.data.quality import quality_of
from ding_cawr.data.transitions import Transitions
from ding_cawr.files import sha256
from ding_cawr.tasks import (
    check_untrusted_id,
    d4rl_id_of,
    environment_name,
    find_task,
    without_module,
)


@dataclass(frozen=True)
class Dataset:
    """Describes a dataset of a comparison; ``results`` documents its fields. ``choice`` is the preset that 'auto' takes
    for the file as it is, None where the file was not read."""
    name: str
    path: Path
    env_id: str
    obs_shape: int
    action_shape: int
    sha256: str
    origin: str
    behaviour_score: float | None
    corruption: Mapping[str, Any] | None = None
    choice: Choice | None = None

    @property
    def slug(self) -> str:
        """The beginning of its runs' folder names."""
        corruption = [self.corruption['columns'], str(self.corruption['rate'])] if self.corruption else []
        name = self.name.replace(':', '/') if self.name.startswith(f'{minari.SCHEME}:') else \
            Path(self.name.replace(':', '_')).stem
        return re.sub('[-/]', '_', '_'.join([name, *corruption]))

    @property
    def data_path(self) -> str:
        """The value for ``collect.data_path``."""
        return self.name if self.origin == 'bundled' else str(self.path)

    def corrupted(self, column: str, rate: float, scale: float, seed: int = 0) -> Dataset:
        """Return the same rows with a share of a column corrupted; itself at rate 0. Raises what ``corrupt`` raises."""
        corruption = corruption_options(dict(columns=column, rate=rate, scale=scale, seed=seed))
        return replace(self, corruption=corruption) if rate else self


def find_dataset(name: str, env_id: str | None = None) -> Dataset:
    """Read a D4RL dataset (with or without its '-v2'), 'bundled:NAME', 'minari:NAME', or a .hdf5 or .npz file, whose
    environment is ``env_id`` if it does not name its own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such name, a file whose environment is not known, or one of discrete actions.
        ConnectionError: D4RL's file cannot be fetched.
    """
    name = whole_name(name)
    path = find_file(name).resolve()
    d4rl_id = d4rl_id_of(path)
    transitions = load_transitions(path, d4rl_id, unit_actions=False)
    if transitions.discrete:
        raise ValueError(
            f'{path} has discrete actions, but cawr compare takes datasets of continuous actions; train on it with '
            "ding_cawr.make_config, a policy that takes them and policy.model.action_space='discrete'"
        )
    env_id = d4rl_id or _environment(transitions, env_id)
    if env_id is None:
        raise ValueError(f'{path} does not say of which environment it is; give it with --env-id')
    if env_id != d4rl_id and find_task(env_id) is not None:  # which says how its rows are to be read
        transitions = load_transitions(path, env_id, unit_actions=False)
    # An error now, or the warning that tells how they are read: in the runs nobody would see it.
    transitions.scale_actions(bounds=_action_bounds(env_id))
    quality = quality_of(transitions, env_id)
    return Dataset(
        name=name, path=path, env_id=env_id, obs_shape=transitions.obs_shape, action_shape=transitions.action_shape,
        sha256=sha256(path), origin=_origin(name, path, d4rl_id),
        behaviour_score=float(quality.values.mean()) if quality and quality.unit == 'score' else None,
        choice=choose(quality),
    )


def _environment(transitions: Transitions, given: str | None) -> str | None:
    """Return the id that a file names, with a warning where another one is given; where the file names none, or names
    it without a module, return the given one."""
    named = transitions.env_id
    if named is None or given is not None and without_module(given) == without_module(named):
        return given
    if given is not None and environment_name(given) != environment_name(named):
        warnings.warn(
            f'{transitions.source} says that it is of {named}; --env-id {given} is not used for it', stacklevel=2
        )
    check_untrusted_id(named, transitions.source)
    return named


def _action_bounds(env_id: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the bounds of an environment's actions, None where they are known to be ±1."""
    if find_task(env_id) is not None:
        return None
    from ding_cawr.environments import try_out  # the command does not wait for gymnasium where it need not
    return try_out(env_id)[1:]


def _origin(name: str, path: Path, d4rl_id: str | None) -> str:
    """Return the origin of the data. D4RL's own v2 files hold the simulator's states, which hardly any other file
    has."""
    if bundled.is_bundled(name):
        return 'bundled'
    if d4rl_id is None:
        return 'file'
    if path.suffix != '.hdf5':
        return 'stand-in'
    with h5py.File(path, 'r') as file:
        return 'D4RL' if 'infos/qpos' in file and 'infos/qvel' in file else 'stand-in'

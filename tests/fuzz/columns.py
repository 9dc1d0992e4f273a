"""Datasets: Hopper's columns, clean and changed, whichever file they are in."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ding_cawr import load_transitions
from fuzz.files import ACT, ENV_ID, OBS, ROWS, Mutation, Values


def d4rl_columns(seed: int = 0) -> Values:
    """Hopper's columns in D4RL's layout: an episode that ends, one with a timeout, and an open one."""
    generator = np.random.default_rng(seed)
    obs = generator.normal(size=(ROWS, OBS)).astype(np.float32)
    obs[:, 0] = generator.uniform(0.8, 1.5, ROWS)
    return dict(
        observations=obs, actions=generator.uniform(-1, 1, (ROWS, ACT)).astype(np.float32),
        rewards=generator.uniform(0, 4, ROWS).astype(np.float32),
        terminals=np.arange(ROWS) == 19, timeouts=np.arange(ROWS) == 49,
    )


def ding_columns(seed: int = 0) -> Values:
    """The same in DI-engine's layout."""
    columns = d4rl_columns(seed)
    return dict(
        obs=columns['observations'], action=columns['actions'], reward=columns['rewards'][:, None],
        next_obs=d4rl_columns(seed + 1)['observations'], done=columns['terminals'],
    )


def d4rl_meaning(columns: Values) -> Values:
    """D4RL's qlearning_dataset; without timeouts its time limit is one that these episodes do not reach."""
    obs = columns['observations']
    rows = np.flatnonzero(~columns.get('timeouts', np.zeros(len(obs)))[:-1].astype(bool))
    return dict(
        obs=obs[rows], action=columns['actions'][rows], reward=columns['rewards'][rows], next_obs=obs[rows + 1],
        done=columns['terminals'][rows],
    )


def ding_meaning(columns: Values) -> Values:
    return {**columns, 'reward': columns['reward'].reshape(-1)}


def load_columns(path: Path) -> Values:
    return dict(load_transitions(path, ENV_ID).table.columns)


def _float_name(columns: Values, generator) -> str:
    return str(generator.choice([name for name, column in columns.items() if column.dtype.kind == 'f']))


def _flag_name(columns: Values, generator) -> str:
    return str(generator.choice([name for name, column in columns.items() if column.dtype.kind == 'b']))


def column_name(columns: Values, generator) -> str:
    return str(generator.choice(list(columns)))


def _needed_name(columns: Values, generator) -> str:
    return str(generator.choice([name for name in columns if name != 'timeouts']))


def _one(change: Callable, name: Callable = column_name) -> Callable[[Values, np.random.Generator], Values]:
    """One column, drawn by ``name``, becomes ``change(column, generator)``."""
    def changed(columns: Values, generator: np.random.Generator) -> Values:
        which = name(columns, generator)
        return {**columns, which: change(columns[which], generator)}
    return changed


def _spoil(value: float, dtype=np.float32) -> Callable:
    def spoiled(column: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        column = column.astype(dtype)
        column.reshape(-1)[int(generator.integers(column.size))] = value
        return column
    return spoiled


def _without(columns: Values, generator) -> Values:
    dropped = _needed_name(columns, generator)
    return {name: column for name, column in columns.items() if name != dropped}


def _renamed(columns: Values, generator) -> Values:
    which = _needed_name(columns, generator)
    new = str(generator.choice([which + 's', which.upper(), which[:-1], 'infos', 'é' * 40]))
    return {new if name == which else name: column for name, column in columns.items()}


def _swapped(columns: Values, generator) -> Values:
    """Two columns of other shapes have each other's names; two flags would be as good as true."""
    obs, action = [name for name, column in columns.items() if column.ndim == 2 and column.shape[1] > 1][:2]
    return {**columns, obs: columns[action], action: columns[obs]}


UNUSABLE_COLUMNS: dict[str, Callable[[Values, np.random.Generator], Values]] = {
    'column dropped': _without,
    'column renamed': _renamed,
    'columns swapped': _swapped,
    'no columns': lambda columns, generator: {},
    'complex': _one(lambda column, generator: column.astype(np.complex64) + 1j),
    'byte strings': _one(lambda column, generator: column.astype('S12')),
    'void': _one(lambda column, generator: np.zeros(column.shape, 'V4')),
    'records': _one(lambda column, generator: np.zeros(column.shape, [('a', 'f4'), ('b', 'i4')])),
    'integers for actions': lambda columns, generator: {
        name: column.astype(int) if name in ('action', 'actions') else column for name, column in columns.items()},
    'huge integers': _one(lambda column, generator: np.full(column.shape, 2**62), _float_name),
    'flag of 2': _one(_spoil(2, np.int8), _flag_name),
    'flag of 0.5': _one(_spoil(0.5), _flag_name),
    'flag of NaN': _one(_spoil(np.nan), _flag_name),
    'transposed': _one(lambda column, generator: column.T if column.ndim == 2 else column[None]),
    'further dimension': _one(lambda column, generator: column[..., None, None]),
    'one row fewer': _one(lambda column, generator: column[:-1]),
    'a row more': _one(lambda column, generator: np.concatenate([column, column[-1:]])),
    'one column without rows': _one(lambda column, generator: column[:0]),
    'no rows': lambda columns, generator: {name: column[:0] for name, column in columns.items()},
    'no width': _one(lambda column, generator: column.reshape(ROWS, -1)[:, :0]),
    'scalar': _one(lambda column, generator: column.reshape(-1)[0]),
    'flat': _one(lambda column, generator: column.reshape(-1),
                 lambda columns, generator: str(generator.choice(
                     [name for name, column in columns.items() if column.ndim == 2 and column.shape[1] > 1]))),
    'NaN': _one(_spoil(np.nan), _float_name),
    'infinity': _one(_spoil(np.inf), _float_name),
    'negative infinity': _one(_spoil(-np.inf), _float_name),
    'all NaN': _one(lambda column, generator: column * np.nan, _float_name),
    'largest float32': _one(_spoil(3.4e38), _float_name),
    'negative 1e30': _one(_spoil(-1e30), _float_name),
    '1e300': _one(_spoil(1e300, np.float64), _float_name),
    'long double beyond float64': _one(_spoil(np.longdouble('1e4000'), np.longdouble), _float_name),
    'actions of 1.5': lambda columns, generator: {
        name: column * 1.5 if name in ('action', 'actions') else column for name, column in columns.items()},
    'another environment': lambda columns, generator: {
        name: np.tile(column, 2) if column.ndim == 2 else column for name, column in columns.items()},
    'heights of another environment': lambda columns, generator: {
        name: column - 9 if name in ('obs', 'observations') else column for name, column in columns.items()},
}
USABLE_COLUMNS: dict[str, Callable[[Values, np.random.Generator], Values]] = {
    'float64': _one(lambda column, generator: column.astype(np.float64)),
    'float16': _one(lambda column, generator: column.astype(np.float16)),
    'long double': _one(lambda column, generator: column.astype(np.longdouble), _float_name),
    'big endian': _one(lambda column, generator: column.astype('>f4')),
    'bool for floats': _one(lambda column, generator: column > 0, _float_name),
    'integers': _one(lambda column, generator: column.astype(np.int16), _flag_name),
    'unsigned integers': _one(lambda column, generator: column.astype(np.uint64), _flag_name),
    'width of one': _one(lambda column, generator: column.reshape(ROWS, 1), _flag_name),
    "Fortran's order": _one(lambda column, generator: np.asfortranarray(column)),
    'further columns': lambda columns, generator: {**columns, 'more': np.ones(3), 'other': np.array(b'text')},
    'no timeouts': lambda columns, generator: {
        name: column for name, column in columns.items() if name != 'timeouts'},
    'next observations': lambda columns, generator: columns if 'obs' in columns else {
        **columns, 'next_observations': np.roll(columns['observations'], -1, axis=0)},
    'denormal': _one(_spoil(1e-42), _float_name),
}


def _columns(change: Callable, columns: Values, write: Callable, usable: bool) -> Mutation:
    def mutate(path: Path, generator: np.random.Generator) -> Values | None:
        path.unlink()
        changed = change(columns, generator)
        write(path, changed)
        kept = [name for name in columns if name in changed]
        return {name: changed[name].reshape(columns[name].shape) for name in kept} if usable else None
    return mutate


def column_mutations(columns: Values, write: Callable[[Path, Values], None]) -> dict[str, Mutation]:
    return {
        name: _columns(change, columns, write, usable)
        for table, usable in ((UNUSABLE_COLUMNS, False), (USABLE_COLUMNS, True)) for name, change in table.items()
    }

"""Files to Transitions: data/layouts.py, data/transitions.py and data/load.py."""
from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from ding.utils.data.dataset import hdf5_save
from helpers import ROOT, cawr, python, without_roots_rights
from hypothesis import given, settings
from hypothesis import strategies as st

from ding_cawr.config import make_config
from ding_cawr.data.corruption import corrupt
from ding_cawr.data.layouts import COLUMNS, read_transitions
from ding_cawr.data.load import load_transitions
from ding_cawr.data.transitions import Transitions

HEIGHT = {'hopper': 1.2, 'walker2d': 1.2, 'halfcheetah': -0.1}


def d4rl_columns(flags, obs_shape: int = 11, action_shape: int = 3, dtype=np.float32, height: float = 1.2) -> dict:
    """Random columns in D4RL's layout, with a (terminal, timeout) pair a row."""
    rows = len(flags)
    generator = np.random.default_rng(rows)
    terminals, timeouts = np.array(flags, dtype=bool).reshape(rows, 2).T
    obs = generator.normal(size=(rows, obs_shape))
    obs[:, 0] = height + generator.uniform(-0.1, 0.1, rows)
    return dict(
        observations=obs.astype(dtype), actions=generator.uniform(-1, 1, (rows, action_shape)).astype(dtype),
        rewards=generator.normal(size=rows).astype(dtype), terminals=terminals, timeouts=timeouts,
    )


def ding_columns(rows: int = 7, obs_shape: int = 11, action_shape: int = 3) -> dict:
    """Random columns in DI-engine's layout, typed and shaped as its own files have them."""
    generator = np.random.default_rng(rows)
    obs, next_obs = generator.uniform(0.8, 1.5, (2, rows, obs_shape)).astype(np.float32)
    return dict(
        obs=obs, action=generator.uniform(-1, 1, (rows, action_shape)).astype(np.float32),
        reward=generator.normal(size=(rows, 1)).astype(np.float32), next_obs=next_obs, done=np.arange(rows) == 3,
    )


def write(path: Path, columns: dict) -> Path:
    if path.suffix == '.npz':
        np.savez(path, **columns)
    else:
        with h5py.File(path, 'w') as file:
            for name, column in columns.items():
                file[name] = column
    return path


def assert_same(transitions: Transitions, columns: dict) -> None:
    """The five columns are views of one matrix and have the values of ``columns``."""
    for name, column in transitions.table.columns.items():
        assert column.dtype == np.float32 and column.base is transitions.rows
        np.testing.assert_array_equal(column, columns[name])


# ---------------------------------------------------------------- D4RL's semantics


@pytest.fixture(scope='session')
def qlearning_dataset(tmp_path_factory):
    """``d4rl.qlearning_dataset`` itself. Importing d4rl makes its cache folder: kept out of the home directory here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('D4RL_DATASET_DIR', str(tmp_path_factory.mktemp('d4rl')))
        patch.setenv('D4RL_SUPPRESS_IMPORT_ERROR', '1')
        d4rl = pytest.importorskip(
            'd4rl', reason='the original to compare with is missing: pip install --no-deps d4rl==1.1'
        )
    return lambda columns: d4rl.qlearning_dataset(SimpleNamespace(_max_episode_steps=1000), dataset=columns)


def original(qlearning_dataset, columns: dict) -> dict:
    """D4RL's result under our names."""
    names = dict(
        observations='obs', actions='action', next_observations='next_obs', rewards='reward', terminals='done'
    )
    return {names[name]: column for name, column in qlearning_dataset(columns).items()}


ROWS = st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1)])


@settings(max_examples=60, deadline=None)
@given(flags=st.lists(ROWS, min_size=1, max_size=25), suffix=st.sampled_from(['.hdf5', '.npz']))
def test_d4rl_layout_is_qlearning_dataset(qlearning_dataset, tmp_path_factory, flags, suffix):
    columns = d4rl_columns(flags)
    path = write(tmp_path_factory.getbasetemp() / f'random{suffix}', columns)
    expected = original(qlearning_dataset, columns)
    if len(expected['reward']) == 0:
        with pytest.raises(ValueError, match='no transition is left'):
            read_transitions(path)
    else:
        assert_same(read_transitions(path), expected)


@pytest.mark.parametrize('flags', [
    [(0, 0)] * 4,
    [(0, 0), (1, 0), (0, 0), (0, 0)],
    [(0, 0), (0, 1), (0, 0), (0, 0)],
    [(0, 0), (1, 1), (0, 0), (0, 0)],
    [(0, 0), (0, 0), (0, 0), (1, 0)],
    [(0, 0), (0, 0), (0, 0), (0, 1)],
    [(1, 0), (0, 1), (1, 1), (0, 1), (1, 0), (0, 0)],
], ids=['open', 'terminal', 'timeout', 'both', 'ends-terminal', 'ends-timeout', 'single-row-episodes'])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_d4rl_layout_edge_cases(qlearning_dataset, tmp_path, flags, dtype):
    columns = d4rl_columns(flags, dtype=dtype)
    assert_same(read_transitions(write(tmp_path / 'a.hdf5', columns)), original(qlearning_dataset, columns))


def test_d4rl_layout_by_hand(tmp_path):
    columns = d4rl_columns([(0, 0), (1, 0), (0, 0), (0, 1), (0, 0), (0, 0)])
    transitions = read_transitions(write(tmp_path / 'a.hdf5', columns))
    kept = [0, 1, 2, 4]
    assert_same(transitions, dict(
        obs=columns['observations'][kept], action=columns['actions'][kept], reward=columns['rewards'][kept],
        next_obs=columns['observations'][[1, 2, 3, 5]], done=[False, True, False, False],
    ))
    rewards = columns['rewards'].astype(np.float64)
    np.testing.assert_allclose(transitions.episode_returns, [rewards[:2].sum(), rewards[2:4].sum()])
    assert transitions.source == str(tmp_path / 'a.hdf5')
    assert (len(transitions), transitions.obs_shape, transitions.action_shape) == (4, 11, 3)
    assert transitions.rows.nbytes == 4 * 4 * (11 + 3 + 1 + 1 + 11)
    parts = [getattr(transitions, name).reshape(4, -1) for name in ('obs', 'action', 'reward', 'done', 'next_obs')]
    np.testing.assert_array_equal(transitions.rows, np.concatenate(parts, axis=1))
    np.testing.assert_array_equal(transitions.table.obs_action, np.concatenate(parts[:2], axis=1))
    assert transitions.table.obs_action.base is transitions.rows


def test_further_columns_groups_and_attributes_of_a_file(make_d4rl_file, tmp_path):
    path = make_d4rl_file(tmp_path / 'a.hdf5', attributes=dict(env_id='Hopper-v4', seed=np.int64(3)))
    with h5py.File(path, 'a') as file:
        file['infos/qpos'] = np.zeros((60, 6))
        file.create_group('metadata')
    transitions = read_transitions(path, 'hopper-medium-v2')
    assert transitions.attributes == dict(env_id='Hopper-v4', seed=3)
    assert len(transitions) == 60 - 1 - 1 and len(transitions.episode_returns) == 2


@pytest.mark.parametrize('suffix', ['.hdf5', '.h5', '.npz'])
def test_columns_of_width_one_are_flattened(tmp_path, suffix):
    columns = d4rl_columns([(0, 0)] * 4 + [(1, 0), (0, 0)])
    wide = {name: column[:, None] if column.ndim == 1 else column for name, column in columns.items()}
    wide['terminals'] = wide['terminals'].astype(np.float32)
    flat = read_transitions(write(tmp_path / f'flat{suffix}', columns))
    assert_same(read_transitions(write(tmp_path / f'wide{suffix}', wide)), flat.table.columns)


# ---------------------------------------------------------------- next_observations, and no timeouts


def complete(flags, shuffled: bool = False) -> dict:
    """D4RL's columns with next_observations: the following row's, but for rows that end an episode."""
    columns = d4rl_columns(flags)
    following = np.roll(columns['observations'], -1, axis=0)
    ends = columns['terminals'] | columns['timeouts'] | (np.arange(len(flags)) == len(flags) - 1)
    columns['next_observations'] = np.where(ends[:, None], columns['observations'] + 0.5, following).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(flags)) if shuffled else slice(None)
    return {name: column[order] for name, column in columns.items()}


FLAGS = [(0, 0)] * 30 + [(1, 0)] + [(0, 0)] * 30 + [(0, 1)] + [(0, 0)] * 30 + [(1, 0)]


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
def test_complete_rows_keep_their_own_next_observations(tmp_path, suffix, no_warning):
    columns = complete(FLAGS, shuffled=True)
    del columns['timeouts']
    transitions = read_transitions(write(tmp_path / f'a{suffix}', columns), 'hopper-medium-v2')
    assert_same(transitions, dict(
        obs=columns['observations'], action=columns['actions'], reward=columns['rewards'],
        next_obs=columns['next_observations'], done=columns['terminals'],
    ))
    assert transitions.episode_returns is None


def test_episodes_of_complete_rows_are_known_where_all_rows_follow_each_other(tmp_path, no_warning):
    columns = complete([(0, 0), (0, 0), (1, 0), (0, 0), (1, 0), (0, 0)])
    del columns['timeouts']
    transitions = read_transitions(write(tmp_path / 'a.hdf5', columns))
    rewards = columns['rewards'].astype(np.float64)
    np.testing.assert_allclose(transitions.episode_returns, [rewards[:3].sum(), rewards[3:5].sum()])
    assert len(transitions) == 6
    columns['next_observations'][3] += 0.1  # the end of a time limit, or a row left out: nobody knows
    assert read_transitions(write(tmp_path / 'b.hdf5', columns)).episode_returns is None


def test_next_observations_that_agree_with_timeouts_change_nothing(tmp_path, no_warning):
    columns = complete(FLAGS)
    alone = {name: column for name, column in columns.items() if name != 'next_observations'}
    plain = read_transitions(write(tmp_path / 'plain.hdf5', alone))
    columns['next_observations'] = columns['next_observations'].astype(np.float64) * (1 + 1e-7)
    columns['next_observations'][[30, 61, -1]] = np.nan  # rows that no transition needs them of
    both = read_transitions(write(tmp_path / 'both.hdf5', columns))
    np.testing.assert_array_equal(both.rows, plain.rows)
    np.testing.assert_array_equal(both.episode_returns, plain.episode_returns)


def test_shuffled_rows_with_timeouts_of_zeros_keep_their_own_next_observations(tmp_path):
    columns = complete(FLAGS, shuffled=True)
    columns['timeouts'][:] = False
    path = write(tmp_path / 'a.hdf5', columns)
    with pytest.warns(UserWarning, match=r'a.hdf5: in \d+ of 93 rows, first in row 0, next_observations .* are used'):
        transitions = read_transitions(path)
    np.testing.assert_array_equal(transitions.next_obs, columns['next_observations'][:-1])
    assert transitions.episode_returns is None


def test_one_end_that_is_not_marked(tmp_path):
    """The reading is D4RL's but for that row, and the part before it is no whole episode."""
    columns = complete([(0, 0)] * 99 + [(1, 0)] + [(0, 0)] * 49 + [(0, 1)] + [(0, 0)] * 49 + [(1, 0), (0, 0)])
    columns['timeouts'][149] = False
    with pytest.warns(UserWarning, match='in 1 of 201 rows, first in row 149'):
        transitions = read_transitions(write(tmp_path / 'a.hdf5', columns))
    np.testing.assert_array_equal(transitions.next_obs, columns['next_observations'][:-1])
    rewards = columns['rewards'].astype(np.float64)
    np.testing.assert_allclose(transitions.episode_returns, [rewards[:100].sum(), rewards[150:200].sum()])


@pytest.mark.parametrize('change, message', [
    (lambda own: own[:, :5], r'observations \(93, 11\) and next_observations \(93, 5\) differ in shape'),
    (lambda own: own[:-1], r'next_observations \(92, 11\) differ in shape'),
    (lambda own: own * np.nan, 'next_observations holds NaN or infinity, first at row 0'),
])
@pytest.mark.filterwarnings('ignore:.*next_observations')
def test_unusable_next_observations(tmp_path, change, message):
    columns = complete(FLAGS)
    columns['next_observations'] = change(columns['next_observations'])
    refused(write(tmp_path / 'both.hdf5', columns), message)
    del columns['timeouts']
    refused(write(tmp_path / 'own.npz', columns), message)


def test_without_timeouts_an_episode_goes_on_until_a_terminal(tmp_path):
    columns = d4rl_columns(FLAGS)
    del columns['timeouts']
    path = write(tmp_path / 'maze.hdf5', columns)
    with pytest.warns(UserWarning, match='neither timeouts nor next_observations: .*wrong where a time limit .* add a'):
        transitions = load_transitions(path)
    np.testing.assert_array_equal(transitions.next_obs, columns['observations'][1:])
    np.testing.assert_array_equal(transitions.done, columns['terminals'][:-1])
    assert transitions.episode_returns is None


def test_without_timeouts_d4rls_tasks_have_its_time_limit(tmp_path):
    columns = d4rl_columns([(0, 0)] * 1000 + [(0, 0)] * 40 + [(1, 0)] + [(0, 0)] * 1000 + [(0, 0)] * 5)
    del columns['timeouts']
    with pytest.warns(UserWarning, match="D4RL's time limit of 1000 steps is taken"):
        transitions = read_transitions(write(tmp_path / 'a.hdf5', columns), 'hopper-medium-v2')
    kept = np.delete(np.arange(2045), [999, 2040])
    np.testing.assert_array_equal(transitions.obs, columns['observations'][kept])
    assert len(transitions.episode_returns) == 3


# ---------------------------------------------------------------- DI-engine's layout


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
def test_ding_layout(tmp_path, suffix):
    columns = ding_columns()
    transitions = read_transitions(write(tmp_path / f'a{suffix}', columns), 'hopper-medium-v2')
    assert_same(transitions, {**columns, 'reward': columns['reward'][:, 0]})
    assert transitions.episode_returns is None


def test_file_of_ding_engines_own_writer(tmp_path):
    columns = ding_columns()
    rows = [
        {name: bool(column[i]) if name == 'done' else torch.from_numpy(column[i]) for name, column in columns.items()}
        for i in range(len(columns['obs']))
    ]
    hdf5_save(rows, str(tmp_path / 'expert'))
    gc.collect()  # hdf5_save leaves it to the collector to close the file
    transitions = read_transitions(tmp_path / 'expert_demos.hdf5')
    assert_same(transitions, {**columns, 'reward': columns['reward'][:, 0]})


# ---------------------------------------------------------------- unusable files


def refused(path: Path, message: str, env_id: str | None = None) -> None:
    """Reading fails with a message that names the file and says ``message`` (a regular expression)."""
    with pytest.raises(ValueError, match=message) as raised:
        read_transitions(path, env_id)
    assert str(raised.value).count(str(path)) == 1


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.hdf5 does not exist'):
        read_transitions(tmp_path / 'absent.hdf5')


def test_unknown_kind_of_file(tmp_path):
    (tmp_path / 'a.pkl').write_bytes(b'')
    refused(tmp_path / 'a.pkl', r"ending is '\.pkl'; it must be one of '\.hdf5', '\.h5', '\.npz'")


@pytest.mark.parametrize('suffix, kind', [('.hdf5', 'HDF5 file'), ('.npz', 'NumPy archive')])
@pytest.mark.parametrize('damage', ['truncated', 'html', 'empty'])
def test_file_that_is_not_whole_or_not_of_its_kind(tmp_path, suffix, kind, damage):
    path = write(tmp_path / f'a{suffix}', d4rl_columns([(0, 0)] * 50))
    content = {'truncated': path.read_bytes()[:-200], 'html': b'<html>404</html>', 'empty': b''}[damage]
    path.write_bytes(content)
    refused(path, rf'\({len(content)} bytes\) is not a complete {kind}')


def test_single_array_named_npz(tmp_path):
    np.save(tmp_path / 'a.npy', np.ones(3))
    shutil.move(tmp_path / 'a.npy', tmp_path / 'a.npz')
    refused(tmp_path / 'a.npz', 'is not a complete NumPy archive')


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
def test_damage_within_a_column(tmp_path, suffix):
    columns, path = d4rl_columns([(0, 0)] * 500), tmp_path / f'a{suffix}'
    if suffix == '.npz':
        np.savez_compressed(path, **columns)
    else:
        with h5py.File(path, 'w') as file:
            for name, column in columns.items():
                file.create_dataset(name, data=column, compression='gzip')
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:middle + 50] = bytes(50)
    path.write_bytes(content)
    refused(path, 'not a complete HDF5 file|has an unreadable column')


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
@pytest.mark.parametrize('layout, dropped', [('d4rl', 'terminals'), ('ding', 'next_obs')])
def test_missing_column(tmp_path, suffix, layout, dropped):
    columns = d4rl_columns([(0, 0)] * 5) if layout == 'd4rl' else ding_columns()
    del columns[dropped]
    path = write(tmp_path / f'a{suffix}', columns)
    refused(path, rf"columns \['{dropped}'\] are missing; it has .*It must have D4RL's .* DI-engine's")


def test_file_of_another_layout(tmp_path):
    refused(write(tmp_path / 'a.hdf5', dict(states=np.ones(3))), r"are missing; it has \['states'\]")


def test_group_in_place_of_a_column(tmp_path):
    columns = d4rl_columns([(0, 0)] * 5)
    rewards = columns.pop('rewards')
    path = write(tmp_path / 'a.hdf5', {**columns, 'rewards/first': rewards})
    refused(path, 'rewards is a group')


CHANGES = {
    'lengths': (lambda c: {**c, 'rewards': c['rewards'][:-1]}, "columns differ in length: .*'rewards': 5"),
    'empty': (lambda c: {name: column[:0] for name, column in c.items()}, 'dataset is empty'),
    'one row': (lambda c: {name: column[:1] for name, column in c.items()}, 'no transition is left of 1 rows'),
    'nan': (lambda c: {**c, 'rewards': spoil(c['rewards'], 4, np.nan)}, 'rewards holds NaN .* row 4'),
    'inf': (lambda c: {**c, 'observations': spoil(c['observations'], (2, 5), -np.inf)}, 'observations .* row 2'),
    'nan action': (lambda c: {**c, 'actions': spoil(c['actions'], (0, 1), np.nan)}, 'actions holds NaN .* row 0'),
    'nan flag': (lambda c: {**c, 'terminals': spoil(c['terminals'] * 1.0, 3, np.nan)}, 'terminals at row 3 is nan'),
    'flag of 2': (lambda c: {**c, 'timeouts': spoil(c['timeouts'] * 1, 1, 2)}, 'timeouts at row 1 is 2; it must be'),
    'range': (lambda c: {**c, 'actions': spoil(c['actions'], (2, 1), 1.5)}, r'1 of 6 actions .*\[-1, 1\].* row 2'),
    'integers': (lambda c: {**c, 'actions': np.zeros((6, 3), int)},
                 r'actions has dtype int64 and shape \(6, 3\); discrete actions must be one whole number each'),
    'negative': (lambda c: {**c, 'actions': np.arange(-2, 4)}, 'that of row 0 is -2; they must be from 0 to'),
    'huge': (lambda c: {**c, 'actions': np.full((6, 1), 2**40)}, f'that of row 0 is {2**40}; they must be from 0 to'),
    'no width': (lambda c: {**c, 'actions': np.zeros((6, 0))}, r'actions has shape \(6, 0\)'),
    'image': (lambda c: {**c, 'observations': np.zeros((6, 3, 8, 8))}, r'has shape \(6, 3, 8, 8\).*images'),
    'scalar': (lambda c: {**c, 'observations': np.zeros(6)}, r'observations has shape \(6,\)'),
    'wide reward': (lambda c: {**c, 'rewards': np.zeros((6, 2))}, r'rewards has shape \(6, 2\); it must be'),
    'number': (lambda c: {**c, 'rewards': np.float64(1)}, r'rewards has shape \(\); it must be'),
    'text': (lambda c: {**c, 'rewards': np.array([b'a'] * 6)}, r'rewards has dtype \|S1; it must be numbers'),
}


def spoil(column: np.ndarray, where, value) -> np.ndarray:
    column = column.copy()
    column[where] = value
    return column


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
@pytest.mark.parametrize('shape', [(6, ), (6, 1)])
@pytest.mark.parametrize('dtype', [np.int64, np.uint8, bool])
def test_integers_are_discrete_actions(tmp_path, suffix, shape, dtype):
    numbers = np.array([0, 1, 1, 0, 1, 0])
    actions = numbers.astype(dtype).reshape(shape)
    path = write(tmp_path / f'a{suffix}', {**d4rl_columns([(0, 0)] * 6), 'actions': actions})
    transitions = load_transitions(path)
    assert transitions.discrete and transitions.action.tolist() == [[each] for each in numbers[:-1]]
    assert load_transitions([path, path]).discrete and transitions.scale_actions() is transitions
    continuous = write(tmp_path / f'b{suffix}', {**d4rl_columns([(0, 0)] * 6), 'actions': np.zeros((6, 1), np.float32)})
    assert not load_transitions(continuous).discrete
    for paths in ([path, continuous], [continuous, path]):
        with pytest.raises(ValueError, match='the files of a dataset must be of one environment'):
            load_transitions(paths)
    with pytest.raises(ValueError, match="collect.action_scale is 'unit'; it must be None where actions are discrete"):
        transitions.scale_actions('unit')
    with pytest.raises(ValueError, match="corruption.columns has 'action', but .* has discrete actions"):
        corrupt(transitions, 'action')


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
@pytest.mark.parametrize('change, message', CHANGES.values(), ids=CHANGES)
def test_unusable_columns(tmp_path, suffix, change, message):
    refused(write(tmp_path / f'a{suffix}', change(d4rl_columns([(0, 0)] * 6))), message)


DING_CHANGES = {
    'shapes': (lambda c: {**c, 'next_obs': c['next_obs'][:, :5]}, r'next_obs \(7, 5\) differ in shape'),
    'lengths': (lambda c: {**c, 'next_obs': c['next_obs'][:5]}, "columns differ in length: .*'next_obs': 5"),
    'range': (lambda c: {**c, 'action': c['action'] * 9}, r'actions lie outside \[-1, 1\]'),
    'nan': (lambda c: {**c, 'next_obs': c['next_obs'] * np.nan}, 'next_obs holds NaN'),
    'nan flag': (lambda c: {**c, 'done': np.full(7, np.nan)}, 'done at row 0 is nan'),
    'negative': (lambda c: {**c, 'action': np.arange(7) - 6}, 'discrete, and that of row 0 is -6; they must be from'),
    'advantages that are too few': (lambda c: {**c, 'advantage': np.zeros(5)}, "differ in length: .*'advantage': 5"),
    'an advantage that is infinite': (
        lambda c: {**c, 'advantage': np.where(np.arange(7) == 4, np.inf, 1.0)},
        'advantage holds NaN or infinity, first at row 4: inf'
    ),
    'advantages of every action': (
        lambda c: {**c, 'advantage': np.zeros((7, 3))}, r'\(7, 3\); it must be \(transitions,\)'
    ),
    'advantages under two names': (
        lambda c: {**c, 'advantage': np.zeros(7), 'advantages': np.ones(7)},
        'has the columns advantages and advantage; it must have one of them'
    ),
    'advantages in words': (lambda c: {**c, 'advantage': np.full(7, b'good')}, 'advantage has dtype .* be numbers'),
}


@pytest.mark.parametrize('change, message', DING_CHANGES.values(), ids=DING_CHANGES)
def test_unusable_columns_in_ding_layout(tmp_path, change, message):
    refused(write(tmp_path / 'a.hdf5', change(ding_columns())), message)


def test_objects_in_an_archive(tmp_path):
    columns = d4rl_columns([(0, 0)] * 6)
    columns['actions'] = columns['actions'].astype(object)
    refused(write(tmp_path / 'a.npz', columns), 'actions is an array of Python objects, which is not read')


@pytest.mark.parametrize('beyond, accepted', [(5e-7, True), (1e-5, False)])
def test_actions_may_exceed_one_by_rounding_only(tmp_path, beyond, accepted):
    columns = d4rl_columns([(0, 0)] * 6)
    path = write(tmp_path / 'a.hdf5', {**columns, 'actions': spoil(columns['actions'], (0, 0), 1 + beyond)})
    if accepted:
        assert len(read_transitions(path)) == 5
    else:
        refused(path, r'outside \[-1, 1\]')


@pytest.mark.parametrize('content', ['hdf5', 'npz'])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, content):
    path = write(tmp_path / f'a.{content}', d4rl_columns([(0, 0)] * 5))
    path.chmod(0)
    command = [sys.executable, '-m', 'ding_cawr', 'data', 'info', path]
    command = [*without_roots_rights(), *command]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 1 and f'{path} may not be read: permission denied' in said.stderr
    assert 'damaged' not in said.stderr and said.stderr.count('\n') == 1
    path.chmod(0o600)
    tmp_path.chmod(0)  # nor a file in a folder that is shut
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    tmp_path.chmod(0o700)
    assert said.returncode == 1 and 'may not be read: permission denied' in said.stderr


def test_a_file_that_another_process_writes_to(tmp_path):
    path = write(tmp_path / 'a.hdf5', d4rl_columns([(0, 0)] * 5))
    code = f"import h5py; file = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with pytest.raises(OSError, match='is open for writing in a program, .*unable to lock.* Wait') as raised:
            read_transitions(path)
        writer.communicate(b'\n')
    assert str(raised.value).startswith(str(path)) and 'damaged' not in str(raised.value)
    assert len(read_transitions(path)) == 4


@pytest.mark.parametrize('name', ['Blosc', 'Zstd', 'LZ4'])
def test_filters_of_another_package(tmp_path, name):
    hdf5plugin, path = pytest.importorskip('hdf5plugin'), tmp_path / 'a.hdf5'
    with h5py.File(path, 'w') as file:
        for each, column in d4rl_columns([(0, 0)] * 5).items():
            file.create_dataset(each, data=column, **getattr(hdf5plugin, name)())
    code = 'import sys; from ding_cawr import load_transitions\n' \
        "if sys.argv[1] == 'without': sys.modules['hdf5plugin'] = None\n" \
        'try: print(len(load_transitions(sys.argv[2])))\nexcept ValueError as error: print(error)'
    assert python('-c', code, 'with', path).stdout.strip() == '4'
    said = python('-c', code, 'without', path, HDF5_PLUGIN_PATH='/nowhere').stdout
    assert f'{path}: observations is compressed with the filter' in said and '`pip install hdf5plugin`' in said
    assert name.lower() in said.lower() and 'damaged' not in said


@pytest.mark.parametrize('ending, message', [
    ('.hdf5.gz', r"ending is '\.gz'; .*; unpack it first"), ('.npy', 'pickles are not read.*numpy.savez'),
    ('.PT', r"ending is '\.pt'.*pickles"),
])
def test_kinds_of_file_that_are_not_read_say_what_to_do(tmp_path, ending, message):
    (tmp_path / f'a{ending}').write_bytes(b'x')
    refused(tmp_path / f'a{ending}', message)


def test_a_folder_in_place_of_a_file(tmp_path):
    refused(tmp_path, 'is a folder; it must be a file, .* Files in it: none')
    write(tmp_path / 'b.npz', d4rl_columns([(0, 0)] * 5))
    refused(tmp_path, 'Files in it: b.npz')


@pytest.mark.parametrize('name', ['A.HDF5', 'a.H5', 'a.NPZ', '2024-05-01T10:30:00.hdf5', 'mein Datensatz ü.hdf5'])
def test_names_of_files(tmp_path, name, monkeypatch):
    path = tmp_path / name
    write(tmp_path / f'plain.{name[-3:].lower().replace("df5", "hdf5")}', d4rl_columns([(0, 0)] * 5)).rename(path)
    monkeypatch.chdir(tmp_path)
    assert len(load_transitions(name)) == len(load_transitions(os.fsencode(name).decode())) == 4
    assert len(load_transitions(Path(name))) == 4


def test_attributes_of_any_type(tmp_path):
    path = write(tmp_path / 'a.hdf5', d4rl_columns([(0, 0)] * 5))
    with h5py.File(path, 'a') as file:
        file.attrs['env_id'] = 5
        file.attrs['reference'], file.attrs['region'] = file.ref, file['rewards'].regionref[:2]
        file.attrs['empty'], file.attrs['pair'] = h5py.Empty('f4'), np.array((1, 2.0), 'i4,f8')
        file.attrs.create('long', np.zeros(5000))
        file.attrs.create('lists', [np.ones(2), np.ones(3)], dtype=h5py.vlen_dtype(np.float64))
        file.attrs.create('latin', 'größer'.encode('latin-1'), dtype=h5py.string_dtype('utf-8'))
        file.attrs['bytes'], file.attrs['texts'] = np.bytes_('größer'.encode('latin-1')), ['a', 'b']
        file.attrs.create('complex', 1j)
        file.attrs['none'] = np.zeros(0)
    transitions = load_transitions(path, 'hopper-medium-v2')
    assert {key: value for key, value in transitions.attributes.items() if key != 'none'} == dict(
        env_id=5, latin='gr\ufffd\ufffder', bytes='gr\ufffd\ufffder'
    )
    told = cawr('data', 'info', path, PYTHONIOENCODING='utf-8')
    assert told.returncode == 0 and 'env id                          unknown' in told.stdout


# ---------------------------------------------------------------- data of another environment


def environment_file(folder: Path, task: str, terminal: bool = False) -> Path:
    widths = (11, 3) if task == 'hopper' else (17, 6)
    flags = [(0, 0)] * 8 + [(int(terminal), 0)] + [(0, 0)]
    return write(folder / f'{task}.hdf5', d4rl_columns(flags, *widths, height=HEIGHT[task]))


@pytest.mark.parametrize('task, env_id', [
    ('hopper', 'hopper-expert-v2'), ('hopper', 'Hopper-v4'), ('walker2d', 'walker2d-medium-v2'),
    ('halfcheetah', 'HalfCheetah-v4'), ('hopper', None), ('hopper', 'Pendulum-v1'),
])
def test_data_of_the_environment_are_accepted(tmp_path, task, env_id):
    assert len(read_transitions(environment_file(tmp_path, task), env_id)) == 9


@pytest.mark.parametrize('task, terminal, env_id, message', [
    ('hopper', False, 'walker2d-medium-v2', '11 wide and actions 3, but walker2d-medium-v2 has 17 and 6'),
    ('walker2d', False, 'Hopper-v4', 'observations are 17 wide .* Hopper-v4 has 11 and 3'),
    ('walker2d', False, 'halfcheetah-medium-v2', r'100% of the observations have a height .*\[-1.0, 0.75\]'),
    ('halfcheetah', True, 'halfcheetah-medium-v2', 'some rows are terminal, but halfcheetah-.* never'),
    ('halfcheetah', False, 'walker2d-medium-v2', r'100% of the observations have a height .*\[0.8, 2.0\]'),
])
def test_data_of_another_environment_are_refused(tmp_path, task, terminal, env_id, message):
    refused(environment_file(tmp_path, task, terminal), f'{message}.*another environment', env_id)


def test_a_file_that_names_its_environment_is_not_taken_for_another(tmp_path):
    path = environment_file(tmp_path, 'hopper')
    with h5py.File(path, 'a') as file:
        file.attrs['env_id'] = 'Walker2d-v4'
    with pytest.raises(ValueError, match="data of Walker2d-v4, which is another environment than env_id 'Hopper-v4'"):
        load_transitions(path, 'Hopper-v4')
    assert len(load_transitions(path)) == 9


def test_the_module_in_an_id_is_no_part_of_the_environment(tmp_path):
    path = environment_file(tmp_path, 'hopper')
    with h5py.File(path, 'a') as file:
        file.attrs['env_id'] = 'Hopper-v4'
    assert len(load_transitions(path, 'gymnasium.envs.mujoco:Hopper-v4')) == 9
    with pytest.raises(ValueError, match='data of Hopper-v4, which is another environment'):
        load_transitions(path, 'gymnasium.envs.mujoco:Walker2d-v4')


def test_ding_layout_of_another_environment_is_refused(tmp_path):
    path = write(tmp_path / 'a.npz', ding_columns(obs_shape=17, action_shape=6))
    refused(path, 'a height .* which halfcheetah-expert-v2 cannot have', 'halfcheetah-expert-v2')
    refused(path, 'another environment', 'hopper-expert-v2')


def test_file_named_for_another_environment_is_refused(tmp_path):
    path = environment_file(tmp_path, 'walker2d').rename(tmp_path / 'walker2d_medium_expert-v2.hdf5')
    assert len(load_transitions(path, 'walker2d-expert-v2')) == 9
    with pytest.raises(ValueError, match=r"named for walker2d-medium-expert-v2.*'halfcheetah-medium-v2'"):
        load_transitions(path, 'halfcheetah-medium-v2')


# ---------------------------------------------------------------- data_path


def test_data_path_of_a_file(make_d4rl_file, tmp_path, monkeypatch):
    path = make_d4rl_file(tmp_path / 'a.hdf5')
    assert len(load_transitions(path)) == len(load_transitions(str(path), 'hopper-medium-v2')) == 58
    monkeypatch.chdir(tmp_path)
    assert len(load_transitions('a.hdf5')) == 58
    monkeypatch.setenv('HOME', str(tmp_path))
    assert len(load_transitions('~/a.hdf5')) == 58


def test_data_path_none_takes_the_cached_d4rl_file(make_d4rl_file, tmp_path, monkeypatch):
    monkeypatch.setenv('D4RL_DATASET_DIR', str(tmp_path))
    make_d4rl_file(tmp_path / 'hopper_medium_replay-v2.hdf5')
    assert len(load_transitions(None, 'hopper-medium-replay-v2')) == 58


@pytest.mark.parametrize('env_id', [None, 'Hopper-v4', 'hopper-medium-v0', 'antmaze-umaze-v2'])
def test_data_path_none_needs_a_d4rl_id(env_id):
    with pytest.raises(ValueError, match=rf"env_id {env_id!r} names none; .* data_path .*antmaze.*'hopper-medium-v2'"):
        load_transitions(None, env_id)


@pytest.mark.parametrize('data_path, message', [
    ('bundle:hopper', "'bundle:hopper': unknown kind 'bundle'; it must be .*bundled:NAME.*did you mean 'bundled'"),
    ([], 'data_path is an empty list'),
    (5, 'data_path is 5; it must be None, a path, KIND:NAME, or a list'),
    ('hopper-medium-v2', "is 'hopper-medium-v2', the id of a D4RL dataset; leave data_path None and set env_id"),
    ('https://example.org/a.hdf5', "unknown kind 'https'"),
    ('bundled:no-such-set', "no bundled dataset 'no-such-set'; bundled are:"),
    ('bundled:', "no bundled dataset ''"),
])
def test_unknown_data_path(data_path, message):
    with pytest.raises(ValueError, match=message):
        load_transitions(data_path)


def test_bundled_set(make_d4rl_file, tmp_path, monkeypatch):
    monkeypatch.setattr('ding_cawr.data.bundled.FOLDER', tmp_path)
    make_d4rl_file(tmp_path / 'hopper-mine.hdf5')
    transitions = load_transitions('bundled:hopper-mine', 'hopper-medium-v2')
    assert (len(transitions), transitions.source) == (58, 'bundled:hopper-mine')
    with pytest.raises(ValueError, match="bundled are: hopper-mine; did you mean 'hopper-mine'"):
        load_transitions('bundled:hopper-min')


def test_several_files_are_one_dataset(make_d4rl_file, tmp_path):
    one = make_d4rl_file(tmp_path / 'one.hdf5', attributes=dict(env_id='Hopper-v4', seed=1))
    two = make_d4rl_file(tmp_path / 'two.hdf5', seed=1, attributes=dict(env_id='hopper-medium-v2', seed=1, more='x'))
    parts = [load_transitions(one), load_transitions(two)]
    joined = load_transitions((one, str(two)), 'hopper-medium-v2')
    np.testing.assert_array_equal(joined.rows, np.concatenate([part.rows for part in parts]))
    np.testing.assert_array_equal(joined.episode_returns, np.concatenate([part.episode_returns for part in parts]))
    assert joined.attributes == dict(seed=1) and joined.source == f'{one}, {two}'
    assert len(load_transitions(['bundled:hopper-medium-expert', one])) > 100_000
    rows = write(tmp_path / 'rows.npz', ding_columns())
    assert load_transitions([one, rows]).episode_returns is None


@pytest.mark.parametrize('suffix', ['.hdf5', '.npz'])
def test_advantages_stay_with_their_rows(tmp_path, suffix):
    flags = [(0, 0), (0, 1), (0, 0), (1, 0), (0, 0), (0, 0)]
    path = write(tmp_path / f'a{suffix}', {**d4rl_columns(flags), 'advantages': np.arange(6)[:, None]})
    transitions = load_transitions(path)
    np.testing.assert_array_equal(transitions.table.advantage, np.float32([0, 2, 3, 4]))  # no timeout, nor the last row
    changed = corrupt(transitions, ['action', 'reward'], rate=0.5).transform_rewards(2.0).normalize_observations()
    np.testing.assert_array_equal(changed.table.advantage, transitions.table.advantage)
    other = write(tmp_path / f'b{suffix}', {**ding_columns(), 'advantages': -np.arange(7.0)})  # either name will do
    joined = load_transitions([path, other])
    np.testing.assert_array_equal(joined.table.advantage, np.float32([0, 2, 3, 4, *-np.arange(7.0)]))
    assert load_transitions([path, write(tmp_path / f'c{suffix}', ding_columns())]).table.advantage is None


def test_files_that_do_not_belong_together(make_d4rl_file, tmp_path):
    one = make_d4rl_file(tmp_path / 'one.hdf5', attributes=dict(env_id='Hopper-v4'))
    wide = make_d4rl_file(tmp_path / 'wide.hdf5', obs_shape=17)
    other = make_d4rl_file(tmp_path / 'other.hdf5', attributes=dict(env_id='Mine-v0'))
    with pytest.raises(ValueError, match='wide.hdf5 has observations 17 and actions 3 wide, but .*one.hdf5 11 and 3'):
        load_transitions([one, wide])
    with pytest.raises(ValueError, match='other.hdf5 holds data of Mine-v0, but .*one.hdf5 of Hopper-v4'):
        load_transitions([one, other])
    with pytest.raises(FileNotFoundError, match='absent.hdf5 does not exist'):
        load_transitions([one, tmp_path / 'absent.hdf5'])


# ---------------------------------------------------------------- rewards, observations, memory


def test_iql_reward_scale_by_hand(tmp_path):
    """Returns 3 (terminal), 13 (timeout) and 8 (both): rewards are multiplied by 1000 / 10. The open end counts not."""
    flags = [(0, 0), (1, 0), (0, 0), (0, 0), (0, 1), (1, 1), (0, 0), (0, 0)]
    columns = {**d4rl_columns(flags), 'rewards': np.array([1, 2, 4, 4, 5, 8, 1000, 1000], np.float32)}
    transitions = read_transitions(write(tmp_path / 'a.hdf5', columns))
    np.testing.assert_array_equal(transitions.episode_returns, [3, 13, 8])
    scaled = transitions.scale_rewards()
    np.testing.assert_allclose(scaled.reward, [100, 200, 400, 400, 100_000], rtol=1e-6)
    np.testing.assert_array_equal(transitions.reward, [1, 2, 4, 4, 1000])
    np.testing.assert_array_equal(scaled.episode_returns, [3, 13, 8])
    for name in ('obs', 'action', 'next_obs', 'done'):
        np.testing.assert_array_equal(getattr(scaled, name), getattr(transitions, name))


def test_iql_reward_scale_needs_episodes_that_differ(tmp_path):
    with pytest.raises(ValueError, match="iql_locomotion' needs episode returns"):
        read_transitions(write(tmp_path / 'ding.hdf5', ding_columns())).scale_rewards()
    columns = d4rl_columns([(0, 0), (1, 0), (0, 0), (0, 0)])
    with pytest.raises(ValueError, match='the spread of its 1 whole episodes is 0; set env.reward_norm to None'):
        read_transitions(write(tmp_path / 'one.hdf5', columns)).scale_rewards()
    columns = d4rl_columns([(0, 0), (1, 0), (0, 0), (1, 0), (0, 0), (0, 0)])
    columns['rewards'] = np.array([0.1, 0.5, 0.3, 0.3, 0, 0], np.float32)  # sums that differ by their rounding
    transitions = read_transitions(write(tmp_path / 'equal.hdf5', columns))
    assert 0 < np.ptp(transitions.episode_returns) < 1e-7
    with pytest.raises(ValueError, match='the spread of its 2 whole episodes is .*e-08'):
        transitions.scale_rewards()
    columns = d4rl_columns([(0, 0)] * 4)
    with pytest.raises(ValueError, match='0 whole episodes'):
        read_transitions(write(tmp_path / 'none.hdf5', columns)).scale_rewards()


def test_episode_returns_are_exact_over_a_million_rows():
    """Sums of float32 rewards in float64: a running float32 sum would have lost the third decimal."""
    from ding_cawr.data.layouts import episode_returns
    rewards = np.full(1_000_000, 3.1, np.float32)
    ends = np.arange(1, 1_000_001) % 1000 == 0
    np.testing.assert_allclose(episode_returns(rewards, ends), 1000 * float(np.float32(3.1)), rtol=1e-9)


def test_normalized_observations(tmp_path):
    columns = d4rl_columns([(0, 0)] * 20 + [(0, 1)] + [(0, 0)] * 5)
    columns['observations'][:, 1] = 3.0  # a constant entry: eps keeps it finite
    raw = read_transitions(write(tmp_path / 'a.hdf5', columns))
    normalized = raw.normalize_observations()
    obs = raw.obs.astype(np.float64)
    mean, std = obs.mean(0), obs.std(0) + 1e-3
    np.testing.assert_allclose(normalized.obs_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normalized.obs_std, std, rtol=1e-5)
    np.testing.assert_allclose(normalized.obs, (obs - mean) / std, atol=1e-4)
    np.testing.assert_allclose(normalized.next_obs, (raw.next_obs - mean) / std, atol=1e-4)
    assert raw.obs_mean is None and raw.obs_std is None
    for name in ('action', 'reward', 'done'):
        np.testing.assert_array_equal(getattr(normalized, name), getattr(raw, name))
    assert normalized.obs_mean.dtype == normalized.obs_std.dtype == np.float32


@pytest.mark.parametrize('layout', ['d4rl', 'ding'])
def test_memory_is_that_of_the_columns(make_d4rl_file, tmp_path, layout):
    rows = 200_000
    if layout == 'd4rl':
        path = make_d4rl_file(tmp_path / 'a.hdf5', episodes=[(1000, 'timeout')] * (rows // 1000))
    else:
        path = write(tmp_path / 'a.hdf5', ding_columns(rows))
    gc.collect()
    tracemalloc.start()
    try:
        transitions = read_transitions(path)
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    own = len(transitions) * 4 * (11 + 3 + 1 + 1 + 11)
    assert own == transitions.rows.nbytes and transitions.rows.base is None
    assert all(getattr(transitions, name).base is transitions.rows for name in COLUMNS)
    assert own <= kept <= 1.1 * own  # nothing else stays
    assert peak <= 1.3 * own + path.stat().st_size


def transitions_with(actions, attributes=None, width: int = 2):
    from ding_cawr.data.table import fill_table
    from ding_cawr.data.transitions import Transitions
    actions = np.asarray(actions, np.float32)
    parts = dict(obs=np.zeros((len(actions), 3)), action=actions, reward=np.zeros(len(actions)),
                 next_obs=np.zeros((len(actions), 3)), done=np.zeros(len(actions)))
    table = fill_table(len(actions), 3, width, lambda chunk: {name: part[chunk] for name, part in parts.items()})
    return Transitions(table, None, 'a.hdf5', attributes or {})


UNIT, PENDULUM, VALVE = (np.float32([-1, -1]), np.float32([1, 1])), (-2 * np.ones(2), 2 * np.ones(2)), \
    (np.zeros(2), np.ones(2))


@pytest.mark.parametrize('actions, scale, bounds, attributes, expected, warning', [
    # Bounds of ±1, or unknown ones: there is nothing to decide.
    ([[0.5, -1]], None, UNIT, {}, [[0.5, -1]], None),
    ([[0.5, -1]], 'environment', UNIT, {}, [[0.5, -1]], None),
    ([[0.5, -1]], None, None, {}, [[0.5, -1]], None),
    # What fits the environment's bounds is read so, and else what fits [-1, 1]; both are said.
    ([[1.5, -2]], None, PENDULUM, {}, [[0.75, -1]], "as the environment takes them .*action_scale='environment'"),
    ([[0.5, -1]], None, PENDULUM, {}, [[0.25, -0.5]], "as the environment takes them .*action_scale='environment'"),
    ([[0.5, 1]], None, VALVE, {}, [[0, 1]], "as the environment takes them .*action_scale='environment'"),
    ([[0.5, -1]], None, VALVE, {}, [[0.5, -1]], r"as scaled to \[-1, 1\] .*action_scale='unit'"),
    # What the file says, and what the user says before that.
    ([[0.5, -1]], None, PENDULUM, dict(action_scale='unit'), [[0.5, -1]], None),
    ([[0.5, -1]], None, PENDULUM, dict(action_scale='environment'), [[0.25, -0.5]], None),
    ([[0.5, -1]], 'environment', PENDULUM, dict(action_scale='unit'), [[0.25, -0.5]], None),
    ([[0.5, -1]], 'unit', PENDULUM, {}, [[0.5, -1]], None),
    ([[0.5, -1]], None, PENDULUM, dict(action_scale=np.ones(3)), [[0.25, -0.5]], 'as the environment takes them'),
    # The lowest and the highest action: numbers, or one for each.
    ([[0, 10]], (0, 10), None, {}, [[-1, 1]], None),
    ([[0, 10]], [[-1, 0], [1, 20]], UNIT, {}, [[0, 0]], None),
    # Rounding is not outside.
    ([[2.0000005, -2]], 'environment', PENDULUM, {}, [[1, -1]], None),
])
def test_actions_are_read_as_the_file_the_bounds_or_the_user_say(
    recwarn, actions, scale, bounds, attributes, expected, warning
):
    read = transitions_with(actions, attributes).scale_actions(scale, bounds)
    np.testing.assert_allclose(read.action, np.float32(expected), atol=1e-7)
    told = [str(each.message) for each in recwarn.list]
    assert len(told) == (warning is not None) and all(re.search(warning, each) for each in told)


@pytest.mark.parametrize('actions, scale, bounds, message', [
    ([[0, 3]], None, PENDULUM, r'actions are in \[0. 3.\] .*takes \[-2. -2.\] to \[2. 2.\]; they must be within'),
    ([[0, 3]], None, UNIT, r'1 of 1 actions lie outside \[-1, 1\].*collect.action_scale'),
    ([[0, 1], [0, 3]], 'environment', PENDULUM, r'1 of 2 actions lie outside .* first at row 1: \[0. 3.\]'),
    ([[0, 3]], 'unit', PENDULUM, r'outside \[-1, 1\]'),
    ([[0, 3]], (-1, 2), PENDULUM, 'lie outside'),
    ([[0, 0]], 'environment', None, "action_scale is 'environment', but there is no environment"),
    ([[0, 0]], 'enviroment', PENDULUM, "must be None, 'unit', 'environment'.*did you mean 'environment'"),
    ([[0, 0]], (1, 0), UNIT, r'action_scale is \(1, 0\); it must be'),
    ([[0, 0]], (0, np.inf), UNIT, 'finite numbers, or lists of 2'),
    ([[0, 0]], ([0, 0, 0], [1, 1, 1]), UNIT, 'lists of 2'),
    ([[0, 0]], 3, UNIT, 'action_scale is 3; it must be'),
    ([[0, 0]], True, UNIT, 'action_scale is True; it must be'),
])
def test_actions_that_cannot_be_read_are_named(actions, scale, bounds, message):
    with pytest.raises(ValueError, match=message):
        transitions_with(actions).scale_actions(scale, bounds)


def test_a_list_of_paths_is_looked_at_entry_by_entry(make_d4rl_file, tmp_path):
    path = make_d4rl_file(tmp_path / 'a.hdf5')
    for entry in (None, '', [str(path)]):
        with pytest.raises(ValueError, match=re.escape(f'data_path has {entry!r} at place 1')):
            load_transitions([path, entry])
    with pytest.warns(UserWarning, match='names a file twice: its rows count twice'):
        assert len(load_transitions([path, str(path)])) == 2 * len(load_transitions(path))
    with pytest.raises(ValueError, match="data_path is ''"):
        load_transitions('')
    for call in (lambda: load_transitions(path, 5), lambda: make_config(5)):
        with pytest.raises(ValueError, match='env_id is 5; it must be'):
            call()

"""data/corruption.py: which rows, by how much, and where in the dataset's way."""
import re

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config
from ding.policy import create_policy
from ding.utils.data import create_dataset

from ding_cawr import load_transitions, make_config
from ding_cawr.data.corruption import CORRUPTIBLE, corrupt
from ding_cawr.data.table import COLUMNS
from ding_cawr.data.transitions import Transitions
from ding_cawr.engine.dataset import OfflineTransitions

ROWS = 3996  # of 4,000, 4 are timeouts


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_d4rl_file(
        tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(400, 'terminal'), (600, 'timeout')] * 4
    )


@pytest.fixture(scope='module')
def clean(data) -> Transitions:
    return load_transitions(data)


def compiled(data, policy_type='cawr_command', env=None, **collect):
    """The configuration of a run as the pipeline compiles it."""
    main_config, create_config = make_config(
        'Hopper-v4', data_path=str(data), batch_size=32, policy=dict(model=dict(hidden_sizes=(16, 16)))
    )
    main_config.env.update(env or {})
    main_config.policy.collect.update(collect)
    create_config.policy.type = policy_type
    return compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)


def make(data, corruption, **options) -> OfflineTransitions:
    return create_dataset(compiled(data, corruption=corruption, **options))


def wide(column: np.ndarray) -> np.ndarray:
    """A column as a matrix in float64."""
    return column.astype(np.float64).reshape(len(column), -1)


def changed(one: Transitions, other: Transitions, name: str) -> np.ndarray:
    """The rows (N,) of a column in which two datasets differ in any bit."""
    return (getattr(one, name) != getattr(other, name)).reshape(len(one), -1).any(1)


# ---------------------------------------------------------------- which rows


@pytest.mark.parametrize('name', CORRUPTIBLE)
@pytest.mark.parametrize('rate', [0.05, 0.3, 0.8])
def test_the_share_of_rows_is_that_of_independent_draws(clean, name, rate):
    rows = changed(clean, corrupt(clean, name, rate), name)
    assert abs(rows.sum() - ROWS * rate) < 5 * np.sqrt(ROWS * rate * (1 - rate))
    pairs = (rows[1:] & rows[:-1]).sum()  # neighbours know nothing of each other
    assert abs(pairs - ROWS * rate**2) < 6 * np.sqrt(ROWS * rate**2)


@pytest.mark.parametrize('name', CORRUPTIBLE)
def test_nothing_but_the_column_changes(clean, name):
    corrupted = corrupt(clean, name, rate=1.0)
    assert changed(clean, corrupted, name).all()
    for other in set(COLUMNS) - {name}:
        assert np.array_equal(getattr(corrupted, other), getattr(clean, other))
    assert corrupted.episode_returns is clean.episode_returns and corrupted.source == clean.source


@pytest.mark.parametrize('name', CORRUPTIBLE)
def test_a_column_is_corrupted_alike_whatever_the_others_are(clean, name):
    alone = getattr(corrupt(clean, name), name)
    for columns in (CORRUPTIBLE, CORRUPTIBLE[::-1], [name, name], (name, 'reward')):
        assert np.array_equal(getattr(corrupt(clean, columns), name), alone)


def test_every_column_has_draws_of_its_own(clean):
    corrupted = corrupt(clean, CORRUPTIBLE, rate=0.3)
    rows = {name: changed(clean, corrupted, name) for name in CORRUPTIBLE}
    for one, other in (('obs', 'next_obs'), ('action', 'reward'), ('reward', 'obs')):
        both = (rows[one] & rows[other]).sum()
        assert abs(both - ROWS * 0.09) < 5 * np.sqrt(ROWS * 0.09 * 0.91)


def test_the_seed_decides(clean):
    one, same, other = (corrupt(clean, CORRUPTIBLE, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.rows, same.rows)
    for name in CORRUPTIBLE:
        assert (changed(clean, one, name) != changed(clean, other, name)).mean() > 0.3  # 0.42 of independent draws


def test_numbers_of_numpy_and_whole_floats_are_those_of_python(clean):
    got = corrupt(clean, np.array(['reward']), rate=np.float64(0.5), scale=np.int64(2), seed=3.0)
    assert np.array_equal(got.reward, corrupt(clean, 'reward', rate=0.5, scale=2, seed=3).reward)


def test_global_generators_are_left_alone(clean):
    np.random.seed(0)  # noqa: NPY002
    before, state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    corrupt(clean, CORRUPTIBLE)
    assert (np.random.get_state()[1] == before).all() and torch.equal(torch.get_rng_state(), state)  # noqa: NPY002


def test_the_given_transitions_stay_as_they_are(data):
    clean = load_transitions(data)
    rows = clean.rows.copy()
    corrupted = corrupt(clean, CORRUPTIBLE, rate=1.0)
    assert np.array_equal(clean.rows, rows) and not np.shares_memory(corrupted.rows, clean.rows)


@pytest.mark.parametrize('nothing', [dict(rate=0), dict(rate=0.0, scale=5)])
def test_rate_0_gives_the_same_rows(clean, nothing):
    assert np.array_equal(corrupt(clean, CORRUPTIBLE, **nothing).rows, clean.rows)


def test_scale_0_moves_nothing_but_takes_rewards_away(clean):
    corrupted = corrupt(clean, CORRUPTIBLE, scale=0)
    assert not any(changed(clean, corrupted, name).any() for name in ('action', 'obs', 'next_obs'))
    rows = changed(clean, corrupted, 'reward')
    assert rows.any() and (corrupted.reward[rows] == 0).all()


# ---------------------------------------------------------------- by how much


def assert_uniform(draws: np.ndarray, scale: float) -> None:
    """Draws (n, D) lie in [-scale, scale], fill it evenly and are independent of each other in every dimension."""
    assert np.abs(draws).max() <= scale * (1 + 1e-4) and np.abs(draws).max() > 0.99 * scale
    n = len(draws)
    assert np.abs(draws.mean(0)).max() < 5 * scale / np.sqrt(3 * n)
    shares = ((draws[:, :, None] / scale) < np.linspace(-0.8, 0.8, 9)).mean(0)
    np.testing.assert_allclose(shares, np.broadcast_to(np.linspace(0.1, 0.9, 9), shares.shape), atol=2.5 / np.sqrt(n))
    if draws.shape[1] > 1:
        correlation = np.corrcoef(draws.T) - np.eye(draws.shape[1])
        assert np.abs(correlation).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize('scale', [1.0, 0.5, 2])
@pytest.mark.parametrize('name', ['action', 'obs', 'next_obs'])
def test_noise_is_uniform_in_standard_deviations_of_the_clean_column(clean, name, scale):
    corrupted = corrupt(clean, name, scale=scale, seed=1)
    rows, before, after = changed(clean, corrupted, name), wide(getattr(clean, name)), wide(getattr(corrupted, name))
    std = np.sqrt(((before - before.mean(0))**2).mean(0))  # of the whole column, in each dimension
    assert_uniform((after - before)[rows] / std, scale)


def test_noise_follows_each_dimensions_own_width(clean):
    clean = corrupt(clean, 'obs', rate=0)  # a copy
    clean.obs[:] *= np.logspace(-3, 3, 11, dtype=np.float32)
    corrupted = corrupt(clean, 'obs', rate=1.0)
    before = wide(clean.obs)
    ratio = (wide(corrupted.obs) - before).std(0) / before.std(0)
    np.testing.assert_allclose(ratio, np.sqrt(1 / 3), rtol=0.05)


def test_actions_are_not_clipped(clean):
    assert np.abs(clean.action).max() <= 1
    corrupted = corrupt(clean, 'action')
    assert 1.3 < np.abs(corrupted.action).max() < 1.6  # 1 + std, which is 0.58


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_rewards_are_replaced(clean, scale):
    corrupted = corrupt(clean, 'reward', scale=scale)
    rows = changed(clean, corrupted, 'reward')
    found, before = wide(corrupted.reward)[rows], wide(clean.reward)[rows]
    assert_uniform(found / 30, scale)
    assert abs(np.corrcoef(found[:, 0], before[:, 0])[0, 1]) < 5 / np.sqrt(len(found))  # nothing of them is left


@pytest.mark.parametrize('name', CORRUPTIBLE)
def test_values_are_the_formula_on_the_generators_numbers(clean, name):
    """Number for number, so that a published seed means the same rows later on."""
    generator = np.random.default_rng([5, ('action', 'reward', 'obs', 'next_obs').index(name)])
    rows = np.flatnonzero(generator.random(ROWS) < 0.2)
    expected = wide(getattr(clean, name))
    noise = generator.uniform(-1.5, 1.5, (len(rows), expected.shape[1]))
    expected[rows] = 30 * noise if name == 'reward' else expected[rows] + expected.std(0) * noise
    found = wide(getattr(corrupt(clean, name, rate=0.2, scale=1.5, seed=5), name))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


# ---------------------------------------------------------------- in the dataset


@pytest.mark.parametrize('policy_type', ['cawr_command', 'td3_bc_command'])
def test_the_configuration_corrupts_for_every_policy(data, clean, policy_type):
    options = dict(columns=['action', 'reward'], rate=0.4, scale=0.5, seed=2)
    dataset = make(data, options, policy_type=policy_type)
    expected = corrupt(clean, **options)
    assert np.array_equal(dataset.transitions.rows, expected.rows)
    assert np.array_equal(dataset.statistics.transitions.rows, expected.rows)
    defaults = make(data, dict(columns='obs'), policy_type=policy_type)
    assert np.array_equal(defaults.transitions.rows, corrupt(clean, 'obs', rate=0.3, scale=1.0, seed=0).rows)
    assert np.array_equal(make(data, None, policy_type=policy_type).transitions.rows, clean.rows)


def test_other_policies_get_corrupted_rows_from_the_loader(data, clean):
    dataset = make(data, dict(columns='reward'), policy_type='td3_bc_command')
    found = torch.stack([row['reward'] for row in dataset.__getitems__(list(range(ROWS)))]).numpy()
    assert np.array_equal(found, corrupt(clean, 'reward').reward)
    assert dataset[7]['reward'] == found[7]


def test_what_the_behaviour_reached_is_that_of_the_clean_data(data):
    found, expected = (make(data, entry).statistics for entry in (dict(columns='reward', rate=1.0), None))
    assert found.behaviour_return == expected.behaviour_return
    assert found.behaviour_score == expected.behaviour_score is not None


def test_rewards_are_corrupted_before_they_are_scaled(data, clean):
    found = make(data, dict(columns='reward'), env=dict(reward_norm='iql_locomotion')).transitions.reward
    factor = 1000 / np.ptp(clean.episode_returns)
    np.testing.assert_allclose(found, corrupt(clean, 'reward').reward * factor, rtol=1e-6)


def test_observations_are_corrupted_before_they_are_normalized(data, clean):
    dataset = make(data, dict(columns=['obs', 'next_obs'], scale=5), env=dict(norm_obs=dict(use_norm=True)))
    corrupted = corrupt(clean, ['obs', 'next_obs'], scale=5)
    assert np.array_equal(dataset.transitions.rows, corrupted.normalize_observations().rows)
    np.testing.assert_array_equal(dataset.std, corrupted.observation_moments()[1])
    assert (dataset.std > 1.3 * clean.obs.std(0)).all()


def test_the_seed_is_not_that_of_the_run(data, clean):
    cfg = compiled(data, corruption=dict(columns='action'))
    cfg.seed = 7
    assert np.array_equal(create_dataset(cfg).transitions.rows, corrupt(clean, 'action', seed=0).rows)


@pytest.mark.parametrize('entry, message', [
    ('action', "collect.corruption is 'action'; it must be None or a dict with columns, rate"),
    (dict(rate=0.3), "corruption.columns is None; it must be one or several of 'action'"),
    (dict(columns='action', rat=0.3), "no option 'rat'; it has columns, rate, scale, seed; did you mean 'rate'"),
    (dict(columns='actions'), "columns is 'actions'; it must be one of 'action', .*did you mean 'action'"),
    (dict(columns=['obs', 'nextobs']), "columns is 'nextobs'; .*did you mean 'next_obs'"),
    (dict(columns='done'), "columns is 'done'; it must be one of 'action', 'reward', 'obs', 'next_obs'"),
    (dict(columns=[1]), 'columns is 1; it must be one of'),
    (dict(columns=[]), "columns is .*; it must be one or several of 'action'"),
    (dict(columns=''), "columns is ''; it must be one of 'action', 'reward', 'obs', 'next_obs'"),
    (dict(columns=None), "columns is None; it must be one or several of 'action'"),
    (dict(columns='action', rate=1.1), r'rate is 1.1; it must be a number in \[0, 1\]'),
    (dict(columns='action', rate=-0.1), 'rate is -0.1'),
    (dict(columns='action', rate=float('nan')), 'rate is nan'),
    (dict(columns='action', rate='0.3'), "rate is '0.3'"),
    (dict(columns='action', rate=True), 'rate is True'),
    (dict(columns='action', scale=-1), r'scale is -1; it must be a number in \[0, 1e\+18\]'),
    (dict(columns='action', scale=float('inf')), 'scale is inf'),
    (dict(columns='action', scale=1e39), r'scale is 1e\+39; it must be'),
    (dict(columns='action', scale=None), 'scale is None'),
    (dict(columns='action', seed=-1), 'seed is -1; it must be a whole number of at least 0'),
    (dict(columns='action', seed=1.5), 'seed is 1.5'),
    (dict(columns='action', seed=False), 'seed is False'),
])
@pytest.mark.parametrize('policy_type', ['cawr_command', 'td3_bc_command'])
def test_wrong_entries_are_refused_before_anything_is_read(data, policy_type, entry, message):
    with pytest.raises(ValueError, match=message):
        make('nowhere.hdf5', entry, policy_type=policy_type)


def test_the_function_refuses_what_the_configuration_does(clean):
    with pytest.raises(ValueError, match='rate is 2'):
        corrupt(clean, 'action', rate=2)


@pytest.mark.parametrize('column, changes', [
    ('reward', 'collect.corruption, env.reward_norm'), ('obs', 'collect.corruption, env.reward_norm')
])
def test_rows_that_a_corruption_takes_out_of_range_are_named(data, column, changes):
    with pytest.raises(ValueError, match=f'{column} after {changes} holds numbers beyond .*, first at row'):
        make(data, dict(columns=column, scale=1e18), env=dict(reward_norm='iql_locomotion'))


@pytest.mark.parametrize('collect, message', [
    (dict(corruption=dict(columns='action')), "corruption.columns has 'action', but .* has discrete actions"),
    (dict(action_scale='unit'), "action_scale is 'unit'; it must be None where actions are discrete"),
])
def test_discrete_actions_that_a_file_has_as_floats_are_discrete(tmp_path, collect, message):
    path = write_d4rl_file(tmp_path / 'cartpole.hdf5', [(40, 'terminal')] * 2, 4, 1)
    with h5py.File(path, 'r+') as file:
        file['actions'][...] = np.arange(80)[:, None] % 2
    discrete = dict(model=dict(action_space='discrete', hidden_sizes=(16, )))
    for given in ({}, collect):
        main, create = make_config('CartPole-v1', 'awr', data_path=str(path), policy=dict(discrete, collect=given))
        cfg = compile_config(main, auto=True, create_cfg=create, save_cfg=False)
        if given:
            with pytest.raises(ValueError, match=message):
                create_dataset(cfg)
        else:
            assert create_dataset(cfg).transitions.discrete


@pytest.mark.parametrize('slip', ['corupption', 'corruptions', 'epoch_iteration'])
def test_misspelt_keys(data, slip):
    meant = 'epoch_iterations' if slip.startswith('epoch') else 'corruption'
    with pytest.raises(ValueError, match=re.escape(f'did you mean policy.collect.{meant}?')):
        create_dataset(compiled(data, **{slip: None}))


@pytest.mark.parametrize('key, value', [('corruption', dict(columns='action')), ('reward', dict(shift=-1))])
def test_a_dataset_that_would_stay_as_it_is_is_refused(data, key, value):
    cfg = compiled(data, data_type='naive', **{key: value})
    with pytest.raises(ValueError, match=f"collect.{key} would not reach the rows of data_type 'naive'"):
        create_policy(cfg.policy, enable_field=['learn'])


def test_a_policy_trains_on_corrupted_rows(data):
    cfg = compiled(data, corruption=dict(columns=list(CORRUPTIBLE), rate=0.5))
    dataset = create_dataset(cfg)
    policy = create_policy(cfg.policy, enable_field=['learn'])
    policy.set_statistic(dataset.statistics)
    for _ in range(5):
        policy.learn_mode.forward(torch.empty(0))
    assert all(tensor.isfinite().all() for tensor in policy.learn_mode.state_dict()['model'].values())

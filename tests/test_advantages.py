"""benchmarks/advantages.py: rollouts from stored states against gymnasium's own steps, and the file that it writes."""
from types import SimpleNamespace

import h5py
import mujoco.rollout
import numpy as np
import pytest
from helpers import benchmark

from ding_cawr.data.layouts import read_transitions
from ding_cawr.environments import make_environment

advantages = benchmark('advantages')
needs_rollouts = pytest.mark.skipif(not hasattr(mujoco.rollout, 'Rollout'), reason='mujoco is older than 3.2.7')
DISCOUNT, HORIZON = 0.9, 6
IDS = ('hopper-medium-v2', 'walker2d-medium-v2', 'halfcheetah-medium-v2')


@pytest.fixture(scope='module', params=[pytest.param(each, marks=needs_rollouts) for each in IDS])
def made(request, tmp_path_factory):
    """A small dataset of random actions, and a behaviour policy that has hardly any noise of its own."""
    folder, env_id = tmp_path_factory.mktemp('made'), request.param
    env, generator, rows = make_environment(env_id, max_episode_steps=30), np.random.default_rng(0), []
    for seed in range(4):
        obs, over = env.reset(seed=seed)[0], False
        while not over:
            action = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            following, reward, terminal, timeout, _ = env.step(action)
            rows.append((obs, action, reward, following, terminal, timeout))
            obs, over = following, terminal or timeout
    names = 'observations', 'actions', 'rewards', 'next_observations', 'terminals', 'timeouts'
    with h5py.File(folder / 'data.hdf5', 'w') as file:
        for name, column in zip(names, map(np.array, zip(*rows))):
            file[name] = column.astype(np.float32) if column.dtype == np.float64 else column
    widths = dict(zip(advantages.LAYERS, [(env.observation_space.shape[0], 8), (8, 8), *[(8, len(action))] * 2]))
    layers = {}
    for name, (i, o) in widths.items():
        scale = 0.0 if name == 'log_std' else 0.3
        layers[f'{name}.weight'] = (scale * generator.standard_normal((o, i))).astype(np.float32)
        layers[f'{name}.bias'] = np.full(o, -20.0 if name == 'log_std' else 0.1, np.float32)
    np.savez(folder / 'policy.npz', **layers)
    return SimpleNamespace(folder=folder, env_id=env_id, env=env.unwrapped, data=folder / 'data.hdf5')


def options(made, out, **more) -> list[str]:
    given = dict(env=made.env_id, policy=made.folder / 'policy.npz', out=out, rows=1000, rollouts=2, horizon=HORIZON,
                 discount=DISCOUNT, **more)
    return [str(made.data), *(word for key, value in given.items() for word in (f'--{key}', str(value)))]


def stepped(env, obs, behaviour, horizon: int, first=None) -> tuple[float, bool]:
    """The discounted return from an observation on, by the environment itself, and whether the episode ends."""
    env.reset()
    env.set_state(np.append(0.0, obs[:env.model.nq - 1]), obs[env.model.nq - 1:])
    total, nothing = 0.0, np.zeros((2, 1, env.action_space.shape[0]), np.float32)
    for step in range(horizon):
        action = behaviour(np.float32(obs)[None], nothing, np.zeros(1, np.float32))[0]
        obs, reward, terminal, _, _ = env.step(first if step == 0 and first is not None else action)
        total += DISCOUNT**step * reward
        if terminal:
            return total, True
    return total, False


def test_advantages_are_those_of_the_environments_own_steps(made, tmp_path, capsys):
    advantages.main(options(made, tmp_path / 'out.hdf5'))
    assert 'the simulator continues' in capsys.readouterr().out
    whole, found = read_transitions(made.data, made.env_id), read_transitions(tmp_path / 'out.hdf5', made.env_id)
    clip = 10 if made.env_id != IDS[2] else np.inf
    inside = (np.abs(whole.obs[:, -made.env.model.nv:]) < clip).all(axis=1)
    np.testing.assert_array_equal(found.rows, whole.rows[inside])
    assert found.attributes['discount'] == DISCOUNT and found.attributes['rows_at_clip'] == (~inside).sum()
    behaviour = advantages.read_behaviour(made.folder / 'policy.npz', found.obs_shape, found.action_shape)
    ended = []
    for obs, action, advantage in zip(found.obs, found.action, found.table.advantage):
        (own, ends), (without, _) = (stepped(made.env, obs, behaviour, HORIZON, first) for first in (action, None))
        assert advantage == pytest.approx(own - without, abs=2e-3)
        ended.append(ends)
    assert any(ended) == (made.env_id != IDS[2])  # halfcheetah's episodes never end
    with h5py.File(tmp_path / 'out.hdf5') as file:
        assert (file['advantage_error'][:] < 1e-3).all() and file['advantage'][:].std() > 0.01


def test_noise_is_paired_and_repeats_with_the_seed(made, tmp_path):
    found = []
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        advantages.main(options(made, tmp_path / f'{name}.hdf5', noise='0,0.3', seed=seed))
        with h5py.File(tmp_path / f'{name}.hdf5') as file:
            found.append(file['advantage'][:])
            assert (file['advantage_error'][:] > 0).any() and file.attrs['noise'] == '[0.0, 0.3]'
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    simulator, data = advantages.Simulator(made.env_id), read_transitions(made.data, made.env_id)
    behaviour = advantages.read_behaviour(made.folder / 'policy.npz', data.obs_shape, data.action_shape)
    strength, generator = np.full(6, 0.3, np.float32), np.random.default_rng(0)
    # A first action that is the behaviour's own makes two equal rollouts of a pair. It comes from another batch, whose
    # products round differently on some processors.
    normal = np.random.default_rng(0).standard_normal((2, 6, data.action_shape), dtype=np.float32)
    own = behaviour(data.obs[:6], normal, strength)
    returns, reached, steps = advantages.roll_out(
        simulator, behaviour, data.obs[:6], own, strength, 9, DISCOUNT, generator
    )
    np.testing.assert_allclose(returns[0], returns[1], rtol=1e-4)
    assert reached.shape == (2, 6) and (steps == 2 * 6 * 9) == reached.all() and steps >= 2 * 6 + 8 * reached.sum()
    assert reached.all() or made.env_id != IDS[2]


def test_rows_at_the_clip_are_left_out(made, tmp_path):
    """Of the environments that have one; a state cannot be restored from them."""
    data = tmp_path / 'clipped.hdf5'
    data.write_bytes(made.data.read_bytes())
    with h5py.File(data, 'a') as file:
        file['observations'][0, -1] = 10.0  # that of no row before it
    words = options(SimpleNamespace(**{**vars(made), 'data': data}), tmp_path / 'out.hdf5')
    if made.env_id == IDS[2]:
        with pytest.raises(SystemExit, match='2'):
            advantages.main(words)  # whose row does not continue so
        return
    advantages.main(words)
    found = read_transitions(tmp_path / 'out.hdf5', made.env_id)
    assert (np.abs(found.obs[:, -made.env.model.nv:]) < 10).all() and found.attributes['rows_at_clip'] > 0


@pytest.mark.parametrize('spoil', ['rewards', 'next_observations'])
def test_a_simulator_that_does_not_continue_the_rows_writes_nothing(made, tmp_path, capsys, spoil):
    data = tmp_path / 'other.hdf5'
    data.write_bytes(made.data.read_bytes())
    with h5py.File(data, 'a') as file:
        file['observations' if spoil == 'next_observations' else spoil][...] *= 1.01
        if spoil == 'next_observations':
            file['next_observations'][...] *= 1.01
    with pytest.raises(SystemExit, match='2'):
        advantages.main(options(SimpleNamespace(**{**vars(made), 'data': data}), tmp_path / 'out.hdf5'))
    assert 'the simulator does not continue row' in capsys.readouterr().err
    assert not (tmp_path / 'out.hdf5').exists()


def test_what_cannot_be_is_named(made, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        advantages.main([*options(made, tmp_path / 'out.hdf5'), '--rollouts', '1'])
    assert '--rollouts is 1; it must be 2 or more' in capsys.readouterr().err
    with pytest.raises(ValueError, match='--env is ant-medium-v2; it must be of Hopper-v4, Walker2d-v4, HalfChe'):
        advantages.Simulator('ant-medium-v2')
    with np.load(made.folder / 'policy.npz') as layers:
        np.savez(tmp_path / 'less.npz', **{name: layers[name] for name in layers.files if name != 'mu.bias'})
    with pytest.raises(ValueError, match='lacks mu.bias; it has latent_pi.0.weight'):
        advantages.read_behaviour(tmp_path / 'less.npz', 11, 3)

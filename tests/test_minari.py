"""Minari's datasets, written by the minari package over gymnasium's environments: data/minari.py."""
from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from helpers import cawr, python

from ding_cawr import load_transitions
from ding_cawr.data import minari as reader
from ding_cawr.data.hdf5 import opened

ENDS = {'Hopper-v5': ('terminated', 'terminated', 'stopped'), 'Pendulum-v1': ('truncated', 'stopped'),
        'CartPole-v1': ('terminated', 'stopped')}


def roll_out(env: gymnasium.Env, seed: int, end: str):
    """Return an episode in minari's own buffer; 'stopped' after 7 steps is what its collector marks as truncated."""
    from minari.data_collector import EpisodeBuffer
    env.action_space.seed(seed)
    obs, actions, rewards, ended = [env.reset(seed=seed)[0]], [], [], []
    while not ended or not any(ended[-1]):
        actions.append(env.action_space.sample())
        step = env.step(actions[-1])
        obs.append(step[0])
        rewards.append(float(step[1]))
        ended.append((step[2], step[3] or (end == 'stopped' and len(rewards) == 7)))
    terminations, truncations = map(list, zip(*ended))
    return EpisodeBuffer(observations=np.array(obs), actions=np.array(actions), rewards=rewards,
                         terminations=terminations, truncations=truncations, infos={'x': np.zeros(len(obs))})


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Minari's cache, with mine/hopper-v0 and mine/pendulum-v0."""
    minari = pytest.importorskip('minari', reason='pip install minari')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MINARI_DATASETS_PATH', str(tmp_path_factory.mktemp('minari')))
        for env_id, ends in ENDS.items():
            env = gymnasium.make(env_id)
            minari.create_dataset_from_buffers(
                f"mine/{env_id.split('-')[0].lower()}-v0", [roll_out(env, i, end) for i, end in enumerate(ends)],
                env=env, algorithm_name='größer',
            )
        return reader.folder()


@pytest.fixture
def sets(folder, monkeypatch) -> Path:
    monkeypatch.setenv('MINARI_DATASETS_PATH', str(folder))
    return folder


def episodes(name: str) -> list:
    """The episodes as minari reads them."""
    import minari
    return list(minari.load_dataset(name))


def test_transitions_are_those_that_minari_reads(sets):
    transitions, wanted = load_transitions('minari:mine/hopper-v0', 'Hopper-v5'), episodes('mine/hopper-v0')
    assert transitions.source == 'minari:mine/hopper-v0'
    for name, column in dict(
        obs=[each.observations[:-1] for each in wanted], next_obs=[each.observations[1:] for each in wanted],
        action=[each.actions for each in wanted], reward=[each.rewards for each in wanted],
        done=[each.terminations for each in wanted],
    ).items():
        np.testing.assert_array_equal(transitions.table.columns[name], np.concatenate(column).astype(np.float32))
    np.testing.assert_allclose(transitions.episode_returns, [each.rewards.sum() for each in wanted], rtol=1e-6)
    assert transitions.done.sum() == 2 and len(transitions.episode_returns) == 3
    assert {key: transitions.attributes[key] for key in ('env_id', 'dataset_id', 'algorithm_name')} == dict(
        env_id='Hopper-v5', dataset_id='mine/hopper-v0', algorithm_name='größer'
    )


def test_discrete_actions(sets):
    transitions, wanted = load_transitions('minari:mine/cartpole-v0', 'CartPole-v1'), episodes('mine/cartpole-v0')
    assert transitions.discrete and transitions.action.shape == (len(transitions), 1)
    np.testing.assert_array_equal(transitions.action[:, 0], np.concatenate([each.actions for each in wanted]))
    assert set(transitions.action[:, 0].tolist()) == {0, 1} and transitions.done.sum() == 1


def test_raw_actions_and_time_limits_are_handed_on(sets):
    path = reader.cached('mine/pendulum-v0')
    with opened(path) as file:
        columns, said = reader.read(file, path)
    wanted = episodes('mine/pendulum-v0')
    assert said['env_id'] == 'Pendulum-v1' and [len(each.rewards) for each in wanted] == [200, 7]
    rows = np.r_[0:200, 201:208]
    np.testing.assert_array_equal(columns['actions'][rows], np.concatenate([each.actions for each in wanted]))
    assert np.abs(columns['actions']).max() > 1.5 and not columns['terminals'].any()
    assert np.flatnonzero(columns['timeouts']).tolist() == [200, 208]


@pytest.mark.parametrize('place', ['mine/hopper-v0', 'mine/hopper-v0/data', 'mine/hopper-v0/data/main_data.hdf5'])
@pytest.mark.parametrize('form', ['{}', 'minari:{}'])
def test_the_folder_or_the_file_by_its_path(sets, place, form):
    if form.startswith('minari') and place.endswith('hdf5'):
        pytest.skip('a file is not a set')
    assert len(load_transitions(form.format(sets / place))) == len(load_transitions('minari:mine/hopper-v0'))


def test_data_of_another_environment(sets):
    with pytest.raises(ValueError, match="data of Hopper-v5, which is another environment than env_id 'Hopper-v4'"):
        load_transitions('minari:mine/hopper-v0', 'Hopper-v4')


def test_a_name_that_is_not_in_the_cache(sets):
    """Without the package, and offline with it."""
    code = "import sys; sys.modules['minari'] = None\n" \
        "from ding_cawr import load_transitions\n" \
        "try: load_transitions('minari:mine/hoper-v0')\nexcept ValueError as error: print(error)"
    said = python('-c', code).stdout
    assert f"no Minari dataset 'mine/hoper-v0' in {sets}" in said and "pip install 'minari[hf]'" in said
    assert "did you mean 'mine/hopper-v0'" in said
    with pytest.raises(ValueError, match='has no name; .* are: mine/cartpole-v0, mine/hopper-v0, mine/pendulum-v0'):
        load_transitions('minari:')


def test_the_command_knows_the_cache(sets):
    listed = json.loads(cawr('data', 'list', '--json').stdout)['minari']
    assert [each['name'] for each in listed] == [
        'minari:mine/cartpole-v0', 'minari:mine/hopper-v0', 'minari:mine/pendulum-v0']
    told = json.loads(cawr('data', 'info', 'minari:mine/hopper-v0', '--json').stdout)
    assert (told['env_id'], told['episodes'], told['obs_shape']) == ('Hopper-v5', 3, 11)
    assert '`minari download mine/absent-v0`' in cawr('data', 'info', 'minari:mine/absent-v0').stderr


# ---------------------------------------------------------------- sets that are not usable


def write(path: Path, change=lambda episode: None, space: dict | None = None, episodes: int = 2) -> Path:
    """Write a set of Minari's layout, each of whose episodes ``change`` changes."""
    with h5py.File(path, 'w') as file:
        for index in range(episodes):
            group = file.create_group(f'episode_{index}')
            group['observations'], group['actions'] = np.zeros((11, 4)), np.zeros((10, 2), np.float32)
            group['rewards'], group['terminations'] = np.ones(10), np.zeros(10, bool)
            group['truncations'] = np.arange(10) == 9
            change(group)
    if space is not None:
        (path.parent / 'metadata.json').write_text(json.dumps({'observation_space': json.dumps(space)}))
    return path


def changed(name: str, values):
    def change(group: h5py.Group) -> None:
        del group[name]
        if values is not None:
            group[name] = values
    return change


@pytest.mark.parametrize('change, space, message', [
    (changed('rewards', None), None, r"episode_0 has no \['rewards'\]; it must have"),
    (changed('rewards', np.ones(9)), None, "episode_0 has lengths .*'rewards': 9.* one more observation"),
    (changed('observations', np.zeros((10, 4))), None, 'episode_0 has lengths .* one more observation'),
    (changed('observations', np.zeros((11, 8, 8, 3), np.uint8)), None, 'episode_0/observations has shape .* images'),
    (lambda group: (changed('observations', None)(group), group.create_group('observations/goal')), None,
     'episode_0/observations is a group, which Dict and Tuple spaces have'),
    (changed('actions', np.zeros((10, 2), int)), None, 'episode_0/actions has dtype int64 and shape'),
    (changed('actions', h5py.ExternalLink('x.hdf5', '/a')), None, 'actions is a link'),
    (changed('terminations', np.full(10, 7)), None, 'terminals at row 0 is 7'),
    (lambda group: group.name == '/episode_1' and changed('actions', np.zeros((10, 3), np.float32))(group), None,
     r'episodes have observations and actions of different widths: \[\(4, 2\), \(4, 3\)\]'),
    (lambda group: None, dict(type='Dict', subspaces={}), 'its observation_space is Dict; it must be a Box'),
    (lambda group: None, dict(type='Discrete', n=3), 'its observation_space is Discrete; it must be a Box'),
    (lambda group: None, dict(type='Box', shape=[64, 64, 3]), r'is Box of shape \[64, 64, 3\]; it must be a Box'),
])
def test_unusable_sets(tmp_path, change, space, message):
    path = write(tmp_path / 'main_data.hdf5', change, space)
    with pytest.raises(ValueError, match=message) as raised:
        load_transitions(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize('content', [b'', b'{"env_spec": 5}', b'[1]', b'\xff\xfe{', b'{' * 10**5])
def test_metadata_that_says_nothing(tmp_path, content):
    path = write(tmp_path / 'main_data.hdf5')
    (tmp_path / 'metadata.json').write_bytes(content)
    transitions = load_transitions(tmp_path)
    assert len(transitions) == 20 and transitions.episode_returns.tolist() == [10, 10]
    assert 'env_id' not in transitions.attributes and transitions.source == str(path)


def test_episodes_in_the_order_of_their_numbers(tmp_path):
    path = tmp_path / 'a.hdf5'
    write(path, lambda group: changed('rewards', np.full(10, float(group.name[9:])))(group), episodes=12)
    assert load_transitions(path).reward[::10].tolist() == list(range(12))
    with h5py.File(path, 'w') as file:
        file.attrs['total_episodes'] = 0
    with pytest.raises(ValueError, match='the dataset is empty: it has 0 episodes'):
        load_transitions(path)

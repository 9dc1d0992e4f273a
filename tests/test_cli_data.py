"""``cawr data``: list, info, download."""
from __future__ import annotations

import hashlib
import json

import h5py
import numpy as np
import pytest
from helpers import click_runner

from ding_cawr import load_transitions
from ding_cawr.cli import cawr
from ding_cawr.compare.datasets import find_dataset
from ding_cawr.data import bundled, d4rl
from ding_cawr.tasks import D4RL_IDS

ENV_ID = 'hopper-medium-v2'
NAME = 'hopper_medium-v2.hdf5'


@pytest.fixture
def run(cache):
    """``run(*arguments) -> Result`` of the command ``cawr``, with an empty cache."""
    return lambda *arguments: click_runner().invoke(cawr, [str(argument) for argument in arguments])


@pytest.fixture
def run_json(run):
    """``run_json(*arguments)``: what a successful command writes with --json."""
    def call(*arguments):
        result = run(*arguments, '--json')
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


@pytest.fixture
def bundle(make_d4rl_file, tmp_path, monkeypatch):
    """One bundled set, ``bundled:small``, with attributes of several kinds."""
    monkeypatch.setattr(bundled, 'FOLDER', tmp_path)
    attributes = {
        'env_id': 'Hopper-v4', 'seed': 3, 'noise': 0.0003, 'policy': np.bytes_('sac'), 'sizes': np.array([2, 1])
    }
    return make_d4rl_file(tmp_path / 'small.hdf5', attributes=attributes)


def error(result) -> str:
    """The message of a failed command: one line, and nothing on stdout."""
    assert result.exit_code == 1 and result.stdout == ''
    assert result.stderr.startswith('Error: ') and result.stderr.count('\n') == 1
    return result.stderr


@pytest.mark.parametrize('command', [[], ['data'], ['data', 'list'], ['data', 'info'], ['data', 'download']])
def test_every_command_has_help(run, command):
    result = run(*command, '--help')
    assert result.exit_code == 0 and 'Usage: ' in result.stdout
    assert '--json' in result.stdout or command in ([], ['data'])


def test_list_tells_what_is_cached(run, run_json, make_d4rl_file, cache, bundle):
    cache.mkdir()
    make_d4rl_file(cache / NAME)
    listed = run_json('data', 'list')
    assert [item['name'] for item in listed['d4rl']] == list(D4RL_IDS)
    assert [item['name'] for item in listed['d4rl'] if item['cached']] == [ENV_ID]
    assert {item['name']: item['path'] for item in listed['d4rl']}[ENV_ID] == str(cache / NAME)
    assert listed['bundled'] == [{'name': 'bundled:small', 'path': str(bundle), 'bytes': bundle.stat().st_size}]
    lines = run('data', 'list').stdout.splitlines()
    assert len(lines) == len(D4RL_IDS) + 1
    assert [line.split()[:2] for line in lines if ENV_ID in line] == [[ENV_ID, 'cached']]


def test_info_of_a_cached_set(run_json, make_d4rl_file, cache):
    cache.mkdir()
    path = make_d4rl_file(cache / NAME, episodes=[(3, 'terminal'), (4, 'timeout'), (2, 'open')])
    with h5py.File(path, 'r+') as file:
        file['rewards'][:] = [1, 2, 3, 10, 20, 30, 40, 500, 600]
    told = run_json('data', 'info', ENV_ID)
    assert told['transitions'] == 7  # 9 rows without the timeout and the last
    assert (told['obs_shape'], told['action_shape'], told['episodes']) == (11, 3, 2)
    assert told['episode_return_mean'] == 53 and (told['episode_return_min'], told['episode_return_max']) == (6, 100)
    assert told['normalized_score_mean'] == pytest.approx(100 * (53 + 20.272305) / (3234.3 + 20.272305))
    assert told['sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (told['env_id'], told['path'], told['bytes']) == (ENV_ID, str(path), path.stat().st_size)


def test_info_takes_d4rl_ids_without_their_version(run_json, make_d4rl_file, cache):
    cache.mkdir()
    make_d4rl_file(cache / NAME)
    assert run_json('data', 'info', 'hopper-medium') == run_json('data', 'info', ENV_ID)


def test_info_of_a_bundled_set_tells_how_it_was_made(run, run_json, bundle):
    told = run_json('data', 'info', 'bundled:small')
    assert told['attributes'] == {'env_id': 'Hopper-v4', 'seed': 3, 'noise': 0.0003, 'policy': 'sac', 'sizes': [2, 1]}
    assert told['env_id'] == 'Hopper-v4' and told['normalized_score_mean'] is not None
    lines = {tuple(line.rsplit(maxsplit=1)) for line in run('data', 'info', 'bundled:small').stdout.splitlines()}
    assert {('attribute noise', '0.0003'), ('attribute policy', 'sac'), ('transitions', '58')} <= lines


def test_info_of_several_files(run, run_json, bundle, make_d4rl_file, tmp_path):
    other = make_d4rl_file(tmp_path / 'other.hdf5', seed=1, attributes={'env_id': 'Hopper-v4'})
    told = run_json('data', 'info', 'bundled:small', other)
    assert told['name'] == ['bundled:small', str(other)] and told['path'] == [str(bundle), str(other)]
    assert (told['transitions'], told['episodes'], told['env_id']) == (2 * 58, 4, 'Hopper-v4')
    assert told['bytes'] == bundle.stat().st_size + other.stat().st_size and len(told['sha256']) == 2
    lines = run('data', 'info', 'bundled:small', other).stdout.splitlines()
    assert f'{"path":32}{bundle}, {other}' in lines and run('data', 'info').exit_code == 2


def test_info_of_a_file_whose_episodes_are_unknown(run, run_json, tmp_path):
    rows = np.zeros((4, 1), np.float32)
    np.savez(tmp_path / 'own.npz', obs=rows, next_obs=rows, action=rows, reward=rows, done=rows)
    told = run_json('data', 'info', tmp_path / 'own.npz')
    assert told['transitions'] == 4 and told['attributes'] == {}
    assert all(told[key] is None for key in ('env_id', 'episodes', 'episode_return_mean', 'normalized_score_mean'))
    assert 'unknown' in run('data', 'info', tmp_path / 'own.npz').stdout


@pytest.mark.parametrize('name, attributes', [('hopper_medium-v2', {}), ('own', dict(env_id='Hopper-v4'))])
def test_all_ways_to_a_file_without_timeouts_read_it_by_its_environment(
    run_json, make_d4rl_file, tmp_path, name, attributes
):
    """D4RL's time limit ends its episodes."""
    path = make_d4rl_file(tmp_path / f'{name}.hdf5', episodes=[(1000, 'open')] * 11, attributes=attributes)
    with h5py.File(path, 'r+') as file:
        del file['timeouts']
    with pytest.warns(UserWarning, match='time limit of 1000 steps is taken'):
        told, compared = run_json('data', 'info', path), find_dataset(str(path))
        read = load_transitions(path, 'hopper-medium-v2')
    assert told['episodes'] == len(read.episode_returns) > 9 and told['advantages'] is False
    assert compared.choice.algorithm == told['auto']['algorithm'] == 'bc'
    assert compared.behaviour_score == pytest.approx(told['normalized_score_mean'])


def test_an_environment_with_arguments_is_not_the_one_that_it_is_named_for(run_json, make_d4rl_file, tmp_path):
    said = dict(env_id='Hopper-v4', env_kwargs='{"forward_reward_weight": 2.0}')
    path = make_d4rl_file(tmp_path / 'own.hdf5', obs_shape=12, attributes=said)
    told = run_json('data', 'info', path)
    assert told['env_id'] is None and told['normalized_score_mean'] is None and told['episodes'] == 2


def test_info_of_a_file_without_whole_episodes(run_json, make_d4rl_file, tmp_path):
    path = make_d4rl_file(tmp_path / 'open.hdf5', episodes=[(9, 'open')], attributes={'env_id': 'Hopper-v4'})
    told = run_json('data', 'info', path)
    assert told['episodes'] == 0 and told['episode_return_mean'] is None and told['normalized_score_mean'] is None


def test_info_of_an_environment_without_reference_returns(run_json, make_d4rl_file, tmp_path):
    path = make_d4rl_file(tmp_path / 'ant.hdf5', attributes={'env_id': 'Ant-v4'})
    told = run_json('data', 'info', path)
    assert told['env_id'] == 'Ant-v4' and told['episodes'] == 2 and told['normalized_score_mean'] is None


def test_info_never_downloads(run, cache, monkeypatch):
    monkeypatch.setattr(d4rl.requests, 'get', lambda *args, **kwargs: pytest.fail('a request was made'))
    message = error(run('data', 'info', ENV_ID))
    assert str(cache / NAME) in message and f'cawr data download {ENV_ID}' in message


@pytest.mark.parametrize('name, told', [
    ('hopper-medum-v2', "did you mean 'hopper-medium-v2'?"),
    ('bundled:smal', "did you mean 'small'?"),
    ('nowhere/file.hdf5', "'nowhere/file.hdf5' is neither a file nor a D4RL id nor bundled:NAME"),
])
def test_info_of_an_unknown_name(run, bundle, name, told):
    assert told in error(run('data', 'info', name))


def test_info_of_a_damaged_file(run, make_d4rl_file, tmp_path):
    path = make_d4rl_file(tmp_path / 'cut.hdf5')
    path.write_bytes(path.read_bytes()[:-1000])
    assert 'is not a complete HDF5 file' in error(run('data', 'info', path, '--json'))


def test_download_from_a_mirror(run, run_json, start_server, make_d4rl_file, tmp_path, cache):
    server = start_server()
    server.content = make_d4rl_file(tmp_path / 'served.hdf5').read_bytes()
    result = run('data', 'download', ENV_ID, 'walker2d-expert-v2', '--mirror', f'{server.url}/d4rl')
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f'{ENV_ID}: {cache / NAME}', f'walker2d-expert-v2: {cache / "walker2d_expert-v2.hdf5"}'
    ]
    assert (cache / NAME).read_bytes() == server.content
    assert [path for path, _ in server.requests] == [f'/d4rl/{NAME}', '/d4rl/walker2d_expert-v2.hdf5']
    again = run_json('data', 'download', ENV_ID, '--mirror', server.url)
    assert again == [{'name': ENV_ID, 'path': str(cache / NAME), 'already_cached': True}]
    assert len(server.requests) == 2


def test_download_checks_every_id_first(run, start_server):
    server = start_server()
    assert 'hopper-medum-v2' in error(run('data', 'download', ENV_ID, 'hopper-medum-v2', '--mirror', server.url))
    assert not server.requests


def test_a_download_that_fails_is_one_line(run, start_server):
    server = start_server()
    server.status = 404
    message = error(run('data', 'download', ENV_ID, '--mirror', server.url))
    assert f'{server.url}/{NAME}: the server answered 404 Not Found' in message


def test_a_cache_that_cannot_be_made_is_one_line(run, cache, start_server):
    cache.write_text('a file where the folder should be')
    assert str(cache) in error(run('data', 'download', ENV_ID, '--mirror', start_server().url))


def test_a_reader_that_has_gone_is_no_error(run, monkeypatch):
    def write_to_closed_pipe(name):
        raise BrokenPipeError(32, 'Broken pipe')

    monkeypatch.setattr(d4rl, 'cached', write_to_closed_pipe)
    assert 'Error' not in run('data', 'list').output

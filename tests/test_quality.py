"""What a dataset's episodes look like, the rule of algorithm='auto', and everything that follows it."""
from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_d4rl_file
from helpers import benchmark, cawr, click_runner, train_offline, write_config

from ding_cawr import make_config
from ding_cawr.choice import LEAST_SPREAD, MOST, NEAR, choose
from ding_cawr.cli import cawr as command
from ding_cawr.compare.datasets import find_dataset
from ding_cawr.compare.jobs import Job, make_jobs
from ding_cawr.compare.policies import Budget, find_policy
from ding_cawr.data import d4rl
from ding_cawr.data.load import load_transitions
from ding_cawr.data.quality import Quality, quality_of
from ding_cawr.score import normalized_score

BUNDLED = 'bundled:hopper-medium-expert'
HOPPER = dict(env_id='Hopper-v4')
ALIKE = [100, 98, 97, 95, 60] * 2


def write(path: Path, returns, attributes: dict | None = None, end: str = 'timeout') -> Path:
    """Write a file with an episode of 20 steps for each return."""
    write_d4rl_file(path, episodes=[(20, end)] * len(returns), attributes=attributes)
    with h5py.File(path, 'r+') as file:
        file['rewards'][:] = np.repeat(np.array(returns, np.float32) / 20, 20)
    return path


@pytest.fixture
def alike(tmp_path) -> Path:
    return write(tmp_path / 'alike.hdf5', ALIKE, HOPPER)


@pytest.fixture
def mixed(tmp_path) -> Path:
    return write(tmp_path / 'mixed.hdf5', [100, 98, 50, 20, 10] * 2, HOPPER)


@pytest.fixture
def unordered(tmp_path) -> Path:
    rows = np.full((9, 3), 0.5, np.float32)
    column = np.zeros(9, np.float32)
    np.savez(tmp_path / 'own.npz', obs=rows, next_obs=rows, action=rows, reward=column, done=column)
    return tmp_path / 'own.npz'


def quality(*values: float, unit: str = 'return') -> Quality:
    return Quality(np.array(values, float), np.array(values, float), unit, None)


def test_values_are_scores_where_the_environment_has_them(alike, tmp_path):
    found, returns = quality_of(load_transitions(alike)), np.array(ALIKE)
    assert found.unit == 'score' and found.values == pytest.approx(normalized_score('Hopper-v4', returns))
    nameless = load_transitions(write(tmp_path / 'nameless.hdf5', returns))
    assert quality_of(nameless).unit == 'return' and quality_of(nameless).values == pytest.approx(returns)
    assert quality_of(nameless, 'hopper-medium-v2').values == pytest.approx(found.values)
    assert quality_of(nameless, 'Hopper-v5').unit == 'return'


def test_statistics():
    found = quality(0, 10, 20, 30, 40)
    assert found.quantiles() == {
        '0%': 0, '10%': 4, '25%': 10, '50%': 20, '75%': 30, '90%': pytest.approx(36), '100%': 40
    }
    assert found.histogram(2) == [(0, 20, 2), (20, 40, 3)]
    assert found.near_best(0.25) == pytest.approx(2 / 5) and found.near_best(0) == pytest.approx(1 / 5)


@pytest.mark.parametrize('values, share', [
    ((-100, -105, -111), 2 / 3),  # within 10 of the best
    ((5, 5, 5), 1), ((0, 0, 0), 1), ((0, 0, 1), 1 / 3), ((1e20, 1e20, 1e20), 1),
    ((1e17, 1e17, 1e17 + 16), 1), ((1, 1, 1 + 3e-16), 1),
])
def test_near_the_best_whatever_the_sign(values, share):
    assert quality(*values).near_best(0.1) == pytest.approx(share)
    assert sum(count for _, _, count in quality(*values).histogram()) == 3


def test_terminations_are_those_of_paths(tmp_path):
    path = write_d4rl_file(tmp_path / 'a.hdf5', episodes=[(5, 'terminal'), (5, 'timeout'), (5, 'timeout'), (4, 'open')])
    assert quality_of(load_transitions(path)).terminations == 1 / 4
    assert quality_of(load_transitions([path, write(tmp_path / 'b.hdf5', [1] * 4, end='terminal')])).terminations == 0.5


def test_without_whole_episodes_there_is_no_quality(unordered, tmp_path):
    assert quality_of(load_transitions(unordered)) is None
    assert quality_of(load_transitions(write_d4rl_file(tmp_path / 'open.hdf5', episodes=[(9, 'open')]))) is None


def test_the_rule_at_its_numbers():
    best, near, far = 100.0, 100.0 * (1 - NEAR), 100.0 * (1 - NEAR) - 1
    most = round(MOST * 100)
    enough, fewer = (quality(best, *[near] * (most - 1 + extra), *[far] * (100 - most - extra)) for extra in (0, -1))
    assert enough.near_best(NEAR) == MOST and choose(enough).algorithm == 'bc'
    assert choose(fewer).algorithm == 'cawr' and f'{most - 1}.0% of the 100 episodes' in choose(fewer).reason
    for distance, taken in ((0.99 * LEAST_SPREAD, 'cawr'), (1.01 * LEAST_SPREAD, 'bc_best')):
        found = quality(*[100 * (1 - distance)] * 10, *[100 * (1 + distance)] * 10)
        assert found.spread == pytest.approx(distance)
        assert choose(found).algorithm == taken and f'{distance:.2f} of their mean' in choose(found).reason
    assert choose(quality(*[-5.0] * 10, *[5.0] * 10)).algorithm == 'bc_best'  # their mean is 0


@pytest.mark.parametrize('found', [None, quality(5), quality(*[5.0] * 9)])
def test_few_episodes_say_nothing(found):
    taken, reason = choose(found)
    assert taken == 'cawr' and 'fewer than 10' in reason and 'unknown' in reason


def test_the_choice_is_the_same_whether_the_environment_is_known_or_not():
    """By scores, which begin at the random policy's, 897 of 1,000 would be near the best, by returns it is not."""
    returns = np.array([1000.0, *[897.0] * 8, 0.0])
    known = Quality(returns, normalized_score('HalfCheetah-v4', returns), 'score', None)
    assert choose(known) == choose(quality(*returns)) and choose(known).algorithm == 'bc_best'


@pytest.mark.parametrize('named, taken', [('alike', 'bc'), ('mixed', 'bc_best'), ('unordered', 'cawr')])
def test_the_configuration_is_that_of_the_algorithm_named(request, caplog, named, taken):
    path = request.getfixturevalue(named)
    env_id = None if named == 'unordered' else 'Hopper-v4'
    forms = (dict(data_path=path), dict(policy=dict(collect=dict(data_path=path))), dict(data_path=[path]))
    for form in forms:
        caplog.clear()
        assert make_config(env_id, algorithm='auto', iterations=50, expectile=0.8, **form) == \
            make_config(env_id, algorithm=taken, iterations=50, expectile=0.8, **form)
        said = [record.getMessage() for record in caplog.records if record.name.startswith('ding_cawr')]
        assert len(said) == 1 and said[0].startswith(f"algorithm='auto' takes {taken} for {path}: ")


def test_d4rls_sets_are_read_from_the_cache(cache, caplog):
    cache.mkdir()
    write(cache / 'hopper_medium-v2.hdf5', ALIKE)
    assert make_config('hopper-medium-v2', 'auto') == make_config('hopper-medium-v2', 'bc')
    assert '80.0% of the 10 episodes have a return within 10% of the best, 100.0' in caplog.text


def test_a_set_that_cannot_be_read_is_an_error(cache, monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise d4rl.requests.ConnectionError('refused')

    monkeypatch.setattr(d4rl.requests, 'get', refuse)
    with pytest.raises(ConnectionError, match='hopper_medium-v2.hdf5'):
        make_config('hopper-medium-v2', 'auto')
    with pytest.raises(FileNotFoundError, match='nowhere.hdf5'):
        make_config('Hopper-v4', 'auto', data_path=tmp_path / 'nowhere.hdf5')
    for env_id in ('Hopper-v4', None):
        with pytest.raises(ValueError, match='give a data_path'):
            make_config(env_id, 'auto')


def test_discrete_actions_are_refused_with_what_takes_them(tmp_path):
    columns = dict(observations=np.zeros((9, 4), np.float32), actions=np.arange(9) % 2, rewards=np.ones(9, np.float32))
    np.savez(tmp_path / 'a.npz', **columns, terminals=np.arange(9) == 8, timeouts=np.zeros(9, bool))
    with pytest.raises(ValueError, match='a.npz has discrete actions, which the policy cawr does not take; take the p'):
        make_config('CartPole-v1', 'auto', data_path=tmp_path / 'a.npz')
    told = click_runner().invoke(command, ['data', 'info', str(tmp_path / 'a.npz')])
    assert told.exit_code == 0 and "algorithm='auto'                takes no discrete actions" in told.stdout


def test_unknown_algorithms_and_overrides_are_errors_as_before(mixed):
    with pytest.raises(ValueError, match="algorithm is 'aut'; .*'auto'; did you mean 'auto'"):
        make_config('Hopper-v4', 'aut', data_path=mixed)
    with pytest.raises(ValueError, match="no override 'temprature'"):  # before the dataset is looked for
        make_config('Hopper-v4', 'auto', data_path=mixed.parent / 'nowhere.hdf5', temprature=1.0)


def test_info_says_it(alike, unordered):
    def told(*arguments) -> str:
        result = click_runner().invoke(command, ['data', 'info', *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.stdout

    found = json.loads(told(alike, '--json'))
    values = normalized_score('Hopper-v4', np.array(ALIKE))
    numbers = found['quality']
    assert numbers['unit'] == 'score' and numbers['std'] == pytest.approx(values.std())
    assert numbers['quantiles']['50%'] == pytest.approx(values[2]) and numbers['near_best'] == 0.8
    assert numbers['terminations'] == 0 and found['auto']['algorithm'] == 'bc'
    bars = numbers['histogram']
    assert [bar['episodes'] for bar in bars] == [2, 0, 0, 0, 0, 0, 0, 0, 2, 6] and bars[-1]['to'] == values.max()
    lines = told(alike).splitlines()
    assert f'{"score 3.57 to 3.70":32}{"#" * 40} 6' in lines and f'{"score 2.47 to 2.59":32}{"#" * 13} 2' in lines
    assert len([line for line in lines if line.startswith('score ')]) == 10
    assert f'{"within 10% of the best return":32}80.0% of the episodes' in lines
    assert [line for line in lines if line.startswith("algorithm='auto'                bc: 80.0% of the 10 episodes")]
    unknown = json.loads(told(unordered, '--json'))
    assert unknown['quality'] is None and unknown['auto']['algorithm'] == 'cawr'


def test_a_file_named_for_a_d4rl_set_is_scored_as_that(tmp_path):
    path = write(tmp_path / 'hopper_medium-v2.hdf5', [100, 50])
    found = json.loads(click_runner().invoke(command, ['data', 'info', str(path), '--json']).stdout)
    assert found['env_id'] == 'hopper-medium-v2' and found['quality']['unit'] == 'score'
    write(path, [100, 50], dict(env_id='Hopper-v5'))  # what the file says of itself goes before its name
    found = json.loads(click_runner().invoke(command, ['data', 'info', str(path), '--json']).stdout)
    assert found['env_id'] == 'Hopper-v5' and found['quality']['unit'] == 'return'


def test_in_a_comparison_it_is_the_run_that_it_stands_for(alike, mixed):
    """Named beside that policy, it is not run twice."""
    policies, budget = [find_policy(name) for name in ('auto@ding_cawr', 'bc', 'bc_best')], Budget(20, 10, 1)
    sets = [find_dataset(str(path)) for path in (alike, mixed)]
    for replicas in (False, True):
        alone, beside, without = (
            {job.title: job for job in make_jobs(sets, chosen, [0, 1], budget, replicas=replicas)}
            for chosen in (policies[:1], policies, policies[1:])
        )
        assert beside.keys() == without.keys() and alone.keys() < beside.keys()
        assert {(Path(job.dataset.name).stem, job.policy.name) for job in alone.values()} == \
            {('alike', 'bc'), ('mixed', 'bc_best')}


def test_in_the_plan_of_evidence_it_is_a_run_that_is_there():
    evidence = benchmark('evidence')
    part = next(each for each in evidence.PLAN if each.name == 'f')
    dataset = find_dataset(BUNDLED)
    budget = Budget(part.iterations, part.eval_freq, part.episodes)
    auto = Job(dataset, find_policy('auto').on(dataset), (0, ), budget)
    planned = [evidence.key(job.about(0)) for job in part.jobs(evidence.described(BUNDLED), 0)]
    assert planned.count(evidence.key(auto.about(0))) == 1


def test_a_configuration_file_with_it_trains(alike, tmp_path):
    path = write_config(tmp_path / 'auto.py', (
        'from ding_cawr import make_config\n'
        f'main_config, create_config = make_config(None, "auto", data_path={str(alike)!r}, iterations=4,\n'
        '    exp_name="run", policy=dict(model=dict(hidden_sizes=(8, ))))\n'
    ))
    result = train_offline(path, cwd=tmp_path)
    assert (result.stdout + result.stderr).count("algorithm='auto' takes bc for") == 1
    assert (tmp_path / 'run' / 'ckpt' / 'iteration_4.pth.tar').is_file()


def test_a_comparison_with_it_says_what_it_took(alike, mixed, tmp_path):
    result = cawr(
        'compare', '--data', f'{alike},{mixed}', '--policies', 'auto', '--seeds', '0', '--iterations', '2',
        '--eval-freq', '2', '--episodes', '1', '--jobs', '1', '--threads', '1', '--out', 'out', cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    for path, taken in ((alike, 'bc'), (mixed, 'bc_best')):
        assert f'auto on {path} is {taken}: ' in result.stderr
    lines = map(json.loads, (tmp_path / 'out' / 'results.jsonl').read_text().splitlines())
    assert {(line['dataset'], line['policy']) for line in lines} == {(str(alike), 'bc'), (str(mixed), 'bc_best')}

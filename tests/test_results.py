"""The file of results: what is appended comes back, broken lines are counted, runs are told apart."""
import json
import math

import pytest

from ding_cawr.compare.results import OF_RUN, append, condensed, identity, read, scores
from ding_cawr.compare.statistics import PROTOCOLS


def lines(seed: int = 0, at=(10, 20), run: str = 'a', **changes) -> list[dict]:
    """A run's lines."""
    about = {
        **dict.fromkeys(OF_RUN), 'dataset': 'bundled:x', 'dataset_sha256': 'abc', 'policy': 'cawr', 'seed': seed,
        'settings': {'learn': {'batch_size': 8}}, 'iterations': 20, 'eval_freq': 10, 'episodes': 2, **changes
    }
    return [
        {'kind': 'evaluation', **about, 'run': run, 'iteration': iteration, 'returns': [1.0, 3.0],
         'scores': [10.0, 20.0 + iteration], 'seconds': 0.5, 'evaluation_seconds': 0.1, 'iterations_per_second': 20.0,
         'time': '2026-01-01T00:00:00+00:00'}
        for iteration in at
    ]


def failure(seed: int = 0, error: str = 'ValueError: no') -> dict:
    line = lines(seed)[0]
    return {**line, 'kind': 'failure', 'error': error, 'log': 'log.txt'}


def seeds(found) -> list[int]:
    """Of each finished run."""
    return list(found.finished.drop_duplicates('run').seed)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'results.jsonl'


def test_what_is_appended_comes_back(path):
    append(path, lines())
    append(path, lines(seed=1, run='b'))
    found = read(path)
    assert seeds(found) == [0, 1] and not len(found.unfinished) and not found.failures
    of_first = found.finished[found.finished.seed == 0]
    first = of_first.iloc[0]
    assert first.policy == 'cawr' and first.settings == {'learn': {'batch_size': 8}} and first.file == path
    assert list(zip(of_first.iteration, of_first['mean'])) == [(10, 20.0), (20, 25.0)]
    assert identity(first) == first.identity == identity(lines()[0])


def test_without_scores_the_mean_is_of_returns(path):
    append(path, [{**line, 'scores': None} for line in lines()])
    assert set(read(path).finished['mean']) == {2.0}


def test_files_are_read_together(path, tmp_path):
    append(path, lines())
    append(tmp_path / 'other.jsonl', lines(seed=1, run='b'))
    assert len(seeds(read([path, tmp_path / 'other.jsonl']))) == 2


def test_a_line_that_was_cut_short_is_counted_and_spoils_no_other(path):
    append(path, lines())
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(lines(seed=1, run='b')[0]).encode()[:50])
    assert read(path).skipped == [f'{path}, line 3']
    append(path, lines(seed=1, run='c'))
    found = read(path)
    assert found.skipped == [f'{path}, line 3'] and seeds(found) == [0, 1]
    assert path.read_bytes().startswith(whole)


def as_line(**changes) -> str:
    return json.dumps({**lines(run='c')[0], **changes})


@pytest.mark.parametrize('text', [
    '[1, 2]', '{}', '{"kind": "evaluation"}', '{"kind": "other"}', 'nonsense', '\x00\xff', '[' * 10**5,
    as_line(returns='3'), as_line(returns=[]), as_line(returns=['a', 1]), as_line(returns=[10**400, 1]),
    as_line(scores=[1.0]), as_line(iteration=None), as_line(seed='0'), as_line(settings=[]), as_line(run={}),
    as_line(settings={'learn': 3}), as_line(corruption={'rate': 0.3}), as_line(machine='mine'), as_line(seconds='1'),
])
def test_lines_that_are_not_ours_are_counted(path, text):
    append(path, lines())
    path.write_text(text + '\n\n' + path.read_text())
    assert read(path).skipped == [f'{path}, line 1'] and len(seeds(read(path))) == 1


def test_a_run_that_was_cut_short_is_unfinished_until_another_attempt_ends(path):
    append(path, lines(at=[10], run='first'))
    assert list(read(path).unfinished.seed) == [0] and not seeds(read(path))
    append(path, lines(run='second'))
    append(path, [{**line, 'scores': [0.0, 0.0]} for line in lines(run='third')])
    found = read(path)
    assert len(seeds(found)) == 1 and not len(found.unfinished) and found.finished['mean'].iloc[0] == 20.0


@pytest.mark.parametrize('change', [
    dict(settings={'learn': {'batch_size': 9}}), dict(dataset_sha256='abd'),
    dict(corruption=dict(columns='action', rate=0.3, scale=1.0, seed=0)),
    dict(policy='iql'), dict(iterations=10), dict(eval_freq=5), dict(episodes=3),
])
def test_what_makes_a_run_another_run(path, change):
    append(path, lines() + lines(run='b', **change))
    assert len(seeds(read(path))) == 2


def test_failures_are_the_latest_and_gone_when_made_good(path):
    append(path, [failure(), failure(seed=1), failure(error='KeyError: yes')])
    latest = [(each['seed'], each['error']) for each in read(path).failures]
    assert latest == [(0, 'KeyError: yes'), (1, 'ValueError: no')]
    append(path, lines())
    assert [each['seed'] for each in read(path).failures] == [1]


def test_a_missing_file_is_an_error(path):
    with pytest.raises(FileNotFoundError):
        read(path)


def test_a_run_in_one_line_is_the_run(path, tmp_path):
    about = dict(env_id='Hopper-v4')
    whole = [{**line, 'scores': scores('Hopper-v4', line['returns'], line['settings'])} for line in lines(**about)]
    append(path, whole)
    append(tmp_path / 'condensed.jsonl', [condensed(whole)])
    wanted, got = read(path).finished, read(tmp_path / 'condensed.jsonl').finished
    columns = ['identity', 'run', 'iteration', 'returns', 'scores', 'seconds', 'mean', 'settings']
    assert got[columns].to_dict('records') == wanted[columns].to_dict('records')
    assert len(got) == 2 and got.scores[0] != [1.0, 3.0]
    assert read([path, tmp_path / 'condensed.jsonl']).finished.run.nunique() == 1
    broken = condensed(whole)
    del broken['evaluations']['seconds']
    append(path, [broken])
    assert read(path).skipped == [f'{path}, line 3']


def test_environments_without_reference_returns_have_no_scores():
    assert scores('Pendulum-v1', [1.0], {}) is None


@pytest.mark.parametrize('env', [dict(kwargs=dict(forward_reward_weight=2.0)), dict(max_episode_steps=100)])
def test_runs_in_an_environment_that_was_changed_have_no_scores(path, env):
    append(path, [condensed(lines(env_id='Hopper-v4', settings=dict(learn={}, env=env)))])
    assert read(path).finished.scores.tolist() == [None, None]


def test_what_is_not_finite_is_null_in_the_file_and_never_the_best(path):
    run = lines(settings={'learn': {'max_weight': math.inf}})
    run[1]['scores'][0] = math.nan
    append(path, run)
    assert 'NaN' not in path.read_text() and 'Infinity' not in path.read_text()
    found = read(path)
    assert found.finished.identity[0] == identity(run[0])  # so that the run is not run again
    means = list(found.finished['mean'])
    assert means[0] == 20.0 and math.isnan(means[1]) and PROTOCOLS['best so far'](means) == 20.0


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_files_that_went_through_a_shell_of_windows(path, encoding):
    append(path, lines())
    path.write_bytes(path.read_text().replace('\n', '\r\n').encode(encoding))
    assert seeds(read(path)) == [0] and not read(path).skipped

"""What a run shows: lines, scores, totals."""
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from ding_cawr.engine.follower import RunMonitor
from ding_cawr.engine.host import tell_limit
from ding_cawr.runs.progress import Display, Evaluations
from ding_cawr.runs.summary import describe, write_summary


def recorded(*scores, unit='normalized_score_mean') -> Evaluations:
    evaluations = Evaluations()
    for i, score in enumerate(scores):
        evaluations.record('evaluator_iter/reward_mean', score * 30, 100 * (i + 1))
        if unit:
            evaluations.record(f'evaluator_iter/{unit}', score, 100 * (i + 1))
        evaluations.record('evaluator_iter/reward_std', 5.0, 100 * (i + 1))
    return evaluations


def test_scores_replace_returns():
    evaluations = recorded(10, 50, 20, 30)
    assert (evaluations.unit, evaluations.values, evaluations.iterations) == (
        'normalized score', [10, 50, 20, 30], [100, 200, 300, 400]
    )
    assert (evaluations.last, evaluations.best, evaluations.mean_last_three) == (30, 50, pytest.approx(100 / 3))


def test_returns_where_there_is_no_score():
    evaluations = recorded(10, unit='')
    assert (evaluations.unit, evaluations.values) == ('return', [300])


def test_an_evaluation_that_is_not_finite_is_never_the_best_and_not_in_json(tmp_path):
    evaluations = recorded(math.nan, 20, math.nan, 10, unit='')
    assert evaluations.best == 600 and recorded(math.nan, math.inf, unit='').best is None
    told = write_summary(tmp_path, evaluations, None, 10, 400, 1.0)
    written = json.loads((tmp_path / 'summary.json').read_text(), parse_constant=pytest.fail)
    assert written == told and told['evaluations'] == [None, 600, None, 300]
    assert (told['last'], told['best'], told['mean_last_three']) == (300, 600, None)
    text = describe(told, tmp_path)
    assert 'last 300.0' in text and 'last three evaluations none' in text and 'best so far 600.0' in text
    assert 'not finite, as warnings above have told, at iteration 100, 300' in text
    nothing = write_summary(tmp_path, recorded(math.nan, unit=''), None, 10, 100, 1.0)
    assert nothing['best'] is nothing['checkpoint_best'] is None and 'best so far: none' in describe(nothing, tmp_path)


def test_lines_tell_speed_time_left_and_scores(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.perf_counter', lambda: now[0])
    monkeypatch.setattr('rich.console.monotonic', lambda: now[0])
    display = Display(total=1000)
    for iteration in range(1, 301):
        now[0] += 0.1
        display.show(iteration, recorded(12.34, 8.0) if iteration > 100 else Evaluations())
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 7
    assert lines[0] == 'iteration 1/1000 | no evaluation yet'
    assert lines[-1].startswith('iteration ') and '| 10.0 it/s | 1:' in lines[-1]
    assert lines[-1].endswith('left | normalized score last 8.0 best 12.3')


class Learner:
    """A learner that only counts."""
    train_iter = 0


def test_the_pipelines_limit_is_told_at_its_first_comparison_alone():
    learner, told = Learner(), []
    learner.__class__.train_iter = property(lambda self: 5)
    tell_limit(learner, told.append)
    assert learner.train_iter == 5 and not told
    assert not learner.train_iter >= 7 and told == [7]
    assert learner.train_iter >= 3 and learner.train_iter >= 5 and told == [7]
    assert not learner.train_iter >= None  # no limit
    assert f'{learner.train_iter}' == '5' and type(learner.train_iter + 1) is int


@pytest.mark.parametrize('epochs, asked, start, total', [
    (400, 250, 0, 250), (400, int(1e8), 0, 400), (400, 1000, 0, 400), (400, None, 0, 400),
    (400, np.int64(250), 0, 250), (400, 2.5e2, 0, 250), (400, float('inf'), 0, 400),
    (None, 250, 0, 250), (None, 1e10, 0, None), (400, 3, 10, 11),
])
def test_total_is_the_smaller_of_config_and_what_the_pipeline_was_told(epochs, asked, start, total):
    """A learner that continues does one iteration before it looks whether it is at its end."""
    shown, monitor = [], RunMonitor(name='monitor', priority=30, position='before_run')
    monitor._start, monitor._first = start, 1
    monitor._follower = SimpleNamespace(
        total=epochs, evaluations=Evaluations(), display=SimpleNamespace(set_total=shown.append)
    )
    monitor._take_limit(asked)
    assert monitor._follower.total == total and shown == ([] if asked is None or asked >= 1e8 else [total])
    assert total is None or type(total) is int


def test_a_limit_beyond_the_end_is_warned_of():
    monitor = RunMonitor(name='monitor', priority=30, position='before_run')
    monitor._start, monitor._first = 0, 1
    display = SimpleNamespace(set_total=lambda total: None)
    monitor._follower = SimpleNamespace(total=400, evaluations=Evaluations(), display=display)
    with pytest.warns(UserWarning, match='max_train_iter .* is 500, but the run ends at iteration 400'):
        monitor._take_limit(500)
    assert monitor._follower.total == 400


@pytest.mark.parametrize('asked', [0, -1, 2.5, '250'])
def test_a_limit_that_is_no_number_of_iterations_is_named(asked):
    monitor = RunMonitor(name='monitor', priority=30, position='before_run')
    monitor._follower, monitor._start = SimpleNamespace(total=400), 0
    with pytest.raises(ValueError, match=f'max_train_iter .* is {asked!r}; it must be a positive whole number'):
        monitor._take_limit(asked)


def test_a_run_that_ends_before_its_first_evaluation_says_so(capsys):
    monitor = RunMonitor(name='monitor', priority=30, position='before_run')
    monitor._start, monitor._first = 0, 300
    display = SimpleNamespace(set_total=lambda total: None)
    monitor._follower = SimpleNamespace(total=400, evaluations=Evaluations(), display=display)
    monitor._take_limit(300)
    assert capsys.readouterr().out == ''
    monitor._take_limit(250)
    assert 'ends at iteration 250, before the first evaluation, which comes at 300' in capsys.readouterr().out

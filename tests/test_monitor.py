"""What a run shows: lines, scores, totals."""
import json
import math

import numpy as np
import pytest

from ding_cawr.engine.follower import end_of_run
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


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time that a display sees."""
    now = [0.0]
    monkeypatch.setattr('time.perf_counter', lambda: now[0])
    monkeypatch.setattr('rich.console.monotonic', lambda: now[0])
    return now


def test_speed_and_time_left_stay_what_they_are_after_an_evaluation(capsys, now):
    display = Display(total=10_000)
    for iteration in range(1, 2001):
        now[0] += 0.1 + 7 * (iteration % 500 == 0)
        display.show(iteration, recorded(1.0))
    lines = [line.split(' | ') for line in capsys.readouterr().out.splitlines()][2:]
    assert len(lines) > 30
    for iteration, pace, left, _ in lines:
        rest = 10_000 - int(iteration.split()[1].split('/')[0])
        assert 8 <= float(pace.split()[0]) <= 10
        minutes, seconds = left.split()[0].split(':')
        assert rest / 10 - 2 <= int(minutes) * 60 + int(seconds) <= rest / 8


def test_lines_tell_speed_time_left_and_scores(capsys, now):
    display = Display(total=1000)
    for iteration in range(1, 301):
        now[0] += 0.1
        display.show(iteration, recorded(12.34, 8.0) if iteration > 100 else Evaluations())
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 7
    assert lines[0] == 'iteration 1/1000 | no evaluation yet'
    assert lines[-1].startswith('iteration ') and '| 10.0 it/s | 1:' in lines[-1]
    assert lines[-1].endswith('left | normalized score last 8.0 best 12.3')


@pytest.mark.parametrize('epoch, epochs, asked, start, total', [
    (1, 400, 250, 0, 250), (1, 400, int(1e8), 0, 400), (1, 400, 1000, 0, 400), (1, 400, None, 0, 400),
    (1, 400, np.int64(250), 0, 250), (1, 400, 2.5e2, 0, 250), (1, 400, float('inf'), 0, 400),
    (None, 400, 250, 0, 250), (None, 400, 1e10, 0, None),  # online
    (1, 400, 3, 10, 11),  # what is continued does an epoch before the pipeline looks at its limit
    (118, 400, 600, 0, 708), (118, 400, 590, 0, 590), (118, 3, 1e10, 5, 359),
    (3, 400, 13, 10, 13), (3, 400, 14, 10, 16),
])
@pytest.mark.filterwarnings('ignore:max_train_iter')
def test_a_run_ends_after_the_epoch_in_which_it_comes_to_the_smaller_limit(epoch, epochs, asked, start, total):
    found = end_of_run(start, epoch, epochs, asked)
    assert found == total and type(found) in (int, type(None))


def test_a_limit_beyond_the_end_is_warned_of():
    with pytest.warns(UserWarning, match='max_train_iter .* is 500, but the run ends at iteration 400'):
        assert end_of_run(0, 1, 400, 500) == 400


@pytest.mark.parametrize('asked', [0, -1, 2.5, '250'])
def test_a_limit_that_is_no_number_of_iterations_is_named(asked):
    with pytest.raises(ValueError, match=f'max_train_iter .* is {asked!r}; it must be a positive whole number'):
        end_of_run(0, 1, 400, asked)


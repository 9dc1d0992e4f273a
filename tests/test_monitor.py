"""What a run shows: lines, scores, totals."""
import click
import pytest
from ding.entry.cli import cli as ding_command
from easydict import EasyDict

from ding_cawr.engine.follower import (
    EndedBeforeEvaluation,
    Evaluations,
    LineDisplay,
    _end_without_score,
    total_iterations,
)


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


def test_lines_tell_speed_time_left_and_scores(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.perf_counter', lambda: now[0])
    display = LineDisplay(total=1000)
    for iteration in range(1, 301):
        now[0] += 0.1
        display.show(iteration, recorded(12.34, 8.0) if iteration > 100 else Evaluations())
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 7
    assert lines[0] == 'iteration 1/1000 | no evaluation yet'
    assert lines[-1].startswith('iteration ') and '| 10.0 it/s | 1:' in lines[-1]
    assert lines[-1].endswith('left | normalized score last 8.0 best 12.3')


def test_total_is_the_smaller_of_config_and_what_the_pipeline_was_told():
    cfg = EasyDict(learn=dict(train_epoch=400))
    assert total_iterations(cfg, clock=True) == 400
    assert total_iterations(cfg, clock=False) is None

    def serial_pipeline_offline(max_train_iter, clock):
        return total_iterations(cfg, clock)

    for asked, expected in ((250, 250), (int(1e8), 400), (1000, 400), (None, 400)):
        assert serial_pipeline_offline(asked, clock=True) == expected
    assert serial_pipeline_offline(250, clock=False) == 250


def test_a_caller_in_python_gets_an_exception_and_the_command_a_sentence(capsys):
    with pytest.raises(EndedBeforeEvaluation, match='too short'):
        _end_without_score('too short')
    with click.Context(click.Command('another')), pytest.raises(EndedBeforeEvaluation):
        _end_without_score('too short')
    with click.Context(ding_command), pytest.raises(SystemExit) as end:
        _end_without_score('too short')
    assert end.value.code == 0 and capsys.readouterr().out == 'too short\n'


def test_a_command_that_would_leave_seeds_out_says_so_and_fails(capsys):
    with click.Context(ding_command) as context, pytest.raises(SystemExit) as end:
        context.params['seed'] = (0, 1)
        _end_without_score('too short')
    assert end.value.code == 1 and 'Of the seeds [0, 1] none after this one is trained' in capsys.readouterr().out

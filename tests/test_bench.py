"""``cawr bench`` and the scripts in benchmarks/ that share its parts, at sizes that say nothing about speed."""
import json
import logging
import pickle
import re
import statistics
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import Process
from helpers import benchmark, click_runner, start
from torch.utils.flop_counter import FlopCounterMode

from ding_cawr.bench import measure, report
from ding_cawr.bench.parts import SETTLE, Parts, block, configuration, floor, loop_block
from ding_cawr.bench.pipeline import LOGGERS, run_pipeline
from ding_cawr.bench.synthetic import environment_id, synthetic_columns, write_d4rl_file, write_rows
from ding_cawr.cli import cawr
from ding_cawr.data.load import load_transitions
from ding_cawr.engine.policy import OfflinePolicy
from ding_cawr.environments import try_out

SMALL = ('--size', '600', '--batch-size', '32', '--iterations', '3', '--threads', '1')
PARTS = {
    'floor', 'update', 'sample_uniform', 'sample_prioritized', 'update_priority', 'bare', 'pipeline', 'td3_bc',
}


def bench(folder: Path, *arguments: str) -> Process:
    """``cawr bench`` as a user types it, in ``folder``, with an empty folder for temporary files. torch's compiler,
    which makes a folder for itself when it is imported, has another."""
    for name in ('work', 'temporary', 'torch'):
        (folder / name).mkdir()
    folders = {'TMPDIR': folder / 'temporary', 'TORCHINDUCTOR_CACHE_DIR': folder / 'torch'}
    return start('-m', 'ding_cawr', 'bench', *SMALL, *arguments, cwd=folder / 'work', **folders)


def left_behind(folder: Path) -> list[Path]:
    return [path for place in ('work', 'temporary') for path in (folder / place).iterdir()]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('bench')


@pytest.fixture(scope='module')
def result(folder) -> dict:
    """What ``cawr bench --json`` writes; json.loads takes nothing but the JSON."""
    stdout, stderr = (process := bench(folder, '--json', '--learn', 'policy_loss=l2')).communicate()
    assert process.returncode == 0, stderr[-3000:]
    assert 'pipeline: round 3 of 3' in stderr and 'td3_bc: round 3 of 3' in stderr
    return json.loads(stdout)


def test_nothing_is_left_behind(result, folder):
    assert left_behind(folder) == []


def test_parts(result):
    assert set(result['parts']) == PARTS and len(result['rounds']) == 2 * 3
    for name, part in result['parts'].items():
        milliseconds = [each[name] for each in result['rounds'] if name in each]
        assert len(milliseconds) == (6 if name == 'floor' else 3) and min(milliseconds) > 0
        assert part['ms'] == pytest.approx(statistics.median(milliseconds))
        assert part['ms_at_best'] == min(milliseconds)
        assert part['iterations_per_second'] == pytest.approx(1000 / part['ms'])
        ratios = [each[name] / each['floor'] for each in result['rounds'] if name in each]
        assert part['per_floor'] == pytest.approx(statistics.median(ratios))


def test_figures_are_those_of_the_parts(result):
    figures, parts = result['figures'], result['parts']
    for name in ('update', 'bare', 'pipeline', 'td3_bc'):
        assert figures[f'{name}_per_floor'] == parts[name]['per_floor']
    for name in ('bare', 'pipeline'):
        assert figures[f'{name}_iterations_per_second'] == parts[name]['iterations_per_second']
    assert figures['td3_bc_per_pipeline'] == pytest.approx(figures['td3_bc_per_floor'] / figures['pipeline_per_floor'])
    assert 0 < figures['seconds_to_first_iteration'] < 600


def test_targets_stand_beside_what_was_measured(result):
    assert [target['figure'] for target in result['targets']] == [target.figure for target in report.TARGETS['cpu']]
    for target in result['targets']:
        assert target['measured'] == result['figures'][target['figure']]
        assert target['met'] is (target['measured'] <= target['bound'])


def test_memory(result):
    memory, figures = result['memory'], result['figures']
    assert memory['column_bytes_per_transition'] == (11 + 3 + 1 + 11) * 4 + 1
    assert 1 < figures['bytes_per_column_bytes'] < 2
    each = memory['column_bytes_per_transition'] * figures['bytes_per_column_bytes']
    assert memory['bytes_per_transition'] == pytest.approx(each)
    assert 1e8 < memory['peak_bytes_before_data'] <= memory['peak_bytes'] < 1e11
    assert memory['peak_bytes_device'] is None


def test_conditions(result):
    assert result['options'] == {
        'size': 600, 'obs_shape': 11, 'action_shape': 3, 'batch_size': 32, 'iterations': 3, 'rounds': 3,
        'device': 'cpu', 'threads': 1, 'learn': {'policy_loss': 'l2'}, 'algorithm': 'cawr'
    }
    assert result['versions']['torch'] == torch.__version__ and result['versions']['DI-engine'].startswith('0.5')
    assert {'python', 'numpy', 'ding_cawr'} <= set(result['versions'])
    assert result['machine']['threads'] == 1 and result['machine']['cores'] >= 1 and result['machine']['cpu']
    assert result['machine']['gpu'] is None and result['date'].startswith('20') and result['td3_bc_rows'] == 600


def test_text_names_every_part_and_every_target(monkeypatch, result):
    """The command without --json, on the measurement that another test made."""
    monkeypatch.setattr(measure, 'measure', lambda options, progress: (options, progress))
    monkeypatch.setattr(report, 'report', lambda measurement: result)
    printed = click_runner().invoke(cawr, ['bench'])
    lines = printed.stdout.splitlines()
    assert printed.exit_code == 0
    for name, text in report.PARTS.items():
        line = next(line for line in lines if line.startswith(text))
        assert f"{result['parts'][name]['ms']:.3f}" in line
    for target in result['targets']:
        line = next(line for line in lines if line.startswith(target['text']))
        assert f"<= {target['bound']:g}" in line and line.endswith('met' if target['met'] else 'missed')
    assert 'meant for 1,000,000 transitions of hopper' in printed.stdout and result['machine']['cpu'] in printed.stdout


def made_up(**options) -> measure.Measurement:
    """Two rounds beside the pipeline, on a slow and a fast moment of the machine, and one beside td3_bc."""
    fast = dict(floor=1.0, update=1.2, sample_uniform=0.01, sample_prioritized=0.02, update_priority=0.03, bare=1.3,
                pipeline=1.4)
    slow = {name: 10 * milliseconds for name, milliseconds in fast.items()}
    return measure.Measurement(
        measure.Options(**options), [fast, slow, dict(floor=4.0, td3_bc=14.0)], seconds_to_first_iteration=6.0,
        bytes_buffer=round(1.3 * 105 * 1_000_000), td3_bc_rows=50_000
    )


def test_ratios_are_taken_within_rounds():
    made = report.report(made_up())
    expected = dict(
        update_per_floor=1.2, pipeline_per_floor=1.4, td3_bc_per_floor=3.5, td3_bc_per_pipeline=2.5,
        selection_per_update=0.05, bytes_per_column_bytes=1.3, seconds_to_first_iteration=6.0
    )
    assert {name: made['figures'][name] for name in expected} == pytest.approx(expected)
    assert [target['met'] for target in made['targets']] == [True, True, True, True, False]
    assert 'meant for' not in report.text(made) and '50,000 rows alone' in ' '.join(report.text(made).split())


def test_targets_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    measurement = made_up(device='cuda')
    measurement.rounds = [{**each, 'bare': 0.2, 'pipeline': 0.5} for each in measurement.rounds[:1]] + [
        measurement.rounds[2]
    ]
    measurement.bytes_peak_device = 5_000_000
    made = report.report(measurement)
    assert [(target['measured'], target['met']) for target in made['targets']] == [(5000, True), (2000, False)]
    text = ' '.join(report.text(made).split())
    assert '>= 5,000 met' in text and '>= 2,500 missed' in text and '5 MB of the GPU' in text and 'a GPU;' in text


def test_floor_is_the_products_that_an_update_cannot_do_without():
    """18 n products of 256 x 256: 4 n forward, 3 of 2n forward, and two times 4 n for the gradients."""
    counter = FlopCounterMode(display=False)
    with counter:
        floor(64, 'cpu')()
    assert counter.get_total_flops() == 18 * 64 * 256 * 256 * 2


def test_blocks_count_their_iterations():
    calls = []
    assert block(lambda: calls.append(0), 5, 'cpu')() > 0
    assert len(calls) == SETTLE + 5
    steps = loop_block(5, 'cpu')
    yields = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            assert stop.value > 0
            break
        yields += 1
    assert yields == SETTLE + 5


def test_options():
    options = measure.Options(iterations=50)
    assert (options.total, options.rounds, options.block) == (50, 20, 3)
    assert measure.Options(iterations=3).rounds == 3 and measure.Options(iterations=3).block == 1
    assert measure.Options().total == 300 and measure.Options(device='cuda').total == 5000
    entries = ('temperature=0.5', 'policy_loss=l2', "priority={'type': 'normal', 'exponent': 0.6}")
    assert measure.parse_learn(entries) == {
        'temperature': 0.5, 'policy_loss': 'l2', 'priority': {'type': 'normal', 'exponent': 0.6}
    }


@pytest.mark.parametrize('arguments, message', [
    pytest.param(['--device', 'cuda'], "--device is 'cuda', but torch .* finds no GPU; take --device cpu",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')),
    (['--device', 'tpu'], "--device is 'tpu'; it must be one of 'cpu', 'cuda'"),
    (['--size', '100'], r'--size is 100; it must be --batch-size \(512\) or more'),
    (['--iterations', '0'], '--iterations is 0'),
    (['--threads', '-1'], '--threads is -1'),
    (['--learn', 'temperature'], "--learn is 'temperature'; it must be KEY=VALUE"),
    (['--learn', 'temprature=1'], "--learn sets 'temprature'; .*did you mean 'temperature'"),
    (['--learn', 'temperature=-1'], 'learn.temperature is -1; it must be a positive number'),
    (['--algorithm', 'bc_best', '--size', '600'], '--size is 600; it must be 1000 or more, as learn.best_episodes'),
    (['--learn', 'batch_size=64'], "--learn sets 'batch_size'; it must be one of "),
])
def test_errors_are_one_sentence(arguments, message):
    result = click_runner().invoke(cawr, ['bench', *arguments])
    assert result.exit_code == 1 and result.stdout == ''
    assert result.stderr.count('\n') == 1 and re.match(f'Error: {message}', result.stderr)


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    """Ctrl-C while the pipeline stands still and the parts are measured."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    before, threads, said = Path.cwd(), torch.get_num_threads(), []

    def progress(line: str) -> None:
        said.append(line)
        if line == 'pipeline: round 1 of 3':
            assert [path.name.startswith('cawr_bench_') for path in tmp_path.iterdir()] == [True]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.measure(measure.Options(size=600, batch_size=32, iterations=3, threads=1), progress=progress)
    assert said[-1] == 'pipeline: round 1 of 3' and list(tmp_path.iterdir()) == []
    assert Path.cwd() == before and torch.get_num_threads() == threads


@pytest.fixture(scope='module')
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'synthetic.hdf5'
    write_d4rl_file(path, synthetic_columns(2500, 11, 3))
    return path


def test_synthetic_data(data_file, tmp_path):
    made, read = synthetic_columns(2500, 11, 3), load_transitions(data_file, 'hopper-medium-v2')
    columns = read.table.columns
    assert len(read) == 2500 and np.flatnonzero(columns['done']).tolist() == [999, 1999]
    assert np.array_equal(columns['obs'], made['observations'][:-1])
    assert np.array_equal(columns['next_obs'], made['observations'][1:])
    assert np.array_equal(columns['reward'], made['rewards'][:-1])
    assert np.abs(columns['action']).max() <= 1 < 2 * columns['action'].std()
    write_rows(tmp_path / 'rows', read, 20)
    rows = pickle.loads((tmp_path / 'rows').read_bytes())
    assert len(rows) == 20 and list(rows[0]) == ['obs', 'next_obs', 'action', 'reward', 'done']
    assert np.array_equal(rows[7]['next_obs'], read.next_obs[7]) and rows[7]['reward'].shape == ()
    assert isinstance(rows[7]['done'], np.bool_) and not rows[7]['done']


@pytest.mark.parametrize('widths, env_id', [((11, 3), 'hopper-medium-v2'), ((17, 6), 'walker2d-medium-v2')])
def test_environments_of_a_task(widths, env_id):
    assert environment_id(*widths) == env_id


def test_an_environment_of_any_widths():
    assert try_out(environment_id(5, 2)).widths == (5, 2)
    assert environment_id(5, 2) == environment_id(5, 2)


@pytest.mark.parametrize('algorithm, learn', [
    ('cawr', {}), ('a2pr', {}), ('a2pr_mask', dict(priority='normal', policy_loss='l1')), ('bc', {}), ('awr', {}),
    ('awr_td', {}),
])
def test_every_part_of_an_algorithms_iteration_runs(data_file, algorithm, learn):
    parts = Parts(load_transitions(data_file), 32, 'cpu', learn, algorithm)
    masses = parts.buffer.mass.clone()
    for name, part in parts.all().items():
        for _ in range(2):
            part()
        assert torch.equal(parts.buffer.mass, masses), name  # what is measured stays the same


@pytest.mark.parametrize('algorithm, learn, kinds', [
    ('a2pr', dict(policy_freq=2), [0, 1] * 6), ('awr', {}, [0] * 2 + [1] * 10),
    ('awr', dict(critic_steps=2, policy_steps=1), [0, 0, 1] * 4), ('awr_td', {}, [0] * 12), ('cawr', {}, [0] * 12),
])
def test_kinds_of_updates_come_as_often_as_in_a_run(data_file, algorithm, learn, kinds):
    parts, seen = Parts(load_transitions(data_file), 32, 'cpu', learn, algorithm), []
    update = parts.update()
    for _ in range(12):
        update()
        seen.append(parts._algorithm.variant)
    assert seen == kinds


def test_the_pipeline_goes_on_one_iteration_a_yield(data_file, tmp_path, monkeypatch, capsys):
    """And it is the policy's own, it says nothing, and leaves the process as it was."""
    iterations, cwd = [], Path.cwd()
    handlers = {name: list(logging.getLogger(name).handlers) for name in LOGGERS}
    forward = OfflinePolicy._forward_learn
    monkeypatch.setattr(OfflinePolicy, '_forward_learn', lambda *data: iterations.append(0) or forward(*data))
    seen = []

    def visit(seconds: float):
        assert seconds > 0 and Path.cwd() == tmp_path
        for _ in range(4):
            seen.append(len(iterations))
            yield
        seen.append(len(iterations))

    run_pipeline(configuration(32, 11, 3, 'cpu', data_file, {}), tmp_path, visit)
    assert seen == [1, 2, 3, 4, 5] and len(iterations) == 5
    assert Path.cwd() == cwd and {name: logging.getLogger(name).handlers for name in LOGGERS} == handlers
    assert capsys.readouterr().out == '' and (tmp_path / 'cawr' / 'log').is_dir()


def test_an_error_of_the_visit_is_not_swallowed(data_file, tmp_path):
    def visit(seconds: float):
        yield
        raise RuntimeError('of the visit')

    with pytest.raises(RuntimeError, match='of the visit'):
        run_pipeline(configuration(32, 11, 3, 'cpu', data_file, {}), tmp_path, visit)


def test_scaling(tmp_path):
    scaling = benchmark('scaling')
    points = [scaling.Point(300, 16), scaling.Point(300, 16, replicas=2), scaling.Point(500, 32, 5)]
    with measure.threads(1):
        rows = scaling.run(points, 'cpu', 2)
    assert [(row['size'], row['batch_size'], row['obs_shape'], row['replicas']) for row in rows] == [
        (300, 16, 11, 1), (300, 16, 11, 2), (500, 32, 5, 1)
    ]
    for row in rows:
        assert row['updates_per_second'] == pytest.approx(1000 * row['replicas'] / row['bare_ms'])
        assert all(row[f'{name}_ms'] > 0 for name in ('floor', 'sampling', 'priorities', 'selection'))
    panels = {name: rows for name in ('size', 'batch_size', 'obs_shape', 'replicas')}
    scaling.draw(tmp_path / 'figure.png', panels, 'cpu')
    assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')
    table = scaling.table(panels).splitlines()
    assert len(table) == 2 + 12 and table[4].startswith('| 500 | 32 | 5 | 1 |')
    assert scaling.numbers('1e4,100') == [10_000, 100]


def stub(path: Path, script: str) -> Path:
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
    return path


def test_speed_asks_its_peers_for_a_block_at_a_time(tmp_path):
    """Stubs in their places, which answer with the number of their arguments."""
    speed = benchmark('speed')
    answers = """echo '{"version": "1"}'; while read command; do echo "{\\"ms\\": $#}"; done"""
    options = measure.Options(size=600, batch_size=32, iterations=4)
    python = stub(tmp_path / 'python', answers)
    paths = Namespace(d3rlpy_python=python, jax_python=python, jax_corl=tmp_path)
    with speed.peers(options, paths) as others:
        assert [other.versions for other in others] == [{'version': '1'}] * 2
        times = {name: run() for other in others for name, run in other.blocks().items()}
    assert times == {'d3rlpy_iql': 6, 'd3rlpy_iql_update': 6, 'jax_corl_iql': 6}
    paths = Namespace(d3rlpy_python=stub(tmp_path / 'broken', 'exit 3'), jax_python=None, jax_corl=None)
    with pytest.raises(RuntimeError, match="d3rlpy's IQL, its loop ended with exit code 3"):
        with speed.peers(options, paths):
            pass


@pytest.mark.parametrize('given, message', [
    ([], 'neither --d3rlpy-python nor --jax-python is given'),
    (['--d3rlpy-python', 'nowhere/python'], '--d3rlpy-python is nowhere/python, which is not a file'),
    (['--jax-python', sys.executable], '--jax-corl is None; it must be a checkout of JAX-CORL'),
    (['--jax-python', sys.executable, '--jax-corl', 'nowhere'], '--jax-corl is nowhere; it must be a checkout'),
])
def test_speed_says_which_path_is_wrong(given, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['speed.py', *given])
    with pytest.raises(SystemExit):
        benchmark('speed').options_and_paths()
    assert message in capsys.readouterr().err


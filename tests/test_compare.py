"""``cawr compare``: equal terms, what is run and what is not, and real runs that crash, are interrupted and go on."""
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from helpers import PATIENCE, click_runner, python, start
from rich.console import Console

from ding_cawr import __version__
from ding_cawr.cli import cawr
from ding_cawr.compare import launchers, results
from ding_cawr.compare.datasets import find_dataset
from ding_cawr.compare.jobs import folder_of, make_jobs, missing
from ding_cawr.compare.launchers import Event, LocalLauncher
from ding_cawr.compare.policies import Budget, find_policy, settings_of
from ding_cawr.compare.presets import COMPARISONS
from ding_cawr.compare.run import Comparison, Progress
from ding_cawr.config import make_config
from ding_cawr.engine.policy import POLICIES
from ding_cawr.machine import versions
from ding_cawr.score import normalized_score

BUDGET = Budget(iterations=20, eval_freq=10, episodes=2)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'small.hdf5'
    return write_d4rl_file(path, episodes=[(40, 'terminal'), (60, 'timeout')] * 5, attributes=dict(env_id='Hopper-v4'))


@pytest.fixture(scope='module')
def dataset(data):
    return find_dataset(str(data))


def test_datasets_say_whose_they_are(tmp_path, data, dataset):
    assert (dataset.origin, dataset.env_id, dataset.obs_shape, dataset.action_shape) == ('file', 'Hopper-v4', 11, 3)
    bundled = find_dataset('bundled:hopper-medium-expert')
    assert bundled.origin == 'bundled' and bundled.env_id == 'Hopper-v4'
    assert bundled.behaviour_score == pytest.approx(43.74, abs=0.01)
    named = tmp_path / 'hopper_medium-v2.hdf5'
    named.write_bytes(data.read_bytes())
    assert (find_dataset(str(named)).origin, find_dataset(str(named)).env_id) == ('stand-in', 'hopper-medium-v2')
    with h5py.File(named, 'a') as file:
        file['infos/qpos'], file['infos/qvel'] = np.zeros((500, 6)), np.zeros((500, 6))
    assert find_dataset(str(named)).origin == 'D4RL'


def test_d4rl_ids_are_taken_from_the_cache_with_or_without_their_version(cache, data):
    cache.mkdir()
    (cache / 'hopper_medium-v2.hdf5').write_bytes(data.read_bytes())
    for name in ('hopper-medium', 'hopper-medium-v2'):
        found = find_dataset(name)
        assert (found.name, found.env_id, found.slug) == ('hopper-medium-v2', 'hopper-medium-v2', 'hopper_medium_v2')


@pytest.mark.parametrize('name, error, message', [
    ('hoper-medium-v2', FileNotFoundError, "'hoper-medium-v2' is neither a file.*did you mean 'hopper-medium-v2'"),
    ('bundled:hopper', ValueError, "'hopper'.*hopper-medium-expert"),
    ('nowhere.hdf5', FileNotFoundError, "'nowhere.hdf5' is neither"),
    ('antmaze-umaze-v2', FileNotFoundError, "D4RL's sets those of hopper, .* are served, random, .*: give data_path a"),
    ('hopper-full-replay-v2', FileNotFoundError, "D4RL's sets those of hopper, .* are served, random, .*: give data_p"),
])
def test_unknown_datasets(name, error, message):
    with pytest.raises(error, match=message):
        find_dataset(name)


def test_a_file_that_does_not_say_of_which_environment_it_is(tmp_path):
    path = write_d4rl_file(tmp_path / 'data.hdf5')
    with pytest.raises(ValueError, match='does not say of which environment it is; give it with --env-id'):
        find_dataset(str(path))
    assert find_dataset(str(path), 'Hopper-v4').env_id == 'Hopper-v4'
    with pytest.raises(ValueError, match='wide'):
        find_dataset(str(path), 'Walker2d-v4')


def test_a_file_that_names_its_environment_needs_no_id(tmp_path, data):
    assert find_dataset('bundled:hopper-medium-expert', 'hopper-medium-v2').env_id == 'Hopper-v4'
    with pytest.warns(UserWarning, match='says that it is of Hopper-v4; --env-id Walker2d-v4 is not used for it'):
        assert find_dataset(str(data), 'Walker2d-v4').env_id == 'Hopper-v4'
    assert find_dataset(str(data), 'gymnasium.envs.mujoco:Hopper-v4').env_id == 'gymnasium.envs.mujoco:Hopper-v4'


@pytest.mark.parametrize('env_id', [None, 'CartPole-v1'])
def test_a_dataset_of_discrete_actions_is_refused(tmp_path, env_id):
    path = tmp_path / 'cartpole.npz'
    columns = dict(observations=np.zeros((9, 4), np.float32), actions=np.arange(9) % 2, rewards=np.ones(9, np.float32))
    np.savez(path, **columns, terminals=np.arange(9) == 8, timeouts=np.zeros(9, bool))
    with pytest.raises(ValueError, match='cartpole.npz has discrete actions, but cawr compare takes datasets of cont'):
        find_dataset(str(path), env_id)


def config_file(folder: Path, name: str = 'mine', text: str = '') -> Path:
    path = folder / f'{name}.py'
    path.write_text(
        "from ding_cawr import make_config\n"
        f"main_config, create_config = make_config('hopper-medium-v2', 'iql')\n{text}"
    )
    return path


def test_policies_and_what_their_names_stand_for(tmp_path):
    assert find_policy('cawr').algorithm == 'cawr' and 'ding_cawr' in find_policy('bc').source
    iql = find_policy('iql')
    assert iql.algorithm == 'iql' and 'the installed DI-engine, 0.5.3, has no iql of its own' in iql.source
    assert find_policy('td3_bc').source.startswith('td3_bc of DI-engine 0.5.3')
    assert find_policy('bc@ding.policy.bc').source.startswith('bc of DI-engine')
    mine = find_policy(str(config_file(tmp_path)))
    assert (mine.name, mine.source) == ('mine', 'the configuration mine.py')
    assert mine.configuration[1].policy.type == 'cawr'


def test_iql_is_di_engines_own_where_it_has_one(tmp_path, monkeypatch, dataset):
    import ding.policy
    (tmp_path / 'iql.py').write_text(
        "from ding.policy.td3_bc import TD3BCPolicy\nfrom ding.utils import POLICY_REGISTRY\n"
        "if 'iql' not in POLICY_REGISTRY:\n    @POLICY_REGISTRY.register('iql')\n    class IQL(TD3BCPolicy): pass\n"
    )
    monkeypatch.setattr(ding.policy, '__path__', [*ding.policy.__path__, str(tmp_path)])
    try:
        iql = find_policy('iql')
        assert iql.source.startswith('iql of DI-engine') and iql.configuration[1]['policy']['type'] == 'iql'
        assert 'settings of its D4RL configuration' in iql.source
        main, _ = iql.build(dataset, BUDGET)
        assert main.policy.learn.batch_size == 4096 and main.env.reward_norm == 'iql_locomotion'
        ours = find_policy('iql@ding_cawr')
        assert ours.algorithm == 'iql' and ours.source.startswith('ding_cawr: ')
        assert not {'lacks', 'has no'} & set(ours.source.split())
    finally:
        from ding.utils import POLICY_REGISTRY
        POLICY_REGISTRY.pop('iql', None)
        sys.modules.pop('ding.policy.iql', None)


def test_a_policy_without_sections_of_its_own_keeps_those_of_the_run(dataset):
    from ding.policy import TD3BCPolicy
    from ding.utils import POLICY_REGISTRY

    class Bare(TD3BCPolicy):
        """As DI-engine's IQL: its defaults have no ``collect``."""
        config = {key: value for key, value in TD3BCPolicy.config.items() if key != 'collect'}

    POLICY_REGISTRY.register('bare', Bare)
    try:
        main, create = find_policy('bare').build(dataset, BUDGET)
        before = deepcopy(main)
        settings = settings_of(main, create)
        assert main == before and main.policy.collect.data_path == str(dataset.path)
        assert 'data_path' not in settings['collect']
    finally:
        POLICY_REGISTRY.pop('bare')


def test_keys_added_after_results_make_no_other_run_at_their_defaults():
    added = POLICIES['a2pr'].algorithm.Settings.added_later
    plain, given, changed = (settings_of(*make_config('hopper-medium-v2', 'a2pr_mask', **learn))['learn']
                             for learn in ({}, dict(policy_loss='l2', priority='none'), dict(policy_loss='l1')))
    assert plain == given and not set(added) & set(plain) and plain['policy_freq'] == 2
    assert changed == {**plain, 'policy_loss': 'l1'}
    assert {'policy_loss', 'priority'} < set(settings_of(*make_config('hopper-medium-v2', 'cawr'))['learn'])


@pytest.mark.parametrize('name, error, message', [
    ('cawl', ValueError, "policy 'cawl' is neither.*did you mean 'cawr'"),
    ('td3bc', ValueError, "did you mean 'td3_bc'"), ('x@no.module', ValueError, "'no.module' cannot be imported"),
    ('x@ding.policy', ValueError, "policy 'x@ding.policy' is neither"), ('no.py', FileNotFoundError, 'no.py'),
])
def test_unknown_policies(name, error, message):
    with pytest.raises(error, match=message):
        find_policy(name)


@pytest.mark.parametrize('name', ['cawr', 'iql', 'bc', 'cawr_paper', 'a2pr', 'a2pr_mask', 'td3_bc', 'cql', 'mine'])
def test_all_run_on_equal_terms(tmp_path, data, dataset, name):
    spec = find_policy(str(config_file(tmp_path)) if name == 'mine' else name)
    main, create = spec.build(dataset, BUDGET)
    assert main.env.env_id == 'Hopper-v4' and main.env.n_evaluator_episode == 2 and main.env.stop_value == 1e10
    assert create.env.type == 'd4rl_gymnasium' and create.env_manager.type == 'base'
    policy = main.policy
    assert policy.collect.data_type == 'offline_transitions' and policy.collect.data_path == str(data)
    assert policy.eval.evaluator.eval_freq == policy.collect.epoch_iterations == 10
    assert (policy.model.obs_shape, policy.model.action_shape) == (11, 3)
    assert policy.learn.train_epoch == (2 if name in ('td3_bc', 'cql') else 20)


def test_jobs_go_seed_by_seed_and_replicas_go_at_once(dataset):
    policies = [find_policy(name) for name in ('cawr', 'td3_bc')]
    jobs = make_jobs([dataset], policies, [0, 1], BUDGET)
    assert [(job.policy.name, job.seeds) for job in jobs] == [
        ('cawr', (0, )), ('td3_bc', (0, )), ('cawr', (1, )), ('td3_bc', (1, ))
    ]
    assert len({job.title for job in jobs}) == 4
    together = make_jobs([dataset], policies, [0, 1], BUDGET, replicas=True)
    assert [(job.policy.name, job.seeds) for job in together] == [
        ('cawr', (0, 1)), ('td3_bc', (0, )), ('td3_bc', (1, ))
    ]
    finished = {results.identity(jobs[0].about(0))}
    assert [(job.policy.name, job.seeds) for job in missing(together, finished)][0] == ('cawr', (1, ))
    clean, corrupted = make_jobs([dataset, dataset.corrupted('action', 0.3, 1.0)], policies[:1], [0], BUDGET)
    assert clean.name(0) != corrupted.name(0) and 'action_0.3' in corrupted.name(0)
    assert corrupted.configuration[0].policy.collect.corruption == dict(columns='action', rate=0.3, scale=1.0, seed=0)


def test_presets_are_the_papers_tables(dataset):
    cells = COMPARISONS['paper-table1'].policies()
    assert len(cells) == 5 + 6 * 4 and len({cell.name for cell in cells}) == len(cells)
    assert [cell.overrides['policy_loss'] for cell in cells[:5]] == ['l2', 'l1', 'huber', 'skew', 'flat']
    jobs = make_jobs([dataset], cells, [0, 1], BUDGET, 'paper-table1')
    assert [job.policy.name for job in jobs[:2]] == ['critics', 'critics'] and jobs[0].critics is None
    assert all(job.critics.title == jobs[job.seeds[0]].title for job in jobs[2:]) and len(jobs) == 2 + 2 * 29
    assert jobs[2].critics is jobs[2].critics  # made once
    assert jobs[2].settings['learn']['pretrained_critics'] == 'those of critics, of the same seed'
    table_2 = COMPARISONS['paper-table2']
    assert len(table_2.data) == 9 and table_2.iterations == 400_000
    assert [each.name for each in table_2.policies()] == ['bc', 'l2+none', 'l1+none', 'l2+normal', 'l1+normal']
    for preset in COMPARISONS.values():
        for spec in preset.policies():
            main, _ = spec.build(dataset, BUDGET)
            assert main.policy.learn.train_epoch == 20


class FakeLauncher:
    """Jobs end as ``outcome(job)`` says, 'done' or a sentence, without being run."""

    def __init__(self, outcome=lambda job: 'done') -> None:
        self.outcome, self.started, self._open = outcome, [], []

    running = property(lambda self: len(self._open))
    takes_more = property(lambda self: len(self._open) < 2)

    def start(self, job, folder, critics):
        self.started.append((job, critics))
        self._open.append(job)
        (folder / 'log.txt').write_text('said')
        for seed in job.seeds:
            ckpt = folder / job.run_folder(seed) / 'ckpt'
            ckpt.mkdir(parents=True)
            (ckpt / 'iteration_20.pth.tar').touch()

    def poll(self, timeout):
        if not self._open:
            return
        job, outcome = self._open[0], self.outcome(self._open[0])
        if isinstance(outcome, BaseException):
            raise outcome
        del self._open[0]
        yield Event(job, 'progress', 10)
        yield Event(job, 'evaluation', (20, 100.0))
        yield Event(job, 'done', lines_of(job)) if outcome == 'done' else Event(job, 'failed', outcome)

    def stop(self):
        self._open.clear()


def lines_of(job) -> list[dict]:
    return [
        {'kind': 'evaluation', **job.about(seed), 'versions': {}, 'machine': {}, 'run': f'{job.name(seed)}_x',
         'iteration': 20, 'returns': [1.0], 'scores': [1.0], 'seconds': 1.0, 'evaluation_seconds': 1.0,
         'iterations_per_second': 1.0, 'time': ''} for seed in job.seeds
    ]


def compared(out, jobs, launcher):
    return Comparison(out, jobs, launcher).run()


def test_what_has_finished_is_not_run_again_and_what_failed_is(tmp_path, dataset, capsys):
    jobs = make_jobs([dataset], [find_policy(name) for name in ('cawr', 'bc')], [0, 1], BUDGET)
    outcome = compared(tmp_path, jobs, FakeLauncher(lambda job: 'done' if job.policy.name == 'cawr' else 'it broke'))
    assert (outcome.finished, outcome.ran) == (2, 2)
    assert [(each['run'], each['error']) for each in outcome.failures] == [
        (job.name(job.seeds[0]), 'it broke') for job in jobs if job.policy.name == 'bc'
    ]
    assert all(Path(each['log']).read_text() == 'said' for each in outcome.failures)
    assert 'it broke' in capsys.readouterr().err
    again = FakeLauncher()
    assert compared(tmp_path, jobs, again).finished == 4 and {job.policy.name for job, _ in again.started} == {'bc'}
    assert not results.read(outcome.results).failures
    assert {path.name for path in (tmp_path / 'runs').iterdir()} == {job.name(job.seeds[0]) for job in jobs}
    nothing = FakeLauncher()
    assert compared(tmp_path, jobs, nothing).ran == 0 and not nothing.started


def test_replicas_have_a_folder_each(tmp_path, dataset):
    jobs = make_jobs([dataset], [find_policy('cawr')], [0, 1], BUDGET, replicas=True)
    assert compared(tmp_path, jobs, FakeLauncher()).finished == 2
    for seed in (0, 1):
        folder = folder_of(tmp_path, jobs[0], seed)
        assert {path.name for path in folder.iterdir()} == {'run', 'log.txt'}
    assert len(list((tmp_path / 'runs').iterdir())) == 2
    # Killed after seed 0 had its last name, before the results: both begin anew, and nothing else is left.
    part = tmp_path / 'runs' / f'{jobs[0].title}.part'
    part.mkdir()
    (folder_of(tmp_path, jobs[0], 1) / 'run').rename(part / 'run_seed1')
    shutil.rmtree(folder_of(tmp_path, jobs[0], 1))
    (tmp_path / 'results.jsonl').unlink()
    launcher = FakeLauncher()
    assert compared(tmp_path, jobs, launcher).ran == 2 and len(launcher.started) == 1
    for seed in (0, 1):
        assert (folder_of(tmp_path, jobs[0], seed) / 'run' / 'ckpt' / 'iteration_20.pth.tar').is_file()
    assert len(list((tmp_path / 'runs').iterdir())) == 2


def test_critics_whose_checkpoint_is_gone_are_trained_again(tmp_path, dataset):
    jobs = make_jobs([dataset], COMPARISONS['paper-table1'].policies()[:2], [0], BUDGET, 'paper-table1')
    compared(tmp_path, jobs, FakeLauncher(lambda job: 'done' if job.critics is None else 'stopped'))
    shutil.rmtree(folder_of(tmp_path, jobs[0], 0))
    launcher = FakeLauncher()
    assert not compared(tmp_path, jobs, launcher).failures
    assert [job.policy.name for job, _ in launcher.started] == ['critics', 'l2+none', 'l1+none']


def test_a_configuration_that_cannot_be_sent_fails_alone(tmp_path, dataset):
    policies = [find_policy(str(config_file(tmp_path, 'odd', 'main_config.more = lambda: 0\n')))]
    outcome = compared(tmp_path / 'out', make_jobs([dataset], policies, [0], BUDGET), LocalLauncher(1, 1))
    assert 'cannot be sent to another process' in outcome.failures[0]['error']


def test_a_process_that_ends_before_it_has_read_its_job_is_named_with_its_exit_code(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(launchers, 'COMMAND', 'raise SystemExit(3)')
    monkeypatch.setattr(launchers.Connection, 'send_bytes', gone_after(launchers.Connection.send_bytes))
    outcome = compared(tmp_path, make_jobs([dataset], [find_policy('bc')], [0], BUDGET), LocalLauncher(1, 1))
    assert 'its process ended with exit code 3' in outcome.failures[0]['error']


def gone_after(send):
    """Return a sending that waits until nobody listens, as where the process has ended by then."""
    def wait_and_send(connection, data):
        assert connection.poll(30)  # the other end is closed
        send(connection, data)
    return wait_and_send


def test_critics_come_first_and_those_that_need_them_fail_without(tmp_path, dataset):
    jobs = make_jobs([dataset], COMPARISONS['paper-table1'].policies()[:2], [0], BUDGET, 'paper-table1')
    launcher = FakeLauncher()
    compared(tmp_path / 'a', jobs, launcher)
    checkpoint = folder_of(tmp_path / 'a', jobs[0], 0) / 'run' / 'ckpt' / 'iteration_20.pth.tar'
    assert [critics for _, critics in launcher.started] == [None, checkpoint, checkpoint]
    launcher = FakeLauncher(lambda job: 'no critics today')
    outcome = compared(tmp_path / 'b', jobs, launcher)
    assert len(launcher.started) == 1 and len(outcome.failures) == 3
    assert 'the run that gives its critics' in outcome.failures[-1]['error']


def test_an_interrupted_comparison_leaves_no_parts_and_keeps_what_was_written_down(tmp_path, dataset):
    jobs = make_jobs([dataset], [find_policy(name) for name in ('cawr', 'bc')], [0], BUDGET)
    launcher = FakeLauncher(lambda job: 'done' if job.title == jobs[0].title else KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        compared(tmp_path, jobs, launcher)
    assert [path.name for path in (tmp_path / 'runs').iterdir()] == [jobs[0].name(0)]
    # Killed: its parts are removed by the next one.
    (tmp_path / 'runs' / f'{jobs[1].title}.part').mkdir()
    launcher = FakeLauncher()
    compared(tmp_path, jobs, launcher)
    assert [job.title for job, _ in launcher.started] == [jobs[1].title]
    assert folder_of(tmp_path, jobs[0], 0).is_dir() and folder_of(tmp_path, jobs[1], 0).is_dir()


def test_a_terminal_shows_bars(dataset):
    """Of all iterations and of each job that runs; lines of what ended stay above them."""
    first, second = make_jobs([dataset], [find_policy(name) for name in ('cawr', 'bc')], [0], BUDGET)
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with Progress([first, second], 3, console) as progress:
        progress.started(first)
        progress.heard(Event(first, 'progress', 5))
        progress.heard(Event(first, 'evaluation', (10, 100.0)))
        progress.started(second)
        progress.heard(Event(second, 'failed', 'it broke'))
    shown = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', console.file.getvalue())
    assert f'{second.title}: failed: it broke' in shown
    everything, running = shown.rstrip().splitlines()[-2:]
    assert '3 of 5 runs done, 1 failed' in everything and '30/40' in everything
    assert first.title in running and '10/20' in running and 'score 3.7' in running


def test_one_comparison_a_folder(tmp_path, dataset):
    jobs = make_jobs([dataset], [find_policy('cawr')], [0], BUDGET)

    class Nested(FakeLauncher):

        def poll(self, timeout):
            with pytest.raises(ValueError, match=f'another comparison is running in {tmp_path}'):
                compared(tmp_path, jobs, FakeLauncher())
            return super().poll(timeout)

    assert compared(tmp_path, jobs, Nested()).ran == 1


def by_run(found) -> dict:
    """Evaluations of each finished run by what identifies it."""
    return dict(list(found.finished.groupby('identity')))


def command(out: Path, data: Path, *more, policies: str = 'cawr', seeds: str = '0', iterations: int = 20) -> list:
    return [
        '-m', 'ding_cawr', 'compare', '--data', data, '--policies', policies, '--seeds', seeds,
        '--iterations', iterations, '--eval-freq', 10, '--episodes', 2, '--jobs', 2, '--threads', 1, '--out', out, *more
    ]


def run(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    return python(*arguments, cwd=cwd, check=False)


CRASH = """
main_config.policy.learn.policy_loss = 'l3'
"""


@pytest.fixture(scope='module')
def real(tmp_path_factory, data):
    """A comparison of real runs, one of which crashes: its folder and what the command said."""
    folder = tmp_path_factory.mktemp('real')
    crashing = config_file(folder, 'crashing', CRASH)
    result = run(*command('out', data, '--json', policies=f'cawr,a2pr,td3_bc,{crashing}', seeds='3'), cwd=folder)
    return folder, crashing, result


def test_real_runs_have_the_same_evaluations(real, data):
    folder, _, result = real
    outcome = json.loads(result.stdout)
    found = results.read(folder / 'out' / 'results.jsonl')
    assert outcome['finished'] == outcome['ran'] == 3 and len(by_run(found)) == 3
    assert {path.name for path in (folder / 'out' / 'runs').glob('small_*/*')} == {'run', 'log.txt'}
    for evaluations in by_run(found).values():
        assert list(evaluations.iteration) == [10, 20]
        for evaluation in evaluations.itertuples():
            assert len(evaluation.returns) == 2 and evaluation.seconds > 0 and evaluation.iterations_per_second > 0
            scores = [normalized_score('Hopper-v4', value) for value in evaluation.returns]
            assert evaluation.scores == pytest.approx(scores)
            assert evaluation.versions['DI-engine'] == '0.5.3' and evaluation.machine['threads'] == 1
            assert evaluation.origin == 'file'
    trained = found.finished[found.finished.policy == 'cawr']
    run_folder = next((folder / 'out' / 'runs').glob('small_cawr_*'))
    summary = json.loads((run_folder / 'run' / 'summary.json').read_text())
    assert summary['evaluations'] == pytest.approx(list(trained['mean']))
    td3_bc = next((folder / 'out' / 'runs').glob('small_td3_bc_*'))
    assert (td3_bc / 'run' / 'ckpt' / 'iteration_20.pth.tar').is_file()
    assert 'EVALUATOR' in (td3_bc / 'log.txt').read_text()


def test_a_run_can_be_continued_by_itself(real, tmp_path):
    folder = next((real[0] / 'out' / 'runs').glob('small_cawr_*'))
    shutil.copytree(folder / 'run', tmp_path / 'run')
    result = run('-m', 'ding_cawr', 'resume', 'run', '--train-iter', 30, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / 'run' / 'ckpt' / 'iteration_30.pth.tar').is_file()


def test_a_crash_is_reported_with_its_log_and_stops_no_other(real):
    folder, _, result = real
    assert result.returncode == 1
    failure, = json.loads(result.stdout)['failures']
    assert "learn.policy_loss is 'l3'" in failure['error'] and failure['error'] in result.stderr
    assert 'Traceback' in Path(failure['log']).read_text()
    assert 'a2pr: ding_cawr: A2PR' in result.stderr and 'td3_bc: td3_bc of DI-engine' in result.stderr


def test_the_same_command_again_runs_what_is_missing(real, data):
    folder, crashing, _ = real
    config_file(folder, 'crashing')  # mended
    before = (folder / 'out' / 'results.jsonl').read_text()
    result = run(*command('out', data, '--json', policies=f'cawr,a2pr,td3_bc,{crashing}', seeds='3'), cwd=folder)
    assert result.returncode == 0 and json.loads(result.stdout)['ran'] == 1, result.stderr[-2000:]
    assert (folder / 'out' / 'results.jsonl').read_text().startswith(before)
    assert len(by_run(results.read(folder / 'out' / 'results.jsonl'))) == 4


OFTEN = """
main_config.policy.model.hidden_sizes = [16]
main_config.policy.learn.batch_size = 16
main_config.policy.learn.learner = dict(hook=dict(save_ckpt_after_iter=10))
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_leaves_nothing_half_written_and_goes_on(tmp_path, data, number):
    mine = str(config_file(tmp_path, 'mine', OFTEN))
    arguments = [str(each) for each in command('out', data, policies=mine, iterations=3000)]
    arguments[arguments.index('--eval-freq') + 1] = '1500'
    process = start(*arguments, cwd=tmp_path)
    while not list(tmp_path.glob('out/runs/*.part/run/ckpt/*')):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while training(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not training(tmp_path)
    if number == signal.SIGINT:
        assert process.returncode == 130 and 'the same command goes on from there' in errors
        assert not list((tmp_path / 'out' / 'runs').iterdir())
    assert not (tmp_path / 'out' / 'results.jsonl').exists()
    again = command('out', data, policies=mine)
    assert run(*again, cwd=tmp_path).returncode == 0
    assert len(by_run(results.read(tmp_path / 'out' / 'results.jsonl'))) == 1
    assert [path.suffix for path in (tmp_path / 'out' / 'runs').iterdir()] == ['']


def test_a_run_that_was_killed_ends_with_what_it_would_have_ended_with(tmp_path, data):
    mine = config_file(tmp_path, 'mine', OFTEN)
    arguments = [*map(str, command('out', data, policies=str(mine), iterations=600))]
    arguments[arguments.index('--eval-freq') + 1] = '60'
    process = start(*arguments, cwd=tmp_path)
    record, part = 'evaluations.json', tmp_path / 'out' / 'runs'
    while not (found := list(part.glob(f'*.part/{record}'))) or len(json.loads(found[0].read_text())['run']) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=PATIENCE)
    kept, = part.iterdir()
    made = json.loads((kept / record).read_text())['run']
    assert 3 <= len(made) < 10 and not (tmp_path / 'out' / 'results.jsonl').exists()
    assert run(*arguments, cwd=tmp_path).returncode == 0
    assert run(*arguments, '--out', 'whole', cwd=tmp_path).returncode == 0
    went_on, whole = (by_run(results.read(tmp_path / out / 'results.jsonl')) for out in ('out', 'whole'))
    (identity, evaluations), = went_on.items()
    assert list(evaluations.returns) == list(whole[identity].returns)
    assert list(evaluations.iteration) == list(range(60, 601, 60))
    assert (evaluations.seconds.diff()[1:] > 0).all() and (evaluations.iterations_per_second > 0).all()
    assert list(evaluations.seconds[:2]) == [each['seconds'] for each in made[:2]]  # they are those made then
    assert {path.suffix for path in part.iterdir()} == {''}
    _begins_anew_without_a_checkpoint(tmp_path, arguments, made, list(evaluations.returns))
    assert all({each.name for each in folder.iterdir()} == {'run', 'log.txt'} for folder in part.iterdir())
    # As if it had been killed in its last evaluation, behind its last checkpoint.
    finished, = (tmp_path / 'whole' / 'runs').iterdir()
    lines = [json.loads(line) for line in (tmp_path / 'whole' / 'results.jsonl').read_text().splitlines()]
    finished = finished.rename(finished.with_name(f'{finished.name}.part'))
    (finished / record).write_text(json.dumps({'run': [{name: line[name] for name in made[0]} for line in lines[:-1]]}))
    (tmp_path / 'whole' / 'results.jsonl').unlink()
    assert run(*arguments, '--out', 'whole', cwd=tmp_path).returncode == 0
    again, = by_run(results.read(tmp_path / 'whole' / 'results.jsonl')).values()
    assert list(again.returns) == list(evaluations.returns) and (again.seconds.diff()[1:] > 0).all()


def _begins_anew_without_a_checkpoint(tmp_path, arguments, made, wanted) -> None:
    """A run whose checkpoints cannot be used begins anew, whatever it has recorded."""
    shutil.copytree(tmp_path / 'out', tmp_path / 'anew')
    (tmp_path / 'anew' / 'results.jsonl').unlink()
    folder, = (tmp_path / 'anew' / 'runs').iterdir()
    for checkpoint in (folder / 'run' / 'ckpt').iterdir():
        checkpoint.write_bytes(b'damaged')
    folder = folder.rename(folder.with_name(f'{folder.name}.part'))
    (folder / 'evaluations.json').write_text(json.dumps({'run': made}))
    assert run(*arguments, '--out', 'anew', cwd=tmp_path).returncode == 0
    again, = by_run(results.read(tmp_path / 'anew' / 'results.jsonl')).values()
    assert list(again.returns) == wanted


def training(folder: Path) -> list[str]:
    """Processes whose working directory lies in a folder."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if os.readlink(process / 'cwd').startswith(str(folder)):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_replicas_are_the_runs_of_their_seeds(tmp_path, data):
    assert run(*command('apart', data, seeds='0,1'), cwd=tmp_path).returncode == 0
    assert run(*command('at_once', data, '--replicas', seeds='0,1'), cwd=tmp_path).returncode == 0
    apart, at_once = (by_run(results.read(tmp_path / name / 'results.jsonl')) for name in ('apart', 'at_once'))
    assert apart.keys() == at_once.keys() and len(apart) == 2
    for identity, evaluations in at_once.items():
        assert list(evaluations['mean']) == pytest.approx(list(apart[identity]['mean']), rel=1e-3)
        assert evaluations.machine.iloc[0]['seeds_at_once'] == 2


def test_table_1_trains_the_policy_on_frozen_critics(tmp_path, data):
    """Two of its cells, through the preset's own policies."""
    cells = COMPARISONS['paper-table1'].policies()[3:5]
    jobs = make_jobs([find_dataset(str(data))], cells, [0], BUDGET, 'paper-table1')
    outcome = Comparison(tmp_path, jobs, LocalLauncher(2, 1)).run()
    assert outcome.finished == 3, outcome.failures
    states = [
        torch.load(folder_of(tmp_path, job, 0) / 'run' / 'ckpt' / 'iteration_20.pth.tar', weights_only=True)['model']
        for job in jobs
    ]
    for name, tensor in states[0].items():
        same = [torch.equal(tensor, other[name]) for other in states[1:]]
        assert same == [not name.startswith('policy.')] * 2, name


def test_a_local_ray_cluster_runs_them(tmp_path, data):
    pytest.importorskip('ray', reason='the extra ding_cawr[ray] is not installed')
    result = run(*command('out', data, '--launcher', 'ray', policies='cawr,td3_bc'), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    found = results.read(tmp_path / 'out' / 'results.jsonl')
    assert set(found.finished.policy) == {'cawr', 'td3_bc'}
    assert len(list((tmp_path / 'out' / 'runs').glob('*/log.txt'))) == 2


@pytest.mark.parametrize('arguments, message', [
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr'], '--iterations is missing; give it'),
    ([], '--data and --policies and --iterations are missing; give them, or a --preset'),
    (['--preset', 'paper-table3'], "--preset is 'paper-table3'; it must be one of 'paper-table1'.*did you mean 'paper"),
    (['--data', 'bundled:hoper', '--policies', 'cawr', '--iterations', '20'], 'hopper-medium-expert'),
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawl', '--iterations', '20'], "did you mean 'cawr'"),
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr', '--iterations', '20', '--eval-freq', '7'],
     '--iterations 20 is not a multiple of --eval-freq 7'),
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr', '--iterations', '20', '--seeds', '1,x'], "'1,x'"),
    *((['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr', '--iterations', '20', f'--seeds={seeds}'],
       f'{seeds!r}; it must be seeds that differ') for seeds in ('-1', '0,00', '4294967296')),
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr,cawr', '--iterations', '20'], 'all different'),
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr', '--iterations', '20', '--corrupt', 'action'],
     'COLUMN:RATE'),
    (['--data', 'bundled:hopper-medium-expert', '--policies', 'cawr', '--iterations', '20', '--corrupt', 'actoin:0.3'],
     'actoin'),
])
def test_bad_options_end_before_anything_runs(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = click_runner().invoke(cawr, ['compare', *arguments])
    assert result.exit_code != 0 and re.search(message, ' '.join(result.stderr.split()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('text, message', [
    ('main_config = (', "SyntaxError: '.' was never closed in line 1; it must be Python that defines the dicts main_"),
    ('', "AssertionError: .*'main_config'"),
    ('main_config, create_config = dict(policy=dict()), dict()', "create_config has no dict 'policy'; it must"),
    ('main_config = create_config = dict(policy=dict())', "create_config.policy has no 'type'; it must name"),
])
def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / 'wrong.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'config file {path}: {message}'):
        find_policy(str(path))
    with pytest.raises(FileNotFoundError, match='config file .*absent.py does not exist'):
        find_policy(str(tmp_path / 'absent.py'))


def test_a_file_in_the_place_of_the_output_folder_is_named(tmp_path):
    (tmp_path / 'out').write_text('mine')
    with pytest.raises(NotADirectoryError, match="out' is a file, but --out must be a folder; give another one"):
        Comparison(tmp_path / 'out', [], LocalLauncher(1, 1)).run()
    assert (tmp_path / 'out').read_text() == 'mine'


def test_results_tell_the_version_of_the_code_that_ran():
    assert versions()['ding_cawr'] == __version__


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_there_is_one_warning_and_the_runs_say_cpu(tmp_path, data):
    budget = ['--iterations', 4, '--eval-freq', 2, '--episodes', 1, '--seeds', 0, '--jobs', 1]
    words = ['compare', '--data', data, '--env-id', 'Hopper-v4', '--policies', 'bc', '--cuda', *budget, '--out', 'out']
    result = python('-m', 'ding_cawr', *words, cwd=tmp_path)
    assert result.stderr.count('--cuda is given, but torch') == 1
    lines = [json.loads(line) for line in (tmp_path / 'out' / 'results.jsonl').read_text().splitlines()]
    assert lines and {(line['settings']['cuda'], line['machine']['gpu']) for line in lines} == {(False, None)}

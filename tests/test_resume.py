"""Runs that are killed and continued against runs that were never stopped; checkpoints that are whole or not there."""
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from helpers import cawr, differences, ding, python, train_offline, write_config

from ding_cawr.engine.resume import resume
from ding_cawr.runs.checkpoint import numbered, write_checkpoint
from ding_cawr.runs.lock import lock_folder
from ding_cawr.runs.state import random_state, restore_random_state

CONFIG = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    'hopper-medium-v2', data_path={data!r}, exp_name='run', iterations={iterations}, eval_freq=20, batch_size=32,
    n_evaluator_episode=2, keep_checkpoints=3, {more}
    policy=dict(
        model=dict(hidden_sizes=(16, 16)),
        learn=dict(learner=dict(hook=dict(log_show_after_iter=10, save_ckpt_after_iter=15))),
    ),
)
'''
FORMS = {
    'default': "trust=dict(type='linear', start=18, iterations=18),",
    'every part has a state': (
        "trust='full', weighting='per_sample', policy_loss='flat', tightening=dict(convex_share=0.9, iterations=50), "
        "priority='odpr', cosine_iterations=60, priority_refresh=7, norm_obs=dict(use_norm=True),"
    ),
    'noise and priorities': (
        "algorithm='a2pr', policy_loss='skew', priority=dict(type='normal', exponent=0.6), priority_refresh=7,"
    ),
    'given advantages': "advantage='dataset',",
    'in rounds': "algorithm='awr', critic_steps=7, policy_steps=9,",
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'hopper.hdf5'
    write_d4rl_file(path, episodes=[(40, 'terminal'), (60, 'timeout')] * 5)
    with h5py.File(path, 'a') as file:
        file['advantages'] = np.random.default_rng(0).normal(size=500)
    return path


@pytest.fixture(scope='module')
def begin(tmp_path_factory, data) -> Callable[[Path, int], None]:
    """``begin(folder, iterations)``: put a configuration and its run, which is trained once, in a folder."""
    trained: dict[int, Path] = {}

    def copy(folder: Path, iterations: int) -> None:
        if iterations not in trained:
            trained[iterations] = tmp_path_factory.mktemp('begun')
            config(trained[iterations], data)
            train_offline('config.py', '--train-iter', iterations, cwd=trained[iterations])
        shutil.copytree(trained[iterations], folder, dirs_exist_ok=True)

    return copy


def config(folder: Path, data: Path, more: str = '', iterations: int = 60) -> Path:
    folder.mkdir(exist_ok=True)
    return write_config(folder / 'config.py', CONFIG.format(data=str(data), more=more, iterations=iterations))


def assert_same(got: dict, wanted: dict) -> None:
    """But for how long the run was to be."""
    assert differences(got, wanted, aside=('/run/total', )) == []


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def checkpoints(folder: Path) -> dict[str, dict]:
    return {path.name: load(path) for path in (folder / 'run' / 'ckpt').iterdir()}


@pytest.fixture(scope='module', params=FORMS)
def form_and_whole(request, tmp_path_factory, data) -> tuple[str, Path]:
    """A form and the folder of its run that was never stopped."""
    whole = tmp_path_factory.mktemp('whole')
    train_offline(config(whole, data, FORMS[request.param]), '-s', 3, cwd=whole)
    return request.param, whole


@pytest.mark.parametrize('stopped_at', [40, 44])
def test_a_stopped_run_ends_as_if_it_had_not_been(tmp_path, data, form_and_whole, stopped_at):
    """Stopped at an evaluation, and between two: its last checkpoint is that of 30 updates, or of its regular end."""
    (form, whole), stopped = form_and_whole, tmp_path / 'stopped'
    train_offline(config(stopped, data, FORMS[form]), '-s', 3, '--train-iter', stopped_at, cwd=stopped)
    if stopped_at == 44:  # as a kill would have left it
        (stopped / 'run' / 'ckpt' / 'iteration_44.pth.tar').unlink()
    result = cawr('resume', 'run', '--train-iter', 60, cwd=stopped)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [path.name for path in stopped.glob('run*')] == ['run']
    wanted, got = checkpoints(whole), checkpoints(stopped)
    assert set(wanted) == {'ckpt_best.pth.tar', *(f'iteration_{k}.pth.tar' for k in (30, 45, 60))}
    for name in ('iteration_60.pth.tar', 'iteration_45.pth.tar', 'ckpt_best.pth.tar'):
        assert name in got
        assert_same(got[name], wanted[name])
    summaries = [json.loads((folder / 'run' / 'summary.json').read_text()) for folder in (stopped, whole)]
    for summary in summaries:
        del summary['seconds']
    assert summaries[0] == summaries[1] and summaries[0]['evaluated_at'] == [20, 40, 60]


def test_a_checkpoint_is_written_where_every_evaluation_is_the_best_so_far(tmp_path, data, monkeypatch):
    """At the same update, as DI-engine's defaults have it."""
    path = config(tmp_path, data)
    path.write_text(path.read_text().replace('save_ckpt_after_iter=15', 'save_ckpt_after_iter=20') + (
        "import ding_cawr.engine.follower\n"
        "ding_cawr.engine.follower.Follower._best = property(lambda self: -1e18, lambda self, score: None)\n"
        "from ding.worker import InteractionSerialEvaluator as Evaluator\n"
        "evaluate = Evaluator.eval\n"
        "def rising(self, *arguments):\n"
        "    self._max_episode_return = -1e9\n"
        "    return evaluate(self, *arguments)\n"
        "Evaluator.eval = rising\n"
    ))
    train_offline(path, cwd=tmp_path)
    states = checkpoints(tmp_path)
    assert set(states) == {'ckpt_best.pth.tar', *(f'iteration_{k}.pth.tar' for k in (20, 40, 60))}
    for name, state in states.items():
        assert state['last_iter'] == state['iteration'] == int(name.removesuffix('.pth.tar').rpartition('_')[2]) \
            if 'best' not in name else state['last_iter'] == 60
        assert len(state['run']['evaluations']['values']) == state['last_iter'] // 20


def test_two_processes_do_not_train_in_one_folder(tmp_path, begin, monkeypatch):
    begin(tmp_path, 20)
    with lock_folder(tmp_path / 'run'):
        result = cawr('resume', 'run', '--train-iter', 40, cwd=tmp_path)
    assert result.returncode == 1 and 'another process is training in' in result.stderr


def test_resume_finds_relative_data_from_another_folder_and_a_replica_goes_on(tmp_path, data):
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'inner' / 'data.hdf5').write_bytes(data.read_bytes())
    path = config(tmp_path / 'inner', Path('data.hdf5'), FORMS['every part has a state'])
    path.write_text(path.read_text() + (
        "if __name__ == '__main__':\n"
        "    from ding_cawr import train_replicas\n"
        "    train_replicas((main_config, create_config), [4, 5], max_train_iter=40)\n"
    ))
    python(path.name, cwd=tmp_path / 'inner')
    result = cawr('resume', 'inner/run_seed5', '--train-iter', 60, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    summary = json.loads((tmp_path / 'inner' / 'run_seed5' / 'summary.json').read_text())
    assert summary['evaluated_at'] == [20, 40, 60]


def test_resume_finds_several_files_and_scales_their_rewards(tmp_path):
    """The paths are relative, the rewards scaled, and the run goes on from elsewhere."""
    write_d4rl_file(tmp_path / 'one.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')])
    write_d4rl_file(tmp_path / 'two.hdf5', episodes=[(80, 'terminal')], seed=1)
    text = CONFIG.replace('data_path={data!r}', "data_path=('one.hdf5', 'two.hdf5')").format(more='', iterations=30)
    scaled = text.replace('policy=dict(', 'policy=dict(collect=dict(reward=dict(scale=2, shift=-1)),')
    train_offline(write_config(tmp_path / 'config.py', scaled), '--train-iter', 30, cwd=tmp_path)
    kept = json.loads(load(tmp_path / 'run' / 'ckpt' / 'iteration_30.pth.tar')['configuration'])
    assert kept['policy']['collect']['data_path'] == [str(tmp_path / 'one.hdf5'), str(tmp_path / 'two.hdf5')]
    said = cawr('resume', tmp_path / 'run', '--train-iter', 45, cwd=tmp_path.parent)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / 'run' / 'ckpt' / 'iteration_45.pth.tar').is_file()


def test_a_run_whose_next_evaluation_comes_after_its_end(tmp_path, begin, monkeypatch):
    """DI-engine's pipeline has no score to print then."""
    begin(tmp_path, 40)
    result = cawr('resume', 'run', '--train-iter', 45, '--json', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout)['checkpoint'] == 'run/ckpt/iteration_45.pth.tar'
    monkeypatch.chdir(tmp_path)
    assert resume('run', 50) == Path('run/ckpt/iteration_50.pth.tar')
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert summary['evaluated_at'] == [20, 40] and summary['iterations'] == 50


def test_a_schedule_over_the_run_becomes_one_over_the_longer_run(tmp_path, data, monkeypatch):
    """Else the policy's rate, 0 at the end of the run, would stay 0."""
    train_offline(config(tmp_path, data, 'cosine_iterations=20,', iterations=20), cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    first, last = load(Path('run/ckpt/iteration_20.pth.tar')), load(resume('run', 30))
    assert not torch.equal(last['model']['policy.net.0.weight'], first['model']['policy.net.0.weight'])


def test_resume_goes_further_and_says_what_it_cannot_do(tmp_path, begin, monkeypatch):
    begin(tmp_path, 20)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='run has its 20 iterations; to go on, give --train-iter with more than that'):
        resume('run')
    result = cawr('resume', 'run', '--train-iter', 50, '--json', cwd=tmp_path)
    assert json.loads(result.stdout) == {'exp_dir': 'run', 'checkpoint': 'run/ckpt/iteration_50.pth.tar'}
    assert load(tmp_path / 'run/ckpt/iteration_50.pth.tar')['iteration'] == 50
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere'"):
        resume('nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty has no folder ckpt, so it is not the folder of a run'):
        resume('empty')
    assert not list((tmp_path / 'empty').iterdir())
    (tmp_path / 'empty' / 'ckpt').mkdir()
    with pytest.raises(FileNotFoundError, match='has no whole checkpoint'):
        resume('empty')

    (tmp_path / 'run/ckpt/iteration_99.pth.tar').mkdir()
    newest = tmp_path / 'run/ckpt/iteration_50.pth.tar'
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match='iteration_(50|99).pth.tar is damaged and passed over'), \
            pytest.raises(ValueError, match='run has its 45 iterations'):
        resume('run', 45)
    newest.unlink()
    (tmp_path / 'run/ckpt/iteration_99.pth.tar').rmdir()  # whose name is no checkpoint's
    whole = load(tmp_path / 'run/ckpt/iteration_45.pth.tar')
    for change, message in (
        (dict(format=None), 'the checkpoint has the format None'),
        (dict(configuration=None), 'does not say how its run was configured.*load_ckpt_before_run'),
        (dict(configuration='{'), 'its configuration cannot be used'),
        (dict(configuration='{}'), "its configuration cannot be used .*no attribute 'policy'"),
        (dict(run={}), 'the checkpoint: its evaluations cannot be used'),
        (dict(configuration=whole['configuration'].replace('"hopper-medium-v2"', '5')), 'env.env_id is not a text'),
        (dict(iteration=-5), 'its iteration cannot be used'), (dict(last_iter=7), 'its iteration cannot be used'),
    ):
        torch.save({**whole, **change}, tmp_path / 'run/ckpt/iteration_45.pth.tar')
        with pytest.raises(ValueError, match=message):
            resume('run', 60)


def test_resume_runs_no_code_that_a_checkpoint_names(tmp_path, begin, monkeypatch):
    """A module beside it that any part of its configuration imports, or a pickle that it reads."""
    begin(tmp_path, 20)
    (tmp_path / 'evil.py').write_text("open('made', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    hook = dict(type='load_ckpt', name='load', position='before_run', ext_args=dict(load_path='s3://pickle'))
    path = tmp_path / 'run' / 'ckpt' / 'iteration_20.pth.tar'
    state = load(path)
    monkeypatch.chdir(tmp_path)
    for *place, key, value in (
        ('policy', 'import_names', ['evil']), ('env', 'import_names', ['ding_cawr', 'evil.module']),
        ('import_names', ['evil']), ('env', 'manager', 'import_names', ['evil']),
        ('policy', 'collect', 'data_type', 'naive'), ('policy', 'type', 'evil_command'),
        ('env', 'env_id', 'evil:Hopper-v4'), ('env', 'other_id', 'evil:Hopper-v4'),
        ('policy', 'learn', 'learner', 'hook', 'mine', hook),
        ('policy', 'learn', 'learner', 'hook', 'mine', {**hook, 'type': 'evil'}),
    ):
        section = configuration = json.loads(state['configuration'])
        for name in place:
            section = section[name]
        section[key] = value
        torch.save({**state, 'configuration': json.dumps(configuration)}, path)
        with pytest.raises(ValueError, match='iteration_20.pth.tar.*(could be any code|would import a module)'):
            resume('run', 40)
        assert not (tmp_path / 'made').exists()


#: A module that registers an environment, of hopper's widths.
MINE = '''
import gymnasium
gymnasium.register('Mine-v0', entry_point='gymnasium.envs.mujoco.hopper_v4:HopperEnv', max_episode_steps=20)
'''


@pytest.mark.parametrize('env_id, import_names', [
    ('Mine-v0', ['ding_cawr']), ('mine.envs:Mine-v0', ['ding_cawr']), ('Mine-v0', ['ding_cawr', 'mine.envs']),
])
def test_a_run_in_an_environment_of_the_users_own_module(tmp_path, data, env_id, import_names):
    """Registered by the configuration, or by the modules that it names."""
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'envs.py').write_text(MINE)
    path = config(tmp_path, data)
    path.write_text('import sys\nsys.path.insert(0, ".")\nimport mine.envs\n' + path.read_text().replace(
        'hopper-medium-v2', env_id) + f'create_config.env.import_names = {import_names}\n')
    train_offline(path, '--train-iter', 20, cwd=tmp_path)
    checkpoint = 'run/ckpt/iteration_20.pth.tar'
    for words in (('resume', 'run', '--train-iter', 40), ('eval', checkpoint, '--episodes', 1)):
        result = cawr(*words, cwd=tmp_path)
        assert result.returncode == 1 and '--import' in result.stderr and 'Traceback' not in result.stderr
        result = cawr(*words, '--import', 'mine', '--import', 'mine.envs', cwd=tmp_path)
        assert result.returncode == 0, result.stderr[-2000:]
    result = cawr('resume', 'run', '--import', 'other', cwd=tmp_path)
    assert result.returncode == 1 and "import_names (--import) has 'other', which cannot be imported" in result.stderr


def test_a_run_whose_data_have_moved(tmp_path, data, monkeypatch):
    """And whose critics have."""
    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'data.hdf5').write_bytes(data.read_bytes())
    train_offline(config(tmp_path / 'critics', data), '--train-iter', 20, cwd=tmp_path / 'critics')
    critics = tmp_path / 'critics' / 'run' / 'ckpt' / 'iteration_20.pth.tar'
    path = config(tmp_path / 'there', 'data.hdf5', f'pretrained_critics={str(critics)!r},')
    train_offline(path, '--train-iter', 20, cwd=tmp_path / 'there')
    critics.unlink()
    (tmp_path / 'there').rename(tmp_path / 'here')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='its data are not at .*there/data.hdf5; say where .* --data PATH'):
        resume('here/run', 40)
    other = write_d4rl_file(tmp_path / 'other.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 5, seed=1)
    with pytest.raises(ValueError, match=r'iteration_20.*trained on other data .* in other.hdf5; .* --data PATH'):
        resume('here/run', 40, data_path=other.name)
    result = cawr('resume', 'here/run', '--train-iter', 40, '--data', 'here/data.hdf5', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert resume('here/run', 45) == Path('here/run/ckpt/iteration_45.pth.tar')
    for part in ('critic', 'value'):
        states = [load(tmp_path / f'here/run/ckpt/iteration_{k}.pth.tar')['model'] for k in (30, 45)]
        for name in states[0]:
            if name.startswith(part):
                assert torch.equal(states[0][name], states[1][name])


@pytest.mark.parametrize('behind', [0, 1])
def test_di_engines_own_way_to_continue_restores_the_learner(tmp_path, begin, data, behind):
    """Also from DI-engine's own periodic checkpoints, whose learner's count is one behind the updates."""
    begin(tmp_path, 40)
    checkpoint = tmp_path / 'run/ckpt/iteration_40.pth.tar'
    torch.save({**load(checkpoint), 'last_iter': 40 - behind}, checkpoint)
    path = config(tmp_path, data)
    path.write_text(path.read_text() + (
        "main_config.exp_name = 'on'\n"
        "main_config.policy.learn.learner.hook.load_ckpt_before_run = 'run/ckpt/iteration_40.pth.tar'\n"
    ))
    train_offline(path, '--train-iter', 60, cwd=tmp_path)
    summary = json.loads((tmp_path / 'on' / 'summary.json').read_text())
    assert summary['evaluated_at'] == [20, 40, 60] and summary['iterations'] == 60
    assert load(tmp_path / 'on/ckpt/iteration_60.pth.tar')['last_iter'] == 60
    ding('-m', 'eval', '-c', 'config.py', '--load-path', 'on/ckpt/iteration_60.pth.tar', cwd=tmp_path)


@pytest.mark.parametrize('harm, message', [
    (lambda content: content[:-300], 'is damaged .*take another checkpoint'),
    (lambda content: content.replace(content[3000:3004], b'abcd'), 'is damaged .a checksum differs.; take another'),
])
def test_di_engines_own_way_to_continue_takes_no_damaged_file(tmp_path, begin, data, harm, message):
    """Its reader compares no checksums."""
    begin(tmp_path, 20)
    checkpoint = tmp_path / 'run' / 'ckpt' / 'iteration_20.pth.tar'
    checkpoint.write_bytes(harm(checkpoint.read_bytes()))
    path = config(tmp_path, data)
    path.write_text(path.read_text() + (
        "main_config.exp_name = 'on'\n"
        "main_config.policy.learn.learner.hook.load_ckpt_before_run = 'run/ckpt/iteration_20.pth.tar'\n"
    ))
    result = train_offline(path, cwd=tmp_path, check=False)
    assert result.returncode == 1 and re.search(f'ValueError: .*iteration_20.pth.tar {message}', result.stderr)


def test_a_worse_model_never_replaces_the_best(tmp_path, begin):
    """The best score so far is made one that no evaluation reaches."""
    begin(tmp_path, 40)
    folder = tmp_path / 'run' / 'ckpt'
    path = folder / 'iteration_40.pth.tar'
    state = load(path)
    state['run']['evaluations']['values'] = [1e6, 0.0]
    torch.save(state, path)
    kept = load(folder / 'ckpt_best.pth.tar')
    kept['run']['evaluations']['values'][-1] = 1e6
    torch.save(kept, folder / 'ckpt_best.pth.tar')
    best = (folder / 'ckpt_best.pth.tar').read_bytes()
    assert cawr('resume', 'run', '--train-iter', 60, cwd=tmp_path).returncode == 0
    assert (folder / 'ckpt_best.pth.tar').read_bytes() == best
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['best'] == 1e6


def test_the_best_of_a_folder_is_judged_by_what_it_holds(tmp_path, begin):
    """Continued elsewhere, where no best is yet, and where the best is damaged."""
    begin(tmp_path, 20)
    folder = tmp_path / 'run' / 'ckpt'
    state = load(folder / 'iteration_20.pth.tar')
    state['run']['evaluations']['values'] = [1e6]
    torch.save(state, folder / 'iteration_20.pth.tar')
    (folder / 'ckpt_best.pth.tar').write_bytes(b'damaged')
    result = cawr('resume', 'run', '--train-iter', 60, cwd=tmp_path)
    assert result.returncode == 0 and 'ckpt_best.pth.tar is damaged' in result.stderr
    values = json.loads((tmp_path / 'run' / 'summary.json').read_text())['evaluations']
    assert load(folder / 'ckpt_best.pth.tar')['run']['evaluations']['values'][-1] == max(values[1:])


def test_a_run_that_reached_its_stop_value_is_at_its_end(tmp_path, data, monkeypatch):
    path = config(tmp_path, data)
    path.write_text(path.read_text() + "main_config.env.stop_value = -1e9\n")
    train_offline(path, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='run has its 20 iterations'):
        resume('run')
    assert resume('run', 60) == Path('run') / 'ckpt' / 'iteration_40.pth.tar'


def test_a_run_stopped_before_its_first_periodic_checkpoint_goes_on_from_its_best(tmp_path, data):
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    for folder in (whole, stopped):
        path = config(folder, data)
        path.write_text(path.read_text().replace('save_ckpt_after_iter=15', 'save_ckpt_after_iter=50'))
    train_offline(whole / 'config.py', cwd=whole)
    train_offline(stopped / 'config.py', '--train-iter', 20, cwd=stopped)
    (stopped / 'run' / 'ckpt' / 'iteration_20.pth.tar').unlink()  # as a kill would have left it
    result = cawr('resume', 'run', '--train-iter', 60, cwd=stopped)
    assert result.returncode == 0, result.stderr[-2000:]
    wanted, got = checkpoints(whole), checkpoints(stopped)
    assert set(got) == set(wanted)
    for name in wanted:
        assert_same(got[name], wanted[name])


#: The command, with garbage collected in the middle of the exit of DI-engine's TensorBoard writer, and nowhere else.
COLLECTING_AT_EXIT = '''
import gc, sys
from multiprocessing import queues
from ding_cawr.cli import cawr
start = queues.Queue._start_thread
queues.Queue._start_thread = lambda queue: (gc.collect(), start(queue))
gc.disable()
cawr(sys.argv[1:])
'''


def test_a_run_that_fails_does_not_hang_at_exit(tmp_path, begin):
    """DI-engine's evaluator, collected there, would wait for a lock that the writer holds."""
    begin(tmp_path, 20)
    checkpoint = tmp_path / 'run' / 'ckpt' / 'iteration_20.pth.tar'
    torch.save({**load(checkpoint), 'data': '0' * 64}, checkpoint)
    words = ['-c', COLLECTING_AT_EXIT, 'resume', 'run', '--train-iter', 40]
    result = python(*words, cwd=tmp_path, check=False)
    assert result.returncode == 1 and 'the checkpoint was trained on other data' in result.stderr


def test_other_data_of_the_same_size_are_refused(tmp_path, data):
    copy = tmp_path / 'copy.hdf5'
    copy.write_bytes(data.read_bytes())
    train_offline(config(tmp_path, copy), '--train-iter', 20, cwd=tmp_path)
    with h5py.File(copy, 'a') as file:
        file['rewards'][:] = file['rewards'][:] * -5
    result = cawr('resume', 'run', '--train-iter', 40, cwd=tmp_path)
    assert result.returncode == 1 and 'the checkpoint was trained on other data' in result.stderr


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, monkeypatch, error):
    path = tmp_path / 'ckpt' / 'iteration_1.pth.tar'
    write_checkpoint(path, {'a': torch.ones(2)})

    def fail(state, name):
        Path(name).write_bytes(b'half')
        raise error

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(type(error)):
        write_checkpoint(path, {'a': torch.zeros(2)})
    assert [each.name for each in path.parent.iterdir()] == [path.name] and torch.equal(load(path)['a'], torch.ones(2))


def test_a_run_that_cannot_write_any_more_goes_on_when_it_can(tmp_path, data):
    """From the first evaluation on, no file may be as large as a checkpoint, which has 70 kB; a full disk is the same
    to it. What the run has printed until then, which goes to a file too, is half as much."""
    path = config(tmp_path, data)
    text = path.read_text()
    path.write_text(text + (
        "import resource, signal\n"
        "from ding.worker import InteractionSerialEvaluator as Evaluator\n"
        "evaluate = Evaluator.eval\n"
        "def limited(self, *arguments):\n"
        "    result = evaluate(self, *arguments)\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))\n"
        "    return result\n"
        "Evaluator.eval = limited\n"
    ))
    result = train_offline(path, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert re.search(r'OSError: .*iteration_30.pth.tar could not be written, with [\d.]+ MiB free', result.stderr)
    assert set(os.listdir(tmp_path / 'run' / 'ckpt')) == {'iteration_15.pth.tar', 'ckpt_best.pth.tar'}
    result = cawr('resume', 'run', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['evaluated_at'] == [20, 40, 60]


def test_random_states_come_back(tmp_path):
    torch.save(random_state(), tmp_path / 'state')
    drawn = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
    restore_random_state(load(tmp_path / 'state'))
    assert [random.random(), np.random.rand(), torch.rand(()).item()] == drawn  # noqa: NPY002


def test_checkpoints_by_their_updates(tmp_path):
    for name in ('iteration_10', 'iteration_9', 'ckpt_best', '.1.iteration_11', 'iteration_x'):
        (tmp_path / f'{name}.pth.tar').touch()
    assert list(numbered(tmp_path)) == [9, 10]

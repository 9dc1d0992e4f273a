"""A folder of its own for every run, in one place, with one run at a time in it."""
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config, read_config_directly
from ding.entry import serial_pipeline_offline
from ding.utils import deep_merge_dicts
from easydict import EasyDict
from helpers import DING, PATIENCE, cawr, python, start, train_offline, write_config

from ding_cawr import load_transitions, make_config
from ding_cawr.runs import lock
from ding_cawr.runs.lock import lock_folder

#: DI-engine reads it without importing this package, which its own compile_config then does.
CONFIG = '''
from easydict import EasyDict
main_config, create_config = EasyDict({main}), EasyDict({create})
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_d4rl_file(tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(40, 'terminal')] * 3)


def config(folder: Path, data: Path, exp_name: str | Path = 'run', more: str = '', **overrides) -> Path:
    main, create = make_config(
        'Hopper-v4', data_path=data, exp_name=exp_name, eval_freq=10, batch_size=32, n_evaluator_episode=1,
        policy=dict(model=dict(hidden_sizes=(16, 16))), **{'iterations': 20, **overrides}
    )
    return write_config(folder / 'config.py', CONFIG.format(main=dict(main), create=dict(create)) + more)


def compiled(exp_name: str, **options) -> str:
    """Return the folder that DI-engine gives to a run; its files are in it."""
    main, create = make_config('Hopper-v4', data_path='bundled:hopper-medium-expert', exp_name=exp_name)
    create.policy.type += '_command'
    cfg = compile_config(main, auto=True, create_cfg=create, **options)
    assert read_config_directly(os.path.join(cfg.exp_name, 'total_config.py'))['exp_config'] == cfg
    return cfg.exp_name


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    """The clock of DI-engine's names stands still."""
    monkeypatch.chdir(tmp_path)

    class Still:
        now = staticmethod(lambda: Still)
        strftime = staticmethod(lambda form: '_then')

    monkeypatch.setattr('ding.config.config.datetime.datetime', Still)
    assert [compiled('run') for _ in range(4)] == ['run', 'run_then', 'run_then_2', 'run_then_3']
    assert compiled('run', renew_dir=False) == 'run'


def test_a_folder_that_appears_between_the_look_and_the_making(tmp_path, monkeypatch):
    """As where another process is faster."""
    monkeypatch.chdir(tmp_path)
    makedirs = os.makedirs

    def late(name, *args, **kwargs):
        if name == 'run':
            makedirs('run')
        makedirs(name, *args, **kwargs)

    monkeypatch.setattr(os, 'makedirs', late)
    assert compiled('run') == 'run_2' and os.listdir('run') == []


def test_processes_that_begin_at_once(tmp_path, data):
    path, seeds = config(tmp_path, data), (0, 1, 2)
    processes = [start(DING, '-m', 'serial_offline', '-c', path, '-s', seed, cwd=tmp_path) for seed in seeds]
    for process in processes:
        _, errors = process.communicate(300)
        assert process.returncode == 0, errors[-3000:]
    runs = list(tmp_path.glob('run*'))
    assert len(runs) == 3 and tmp_path / 'run' in runs
    texts = [(run / 'total_config.py').read_text() for run in runs]
    assert sorted(seed for seed in seeds for text in texts if f"'seed': {seed}" in text) == list(seeds)
    for run in runs:
        assert (run / 'ckpt' / 'iteration_20.pth.tar').is_file()
        assert len(os.listdir(run / 'log' / 'serial')) == 1
        assert (run / 'log' / 'learner' / 'learner_logger.txt').read_text().count('Training Iteration 0 Result') == 1


@pytest.mark.parametrize('kind', [str, Path])
def test_an_absolute_name_is_one_place(tmp_path, data, kind):
    here, run = tmp_path / 'here', tmp_path / 'scratch' / 'run'
    here.mkdir()
    train_offline(config(tmp_path, data, kind(run)), cwd=here)
    assert os.listdir(here) == []
    assert {'ckpt', 'log', 'summary.json', 'learning_curve.png', 'total_config.py'} <= set(os.listdir(run))
    assert {'serial', 'learner', 'evaluator'} <= set(os.listdir(run / 'log'))
    result = cawr('resume', run, '--train-iter', 30, '--json', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout)['checkpoint'].endswith('scratch/run/ckpt/iteration_30.pth.tar')


def test_a_folder_that_cannot_be_begun_is_not_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(config, path, **options):
        Path(path).write_text('half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('ding_cawr.engine.folders._SAVE_CONFIG', fail)
    with pytest.raises(OSError, match='No space'):
        compiled('run')
    assert os.listdir() == []
    os.mkdir('run')
    with pytest.raises(OSError, match='No space'):
        compiled('run', renew_dir=False)
    assert os.listdir() == ['run']


@pytest.mark.parametrize('changes, message', [
    (dict(learn=dict(temperature=0)), 'learn.temperature is 0'),
    (dict(model=dict(hidden_sizes=3)), 'model.hidden_sizes is 3'),
    (dict(collect=dict(data_path='absent.hdf5')), 'absent.hdf5 does not exist'),
    (dict(learn=dict(best_episodes=0.5), collect=dict(data_path='unordered.npz')), 'does not tell episodes apart'),
    *((dict(learn=dict(learner=dict(hook=dict(load_ckpt_before_run=path)))), said) for path, said in (
        ('absent.pth.tar', "no checkpoint 'absent.pth.tar'"),
        ('other.pth.tar', 'other.pth.tar: the checkpoint has the format None'))),
])
def test_a_run_that_fails_before_it_trains_leaves_no_folder(tmp_path, monkeypatch, data, changes, message):
    """Nor those that the folder is in, where they were not there before."""
    monkeypatch.chdir(tmp_path)
    torch.save({}, 'other.pth.tar')
    rows = load_transitions(data)
    np.savez('unordered.npz', **{name: rows.table[name] for name in ('obs', 'action', 'reward', 'next_obs', 'done')})
    os.mkdir('sweep')
    here = set(os.listdir())
    options = dict(exp_name='sweep/of/run', iterations=4, eval_freq=4, n_evaluator_episode=1, batch_size=8)
    main_config, create_config = make_config('Hopper-v4', data_path=data, **options)
    main_config.policy = EasyDict(deep_merge_dicts(main_config.policy, changes))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        serial_pipeline_offline((main_config, create_config), seed=0)
    assert set(os.listdir()) == here and os.listdir('sweep') == []


def test_a_sweep_in_one_process_of_which_one_fails(tmp_path, data):
    """Every run has its log for itself."""
    config(tmp_path, data)
    python('-c', '''
import sys
sys.path.insert(0, '.')
import config, ding_cawr
from ding.entry import serial_pipeline_offline
from ding.worker import InteractionSerialEvaluator as Evaluator
evaluate, seed, kept = Evaluator.eval, 0, []
def failing(self, *args, **kwargs):
    if seed == 1:
        raise RuntimeError('the environment is gone')
    return evaluate(self, *args, **kwargs)
Evaluator.eval = failing
for seed in range(3):
    config.main_config.exp_name = f'run_{seed}'
    try:
        serial_pipeline_offline((config.main_config, config.create_config), seed=seed)
    except RuntimeError as error:
        kept.append(error)
assert len(kept) == 1
''', cwd=tmp_path)
    for seed in (0, 1, 2):
        log = (tmp_path / f'run_{seed}' / 'log' / 'learner' / 'learner_logger.txt').read_text()
        assert log.count('Training Iteration 0 Result') == 1
        assert (tmp_path / f'run_{seed}' / 'summary.json').exists() == (seed != 1)


#: A notebook: training is interrupted, the error is kept, and the run goes on in the same process or in another.
NOTEBOOK = '''
import os, signal, subprocess, sys, time
sys.path.insert(0, '.')
import config, ding_cawr
from ding.entry import serial_pipeline_offline
from ding_cawr.engine.resume import resume
from ding_cawr.runs.lock import lock_folder
from ding.worker import BaseLearner
train = BaseLearner.train
def interrupted(self, *args, **kwargs):
    if self.train_iter == 15:
        try:
            lock_folder('run')
        except ValueError as error:
            print('REFUSED', error)
        os.kill(os.getpid(), signal.SIGINT)
    return train(self, *args, **kwargs)
BaseLearner.train = interrupted
try:
    serial_pipeline_offline((config.main_config, config.create_config))
except KeyboardInterrupt as error:
    sys.last_value = error
BaseLearner.train = train
print('CHECKPOINTS', sorted(os.listdir('run/ckpt')))
if sys.argv[1] == 'same':
    print('DONE', resume('run', 20))
else:
    print('ALIVE', flush=True)
    while not os.path.exists('run/summary.json'):
        time.sleep(0.1)
'''


def test_an_interrupted_run_goes_on_in_the_same_process(tmp_path, data):
    config(tmp_path, data)
    result = python('-c', NOTEBOOK, 'same', cwd=tmp_path)
    assert 'REFUSED this process is training in run; wait for it' in result.stdout
    assert "CHECKPOINTS ['ckpt_best.pth.tar']" in result.stdout
    assert 'DONE run/ckpt/iteration_20.pth.tar' in result.stdout
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['evaluated_at'] == [10, 20]


def test_an_interrupted_run_goes_on_beside_the_process_that_began_it(tmp_path, data):
    config(tmp_path, data)
    notebook = start('-c', NOTEBOOK, 'other', cwd=tmp_path, output=os.open(tmp_path / 'out', os.O_WRONLY | os.O_CREAT))
    while 'ALIVE' not in (tmp_path / 'out').read_text():
        assert notebook.poll() is None
    result = cawr('resume', 'run', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert notebook.wait(PATIENCE) == 0


@pytest.fixture
def busy(tmp_path):
    """``busy(at_end) -> (go, thread)``: a thread in a function that is watched, until ``go`` is set."""
    threads = []

    def begin(at_end: Callable[[], None]) -> tuple[threading.Event, threading.Thread]:
        there, go = threading.Event(), threading.Event()

        def pipeline() -> None:
            lock_folder(tmp_path).watch(sys._getframe(), at_end)
            there.set()
            go.wait()

        threads.append((go, threading.Thread(target=pipeline)))
        threads[-1][1].start()
        there.wait()
        return threads[-1]

    yield begin
    for go, thread in threads:
        go.set()
        thread.join()


def is_free(folder: Path) -> bool:
    """Whether another process could take it."""
    other = lock.filelock.FileLock(folder / '.lock')
    try:
        other.acquire(timeout=0)
    except lock.filelock.Timeout:
        return False
    other.release()
    return True


def test_a_lock_is_held_for_as_long_as_the_function_runs(tmp_path, busy, monkeypatch):
    monkeypatch.setattr(lock, 'POLL', 0.05)
    ended = threading.Event()
    go, thread = busy(ended.set)
    with pytest.raises(ValueError, match='this process is training in'):
        lock_folder(tmp_path)
    assert not ended.wait(0.5) and not is_free(tmp_path)
    go.set()
    assert ended.wait(PATIENCE) and is_free(tmp_path)


def test_who_takes_an_abandoned_lock_keeps_it(tmp_path, busy, monkeypatch):
    """The watch over the function before does not release it."""
    monkeypatch.setattr(lock, 'POLL', 0.05)
    ended = threading.Event()
    go, thread = busy(ended.set)
    go.set()
    thread.join()
    with lock_folder(tmp_path):
        ended.wait(0.5)
        assert not is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_disk_without_locks(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise NotImplementedError('FileSystem does not appear to support flock')

    monkeypatch.setattr(lock.filelock.FileLock, 'acquire', refuse)
    with pytest.warns(UserWarning, match='has no locks: nothing keeps other processes out'):
        lock_folder(tmp_path).release()


@pytest.mark.parametrize('name, message', [
    ('', "exp_name is ''; it must be the name of a folder"), (None, 'exp_name is None; it must be'),
    (5, 'exp_name is 5; it must be'), ('file/run', "exp_name is 'file/run', but a part of it is a file, not a folder"),
])
def test_a_name_that_cannot_be_a_folder(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    main_config, create_config = make_config('hopper-medium-v2')
    main_config.exp_name = name
    with pytest.raises(ValueError, match=message):
        compile_config(main_config, auto=True, create_cfg=create_config)


def test_a_name_that_is_too_long_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='that folder cannot be made: File name too long; take another one'):
        compiled(f"sweep/of/{'a' * 300}")
    assert os.listdir() == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = '/proc/absent/run'
    with pytest.raises(ValueError, match=f"exp_name is '{name}', but that folder cannot be made: .*; take another one"):
        compiled(name)

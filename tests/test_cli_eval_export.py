"""``cawr eval`` and ``cawr export`` on the checkpoints of a real run."""
from __future__ import annotations

import json
import re
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import write_d4rl_file
from helpers import click_runner, train_offline, write_config

from ding_cawr import load_policy, normalized_score
from ding_cawr.cli import cawr
from ding_cawr.environments import Environment

CONFIG = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    'hopper-medium-v2', data_path='{data}', iterations=20, eval_freq=20, batch_size=32, n_evaluator_episode=4,
    norm_obs=dict(use_norm={normalized}), exp_name='run', policy=dict(model=dict(hidden_sizes=(16, 16)))
)
'''


@pytest.fixture(scope='module', params=[False, True], ids=['raw', 'normalized'])
def folder(request, tmp_path_factory):
    """The folder of a run of 20 iterations with seed 3, evaluated once, at its end, in four episodes."""
    folder = tmp_path_factory.mktemp('run')
    data = write_d4rl_file(folder / 'hopper.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 5)
    config = write_config(folder / 'small.py', CONFIG.format(data=data, normalized=request.param))
    train_offline(config, '-s', 3, cwd=folder)
    return folder / 'run'


@pytest.fixture
def checkpoint(folder):
    return folder / 'ckpt' / 'iteration_20.pth.tar'


@pytest.fixture
def other(tmp_path):
    """A checkpoint that does not say its environment."""
    def write(checkpoint, **changes):
        path = tmp_path / 'other.pth.tar'
        torch.save({**torch.load(checkpoint, weights_only=True), 'env_id': None, **changes}, path)
        return path

    return write


def run(*arguments):
    return click_runner().invoke(cawr, [str(argument) for argument in arguments])


def run_json(*arguments) -> dict:
    result = run(*arguments, '--json')
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error(result) -> str:
    """The message of a failed command: one line."""
    assert result.exit_code == 1 and result.stderr.startswith('Error: ') and result.stderr.count('\n') == 1
    return result.stderr


def test_the_first_evaluation_of_the_run_is_repeated(folder, checkpoint):
    """The same episodes, one by one, as the run's evaluator logged them."""
    told = run_json('eval', checkpoint, '--episodes', 4, '--seed', 3)
    log = (folder / 'log' / 'evaluator' / 'evaluator_logger.txt').read_text()
    logged = dict(re.findall(r'env (\d) finish episode, final reward: (\S+),', log))
    assert told['returns'] == pytest.approx([float(logged[env]) for env in '0123'], abs=2e-3)
    summary = json.loads((folder / 'summary.json').read_text())
    assert told['normalized_score']['mean'] == pytest.approx(summary['evaluations'][0], abs=1e-3)
    assert run_json('eval', checkpoint, '--episodes', 4, '--seed', 4)['returns'] != told['returns']


def test_json_has_every_episode(checkpoint):
    told = run_json('eval', checkpoint, '--episodes', 3)
    assert {name: told[name] for name in ('checkpoint', 'iteration', 'env_id', 'seed', 'episodes')} == dict(
        checkpoint=str(checkpoint), iteration=20, env_id='hopper-medium-v2', seed=0, episodes=3
    )
    assert len(set(told['returns'])) == len(told['lengths']) == 3 and all(length > 5 for length in told['lengths'])
    returns = np.array(told['returns'])
    assert told['normalized_scores'] == pytest.approx(normalized_score('Hopper-v4', returns))
    for name, values in (('return', returns), ('normalized_score', np.array(told['normalized_scores']))):
        assert told[name] == pytest.approx(
            dict(mean=values.mean(), std=values.std(), min=values.min(), max=values.max())
        )


def test_text(checkpoint):
    told = run_json('eval', checkpoint, '--episodes', 2, '--seed', 5)
    lines = dict(re.split(r' {2,}', line) for line in run(
        'eval', checkpoint, '--episodes', 2, '--seed', 5
    ).stdout.splitlines())
    spread = ', '.join(f'{name} {value:.1f}' for name, value in told['return'].items())
    score = ', '.join(f'{name} {value:.1f}' for name, value in told['normalized_score'].items())
    assert lines == {
        'checkpoint': str(checkpoint), 'iteration': '20', 'env id': 'hopper-medium-v2', 'seed': '5', 'episodes': '2',
        'normalized score': score, 'return': spread,
    }


def test_fifty_start_states_are_the_default(checkpoint):
    told = run_json('eval', checkpoint)
    assert told['episodes'] == len(set(told['returns'])) == 50 and told['seed'] == 0


def test_the_environment_can_be_named_and_must_be_where_the_checkpoint_does_not_say(checkpoint, other):
    path = other(checkpoint)
    message = error(run('eval', path))
    assert 'the checkpoint does not say its environment' in message and '--env-id' in message
    told = run_json('eval', path, '--env-id', 'Hopper-v4', '--episodes', 2)
    assert told['env_id'] == 'Hopper-v4'
    assert told['returns'] == run_json('eval', checkpoint, '--episodes', 2)['returns']
    told = run_json('eval', checkpoint, '--env-id', 'Hopper-v5', '--episodes', 2)
    assert told['env_id'] == 'Hopper-v5' and told['normalized_score'] is None and told['normalized_scores'] is None
    assert 'normalized score    not defined' in run('eval', path, '--env-id', 'Hopper-v5', '--episodes', 1).stdout


@pytest.mark.parametrize('arguments, message', [
    (['--env-id', 'walker2d-medium-v2'], "but env_id 'walker2d-medium-v2' has 17 and 6"),
    (['--env-id', 'hoper-medium-v2'], "did you mean 'hopper-medium-v2'?"),
    (['--video', 'a.gif'], "a.gif: its name ends in '.gif'; it must end in .mp4"),
])
def test_evaluations_that_cannot_be_end_in_one_line(checkpoint, arguments, message):
    result = run('eval', checkpoint, *arguments)
    assert message in error(result) and result.stdout == ''


def test_an_environment_that_fails_ends_in_one_line(checkpoint, tmp_path, monkeypatch):
    (tmp_path / 'failing_env.py').write_text(
        "import gymnasium\nfrom gymnasium.envs.mujoco.hopper_v4 import HopperEnv\n"
        "class Failing(HopperEnv):\n    def step(self, action):\n        assert False, 'joint limit'\n"
        "gymnasium.register('Failing-v0', entry_point=Failing, max_episode_steps=10)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = run('eval', checkpoint, '--import', 'failing_env', '--env-id', 'Failing-v0')
    assert result.exit_code == 1 and result.stderr.splitlines()[-1] == \
        'Error: Failing-v0: step raised AssertionError: joint limit'


@pytest.mark.parametrize('command', [['eval'], ['export']])
def test_bad_checkpoints_end_in_one_line(tmp_path, command):
    more = [tmp_path / 'a.pt'] if command == ['export'] else []
    assert 'there is no checkpoint' in error(run(*command, tmp_path / 'absent', *more))
    torch.save({'model': {}}, tmp_path / 'foreign')
    assert "is not a checkpoint of this package's learner" in error(run(*command, tmp_path / 'foreign', *more))
    (tmp_path / 'cut').write_bytes((tmp_path / 'foreign').read_bytes()[:-100])
    assert 'damaged or cut short' in error(run(*command, tmp_path / 'cut', *more))
    assert not (tmp_path / 'a.pt').exists()


def missing_plugin(monkeypatch):
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    return "pip install 'ding_cawr[video]'"


def missing_gl(monkeypatch):
    def picture(self):
        raise AttributeError("'NoneType' object has no attribute\n'glGetError'")

    monkeypatch.setattr(Environment, 'picture', picture)
    return 'try MUJOCO_GL=egl'


@pytest.mark.parametrize('spoil', [missing_plugin, missing_gl])
def test_the_score_is_told_where_no_video_can_be_made(checkpoint, tmp_path, monkeypatch, spoil):
    advice = spoil(monkeypatch)
    result = run('eval', checkpoint, '--episodes', 1, '--video', tmp_path / 'a.mp4')
    assert advice in error(result) and 'no video was written' in result.stderr
    assert 'normalized score    mean' in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_named_and_stdout_stays_json(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(Environment, 'picture', lambda self: np.zeros((64, 64, 3), np.uint8))
    result = run('eval', checkpoint, '--episodes', 1, '--video', tmp_path / 'a.mp4', '--json')
    assert result.exit_code == 0 and json.loads(result.stdout)['episodes'] == 1
    assert result.stderr == f'video: {tmp_path}/a.mp4\n' and (tmp_path / 'a.mp4').stat().st_size > 0


@pytest.mark.parametrize('name', ['a.onnx', 'a.pt'])
def test_export(checkpoint, tmp_path, name):
    path = tmp_path / name
    told = run('export', checkpoint, path)
    assert told.stdout == f'{path}: obs (batch, 11) to action (batch, 3)\n' and told.stderr == ''
    obs = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    if path.suffix == '.pt':
        actions = torch.jit.load(path)(torch.from_numpy(obs)).numpy()
    else:
        actions, = onnxruntime.InferenceSession(path).run(['action'], {'obs': obs})
    np.testing.assert_allclose(actions, load_policy(checkpoint)(obs), atol=1e-6)
    assert 'exists and is not overwritten' in error(run('export', checkpoint, path))
    path.unlink()
    assert run_json('export', checkpoint, path) == dict(
        path=str(path), obs_shape=11, action_shape=3, env_id='hopper-medium-v2', iteration=20
    )


def test_exports_that_cannot_be_end_in_one_line(checkpoint, tmp_path, monkeypatch):
    assert "ends in '.h5'; it must end in .onnx or .pt" in error(run('export', checkpoint, tmp_path / 'a.h5'))
    monkeypatch.setitem(sys.modules, 'onnx', None)
    assert "ONNX needs onnx; pip install 'ding_cawr[onnx]'" in error(run('export', checkpoint, tmp_path / 'a.onnx'))
    assert list(tmp_path.iterdir()) == []

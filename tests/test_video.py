"""Videos of episodes: of gymnasium environments in this process, of MuJoCo's in processes of their own."""
from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from helpers import python

from ding_cawr.algorithms.cawr.model import CAWRModel, MeanPolicy
from ding_cawr.environments import Environment
from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.evaluation.episodes import evaluate
from ding_cawr.evaluation.video import Camera


@pytest.fixture
def policy() -> ActingPolicy:
    torch.manual_seed(0)
    network = MeanPolicy(11, 3, (16, 8)).requires_grad_(False)
    network.net[-1].weight.mul_(500)
    return ActingPolicy(network)


class Drawn(gymnasium.Env):
    """Twelve steps or, from every other start state, nine; its picture is as bright as the actions so far are great."""
    metadata = {'render_modes': ['rgb_array'], 'render_fps': 20}
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (11, ), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (3, ), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left, self._brightness = 12 if seed % 2 else 9, 0.0
        return self._obs(), {}

    def step(self, action):
        self._left, self._brightness = self._left - 1, self._brightness + float(np.abs(action).mean())
        return self._obs(), 1.0, self._left == 0, False, {}

    def _obs(self):
        return self.np_random.normal(size=11).astype(np.float32)

    def render(self):
        return np.full((64, 64, 3), 255 * self._brightness / 12, np.uint8)


@pytest.fixture(scope='module')
def drawn() -> str:
    gymnasium.register('Drawn-v0', entry_point=Drawn)
    return 'Drawn-v0'


@pytest.mark.parametrize('seed', range(3))
def test_a_video_is_of_the_first_episode_of_the_evaluation(policy, drawn, tmp_path, seed):
    camera = Camera(tmp_path / 'a.mp4')
    result = evaluate(policy, drawn, episodes=3, seed=seed)
    assert camera.film(result) == tmp_path / 'a.mp4' and list(tmp_path.glob('*.mp4')) == [tmp_path / 'a.mp4']
    video = imageio.get_reader(tmp_path / 'a.mp4')
    brightness = [picture.mean() / 255 for picture in video]
    assert video.get_meta_data()['fps'] == 20
    assert len(brightness) == result.lengths[0] + 1
    expected = np.append(0, np.cumsum(np.abs(result.actions).mean(axis=1))) / 12
    np.testing.assert_allclose(brightness, expected, atol=0.02)


@pytest.mark.parametrize('name, error', [
    ('a.gif', ValueError), ('absent/a.mp4', FileNotFoundError), ('there.mp4', FileExistsError),
])
def test_a_video_that_cannot_be_written_is_refused_before_the_evaluation(tmp_path, name, error):
    (tmp_path / 'there.mp4').touch()
    with pytest.raises(error, match=name.split('/')[0]):
        Camera(tmp_path / name)


def test_an_interrupted_video_leaves_nothing(policy, drawn, tmp_path, monkeypatch):
    folder, pictures = tmp_path / 'out', iter(range(5))
    folder.mkdir()

    def picture(self):
        if next(pictures) == 4:
            raise KeyboardInterrupt
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(Environment, 'picture', picture)
    with pytest.raises(KeyboardInterrupt):
        Camera(folder / 'a.mp4').film(evaluate(policy, drawn, 1))
    assert list(folder.iterdir()) == []


def test_a_video_without_the_plugin(policy, drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    with pytest.raises(OSError, match=r"no video was written: imageio .* pip install 'ding_cawr\[video\]'"):
        Camera(tmp_path / 'a.mp4').film(evaluate(policy, drawn, 1))
    assert not (tmp_path / 'a.mp4').exists()


@pytest.mark.parametrize('script, message', [
    ('ulimit -f 0\nexec {ffmpeg} "$@"', r'(ffmpeg ended too early \(.+\)|of 13 pictures none got into the file)'),
    ('exit 1', r'ffmpeg ended too early \(.+\)'),
], ids=['cannot write', 'ends at once'])
def test_a_full_disk_leaves_no_video(policy, drawn, tmp_path, monkeypatch, script, message):
    """ffmpeg cannot write a byte: it ends while imageio writes to it, or after the last picture, which imageio keeps to
    itself."""
    ffmpeg, folder, picture = tmp_path / 'ffmpeg', tmp_path / 'out', Environment.picture
    ffmpeg.write_text('#!/bin/sh\n' + script.format(ffmpeg=imageio_ffmpeg.get_ffmpeg_exe()) + '\n')
    ffmpeg.chmod(0o755)
    folder.mkdir()
    monkeypatch.setenv('IMAGEIO_FFMPEG_EXE', str(ffmpeg))
    if script == 'exit 1':
        monkeypatch.setattr(Environment, 'picture', lambda self: time.sleep(0.1) or picture(self))
    with pytest.raises(OSError, match=f'no video was written: {message}; is the disk full') as failure:
        Camera(folder / 'a.mp4').film(evaluate(policy, drawn, 1, seed=1))
    assert '\n' not in str(failure.value) and list(folder.iterdir()) == []


@pytest.fixture
def falling(tmp_path) -> Path:
    """A checkpoint whose hopper soon falls."""
    model = CAWRModel(11, 3, hidden_sizes=(8, 8)).state_dict()
    model['policy.net.4.bias'] = torch.ones(3)
    path = tmp_path / 'some.pth.tar'
    torch.save({'model': model, 'obs_statistics': None, 'iteration': 4, 'env_id': 'hopper-medium-v2'}, path)
    return path


def film_hopper(checkpoint: Path, video: Path, **environment: str) -> subprocess.CompletedProcess:
    """Evaluates and films it in a process of its own, because a process decides once how MuJoCo renders."""
    script = (
        'import sys; from ding_cawr import load_policy; from ding_cawr.evaluation.episodes import evaluate; '
        'from ding_cawr.evaluation.video import Camera; '
        'camera = Camera(sys.argv[2]); result = evaluate(load_policy(sys.argv[1]), episodes=1); '
        'print("steps", result.lengths[0], flush=True); camera.film(result)'
    )
    screens = dict.fromkeys(('MUJOCO_GL', 'DISPLAY', 'WAYLAND_DISPLAY'))
    return python('-c', script, checkpoint, video, check=False, **{**screens, **environment})


def renders(gl: str) -> bool:
    script = 'import mujoco; mujoco.GLContext(64, 64).make_current()'
    return python('-c', script, check=False, MUJOCO_GL=gl).returncode == 0


@pytest.mark.parametrize('gl', ['egl', 'osmesa'])
def test_mujoco_is_filmed(falling, tmp_path, gl):
    if not renders(gl):
        pytest.skip(f'MuJoCo cannot render here with MUJOCO_GL={gl}')
    result = film_hopper(falling, tmp_path / 'a.mp4', MUJOCO_GL=gl)
    assert result.returncode == 0, result.stderr
    pictures = [picture for picture in imageio.get_reader(tmp_path / 'a.mp4')]
    assert f'steps {len(pictures) - 1}' in result.stdout
    assert pictures[0].shape == (480, 480, 3)
    assert pictures[0].std() > 20 and np.abs(pictures[0].astype(float) - pictures[-1]).max() > 50


@pytest.mark.parametrize('environment, setting', [
    ({}, 'MUJOCO_GL not set'), ({'MUJOCO_GL': 'nonsense'}, 'MUJOCO_GL=nonsense'),
])
def test_mujoco_where_nothing_renders(falling, tmp_path, environment, setting):
    """Without a display, and with a library that is not there: the evaluation has run, and one sentence says why."""
    result = film_hopper(falling, tmp_path / 'a.mp4', **environment)
    assert result.returncode == 1 and 'steps ' in result.stdout
    *_, last = result.stderr.strip().splitlines()
    assert last.startswith('OSError: no video was written: hopper-medium-v2 cannot be rendered here with ' + setting)
    assert 'try MUJOCO_GL=egl' in last and 'MUJOCO_GL=osmesa' in last
    assert 'Exception ignored' not in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ['some.pth.tar']

"""Exported files act as the policy, and are whole or not there."""
from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ding_cawr.algorithms.cawr.model import MeanPolicy
from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.evaluation.export import export_policy


@pytest.fixture(params=[False, True], ids=['raw', 'normalized'])
def policy(request) -> ActingPolicy:
    """Random networks, some of whose actions are clipped."""
    torch.manual_seed(0)
    network = MeanPolicy(11, 3, (16, 8)).requires_grad_(False)
    network.net[-1].weight.mul_(500)
    statistics = torch.stack([torch.randn(11), 0.5 + torch.rand(11)]) if request.param else None
    return ActingPolicy(network, statistics)


def observations(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (count, 11)).astype(np.float32)


def exported(path: Path, obs: np.ndarray) -> np.ndarray:
    """Actions of an exported file."""
    if path.suffix == '.pt':
        return torch.jit.load(path)(torch.from_numpy(obs)).numpy()
    session = onnxruntime.InferenceSession(path)
    if obs.ndim == 1:
        return session.run(['action'], {'obs': obs[None]})[0][0]
    return session.run(['action'], {'obs': obs})[0]


@pytest.mark.parametrize('name', ['a.onnx', 'a.pt'])
def test_exported_files_act_as_the_policy(policy, tmp_path, name):
    assert export_policy(policy, tmp_path / name) == tmp_path / name
    assert [file.name for file in tmp_path.iterdir()] == [name]
    for count in (0, 1, 2, 7, 100):
        obs = observations(count, seed=count)
        np.testing.assert_allclose(exported(tmp_path / name, obs), policy(obs), atol=1e-6)
    np.testing.assert_allclose(exported(tmp_path / name, obs[0]), policy(obs[0]), atol=1e-6)
    assert np.abs(policy(obs)).max() == 1


@pytest.mark.parametrize('policy', [True], ids=['normalized'], indirect=True)
def test_torchscript_needs_nothing_of_this_package(policy, tmp_path):
    export_policy(policy, tmp_path / 'a.pt')
    script = (
        'import sys, torch; print(torch.jit.load(sys.argv[1])(torch.ones(11)).tolist()); '
        'assert not any(name.startswith("ding") for name in sys.modules)'
    )
    result = subprocess.run(
        [sys.executable, '-I', '-c', script, tmp_path / 'a.pt'], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(eval(result.stdout), policy(np.ones(11)), atol=1e-6)


def test_exporting_leaves_the_policy_as_it_is_and_says_nothing(policy, tmp_path, capfd):
    before = copy.deepcopy(policy.state_dict())
    for name in ('a.onnx', 'a.pt'):
        export_policy(policy, tmp_path / name)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('name, error, message', [
    ('a.tflite', ValueError, "ends in '.tflite'; it must end in .onnx or .pt"), ('a', ValueError, 'must end in .onnx'),
    ('absent/a.pt', FileNotFoundError, 'absent does not exist'), ('there.onnx', FileExistsError, 'is not overwritten'),
])
def test_files_that_cannot_be_exported_to(policy, tmp_path, name, error, message):
    (tmp_path / 'there.onnx').write_text('mine')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        export_policy(policy, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / 'there.onnx').read_text() == 'mine'


@pytest.mark.parametrize('name, place, function', [('a.onnx', torch.onnx, 'export'), ('a.pt', Path, 'write_bytes')])
def test_an_interrupted_export_leaves_nothing(policy, tmp_path, monkeypatch, name, place, function):
    folder = tmp_path / 'out'
    folder.mkdir()

    def interrupt(graph, *arguments, **options):
        next(each for each in (graph, *arguments) if isinstance(each, Path)).write_text('half')
        assert len(list(folder.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(place, function, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_policy(policy, folder / name)
    assert list(folder.iterdir()) == []


def test_onnx_without_its_packages(policy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(OSError, match=r"ONNX needs onnx; pip install 'ding_cawr\[onnx\]'"):
        export_policy(policy, tmp_path / 'a.onnx')
    assert not (tmp_path / 'a.onnx').exists()
    export_policy(policy, tmp_path / 'a.pt')

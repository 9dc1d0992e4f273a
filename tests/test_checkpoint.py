"""Reading a learner's checkpoint: what is not one ends in an error that names the file and the cause."""
import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, MakesFolder, without_roots_rights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.runs.checkpoint import check_same_observations, check_whole, last_checkpoint, read_state


def model(hidden_sizes=(16, 16), obs_shape: int = 11) -> CAWRModel:
    return CAWRModel(obs_shape, 3, hidden_sizes=hidden_sizes)


def state(networks: CAWRModel) -> dict:
    return {
        'model': networks.state_dict(), 'target_critic': copy.deepcopy(networks.critic).state_dict(), 'iteration': 3
    }


def read_critics(path) -> CAWR:
    """Networks of 16 and 16 with the critics of a checkpoint."""
    algorithm = CAWR(model(), CAWRSettings.read({}))
    algorithm.load_critics(read_state(path, dict(model=dict, target_critic=dict)), str(path))
    return algorithm


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'some.pth.tar'


def test_a_checkpoint_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(state(model()), tmp_path / 'some.pth.tar')
    assert read_state('~/some.pth.tar')['iteration'] == 3
    with pytest.raises(FileNotFoundError, match="/~/some.pth.tar'"):  # as whoever reads it then does not find it
        check_whole('~/some.pth.tar')


@pytest.mark.parametrize('as_text', [True, False])
def test_a_checkpoint_comes_back(path, as_text):
    written = state(model())
    torch.save(written, path)
    read = read_state(str(path) if as_text else path)
    assert read['iteration'] == 3
    for part in ('model', 'target_critic'):
        assert all(torch.equal(read[part][name], tensor) for name, tensor in written[part].items())
    taken, parts = read_critics(path).tree(), ('critic.', 'value.')
    for name, tensor in written['model'].items():
        assert torch.equal(taken['model'][name], tensor) is name.startswith(parts) or not tensor.any(), name
    assert all(torch.equal(taken['target_critic'][name], tensor) for name, tensor in written['target_critic'].items())


def test_a_file_that_may_not_be_read_is_not_called_damaged(path):
    torch.save(state(model()), path)
    path.chmod(0)
    code = 'import sys; from ding_cawr.runs.checkpoint import check_whole, read_state\n' \
        'for read in (read_state, check_whole):\n' \
        '    try: read(sys.argv[1])\n    except PermissionError as error: print(error)'
    command = [*without_roots_rights(), sys.executable, '-c', code, path]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.count(f'checkpoint {path} may not be read: permission denied') == 2, said.stderr


@pytest.mark.parametrize('place', ['nowhere.pth.tar', 'run/ckpt'])
def test_a_missing_file_is_named(tmp_path, place):
    (tmp_path / 'run' / 'ckpt').mkdir(parents=True)  # a folder is no checkpoint
    with pytest.raises(FileNotFoundError, match=f'{place}.*; runs keep their checkpoints in EXP_NAME/ckpt'):
        read_state(tmp_path / place)


@pytest.mark.parametrize('other, message', [
    (dict(hidden_sizes=(8, 16)), r'critic net.0.weight has the shape \(2, 14, 8\), but .* need \(2, 14, 16\)'),
    (dict(hidden_sizes=(16, )), r'critic net.2.weight has the shape \(2, 16, 1\), but .* need \(2, 16, 16\)'),
    (dict(hidden_sizes=(16, 16, 16)), r'critic net.4.weight has the shape \(2, 16, 16\), but .* need \(2, 16, 1\)'),
    (dict(obs_shape=17), r'critic net.0.weight has the shape \(2, 20, 16\), but .* need \(2, 14, 16\)'),
])
def test_networks_of_other_shapes_are_refused(path, other, message):
    torch.save(state(model(**other)), path)
    with pytest.raises(ValueError, match=f'{path}: {message}'):
        read_critics(path)


def test_a_target_of_another_shape_is_refused(path):
    torch.save({**state(model()), 'target_critic': model((8, 16)).critic.state_dict()}, path)
    with pytest.raises(ValueError, match=r'target_critic net.0.weight has the shape \(2, 14, 8\)'):
        read_critics(path)


@pytest.mark.parametrize('content, message', [
    ({'model': model().state_dict(), 'optimizer': {}}, 'is not a checkpoint of .*: it has no target_critic'),
    (model().state_dict(), 'is not a checkpoint of .*: it has no model and no target_critic'),
    ([torch.zeros(3)], 'it has no model and no target_critic'),
    ({'model': 1, 'target_critic': 2}, 'it has no model and no target_critic'),
    ({'model': {}, 'target_critic': {}}, 'critic net.0.weight is missing'),
    ({**state(model()), 'model': {**model().state_dict(), 'value.more': torch.ones(3)}}, 'value more is not part'),
    ({'model': dict.fromkeys(model().state_dict(), 1), 'target_critic': {}}, 'net.0.weight has the shape missing'),
    ({'model': {3: torch.ones(2)}, 'target_critic': {}}, 'critic net.0.weight is missing'),
])
def test_foreign_torch_files_are_refused(path, content, message):
    torch.save(content, path)
    with pytest.raises(ValueError, match=f'{path}.*{message}'):
        read_critics(path)


@pytest.mark.parametrize('write', [
    lambda content, path: torch.save(content, path),
    lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    lambda content, path: path.write_bytes(pickle.dumps(content)),
])
@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_code_in_a_file_is_not_run(path, write):
    witness = path.parent / 'witness'
    write({**state(model()), 'iteration': MakesFolder(witness)}, path)
    with pytest.raises(ValueError, match=f'{path} cannot be read as a checkpoint: .* never loaded'):
        read_critics(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(MakesFolder(witness)))
    assert witness.exists()  # it would have been


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'hello\n', b'\x80\x02.', b'PK\x03\x04', b'N.'])
def test_files_of_other_kinds_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path} cannot be read as a checkpoint: it is damaged'):
        read_critics(path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@given(st.data(), st.booleans())
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_refused_or_read(path, data, zipped):
    """Cut short anywhere, the file is refused. With other bytes in it, it is refused or its tensors have the shapes."""
    torch.save(state(model()), path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=f'{path} cannot be read as a checkpoint'):
        read_critics(path)
    for position in data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_critics(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_critics_judge_observations_normalized_as_in_their_training():
    statistics = torch.tensor([[0.5, 2.0], [1.0, 3.0]])
    check_same_observations('file', None, None)
    check_same_observations('file', statistics, statistics.clone())
    with pytest.raises(ValueError, match=r'file: obs_statistics has the shape \(2,\)'):
        check_same_observations('file', statistics[0], statistics)
    for other, found, expected in (
        (None, statistics, 'normalized observations and this run has raw'),
        (statistics, None, 'raw observations and this run has normalized'), (statistics, 2 * statistics, 'differ'),
    ):
        with pytest.raises(ValueError, match=f'file was trained on.*{expected}'):
            check_same_observations('file', found, other)


def test_the_newest_good_checkpoint_is_named(tmp_path):
    assert last_checkpoint(None) == '' and last_checkpoint(str(tmp_path)) == 'No good checkpoint was written yet.'
    folder = tmp_path / 'ckpt'
    folder.mkdir()

    def write(name: str, value: float, age: int) -> None:
        torch.save({'model': {'weight': torch.tensor([1.0, value])}}, folder / name)
        os.utime(folder / name, (1000 - age, 1000 - age))

    write('iteration_9.pth.tar', 2.0, age=5)
    write('ckpt_best.pth.tar', 2.0, age=9)
    write('iteration_20.pth.tar', float('nan'), age=2)
    (folder / 'iteration_30.pth.tar').write_bytes(b'cut')
    (folder / 'notes.txt').touch()
    assert last_checkpoint(str(tmp_path)) == f'The last good checkpoint is {folder}/iteration_9.pth.tar.'
    write('ckpt_best.pth.tar', 2.0, age=1)
    assert 'ckpt_best.pth.tar' in last_checkpoint(str(tmp_path))

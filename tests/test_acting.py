"""A checkpoint acts: load_policy and evaluate."""
from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from helpers import MakesFolder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainings import make, train

from ding_cawr import load_policy, normalized_score
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.evaluation.episodes import evaluate


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_d4rl_file(tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(40, 'terminal')] * 5)


@pytest.fixture(scope='module', params=[False, True], ids=['raw', 'normalized'])
def trained(request, data, tmp_path_factory):
    """(checkpoint, what acts in DI-engine's evaluation with it) after 30 iterations. Some actions are clipped."""
    policy = make(data, norm_obs=dict(use_norm=request.param))
    train(policy, 30)
    with torch.no_grad():
        policy._model.policy.net[-1].weight.mul_(30)
    path = tmp_path_factory.mktemp('ckpt') / 'iteration_30.pth.tar'
    torch.save(policy.learn_mode.state_dict(), path)
    assert (policy.learn_mode.state_dict()['obs_statistics'] is not None) == request.param
    alone = make(data, fields=['eval'])
    alone.eval_mode.load_state_dict(torch.load(path, weights_only=True))
    return path, alone.eval_mode


def observations(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (count, 11)).astype(np.float32)


def state(**changes) -> dict:
    """The parts that acting reads, of networks with hidden layers of 16 and 8."""
    torch.manual_seed(0)
    model = CAWRModel(11, 3, hidden_sizes=(16, 8)).state_dict()
    return {'model': model, 'obs_statistics': None, 'iteration': 4, 'env_id': 'hopper-medium-v2', **changes}


def changed_model(**tensors) -> dict:
    """``state`` with tensors of its model replaced, or left out where they are None."""
    model = {**state()['model'], **{name.replace('__', '.'): tensor for name, tensor in tensors.items()}}
    return state(model={name: tensor for name, tensor in model.items() if tensor is not None})


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / 'some.pth.tar'


@pytest.fixture
def policy(path) -> ActingPolicy:
    torch.save(state(), path)
    return load_policy(path)


def test_actions_are_those_of_evaluation(trained):
    path, eval_mode = trained
    obs = observations(7)
    expected = eval_mode.forward(dict(enumerate(torch.from_numpy(obs))))
    expected = torch.stack([expected[index]['action'] for index in range(7)])
    assert (expected.abs() == 1).any() and (expected.abs() < 1).any()
    act = load_policy(path)
    actions = act(obs)
    assert isinstance(actions, np.ndarray) and actions.dtype == np.float32
    np.testing.assert_allclose(actions, expected.numpy(), atol=1e-6)
    from_tensor = act(torch.from_numpy(obs))
    assert isinstance(from_tensor, torch.Tensor) and not from_tensor.requires_grad
    np.testing.assert_array_equal(from_tensor.numpy(), actions)


def test_one_observation_and_batches_of_any_size_and_type(trained):
    act = load_policy(trained[0])
    obs = observations(7)
    actions = act(obs)
    assert act(obs[3]).shape == (3, ) and act(torch.from_numpy(obs[3])).shape == (3, )
    np.testing.assert_allclose(act(obs[3]), actions[3], atol=1e-6)
    np.testing.assert_allclose(act(obs[3:4]), actions[3:4], atol=1e-6)
    assert act(obs[:0]).shape == (0, 3)
    for double in (obs.astype(np.float64), torch.from_numpy(obs).double()):
        assert act(double).dtype in (np.float32, torch.float32)
    backwards, frozen = obs[::-1], obs.copy()
    frozen.flags.writeable = False
    np.testing.assert_allclose(act(backwards), actions[::-1], atol=1e-6)
    np.testing.assert_array_equal(act(frozen), actions)
    np.testing.assert_array_equal(act(obs.tolist()), actions)


def test_what_a_policy_says_of_itself(trained):
    for wrong in (None, 5):
        with pytest.raises(TypeError, match=f'checkpoint is {wrong!r}; it must be a path'):
            load_policy(wrong)
    act = load_policy(str(trained[0]))
    assert (act.obs_shape, act.action_shape, act.env_id, act.iteration) == (11, 3, 'Hopper-v4', 30)
    assert not act.training and not any(parameter.requires_grad for parameter in act.parameters())


def test_a_checkpoint_without_an_environment_can_be_read(path):
    older = state()
    del older['env_id']
    torch.save(older, path)
    assert load_policy(path).env_id is None


def test_loading_makes_no_environment_and_draws_no_random_number(path, monkeypatch):
    torch.save(state(), path)
    monkeypatch.setattr(gymnasium, 'make', lambda *args, **kwargs: pytest.fail('an environment was made'))
    before = torch.get_rng_state()
    load_policy(path)(observations(2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize('hidden_sizes', [(8, ), (16, 8), (4, 8, 16), (5, 5, 5, 5)])
def test_widths_are_those_of_the_tensors(path, hidden_sizes):
    model = CAWRModel(17, 6, hidden_sizes=hidden_sizes)
    torch.save(state(model=model.state_dict()), path)
    act = load_policy(path)
    assert (act.obs_shape, act.action_shape) == (17, 6)
    obs = torch.randn(5, 17)
    with torch.no_grad():
        assert torch.equal(act(obs), model(obs))


@pytest.mark.parametrize('shape', [(12, ), (7, 12), (7, 0), (), (2, 7, 11), (11, 7)])
@pytest.mark.parametrize('convert', [np.zeros, torch.zeros])
def test_observations_of_other_widths_are_refused(policy, shape, convert):
    with pytest.raises(ValueError) as raised:
        policy(convert(shape))
    assert str(tuple(shape)) in str(raised.value) and 'takes observations that are 11 wide' in str(raised.value)


@pytest.mark.parametrize('content, message', [
    ([torch.zeros(3)], 'is not a checkpoint of .*: it has no model and no obs_statistics and no iteration'),
    ({'model': state()['model'], 'optimizer': {}}, 'it has no obs_statistics and no iteration'),
    (state(model={'actor.0.weight': torch.ones(3, 11)}), 'policy.net.0.weight is missing, and it must be a matrix'),
    (state(model={}), 'policy.net.0.weight is missing'),
    (state(model={3: torch.ones(2)}), 'policy.net.0.weight is missing'),
    (changed_model(policy__net__2__weight=None), 'policy.net.2.weight is missing'),
    (changed_model(policy__net__2__weight=torch.ones(8)), r'policy.net.2.weight is \(8,\), and it must be a matrix'),
    (changed_model(policy__net__2__bias=None), 'policy net.2.bias is missing'),
    (changed_model(policy__net__4__weight=torch.ones(3, 9)), r'policy net.4.weight .* \(3, 9\), but .* need \(3, 8\)'),
    (changed_model(policy__more=torch.ones(2)), 'policy more is not part of this configuration'),
    (changed_model(policy__net__0__bias=torch.full((16, ), torch.nan)), 'policy net.0.bias has numbers from nan'),
    (state(obs_statistics=torch.ones(2, 12)), r'obs_statistics mean has the shape \(12,\), but .* need \(11,\)'),
    (state(obs_statistics=torch.ones(2, 11) * torch.inf), 'obs_statistics mean has numbers from inf to inf'),
    (state(obs_statistics=torch.zeros(2, 11)), 'obs_statistics std has numbers from 0 to 0; each must be a positive'),
    (state(obs_statistics=[0.0]), 'it has no obs_statistics'),
])
def test_what_is_no_checkpoint_is_named_with_what_is_missing(path, content, message):
    torch.save(content, path)
    with pytest.raises(ValueError, match=f'{path}.*{message}'):
        load_policy(path)


def test_files_that_are_missing_damaged_or_would_run_code(path):
    with pytest.raises(FileNotFoundError, match='there is no checkpoint .*some.pth.tar.*EXP_NAME/ckpt'):
        load_policy(path)
    torch.save(state(more=MakesFolder(path.parent / 'made')), path)
    with pytest.raises(ValueError, match=f'{path} cannot be read as a checkpoint: .* never loaded'):
        load_policy(path)
    assert not (path.parent / 'made').exists()


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_refused_or_act(path, data):
    torch.save(state(), path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=f'{path} cannot be read as a checkpoint'):
        load_policy(path)
    for position in data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        act = load_policy(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert act(observations(2)[:, :act.obs_shape]).shape == (2, act.action_shape)


def test_evaluation_is_one_episode_from_each_of_so_many_start_states(policy):
    result = evaluate(policy, episodes=6, seed=2)
    assert result.env_id == 'hopper-medium-v2' and result.seed == 2
    assert result.returns.shape == result.scores.shape == result.lengths.shape == (6, )
    assert len(np.unique(result.returns)) == 6
    np.testing.assert_allclose(result.scores, normalized_score('Hopper-v4', result.returns))
    assert result.actions.shape == (result.lengths[0], 3)
    np.testing.assert_array_equal(evaluate(policy, 'Hopper-v4', 6, 2).returns, result.returns)
    assert not np.isin(evaluate(policy, episodes=6, seed=20).returns, result.returns).any()


def test_all_environments_step_together(policy):
    """Batches shrink by the episodes that have ended, and no environment is stepped after its end."""
    batches = []
    policy.graph.register_forward_pre_hook(lambda graph, inputs: batches.append(len(inputs[0])))
    lengths = evaluate(policy, episodes=5).lengths
    assert batches == [(lengths > step).sum() for step in range(lengths.max())]


def test_environments_without_reference_returns_have_no_scores(path):
    torch.save(state(model=CAWRModel(3, 1, hidden_sizes=(8, 8)).state_dict(), env_id=None), path)
    result = evaluate(load_policy(path), 'Pendulum-v1', episodes=2)
    assert result.scores is None and list(result.lengths) == [200, 200] and (result.returns < 0).all()


@pytest.mark.parametrize('arguments, message', [
    (dict(env_id='walker2d-medium-v2'), "11 wide .* 3 wide, but env_id 'walker2d-medium-v2' has 17 and 6"),
    (dict(env_id='Hoper-v4'), "'Hoper-v4' is neither"),
    (dict(episodes=0), 'episodes is 0'),
])
def test_evaluations_that_cannot_be(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(policy, **arguments)


def test_an_environment_that_nobody_names_is_asked_for(path):
    torch.save(state(env_id=None), path)
    with pytest.raises(ValueError, match='does not say its environment.*env_id.*--env-id'):
        evaluate(load_policy(path))

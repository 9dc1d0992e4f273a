"""CAWRPolicy without a pipeline: modes, state, metrics, both doors for data."""
import copy

import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config
from ding.policy import create_policy, get_policy_cls
from ding.utils.data import create_dataset
from easydict import EasyDict

from ding_cawr import make_config
from ding_cawr.model import CAWRModel
from ding_cawr.policy import CAWRPolicy


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_d4rl_file(tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(40, 'terminal')] * 5)


def make(data, fields=('learn', 'eval', 'collect'), seed=0, **overrides) -> CAWRPolicy:
    """The policy with the dataset's columns, as the pipeline makes it."""
    main_config, create_config = make_config(
        'Hopper-v4', data_path=str(data), policy=dict(model=dict(hidden_sizes=(16, 16))),
        **{'batch_size': 32, **overrides}
    )
    create_config.policy.type = 'cawr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    dataset = create_dataset(cfg)
    torch.manual_seed(seed)
    policy = create_policy(cfg.policy, enable_field=list(fields))
    if 'learn' in fields:
        policy.set_statistic(dataset.statistics)
    return policy


def train(policy: CAWRPolicy, iterations: int) -> list[dict]:
    return [policy.learn_mode.forward(torch.empty(0)) for _ in range(iterations)]


def test_registered_under_both_names():
    assert get_policy_cls(EasyDict(type='cawr', import_names=['ding_cawr'])) is CAWRPolicy
    assert issubclass(get_policy_cls(EasyDict(type='cawr_command')), CAWRPolicy)


def test_metrics_are_computed_only_when_they_are_shown(data):
    policy = make(data, learner=dict(hook=dict(log_show_after_iter=4)))
    logs = train(policy, 9)
    assert [bool(log) for log in logs] == [True, False, False, False, True, False, False, False, True]
    assert set(logs[4]) == set(policy.learn_mode.monitor_vars())
    assert all(isinstance(value, float) for value in logs[4].values())


def test_priorities_of_both_batches_are_renewed_within_bounds(data):
    policy = make(data, max_weight=2.0, priority='normal', min_priority=0.5)
    assert torch.equal(policy._buffer.priority, torch.ones(199, dtype=torch.float64))
    train(policy, 20)
    priority = policy._buffer.priority
    assert priority.min() == 0.5 and priority.max() == 2.0
    assert (priority != 1).double().mean() > 0.9  # 1,280 draws from 199 rows


def test_no_priority_leaves_the_draws_uniform(data):
    policy = make(data, priority='none')
    train(policy, 5)
    assert torch.equal(policy._buffer.priority, torch.ones(199, dtype=torch.float64))


def test_state_holds_everything_that_training_needs(data, tmp_path):
    policy = make(data)
    train(policy, 7)
    torch.save(policy.learn_mode.state_dict(), tmp_path / 'state')
    train(policy, 5)
    other = make(data, seed=1)
    other.learn_mode.load_state_dict(torch.load(tmp_path / 'state', weights_only=True))
    train(other, 5)
    expected, found = policy.learn_mode.state_dict(), other.learn_mode.state_dict()
    assert found['iteration'] == 12
    assert torch.equal(expected['buffer']['priority'], found['buffer']['priority'])
    for part in ('model', 'target_critic'):
        assert all(torch.equal(expected[part][key], found[part][key]) for key in expected[part])
    for name in ('value', 'critic', 'policy'):
        for key, slot in expected[f'optimizer_{name}']['state'].items():
            assert torch.equal(slot['exp_avg_sq'], found[f'optimizer_{name}']['state'][key]['exp_avg_sq'])


def test_evaluation_acts_with_the_clipped_mean_and_collecting_explores(data):
    policy = make(data)
    obs = {3: torch.randn(11), 5: torch.randn(11)}
    with torch.no_grad():
        for parameter in policy._model.policy.parameters():
            parameter.mul_(50)
        mean = policy._model.policy(torch.stack(list(obs.values())))
    acted = policy.eval_mode.forward(obs)
    assert list(acted) == [3, 5]
    assert torch.equal(acted[3]['action'], mean[0].clamp(-1, 1))
    with torch.no_grad():
        for parameter in policy._model.policy.parameters():
            parameter.zero_()
    actions = torch.stack([policy.collect_mode.forward(obs)[3]['action'] for _ in range(500)])
    assert actions.std().item() == pytest.approx(np.exp(-2), rel=0.1) and actions.abs().max() <= 1
    timestep = EasyDict(obs=obs[3], reward=torch.ones(1), done=True)
    transition = policy.collect_mode.process_transition(obs[3], acted[3], timestep)
    assert set(transition) == {'obs', 'next_obs', 'action', 'reward', 'done'}
    assert policy.collect_mode.get_train_sample([transition]) == [transition]


def test_eval_mode_alone_loads_a_checkpoint_and_its_normalization(data):
    policy = make(data, norm_obs=dict(use_norm=True))
    train(policy, 3)
    alone = make(data, fields=['eval'])
    alone.eval_mode.load_state_dict(policy.learn_mode.state_dict())
    obs = torch.randn(11)
    mean, std = policy.learn_mode.state_dict()['obs_statistics']
    expected = policy.eval_mode.forward({0: (obs - mean) / std})[0]['action']
    torch.testing.assert_close(alone.eval_mode.forward({0: obs})[0]['action'], expected)


def test_ignore_done(data):
    assert make(data)._buffer._columns['done'].any()
    assert not make(data, ignore_done=True)._buffer._columns['done'].any()


def stock_policy(**overrides) -> CAWRPolicy:
    main_config, create_config = make_config(
        'Hopper-v4', data_path='bundled:any', policy=dict(collect=dict(data_type='naive'), **overrides), batch_size=8
    )
    create_config.policy.type = 'cawr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    return create_policy(cfg.policy, enable_field=['learn'])


ROW = {
    'obs': torch.ones(11), 'action': torch.zeros(3), 'reward': torch.ones(1), 'next_obs': torch.ones(11), 'done': True
}


def test_stock_rows_are_pushed_and_statistics_are_not_asked_for():
    policy = stock_policy(other=dict(replay_buffer=dict(replay_buffer_size=10)))
    assert not hasattr(policy, 'set_statistic')
    for _ in range(3):
        policy.learn_mode.forward([ROW] * 4)
    assert policy._buffer.count() == 10 and policy._buffer._columns['done'].all()


def test_stock_rows_honour_ignore_done():
    policy = stock_policy(learn=dict(ignore_done=True))
    policy.learn_mode.forward([ROW] * 4)
    assert not policy._buffer._columns['done'][:4].any()


@pytest.mark.parametrize('change, message', [
    ({'action': torch.full((3, ), 1.5)}, r"'naive': 4 of 4 actions lie outside \[-1, 1\]"),
    ({'reward': torch.tensor([float('nan')])}, "'naive': reward holds NaN"),
    ({'obs': torch.ones(12), 'next_obs': torch.ones(12)}, 'observations are 12 wide'),
    ({'action': torch.tensor([1])}, 'discrete actions'),
    ({'obs': torch.ones(3, 8, 8)}, 'not images'),
])
def test_bad_stock_rows(change, message):
    with pytest.raises(ValueError, match=message):
        stock_policy().learn_mode.forward([{**ROW, **change}] * 4)


def test_a_model_of_another_kind_is_refused(data):
    policy = make(data)
    with pytest.raises(TypeError, match='needs a CAWRModel, not Linear'):
        CAWRPolicy(policy.cfg, model=torch.nn.Linear(2, 2))
    model = CAWRModel([11], 3, (16, 16))
    assert CAWRPolicy(copy.deepcopy(policy.cfg), model=model, enable_field=['eval'])._model is model

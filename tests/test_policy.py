"""The cawr policy without a pipeline: modes, refused states, priorities, frozen critics, both doors for data."""
import copy
import warnings

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config
from ding.envs import BaseEnvTimestep
from ding.policy import create_policy, get_policy_cls
from easydict import EasyDict
from helpers import MakesFolder
from trainings import make, train

from ding_cawr import make_config
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.engine.policy import POLICIES, OfflinePolicy
from ding_cawr.training.divergence import check_step

CAWRPolicy = POLICIES['cawr']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_d4rl_file(tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(40, 'terminal')] * 5)


def test_registered_under_both_names():
    assert get_policy_cls(EasyDict(type='cawr', import_names=['ding_cawr'])) is CAWRPolicy
    assert issubclass(get_policy_cls(EasyDict(type='cawr_command')), CAWRPolicy)


def test_priorities_of_both_batches_are_renewed_within_bounds(data):
    policy = make(data, max_weight=2.0, priority='normal', min_priority=0.5, temperature=1 / 3, trust='full')
    assert torch.equal(policy._training.buffer.mass, torch.ones(199, dtype=torch.float64))
    train(policy, 20)
    priority = policy._training.buffer.mass
    assert priority.min() == 0.5 and priority.max() == 2.0
    assert (priority != 1).double().mean() > 0.9  # 1,280 draws from 199 rows


def test_no_priority_leaves_the_draws_uniform(data):
    policy = make(data, priority='none')
    train(policy, 5)
    assert torch.equal(policy._training.buffer.mass, torch.ones(199, dtype=torch.float64))


@pytest.mark.parametrize('change, message', [
    (dict(format=None), 'the checkpoint has the format None, so it is not one of a run of this package'),
    (dict(format=0), 'the checkpoint has the format 0, but this version of ding_cawr continues format 2'),
    (dict(optimizer=None), 'the checkpoint: optimizer is None; it must be a dict with policy, critic, value'),
    (dict(selection=[]), 'the checkpoint: selection is a list; it must be a dict with temperature, '),
    (dict(model={}), 'the checkpoint: model policy.net.0.weight is missing; take a checkpoint of the same'),
    (dict(selection={}), 'the checkpoint: selection temperature is missing'),
    (
        dict(optimizer=dict(policy=dict(step=torch.ones(()), exp_avg=torch.ones(1, 1, 7), exp_avg_sq=torch.ones(3)))),
        r'optimizer policy exp_avg has the shape \(1, 1, 7\), but this configuration and these data need \(1, 1, '
    ),
    (
        dict(optimizer=dict(policy=dict(step=torch.ones(()), momentum=torch.ones(3)))),
        'optimizer policy exp_avg is missing'
    ),
    *(
        (dict(buffer=dict(mass=priority, generator=torch.Generator().get_state())), f'buffer mass {message}')
        for priority, message in (
            *((torch.full((199, ), number, dtype=torch.float64), 'has numbers') for number in (np.nan, -1, np.inf)),
            (torch.ones(199, dtype=torch.int64), 'is torch.int64'),
        )
    ),
    *(
        (dict(buffer=dict(mass=torch.ones(199).double(), generator=generator)), message)
        for generator, message in (
            (torch.zeros(9), 'random state is not that of a generator on cpu'),
            ('text', 'generator has the shape missing'),
            (torch.zeros_like(torch.Generator().get_state()), 'random state is not that of a generator on cpu'),
        )
    ),
    (dict(buffer=dict(mass=torch.ones(3).double(), generator=torch.Generator().get_state())),
     r'buffer mass has the shape \(3,\), but .* need \(199,\)'),
])
def test_a_state_that_cannot_be_continued_is_refused_and_changes_nothing(data, change, message):
    policy, other = make(data), make(data, seed=1)
    for each in (policy, other):
        train(each, 3)
    before = copy.deepcopy(policy.learn_mode.state_dict())
    with pytest.raises(ValueError, match=message):
        policy.learn_mode.load_state_dict({**other.learn_mode.state_dict(), **change})
    after = policy.learn_mode.state_dict()
    for part in ('model', 'target_critic'):
        assert all(torch.equal(before[part][name], tensor) for name, tensor in after[part].items())
    assert torch.equal(before['buffer']['mass'], after['buffer']['mass']) and after['iteration'] == 3


def test_a_run_that_has_diverged_unseen_writes_no_checkpoint(data):
    """As on a GPU, where iterations do not wait to look."""
    policy = make(data, learner=dict(hook=dict(log_show_after_iter=1000)))
    policy._training._on_gpu, policy._training.buffer._on_cpu = True, False
    train(policy, 2)
    policy.learn_mode.state_dict()
    with torch.no_grad():
        policy._model.value.net[-1].bias.fill_(torch.inf)
    train(policy, 3)
    with pytest.raises(FloatingPointError, match='value is not finite at iteration 2'):
        policy.learn_mode.state_dict()


def test_a_state_that_is_not_finite_is_refused(data):
    policy = make(data)
    train(policy, 3)
    state = copy.deepcopy(policy.learn_mode.state_dict())
    state['target_critic']['net.0.bias'].fill_(torch.nan)
    with pytest.raises(ValueError, match='target_critic net.0.bias has numbers from nan .* finite number'):
        make(data).learn_mode.load_state_dict(state)


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
    timestep = BaseEnvTimestep(obs[3], torch.ones(1), True, {})
    transition = policy.collect_mode.process_transition(obs[3], acted[3], timestep)
    assert set(transition) == {'obs', 'next_obs', 'action', 'reward', 'done'}
    assert policy.collect_mode.get_train_sample([transition]) == [transition]


@pytest.mark.parametrize('preset', ['cawr', 'a2pr', 'awr'])
@pytest.mark.parametrize('ended, info, done', [
    (False, {}, False), (True, {}, True), (True, {'TimeLimit.truncated': False}, True),
    (True, {'TimeLimit.truncated': True}, False),
])
def test_a_time_limit_is_not_stored_as_a_termination(data, preset, ended, info, done):
    policy, obs = make(data, preset=preset), torch.zeros(11)
    output = policy.collect_mode.forward({0: obs})[0]
    row = policy.collect_mode.process_transition(obs, output, BaseEnvTimestep(obs, torch.ones(1), ended, info))
    assert row['done'] is done


def test_actions_of_a_random_policy_are_brought_within_the_bounds(data):
    """DI-engine's random collection draws them from the environment's own space."""
    policy, obs = make(data), torch.zeros(11)
    timestep = BaseEnvTimestep(obs, torch.ones(1), False, {})
    row = policy.collect_mode.process_transition(obs, {'action': np.array([2.0, -0.5, -1.5])}, timestep)
    assert row['action'].tolist() == [1.0, -0.5, -1.0]


@pytest.mark.parametrize('preset, hidden', [('cawr', 'policy.net.0'), ('a2pr', 'actor.net.0'),
                                            ('awr', 'policy.gaussian.net.0')])
def test_the_keys_of_the_model_reach_it(data, preset, hidden):
    assert make(data, preset=preset)._model.get_submodule(hidden).out_features == 16


def test_eval_mode_alone_loads_a_checkpoint_and_its_normalization(data):
    policy = make(data, norm_obs=dict(use_norm=True))
    train(policy, 3)
    alone = make(data, fields=['eval'])
    alone.eval_mode.load_state_dict(policy.learn_mode.state_dict())
    obs = torch.randn(11)
    mean, std = policy.learn_mode.state_dict()['obs_statistics']
    expected = policy.eval_mode.forward({0: (obs - mean) / std})[0]['action']
    torch.testing.assert_close(alone.eval_mode.forward({0: obs})[0]['action'], expected)


def test_a_policy_that_may_learn_acts_as_its_checkpoint_until_it_has_data(data):
    policy = make(data, norm_obs=dict(use_norm=True))
    train(policy, 3)
    alone, both = make(data, fields=['eval']), unattached(data)
    alone.eval_mode.load_state_dict(policy.learn_mode.state_dict())
    both.eval_mode.load_state_dict(policy.learn_mode.state_dict())
    again = make(data, fields=['eval'])
    again.eval_mode.load_state_dict(alone.eval_mode.state_dict())
    obs = torch.randn(11)
    expected = alone.eval_mode.forward({0: obs})[0]['action']
    from_training = make(data, fields=['eval'])
    from_training.eval_mode.load_state_dict(policy.eval_mode.state_dict())
    for other in (both, again, from_training):
        torch.testing.assert_close(other.eval_mode.forward({0: obs})[0]['action'], expected)
    policy.eval_mode.load_state_dict(alone.eval_mode.state_dict())  # whose environment normalizes
    assert not torch.allclose(policy.eval_mode.forward({0: obs})[0]['action'], expected)


def unattached(data) -> OfflinePolicy:
    """A policy that has no dataset yet."""
    main_config, create_config = make_config(
        'Hopper-v4', data_path=str(data), norm_obs=dict(use_norm=True), policy=dict(model=dict(hidden_sizes=(16, 16)))
    )
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    return create_policy(cfg.policy, enable_field=['learn', 'eval'])


def test_a_policy_without_its_dataset_says_so(data):
    policy = unattached(data)
    with pytest.raises(ValueError, match=r"has no dataset yet; first call policy.set_statistic\(dataset.statistics\)"):
        policy.learn_mode.forward([])
    with pytest.raises(ValueError, match=r'has no dataset yet'):
        policy.learn_mode.load_state_dict(make(data).learn_mode.state_dict())


@pytest.mark.parametrize('normalized', [True, False])
def test_a_checkpoint_of_other_normalization_names_the_key(data, normalized):
    state = make(data, norm_obs=dict(use_norm=normalized)).learn_mode.state_dict()
    with pytest.raises(ValueError, match=f'normalized: set env.norm_obs.use_norm to {normalized}$'):
        make(data, norm_obs=dict(use_norm=not normalized)).learn_mode.load_state_dict(state)


def test_ignore_done_changes_no_rows(data):
    with pytest.warns(UserWarning, match='ignore_done is True, but . rows of .* are terminations'):
        policy = make(data, ignore_done=True)
    assert policy._training.buffer.table['done'].any()
    train(policy, 1)
    changed = make(data)
    changed._training.buffer.table['done'].zero_()
    train(changed, 1)
    for got, wanted in zip(policy._model.parameters(), changed._model.parameters()):
        assert torch.equal(got, wanted)
    plain = make(data)
    train(plain, 1)
    assert not all(torch.equal(*pair) for pair in zip(policy._model.parameters(), plain._model.parameters()))


def stock_policy(**overrides) -> OfflinePolicy:
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
    assert policy._training.buffer.count() == 10 and policy._training.buffer.table['done'].all()


def test_stock_rows_honour_ignore_done():
    losses = []
    for ignored, done in ((True, True), (False, False), (False, True)):
        torch.manual_seed(0)
        policy = stock_policy(learn=dict(ignore_done=ignored, discount_factor=0.5))
        for linear in (layer for layer in policy._model.value.net if hasattr(layer, 'bias')):
            torch.nn.init.ones_(linear.bias)  # V starts near 0, and so would γ V(s')
        losses.append(policy.learn_mode.forward([{**ROW, 'done': done}] * 4)['critic_loss'])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize('change, message', [
    ({'action': torch.full((3, ), 1.5)}, r"'naive': 4 of 4 actions lie outside \[-1, 1\]"),
    ({'reward': torch.tensor([float('nan')])}, "'naive': reward holds NaN"),
    ({'obs': torch.ones(12), 'next_obs': torch.ones(12)}, 'observations are 12 wide'),
    ({'action': torch.tensor([1])}, 'discrete actions'),
    ({'action': None}, r"rows of the dataset have no \['action'\]"),
    ({'obs': torch.ones(3, 8, 8)}, 'not images'),
])
def test_bad_stock_rows(change, message):
    with pytest.raises(ValueError, match=message):
        row = {name: value for name, value in {**ROW, **change}.items() if value is not None}
        stock_policy().learn_mode.forward([row] * 4)


def test_a_model_of_another_kind_is_refused(data):
    policy = make(data)
    with pytest.raises(TypeError, match='needs a CAWRModel, not Linear'):
        CAWRPolicy(policy.cfg, model=torch.nn.Linear(2, 2))
    model = CAWRModel([11], 3, hidden_sizes=(16, 16))
    assert CAWRPolicy(copy.deepcopy(policy.cfg), model=model, enable_field=['eval'])._model is model


def target_of(policy: OfflinePolicy) -> torch.nn.Module:
    return policy._training.algorithm.networks.target_critics[0]


def estimated(policy: OfflinePolicy) -> torch.Tensor:
    """The advantage of the whole dataset, from the networks as they are."""
    columns = policy._training.buffer.table
    with torch.no_grad():
        q_value = target_of(policy)(columns['obs'], columns['action']).min(dim=0).values
        return q_value - policy._model.value(columns['obs'])


def exponential(advantage: torch.Tensor, temperature: float) -> torch.Tensor:
    return ((advantage - advantage.mean()) / (temperature * advantage.std())).exp()


def test_priority_refresh_renews_all_priorities_at_its_iterations_alone(data):
    policy = make(data, priority_refresh=5, temperature=0.5, max_weight=3.0, min_priority=0.4, trust='full')

    def exact():
        return exponential(estimated(policy), 0.5).clamp(0.4, 3.0).double()

    for iteration in range(1, 16):
        train(policy, 1)
        is_exact = torch.allclose(policy._training.buffer.mass, exact(), rtol=1e-4)
        assert is_exact == (iteration % 5 == 0), iteration
        assert (policy._training.buffer.mass == 1).any() == (iteration < 5)  # rows that no batch has brought yet
    assert exact().unique().numel() > 50


def test_priority_refresh_is_off_by_default_and_reads_pushed_rows_too(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CAWR, 'estimate', lambda *_: pytest.fail('the whole dataset was estimated'))
        train(make(data), 20)
    policy = stock_policy(learn=dict(priority_refresh=2, temperature=0.5, max_weight=100.0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        policy.learn_mode.forward([{**ROW, 'obs': torch.randn(11, generator=generator)} for _ in range(4)])
    wanted = exponential(estimated(policy), 0.5).double()
    torch.testing.assert_close(policy._training.buffer.mass, wanted, rtol=1e-3, atol=0)


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
    """The learner's state after 30 iterations with critics that learn fast."""
    path = tmp_path_factory.mktemp('checkpoint') / 'iteration_30.pth.tar'
    policy = make(data, learning_rate_q=1e-2, learning_rate_value=1e-2, seed=7)
    train(policy, 30)
    torch.save(policy.learn_mode.state_dict(), path)
    return path


@pytest.mark.parametrize('weighting, priority, exponent', [
    ('per_sample', 'normal', 1.0), ('batch_mean', 'normal', 0.6), ('none', 'normal', 1.0), ('per_sample', 'none', 1.0),
])
def test_pretrained_critics_are_frozen_and_judge_the_dataset_once(data, checkpoint, weighting, priority, exponent):
    """Twenty iterations: the critics stay those of the checkpoint bit by bit, and what the policy sees comes from the
    whole dataset."""
    chosen = priority if priority == 'none' else dict(type=priority, exponent=exponent)
    policy = make(
        data, pretrained_critics=str(checkpoint), weighting=weighting, priority=chosen, temperature=0.5, max_weight=3.0,
        min_priority=0.4
    )
    exact = exponential(estimated(policy), 0.5)
    weights = torch.ones(199) if weighting == 'none' else exact.clamp(max=3.0)
    priorities = torch.ones(199) if priority == 'none' else exact.clamp(0.4, 3.0)**exponent
    torch.testing.assert_close(policy._training.buffer.mass, priorities.double(), rtol=1e-4, atol=0)
    started = copy.deepcopy(policy._model.policy.state_dict())
    seen = []
    for _ in range(20):
        step = policy._training.iterate()
        seen.append((policy._training._drawn, step.per_sample['advantage'], step.per_sample['weight']))
    torch.testing.assert_close(policy._training.buffer.mass, priorities.double(), rtol=1e-4, atol=0)
    for rows, advantage, weight in seen:
        torch.testing.assert_close(weight, weights[rows], rtol=1e-4, atol=0)
        torch.testing.assert_close(advantage, estimated(policy)[rows])
    trained, taken = policy.learn_mode.state_dict(), torch.load(checkpoint, weights_only=True)
    assert len(seen) == trained['iteration'] == 20
    for name, tensor in trained['model'].items():
        before = started[name.removeprefix('policy.')] if name.startswith('policy.') else taken['model'][name]
        assert torch.equal(tensor, before) is not name.startswith('policy.'), name
    assert all(torch.equal(tensor, taken['target_critic'][name]) for name, tensor in trained['target_critic'].items())
    assert [name for name, moments in trained['optimizer'].items() if moments['step'] > 0] == ['policy']


@pytest.mark.parametrize('weighting', ['per_sample', 'none'])
def test_a_run_on_pretrained_critics_goes_on_with_the_same_ones_alone(data, checkpoint, weighting, tmp_path):
    path = tmp_path / 'critics.pth.tar'
    path.write_bytes(checkpoint.read_bytes())
    run = make(data, pretrained_critics=str(path), weighting=weighting)
    train(run, 2)
    state = run.learn_mode.state_dict()
    make(data, pretrained_critics=str(path), weighting=weighting).learn_mode.load_state_dict(state)
    others = make(data, seed=8)
    train(others, 5)
    torch.save(others.learn_mode.state_dict(), path)
    other = make(data, pretrained_critics=str(path), weighting=weighting)
    with pytest.raises(ValueError, match=f'trained on other critics than those of {path}'):
        other.learn_mode.load_state_dict(state)


@pytest.fixture(scope='module')
def given(data, checkpoint, tmp_path_factory):
    """The data with the advantages that the critics of the checkpoint find."""
    path = tmp_path_factory.mktemp('given') / 'hopper.hdf5'
    path.write_bytes(data.read_bytes())
    frozen = make(data, pretrained_critics=str(checkpoint))._training.algorithm.frozen
    with h5py.File(path, 'a') as file:  # the last row is no transition
        file['advantages'] = np.append(frozen.quantities['advantage'].numpy(), 0)
    return path


@pytest.fixture(params=['pretrained_critics', 'dataset', 'none'])
def policy_alone(request, data, checkpoint, given):
    """Data and settings with which the policy alone is trained: by critics of a checkpoint, by given advantages, or by
    none."""
    return {
        'pretrained_critics': (data, dict(pretrained_critics=str(checkpoint))),
        'dataset': (given, dict(advantage='dataset')),
        'none': (data, dict(advantage='none', weighting='none', priority='none', best_episodes=0.3)),
    }[request.param]


@pytest.mark.parametrize('settings', [
    dict(weighting='per_sample', temperature='auto'), dict(weighting='batch_mean', temperature=0.5),
    dict(priority='odpr', trust='linear', temperature=0.5, normalize_advantage=False, weighting='per_sample'),
    dict(priority='none', weighting='per_sample', policy_loss='flat', tightening=dict(iterations=9), temperature=0.5),
])
def test_given_advantages_train_the_policy_as_those_of_frozen_critics_do(data, given, checkpoint, settings):
    by_critics = make(data, pretrained_critics=str(checkpoint), **settings)
    by_dataset = make(given, advantage='dataset', **settings)
    started = by_dataset.learn_mode.state_dict()
    for _ in range(8):
        wanted, found = by_critics._training.iterate(), by_dataset._training.iterate()
        assert set(found.per_sample) == set(wanted.per_sample) - {'q_value', 'value'}
        assert set(found.losses) == {'policy_loss'}
        assert all(torch.equal(found.per_sample[name], wanted.per_sample[name]) for name in found.per_sample)
    wanted, found = by_critics.learn_mode.state_dict(), by_dataset.learn_mode.state_dict()
    for name, tensor in found['model'].items():
        if name.startswith('policy.'):
            assert torch.equal(tensor, wanted['model'][name]) and not torch.equal(tensor, started['model'][name]), name
        else:
            assert torch.equal(tensor, started['model'][name]), name
    assert [name for name, moments in found['optimizer'].items() if moments['step'] > 0] == ['policy']


def test_a_file_that_does_not_tell_episodes_apart_has_no_returns(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / 'rows.npz'
    obs = np.ones((50, 11))
    np.savez(path, obs=obs, next_obs=obs, reward=generator.normal(size=50), done=np.zeros(50),
             action=generator.uniform(-1, 1, (50, 3)))
    with pytest.raises(ValueError, match=f"{path} does not tell episodes apart, .*and learn.best_episodes is 0.2; set"):
        make(path, best_episodes=0.2)
    open_ended = write_d4rl_file(tmp_path / 'open.hdf5', [(60, 'open')])
    with pytest.raises(ValueError, match=f'{open_ended} has no whole episode'):
        make(open_ended, best_episodes=0.2)


def test_a_checkpoint_goes_on_with_the_draws_that_it_was_trained_with_alone(data, tmp_path):
    policy = make(data, best_episodes=0.3)
    train(policy, 2)
    state = policy.learn_mode.state_dict()
    make(data, best_episodes=0.3).learn_mode.load_state_dict(state)
    for share in (None, 0.2):
        with pytest.raises(ValueError, match=f'learn.best_episodes is {share}, but the checkpoint .* with 0.3; set'):
            make(data, best_episodes=share).learn_mode.load_state_dict(state)
    with pytest.raises(ValueError, match='learn.best_episodes is 0.3, but the checkpoint was trained with None'):
        policy.learn_mode.load_state_dict(make(data).learn_mode.state_dict())
    other = write_d4rl_file(tmp_path / 'other.hdf5', [(40, 'terminal')] * 3 + [(80, 'terminal')])
    with pytest.raises(ValueError, match='trained on other data'):
        make(other, best_episodes=0.3).learn_mode.load_state_dict(state)


def test_rows_whose_last_episode_is_whole_are_other_data_than_where_it_was_cut(tmp_path):
    generator = np.random.default_rng(0)
    columns = dict(observations=generator.uniform(1, 2, (60, 11)), terminals=np.zeros(60, bool),
                   actions=generator.uniform(-1, 1, (60, 3)), rewards=np.repeat([1.0, 2.0, 3.0], 20))
    whole = np.tile(np.arange(20) == 19, 3)
    cut = whole & (np.arange(60) < 59)
    for name, timeouts in dict(whole=whole, cut=cut).items():
        np.savez(tmp_path / f'{name}.npz', timeouts=timeouts, **columns)
    policies = [make(tmp_path / f'{name}.npz', best_episodes=0.6) for name in ('whole', 'cut')]
    rows, other = (policy._training.buffer.table for policy in policies)
    assert torch.equal(rows.rows, other.rows) and torch.equal(torch.as_tensor(rows.ends), torch.as_tensor(other.ends))
    with pytest.raises(ValueError, match='trained on other data'):
        policies[1].learn_mode.load_state_dict(policies[0].learn_mode.state_dict())


def test_a_dataset_without_advantages_is_named_with_what_to_add(data):
    with pytest.raises(ValueError, match=f'{data} has no advantages, or .* add a column .* advantages .* advantage'):
        make(data, advantage='dataset')


def test_critics_that_were_never_trained_are_told(given, data, tmp_path):
    policy = make(given, advantage='dataset')
    train(policy, 3)
    torch.save(policy.learn_mode.state_dict(), tmp_path / 'state')
    with pytest.warns(UserWarning, match='its critics were never trained'):
        make(data, pretrained_critics=str(tmp_path / 'state'))
    policy = make(data, target_theta=1.0)  # whose Q and Q̄ are equal after training, too
    train(policy, 3)
    torch.save(policy.learn_mode.state_dict(), tmp_path / 'state')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        make(data, pretrained_critics=str(tmp_path / 'state'))


def test_other_advantages_are_other_data(given, tmp_path):
    policy = make(given, advantage='dataset')
    other = tmp_path / 'other.hdf5'
    other.write_bytes(given.read_bytes())
    with h5py.File(other, 'a') as file:
        file['advantages'][3] += 1
    with pytest.raises(ValueError, match='trained on other data'):
        make(other, advantage='dataset').learn_mode.load_state_dict(policy.learn_mode.state_dict())
    make(other).learn_mode.load_state_dict(make(given).learn_mode.state_dict())  # critics do not look at them


def test_training_of_the_policy_alone_continues_exactly(policy_alone, tmp_path):
    data, settings = policy_alone
    settings = dict(settings, policy_loss='flat', tightening=dict(convex_share=0.9, iterations=10))
    policy = make(data, **settings)
    train(policy, 7)
    torch.save(policy.learn_mode.state_dict(), tmp_path / 'state')
    other = make(data, seed=1, **settings)
    other.learn_mode.load_state_dict(torch.load(tmp_path / 'state', weights_only=True))
    for expected, found in zip(train(policy, 5), train(other, 5)):
        assert expected == found
    expected, found = policy.learn_mode.state_dict(), other.learn_mode.state_dict()
    assert all(torch.equal(expected['model'][key], found['model'][key]) for key in expected['model'])
    assert expected['iteration'] == found['iteration'] == 12


@pytest.mark.parametrize('target', [0.3, 0.8])
@pytest.mark.parametrize('settings', [
    dict(weighting='per_sample', priority='none'), dict(weighting='none', priority=dict(type='quantile', quantile=0.3)),
    dict(weighting='per_sample', priority=dict(type='normal', exponent=0.6)),
])
def test_auto_temperature_gives_pretrained_critics_their_effective_share(data, checkpoint, target, settings):
    policy = make(
        data, pretrained_critics=str(checkpoint), temperature=dict(type='auto', effective_share=target), max_weight=1e4,
        learner=dict(hook=dict(log_show_after_iter=1)), **settings
    )
    training = policy._training
    counts = training.buffer.mass * (1 if settings.get('weighting') == 'none' else training.algorithm.frozen.weight)
    assert (counts.sum()**2 / (199 * counts.square().sum())).item() == pytest.approx(target, abs=0.01)
    logs = train(policy, 5)
    assert all(log['selection_effective_share'] == pytest.approx(target, abs=0.01) for log in logs)
    assert all(log['temperature'] == logs[0]['temperature'] != 1 for log in logs)


@pytest.mark.parametrize('spoil, error, message', [
    (lambda path, state: torch.save({**state, 'model': CAWRModel(11, 3, hidden_sizes=(8, 8)).state_dict()}, path),
     ValueError, r'critic net.0.weight has the shape \(2, 14, 8\), but this .* and these data need \(2, 14, 16\)'),
    (lambda path, state: path.write_bytes(path.read_bytes()[:-5000]), ValueError, 'cut short'),
    (lambda path, state: path.unlink(), FileNotFoundError, 'there is no checkpoint'),
    (lambda path, state: torch.save(state['model'], path), ValueError, 'is not a checkpoint of this package'),
    (lambda path, state: torch.save({**state, 'more': MakesFolder(path.parent / 'made')}, path), ValueError,
     'never loaded'),
])
def test_bad_checkpoints_of_critics_are_named_and_nothing_is_run(data, checkpoint, tmp_path, spoil, error, message):
    path = tmp_path / 'spoilt.pth.tar'
    path.write_bytes(checkpoint.read_bytes())
    spoil(path, torch.load(checkpoint, weights_only=True))
    with pytest.raises(error, match=message) as raised:
        make(data, pretrained_critics=str(path))
    assert str(path) in str(raised.value) and not (tmp_path / 'made').exists()


@pytest.mark.parametrize('network, name', [
    ('critic', 'critic_loss'), ('value', 'value'), ('policy', 'policy_loss'), ('target', 'q_value')
])
def test_a_parameter_that_is_nan_ends_training_with_its_iteration_and_tensor(data, network, name, tmp_path):
    policy = make(data)
    train(policy, 3)
    module = target_of(policy) if network == 'target' else getattr(policy._model, network)
    with torch.no_grad():
        next(module.parameters()).select(-1, 0).fill_(float('nan'))
    with pytest.raises(FloatingPointError, match=f'{name} is not finite at iteration 3 .*rows .* of the data.*; lower'):
        train(policy, 1)
    (tmp_path / 'ckpt').mkdir()
    torch.save({'model': {'weight': torch.ones(2)}}, tmp_path / 'ckpt' / 'iteration_3.pth.tar')
    policy.learn_mode.set_attribute('exp_name', str(tmp_path))
    with pytest.raises(FloatingPointError, match=f'{tmp_path}/ckpt/iteration_3.pth.tar'):
        train(policy, 1)


@pytest.mark.parametrize('rate, name', [
    ('learning_rate_q', '(q_value|critic_loss)'), ('learning_rate_value', '(value|value_loss)'),
    ('learning_rate_policy', 'policy_loss')
])
@pytest.mark.parametrize('settings', [{}, dict(temperature='auto'), dict(priority='none'), dict(weighting='none')])
def test_diverged_training_ends_with_its_iteration_and_tensor(data, rate, name, settings):
    message = f'training diverged: {name} is not finite at iteration 1 .* of the data'
    with pytest.raises(FloatingPointError, match=message):
        train(make(data, **{rate: 1e30}, **settings), 3)


def test_diverged_training_of_the_policy_alone_and_losses_whose_sum_overflows(data, checkpoint):
    with pytest.raises(FloatingPointError, match=r'policy_loss is not finite at iteration 1 \(the largest'):
        train(make(data, pretrained_critics=str(checkpoint), learning_rate_policy=1e30), 3)
    policy = make(data)
    step = policy._training.iterate()
    step.losses.update(value_loss=torch.tensor(3e38), critic_loss=torch.tensor(3e38))
    with pytest.raises(FloatingPointError, match=r'the sum of all quantities is not finite at iteration 0 \('):
        check_step(step, policy._training._drawn, torch.ones(()), policy._training.buffer.table)


@pytest.mark.parametrize('settings', [
    dict(), dict(policy_loss='skew', tightening=dict(iterations=5)), dict(cosine_iterations=4),
    dict(temperature='auto', weighting='per_sample', priority='none'), dict(weighting='none', priority='odpr'),
])
def test_the_metrics_of_the_policy_alone_are_those_announced(policy_alone, settings):
    data, alone = policy_alone
    policy = make(data, learner=dict(hook=dict(log_show_after_iter=1)), **{**settings, **alone})
    announced = policy.learn_mode.monitor_vars()
    assert ('value' in announced) == ('critic_loss' in announced) == ('pretrained_critics' in alone)
    assert len(set(announced)) == len(announced)
    for log in train(policy, 7):
        assert set(log) == set(announced)
        assert all(isinstance(value, float) and np.isfinite(value) for value in log.values())

"""AWR's losses and gradients by hand, its rounds against explicit ones, and how it learns online."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trainings import ACT, OBS, make_training, table

from ding_cawr import load_policy
from ding_cawr.algorithms.awr.model import AWRModel
from ding_cawr.algorithms.awr.settings import AWRSettings
from ding_cawr.algorithms.awr.update import AWR
from ding_cawr.data.buffer import PriorityBuffer
from ding_cawr.data.table import Table
from ding_cawr.evaluation.episodes import evaluate
from ding_cawr.evaluation.export import export_policy
from ding_cawr.returns import lambda_returns
from ding_cawr.training.loop import Training


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def algorithm(model: dict | None = None, **learn) -> AWR:
    torch.manual_seed(0)
    return AWR(AWRModel(OBS, ACT, **{'hidden_sizes': (8, ), **(model or {})}).double(), AWRSettings.read(learn))


def gradient(loss, output: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss(output.requires_grad_()).sum(), output)[0]


# ---------------------------------------------------------------- by hand


def test_the_loss_of_the_value_is_that_of_the_normalized_residual():
    # γ = 0.9 gives the scale 10: residuals 0.1 and -0.3, ½ mean of their squares, and its slope in V.
    made, value = algorithm(discount_factor=0.9), tensor([2.0, 5.0])
    target = tensor([3.0, 2.0])
    torch.testing.assert_close(made.value_loss(value, target), tensor(0.5 * (0.01 + 0.09) / 2))
    torch.testing.assert_close(
        gradient(lambda each: made.value_loss(each, target), value), tensor([-1 / 100 / 2, 3 / 100 / 2])
    )


def test_v_is_its_network_in_units_of_the_scale():
    made = algorithm(discount_factor=0.9)
    obs = torch.randn(1, 4, OBS, dtype=torch.float64)
    torch.testing.assert_close(made.values(obs)[0], 10 * made.models[0].value(obs[0])[:, 0])
    given = algorithm(discount_factor=0.9, value_scale=3.0)
    torch.testing.assert_close(given.values(obs)[0], 3 * given.models[0].value(obs[0])[:, 0])


def test_the_continuous_loss_and_its_gradient():
    """Two samples of two actions, σ = 0.5: w ((a - μ) / σ)² / 2, and the bound's 10 · ½ (|μ| - 1)² where |μ| > 1."""
    made = algorithm(dict(action_std=0.5))
    mean, action = tensor([[0.0, 1.5], [-1.2, 0.5]]), tensor([[0.5, 1.0], [-1.2, 2.0]])
    weight = tensor([2.0, 0.5])
    constant = 2 * math.log(0.5 * math.sqrt(2 * math.pi))
    of_actions = [0.5 * (1 + 1) + constant, 0.5 * 9 + constant]
    bound = 10 * 0.5 * (0.5**2 + 0.2**2) / 2
    wanted = (2 * of_actions[0] + 0.5 * of_actions[1]) / 2 + bound
    torch.testing.assert_close(made.policy_loss(mean, action, weight), tensor(wanted))
    # w (μ - a) / σ² / 2 samples, and 10 (|μ| - 1) sign(μ) / 2.
    slope = gradient(lambda each: made.policy_loss(each, action, weight), mean)
    torch.testing.assert_close(slope, tensor([[-2.0, 2.0 + 2.5], [-1.0, -1.5]]))


def test_the_discrete_loss_and_its_gradient():
    """Three actions with logits 0, log 2 and log 5: probabilities 1/8, 1/4, 5/8."""
    made = algorithm(dict(action_space='discrete'), logit_weight=0.1)
    logits, action = tensor([[0.0, math.log(2), math.log(5)]]), tensor([[1.0]])
    squares = math.log(2)**2 + math.log(5)**2
    torch.testing.assert_close(
        made.policy_loss(logits, action, tensor([3.0])), tensor(-3 * math.log(1 / 4) + 0.05 * squares)
    )
    slope = gradient(lambda each: made.policy_loss(each, action, tensor([3.0])), logits)
    wanted = [3 / 8, 3 / 4 - 3 + 0.1 * math.log(2), 15 / 8 + 0.1 * math.log(5)]
    torch.testing.assert_close(slope, tensor([wanted]))


def test_weights_are_clipped_exponentials_of_normalized_advantages():
    advantage = tensor([-1.0, 0.0, 1.0, 40.0])
    got = algorithm(temperature=0.5).weights(advantage)
    z = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    torch.testing.assert_close(got, (z / 0.5).exp().clamp(max=20))
    plain = algorithm(temperature=2.0, normalize_advantage=False).weights(advantage)
    torch.testing.assert_close(plain, tensor([math.exp(-0.5), 1.0, math.exp(0.5), 20.0])[0:4])


# ---------------------------------------------------------------- whole rounds against explicit ones


def explicit(model: AWRModel, data: Table, batches: list[torch.Tensor], settings: AWRSettings) -> AWRModel:
    """Two rounds of the box, with plain modules, autograd and torch's SGD."""
    rates = {model.value: settings.learning_rate_value, model.actor: settings.learning_rate_policy}
    optimizers = {net: torch.optim.SGD(net.parameters(), rate, momentum=0.9) for net, rate in rates.items()}
    critic_steps, policy_steps, _ = settings.round

    def descend(net, loss):
        optimizers[net].zero_grad()
        loss.backward()
        optimizers[net].step()

    def returns():
        with torch.no_grad():
            value, following = (100 * model.value(data[name])[:, 0] for name in ('obs', 'next_obs'))
            return value, lambda_returns(data['reward'], following, data['done'], data.ends, 0.99, 0.95)

    batches = iter(batches)
    for _ in range(2):
        _, target = returns()
        for _ in range(critic_steps):
            rows = next(batches)
            descend(model.value, 0.5 * F.mse_loss(model.value(data['obs'][rows])[:, 0], target[rows] / 100))
        value, target = returns()
        advantage = target - value
        weight = ((advantage - advantage.mean()) / (advantage.std() + 1e-8)).exp().clamp(max=20)
        for _ in range(policy_steps):
            rows = next(batches)
            mean = model.actor.output(data['obs'][rows])
            log_prob = torch.distributions.Normal(mean, 0.4).log_prob(data['action'][rows]).sum(dim=-1)
            over = F.relu(mean.abs() - 1).square().sum(dim=-1).mean()
            descend(model.actor, -(weight[rows] * log_prob).mean() + 5 * over)
    return model


@pytest.mark.parametrize('seeds', [0, [0, 1]])
def test_a_batch_of_one_sample_has_the_weight_1(seeds):
    training = make_training(seeds, dict(returns='td', batch_size=1), algorithm=AWR)
    training.batch_size = 1
    for _ in range(3):
        weight = training.iterate().per_sample['weight']
        assert torch.equal(weight, torch.ones_like(weight)) and weight.shape[-1] == 1


def test_rounds_are_those_of_the_box():
    """The order: returns, V's steps, returns and advantages by the new V, the policy's steps on fixed weights."""
    learn = dict(critic_steps=4, policy_steps=3, learning_rate_value=0.3, learning_rate_policy=0.05)
    training, drawn = make_training(3, learn, algorithm=AWR), []
    other = make_training(3, learn, algorithm=AWR)
    for _ in range(14):
        training.iterate()
        drawn.append(training._drawn.clone())
    model = explicit(other.algorithm.models[0], table(), drawn, other.algorithm.settings)
    for (name, got), wanted in zip(training.algorithm.models[0].named_parameters(), model.parameters()):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f'{name}: {text}')


def test_only_v_moves_in_its_steps_and_only_the_policy_in_its_own():
    training = make_training(3, dict(critic_steps=2, policy_steps=3), algorithm=AWR)
    model, moved = training.algorithm.models[0], []
    for _ in range(10):
        before = [next(net.parameters()).clone() for net in (model.value, model.actor)]
        step = training.iterate()
        after = [next(net.parameters()) for net in (model.value, model.actor)]
        moved.append(tuple(not torch.equal(*pair) for pair in zip(before, after)))
        rows = training.algorithm.rows
        assert torch.equal(step.per_sample['weight'], rows['row_weight'][0, training._drawn])
        assert torch.equal(step.per_sample['target'], rows['return'][0, training._drawn])
    assert moved == [(True, False)] * 2 + [(False, True)] * 3 + [(True, False)] * 2 + [(False, True)] * 3


def test_each_phase_logs_what_it_moves():
    training = make_training(3, dict(critic_steps=2, policy_steps=3), algorithm=AWR)
    of_value = {'value_loss', 'value', 'target_value'}
    of_policy = {'policy_loss', 'advantage_mean', 'advantage_std', 'weight_mean', 'weight_effective_share'}
    for number in range(10):
        step = training.iterate()
        metrics, weight = training.metrics(step), step.per_sample['weight']
        assert metrics.keys() - {'priority_effective_share'} == (of_value if number % 5 < 2 else of_policy)
        assert metrics.get('weight_mean', weight.mean()) == pytest.approx(weight.mean().item())
    step = (td := make_training(3, dict(returns='td'), algorithm=AWR)).iterate()
    metrics = td.metrics(step)
    assert metrics.keys() > of_value | of_policy
    assert metrics['total_loss'] == pytest.approx(metrics['value_loss'] + metrics['policy_loss'])


def test_one_step_form():
    """seeds: y by V before its steps, A by V after them; Adam on one batch."""
    learn = dict(returns='td', optimizer='adam', critic_steps=2, policy_steps=1, normalize_advantage=False,
                 value_scale=1.0, temperature=0.7, learning_rate_value=3e-3, learning_rate_policy=3e-3)
    training, other = (make_training(3, learn, algorithm=AWR) for _ in range(2))
    model, data = other.algorithm.models[0], table()
    optimizers = {net: torch.optim.Adam(net.parameters(), 3e-3) for net in (model.value, model.actor)}
    for _ in range(5):
        training.iterate()
        rows = training._drawn
        obs, action = data['obs'][rows], data['action'][rows]
        with torch.no_grad():
            target = data['reward'][rows] + 0.99 * (1 - data['done'][rows]) * model.value(data['next_obs'][rows])[:, 0]
        for _ in range(2):
            optimizers[model.value].zero_grad()
            (0.5 * F.mse_loss(model.value(obs)[:, 0], target)).backward()
            optimizers[model.value].step()
        weight = ((target - model.value(obs)[:, 0].detach()) / 0.7).exp().clamp(max=20)
        mean = model.actor.output(obs)
        log_prob = torch.distributions.Normal(mean, 0.4).log_prob(action).sum(dim=-1)
        optimizers[model.actor].zero_grad()
        (-(weight * log_prob).mean() + 5 * F.relu(mean.abs() - 1).square().sum(dim=-1).mean()).backward()
        optimizers[model.actor].step()
    for got, wanted in zip(training.algorithm.models[0].parameters(), model.parameters()):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-10)


def test_rows_without_ends_are_refused_by_name():
    training = Training(algorithm(), PriorityBuffer(), 8)
    data = table()
    data.ends = None
    with pytest.raises(ValueError, match="learn.returns is 'lambda'.*D4RL's or Minari's layout, or learn.returns 'td'"):
        training.attach(data)
    Training(algorithm(returns='td'), PriorityBuffer(), 8).attach(data)


@pytest.mark.parametrize('returns, same', [('lambda', False), ('td', True)])
def test_where_trajectories_end_belongs_to_the_data_of_lambda_returns(returns, same):
    """A state of the same rows cut otherwise is one of other data."""
    trainings = [Training(algorithm(returns=returns), PriorityBuffer(), 8) for _ in range(2)]
    for training, cut in zip(trainings, (False, True)):
        data = table()
        data.ends[3] = cut
        training.attach(data)
    first, second = (training.data_digest for training in trainings)
    assert (first == second) is same


# ---------------------------------------------------------------- statistics of observations


def test_running_statistics_are_those_of_all_observations():
    model = AWRModel(OBS, ACT).double()
    obs = torch.randn(500, OBS, dtype=torch.float64) * tensor(1, 2, 3, 4, 0) + 5
    for part in obs.split([1, 200, 7, 292]):
        model.observe(part)
    torch.testing.assert_close(model.actor.obs_mean, obs.mean(dim=0))
    wanted = obs.std(dim=0, correction=0)
    wanted[-1] = 0.01  # of equal numbers
    torch.testing.assert_close(model.actor.obs_std[:-1], wanted[:-1], rtol=1e-4, atol=0)
    assert model.actor.obs_std[-1] >= 0.01 and model.obs_count == 500


def test_statistics_stay_as_they_are_from_so_many_steps_on():
    made, data = algorithm(normalizer_steps=300), table()
    assert made.begin_round(data, data) == math.ceil(200 * 300 / 2048) + math.ceil(1000 * 300 / 2048)
    mean = made.models[0].actor.obs_mean.clone()
    torch.testing.assert_close(mean, data['obs'].mean(dim=0))
    more = Table(data.rows + 1, OBS)
    made.begin_round(data, more)
    assert torch.equal(made.models[0].actor.obs_mean, mean)


def test_discrete_actions_are_drawn_by_softmax_and_evaluated_by_the_likeliest():
    model = AWRModel(OBS, 3, action_space='discrete')
    with torch.no_grad():
        model.actor.net[-1].weight.zero_()
        model.actor.net[-1].bias.copy_(tensor(0, math.log(2), math.log(5)))
    obs = torch.zeros(20_000, OBS)
    assert model(obs).dtype == torch.int64 and (model(obs) == 2).all()
    torch.manual_seed(0)
    shares = model.explore(obs).bincount(minlength=3) / len(obs)
    torch.testing.assert_close(shares, torch.tensor([1 / 8, 1 / 4, 5 / 8]), atol=0.02, rtol=0)


def test_the_gaussian_explores_beyond_the_bounds_and_evaluates_within():
    model = AWRModel(OBS, ACT, action_std=0.4)
    with torch.no_grad():
        model.actor.net[-1].weight.zero_()
        model.actor.net[-1].bias.fill_(1.5)
    obs = torch.zeros(20_000, OBS)
    assert (model(obs) == 1).all()
    torch.manual_seed(0)
    drawn = model.explore(obs)
    assert abs(drawn.mean() - 1.5) < 0.02 and abs(drawn.std() - 0.4) < 0.02


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize('learn, message', [
    (dict(td_lambda=1.2), r'learn.td_lambda is 1.2; it must be a number in \[0, 1\]'),
    (dict(td_lambda=-0.1), r'learn.td_lambda is -0.1'),
    (dict(discount_factor=1.01), r'learn.discount_factor is 1.01; it must be a number in \[0, 1\]'),
    (dict(temperature=0.0), 'learn.temperature is 0.0; it must be a positive finite number'),
    (dict(temperature=-1), 'learn.temperature is -1'),
    (dict(max_weight=0), 'learn.max_weight is 0'),
    (dict(momentum=1.0), r'learn.momentum is 1.0; it must be a number in \[0, 1\)'),
    (dict(returns='gae'), "learn.returns is 'gae'; it must be one of 'lambda', 'td'"),
    (dict(critic_steps=0), 'learn.critic_steps is 0; it must be a positive whole number, or None'),
    (dict(discount_factor=1.0), 'learn.discount_factor is 1, so that .* give learn.value_scale'),
])
def test_settings_out_of_range(learn, message):
    with pytest.raises(ValueError, match=message):
        AWRSettings.read(learn)


def test_what_none_means():
    assert AWRSettings.read({}).round == (200, 1000, 2048)
    assert AWRSettings.read(dict(returns='td')).round == (1, 1, 1)
    assert AWRSettings.read(dict(critic_steps=7)).round == (7, 1000, 2048)
    assert AWRSettings.read({}).scale == pytest.approx(100)
    assert AWRSettings.read(dict(discount_factor=1, value_scale=50.0)).scale == 50


# ---------------------------------------------------------------- a discrete policy's checkpoint


@pytest.fixture(scope='module')
def discrete_checkpoint(tmp_path_factory):
    """Of CartPole's widths, whose logits say to push against the lean of the pole."""
    torch.manual_seed(0)
    made = AWR(AWRModel(4, 2, hidden_sizes=(16, ), action_space='discrete'), AWRSettings.read({}))
    with torch.no_grad():
        first, _, last = made.models[0].actor.net
        first.weight.zero_()
        first.weight[0] = torch.tensor([0.0, 0.1, 1.0, 0.5])
        first.weight[1] = -first.weight[0]
        last.weight.zero_()
        last.weight[1, 0] = last.weight[0, 1] = 1.0
    path = tmp_path_factory.mktemp('checkpoint') / 'iteration_3.pth.tar'
    state = {'format': 2, 'algorithm': 'awr', 'obs_statistics': None, 'env_id': None, 'iteration': 3}
    torch.save({**state, **made.state_dict()}, path)
    return path


def test_a_discrete_checkpoint_acts_and_is_evaluated(discrete_checkpoint):
    policy = load_policy(discrete_checkpoint)
    assert policy.discrete and (policy.obs_shape, policy.action_shape) == (4, 2)
    obs = np.array([[0, 0, 0.1, 0], [0, 0, -0.1, 0]], dtype=np.float32)
    actions = policy(obs)
    assert actions.tolist() == [1, 0] and actions.dtype == np.int64 and policy(obs[0]) == 1
    result = evaluate(policy, 'CartPole-v1', episodes=3)
    assert (result.returns > 100).all() and set(result.actions.tolist()) == {0.0, 1.0}  # chance: about 20
    assert (result.returns == result.lengths).all()


@pytest.mark.parametrize('env_id, message', [
    ('Hopper-v4', 'action space Box.* is not Discrete from 0 on'),
    ('Acrobot-v1', 'observations that are 4 wide and gives actions that are 2 wide'),
])
def test_a_discrete_checkpoint_in_another_environment_is_refused(discrete_checkpoint, env_id, message):
    with pytest.raises(ValueError, match=message):
        evaluate(load_policy(discrete_checkpoint), env_id, episodes=1)


@pytest.mark.parametrize('ending', ['.pt', '.onnx'])
def test_softmax_is_exported(discrete_checkpoint, tmp_path, ending):
    policy = load_policy(discrete_checkpoint)
    path = export_policy(policy, tmp_path / f'policy{ending}')
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    if ending == '.pt':
        got = torch.jit.load(path)(torch.from_numpy(obs)).numpy()
    else:
        got, = pytest.importorskip('onnxruntime').InferenceSession(path).run(None, {'obs': obs})
    assert got.dtype == np.int64 and got.tolist() == policy(obs).tolist() and 0 < got.sum() < 50


@pytest.mark.parametrize('name', ['regression', 'reparameterization', 'continuous'])
def test_names_of_continuous_actions_in_other_policies_are_taken(name):
    assert not AWRModel(OBS, ACT, action_space=name).discrete
    with pytest.raises(ValueError, match="model.action_space is 'hybrid'; it must be 'continuous' or 'discrete'"):
        AWRModel(OBS, ACT, action_space='hybrid')

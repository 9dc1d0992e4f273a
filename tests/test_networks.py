"""The block of all networks against the modules that say what they are, and against autograd."""
import copy

import pytest
import torch

from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.networks import ESTIMATING, TRAINED, Networks

OBS, ACT, N = 5, 3, 7


def make_models(count: int, hidden_sizes=(16, 16)) -> list[CAWRModel]:
    torch.manual_seed(0)
    models = [CAWRModel(OBS, ACT, hidden_sizes=hidden_sizes).double() for _ in range(count)]
    for model in models:
        for parameter in model.parameters():  # last layers start near zero
            torch.nn.init.normal_(parameter, std=0.3)
    return models


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def inputs(lead: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    return random(*lead, N, OBS), random(*lead, N, OBS + ACT)


def expected_outputs(model: CAWRModel, obs: torch.Tensor, pairs: torch.Tensor) -> list[torch.Tensor]:
    """μ, Q1, Q2 and V by the modules, (N, width) each."""
    q_values = model.critic(pairs[:, :OBS], pairs[:, OBS:])
    return [model.policy(obs), *q_values.unsqueeze(-1), model.value(obs).unsqueeze(-1)]


@pytest.mark.parametrize('as_one', [False, True])
@pytest.mark.parametrize('hidden_sizes', [(16, 16), (8, ), (8, 24, 16)])
@pytest.mark.parametrize('replicas', [None, 1, 3])
def test_passes_are_those_of_the_modules(as_one, hidden_sizes, replicas):
    models = make_models(replicas or 1, hidden_sizes)
    plain = copy.deepcopy(models)
    lead = () if replicas is None else (replicas, )
    networks = Networks(models if lead else models[0], as_one=as_one)
    assert networks.replica_shape == lead
    obs, pairs = inputs(lead)
    forward = networks.block.forward(TRAINED, [obs, pairs, pairs, obs])
    gradients = [torch.randn_like(output) for output in forward.outputs]
    networks.block.backward(forward, gradients)

    for r, model in enumerate(plain):
        def of(tensor, r=r):
            return tensor[r] if lead else tensor

        outputs = expected_outputs(model, of(obs), of(pairs))
        for got, wanted in zip(forward.outputs, outputs):
            torch.testing.assert_close(of(got), wanted, rtol=1e-12, atol=1e-12)
        torch.autograd.backward(outputs, [of(gradient) for gradient in gradients])
    # The gradients lie where the parameters do: a step along them is a step along those of autograd.
    with torch.no_grad():
        for parameter in networks.parameters.values():
            parameter -= parameter.grad
        for model in plain:
            for parameter in model.parameters():
                parameter -= parameter.grad
    for model, moved in zip(plain, models):
        for name, tensor in moved.state_dict().items():
            torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('as_one', [False, True])
def test_the_policy_alone_leaves_the_other_gradients(as_one):
    model = make_models(1)[0]
    networks, plain = Networks(model, as_one=as_one), copy.deepcopy(model)
    obs, pairs = inputs(())
    forward = networks.block.forward(TRAINED, [obs, pairs, pairs, obs])
    networks.block.backward(forward, [random(N, w) for w in (ACT, 1, 1, 1)])
    before = {name: parameter.grad.clone() for name, parameter in networks.parameters.items()}
    forward, gradient = networks.block.forward(networks.block.rows['policy'], [obs]), random(N, ACT)
    networks.block.backward(forward, [gradient])
    plain.policy(obs).backward(gradient)
    for name, parameter in networks.parameters.items():
        assert torch.equal(parameter.grad, before[name]) is not (name == 'policy')
    with torch.no_grad():
        networks.parameters['policy'] -= networks.parameters['policy'].grad
        for parameter, moved in zip(plain.policy.parameters(), model.policy.parameters()):
            torch.testing.assert_close(moved, parameter - parameter.grad)


@pytest.mark.parametrize('as_one', [False, True])
def test_estimates_are_v_and_the_targets(as_one):
    models = make_models(2)
    networks = Networks(models, as_one=as_one)
    with torch.no_grad():
        for target in networks.target_critics:
            for parameter in target.parameters():
                parameter.mul_(0.5)
    obs, pairs = inputs((2, ))
    value, *q_values = networks.block.forward(ESTIMATING, [obs, pairs, pairs]).outputs
    for r, (model, target) in enumerate(zip(models, networks.target_critics)):
        torch.testing.assert_close(value[r, :, 0], model.value(obs[r]))
        wanted = target(pairs[r, :, :OBS], pairs[r, :, OBS:])
        torch.testing.assert_close(torch.stack([q_value[r, :, 0] for q_value in q_values]), wanted)


def test_models_stay_usable_and_share_the_blocks_memory():
    model = make_models(1)[0]
    before, other = copy.deepcopy(model.state_dict()), make_models(2)[1].state_dict()
    networks = Networks(model)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.load_state_dict(other)
    obs, pairs = inputs(())
    forward = networks.block.forward(TRAINED, [obs, pairs, pairs, obs])
    for got, wanted in zip(forward.outputs, expected_outputs(model, obs, pairs)):
        torch.testing.assert_close(got, wanted)
    assert not torch.equal(model.policy(obs), make_models(1)[0].policy(obs))


@pytest.mark.parametrize('as_one', [False, True])
def test_bfloat16_rounds_the_hidden_products_alone(as_one):
    model = make_models(1, (32, 32))[0].float()
    networks = Networks(model, precision='bfloat16', as_one=as_one)
    obs = torch.randn(N, OBS)
    forward = networks.block.forward(networks.block.rows['policy'], [obs])
    first, _, second, _, last = model.policy.net
    hidden = first(obs).relu()
    hidden = ((hidden.bfloat16() @ second.weight.T.bfloat16()) + second.bias).relu()
    torch.testing.assert_close(forward.outputs[0], last(hidden), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(forward.outputs[0], model.policy(obs), rtol=1e-5, atol=1e-5)

    gradient = torch.randn(N, ACT)
    networks.block.backward(forward, [gradient])
    model.policy(obs).backward(gradient)  # unrounded
    wanted = torch.cat([parameter.grad.flatten() for parameter in model.policy.parameters()])
    rows = networks.parameters['policy']
    with torch.no_grad():
        before = torch.cat([parameter.flatten().clone() for parameter in model.policy.parameters()])
        rows -= rows.grad
        got = before - torch.cat([parameter.flatten() for parameter in model.policy.parameters()])
    assert 1e-4 < (got - wanted).norm() / wanted.norm() < 2e-2

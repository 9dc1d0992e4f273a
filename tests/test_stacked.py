"""Networks under autograd, side by side and with gradients by hand, against plain modules."""
import copy

import pytest
import torch
from torch import Tensor, nn

from ding_cawr.networks.optimizers import SGD
from ding_cawr.networks.products import VARIABLE
from ding_cawr.networks.stacked import HALF, LARGEST, SIZES, Stacked, descend, take_fastest

WIDTHS = 5, 24, 16, 3


def network(norm: bool, bounded: bool, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in zip(WIDTHS, WIDTHS[1:]):
        layers += [nn.Linear(i, o), nn.ReLU(), *[nn.LayerNorm(o)] * norm]
    net = nn.Sequential(*layers[:-2 if norm else -1], *[nn.Tanh()] * bounded).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():  # so that weights of a LayerNorm are no ones
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def made(replicas: int, networks: int, *given, **options) -> tuple[Stacked, list[list[nn.Sequential]]]:
    """Return stacked networks, and plain ones of the same parameters."""
    torch.manual_seed(0)
    nets = [[network(*given, **options) for _ in range(networks)] for _ in range(replicas)]
    plain = copy.deepcopy(nets)
    return Stacked(nets), plain


def of_plain(nets: list[list[nn.Sequential]], inputs: Tensor, count: int | None = None) -> Tensor:
    return torch.stack([torch.stack([net(x) for net in row[:count]]) for row, x in zip(nets, inputs)])


@pytest.mark.parametrize('norm, bounded', [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize('rows', [1, 2 * HALF - 1, 2 * HALF + 1, LARGEST + 3])
@pytest.mark.parametrize('replicas, networks', [(1, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize('threads', [1, 2])
def test_outputs_and_gradients_are_those_of_plain_modules(norm, bounded, rows, replicas, networks, threads):
    stacked, plain = made(replicas, networks, norm, bounded)
    own, inputs = (torch.randn(replicas, rows, WIDTHS[0], dtype=torch.float64).requires_grad_() for _ in range(2))
    inputs = own.detach().clone().requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(2):  # the second time in the memory of the first
            outputs = stacked(own)
            with torch.no_grad():
                torch.testing.assert_close(stacked(own), outputs, rtol=0, atol=0)
            weights = torch.randn_like(outputs)
            of_own, *of_leaves = torch.autograd.grad((weights * outputs).sum(), [own, *stacked.leaves])
    finally:
        torch.set_num_threads(before)
    wanted = of_plain(plain, inputs)
    torch.testing.assert_close(outputs, wanted)
    parameters = [parameter for row in plain for net in row for parameter in net.parameters()]
    of_inputs, *of_parameters = torch.autograd.grad((weights * wanted).sum(), [inputs, *parameters])
    for found, each in zip([of_own, *of_leaves, *stacked.gradients], [of_inputs, *of_parameters, *of_parameters]):
        torch.testing.assert_close(found, each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('rows', [7, 2 * HALF])
@pytest.mark.parametrize('count', [1, 2, None])
def test_frozen_networks_and_the_first_of_them(rows, count):
    stacked, plain = made(2, 2, True, True)
    inputs = torch.randn(2, rows, WIDTHS[0], dtype=torch.float64).requires_grad_()
    outputs, wanted = stacked(inputs, frozen=True, count=count), of_plain(plain, inputs, count)
    torch.testing.assert_close(outputs, wanted)
    stacked.parameters['0.weight'].grad.fill_(7)
    pair = [torch.autograd.grad(each.square().sum(), inputs)[0] for each in (outputs, wanted)]
    torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-9)
    assert (stacked.parameters['0.weight'].grad == 7).all()
    assert not stacked(inputs.detach(), frozen=True).requires_grad


def test_a_batch_as_on_a_gpu_is_the_same():
    stacked, plain = made(2, 2, True, True)
    inputs = torch.randn(2, 9, WIDTHS[0], dtype=torch.float64)
    batch = inputs.unsqueeze(1).expand(-1, 2, -1, -1).flatten(0, 1)
    found = stacked._batch(batch, stacked.parameters).unflatten(0, (2, 2))
    torch.testing.assert_close(found, of_plain(plain, inputs))


def test_both_back_ends(monkeypatch):
    outputs, gradients = [], []
    for name in ('plain', 'onednn'):
        monkeypatch.setenv(VARIABLE, name)
        stacked, _ = made(1, 1, False, False, dtype=torch.float32)
        take_fastest([stacked])
        assert stacked.products.name == name
        torch.manual_seed(1)
        outputs.append(stacked(torch.randn(1, 2 * HALF, WIDTHS[0])))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), stacked.leaves))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    for pair in zip(*gradients):
        torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-3)


def test_a_pass_whose_memory_a_later_one_took_is_an_error():
    stacked, _ = made(1, 2, False, False)
    inputs = torch.randn(1, 4, WIDTHS[0], dtype=torch.float64)
    loss = (stacked(inputs) + stacked(inputs)).sum()
    with pytest.raises(RuntimeError, match='a later pass has overwritten what this one kept'):
        torch.autograd.grad(loss, stacked.leaves)


def test_a_pass_that_was_interrupted_counts_as_a_later_one(monkeypatch):
    stacked, _ = made(1, 2, False, False)
    inputs = torch.randn(1, 4, WIDTHS[0], dtype=torch.float64)
    outputs = stacked(inputs)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stacked.nets[1], 'forward', interrupted)
        with pytest.raises(KeyboardInterrupt):
            stacked(2 * inputs)
    with pytest.raises(RuntimeError, match='a later pass has overwritten'):
        torch.autograd.grad(outputs.sum(), stacked.leaves)


def test_gradients_of_gradients_are_refused():
    stacked, _ = made(1, 1, False, False)
    inputs = torch.randn(1, 4, WIDTHS[0], dtype=torch.float64).requires_grad_()
    slope, = torch.autograd.grad(stacked(inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        slope.square().sum().backward()


def test_batches_of_many_sizes_share_one_memory():
    stacked, plain = made(1, 2, True, False)
    for rows in (40, *range(1, 3 * SIZES), 40):
        inputs = torch.randn(1, rows, WIDTHS[0], dtype=torch.float64)
        torch.testing.assert_close(stacked(inputs), of_plain(plain, inputs))
        with torch.no_grad():
            stacked(inputs)
    assert len(stacked._views) <= SIZES and len(stacked._memory['kept'][0][0][0]) == 3 * SIZES - 1


@pytest.mark.parametrize('layer', [
    nn.GELU(), nn.Dropout(), nn.Linear(24, 24, bias=False), nn.LayerNorm(24, elementwise_affine=False),
    nn.Sequential(nn.LayerNorm(24), nn.ReLU()),
], ids=str)
def test_a_layer_that_is_not_known_is_named(layer):
    layers = layer if isinstance(layer, nn.Sequential) else [layer]
    net = nn.Sequential(nn.Linear(5, 24), nn.ReLU(), *layers, nn.Linear(24, 3))
    with pytest.raises(ValueError, match=r'layer [23] is .*; it must be nn.Linear or nn.LayerNorm with weight'):
        Stacked([[net]])


def test_stacked_networks_are_not_copied():
    stacked, _ = made(1, 1, False, False)
    with pytest.raises(TypeError, match='cannot be copied'):
        copy.deepcopy(stacked)


def test_descend_follows_the_gradient():
    stacked, plain = made(1, 2, False, False)
    inputs = torch.randn(1, 4, WIDTHS[0], dtype=torch.float64)
    optimizer = SGD(stacked.parameters, 0.1, 0.0)
    descend(stacked(inputs).square().mean(dim=(1, 2, 3)), optimizer, stacked)
    of_plain(plain, inputs).square().mean().backward()
    for number, net in enumerate(plain[0]):
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(stacked.parameters[name][number].detach(), parameter - 0.1 * parameter.grad)

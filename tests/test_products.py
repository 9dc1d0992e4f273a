"""The products of hidden layers: all back ends agree, the faster one is taken, and a checkpoint says which."""
import pytest
import torch
from trainings import make_training

from ding_cawr.networks import products
from ding_cawr.networks.products import BACK_ENDS, VARIABLE, OneDNN, Plain, available, fastest

FLOAT = torch.empty(0)


@pytest.fixture(autouse=True)
def anew():
    """Forget the choices of this process before and after."""
    for function in (products._fastest, products._usable):
        function.cache_clear()
    yield
    for function in (products._fastest, products._usable):
        function.cache_clear()


@pytest.mark.parametrize('rows, inputs, outputs', [(1, 3, 2), (7, 16, 24), (512, 256, 256)])
def test_back_ends_agree(rows, inputs, outputs):
    # Views, as they lie in a block: rows and columns of something larger.
    x, gradient = torch.randn(rows, inputs + 2)[:, 1:-1], torch.randn(rows, outputs)
    weight, bias = torch.randn(inputs * outputs + 5)[5:].view(inputs, outputs), torch.randn(1, outputs)
    wanted = torch.relu(x.double() @ weight.double() + bias.double())
    for kind in BACK_ENDS.values():
        back_end, into = kind(), torch.empty(inputs, outputs)
        close = dict(rtol=1e-4, atol=1e-4, check_dtype=False)
        torch.testing.assert_close(back_end.relu(x, weight, bias, torch.empty(rows, outputs)), wanted, **close)
        torch.testing.assert_close(
            back_end.input_gradient(gradient, weight), gradient.double() @ weight.double().T, **close
        )
        back_end.weight_gradient(x, gradient, into)
        torch.testing.assert_close(into, x.double().T @ gradient.double(), **close)


def test_the_faster_one_is_taken_and_random_numbers_stay(monkeypatch):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    slow = Plain.weight_gradient

    def times_twenty(self, x, gradient, out):
        for _ in range(20):
            slow(self, x, gradient, out)

    monkeypatch.setattr(Plain, 'weight_gradient', times_twenty)
    assert fastest(256, 256, FLOAT).name == 'onednn'
    assert torch.equal(torch.rand(2), wanted)

    def times_hundred(self, gradient, weight):
        for _ in range(100):
            result = gradient @ weight.mT
        return result

    monkeypatch.setattr(OneDNN, 'input_gradient', times_hundred)
    products._fastest.cache_clear()
    assert fastest(256, 256, FLOAT).name == 'plain'
    assert fastest(256, 256, FLOAT.double()).name == 'plain'


def test_two_widths_have_one_choice(monkeypatch):
    slow, widths = Plain.relu, []

    def slow_where_wide(self, x, weight, bias, out):
        widths.append(weight.shape[0])
        for _ in range(50 if weight.shape[0] == 384 else 1):
            slow(self, x, weight, bias, out)

    monkeypatch.setattr(Plain, 'relu', slow_where_wide)
    monkeypatch.setattr(products, '_difference', lambda *operands: 0.0)
    assert fastest(384, 384, FLOAT).name == fastest(256, 256, FLOAT).name
    assert set(widths) == {256}


def test_one_that_disagrees_is_refused_with_a_warning(monkeypatch):
    monkeypatch.setattr(OneDNN, 'input_gradient', lambda self, gradient, weight: 1.01 * (gradient @ weight.mT))
    with pytest.warns(UserWarning, match=r'the products of onednn differ from the plain ones by \d\.\de-0\d') as told:
        assert fastest(64, 64, FLOAT).name == 'plain' and available('onednn', 64, 64, FLOAT) is None
    assert len(told) == 1


def test_a_torch_without_the_operator(monkeypatch):
    def lacks(self):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(OneDNN, '__init__', lacks)
    assert fastest(64, 64, FLOAT).name == 'plain'
    monkeypatch.setenv(VARIABLE, 'onednn')
    with pytest.raises(ValueError, match=f"{VARIABLE} is 'onednn', which this torch or processor does not have"):
        fastest(64, 64, FLOAT)


def test_the_environment_variable(monkeypatch):
    for name in BACK_ENDS:
        monkeypatch.setenv(VARIABLE, name)
        assert fastest(64, 64, FLOAT).name == name
    monkeypatch.setenv(VARIABLE, 'mkl')
    with pytest.raises(ValueError, match=f"{VARIABLE} is 'mkl'; it must be one of 'plain', 'onednn'"):
        fastest(64, 64, FLOAT)


def test_iterations_with_one_are_those_with_the_other(monkeypatch):
    runs, linear, calls = {}, OneDNN.relu, []
    monkeypatch.setattr(OneDNN, 'relu', lambda *operands: calls.append(1) or linear(*operands))
    for name in BACK_ENDS:
        monkeypatch.setenv(VARIABLE, name)
        runs[name] = make_training(3, {}, torch.float32)
        assert runs[name].algorithm.products == name
        calls.clear()
        for _ in range(10):
            runs[name].iterate()
        # The second layers of three networks on both batches, of four on one.
        assert len(calls) == (10 * (3 + 4) if name == 'onednn' else 0)
    plain, onednn = (run.state_dict()['model'] for run in runs.values())
    for key, tensor in plain.items():
        torch.testing.assert_close(onednn[key], tensor, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_says_which_and_a_run_goes_on_with_it(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'onednn')
    first = make_training(3, {}, torch.float32)
    first.iterate()
    state = first.state_dict()
    assert state['products'] == 'onednn'
    monkeypatch.setenv(VARIABLE, 'plain')
    second = make_training(3, {}, torch.float32)
    assert second.algorithm.products == 'plain'
    second.load_state_dict(state)
    assert second.algorithm.products == 'onednn'
    for training in (first, second):
        training.iterate()
    for key, tensor in first.state_dict()['model'].items():
        assert torch.equal(second.state_dict()['model'][key], tensor)
    with pytest.warns(UserWarning, match="the products of 'other', which cannot be had here; it goes on with those of"):
        second.load_state_dict({**state, 'products': 'other'})
    with pytest.raises(ValueError, match='its products is 3; it must be a name'):
        second.load_state_dict({**state, 'products': 3})
    del state['products']  # one of before there was a choice
    second.load_state_dict(state)
    assert second.algorithm.products == 'plain'


def test_replicas_and_whole_datasets_go_through_them(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'onednn')
    training = make_training([0, 1], {}, torch.float32)
    assert training.algorithm.products == 'onednn'
    step = training.iterate()
    assert step.losses['critic_loss'].shape == (2, )
    advantage = training.algorithm.quantities(training.buffer.table)['advantage']
    monkeypatch.setenv(VARIABLE, 'plain')
    plain = make_training([0, 1], {}, torch.float32)
    plain.iterate()
    torch.testing.assert_close(
        plain.algorithm.quantities(plain.buffer.table)['advantage'], advantage, rtol=1e-2, atol=1e-3
    )

"""benchmarks/forms.py trains several forms on shared critics; each must be the package's own iteration."""
import pytest
import torch
from helpers import benchmark

from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.data.buffer import PriorityBuffer, join_columns
from ding_cawr.data.table import Table

forms = benchmark('forms')


@pytest.fixture(autouse=True)
def exact():
    """In float32 Adam makes a rounding error of a gradient near 0 a step of its own."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def table_of(rows: int = 400) -> Table:
    generator = torch.Generator().manual_seed(0)
    return join_columns({
        'obs': torch.randn(rows, 5, generator=generator), 'action': torch.randn(rows, 2, generator=generator).tanh(),
        'reward': torch.randn(rows, generator=generator), 'next_obs': torch.randn(rows, 5, generator=generator),
        'done': torch.rand(rows, generator=generator) < 0.1
    })


def alone(data: Table, learn: dict, seed: int, iterations: int) -> CAWR:
    """The package's own iteration on the draws that the benchmark makes for this form."""
    torch.manual_seed(seed)
    settings = CAWRSettings.read(learn)
    update = CAWR(CAWRModel(5, 2), settings)
    uniform, prioritized = PriorityBuffer(seed=seed + 1), PriorityBuffer(seed=seed, exponent=settings.exponent)
    uniform.attach(data)
    prioritized.attach(data)
    for _ in range(iterations):
        d1, d2 = uniform.sample_uniform(learn['batch_size']), prioritized.sample_prioritized(learn['batch_size'])
        step = update.step(dict(uniform=d1, prioritized=d2))
        if step.priority is not None:
            prioritized.update_priority(torch.cat([d1.indices, d2.indices]), step.priority)
    return update


def test_every_form_is_the_packages_own_iteration():
    table = forms.forms('hopper-medium-v2', 10)  # trust is full after 6, but where it grows slowly
    learn = {name: {**section, 'batch_size': 32} for name, section in table.items()}
    data, iterations = table_of(), 12
    together = forms.Forms(data, learn, seed=3)
    for _ in range(iterations):
        together.step()
    for name, section in learn.items():
        update = alone(data, section, 3, iterations)
        for mine, theirs in zip(together.updates[name].model.policy.parameters(), update.model.policy.parameters()):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)  # Adam enlarges rounding
        temperatures = (each.selection.temperature for each in (together.updates[name], update))
        torch.testing.assert_close(next(temperatures), next(temperatures), rtol=1e-6, atol=0)
        targets = (each.networks.target_critics[0].parameters() for each in (together.lead, update))
        for mine, theirs in zip(*targets):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)  # Adam enlarges rounding

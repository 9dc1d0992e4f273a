"""The parts of an iteration that are timed, each a function that does one iteration of it, and their timing."""
from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

import torch
from ding.config import compile_config
from ding.policy import create_policy
from torch import Tensor

from ding_cawr.bench.synthetic import environment_id
from ding_cawr.config import PRESETS, make_config
from ding_cawr.data.buffer import PriorityBuffer
from ding_cawr.data.transitions import Transitions
from ding_cawr.engine.dataset import Statistics
from ding_cawr.engine.policy import OfflinePolicy
from ding_cawr.networks.lanes import lanes
from ding_cawr.networks.products import fastest
from ding_cawr.training.loop import Training

#: The preset that is measured where none is named.
PRESET = next(iter(PRESETS))
#: Width of the hidden layers whose products are the floor: the policy's default.
HIDDEN = 256
#: Batches that the parts go through in turn.
BATCHES = 8
#: Phases of a long period that the update goes through.
PHASES = 12
#: Iterations before each block that are not timed: the part before has emptied the caches.
SETTLE = 2
#: Longer than any measurement.
ENDLESS = 10**9

Iteration = Callable[[], Any]
TimedBlock = Callable[[], float]


def block(iteration: Iteration, iterations: int, device: str) -> TimedBlock:
    """Return a function that runs a part the given number of times and returns the milliseconds of one run."""
    def run() -> float:
        steps = loop_block(iterations, device)
        try:
            while True:
                next(steps)
                iteration()
        except StopIteration as end:
            return end.value

    return run


def loop_block(iterations: int, device: str) -> Generator[None, None, float]:
    """Return the milliseconds of one iteration of a loop: each ``yield`` lets it do one."""
    for number in range(SETTLE + iterations):
        if number == SETTLE:
            start = _now(device)
        yield
    return 1e3 * (_now(device) - start) / iterations


def _now(device: str) -> float:
    """Return the time at which a GPU has done what it was given to do."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def floor(batch_size: int, device: str) -> Iteration:
    """Return the floor: the products of the hidden 256 x 256 layers that one update needs, by the fastest back end.
    V, Q1, Q2 and the policy go forward on a batch of n and have gradients of inputs and of weights; both Q̄ and V go
    forward on 2n.
    """
    weights = [torch.randn(HIDDEN, HIDDEN, device=device) for _ in range(4)]
    n, two_n = (torch.randn(rows, HIDDEN, device=device) for rows in (batch_size, 2 * batch_size))
    n_transposed = n.t().contiguous()
    back_end = fastest(HIDDEN, HIDDEN, n)

    def product(a: Tensor, b: Tensor) -> None:
        back_end.input_gradient(a, b.mT)

    def iteration() -> None:
        for weight in weights:
            product(n, weight)
        for weight in weights[:3]:
            product(two_n, weight)
        for weight in weights:  # gradients of the layer's inputs, then of its weights
            product(n, weight)
            product(n_transposed, n)

    return iteration


def configuration(
    batch_size: int, obs_shape: int, action_shape: int, device: str, data_path: Any, learn: Any, preset: str = PRESET
) -> tuple:
    """Return ``make_config``'s configuration of a preset for data of these widths, without evaluations."""
    return make_config(
        environment_id(obs_shape, action_shape), preset, data_path=data_path, batch_size=batch_size,
        cuda=device == 'cuda', iterations=ENDLESS, eval_freq=ENDLESS, exp_name=preset, **learn
    )


class Parts:
    """Update, draws, priorities and the whole iteration of one configuration, on their own, with batches of n each.
    ``learn`` has the keys of ``policy.learn`` that differ from the preset's."""

    def __init__(
        self, transitions: Transitions, batch_size: int, device: str, learn: Mapping[str, Any], preset: str = PRESET
    ) -> None:
        widths = transitions.obs_shape, transitions.action_shape
        configs = configuration(batch_size, *widths, device, transitions.source, learn, preset)
        self._policy_cfg = compile_config(configs[0], seed=0, auto=True, create_cfg=configs[1], save_cfg=False).policy
        self._device, self._batch_size = device, batch_size
        # Policies read only the transitions.
        self.statistics = Statistics(None, None, None, transitions, None, None)
        algorithm = PRESETS[preset].algorithm
        settings = algorithm.Settings.read(self._policy_cfg.learn)
        self.buffer = PriorityBuffer(exponent=settings.exponent, seed=0, device=device)
        given = {key: self._policy_cfg.model[key] for key in algorithm.ModelSettings.defaults()}
        self._algorithm = algorithm(algorithm.Model(*widths, **given).to(device), settings)
        Training(self._algorithm, self.buffer, batch_size).attach(transitions.table)
        # One priority a row, since a row that comes twice must come with the same one.
        self._priority = torch.randn(len(transitions), device=device).exp()
        self.buffer.set_priorities(self._priority)

    @property
    def period(self) -> int:
        """Return the number of iterations after which their variants repeat."""
        return self._algorithm.period

    def update(self) -> Iteration:
        """Return one iteration of networks and optimizers on batches drawn before; its variants come as often as
        in a run."""
        period = self._algorithm.period
        phases = itertools.cycle([number * period // PHASES for number in range(PHASES)] if period > PHASES
                                 else range(period))
        draws = itertools.cycle([{kind: self.buffer.draw(kind, self._batch_size) for kind in self._algorithm.draw_kinds}
                                 for _ in range(BATCHES)])

        def update() -> Any:
            self._algorithm.phase = next(phases)
            with lanes():
                return self._algorithm.step(next(draws))

        return update

    def draw_uniform(self) -> Any:
        return self.buffer.sample_uniform(self._batch_size)

    def draw_prioritized(self) -> Any:
        return self.buffer.sample_prioritized(self._batch_size)

    def priorities(self) -> Iteration:
        """Return the setting of new priorities for the 2n rows of an iteration."""
        rows = [torch.cat([self.draw_uniform().indices, self.draw_prioritized().indices]) for _ in range(BATCHES)]
        pairs = itertools.cycle([(indices, self._priority[indices]) for indices in rows])
        return lambda: self.buffer.update_priority(*next(pairs))

    def bare(self) -> Iteration:
        """Return the policy's iteration as the pipeline calls it (draws, update, priorities), without the pipeline."""
        policy, tick = self.policy(seed=0), torch.empty(0)
        policy.set_statistic(self.statistics)
        return partial(policy.learn_mode.forward, tick)

    def policy(self, seed: int) -> OfflinePolicy:
        """Return a policy as DI-engine's pipeline makes it."""
        torch.manual_seed(seed)
        return create_policy(self._policy_cfg, enable_field=['learn'])

    def all(self) -> dict[str, Iteration]:
        """Return every part by its name in the report."""
        return {
            'floor': floor(self._batch_size, self._device),
            'update': self.update(),
            'sample_uniform': self.draw_uniform,
            'sample_prioritized': self.draw_prioritized,
            'update_priority': self.priorities(),
            'bare': self.bare(),
        }

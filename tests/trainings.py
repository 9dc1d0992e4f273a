"""What tests of training share: an algorithm on random rows, a policy on a small file, and a recording's double."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from ding.config import compile_config
from ding.policy import create_policy
from ding.utils.data import create_dataset
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ding_cawr import make_config
from ding_cawr.algorithms.base import Algorithm, Step
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.config import PRESETS
from ding_cawr.data.buffer import PriorityBuffer, join_columns
from ding_cawr.data.table import Table
from ding_cawr.engine.policy import OfflinePolicy
from ding_cawr.training.loop import Training

OBS, ACT, ROWS, N = 5, 2, 300, 32
#: Keys of learn with which an algorithm does all that it does within a few iterations.
QUICK: dict[str, dict[str, Any]] = {'cawr': dict(trust='full'), 'awr': dict(critic_steps=3, policy_steps=2)}
#: Widths, beside hidden_sizes, with which an algorithm's networks are small.
SMALL: dict[str, dict[str, Any]] = {'a2pr': dict(critic_hidden_sizes=(24, 16), vae_hidden_sizes=(20, 20))}


class NoWaiting(TorchDispatchMode):
    """Operations that hand a value or a size to the host, for which a GPU would have to wait, are errors."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ('_local_scalar_dense', 'equal', 'masked_select', 'nonzero', '_unique2'), name
        assert name != '_to_copy' or 'device' not in (kwargs or {}), 'copied from device to device'
        return function(*args, **(kwargs or {}))


def columns(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random rows."""
    generator = torch.Generator().manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        'obs': normal(ROWS, OBS), 'action': normal(ROWS, ACT).tanh(), 'reward': normal(ROWS),
        'next_obs': normal(ROWS, OBS), 'done': torch.rand(ROWS, generator=generator) < 0.1
    }


def table(dtype: torch.dtype = torch.float64) -> Table:
    """``columns`` as trajectories one behind the other, some of which end without a termination, with advantages."""
    joined, generator = join_columns(columns(dtype)), torch.Generator().manual_seed(5)
    joined.ends = (joined['done'] > 0) | (torch.rand(ROWS, generator=generator) < 0.05)
    joined.ends[-1] = True
    joined.advantage = torch.randn(ROWS, generator=generator)
    return joined


def make_training(
    seeds: int | list[int], learn: dict[str, Any], dtype: torch.dtype = torch.float64,
    algorithm: type[Algorithm] = CAWR, **options: Any
) -> Training:
    """Return what trains small networks of one seed, or of a list of them, on ``columns``."""
    settings = algorithm.Settings.read({**QUICK.get(algorithm.name, {}), **learn})
    models = [make_model(algorithm, seed, dtype) for seed in (seeds if isinstance(seeds, list) else [seeds])]
    made = algorithm(models if isinstance(seeds, list) else models[0], settings)
    training = Training(made, PriorityBuffer(exponent=settings.exponent, seed=seeds), N, **options)
    training.attach(table(dtype))
    return training


def make_model(algorithm: type[Algorithm], seed: int, dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(seed)
    return algorithm.Model(OBS, ACT, hidden_sizes=(24, 16), **SMALL.get(algorithm.name, {})).to(dtype)


def tensors_of(step: Step) -> list[Tensor]:
    """All tensors of a step."""
    return [*step.losses.values(), *step.per_sample.values(), *([] if step.priority is None else [step.priority])]


def recorded(function: Callable[[], Step], generators: Iterable[torch.Generator]) -> tuple[Callable[[], None], Step]:
    """Like a CUDA graph's recording: results in fixed memory, filled anew by each replay."""
    fixed: list[Step] = []

    def replay() -> None:
        step = function()
        if not fixed:
            fixed.append(step)
        for kept, new in zip(tensors_of(fixed[0]), tensors_of(step)):
            kept.copy_(new)

    replay()
    return replay, fixed[0]


def replaying(training: Training) -> Training:
    """Return it with its iterations replayed; by what the fixture ``as_if_recorded`` puts in place of a GPU's graph."""
    training._replays = True
    training._record()
    return training


def make(
    data: Any, fields: Iterable[str] = ('learn', 'eval', 'collect'), seed: int = 0, preset: str = 'cawr',
    **overrides: Any
) -> OfflinePolicy:
    """Return the policy with the dataset's columns, as the pipeline makes it."""
    name = PRESETS[preset].algorithm.name
    small = SMALL.get(name, {})
    main_config, create_config = make_config(
        'Hopper-v4', preset, data_path=str(data), policy=dict(model=dict(hidden_sizes=(16, 16), **small)),
        **{'batch_size': 32, **QUICK.get(name, {}), **overrides}
    )
    create_config.policy.type += '_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    dataset = create_dataset(cfg)
    torch.manual_seed(seed)
    policy = create_policy(cfg.policy, enable_field=list(fields))
    if 'learn' in fields:
        policy.set_statistic(dataset.statistics)
    return policy


def train(policy: OfflinePolicy, iterations: int) -> list[dict]:
    """Return the logs of so many iterations."""
    return [policy.learn_mode.forward(torch.empty(0)) for _ in range(iterations)]

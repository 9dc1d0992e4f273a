"""Checkpoints of whole runs, any part of which is something else, read to go on."""
from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ding.config import compile_config
from ding.policy import create_policy
from ding.utils.data import create_dataset
from helpers import MakesFolder, flattened

from ding_cawr import make_config
from ding_cawr.engine import host
from ding_cawr.engine.policy import OfflinePolicy
from ding_cawr.engine.resume import check_run, configuration_of
from ding_cawr.runs.checkpoint import read_state
from ding_cawr.runs.progress import Evaluations
from ding_cawr.runs.state import random_state, restore_random_state
from fuzz.columns import d4rl_columns
from fuzz.files import ENV_ID, OTHER_FILES, Kind, Mutation, Values
from fuzz.hdf5 import write_hdf5

UPDATES = 6
#: Where another value of the same type is as good.
FREE = (('run', 'total'), ('run', 'evaluations', 'values'))
#: What training has from its data instead, or only writes down.
UNREAD = ('obs_statistics', 'env_id', 'last_step')


@cache
def _run() -> tuple:
    """Configuration and dataset of a run all of whose parts have a state: λ, tightening, priorities, statistics."""
    with tempfile.TemporaryDirectory() as folder:
        write_hdf5(Path(folder) / 'hopper.hdf5', d4rl_columns())
        main, create = make_config(
            ENV_ID, data_path=str(Path(folder) / 'hopper.hdf5'), batch_size=8, weighting='per_sample',
            policy_loss='flat', tightening=dict(convex_share=0.9, iterations=50), cosine_iterations=60,
            norm_obs=dict(use_norm=True), trust='full', policy=dict(model=dict(hidden_sizes=(16, 8))),
        )
        create.policy.type = 'cawr_command'
        cfg = compile_config(main, auto=True, create_cfg=create, seed=3, save_cfg=False)
        return cfg.policy, create_dataset(cfg).statistics


def make_policy() -> OfflinePolicy:
    """The policy as the pipeline makes it."""
    cfg, statistics = _run()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = create_policy(copy.deepcopy(cfg), enable_field=['learn'])
    policy.set_statistic(statistics)
    return policy


@cache
def _written() -> Values:
    policy = make_policy()
    for _ in range(UPDATES):
        policy.learn_mode.forward(torch.empty(0))
    return {
        **policy.learn_mode.state_dict(), 'last_iter': UPDATES, 'last_step': 0,
        'run': {
            'evaluations': Evaluations('normalized score', [2, 4], [10.5, 30.25]).state(), 'evaluated_here': 2,
            'total': 20, 'seconds': 1.5, 'random': random_state(),
        },
    }


def run_state() -> Values:
    """What a run writes after some updates, to be changed at will."""
    return copy.deepcopy(_written())


def resumed_meaning(state: Values) -> Values:
    """What goes on: all but what the data and the configuration say anew."""
    trained = {name: part for name, part in state.items() if name not in UNREAD}
    return flattened({**trained, 'configuration': configuration_of(Path('clean'), state)[0]})


def load_resumed(path: Path) -> Values:
    """As ``cawr resume`` reads a checkpoint, and the monitor goes on from it."""
    state = read_state(path)
    check_run(path, state)
    configuration_of(path, state)
    policy = make_policy()
    with host.Continued.by(state, path):
        policy.learn_mode.load_state_dict(state)
    run = policy._run_state
    restore_random_state(run['random'])
    evaluations = Evaluations(**run['evaluations']).state()
    kept = {name: run[name] for name in ('evaluated_here', 'total', 'seconds')}
    return resumed_meaning({
        **policy.learn_mode.state_dict(), 'configuration': state['configuration'], 'last_iter': state['last_iter'],
        'run': {'evaluations': evaluations, **kept, 'random': random_state()}
    })


# ---------------------------------------------------------------- another thing in the place of a part


def _places(state: Any, path: tuple = ()) -> list[tuple]:
    """The paths of parts, containers and what they hold; of layers and long lists the first and the last."""
    items = list(state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ())
    if path in (('model', ), ('target_critic', )) or len(items) > 8 and isinstance(state, list):
        items = [*items[:1], *items[1:][-1:]]
    return [place for name, part in items for place in ((*path, name), *_places(part, (*path, name)))]


def _at(state: Any, place: tuple) -> Any:
    return _at(state[place[0]], place[1:]) if place else state


def _put(state: Values, place: tuple, change: Callable[[Any], Any]) -> None:
    *outer, name = place
    holder = _at(state, outer)
    holder[name] = change(holder[name])


def _dropped(state: Values, place: tuple) -> None:
    *outer, name = place
    del _at(state, outer)[name]


def _spoiled(value: float) -> Callable[[Any], Any]:
    """One number of a tensor, or the number itself, is another."""
    def spoiled(part: Any) -> Any:
        if not isinstance(part, torch.Tensor):
            return value
        part = (part if part.is_floating_point() else part.double()).clone(memory_format=torch.contiguous_format)
        part.view(-1)[-1] = value
        return part
    return spoiled


def _of_tensors(change: Callable[[torch.Tensor], Any]) -> Callable[[Any], Any]:
    return lambda part: change(part) if isinstance(part, torch.Tensor) else change(torch.ones(3))


INSTEAD: dict[str, Callable[[Any], Any]] = {
    'None': lambda part: None,
    'text': lambda part: 'text',
    'list': lambda part: [],
    'dict': lambda part: {},
    'NaN': _spoiled(np.nan),
    'infinity': _spoiled(np.inf),
    'a huge number': lambda part: 10**30,
    'a negative number': lambda part: -3,
    'a row more': _of_tensors(lambda part: torch.cat([part.reshape(-1), part.reshape(-1)[:1]])),
    'complex': _of_tensors(lambda part: part + 1j),
    'strides of 0': _of_tensors(lambda part: part.new_ones(1).expand(10**7, 10**7)),
    'sparse': _of_tensors(lambda part: part.to_sparse()),
    'a long row of one number': _of_tensors(lambda part: part.reshape(-1)[:1].expand(2 * 10**8)),
    'nested': _of_tensors(lambda part: torch.nested.nested_tensor([part.reshape(-1), part.reshape(-1)])),
    'float8': _of_tensors(lambda part: part.to(torch.float8_e4m3fn)),
    'without memory': _of_tensors(lambda part: part.to('meta')),
}
#: Finite numbers that no run has.
IMPOSSIBLE: tuple[tuple[str, tuple, Callable[[Any], Any]], ...] = (
    *(('negatives', place, torch.neg) for place in (
        ('optimizer', 'policy', 'exp_avg_sq'), ('optimizer', 'critic', 'step'), ('selection', 'temperature'),
        ('selection', 'moments'), ('tightening', 'first_width'), ('buffer', 'mass'))),
    ('zeros', ('selection', 'temperature'), torch.zeros_like),
    ('zeros', ('tightening', 'first_width'), torch.zeros_like),
    ('zeros', ('buffer', 'mass'), torch.zeros_like),
    ('many', ('optimizer', 'value', 'step'), lambda step: step + 9),
    ('many', ('run', 'evaluated_here'), lambda count: count + 1), ('many', ('iteration', ), lambda count: 2**60 + 1),
    ('words beyond 32 bits', ('run', 'random', 'python', 1), lambda words: [word + 2**40 for word in words]),
    ('words beyond 32 bits', ('run', 'random', 'numpy', 'state', 'key'), lambda words: words + 2**40),
    ('a place beyond the end', ('run', 'random', 'numpy', 'state', 'pos'), lambda place: 625),
    ('more words', ('run', 'random', 'numpy', 'state', 'key'), lambda words: torch.cat([words, words])),
)
CONFIGURATIONS: dict[str, Callable[[str], str]] = {
    'text cut': lambda text: text[:len(text) // 2],
    'brackets': lambda text: '[' * 100_000,
    'a list': lambda text: '[]',
    'sections that are texts': lambda text: json.dumps({**json.loads(text), 'policy': 'cawr'}),
    'no manager': lambda text: json.dumps({**json.loads(text), 'env': {}}),
    'policies of others': lambda text: text.replace('"import_names": ["ding_cawr"]', '"import_names": ["os"]'),
    'imports of the managers': lambda text: text.replace('"manager": {', '"manager": {"import_names": ["os"], '),
    'imports of all': lambda text: text.replace('{', '{"import_names": ["os"], ', 1),
    'a negative seed': lambda text: json.dumps({**json.loads(text), 'seed': -5}),
    'imports that are numbers': lambda text: text.replace('"import_names": ["ding_cawr"]', '"import_names": 7'),
    'another policy': lambda text: text.replace('"type": "cawr_command"', '"type": "dqn_command"'),
    'another kind of data': lambda text: text.replace('"offline_transitions"', '"hdf5"'),
}


def _saved(change: Callable[[Values, Path], None], is_free: bool = False) -> Mutation:
    """The state after ``change(state, path)``; ``is_free``: it may be read as what it is then."""
    def mutate(path: Path, generator: np.random.Generator) -> Values | None:
        state = run_state()
        change(state, path)
        torch.save(state, path)
        return state if is_free else None
    return mutate


def _with(place: tuple, change: Callable[[Any], Any]) -> Mutation:
    is_free = any(place[:len(free)] == free for free in FREE)
    return _saved(lambda state, path: _put(state, place, change), is_free)


def _without(place: tuple) -> Mutation:
    return _saved(lambda state, path: _dropped(state, place))


def _pickled_at(place: tuple) -> Mutation:
    return _saved(lambda state, path: _put(state, place, lambda part: MakesFolder(path.parent / 'made')))


def _mutations() -> dict[str, Mutation]:
    """Every part that training goes on from dropped and replaced, others beside it, and impossible values."""
    places = {'/'.join(map(str, place)): place for place in _places(run_state()) if place[0] not in UNREAD}
    found = {
        f'{name} for {at}': _with(place, change) for at, place in places.items() for name, change in INSTEAD.items()
    }
    found |= {f'no {at}': _without(place) for at, place in places.items()}
    found |= {f'object for {at}': _pickled_at(place) for at, place in places.items() if len(place) == 1}
    for at, place in places.items():
        if isinstance(_at(run_state(), place), dict):
            found[f'a text beside {at}'] = _with(place, lambda part: {**part, 'more': 'text'})
            found[f'a tensor beside {at}'] = _with(place, lambda part: {**part, 'more': torch.ones(3)})
    found |= {f'{name} of {"/".join(map(str, place))}': _with(place, change) for name, place, change in IMPOSSIBLE}
    return found | {
        f'configuration: {name}': _with(('configuration', ), change) for name, change in CONFIGURATIONS.items()
    }


KINDS = {
    'checkpoint, to go on': Kind(
        'ckpt.pth.tar', lambda path: torch.save(run_state(), path), load_resumed, resumed_meaning, run_state,
        {**OTHER_FILES, **_mutations()}, dtype=np.float64,
    ),
}

"""What every algorithm must do, by the contract of ding_cawr/algorithms/base.py."""
from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cloning import Cloning
from conftest import write_d4rl_file
from ding.config import compile_config
from ding.policy import create_policy
from ding.utils import POLICY_REGISTRY
from helpers import flattened
from torch import Tensor, nn
from trainings import SMALL, N, NoWaiting, columns, make, make_training, replaying, table, tensors_of, train

from ding_cawr import load_policy, make_config
from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.algorithms.base import Algorithm, Step, copy_tree
from ding_cawr.config import PRESETS, Row
from ding_cawr.engine.policy import register
from ding_cawr.engine.resume import resume
from ding_cawr.evaluation.export import export_policy
from ding_cawr.runs.state import random_state
from ding_cawr.training.divergence import Diverged, check_step, diverging
from ding_cawr.training.loop import Training

#: Settings, beside the defaults, in which an algorithm does or keeps other things.
FORMS: dict[str, dict[str, dict]] = {
    'cawr': {
        'growing trust': dict(trust=dict(type='linear', iterations=20, start=10)),
        'refresh': dict(priority_refresh=4, trust=dict(type='linear', iterations=20, start=10)),
        'weights': dict(weighting='per_sample', priority='none', temperature=0.7),
        'released': dict(weighting='batch_mean', priority=dict(type='normal', exponent=0.6), temperature=0.5),
        'auto weights': dict(weighting='per_sample', priority='quantile', temperature='auto', policy_loss='l2'),
        'odpr': dict(priority='odpr', policy_loss='huber', temperature=1.0, priority_refresh=20),
        'aw, iql': dict(priority='aw', normalize_advantage=False, weighting='per_sample', temperature=0.5,
                        cosine_iterations=40),
        'tightening': dict(policy_loss='flat', tightening=dict(convex_share=0.9, iterations=30), temperature=2.0),
        'cloning': dict(advantage='none', weighting='none', priority='none', policy_loss='l2'),
        'cloning, best episodes': dict(advantage='none', weighting='none', priority='none', best_episodes=0.3),
        'best episodes': dict(best_episodes=0.2, priority_refresh=4),
    },
    'a2pr': {
        'mask': dict(imitation='mask', policy_freq=3),
        'all': dict(imitation='all', policy_freq=1),
        'detached': dict(detach_target=True, ignore_done=True),
        'priority': dict(priority='normal', policy_loss='l1'),
        'best episodes': dict(best_episodes=0.3, imitation='mask'),
        'mask, refresh': dict(imitation='mask', priority=dict(type='odpr', exponent=0.6), priority_refresh=4,
                              policy_loss='flat', policy_freq=3),
        'all, priority': dict(imitation='all', priority='quantile', temperature=0.5, policy_loss='huber'),
    },
    'awr': {
        'adam': dict(optimizer='adam', ignore_done=True, normalize_advantage=False, temperature=2.0),
        'one step': dict(returns='td', critic_steps=2, policy_steps=1, value_scale=1.0),
        'best episodes': dict(best_episodes=0.3),
    },
}
#: Those of the package and the smallest one, which shows that nothing but an algorithm's own folder knows it.
EVERY = {**ALGORITHMS, 'cloning': Cloning}
CASES = [
    pytest.param(algorithm, learn, id=f'{name}-{form}') for name, algorithm in EVERY.items()
    for form, learn in {'defaults': {}, **FORMS.get(name, {})}.items()
]
every_form = pytest.mark.parametrize('algorithm, learn', CASES)
every_algorithm = pytest.mark.parametrize('algorithm', EVERY.values(), ids=EVERY)
single_and_replicas = pytest.mark.parametrize('seeds', [3, [3, 4]], ids=['single', 'replicas'])
EVERY_ITERATION = dict(hook=dict(log_show_after_iter=1))


@pytest.fixture(scope='module', autouse=True)
def cloning() -> Iterator[None]:
    """A row in the table of algorithms, as that of one more folder."""
    ALGORITHMS['cloning'], PRESETS['cloning'] = Cloning, Row(Cloning, Cloning.PRESETS['cloning'])
    if 'cloning' not in POLICY_REGISTRY:
        register(Cloning)
    yield
    del ALGORITHMS['cloning'], PRESETS['cloning']


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return write_d4rl_file(tmp_path_factory.mktemp('data') / 'hopper.hdf5', episodes=[(40, 'terminal')] * 5)


def preset_of(algorithm: type[Algorithm]) -> str:
    """The first preset that trains an algorithm."""
    return next(name for name, (trains, _) in PRESETS.items() if trains is algorithm)


def iterated(training: Training, iterations: int) -> list:
    return [training.iterate() for _ in range(iterations)]


def assert_close(got: dict, wanted: dict, **tolerance) -> None:
    """Compare nested states of tensors and other values."""
    got, wanted = flattened(got), flattened(wanted)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(got[name], value, msg=lambda text, name=name: f'{name}: {text}', **tolerance)
        else:
            assert got[name] == value, name


# ---------------------------------------------------------------- replicas


@every_form
def test_a_replica_is_the_single_run_with_its_seed(algorithm, learn):
    """50 iterations in float64: steps, all that training goes on from, and what is logged."""
    seeds = [3, 0, 11]
    together = make_training(seeds, learn, algorithm=algorithm)
    assert together.algorithm.replica_shape == (3, )
    steps = iterated(together, 50)
    for r, seed in enumerate(seeds):
        alone = make_training(seed, learn, algorithm=algorithm)
        singles = iterated(alone, 50)
        for step, single in zip(steps, singles):
            for got, wanted in zip(tensors_of(step), tensors_of(single)):
                torch.testing.assert_close(got[r], wanted, rtol=1e-6, atol=1e-9)
        assert_close(together.state_dict(r), alone.state_dict(), rtol=1e-6, atol=1e-9)
        metrics, single = together.metrics(steps[-1]), alone.metrics(singles[-1])
        assert metrics.keys() == single.keys()
        for name, value in single.items():
            assert metrics[name][r] == pytest.approx(value, rel=1e-6, abs=1e-9), name


@every_form
def test_a_replica_continues_as_a_single_run(algorithm, learn):
    together = make_training([4, 5], learn, algorithm=algorithm)
    alone = make_training(0, learn, algorithm=algorithm)
    iterated(together, 10)
    alone.load_state_dict(together.state_dict(1))
    assert alone.iteration == 10
    for _ in range(10):
        for got, wanted in zip(tensors_of(alone.iterate()), tensors_of(together.iterate())):
            torch.testing.assert_close(got, wanted[1], rtol=1e-7, atol=1e-10)


@every_algorithm
def test_a_state_into_replicas_is_refused_before_anything_is_loaded(algorithm):
    together, alone = (make_training(seeds, {}, algorithm=algorithm) for seeds in ([4, 5], 4))
    alone.iterate()
    before = [tensor.clone() for tensor in together.algorithm.tensors()]
    with pytest.raises(RuntimeError, match='replicas train here'):
        together.load_state_dict(alone.state_dict())
    assert all(torch.equal(*pair) for pair in zip(together.algorithm.tensors(), before))


# ---------------------------------------------------------------- state


@every_form
@pytest.mark.parametrize('done', [0, 1, 7])
def test_training_goes_on_from_its_state_bit_by_bit(algorithm, learn, done, tmp_path):
    training, other = (make_training(seed, learn, algorithm=algorithm) for seed in (3, 8))
    iterated(training, done)
    torch.save(training.state_dict(), tmp_path / 'state')
    iterated(other, 2)
    other.load_state_dict(torch.load(tmp_path / 'state', weights_only=True))
    for got, wanted in zip(iterated(other, 6), iterated(training, 6)):
        assert all(torch.equal(*pair) for pair in zip(tensors_of(got), tensors_of(wanted)))
    assert_close(other.state_dict(), training.state_dict(), rtol=0, atol=0)
    assert other.state_dict()['algorithm'] == algorithm.name and other.iteration == done + 6


@every_form
def test_a_policy_goes_on_from_its_state_bit_by_bit(algorithm, learn, data, tmp_path):
    options = dict(learn, preset=preset_of(algorithm), learner=EVERY_ITERATION)
    policy, other = make(data, **options), make(data, seed=1, **options)
    train(policy, 7)
    torch.save(policy.learn_mode.state_dict(), tmp_path / 'state')
    other.learn_mode.load_state_dict(torch.load(tmp_path / 'state', weights_only=True))
    assert train(policy, 5) == train(other, 5)
    assert_close(other.learn_mode.state_dict(), policy.learn_mode.state_dict(), rtol=0, atol=0)
    assert other.learn_mode.state_dict()['iteration'] == 12


def test_a_state_is_a_copy():
    """Of any algorithm, since ``state_dict`` is that of the base class."""
    training = make_training(3, {})
    state = training.state_dict()
    before = copy.deepcopy(state)
    iterated(training, 3)
    assert_close(state, before, rtol=0, atol=0)


def leaves(tree: dict, *place: str) -> Iterator[tuple[str, ...]]:
    """The places of a tree's tensors."""
    for name, part in tree.items():
        yield from leaves(part, *place, name) if isinstance(part, dict) else [(*place, name)]


def changed(tree: dict, place: tuple[str, ...], value: Any) -> dict:
    """A copy of a tree with another value at a place, ... to leave it out."""
    name, *inner = place
    if inner:
        return {**tree, name: changed(tree[name], tuple(inner), value)}
    return {key: part for key, part in {**tree, name: value}.items() if part is not ...}


@every_form
def test_a_state_with_a_part_that_is_not_as_written_is_refused_and_changes_nothing(algorithm, learn):
    training, other = (make_training(seed, learn, algorithm=algorithm) for seed in (3, 8))
    iterated(training, 2)
    state, before = training.state_dict(), other.state_dict()
    unbounded = [name for name, bound in algorithm.STATE_BOUNDS.items() if bound is None]
    for place in [*leaves(training.algorithm.tree()), ('buffer', 'mass'), ('buffer', 'generator')]:
        tensor = state
        for name in place:
            tensor = tensor[name]
        instead = [..., None, tensor.reshape(-1).repeat(2)]
        if tensor.is_floating_point() and place[-1] not in unbounded:
            instead.append(torch.full_like(tensor, torch.nan))
        for value in instead:
            with pytest.raises(ValueError, match='|'.join((' '.join(place), 'random state'))):
                other.load_state_dict(changed(state, place, value))
    assert_close(other.state_dict(), before, rtol=0, atol=0)


@every_algorithm
@pytest.mark.parametrize('change, message', [
    (dict(algorithm='another'), "is of the algorithm 'another', but the policy is"),
    (dict(data='0' * 64), 'was trained on other data'),
    (dict(data='text'), 'its data is not a SHA-256'),
    (dict(iteration=-1), 'iteration is -1'),
    (dict(iteration=2.0), 'iteration is 2.0'),
])
def test_a_state_of_another_origin_is_refused(algorithm, change, message):
    training = make_training(3, {}, algorithm=algorithm)
    with pytest.raises(ValueError, match=message):
        training.load_state_dict({**training.state_dict(), **change})


# ---------------------------------------------------------------- what a CUDA graph relies on


@every_form
@single_and_replicas
def test_replayed_training_is_training(as_if_recorded, algorithm, learn, seeds):
    """The recording calls the iteration twice and puts back ``tensors`` and ``generators`` in between. If an iteration
    changed anything else, or changed it anywhere else, later iterations would differ."""
    replayed = replaying(make_training(seeds, learn, algorithm=algorithm))
    plain = make_training(seeds, learn, algorithm=algorithm)
    for _ in range(12):
        for got, wanted in zip(tensors_of(replayed.iterate()), tensors_of(plain.iterate())):
            assert torch.equal(got, wanted)
    assert as_if_recorded[-1]._result is not None


@every_form
@single_and_replicas
def test_a_step_waits_for_nothing(algorithm, learn, seeds):
    training = make_training(seeds, learn, algorithm=algorithm)
    training.iterate()
    draws = {kind: training.buffer.draw(kind, N) for kind in training.algorithm.draw_kinds}
    for phase in range(training.algorithm.period):
        training.algorithm.phase = phase
        with NoWaiting():
            training.algorithm.step(draws)


def whose(thing: Any) -> str:
    """The package that an object's class is of."""
    return type(thing).__module__.partition('.')[0]


def tensors_within(thing: Any, place: str = '', seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """All tensors that an object of this package, or the smallest algorithm, holds, and their places."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield place, thing
        yield from [] if thing.grad is None else [(f'{place}.grad', thing.grad)]
    elif isinstance(thing, dict):
        for index, (name, part) in enumerate(thing.items()):
            yield from tensors_within(part, f'{place}/{name if isinstance(name, str) else index}', seen)
    elif isinstance(thing, (list, tuple)):
        for index, part in enumerate(thing):
            yield from tensors_within(part, f'{place}/{index}', seen)
    elif isinstance(thing, (nn.Module, torch.optim.Optimizer)) or whose(thing) in ('ding_cawr', 'cloning'):
        yield from tensors_within(getattr(thing, '__dict__', {}), place, seen)


@every_form
@single_and_replicas
def test_everything_that_an_algorithm_holds_stays_where_it_is(algorithm, learn, seeds):
    """A recorded graph goes on reading and writing there."""
    training = make_training(seeds, learn, algorithm=algorithm)
    iterated(training, 4)  # the first renewal of all priorities counted, where there is one

    def places() -> dict[str, int]:
        held = [*tensors_within(training.algorithm), *tensors_within(training.buffer)]
        return {place: tensor.data_ptr() for place, tensor in held}

    where, tensors = places(), [*training.algorithm.tensors(), *training.buffer.tensors()]
    before = [tensor.clone() for tensor in tensors]
    iterated(training, 5)
    assert places() == where and len(where) >= len(tensors) / 2
    assert {tensor.data_ptr() for tensor in training.algorithm.tensors()} <= set(where.values())
    kept = 4 if len(training.algorithm.draw_kinds) == 1 else 2  # the policy alone leaves the critics as they are
    assert sum(not torch.equal(*pair) for pair in zip(tensors, before)) >= len(before) // kept


@every_algorithm
@pytest.mark.parametrize('change', [
    lambda training: training.attach(table()),
    lambda training: training.load_state_dict(training.state_dict()),
])
def test_replaced_tensors_are_recorded_anew(as_if_recorded, algorithm, change):
    training = replaying(make_training(3, {}, algorithm=algorithm))
    iterated(training, 5)
    change(training)
    assert training._iterates[-1] is as_if_recorded[-1] and training._iterates[-1]._result is None


# ---------------------------------------------------------------- divergence


def spoil(training: Training, value: float = torch.nan) -> None:
    """Put a number into the network with which the last replica acts."""
    with torch.no_grad():
        next(training.algorithm.models[-1].parameters()).fill_(value)


@every_form
@single_and_replicas
def test_a_run_that_diverges_is_named(algorithm, learn, seeds):
    training = make_training(seeds, learn, algorithm=algorithm)
    training.iterate()
    spoil(training)
    period = training.algorithm.period  # an iteration in which the policy takes no step does not look at it
    with pytest.raises(Diverged, match=r'training diverged: \w+ is not finite at iteration \d.* of the data') as raised:
        iterated(training, period)
    assert training.iteration <= period
    assert raised.value.replica == (None if seeds == 3 else 1)


@every_algorithm
@single_and_replicas
@pytest.mark.parametrize('learn, told', [
    (dict(learning_rate_q=1e4), True), (dict(learning_rate_q=1e4, discount_factor=1.0, value_scale=100.0), False),
    ({}, False),
])
def test_a_q_that_is_finite_and_beyond_every_return_is_told_once(algorithm, learn, told, seeds):
    known = {field.name for field in dataclasses.fields(algorithm.Settings)}
    training = make_training(seeds, {key: value for key, value in learn.items() if key in known}, algorithm=algorithm)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        for _ in range(20):
            training.metrics(training.iterate())
    messages = [str(each.message) for each in caught]
    bound = columns()['reward'].abs().max().item() / (1 - 0.99)
    sentence = rf'the critics diverge, or were .*: the mean .q_value. of a batch is .*at most {bound:.3g}; lower the'
    assert sum(bool(re.match(sentence, each)) for each in messages) == (told and 'learning_rate_q' in known)


@pytest.mark.parametrize('size, told', [(1e6, True), (math.nan, False), (math.inf, False), (999.0, False)])
def test_a_q_that_is_not_finite_is_left_to_the_watch(size, told):
    step = Step({}, {'q_value': torch.full((4, ), size)}, None)
    assert (diverging(step, 100.0) is not None) == told


@every_form
@single_and_replicas
def test_a_divergence_names_the_row_of_each_quantity(algorithm, learn, seeds):
    """Of all draws, or of the one that the step names."""
    training = make_training(seeds, learn, algorithm=algorithm)
    step, drawn = training.iterate(), training._drawn
    for name, quantity in step.per_sample.items():
        first = quantity.shape[-1] * step.single_draw[name] if name in step.single_draw else 0
        assert name in step.single_draw or quantity.shape == drawn.shape
        broken = quantity.clone()
        broken[..., 4] = torch.nan
        found = step._replace(per_sample={name: broken})
        row = drawn.reshape(-1, drawn.shape[-1])[0, first + 4]
        with pytest.raises(Diverged, match=rf'in 1 of {quantity.shape[-1]} samples, rows \[{row}\] of the data') as got:
            check_step(found, drawn, training.algorithm.iteration, training.buffer.table)
        assert str(got.value).startswith(f'training diverged: {name} is not finite')


@every_algorithm
@single_and_replicas
@pytest.mark.parametrize('replays', [False, True])
def test_without_waiting_the_first_step_that_was_not_finite_is_kept(as_if_recorded, algorithm, seeds, replays):
    """As on a GPU, where it is looked for now and then: the same sentence as that of a run that looks every time."""
    waiting, watching = (make_training(seeds, {}, algorithm=algorithm) for _ in range(2))
    watching._on_gpu, watching.buffer._on_cpu, watching._replays = True, False, replays
    watching._record()
    for training in (waiting, watching):
        iterated(training, 7)
        training.check_finite()
        spoil(training)
    with pytest.raises(Diverged) as wanted:
        waiting.iterate()
    assert not all(tensor.isfinite().all() for tensor in tensors_of(iterated(watching, 4)[-1]))
    with pytest.raises(Diverged, match='is not finite at iteration 7') as got:
        watching.check_finite()
    assert (str(got.value), got.value.replica) == (str(wanted.value), wanted.value.replica)


# ---------------------------------------------------------------- metrics


@every_form
@single_and_replicas
def test_metrics_are_those_announced(algorithm, learn, seeds):
    training = make_training(seeds, learn, algorithm=algorithm)
    announced = Training.metric_names(algorithm, training.algorithm.settings)
    assert len(set(announced)) == len(announced)
    seen = set()
    for _ in range(12):
        step = training.iterate()
        lead, drawn = training.algorithm.replica_shape, len(training.algorithm.draw_kinds) * N
        assert step.priority is None or step.priority.shape == (*lead, drawn)
        assert all(loss.shape == lead for loss in step.losses.values())
        metrics = training.metrics(step)
        assert metrics.keys() <= set(announced)
        seen |= metrics.keys()
        for name, value in metrics.items():
            assert isinstance(value, float) if seeds == 3 else len(value) == 2, name
            assert np.isfinite(value).all(), name
    assert seen == set(announced)


@every_algorithm
def test_metrics_of_a_batch_of_one_sample_are_finite(algorithm):
    training = make_training(3, {}, algorithm=algorithm)
    training.batch_size = 1
    for _ in range(4):
        for name, value in training.metrics(training.iterate()).items():
            assert np.isfinite(value), name


@every_algorithm
def test_a_policy_logs_what_it_announces_when_it_is_shown(algorithm, data):
    policy = make(data, preset=preset_of(algorithm), learner=dict(hook=dict(log_show_after_iter=4)))
    logs = train(policy, 9)
    assert [bool(log) for log in logs] == [True, False, False, False, True, False, False, False, True]
    assert {name for log in logs for name in log} == set(policy.learn_mode.monitor_vars())
    assert all(isinstance(value, float) for value in logs[4].values())


# ---------------------------------------------------------------- networks


OTHER_NETWORKS = {
    'cawr': [dict(hidden_sizes=(8, 12, 16), log_std=-1.0)], 'cloning': [dict(width=7)],
    'awr': [dict(hidden_sizes=(8, 12), action_std=0.3, action_space='continuous')],
    'a2pr': [
        dict(hidden_sizes=(8, 12)), dict(critic_hidden_sizes=(9, )), dict(critic_layer_norm=True),
        dict(vae_hidden_sizes=(7, 5)), dict(vae=False),
    ],
}


@pytest.mark.parametrize('name, given', [(name, given) for name, rows in OTHER_NETWORKS.items() for given in rows])
def test_the_networks_are_those_of_the_configuration(name, given, data):
    """Not those of the defaults, whatever the signature of the model is."""
    algorithm, learn = EVERY[name], dict(imitation='mask') if name == 'a2pr' else {}
    main_config, create_config = make_config(
        'Hopper-v4', preset_of(algorithm), data_path=str(data), policy=dict(model=given), **learn
    )
    create_config.policy.type += '_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    made = create_policy(cfg.policy, enable_field=['learn'])._model
    shapes, wanted, default = (
        {key: each.shape for key, each in model.state_dict().items()}
        for model in (made, algorithm.Model(11, 3, **given), algorithm.Model(11, 3))
    )
    assert shapes == wanted != default
    assert name != 'cawr' or made.sigma == pytest.approx(np.exp(-1))
    assert name != 'awr' or made.action_std == 0.3


def test_every_key_of_the_networks_is_tried():
    for name, algorithm in EVERY.items():
        assert {key for given in OTHER_NETWORKS[name] for key in given} == set(algorithm.ModelSettings.defaults())


# ---------------------------------------------------------------- rows of a stock dataset


@every_form
def test_rows_that_are_pushed_are_trained_on(algorithm, learn):
    small = dict(hidden_sizes=(16, 16), **SMALL.get(algorithm.name, {}))
    configs = make_config(
        'Hopper-v4', preset_of(algorithm), data_path='bundled:any', batch_size=8, **learn,
        policy=dict(model=small, collect=dict(data_type='naive'))
    )
    configs[1].policy.type += '_command'
    cfg = compile_config(configs[0], auto=True, create_cfg=configs[1], save_cfg=False).policy
    by_episode = learn.get('returns', algorithm.Settings.defaults().get('returns')) == 'lambda'
    if by_episode or 'best_episodes' in learn:
        with pytest.raises(ValueError, match='needs whole episodes'):
            create_policy(cfg, enable_field=['learn'])
        return
    policy, generator = create_policy(cfg, enable_field=['learn']), torch.Generator().manual_seed(0)
    before = copy.deepcopy(policy._model.state_dict())
    for _ in range(6):
        numbers = torch.randn(4, 26, generator=generator)
        policy.learn_mode.forward([
            dict(obs=row[:11], action=row[11:14].tanh(), reward=row[14:15], next_obs=row[15:], done=False)
            for row in numbers
        ])
    buffer, state = policy._training.buffer, policy.learn_mode.state_dict()
    assert buffer.count() == 24 and state['iteration'] == 6 and state['buffer']['mass'] is None
    assert not all(torch.equal(each, before[name]) for name, each in state['model'].items())
    selects = 'prioritized' in policy._training.algorithm.draw_kinds and learn.get('priority') != 'none'
    trusts = 'trust' not in learn  # else all priorities are 1 as yet
    assert (buffer.mass.unique().numel() > 1) == (selects and trusts)


# ---------------------------------------------------------------- acting


@pytest.fixture(params=[False, True], ids=['raw', 'normalized'])
def trained(request, algorithm, data, tmp_path) -> tuple[Path, Any]:
    """(checkpoint, what acts in DI-engine's evaluation with it) after some iterations."""
    policy = make(data, preset=preset_of(algorithm), norm_obs=dict(use_norm=request.param))
    train(policy, 5)
    path = tmp_path / 'iteration_5.pth.tar'
    torch.save(policy.learn_mode.state_dict(), path)
    alone = make(data, fields=['eval'], preset=preset_of(algorithm))
    alone.eval_mode.load_state_dict(torch.load(path, weights_only=True))
    return path, alone.eval_mode


@every_algorithm
def test_a_checkpoint_acts_as_evaluation_does_and_so_does_its_export(trained, tmp_path):
    path, eval_mode = trained
    obs = torch.from_numpy(np.random.default_rng(0).normal(1.0, 2.0, (7, 11)).astype(np.float32))
    wanted = torch.stack([output['action'] for output in eval_mode.forward(dict(enumerate(obs))).values()])
    policy = load_policy(path)
    assert wanted.abs().max() <= 1 and wanted.std() > 0
    torch.testing.assert_close(policy(obs), wanted, rtol=1e-5, atol=1e-6)
    assert (policy.obs_shape, policy.action_shape, policy.env_id, policy.iteration) == (11, 3, 'Hopper-v4', 5)
    script = torch.jit.load(export_policy(policy, tmp_path / 'policy.pt'))
    torch.testing.assert_close(script(obs), wanted, rtol=1e-5, atol=1e-6)
    session = onnxruntime.InferenceSession(export_policy(policy, tmp_path / 'policy.onnx'))
    actions, = session.run(None, {'obs': obs.numpy()})
    torch.testing.assert_close(torch.from_numpy(actions), wanted, rtol=1e-5, atol=1e-6)


@every_algorithm
def test_a_checkpoint_without_its_networks_is_refused(trained, tmp_path):
    state = torch.load(trained[0], weights_only=True)
    torch.save({**state, 'model': {}}, tmp_path / 'other')
    with pytest.raises(ValueError, match=f'{tmp_path}/other'):
        load_policy(tmp_path / 'other')


def test_a_checkpoint_of_an_unknown_algorithm_is_refused(data, tmp_path):
    torch.save({**make(data).learn_mode.state_dict(), 'algorithm': 'xyz'}, tmp_path / 'other')
    with pytest.raises(ValueError, match=f"{tmp_path}/other: its algorithm is 'xyz'; it must be one of 'cawr'"):
        load_policy(tmp_path / 'other')


# ---------------------------------------------------------------- checkpoints of the version before


@pytest.fixture
def format_1(data, tmp_path) -> tuple[Path, dict]:
    """(path, state) of a checkpoint as the version before wrote it, which named no algorithm."""
    policy = make(data)
    train(policy, 3)
    now = policy.learn_mode.state_dict()
    state = {
        'format': 1, 'model': now['model'], 'target_critic': now['target_critic'], 'optimizer': now['optimizer'],
        'selection': now['selection'], 'tightening': None, 'iteration': 3, 'buffer': now['buffer'],
        'data': now['data'], 'obs_statistics': now['obs_statistics'], 'env_id': now['env_id'],
        'configuration': now['configuration'], 'last_iter': 3, 'last_step': 0,
        'run': {
            'evaluations': {'unit': 'return', 'iterations': [], 'values': []}, 'evaluated_here': 0, 'total': 20,
            'seconds': 1.0, 'random': random_state(),
        },
    }
    path = tmp_path / 'run' / 'ckpt' / 'iteration_3.pth.tar'
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return path, state


def test_a_checkpoint_of_format_1_acts(format_1):
    path, state = format_1
    act, model = load_policy(path), ALGORITHMS['cawr'].Model(11, 3, hidden_sizes=(16, 16))
    model.load_state_dict(state['model'])
    obs = torch.randn(7, 11)
    with torch.no_grad():
        torch.testing.assert_close(act(obs), model(obs))
    assert (act.env_id, act.iteration) == ('Hopper-v4', 3)


def test_a_checkpoint_of_format_1_is_not_continued(format_1, data):
    path, state = format_1
    sentence = (
        r'the checkpoint has the format 1, but this version of ding_cawr continues format 2; continue it with the '
        r'version that wrote it. Its policy can still be loaded \(cawr eval, ding_cawr.load_policy\)'
    )
    with pytest.raises(ValueError, match=f'{path}: {sentence}'):
        resume(path.parent.parent)
    with pytest.raises(ValueError, match=sentence):
        make(data).learn_mode.load_state_dict(state)


# ---------------------------------------------------------------- settings


SECTIONS = [
    pytest.param(section, id=f'{name}-{section.__name__}')
    for name, algorithm in ALGORITHMS.items() for section in (algorithm.Settings, algorithm.ModelSettings)
]


@pytest.mark.parametrize('section', SECTIONS)
def test_every_setting_has_a_comment_and_its_default_passes_its_own_bound(section):
    section.read({})
    json.dumps(section.defaults())  # as a checkpoint keeps a configuration
    for field in dataclasses.fields(section):
        doc, kind = field.metadata['doc'], field.metadata['kind']
        assert len(doc) > 10 or doc == 'γ.', field.name
        assert doc.endswith('.') and '\n' not in doc and str(kind) and ' object at ' not in str(kind), field.name
        kind.check(field.name, field.metadata['default'])


@pytest.mark.parametrize('section', SECTIONS)
@pytest.mark.parametrize('value', [object(), 'no such', [[]], -1e400, {'no such': 1}], ids=type)
def test_a_value_that_a_setting_may_not_have_is_an_error_that_names_the_setting(section, value):
    texts = [field.name for field in dataclasses.fields(section) if ' path' in str(field.metadata['kind'])]
    for name in section.defaults():
        if isinstance(value, str) and name in texts:
            continue
        with pytest.raises(ValueError, match=rf'place\.{name}\b'):
            section.read({name: value}, 'place')


@every_algorithm
def test_a_tree_can_be_copied_into_that_of_another(algorithm):
    """Names, shapes and types of ``tree`` do not depend on what was trained."""
    training, other = (make_training(seed, {}, algorithm=algorithm) for seed in (3, 8))
    iterated(training, 3)
    with torch.no_grad():
        copy_tree(training.algorithm.tree(), other.algorithm.tree())
    assert_close(other.algorithm.state_dict(), training.algorithm.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize('model', [kind.Model for kind in ALGORITHMS.values()])
def test_models_refuse_arguments_that_they_do_not_have(model):
    with pytest.raises(TypeError, match='hidden_size'):
        model(4, 2, hidden_size=(8, 8))


def test_critics_of_another_algorithm_are_named(data, tmp_path):
    path = tmp_path / 'a2pr.pth.tar'
    torch.save(make(data, preset='a2pr').learn_mode.state_dict(), path)
    with pytest.raises(ValueError, match="learn.pretrained_critics: .*a2pr.pth.tar is of the algorithm 'a2pr'; it"):
        make(data, pretrained_critics=str(path))

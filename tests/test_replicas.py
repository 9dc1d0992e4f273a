"""``train_replicas``: folders, scores and checkpoints are those of single runs; wrong inputs."""
import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.entry import serial_pipeline_offline
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainings import SMALL

from ding_cawr import make_config, train_replicas
from ding_cawr.training.loop import Training

SEEDS = [3, 1]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'hopper.hdf5'
    write_d4rl_file(path, episodes=[(40, 'terminal'), (60, 'timeout')] * 5)
    with h5py.File(path, 'a') as file:
        file['advantages'] = np.random.default_rng(0).normal(size=500)
    return path


def small_config(data, exp_name: str = 'run', **overrides) -> tuple:
    if 'algorithm' not in overrides:
        overrides = dict(trust=dict(type='linear', start=12, iterations=12)) | overrides
    return make_config(
        'hopper-medium-v2', data_path=str(data), exp_name=exp_name, n_evaluator_episode=2,
        **{'iterations': 40, 'eval_freq': 20, 'batch_size': 32, **overrides},
        policy=dict(
            model=dict(hidden_sizes=(16, 16), **SMALL.get(overrides.get('algorithm'), {})),
            learn=dict(learner=dict(hook=dict(log_show_after_iter=10, save_ckpt_after_iter=15))),
        ),
    )


@pytest.mark.parametrize('more', [
    {}, dict(norm_obs=dict(use_norm=True, offline_stats=dict(use_offline_stats=True))),
    dict(best_episodes=0.3), dict(algorithm='bc_best'), dict(algorithm='a2pr'),
    dict(advantage='dataset', priority='odpr', weighting='per_sample', best_episodes=0.5),
])
def test_replicas_are_single_runs(tmp_path, monkeypatch, data, more):
    monkeypatch.chdir(tmp_path)
    summaries = train_replicas(small_config(data, **more), SEEDS)
    assert [each['seed'] for each in summaries] == SEEDS
    assert [each['exp_name'] for each in summaries] == ['run_seed3', 'run_seed1']
    for seed, got in zip(SEEDS, summaries):
        serial_pipeline_offline(small_config(data, f'single{seed}', **more), seed=seed)
        wanted = json.loads((tmp_path / f'single{seed}' / 'summary.json').read_text())
        assert json.loads((tmp_path / got['exp_name'] / 'summary.json').read_text()).items() <= got.items()
        assert got['evaluated_at'] == wanted['evaluated_at'] == [20, 40]
        assert got['evaluations'] == pytest.approx(wanted['evaluations'], rel=1e-3)
        assert got['behaviour_mean'] == wanted['behaviour_mean'] and got['episodes'] == wanted['episodes'] == 2
        for folder in (got['exp_name'], f'single{seed}'):
            names = {path.name for path in (tmp_path / folder / 'ckpt').iterdir()}
            assert names == {'ckpt_best.pth.tar', *(f'iteration_{k}.pth.tar' for k in (15, 30, 40))}
            assert (tmp_path / folder / 'learning_curve.png').is_file()
        bests = [
            torch.load(tmp_path / folder / 'ckpt' / 'ckpt_best.pth.tar', weights_only=True)
            for folder in (got['exp_name'], f'single{seed}')
        ]
        assert bests[0]['last_iter'] == bests[1]['last_iter'] > 0
        states = [
            torch.load(tmp_path / folder / 'ckpt' / 'iteration_40.pth.tar', weights_only=True)
            for folder in (got['exp_name'], f'single{seed}')
        ]
        assert states[0].keys() == states[1].keys() and states[0]['iteration'] == states[1]['iteration'] == 40
        for name, tensor in states[1]['model'].items():
            torch.testing.assert_close(states[0]['model'][name], tensor, rtol=1e-3, atol=1e-4)
        logs = [scalars(tmp_path / each, 'learner_iter/policy_loss_avg') for each in (got['exp_name'], f'single{seed}')]
        assert logs[0] == pytest.approx(logs[1], rel=1e-3) and len(logs[0]) == 4
    assert summaries[0]['evaluations'] != summaries[1]['evaluations']


def scalars(folder, name: str) -> list[float]:
    return [event.value for event in EventAccumulator(str(folder / 'log' / 'serial')).Reload().Scalars(name)]


def test_a_replicas_checkpoint_continues_as_a_single_run(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    train_replicas(small_config(data), SEEDS, max_train_iter=20)
    main_config, create_config = small_config(data, 'on', eval_freq=5)
    main_config.policy.learn.learner.hook.load_ckpt_before_run = 'run_seed1/ckpt/iteration_20.pth.tar'
    serial_pipeline_offline((main_config, create_config), seed=1, max_train_iter=30)
    assert (tmp_path / 'on' / 'ckpt' / 'iteration_30.pth.tar').is_file()


@pytest.mark.parametrize('seeds, changes, iterations, message', [
    ([], {}, None, r'seeds are \[\]; they must be one or more'),
    ([1, 1], {}, None, r'seeds are \[1, 1\]; they must be one or more, all different'),
    ([0, 1], dict(pretrained_critics='file'), None, 'pretrained_critics is for one policy'),
    ([0, 1], {}, 7, '7 iterations end before the first evaluation, which comes at 20'),
    ([0, 1], dict(eval_freq=-1), 5, '5 iterations end before the first evaluation'),
    ([0, 1], {}, 0, 'max_train_iter is 0'),
    ([0, 1], dict(learner=dict(hook=dict(load_ckpt_before_run='file'))), None,
     "load_ckpt_before_run is 'file', but replicas begin at iteration 0"),
])
def test_wrong_inputs_are_errors_and_leave_nothing(tmp_path, monkeypatch, data, seeds, changes, iterations, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        train_replicas(small_config(data, **changes), seeds, iterations)
    assert not list(tmp_path.iterdir())


def test_a_failed_start_leaves_nothing(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='gone.hdf5'):
        train_replicas(small_config(tmp_path / 'gone.hdf5'), SEEDS)
    assert not list(tmp_path.iterdir())
    longest = 'a' * (os.pathconf(tmp_path, 'PC_NAME_MAX') - len('_seed3'))
    with pytest.raises(ValueError, match='_seed10.*that folder cannot be made: File name too long'):
        train_replicas(small_config(data, longest), [3, 10])
    assert not list(tmp_path.iterdir())


def test_each_seed_has_its_own_lines_in_its_log(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the loggers of the second call are those of the first
        train_replicas(small_config(data), SEEDS, max_train_iter=20)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 4
    for folder in folders:
        learner = (folder / 'log' / 'learner' / 'learner_logger.txt').read_text()
        evaluator = (folder / 'log' / 'evaluator' / 'evaluator_logger.txt').read_text()
        assert set(re.findall(r'save ckpt in (\w+)/', learner)) == {folder.name}
        assert evaluator.count('finish episode') == 2  # of one evaluation


@pytest.mark.parametrize('policy, data_type, message', [
    ('td3_bc', 'offline_transitions', "the policy is 'td3_bc'; to train replicas it must be one of 'cawr'"),
    ('cawr', 'naive', "collect.data_type is 'naive'; replicas share the columns of 'offline_transitions'"),
])
def test_other_policies_and_datasets_are_refused(tmp_path, monkeypatch, data, policy, data_type, message):
    monkeypatch.chdir(tmp_path)
    main_config, create_config = small_config(data)
    create_config.policy.type, main_config.policy.collect.data_type = policy, data_type
    with pytest.raises(ValueError, match=message):
        train_replicas((main_config, create_config), [0, 1])


def test_a_file_of_plain_dicts_is_taken_and_stop_value_ends_nothing(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    main_config, create_config = (json.loads(json.dumps(each)) for each in small_config(data))
    main_config['env']['stop_value'] = -1e9
    Path('run.py').write_text(f'main_config, create_config = {main_config!r}, {create_config!r}\n')
    with pytest.warns(UserWarning, match=r'seed \d reached env.stop_value; replicas train on to the end'):
        summaries = train_replicas(Path('run.py'), [0, 1])
    assert [each['evaluated_at'] for each in summaries] == [[20, 40]] * 2


def test_a_replica_that_diverges_is_named_with_its_last_good_checkpoint(tmp_path, monkeypatch, data):
    """Seed 1's policy becomes NaN after its first checkpoint."""
    monkeypatch.chdir(tmp_path)
    iterate = Training.iterate

    def spoilt(training):
        if training.iteration == 17:
            with torch.no_grad():
                next(training.algorithm.models[1].policy.parameters()).fill_(float('nan'))
        return iterate(training)

    monkeypatch.setattr(Training, 'iterate', spoilt)
    with pytest.raises(FloatingPointError, match=(
        r'with seed 1, training diverged: policy_loss is not finite at iteration 17 \(.* of the data\); .* '
        r'The last good checkpoint is run_seed1/ckpt/iteration_15.pth.tar\.'
    )):
        train_replicas(small_config(data), SEEDS)

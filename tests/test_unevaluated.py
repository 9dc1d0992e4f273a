"""Runs without evaluation: data of a plant and no simulator, or ``eval_freq`` None."""
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config
from ding.entry import serial_pipeline_offline
from ding.utils.data import create_dataset
from easydict import EasyDict
from helpers import cawr, ding, train_offline, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ding_cawr import load_policy, make_config, train_replicas
from ding_cawr.engine.dataset import as_text
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.engine.resume import configuration_of

OBS, ACT = 5, 2
REASON = 'run trains without evaluation, because env.env_id is None: no scores, no best checkpoint.'
CONFIG = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    None, data_path='{data}', iterations=20, batch_size=32, exp_name='run', policy=dict(
        model=dict(hidden_sizes=(16, 16)), learn=dict(learner=dict(hook=dict(save_ckpt_after_iter=8))))
)
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'Plant 7.hdf5'
    return write_d4rl_file(path, [(40, 'terminal'), (60, 'timeout')] * 3, OBS, ACT)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data):
    """The folder of a run by DI-engine's command, and what that printed."""
    folder = tmp_path_factory.mktemp('trained')
    result = train_offline(write_config(folder / 'plant.py', CONFIG.format(data=data)), '-s', 3, cwd=folder)
    return folder, result


def config(data, env_id=None, **overrides) -> tuple:
    return make_config(env_id, data_path=str(data), exp_name='run', policy=dict(model=dict(hidden_sizes=(16, 16))),
                       **{**dict(iterations=20, batch_size=32), **overrides})


def check_without_scores(folder, iterations: int = 20) -> None:
    """Nothing in a run's folder is a score."""
    summary = json.loads((folder / 'summary.json').read_text())
    assert summary['iterations'] == iterations and summary['evaluations'] == summary['evaluated_at'] == []
    assert [summary[key] for key in ('last', 'best', 'mean_last_three', 'checkpoint_best')] == [None] * 4
    tags = EventAccumulator(str(folder / 'log' / 'serial')).Reload().Tags()['scalars']
    assert tags and not [tag for tag in tags if 'evaluator' in tag]
    assert not (folder / 'learning_curve.png').exists() and not (folder / 'ckpt' / 'ckpt_best.pth.tar').exists()
    state = torch.load(folder / 'ckpt' / f'iteration_{iterations}.pth.tar', weights_only=True)
    assert state['run']['evaluations']['values'] == [] and state['iteration'] == iterations


def test_the_command_ends_well_and_says_why_there_are_no_scores(trained):
    folder, result = trained
    assert result.stdout.count(REASON) == 1 and 'Traceback' not in result.stdout + result.stderr
    assert 'no evaluation took place, so there are no scores' in result.stdout
    assert 'final reward is: None' in result.stdout and 'before the' not in result.stdout
    check_without_scores(folder / 'run')
    names = {path.name for path in (folder / 'run' / 'ckpt').iterdir()}
    assert names == {f'iteration_{k}.pth.tar' for k in (8, 16, 20)}


def test_its_checkpoint_acts_and_is_exported_but_needs_an_environment_for_scores(trained):
    folder, _ = trained
    checkpoint = folder / 'run' / 'ckpt' / 'iteration_20.pth.tar'
    policy = load_policy(checkpoint)
    assert policy(np.zeros((4, OBS), np.float32)).shape == (4, ACT) and policy.env_id is None
    exported = cawr('export', checkpoint, 'out.pt', cwd=folder)
    assert exported.returncode == 0 and torch.jit.load(str(folder / 'out.pt'))(torch.zeros(1, OBS)).shape == (1, ACT)
    evaluated = cawr('eval', checkpoint, cwd=folder)
    assert evaluated.returncode == 1 and 'its run had none (env.env_id None)' in evaluated.stderr
    assert '--env-id' in evaluated.stderr and 'Traceback' not in evaluated.stderr


def test_the_evaluation_of_di_engine_is_an_error(trained):
    folder, _ = trained
    checkpoint = 'run/ckpt/iteration_20.pth.tar'
    result = ding('-m', 'eval', '-c', 'plant.py', '--load-path', checkpoint, cwd=folder, check=False)
    assert result.returncode != 0 and 'env.env_id is None, so there is no environment to act in' in result.stderr


def test_a_stopped_run_goes_on_to_the_same_end(tmp_path, data, trained):
    path = write_config(tmp_path / 'plant.py', CONFIG.format(data=data))
    train_offline(path, '-s', 3, '--train-iter', 13, cwd=tmp_path)
    result = cawr('resume', 'run', '--train-iter', 20, cwd=tmp_path)
    assert result.returncode == 0 and REASON in result.stdout, result.stderr[-2000:]
    check_without_scores(tmp_path / 'run')
    ends = [torch.load(each / 'run' / 'ckpt' / 'iteration_20.pth.tar', weights_only=True)['model']
            for each in (tmp_path, trained[0])]
    assert all(torch.equal(ends[0][name], tensor) for name, tensor in ends[1].items())


def test_make_config_reads_the_widths_and_needs_data(data):
    main_config, create_config = make_config(None, data_path=data)
    assert main_config.policy.model == dict(obs_shape=OBS, action_shape=ACT) and main_config.env.env_id is None
    assert main_config.exp_name == 'plant_7_cawr' and create_config.env.type == 'd4rl_gymnasium'
    with pytest.raises(ValueError, match='env_id is None and so is data_path; give the file of the data'):
        make_config(None)
    with pytest.raises(ValueError, match="'Plant-v0' is neither .* env_id=None trains without evaluation"):
        make_config('Plant-v0', data_path=data)


@pytest.mark.parametrize('algorithm', ['cawr', 'cawr_paper', 'iql', 'bc'])
def test_every_preset_has_a_form_for_data_alone(data, algorithm):
    assert make_config(None, algorithm, data_path=data)[0].policy.model.obs_shape == OBS


def test_a_call_in_python_returns_the_policy(tmp_path, monkeypatch, capsys, data):
    """With an environment, and no evaluation asked for; and numbers as a sweep gives them."""
    monkeypatch.chdir(tmp_path)
    hopper = write_d4rl_file(tmp_path / 'hopper.hdf5', [(40, 'terminal'), (60, 'timeout')] * 3)
    overrides = dict(iterations=2e1, batch_size=np.int64(32), eval_freq=None, stop_value=None, n_evaluator_episode=2.0)
    policy, stop = serial_pipeline_offline(
        config(hopper, 'Hopper-v4', **overrides), seed=np.int64(3), max_train_iter=np.int64(12)
    )
    assert policy._updates == 12 and stop
    assert 'because eval.evaluator.eval_freq is 0 or None' in capsys.readouterr().out
    check_without_scores(tmp_path / 'run', 12)
    assert cawr('resume', 'run', '--train-iter', 15, cwd=tmp_path).returncode == 0
    check_without_scores(tmp_path / 'run', 15)


def test_a_configuration_by_hand_whose_numbers_torchs_loader_would_not_take(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    main_config = EasyDict(
        exp_name='run', env=dict(env_id=None, n_evaluator_episode=1.0, stop_value=np.float32(1e9)),
        policy=dict(cuda=False, model=dict(obs_shape=np.int64(OBS), action_shape=ACT),
                    learn=dict(train_epoch=np.float64(20), batch_size=1e2, keep_checkpoints=np.int64(2)),
                    collect=dict(data_type='offline_transitions', data_path=data)),
    )
    create_config = EasyDict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']), env_manager=dict(type='subprocess'),
        policy=dict(type='cawr', import_names=['ding_cawr']),
    )
    serial_pipeline_offline((main_config, create_config), seed=1.0)
    check_without_scores(tmp_path / 'run')


def test_a_run_too_short_for_an_evaluation_returns_and_so_does_the_next_seed(tmp_path, monkeypatch, data, capsys):
    monkeypatch.chdir(tmp_path)
    hopper = write_d4rl_file(tmp_path / 'hopper.hdf5', [(40, 'terminal'), (60, 'timeout')] * 3)
    for seed in (0, 1):
        main_config, create_config = config(hopper, 'Hopper-v4', eval_freq=10)
        main_config.exp_name = f'run{seed}'
        serial_pipeline_offline((main_config, create_config), seed=seed, max_train_iter=7)
        assert 'Training ended at iteration 7, before the next evaluation' in capsys.readouterr().out
        check_without_scores(tmp_path / f'run{seed}', 7)


@pytest.mark.parametrize('seed', [None, -1, 0.5, '0', 2**32])
def test_a_seed_that_is_none_is_named_at_the_start(tmp_path, monkeypatch, data, seed):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf'^seed is {seed!r}; it must be a whole number in \[0, 4294967295\]$'):
        serial_pipeline_offline(config(data), seed=seed)


def test_a_limit_that_is_none_is_no_limit(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    serial_pipeline_offline(config(data), max_train_iter=None)
    check_without_scores(tmp_path / 'run')


def test_no_logs_and_no_checkpoints_on_the_way(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    hook = dict(log_show_after_iter=0, save_ckpt_after_iter=None)
    serial_pipeline_offline(config(data, learner=dict(hook=hook)))
    assert [path.name for path in (tmp_path / 'run' / 'ckpt').iterdir()] == ['iteration_20.pth.tar']
    assert EventAccumulator(str(tmp_path / 'run' / 'log' / 'serial')).Reload().Tags()['scalars'] == []


def test_replicas(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    summaries = train_replicas(config(data), np.arange(2), max_train_iter=2e1)
    assert [each['seed'] for each in summaries] == [0, 1] and [each['best'] for each in summaries] == [None, None]
    for seed in (0, 1):
        check_without_scores(tmp_path / f'run_seed{seed}')


def train_on_stock_rows(name: str, model: dict, actions: torch.Tensor, env: dict | None = None, **learn) -> None:
    """Train a policy, in the current folder, on one of DI-engine's own datasets: a pickled list of rows."""
    generator = torch.Generator().manual_seed(0)
    rows = [dict(obs=torch.rand(OBS, generator=generator), action=action, reward=torch.rand(1, generator=generator),
                 next_obs=torch.rand(OBS, generator=generator), done=False) for action in actions]
    Path('rows.pkl').write_bytes(pickle.dumps(rows))
    main_config = EasyDict(
        exp_name='run', env=dict(env_id=None, **(env or {})),
        policy=dict(model=dict(obs_shape=OBS, **model), learn=dict(train_epoch=2e0, batch_size=3.2e1, **learn),
                    collect=dict(data_type='naive', data_path='rows.pkl')),
    )
    create_config = EasyDict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']), env_manager=dict(type='base'),
        policy=dict(type=name, import_names=['ding_cawr']),
    )
    serial_pipeline_offline((main_config, create_config))


def test_rows_of_a_stock_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_on_stock_rows('cawr', dict(action_shape=ACT), torch.rand(200, ACT))
    check_without_scores(tmp_path / 'run', 14)


@pytest.mark.parametrize('shape', [(200, ), (200, 1)])
def test_discrete_rows_of_a_stock_dataset(tmp_path, monkeypatch, shape):
    """AWR's one-step form; what it learns is that of two actions the second one is the data's."""
    monkeypatch.chdir(tmp_path)
    actions = (torch.arange(200) % 10 > 0).long().reshape(shape)
    train_on_stock_rows('awr', dict(action_shape=2, action_space='discrete'), actions, returns='td', optimizer='adam',
                        learning_rate_policy=3e-2)
    check_without_scores(tmp_path / 'run', 14)
    act = load_policy(tmp_path / 'run' / 'ckpt' / 'iteration_14.pth.tar')
    assert act.discrete and act(np.random.default_rng(0).random((50, OBS))).tolist() == [1] * 50


@pytest.mark.parametrize('model, actions, learn, message', [
    (dict(action_shape=2), torch.zeros(40, dtype=torch.int64), dict(returns='td'),
     "actions are discrete, and the model's are continuous"),
    (dict(action_shape=2, action_space='discrete'), torch.rand(40, 2), dict(returns='td'),
     "actions are continuous, and the model's are discrete"),
    (dict(action_shape=2, action_space='discrete'), torch.full((40, ), 2), dict(returns='td'), 'from 2.0 to 2.0'),
    (dict(action_shape=2, action_space='discrete'), torch.full((40, ), 1), {}, "learn.returns is 'lambda'"),
])
def test_discrete_rows_that_do_not_fit_are_named(tmp_path, monkeypatch, model, actions, learn, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        train_on_stock_rows('awr', model, actions, **learn)


def test_rewards_of_stock_rows_are_not_scaled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="env.reward_norm would not reach the rows of data_type 'naive'; take"):
        train_on_stock_rows('cawr', dict(action_shape=ACT), torch.rand(40, ACT), dict(reward_norm='iql_locomotion'))


def test_observations_of_rows_without_statistics_are_not_normalized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="env.norm_obs would not reach the rows of data_type 'naive'; take"):
        train_on_stock_rows('cawr', dict(action_shape=ACT), torch.rand(40, ACT), dict(norm_obs=dict(use_norm=True)))


@pytest.mark.parametrize('limit', [0, 3.5])
def test_a_limit_that_cannot_be_is_named_before_anything_is_done(tmp_path, monkeypatch, data, capfd, limit):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f'max_train_iter .* is {limit}; it must be a positive whole number'):
        serial_pipeline_offline(config(data), seed=0, max_train_iter=limit)
    assert not (tmp_path / 'run').exists() and 'iteration 1' not in capfd.readouterr().out


def test_a_policy_of_di_engine(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    main_config, create_config = config(data, eval_freq=10)
    model = dict(obs_shape=OBS, action_shape=ACT, twin_critic=True, action_space='regression')
    main_config.policy.model = EasyDict(model)
    main_config.policy.learn = EasyDict(train_epoch=2e0, batch_size=np.int64(32))
    create_config.policy = EasyDict(type='td3_bc', import_names=['ding.policy.td3_bc'])
    policy, _ = serial_pipeline_offline((main_config, create_config), seed=np.int64(0))
    assert policy is not None and not (tmp_path / 'run' / 'ckpt' / 'ckpt_best.pth.tar').exists()


def compiled(data, **env) -> EasyDict:
    return EasyDict(
        env=dict(env_id=None, type='d4rl_gymnasium', **env), exp_name='run', seed=0,
        policy=dict(
            type='cawr_command', model=dict(), learn=dict(batch_size=16), eval=dict(evaluator=dict(eval_freq=-1)),
            collect=dict(data_type='offline_transitions', data_path=data),
        ),
    )


def test_what_json_means_the_same_by_is_kept(data):
    cfg = compiled(data, kwargs=dict(sizes=np.array([1, 2]), pair=(np.float32(0.5), None)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        text = json.loads(create_dataset(cfg).statistics.configuration)
    assert text['env']['kwargs'] == dict(sizes=[1, 2], pair=[0.5, None])
    assert text['policy']['collect']['data_path'] == str(data)
    assert text['policy']['eval']['evaluator']['eval_freq'] == 19  # iterations of a pass over 297 rows


def test_an_id_within_the_arguments_of_an_environment_is_not_trusted(data):
    main, create = make_config(None, data_path=str(data), kwargs=dict(inner=[dict(id='absent_module:Own-v0')]))
    create.policy.type += '_command'
    cfg = compile_config(main, auto=True, create_cfg=create, save_cfg=False)
    state = dict(configuration=create_dataset(cfg).statistics.configuration)
    with pytest.raises(ValueError, match='env.kwargs.inner.id: .* nothing that a file names is imported'):
        configuration_of('a.pth.tar', state)
    main, _ = configuration_of('a.pth.tar', state, import_names=['absent_module'])
    assert main.env.kwargs.inner[0].id == 'absent_module:Own-v0'


@pytest.mark.parametrize('value, told', [
    (print, 'env.extra is <built-in function print>'), ({1, 2}, r'env.extra is \{1, 2\}'),
    ({3: 4}, 'env.extra has the key 3'), ([dict(a=1j)], 'env.extra.a is 1j'),
])
def test_what_a_checkpoint_cannot_keep_is_named_at_the_start(data, value, told):
    cfg = compiled(data)
    dict.__setitem__(cfg.env, 'extra', value)
    with pytest.warns(UserWarning, match=f'^{told}.*cawr resume will not continue this run'):
        assert create_dataset(cfg).statistics.configuration is None
    assert as_text(cfg) is None


@pytest.mark.parametrize('env, told', [
    (dict(norm_reward=dict(use_norm=True)), r'env.norm_reward \(here: env.reward_norm\)'),
    (dict(use_act_scale=False), 'env.use_act_scale'), (dict(returns_scale=400), 'env.returns_scale'),
])
def test_keys_of_the_environment_that_nothing_does_are_told(data, env, told):
    with pytest.warns(UserWarning, match=f'the d4rl_gymnasium env does not use, and ignores: {told}'):
        create_dataset(compiled(data, **env))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        create_dataset(compiled(data, norm_reward=dict(use_norm=False), use_act_scale=True))


@pytest.mark.parametrize('env, meant', [
    (dict(stop_valu=3), 'env.stop_value'), (dict(n_evaluator_episodes=3), 'env.n_evaluator_episode'),
    (dict(norm_obs=dict(use_nrm=True)), 'env.norm_obs.use_norm'),
    (dict(norm_obs=dict(offline_stats=dict(offline_stat=True))), 'env.norm_obs.offline_stats.use_offline_stats'),
])
def test_misspelt_keys_of_the_environment_are_errors(data, env, meant):
    with pytest.raises(ValueError, match=f'is not a key that anything reads; did you mean {meant}'):
        create_dataset(compiled(data, **env))


def test_a_collectors_environment_has_its_keys_checked_too():
    with pytest.raises(ValueError, match='env.stop_valu is not a key that anything reads; did you mean env.stop_value'):
        MujocoEnv.create_collector_env_cfg(dict(env_id='Hopper-v4', stop_valu=3))

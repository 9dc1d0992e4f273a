"""make_config and the files of config/."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config, read_config
from helpers import ROOT, train_offline

from ding_cawr import load_policy, make_config
from ding_cawr.algorithms.awr.settings import AWRSettings
from ding_cawr.algorithms.cawr.presets import BUNDLED_SPEEDS, TABLE_4
from ding_cawr.algorithms.cawr.settings import CAWRSettings, Trust
from ding_cawr.engine.policy import POLICIES
from ding_cawr.tasks import D4RL_IDS, find_task

#: Those with a file in config/.
ALGORITHMS = ('cawr', 'iql', 'bc', 'bc_best', 'a2pr', 'awr')


def file_of(env_id: str, algorithm: str) -> str:
    return f"{env_id.removesuffix('-v2').replace('-', '_')}_{algorithm}.py"


@pytest.mark.parametrize('env_id', D4RL_IDS)
def test_every_dataset_has_a_file_for_each_algorithm(env_id):
    for algorithm in ALGORITHMS:
        main_config, create_config = read_config(str(ROOT / 'config' / file_of(env_id, algorithm)))
        assert (main_config, create_config) == make_config(env_id, algorithm)
        assert main_config.env.env_id == env_id and main_config.exp_name == file_of(env_id, algorithm)[:-3]


def test_dings_command_trains_on_the_set_that_a_file_names(tmp_path):
    write_d4rl_file(tmp_path / 'hopper_medium-v2.hdf5', [(40, 'timeout'), (300, 'terminal')] * 3)
    config, data = ROOT / 'config' / 'hopper_medium_a2pr.py', dict(D4RL_DATASET_DIR=str(tmp_path))
    train_offline(config, '--train-iter', 4, cwd=tmp_path, **data)
    state = torch.load(tmp_path / 'hopper_medium_a2pr' / 'ckpt' / 'iteration_4.pth.tar', weights_only=True)
    assert (state['algorithm'], state['iteration'], state['env_id']) == ('a2pr', 4, 'hopper-medium-v2')
    assert state['obs_statistics'].shape == (2, 11) and (state['obs_statistics'][1] > 1e-3).all()
    acted = load_policy(tmp_path / 'hopper_medium_a2pr' / 'ckpt' / 'iteration_4.pth.tar')(np.zeros((2, 11)))
    assert acted.shape == (2, 3) and (abs(acted) <= 1).all()


def test_config_holds_nothing_else():
    files = {path.name for path in (ROOT / 'config').glob('*.py')}
    datasets = {file_of(env_id, algorithm) for env_id in D4RL_IDS for algorithm in ALGORITHMS}
    bundled = {f'hopper_bundled_{algorithm}.py' for algorithm in ALGORITHMS}
    online = {f'{name}_awr.py' for name in ('cartpole', 'pendulum', 'hopper', 'halfcheetah', 'hopper_finetune')}
    online.add('hopper_finetune_cawr.py')
    assert files == datasets | bundled | online | {'hopper_sac.py'}


@pytest.mark.parametrize('name, env_id, rate', [
    ('hopper', 'Hopper-v4', 1e-4), ('halfcheetah', 'HalfCheetah-v4', 5e-5),
])
def test_online_configurations_have_the_released_constants(name, env_id, rate):
    """Those of awr_configs.py, of which the rest are awr's defaults."""
    main_config, create_config = read_config(str(ROOT / 'config' / f'{name}_awr.py'))
    create_config.policy.type += '_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    settings, task = AWRSettings.read(cfg.policy.learn), find_task(env_id)
    assert cfg.env.env_id == env_id and cfg.exp_name == f'{name}_awr'
    assert (cfg.policy.model.obs_shape, cfg.policy.model.action_shape) == (task.obs_shape, task.action_shape)
    assert settings.round == (200, 1000, 2048) and cfg.policy.collect.n_sample == 2048
    assert settings.learning_rate_policy == rate and settings.learning_rate_value == 1e-2
    assert (settings.optimizer, settings.momentum, settings.batch_size) == ('sgd', 0.9, 256)
    assert (settings.discount_factor, settings.td_lambda) == (0.99, 0.95)
    assert (settings.temperature, settings.max_weight) == (1, 20)
    assert cfg.policy.other.replay_buffer.replay_buffer_size == 50_000 and settings.normalizer_steps == 300_000
    assert cfg.policy.model.action_std == 0.4 and tuple(cfg.policy.model.hidden_sizes) == (128, 64)


@pytest.mark.parametrize('env_id, temperature, max_weight', [
    ('hopper-medium-v2', 1 / 5, 10000), ('walker2d-medium-v2', 1 / 3, 10000), ('halfcheetah-medium-v2', 1 / 3, 10000),
    ('hopper-medium-expert-v2', 1 / 3, 100), ('walker2d-expert-v2', 1 / 3, 100), ('halfcheetah-expert-v2', 1 / 3, 100),
])
def test_table_5(env_id, temperature, max_weight):
    for algorithm, weighting in (('cawr_paper', 'per_sample'), ('cawr_released', 'batch_mean')):
        learn = make_config(env_id, algorithm)[0].policy.learn
        assert (learn.temperature, learn.max_weight, learn.weighting) == (temperature, max_weight, weighting)
        assert {key: learn[key] for key in TABLE_4} == TABLE_4 and learn.policy_loss == 'l1'
    assert learn.priority == dict(type='normal', exponent=0.6)


def test_cawr_is_the_policys_own_defaults_on_scaled_rewards_with_a_rate_that_falls_in_long_runs():
    main_config, _ = make_config('hopper-medium-v2')
    learn = main_config.policy.learn
    assert set(learn) == {'train_epoch', 'cosine_iterations'} and learn.cosine_iterations == learn.train_epoch
    assert main_config.env.reward_norm == 'iql_locomotion'
    assert 'reward_norm' not in make_config('hopper-medium-v2', data_path='mine.npz')[0].env
    learn = POLICIES['cawr'].default_config().learn
    assert (learn.temperature, learn.priority, learn.weighting, learn.trust) == ('auto', 'normal', 'none', 'linear')
    settings = CAWRSettings.read(learn)
    assert settings.effective_share == 0.15 and settings.trust == Trust(start=3_000, iterations=40_000)
    for iterations, falls in ((19_999, False), (20_000, True)):
        for algorithm in ('cawr', 'bc'):
            learn = make_config('hopper-medium-v2', algorithm, iterations=iterations)[0].policy.learn
            assert ('cosine_iterations' in learn) == falls
    begun = make_config('hopper-medium-v2', policy=dict(learn=dict(load_path='offline.pth.tar')))[0].policy.learn
    assert 'cosine_iterations' not in begun  # its iterations go on from those of the file


def test_iql_and_bc_are_settings_of_the_policy():
    iql, bc = (make_config('hopper-medium-v2', algorithm)[0] for algorithm in ('iql', 'bc'))
    assert iql.policy.learn.temperature == pytest.approx(1 / 3) and iql.policy.learn.max_weight == 100
    assert (iql.policy.learn.policy_loss, iql.policy.learn.priority, iql.policy.learn.weighting) == \
        ('l2', 'none', 'per_sample')
    assert not iql.policy.learn.normalize_advantage and iql.policy.learn.batch_size == 256
    assert iql.env.reward_norm == 'iql_locomotion'
    assert (bc.policy.learn.policy_loss, bc.policy.learn.priority, bc.policy.learn.weighting) == ('l2', 'none', 'none')


def test_overrides_go_where_they_belong():
    main_config, _ = make_config(
        'hopper-medium-v2', temperature=2.0, iterations=7, data_path='x.npz', eval_freq=3, exp_name='name',
        reward_norm='iql_locomotion', cuda=True, corruption=dict(columns='action', rate=0.3),
        policy=dict(model=dict(hidden_sizes=(8, )), learn=dict(batch_size=4))
    )
    learn = main_config.policy.learn
    assert (learn.temperature, learn.train_epoch, learn.batch_size, main_config.policy.cuda) == (2.0, 7, 4, True)
    assert main_config.policy.collect.corruption == dict(columns='action', rate=0.3)
    assert main_config.policy.collect.data_path == 'x.npz' and main_config.policy.eval.evaluator.eval_freq == 3
    assert main_config.exp_name == 'name' and main_config.env.reward_norm == 'iql_locomotion'
    assert tuple(main_config.policy.model.hidden_sizes) == (8, ) and main_config.policy.model.obs_shape == 11


def test_data_may_be_several_paths_of_any_type():
    paths = (Path('a.hdf5'), 'bundled:hopper-medium-expert')
    collect = make_config('hopper-medium-v2', data_path=paths)[0].policy.collect
    assert list(collect.data_path) == ['a.hdf5', 'bundled:hopper-medium-expert']
    assert json.loads(json.dumps(collect))['data_path'] == list(collect.data_path)


def test_a_list_of_one_bundled_set_is_that_set():
    name = 'bundled:hopper-medium-expert'
    (listed, _), (single, _) = (make_config('Hopper-v4', data_path=path) for path in ([name], name))
    assert listed.policy.collect.pop('data_path') == [name] and single.policy.collect.pop('data_path') == name
    assert listed == single


@pytest.mark.parametrize('env_id, folder', [
    ('gymnasium.envs.mujoco:Hopper-v4', 'hopper_v4_bc'), ('Hopper-v4', 'hopper_v4_bc'),
])
def test_an_experiment_is_named_without_the_module_of_its_environment(env_id, folder):
    assert make_config(env_id, 'bc', data_path='rows.npz')[0].exp_name == folder


def test_an_override_replaces_a_setting_as_a_whole():
    learn = make_config('hopper-medium-v2', trust=dict(type='linear', iterations=7))[0].policy.learn
    assert learn.trust == dict(type='linear', iterations=7)
    changes = dict(policy=dict(learn=dict(priority=dict(type='quantile', quantile=0.3))))
    learn = make_config('hopper-medium-v2', 'cawr_released', **changes)[0].policy.learn
    assert learn.priority == dict(type='quantile', quantile=0.3)


@pytest.mark.parametrize('arguments, message', [
    (dict(env_id='hopper-medum-v2'), "hopper-medum-v2"),
    (dict(env_id='hopper-medium-v2', algorithm='iqql'), "algorithm is 'iqql'.*did you mean 'iql'"),
    *((dict(env_id='CartPole-v1', algorithm=name, data_path='data.npz', **options),
       f'CartPole-v1 has discrete actions, which the policy {policy} does not take; take the policy awr, with')
      for name, policy in (('cawr', 'cawr'), ('a2pr', 'a2pr'), ('iql', 'cawr'))
      for options in ({}, dict(policy=dict(model=dict(action_space='discrete'))))),
    (dict(env_id='CartPole-v1', algorithm='awr', data_path='a.npz'), "where policy.model.action_space is 'discrete'"),
    (dict(env_id='hopper-medium-v2', temprature=1.0), "no override 'temprature'.*did you mean 'temperature'"),
    *((dict(env_id='hopper-medium-v2', **twice), 'make_config has both iterations and train_epoch')
      for twice in (dict(train_epoch=7, iterations=9), dict(iterations=9, train_epoch=7))),
    (dict(env_id='hopper-medium-v2', iterations=10, policy=dict(learn=dict(train_epoch=5))),
     'make_config has policy.learn.train_epoch twice, 10 and 5'),
    (dict(env_id='hopper-medium-v2', env=None), 'env is None; it must be a dict'),
    (dict(env_id='hopper-medium-v2', policy=dict(learn=None)), 'policy.learn is None; it must be a dict'),
    (dict(env_id='hopper-medium-v2', policy=[1]), r'policy is \[1\]; it must be a dict'),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_config(**arguments)


def test_calls_do_not_share_state():
    first = make_config('hopper-medium-v2')[0]
    first.policy.learn.temperature = 99
    assert 'temperature' not in make_config('hopper-medium-v2')[0].policy.learn


@pytest.mark.parametrize('overrides, message', [
    (dict(temperature=-1), 'learn.temperature is -1; it must be'), (dict(batch_size=0), 'batch_size is 0; it must be'),
    (dict(policy=dict(model=dict(hidden_sizes=[0]))), 'an entry of model.hidden_sizes is 0; it must be'),
    (dict(reward_norm='iql'), "env.reward_norm is 'iql'; it must be one"), (dict(cuda='yes'), "cuda is 'yes'; it must"),
    (dict(reward=3), 'reward is 3; it must be'), (dict(corruption=5), 'corruption is 5; it must be'),
    (dict(eval_freq='a'), "eval_freq is 'a'; it must be"),
    (dict(env=dict(env_id='Walker2d-v4')), "env.env_id='Walker2d-v4' beside 'hopper-medium-v2'; give it as the first"),
    (dict(policy=dict(type='iql')), "policy.type='iql' beside 'cawr'; give it as algorithm"),
    (dict(policy=dict(learn=dict(tempeature=1))), 'policy.learn.tempeature is not a key.*policy.learn.temperature'),
    (dict(policy=dict(collect=dict(data_pth='a'))), 'policy.collect.data_pth is not a key.*policy.collect.data_path'),
    (dict(learner=5), 'policy.learn.learner is 5; it must be a dict'),
    (dict(learner=dict(hook=5)), 'policy.learn.learner.hook is 5; it must be a dict'),
])
def test_keys_and_values_are_looked_at_before_data(overrides, message):
    with pytest.raises(ValueError, match=message):
        make_config('hopper-medium-v2', **overrides)


@pytest.mark.parametrize('env_id', ['bundled:hopper-medium-expert', 'minari:mujoco/hopper/expert-v0'])
def test_a_dataset_in_the_place_of_the_environment_is_named(env_id):
    with pytest.raises(ValueError, match=f'env_id is {env_id!r}, a dataset; give it as data_path, and its environment'):
        make_config(env_id)


def test_a_section_that_is_not_a_dict_is_named():
    with pytest.raises(ValueError, match='policy.model is None; it must be a dict'):
        make_config('hopper-medium-v2', policy=dict(model=None))


def test_the_bundled_set_has_speeds_of_its_own():
    learn = {
        algorithm: make_config('Hopper-v4', algorithm, data_path='bundled:hopper-medium-expert')[0].policy.learn
        for algorithm in ('cawr', 'iql', 'bc')
    }
    for settings in learn.values():
        assert {key: settings[key] for key in BUNDLED_SPEEDS} == BUNDLED_SPEEDS
    assert {settings.train_epoch for settings in learn.values()} == {20_000}
    assert (learn['cawr'].temperature, learn['cawr'].weighting) == (2.0, 'batch_mean')
    named = make_config('Hopper-v4', policy=dict(collect=dict(data_path='bundled:hopper-medium-expert')))[0]
    assert (named.policy.learn.temperature, named.exp_name) == (learn['cawr'].temperature, 'hopper_bundled_cawr')

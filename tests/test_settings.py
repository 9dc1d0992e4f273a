"""Bad configurations: an error that names the thing; other policies' keys: one warning."""
import functools
import json
import math
import re
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ding.config import compile_config
from ding.policy import get_policy_cls
from ding.utils.data import create_dataset
from easydict import EasyDict
from helpers import DIZOO

from ding_cawr import make_config
from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.checks import NEVER
from ding_cawr.config import PRESETS
from ding_cawr.engine.configuration import foreign_keys, own_keys
from ding_cawr.engine.keys import ignored_keys
from ding_cawr.engine.policy import POLICIES, OfflinePolicy


def policy(algorithm='cawr', **overrides) -> OfflinePolicy:
    """The policy as DI-engine's pipeline makes it."""
    main_config, create_config = make_config('Hopper-v4', algorithm, data_path='bundled:any', **overrides)
    name = create_config.policy.type
    create_config.policy.type = f'{name}_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    return POLICIES[name](cfg.policy, enable_field=['learn', 'eval'])


def settings_of(**overrides) -> CAWRSettings:
    return policy(**overrides)._training.algorithm.settings


@pytest.mark.parametrize('key, value, message', [
    ('batch_size', 0, 'learn.batch_size is 0'),
    ('batch_size', 2.5, 'learn.batch_size is 2.5'),
    ('temperature', 0, 'learn.temperature is 0'),
    ('temperature', 'aut', "learn.temperature is 'aut'; it must be a positive number, 'auto'"),
    ('temperature', -1, "learn.temperature is -1; it must be a positive number, 'auto'"),
    ('temperature', dict(type='auto', effective_share=1.0), 'learn.temperature.effective_share is 1.0'),
    ('temperature', dict(type='auto', share=0.5), "temperature has no option 'share'; it has effective_share"),
    ('trust', 'linea', "learn.trust is 'linea'.*did you mean 'linear'"),
    ('trust', dict(type='linear', iterations=0), 'learn.trust.iterations is 0; it must be a positive whole number'),
    ('trust', dict(type='linear', start=-1), 'learn.trust.start is -1; it must be a whole number'),
    ('tightening', 'slow', "learn.tightening is 'slow'; it must be None or a dict with convex_share, iterations"),
    ('tightening', dict(iterations=10), 'the policy loss is convex everywhere'),
    ('tightening', dict(convex_share=0), 'learn.tightening.convex_share is 0; it must be a number in'),
    ('tightening', dict(iteration=5), "no option 'iteration'.*did you mean 'iterations'"),
    ('priority_refresh', 0, 'learn.priority_refresh is 0; it must be a positive whole number'),
    ('best_episodes', 1, r'learn.best_episodes is 1; it must be a number in \(0, 1\)'),
    ('best_episodes', '0.1', "learn.best_episodes is '0.1'"),
    ('advantage', 'data', "learn.advantage is 'data'; it must be one of 'critics', 'dataset', 'none'"),
    ('pretrained_critics', 5, "learn.pretrained_critics is 5; it must be a checkpoint's path, or None"),
    ('priority', dict(type='odpr', minimum='x'), "minimum is 'x'; it must be a finite number"),
    ('temperature', float('inf'), 'learn.temperature is inf'),
    ('max_weight', -1, 'learn.max_weight is -1'),
    ('expectile', 1.0, 'learn.expectile is 1.0'),
    ('discount_factor', 1.5, 'learn.discount_factor is 1.5'),
    ('target_theta', 0, 'learn.target_theta is 0'),
    ('learning_rate_q', float('nan'), 'learn.learning_rate_q is nan'),
    ('normalize_advantage', 'yes', "learn.normalize_advantage is 'yes'"),
    ('weighting', 'batchmean', "learn.weighting is 'batchmean'.*did you mean 'batch_mean'"),
    ('policy_loss', 'l3', "learn.policy_loss is 'l3'; it must be one of 'l2', 'l1', 'huber', 'flat', 'skew'"),
    ('policy_loss', dict(type='huber', kappa=-0.2), 'kappa.*-0.2'),
    ('policy_loss', dict(type='flat', c3=0), 'c3.*0'),
    ('policy_loss', dict(type='l1', kappa=1), "has no constant 'kappa'"),
    ('policy_loss', dict(kappa=1), r"learn.policy_loss is {'kappa': 1}; a dict must have a 'type', one of 'l2'"),
    ('priority', dict(kind='normal'), r"learn.priority is {'kind': 'normal'}; a dict must have a 'type', one of"),
    ('trust', dict(start=5), r"learn.trust is {'start': 5}; a dict must have a 'type', one of 'full', 'linear'"),
    ('priority', 'norml', "learn.priority is 'norml'.*did you mean 'normal'"),
    ('priority', dict(type='normal', exponent=-1), 'exponent is -1'),
    ('priority', dict(type='normal', exponent=11), 'exponent is 11; it must be a number in .0, 10.'),
    ('priority', dict(type='normal', quantile=0.5), "has no constant 'quantile'"),
    ('priority', dict(type='normal', expnent=1), "has no constant 'expnent'; it has 'exponent'; did you mean"),
    ('priority', dict(type='quantile', quantile=1.0), 'quantile.*1.0'),
    ('cosine_iterations', 0, 'learn.cosine_iterations is 0'),
    ('min_priority', 0, 'learn.min_priority is 0'),
    ('min_priority', 'x', "learn.min_priority is 'x'"),
    ('max_weight', 1e-9, 'learn.min_priority is 1e-06; it must be a number in'),
])
def test_bad_values_are_named(key, value, message):
    with pytest.raises(ValueError, match=message):
        policy(**{key: value})


@pytest.mark.parametrize('weighting, priority', [
    ('batch_mean', 'none'), ('none', 'none'), ('batch_mean', dict(type='odpr', exponent=0.5)),
    ('none', dict(type='normal', exponent=0))
])
def test_auto_temperature_without_anything_to_adapt_is_no_error(weighting, priority):
    found = settings_of(temperature='auto', weighting=weighting, priority=priority)
    assert (found.temperature, found.effective_share) == (1.0, None)
    assert settings_of(temperature='auto', priority='normal').effective_share == 0.15


def test_a_refresh_needs_priorities_that_change():
    with pytest.raises(ValueError, match="learn.priority_refresh is 9, but priority is 'none'"):
        policy(priority='none', priority_refresh=9)
    with pytest.raises(ValueError, match='learn.priority_refresh is 9, but pretrained_critics'):
        policy(pretrained_critics='some.pth.tar', priority_refresh=9)
    with pytest.raises(ValueError, match="learn.priority_refresh is 9, but advantage='dataset' means"):
        policy(advantage='dataset', priority_refresh=9)


def test_pretrained_critics_are_trusted_at_once_and_judge_columns():
    settings = settings_of(pretrained_critics='some.pth.tar', trust='linear')
    assert settings.trust is None and {'expectile', 'learning_rate_q', 'target_theta'} <= settings.idle
    assert settings_of(trust='linear').trust is not None
    with pytest.raises(ValueError, match="needs a whole dataset, which data_type 'naive' does not give"):
        policy(pretrained_critics='some.pth.tar', policy=dict(collect=dict(data_type='naive')))


def test_given_advantages_are_trusted_at_once_and_need_columns_and_no_critics():
    assert settings_of(advantage='dataset', trust='linear').trust is None
    with pytest.raises(ValueError, match="which leaves the critics out, and learn.pretrained_critics is 'a'"):
        policy(advantage='dataset', pretrained_critics='a')
    with pytest.raises(ValueError, match="advantage='dataset' needs a whole dataset, which data_type 'naive' does not"):
        policy(advantage='dataset', policy=dict(collect=dict(data_type='naive')))


@pytest.mark.parametrize('key, value', [('weighting', 'per_sample'), ('priority', 'standard')])
def test_without_advantages_nothing_may_depend_on_them(key, value):
    settings = dict(weighting='none', priority='none')
    assert settings_of(advantage='none', trust='linear', **settings).trust is None
    with pytest.raises(ValueError, match=f"is 'none', as in the preset bc, but learn.{key} depends on it; set"):
        settings_of(advantage='none', **{**settings, key: value})
    with pytest.raises(ValueError, match="which leaves the critics out, and learn.pretrained_critics is 'a'"):
        settings_of(advantage='none', pretrained_critics='a', **settings)


@pytest.mark.parametrize('preset, changes, idle', [
    ('bc_best', dict(temperature=0.1, expectile=0.9), 'policy.learn.expectile, policy.learn.temperature'),
    ('cawr', dict(normalize_advantage=False), 'policy.learn.normalize_advantage'),
    ('a2pr_mask', dict(vae_weight=7.0, max_weight=3.0), 'policy.learn.max_weight, policy.learn.vae_weight'),
    ('a2pr_all', dict(advantage_threshold=1.0), 'policy.learn.advantage_threshold'),
    ('awr', dict(td_lambda=0.5, momentum=0.5), None),
    ('awr_td', dict(td_lambda=0.5, momentum=0.5), 'policy.learn.momentum, policy.learn.td_lambda'),
    *((preset, {}, None) for preset in PRESETS),
])
def test_settings_on_which_nothing_depends_are_named(preset, changes, idle):
    main_config, create_config = make_config('hopper-medium-v2', preset, iterations=200_000, **changes)
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        POLICIES[create_config.policy.type](cfg.policy, enable_field=['learn'])
    told = [str(each.message) for each in caught if str(each.message).startswith('nothing depends on')]
    name = create_config.policy.type
    assert told == ([f'nothing depends on {idle} with these settings of the {name} policy'] if idle else [])


@pytest.mark.parametrize('name', ['a2pr', 'awr'])
def test_given_advantages_are_not_ignored_by_policies_that_have_none(name):
    asked = dict(learn=dict(advantage='dataset'))
    main_config, create_config = make_config('Hopper-v4', name, data_path='bundled:any', policy=asked)
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with pytest.raises(ValueError, match=f"learn.advantage is 'dataset', but the {name} policy does not have this key"):
        POLICIES[name](cfg.policy, enable_field=['learn'])
    cfg.policy.learn.advantage = 'critics'
    with pytest.warns(UserWarning, match=f'the {name} policy does not use, and ignores: policy.learn.advantage'):
        POLICIES[name](cfg.policy, enable_field=['learn'])


@pytest.mark.parametrize('learn, message', [
    (dict(advantage='dataset'), "advantage='dataset' is for datasets; leave it out where the policy collects"),
    (dict(pretrained_critics='some.pth.tar'), 'pretrained_critics is for datasets; leave it out'),
    (dict(best_episodes=0.2), 'best_episodes is 0.2, which is for datasets; set it to None'),
])
def test_what_a_dataset_gives_is_not_for_a_policy_that_collects(learn, message):
    main_config, create_config = make_config('Hopper-v4', 'cawr', data_path='bundled:any', **learn)
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with pytest.raises(ValueError, match=message):
        get_policy_cls(EasyDict(type='cawr_command'))(cfg.policy)


@pytest.mark.parametrize('section, key, meant', [
    ('learn', 'temprature', 'policy.learn.temperature'),
    ('learn', 'max_wieght', 'policy.learn.max_weight'),
    ('learn', 'normalise_advantage', 'policy.learn.normalize_advantage'),
    ('model', 'hidden_size', 'policy.model.hidden_sizes'),
    ('collect', 'data_pth', 'policy.collect.data_path'),
    ('model', 'temperature', 'policy.learn.temperature'),
])
def test_misspelt_keys_are_errors(section, key, meant):
    with pytest.raises(ValueError, match=f"policy.{section}.{key} is not a key.*did you mean {meant}"):
        policy(policy={section: {key: 1}})


@pytest.mark.parametrize('changes, message', [
    (dict(temperature=9.0), 'policy.temperature is not a key.*policy.learn.temperature'),
    (dict(priority='none'), "policy.priority is 'none'.*policy.learn.priority"),
    (dict(multi_gpu=True), 'policy.multi_gpu is True'),
    (dict(eval=dict(evaluator=dict(eval_frq=3))), 'policy.eval.evaluator.eval_frq .*eval_freq'),
    (dict(other=dict(replay_buffer=dict(replay_bufer_size=3))), 'replay_bufer_size .*replay_buffer_size'),
    (dict(model=dict(hidden_sizes=16)), 'model.hidden_sizes is 16'),
    (dict(model=dict(hidden_sizes=(16, 0))), 'an entry of model.hidden_sizes is 0'),
    (dict(model=dict(log_std='a')), "model.log_std is 'a'"),
    (dict(learn=dict(hidden_sizes=[8])), 'learn.hidden_sizes is not a key.*did you mean policy.model.hidden_sizes'),
    (dict(collect=dict(temperature=2.0)), 'collect.temperature is not a key.*did you mean policy.learn.temperature'),
])
def test_misplaced_and_unsupported(changes, message):
    with pytest.raises(ValueError, match=message):
        policy(policy=changes)


def test_keys_of_other_policies_are_ignored_with_one_warning():
    """As pendulum's td3_bc and cql bring them; learning_rate_alpha resembles learning_rate_value and is not refused."""
    foreign = dict(
        learn=dict(learning_rate_actor=1e-4, learning_rate_alpha=1e-3, actor_update_freq=2, min_q_weight=5.0),
        model=dict(twin_critic=True, action_space='regression', actor_head_hidden_size=128),
        collect=dict(noise_sigma=0.1),
        random_collect_size=800,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        policy(policy=foreign)
    ours = [str(w.message) for w in caught if 'cawr policy' in str(w.message)]
    assert len(ours) == 1
    for key in ('learn.learning_rate_actor', 'learn.learning_rate_alpha', 'learn.min_q_weight', 'model.twin_critic',
                'model.actor_head_hidden_size', 'collect.noise_sigma', 'policy.random_collect_size'):
        assert key in ours[0]


#: Keys of DI-engine's own configurations that are taken for ours misspelt. The first is; those of ``model`` belong to
#: policies of other data, and the last one to a pipeline that trains by an expert's rewards.
RESEMBLING = 'eval.evaluator.evalu_freq', 'model.action_dim', 'model.hidden_size', 'expert_random_collect_size'


@pytest.mark.parametrize('algorithm', ALGORITHMS.values(), ids=list(ALGORITHMS))
def test_no_key_of_a_shipped_configuration_is_taken_for_a_misspelt_one(algorithm):
    """Of those for continuous control, which a policy's type alone changes."""
    own, known, read = own_keys(algorithm, is_online=True), foreign_keys(algorithm), 0
    for folder in ('d4rl', 'mujoco', 'classic_control/pendulum', 'box2d'):
        for path in sorted(DIZOO.joinpath(folder).glob('**/*_config.py')):
            policy, read = runpy.run_path(str(path))['main_config']['policy'], read + 1
            try:
                ignored_keys(policy, own, known)
            except ValueError as error:
                assert str(error).split()[0].removeprefix('policy.') in RESEMBLING, f'{path}: {error}'
    assert read > 100


@pytest.mark.parametrize('preset', PRESETS)
def test_our_own_configurations_warn_of_nothing(preset):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        policy(preset)
    assert [str(each.message) for each in caught if 'policy' in str(each.message)] == []


def test_images_and_missing_widths_are_refused():
    with pytest.raises(ValueError, match=r'model.obs_shape is \[3, 84, 84\].*not images'):
        policy(policy=dict(model=dict(obs_shape=[3, 84, 84])))
    with pytest.raises(ValueError, match='model.action_shape is 0'):
        policy(policy=dict(model=dict(action_shape=0)))
    main_config, create_config = make_config('Hopper-v4', data_path='bundled:any')
    del main_config.policy.model['obs_shape']
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with pytest.raises(ValueError, match='no obs_shape'):
        POLICIES['cawr'](cfg.policy)


def compiled(**overrides) -> EasyDict:
    """The compiled configuration, after the policy was made of it."""
    main_config, create_config = make_config('Hopper-v4', data_path='bundled:any', **overrides)
    create_config.policy.type = 'cawr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    POLICIES['cawr'](cfg.policy, enable_field=['learn', 'eval'])
    return cfg


def hook(**values) -> dict:
    return dict(policy=dict(learn=dict(learner=dict(hook=values))))


@pytest.mark.parametrize('overrides, place, taken', [
    (dict(batch_size=np.int64(32)), 'learn.batch_size', 32),
    (dict(batch_size=1e2), 'learn.batch_size', 100),
    (dict(iterations=2e1), 'learn.train_epoch', 20),
    (dict(policy=dict(learn=dict(train_epoch=torch.tensor(20.0)))), 'learn.train_epoch', 20),
    (dict(keep_checkpoints=np.float64(3)), 'learn.keep_checkpoints', 3),
    (dict(learning_rate_q=np.float32(0.5)), 'learn.learning_rate_q', 0.5),
    (dict(normalize_advantage=np.bool_(False)), 'learn.normalize_advantage', False),
    (dict(temperature=dict(type='auto', effective_share=np.float64(0.5))), 'learn.temperature.effective_share', 0.5),
    (dict(priority=dict(type='quantile', quantile=np.float64(0.25))), 'learn.priority.quantile', 0.25),
    (dict(policy_loss=dict(type='huber', kappa=np.float32(0.5))), 'learn.policy_loss.kappa', 0.5),
    (dict(eval_freq=np.int64(10)), 'eval.evaluator.eval_freq', 10),
    (dict(eval_freq=1e1), 'eval.evaluator.eval_freq', 10),
    (dict(eval_freq=0), 'eval.evaluator.eval_freq', NEVER),
    (dict(eval_freq=None), 'eval.evaluator.eval_freq', NEVER),
    (dict(eval_freq=-1), 'eval.evaluator.eval_freq', -1),
    (dict(n_evaluator_episode=np.int32(2)), 'eval.evaluator.n_episode', 2),
    (dict(stop_value=None), 'eval.evaluator.stop_value', math.inf),
    (dict(stop_value=np.float32(3)), 'eval.evaluator.stop_value', 3.0),
    (hook(log_show_after_iter=0), 'learn.learner.hook.log_show_after_iter', NEVER),
    (hook(save_ckpt_after_iter=None), 'learn.learner.hook.save_ckpt_after_iter', NEVER),
    (hook(save_ckpt_after_iter=1e3), 'learn.learner.hook.save_ckpt_after_iter', 1000),
    (dict(policy=dict(model=dict(hidden_sizes=np.array([16, 8])))), 'model.hidden_sizes', [16, 8]),
    (dict(policy=dict(model=dict(log_std=np.float32(-1)))), 'model.log_std', -1.0),
    (dict(policy=dict(collect=dict(unroll_len=np.int64(1)))), 'collect.unroll_len', 1),
    (dict(policy=dict(collect=dict(data_path=Path('bundled:any')))), 'collect.data_path', 'bundled:any'),
    (dict(cuda=np.bool_(False)), 'cuda', False),
])
def test_values_that_mean_the_same_are_taken_as_plain_ones(overrides, place, taken):
    """By the policy, and where DI-engine reads the configuration itself."""
    found = functools.reduce(dict.__getitem__, place.split('.'), compiled(**overrides).policy)
    assert found == taken and type(found) is type(taken)


@pytest.mark.parametrize('overrides, message', [
    (dict(eval_freq=-5), r'policy.eval.evaluator.eval_freq is -5; it must be a positive whole number, or 0 or None for '
                         'never, or -1 for after each pass over the data'),
    (dict(eval_freq='10'), "eval_freq is '10'; it must be"),
    (dict(eval_freq=2.5), 'eval_freq is 2.5'),
    (dict(eval_freq=[10]), r'eval_freq is \[10\]'),
    (dict(n_evaluator_episode=0), 'env.n_evaluator_episode is 0; it must be a positive whole number'),
    (dict(n_evaluator_episode=None), 'env.n_evaluator_episode is None'),
    (dict(stop_value='high'), "env.stop_value is 'high'; it must be a finite number, or None for never"),
    (dict(stop_value=float('nan')), 'env.stop_value is nan'),
    (dict(batch_size='32'), "learn.batch_size is '32'"),
    (dict(batch_size=None), 'learn.batch_size is None'),
    (dict(iterations=0), 'iterations is 0; it must be a positive whole number'),
    (dict(keep_checkpoints=0), 'learn.keep_checkpoints is 0; it must be a positive whole number, or None'),
    (dict(temperature=[0.5]), r'learn.temperature is \[0.5\]'),
    (dict(cuda='yes'), "policy.cuda is 'yes'; it must be True or False"),
    (dict(cuda=1), 'policy.cuda is 1; it must be True or False'),
    (hook(log_show_after_iter=-1), 'log_show_after_iter is -1; it must be a positive whole number, or 0 or None'),
    (hook(save_ckpt_after_iter='10'), "save_ckpt_after_iter is '10'"),
    (hook(save_ckpt_after_itr=5), 'hook.save_ckpt_after_itr is not a key.*save_ckpt_after_iter'),
    (hook(something=5), 'hook.something is not a hook; a hook of your own must be a dict'),
    (dict(policy=dict(model=dict(hidden_sizes=np.int64(256)))), 'model.hidden_sizes is 256; it must be a list of widt'),
    (dict(policy=dict(other=dict(replay_buffer=dict(replay_buffer_size=0)))), 'replay_buffer_size is 0'),
])
def test_values_that_mean_nothing_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        compiled(**overrides)


@pytest.mark.parametrize('changes, message', [
    (dict(priority=True), 'policy.priority is True; it must be False: .*; the priority of cawr is policy.learn.prio'),
    (dict(priority_IS_weight=True), 'policy.priority_IS_weight is True; it must be False.*policy.learn.priority'),
    (dict(on_policy=True), 'policy.on_policy is True; it must be False'),
    (dict(other=dict(replay_buffer=dict(exponent=0.5))), r'replay_buffer.exponent is 0.5.*policy.learn.priority=dict'),
    (dict(other=dict(replay_buffer=dict(seed=3))), "replay_buffer.seed is 3, but a run takes it from the run's seed"),
    (dict(other=dict(replay_buffer=dict(device='cuda'))), "replay_buffer.device is 'cuda'.*policy.cuda"),
])
def test_what_another_key_does_is_an_error_that_names_it(changes, message):
    with pytest.raises(ValueError, match=message):
        policy(policy=changes)


def test_awr_which_has_no_priority_is_not_told_of_one():
    with pytest.raises(ValueError, match="must be False: DI-engine's own prioritized replay is not used$"):
        policy('awr', policy=dict(priority=True))


def warned(**overrides) -> str:
    """The one warning of keys that are ignored."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        policy(**overrides)
    message, = [str(each.message) for each in caught if 'does not use, and ignores' in str(each.message)]
    return message


@pytest.mark.parametrize('changes, told', [
    (dict(learn=dict(learning_rate=1e-4)), r'policy.learn.learning_rate \(here: learn.learning_rate_policy, learn.'),
    (dict(learn=dict(update_per_collect=3)), r'learn.update_per_collect \(here: an iteration is one update\)'),
    (dict(learn=dict(resume_training=True)), r'learn.resume_training \(here: cawr resume'),
    (dict(learn=dict(learner=dict(train_iterations=5))), r'learner.train_iterations \(here: learn.train_epoch'),
    (dict(learn=dict(learner=dict(dataloader=dict(num_workers=3)))), 'learn.learner.dataloader'),
    (dict(learn=dict(learner=dict(hook=dict(save_ckpt_after_run=False)))), r'save_ckpt_after_run \(here: the last'),
    (dict(collect=dict(epoch_iterations=50)), r'collect.epoch_iterations \(here: an epoch is one iteration\)'),
    (dict(other=dict(replay_buffer=dict(replay_buffer_size=5000))), 'other.replay_buffer.replay_buffer_size'),
    (dict(other=dict(replay_buffer=dict(alpha=0.9))), 'other.replay_buffer.alpha'),
    (dict(multi_agent=True), 'policy.multi_agent'),
    (dict(model=dict(actor_head_hidden_size=512)), r'actor_head_hidden_size \(here: model.hidden_sizes\)'),
    (dict(model=dict(critic_head_layer_num=3)), r'critic_head_layer_num \(here: model.hidden_sizes\)'),
    (dict(learn=dict(learning_rate_actor=1.0)), r'learning_rate_actor \(here: learn.learning_rate_policy\)'),
    (dict(learn=dict(learning_rate_critic=1.0)), r'learning_rate_critic \(here: learn.learning_rate_q\)'),
    (dict(collect=dict(normalize_states=True)), r'collect.normalize_states \(here: env.norm_obs\)'),
    (dict(nstep=3), 'policy.nstep'),
    (dict(traj_len_inf=True), 'policy.traj_len_inf'),
    (dict(bp_update_sync=False), 'policy.bp_update_sync'),
])
def test_what_nothing_reads_is_in_the_warning(changes, told):
    assert re.search(told, warned(policy=changes))


@pytest.mark.parametrize('algorithm, learn, told', [
    ('a2pr', dict(alpha=0.2, auto_alpha=False, min_q_weight=5.0), True),  # as cql's and edac's configurations have it
    ('a2pr', dict(alpha=1, learning_rate_alpha=3e-4, eta=1.0), True),
    ('a2pr', dict(alpha=6.0), False), ('a2pr', dict(auto_alpha=False), False),
    ('cawr', dict(alpha=0.2, auto_alpha=False), False),
])
def test_a_key_that_means_another_thing_in_another_policys_configuration_is_told(algorithm, learn, told):
    main_config, create_config = make_config('hopper-medium-v2', algorithm, policy=dict(learn=learn))
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        POLICIES[algorithm](cfg.policy, enable_field=['eval'])
    sentence = r'policy.learn.alpha is (0.2|1): beside \w+_alpha it is the weight of the entropy .* its own alpha, 2.5'
    assert sum(bool(re.match(sentence, str(each.message))) for each in caught) == told
    assert not told or cfg.policy.learn.alpha == 2.5


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_there_is_one_warning_and_the_cpu():
    main_config, create_config = make_config('Hopper-v4', data_path='bundled:hopper-medium-expert', cuda=True)
    create_config.policy.type = 'cawr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        dataset = create_dataset(cfg)
        made = POLICIES['cawr'](cfg.policy, enable_field=['learn', 'eval'])
        POLICIES['cawr'](cfg.policy, enable_field=['eval'])
    assert len([each for each in caught if 'policy.cuda is True' in str(each.message)]) == 1
    assert made._device == 'cpu' and cfg.policy.cuda is False
    assert json.loads(dataset.statistics.configuration)['policy']['cuda'] is True  # for where it is resumed

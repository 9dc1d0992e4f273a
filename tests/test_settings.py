"""Bad configurations: an error that names the thing; other policies' keys: one warning."""
import warnings

import pytest
from ding.config import compile_config

from ding_cawr import make_config
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.engine.policy import POLICIES, OfflinePolicy


def policy(algorithm='cawr', **overrides) -> OfflinePolicy:
    """The policy as DI-engine's pipeline makes it."""
    main_config, create_config = make_config('Hopper-v4', algorithm, data_path='bundled:any', **overrides)
    create_config.policy.type = 'cawr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    return POLICIES['cawr'](cfg.policy, enable_field=['learn', 'eval'])


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
    ('priority', 'norml', "learn.priority is 'norml'.*did you mean 'normal'"),
    ('priority', dict(type='normal', exponent=-1), 'exponent is -1'),
    ('priority', dict(type='normal', quantile=0.5), "has no constant 'quantile'"),
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
    assert settings_of(temperature='auto', priority='normal').effective_share == 0.8


def test_a_refresh_needs_priorities_that_change():
    with pytest.raises(ValueError, match="learn.priority_refresh is 9, but priority is 'none'"):
        policy(priority='none', priority_refresh=9)
    with pytest.raises(ValueError, match='learn.priority_refresh is 9, but pretrained_critics'):
        policy(pretrained_critics='some.pth.tar', priority_refresh=9)


def test_pretrained_critics_are_trusted_at_once_and_judge_columns():
    assert settings_of(pretrained_critics='some.pth.tar', trust='linear').trust is None
    assert settings_of(trust='linear').trust is not None
    with pytest.raises(ValueError, match="need a whole dataset, which data_type 'naive' does not give"):
        policy(pretrained_critics='some.pth.tar', policy=dict(collect=dict(data_type='naive')))


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


def test_our_own_configurations_warn_of_nothing():
    for algorithm in ('cawr', 'iql', 'bc'):
        with warnings.catch_warnings():
            warnings.filterwarnings('error', message='the cawr policy')
            policy(algorithm)


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

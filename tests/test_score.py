"""Normalized score and D4RL ids."""
import numpy as np
import pytest

from ding_cawr import normalized_score
from ding_cawr.score import score_or_none
from ding_cawr.tasks import D4RL_IDS, gymnasium_id, split_d4rl_id


@pytest.mark.parametrize('env_id, low, high', [
    ('hopper-medium-v2', -20.272305, 3234.3), ('walker2d-random-v2', 1.629008, 4592.3),
    ('HalfCheetah-v4', -280.178953, 12135.0), ('ant-medium-expert-v2', -325.6, 3879.7),
])
def test_score_is_zero_for_random_and_hundred_for_expert(env_id, low, high):
    np.testing.assert_allclose(normalized_score(env_id, np.array([low, high, (low + high) / 2])), [0, 100, 50])


def test_unknown_environment():
    with pytest.raises(ValueError, match="'Hopper-v5' has no reference returns"):
        normalized_score('Hopper-v5', 1000.0)


@pytest.mark.parametrize('settings, scored', [
    ({}, True), (dict(kwargs={}, max_episode_steps=1000), True), (dict(max_episode_steps=200), False),
    (dict(kwargs=dict(forward_reward_weight=2.0)), False),
])
@pytest.mark.parametrize('env_id', ['hopper-medium-v2', 'Hopper-v4'])
def test_an_environment_that_was_changed_has_no_score(env_id, settings, scored):
    assert score_or_none(env_id, 1000.0, **settings) == (normalized_score(env_id, 1000.0) if scored else None)


def test_ids():
    assert len(D4RL_IDS) == 20
    env_id = 'walker2d-medium-replay-v2'
    task, quality = split_d4rl_id(env_id)
    assert (task.name, quality, gymnasium_id(env_id)) == ('walker2d', 'medium-replay', 'Walker2d-v4')
    with pytest.raises(ValueError, match="did you mean 'hopper-medium-v2'"):
        split_d4rl_id('hopper-medum-v2')

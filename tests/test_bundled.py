"""The datasets that come with the package are the ones that results were measured on."""
import hashlib

import numpy as np
import pytest

from ding_cawr import load_transitions
from ding_cawr.data import bundled


def recorded() -> dict[str, str]:
    """File name to hash, as SHA256SUMS has it."""
    lines = (bundled.FOLDER / 'SHA256SUMS').read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def test_every_set_is_recorded_and_unchanged():
    files = {path.name: path for path in bundled.FOLDER.glob('*.hdf5')}
    assert set(files) == set(recorded()) == {'hopper-medium-expert.hdf5'}
    for name, digest in recorded().items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest


def test_hopper_medium_expert():
    transitions = load_transitions('bundled:hopper-medium-expert', env_id='Hopper-v4')
    assert (len(transitions), transitions.obs_shape, transitions.action_shape) == (100_712, 11, 3)
    attributes = transitions.attributes
    assert attributes['env_id'] == 'Hopper-v4' and 'cawr data collect' in attributes['made_with']
    assert np.mean(transitions.episode_returns) == pytest.approx(attributes['mean_return'])
    assert transitions.source == 'bundled:hopper-medium-expert'


def test_another_environment_and_an_unknown_name():
    with pytest.raises(ValueError, match='another environment'):
        load_transitions('bundled:hopper-medium-expert', env_id='walker2d-medium-v2')
    with pytest.raises(ValueError, match="no bundled dataset 'hopper-medum'.*did you mean 'hopper-medium-expert'"):
        load_transitions('bundled:hopper-medum')

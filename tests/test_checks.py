"""checks.py: bounds, names, flags, options and keys."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ding_cawr.checks import (
    EVERY,
    NEVER,
    POSITIVE,
    POSITIVE_INT,
    SEED,
    SHARE,
    Bound,
    Flag,
    component,
    nearest,
    one_of,
    options,
    plain,
    unknown_keys,
)


@pytest.mark.parametrize('bound, text, inside, outside', [
    (Bound(0, 1), 'a number in [0, 1]', (0, 1, 0.5), (-1e-9, 1.1, math.nan, True, '0.5', None)),
    (Bound(0, 1, open_low=True), 'a number in (0, 1]', (1, 1e-9), (0, 0.0)),
    (Bound(0, 1, open_low=True, open_high=True), 'a number in (0, 1)', (0.5, ), (0, 1)),
    (Bound(0, 1, open_high=True), 'a number in [0, 1)', (0, ), (1, )),
    (Bound(1, 9, whole=True), 'a whole number in [1, 9]', (1, 9), (0, 10, 2.5)),
    (POSITIVE, 'a positive finite number', (1e-9, 3), (0, -1, math.inf, math.nan, [1])),
    (POSITIVE_INT, 'a positive whole number', (1, 10**9),
     (0, 1.5, True, '1', None, [1], np.int64(0), np.bool_(True), np.array([1]))),
    (Bound(0), 'a finite number of at least 0', (0, 1e300), (-1, math.inf)),
    (Bound(2, open_low=True), 'a finite number above 2', (2.1, ), (2, )),
    (Bound(0, whole=True), 'a whole number of at least 0', (0, 7), (-1, False)),
    (Bound(0, 2**32 - 1, whole=True), 'a whole number in [0, 4294967295]', (0, 2**32 - 1), (-1, 2**32)),
    (Bound(), 'a finite number', (-5, 0.1), (math.inf, -math.inf, math.nan)),
])
def test_a_bound_takes_its_numbers_and_names_them(bound, text, inside, outside):
    assert str(bound) == text
    for value in inside:
        assert bound.check('key', value) is value
    for value in outside:
        with pytest.raises(ValueError) as raised:
            bound.check('learn.key', value)
        assert str(raised.value) == f'learn.key is {value!r}; it must be {text}'


@pytest.mark.parametrize('given, taken', [
    (np.int64(32), 32), (np.uint8(3), 3), (1e6, 1_000_000), (np.float32(2e1), 20), (np.array(7), 7),
    (torch.tensor(5), 5), (torch.tensor(5.0), 5),
])
def test_numbers_that_mean_a_whole_one_are_taken_as_ints(given, taken):
    found = POSITIVE_INT.check('key', given)
    assert found == taken and type(found) is int


@pytest.mark.parametrize('given, taken', [
    (np.float32(0.5), 0.5), (np.float64(0.25), 0.25), (np.array(0.5), 0.5), (torch.tensor(0.5), 0.5), (np.int64(3), 3),
])
def test_numbers_of_numpy_and_torch_become_pythons(given, taken):
    found = POSITIVE.check('key', given)
    assert found == taken and type(found) is type(taken)


def test_values_become_plain_at_any_depth_and_others_stay():
    function = print
    found = plain({'a': [np.int64(1), (np.float32(0.5), Path('x/y'))], 'b': np.array([256, 128]), 'c': np.str_('t'),
                   'd': np.bool_(True), 'e': function})
    assert found == {'a': [1, (0.5, 'x/y')], 'b': [256, 128], 'c': 't', 'd': True, 'e': function}
    assert [type(each) for each in (found['a'][0], found['b'][0], found['c'], found['d'])] == [int, int, str, bool]


def test_zero_and_none_mean_never():
    assert [EVERY.check('key', each) for each in (None, 0, 0.0, np.int64(0))] == [NEVER] * 4
    assert EVERY.check('key', 1e3) == 1000
    for value in (-1, 2.5, '10', True, False):
        with pytest.raises(ValueError, match=f'^key is {value!r}; it must be a positive whole number, or 0 or None'):
            EVERY.check('key', value)


def test_names_flags_and_options():
    assert one_of('key', 'l1', ('l1', 'l2')) == 'l1' and one_of('key', None, (None, 'l2')) is None
    with pytest.raises(ValueError, match="^key is 'hubr'; it must be one of None, 'huber'; did you mean 'huber'\\?$"):
        one_of('key', 'hubr', (None, 'huber'))
    with pytest.raises(ValueError, match=r"^key is \['l1'\]; it must be one of 'l1'"):
        one_of('key', ['l1'], {'l1': 0})
    assert Flag().check('key', False) is False and Flag().check('key', np.bool_(True)) is True
    with pytest.raises(ValueError, match='^key is 1; it must be True or False$'):
        Flag().check('key', 1)
    known = {'rate': (0.5, SHARE), 'seed': (2, SEED)}
    assert options('key', {'rate': np.float64(0.25)}, known) == {'rate': 0.25, 'seed': 2}
    with pytest.raises(ValueError, match="^key has no option 'rat'; it has rate, seed; did you mean 'rate'"):
        options('key', {'rat': 3}, known)
    with pytest.raises(ValueError, match='^key is 3; it must be None or a dict with rate, seed$'):
        options('key', 3, known)
    with pytest.raises(ValueError, match=r'^key.rate is 1; it must be a number in \(0, 1\)$'):
        options('key', {'rate': 1}, known)
    assert nearest('hopper-medum', ['hopper-medium']) == "; did you mean 'hopper-medium'?" and not nearest('x', ['y'])


def test_a_component_is_a_function_with_its_constants():
    table = {'scaled': lambda error, factor=2.0: factor * error}
    assert component('scaled', table, 'key')(3) == 6 and component(dict(type='scaled', factor=5), table, 'key')(3) == 15
    with pytest.raises(ValueError, match="^key is 'scale'; it must be one of 'scaled'; did you mean 'scaled'"):
        component('scale', table, 'key')
    with pytest.raises(ValueError, match=r"^key 'scaled' has no constant 'fctor'; it has 'factor'; did you mean"):
        component(dict(type='scaled', fctor=1), table, 'key')
    with pytest.raises(ValueError, match=r"^key is {'factor': 5}; a dict must have a 'type', one of 'scaled'$"):
        component(dict(factor=5), table, 'key')


def test_keys_that_resemble_ours_are_refused_and_others_told():
    section = dict(temperature=1, normalize_adv=2, other_thing=3)
    own, known = ('temperature', 'normalize_advantage'), ('normalize_adv', )
    unread = unknown_keys(section, 'policy.learn', own, known)
    assert unread == ['policy.learn.normalize_adv', 'policy.learn.other_thing']
    with pytest.raises(ValueError, match=r'^policy.learn.temprature is not a key that anything reads; did you mean '
                                         r'policy.learn.temperature\?$'):
        unknown_keys(dict(temprature=1), 'policy.learn', own, known)
    with pytest.raises(ValueError, match=r'did you mean policy.learn.temperature\?'):
        unknown_keys(dict(temperature=1), 'policy', ('type', ), (), elsewhere=dict(temperature='policy.learn'))

"""A DI-engine that this package does not work with is named at import."""
import re

import ding
import pytest
from ding.worker import BaseLearner, InteractionSerialEvaluator
from ding.worker.learner import learner_hook
from helpers import ROOT, python

from ding_cawr.engine.host import NEEDED, VERSIONS, _missing, check_host


def test_the_installed_one_has_all_doors():
    check_host()
    assert len(NEEDED) > 15


def test_versions_are_those_of_setup():
    oldest, below = re.search(r"'DI-engine>=([\d.]+),<([\d.]+)'", (ROOT / 'setup.py').read_text()).groups()
    assert VERSIONS == tuple(tuple(map(int, version.split('.'))) for version in (oldest, below))


@pytest.mark.parametrize('version', ['v0.5.2', '0.4.9', '0.6.0', 'v1.0', 'unknown'])
def test_another_version(monkeypatch, version):
    monkeypatch.setattr(ding, '__version__', version)
    with pytest.raises(ImportError, match=f'ding_cawr needs DI-engine 0.5.3 or newer, below 0.6, and .* is {version};'):
        check_host()


@pytest.mark.parametrize('version', ['v0.5.3', '0.5.4', '0.5.10.dev1'])
def test_a_newer_one_of_the_same_series(monkeypatch, version):
    monkeypatch.setattr(ding, '__version__', version)
    check_host()


def test_a_changed_one(monkeypatch):
    def renamed(self, save_fn=None, train_iter=-1):
        """As ``eval``, by another name of a parameter."""

    def without_hooks(self, cfg, policy=None, tb_logger=None, exp_name='x'):
        self._rank = 0

    monkeypatch.delattr(learner_hook, 'SaveCkptHook')
    monkeypatch.setattr(InteractionSerialEvaluator, 'eval', renamed)
    monkeypatch.setattr(BaseLearner, '__init__', without_hooks)
    with pytest.raises(ImportError) as error:
        check_host()
    for what in ('ding.worker.learner.learner_hook.SaveCkptHook', 'attribute _hooks of ding.worker.BaseLearner',
                 'parameter save_ckpt_fn of ding.worker.InteractionSerialEvaluator.eval'):
        assert what in str(error.value)


@pytest.mark.parametrize('text, told', [
    ('import absent.part', "ModuleNotFoundError: No module named 'absent'; pip install absent"),
    ('from os import no_such_name', "ImportError: cannot import name 'no_such_name' from 'os'"),
])
def test_a_part_that_cannot_be_imported_is_told_as_what_it_is(tmp_path, monkeypatch, text, told):
    (tmp_path / 'broken_part.py').write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError) as error:
        _missing('broken_part', 'name', (), ())
    assert str(error.value).startswith(f'broken_part of DI-engine ({ding.__file__}) cannot be imported: {told}')


def test_at_import():
    code = "import ding; ding.__version__ = 'v0.4.1'; import ding_cawr"
    result = python('-c', code, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and last.startswith('ImportError: ding_cawr needs DI-engine 0.5.3 or newer')

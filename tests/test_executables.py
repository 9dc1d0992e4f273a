"""The installed commands themselves, and a fork (tests/forks.py), which other tests start instead, beside them."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from helpers import DING, ROOT, cawr, differences, train_offline

CONFIG = ROOT / 'config' / 'hopper_bundled_cawr.py'
SHORT = '''
main_config.policy.eval.evaluator.eval_freq = 10
main_config.env.n_evaluator_episode = 2
main_config.exp_name = 'run'
'''


def execute(*words, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run an executable."""
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1'}
    )


def test_ding_trains_on_the_bundled_set_and_a_fork_does_the_same(tmp_path):
    """Bit by bit. The two processes hash strings with different seeds, on which nothing may depend."""
    states = []
    for name in ('executable', 'fork'):
        folder = tmp_path / name
        folder.mkdir()
        config = folder / CONFIG.name
        config.write_text(CONFIG.read_text() + SHORT)
        words = ['-m', 'serial_offline', '-c', config.name, '-s', 0]
        if name == 'executable':
            result = execute(DING, *words, '--train-iter', 20, cwd=folder)
            assert result.returncode == 0, result.stderr[-3000:]
        else:
            result = train_offline(config.name, '-s', 0, '--train-iter', 20, cwd=folder)
        assert 'iteration 20/20' in result.stdout
        states.append(torch.load(folder / 'run' / 'ckpt' / 'iteration_20.pth.tar', weights_only=True))
    assert states[0]['iteration'] == 20 and differences(*states) == []


def test_the_console_script():
    script = shutil.which('cawr', path=DING.parent)
    printed = execute(script, 'data', 'list').stdout
    assert printed == cawr('data', 'list').stdout and 'bundled:hopper-medium-expert' in printed


def test_a_command_that_trains_shows_no_hints_of_libraries():
    result = execute(shutil.which('cawr', path=DING.parent), 'bench', '--size', 1)
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.startswith('Error: --size is 1; it must be') and result.stderr.count('\n') == 1


def test_the_module():
    result = execute(sys.executable, '-m', 'ding_cawr', 'data', 'info', 'bundled:hoper')
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.endswith("Error: no bundled dataset 'hoper'; bundled are: hopper-medium-expert\n")

"""What importing the package and answering quick commands loads: DI-engine and torch, or neither."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_report import run_lines

import ding_cawr

BUNDLED = 'bundled:hopper-medium-expert'
HEAVY = {'ding', 'torch', 'gymnasium', 'mujoco'}
COMMAND = Path(sys.executable).parent / 'cawr'


def imported(*command) -> set[str]:
    """The top-level packages that a Python process imports; it must end with 0."""
    result = subprocess.run([sys.executable, '-X', 'importtime', *map(str, command)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = (line.split('|') for line in result.stderr.splitlines() if line.startswith('import time:'))
    return {parts[-1].strip().partition('.')[0] for parts in lines}


@pytest.mark.parametrize('program', [('-m', 'ding_cawr'), (COMMAND, )], ids=['python -m ding_cawr', 'cawr'])
@pytest.mark.parametrize('arguments', [
    ('--help', ), ('compare', '--help'), ('data', 'list', '--json'), ('data', 'info', BUNDLED), ('report', 'RESULTS'),
], ids=' '.join)
def test_quick_commands_import_neither_di_engine_nor_torch(tmp_path, program, arguments):
    if arguments[0] == 'report':
        lines = [json.dumps(line) for seed in (0, 1) for line in run_lines(seed=seed)]
        (tmp_path / 'results.jsonl').write_text('\n'.join(lines) + '\n')
    found = imported(*program, *(tmp_path if word == 'RESULTS' else word for word in arguments))
    assert 'ding_cawr' in found and not found & HEAVY


@pytest.mark.parametrize('argv, orig_argv, expected', [
    (['-m', 'data'], ['python', '-m', 'ding_cawr', 'data'], True),
    (['-m'], ['python', '-X', 'dev', '-m', 'ding_cawr'], True),
    (['-m', '7'], ['python', '-m', 'ding_cawr.compare.child', '7'], False),
    (['-m', 'x'], ['python', '-m', 'pytest', 'ding_cawr'], False),
    (['/venv/bin/cawr', 'data'], ['/venv/bin/python', '/venv/bin/cawr', 'data'], True),
    (['C:/venv/Scripts/cawr.exe'], ['C:/venv/Scripts/cawr.exe'], True),
    (['/venv/bin/ding', '-m', 'serial_offline'], ['python', '/venv/bin/ding', '-m', 'serial_offline'], False),
    (['train.py'], ['python', 'train.py'], False),
    (['-c'], ['python', '-c', 'import ding_cawr'], False),
    ([''], ['python'], False),
    ([], ['program'], False),
    # Processes that the command starts have its sys.argv, but a command line of their own.
    (['/venv/bin/cawr', 'compare'], ['python', '-c', 'from multiprocessing.spawn import spawn_main'], False),
    (['/venv/ding_cawr/__main__.py'], ['python', '-c', 'from multiprocessing.spawn import spawn_main'], False),
    (['/venv/bin/cawr'], ['python', 'default_worker.py', '--node-ip-address=127.0.0.1'], False),
])
def test_which_processes_are_the_command(argv, orig_argv, expected):
    assert ding_cawr.is_command(argv, orig_argv) == expected


SCRIPT = """
import multiprocessing, sys

import ding_cawr


def child():
    from ding.utils import POLICY_REGISTRY
    assert {'cawr', 'cawr_command'} <= set(POLICY_REGISTRY)


if __name__ == '__main__':
    assert 'ding' not in sys.modules  # this process is called as the command is
    process = multiprocessing.get_context('spawn').Process(target=child)
    process.start()
    process.join()
    assert 'ding' not in sys.modules
    sys.exit(process.exitcode)
"""


def test_a_process_that_the_command_spawns_registers_at_import(tmp_path):
    (tmp_path / 'cawr').write_text(SCRIPT)
    result = subprocess.run([sys.executable, tmp_path / 'cawr'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_public_names():
    assert ding_cawr.make_config.__module__ == 'ding_cawr.config' and 'load_policy' in ding_cawr.__all__
    assert all(callable(getattr(ding_cawr, name)) for name in ding_cawr.__all__)
    with pytest.raises(AttributeError, match="module 'ding_cawr' has no attribute 'load_polcy'"):
        ding_cawr.load_polcy  # noqa: B018

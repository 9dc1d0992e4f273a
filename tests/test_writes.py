"""Files that cannot be written whole: one sentence, an exit code, nothing left behind, no process that dies of it."""
import errno
import json
import math
import os
from pathlib import Path

import pytest
from helpers import python
from test_report import run_lines

from ding_cawr.compare.results import append
from ding_cawr.files import to_json, unfinished
from ding_cawr.runs.progress import Evaluations
from ding_cawr.runs.summary import describe, write_summary

#: Code, and words for it, where no file may have more than so many bytes. A full disk is the same to it.
LIMITED = '''
import resource, sys
import torch
limit, code = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
def main():
    from ding_cawr.cli import cawr
    cawr(sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
exec(code)
'''


def limited(code: str, *words, cwd: Path, limit: int = 4096):
    return python('-c', LIMITED, limit, code, *words, cwd=cwd, check=False)


@pytest.mark.parametrize('ending', ['pt', 'onnx'])
def test_an_export(tmp_path, ending):
    pytest.importorskip('onnx')
    code = (
        "from torch import nn\n"
        "from ding_cawr.evaluation.acting import ActingPolicy\n"
        "from ding_cawr.evaluation.export import export_policy\n"
        "network = nn.Linear(50, 50)\n"
        "network.obs_shape = network.action_shape = 50\n"
        "try:\n"
        f"    export_policy(ActingPolicy(network), 'a.{ending}')\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    result = limited(code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f'a.{ending} could not be written, with' in result.stdout and os.listdir(tmp_path) == []


def test_a_dataset(tmp_path):
    code = (
        "import numpy as np\n"
        "from ding_cawr.data.collect import write_d4rl_file\n"
        "draws, n = np.random.default_rng(0), 1000\n"
        "ends = np.arange(n) == n - 1\n"
        "columns = dict(observations=draws.normal(size=(n, 5)), actions=draws.uniform(-1, 1, (n, 2)),\n"
        "               rewards=draws.normal(size=n), terminals=ends, timeouts=~ends & False)\n"
        "try:\n"
        "    write_d4rl_file('a.hdf5', columns, {'mean_return': float('nan')})\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    result = limited(code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'a.hdf5 could not be written, with' in result.stdout and os.listdir(tmp_path) == []


def test_a_report(tmp_path):
    append(tmp_path / 'results.jsonl', run_lines())
    result = limited('main()', 'report', 'results.jsonl', '--out', 'out', cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'Error: out could not be written, with' in result.stderr
    assert os.listdir(tmp_path) == ['results.jsonl']


def test_results_are_named(tmp_path):
    code = (
        "from pathlib import Path\n"
        "from ding_cawr.compare.results import append\n"
        "append(Path('results.jsonl'), [{'a': 'b' * 5000}])"
    )
    result = limited(code, cwd=tmp_path)
    assert 'results.jsonl could not be written, with' in result.stderr


def evaluations(*values: float) -> Evaluations:
    return Evaluations(iterations=[10 * k for k in range(1, 1 + len(values))], values=list(values))


@pytest.mark.parametrize('name', ['summary.json', 'learning_curve.png'])
def test_a_summary_that_cannot_be_written_loses_no_result(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.warns(UserWarning, match=f'{name} could not be written'):
        summary = write_summary(tmp_path, evaluations(1.0, 3.0), None, 1, 20, 0.5)
    assert summary['best'] == 3.0
    assert ('learning curve: ' in describe(summary, tmp_path)) == (name == 'summary.json')
    assert len(os.listdir(tmp_path)) == 2


def test_scores_that_are_not_finite_are_null(tmp_path):
    write_summary(tmp_path, evaluations(1.0, math.nan), None, 1, 20, 0.5)
    text = (tmp_path / 'summary.json').read_text()
    assert 'NaN' not in text and json.loads(text)['evaluations'] == [1.0, None]


def test_json_of_anything():
    assert to_json({'a': [math.nan, -math.inf, 1e300, 'NaN', None]}) == '{"a": [null, null, 1e+300, "NaN", null]}'


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), PermissionError(13, 'Denied')])
def test_a_file_that_is_not_written_whole_is_not_there(tmp_path, error):
    with pytest.raises(type(error), match='a.txt could not be written.*(No space left|Denied)'), \
            unfinished(tmp_path / 'a.txt') as temporary:
        temporary.write_text('half')
        raise error
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full')
@pytest.mark.parametrize('words', [['--help'], ['data', 'list'], ['data', 'list', '--json']])
def test_output_that_goes_to_a_full_disk(tmp_path, words):
    code = "import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nmain()"
    result = limited(code, *words, cwd=tmp_path, limit=10**6)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith('Error: ')

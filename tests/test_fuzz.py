"""Files that are damaged or made to do harm: a share of what benchmarks/fuzz.py tries (tests/fuzz)."""
from __future__ import annotations

import os
import signal
from pathlib import Path

import fuzz
import numpy as np
import pytest
from fuzz import Case, Kind


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of forking: the child alone uses torch
@pytest.mark.parametrize('drawn', [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_mutation_ends_in_a_clear_error_or_a_correct_load(tmp_path, drawn):
    cases = [*fuzz.tables(), *fuzz.draws(drawn)]
    outcomes = fuzz.run(cases, tmp_path)
    assert [outcome.case for outcome in outcomes] == cases and len(cases) > 600
    bad = [outcome for outcome in outcomes if outcome.verdict in ('crash', 'hang', 'wrong')]
    assert not bad, '\n'.join(map(str, bad))
    for kind, row in fuzz.counts(outcomes).items():
        assert row['error'] > 50 and row['correct'] > 3, kind  # or nothing is mutated, or nothing loads
        assert row['undetectable'] == 0 or fuzz.KINDS[kind].plain, kind


def load(path: Path) -> dict:
    """A reader with every fault: by its content the file is what it says."""
    content = path.read_text()
    if content == 'hang':
        while True:
            pass
    if content == 'wait':
        signal.pause()
    if content == 'crash':
        os._exit(3)
    if content == 'fill':
        return {'x': np.ones(fuzz.PEAK + (50 << 20), np.uint8)}
    if content == 'run':
        (path.parent / 'made').mkdir()
    if content == 'obscure':
        raise KeyError('x')
    if content == 'unnamed':
        raise ValueError('a column is missing')
    if content == 'lines':
        raise ValueError(f'{path}\nis damaged')
    if content == 'clear':
        raise ValueError(f'{path} is damaged')
    return {'x': np.array([float(content)])}


@pytest.mark.parametrize('content, verdict', [
    ('hang', 'hang'), ('wait', 'hang'), ('crash', 'crash'), ('fill', 'wrong'), ('run', 'wrong'),
    ('obscure', 'wrong'), ('unnamed', 'wrong'), ('lines', 'wrong'), ('2', 'wrong'), ('1', 'correct'),
    ('clear', 'error'),
])
def test_faults_are_seen(tmp_path, monkeypatch, content, verdict):
    mutations = {'it': lambda path, generator: path.write_text(content) and None}
    kind = Kind('file', lambda path: path.write_text('1'), load, dict, lambda: {'x': np.ones(1)}, mutations)
    monkeypatch.setattr(fuzz, 'KINDS', {'kind': kind})
    cases = [Case('kind', 'it', 0)] * 2
    outcomes = fuzz.run(cases, tmp_path, seconds=1, patience=5 if content == 'wait' else fuzz.PATIENCE)
    assert [(outcome.case, outcome.verdict) for outcome in outcomes] == [(case, verdict) for case in cases]

"""A small share of the kills that benchmarks/kills.py deals."""
import random

import pytest
from forks import Process
from helpers import benchmark


def start(words: list[str], folder) -> Process:
    """Start a command in a fork, where benchmarks/kills.py starts a process."""
    with open(folder / 'log.txt', 'ab') as log:
        return Process(words, folder, kills.ENVIRONMENT, log.fileno())


kills = benchmark('kills')


@pytest.mark.parametrize('count', [6, pytest.param(40, marks=pytest.mark.slow)])
def test_nothing_is_lost_damaged_or_different(tmp_path, monkeypatch, count):
    """At every moment one, each followed by a resume or the same command again."""
    monkeypatch.setattr(kills, 'start', start)
    for name, less in (('START', 2.0), ('ROWS', 20_000), ('STEPS', 5000)):
        monkeypatch.setattr(kills, name, less)
    tally = kills.kill_all(tmp_path, kills=count, iterations=300, rng=random.Random(0))
    print(tally)
    assert tally.kills.total() >= count and len(tally.kills) >= 3
    assert not tally.failed
    assert tally.found['checkpoints compared'] >= 6

"""A small share of the kills that benchmarks/kills.py deals."""
import random

from helpers import benchmark


def test_nothing_is_lost_damaged_or_different(tmp_path):
    """At every moment one, each followed by a resume or the same command again."""
    tally = benchmark('kills').kill_all(tmp_path, kills=6, iterations=300, rng=random.Random(0))
    print(tally)
    assert tally.kills.total() >= 6 and len(tally.kills) >= 3
    assert not tally.failed
    assert tally.found['checkpoints compared'] >= 6

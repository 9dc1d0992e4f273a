"""How far the critics are after a short training, with the paper's speed and with the bundled set's.

    python benchmarks/critics.py [--iterations 7500]

Trains on the bundled set (batch 256, seed 0) and prints mean V, the mean of the data's discounted returns, and the
correlation of the two.
"""
import argparse

import h5py
import numpy as np
import torch

from ding_cawr import load_transitions
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.presets import BUNDLED_SPEEDS, TABLE_4
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.data import bundled
from ding_cawr.data.buffer import Sample
from ding_cawr.data.table import Table

NAME, DISCOUNT, BATCH = 'hopper-medium-expert', 0.99, 256


def discounted_returns() -> np.ndarray:
    """Return the discounted return from each transition to the end of its episode (N,)."""
    with h5py.File(bundled.path(NAME)) as file:
        rewards, timeouts = file['rewards'][:], file['timeouts'][:]
        ends = file['terminals'][:] | timeouts
    returns, following = np.zeros(len(rewards)), 0.0
    for row in reversed(range(len(rewards))):
        following = rewards[row] + (0.0 if ends[row] else DISCOUNT * following)
        returns[row] = following
    return returns[:-1][~timeouts[:-1]]


def train(iterations: int, speed: dict) -> np.ndarray:
    """Return V of every transition (N,) after training the critics alone: the weighting has no part in it."""
    torch.manual_seed(0)
    transitions, generator = load_transitions(f'bundled:{NAME}'), torch.Generator().manual_seed(1)
    table = Table(torch.from_numpy(transitions.rows), transitions.obs_shape)
    alone = dict(weighting='none', priority='none', **speed)  # the policy has no part in it
    update = CAWR(CAWRModel(11, 3), CAWRSettings.read(alone))
    for _ in range(iterations):
        rows = torch.randint(len(transitions), (BATCH, ), generator=generator)
        drawn = Sample(rows, Table(table.rows[rows], table.obs_shape))
        update.step(dict(uniform=drawn, prioritized=drawn))
    with torch.no_grad():
        return update.model.value(table['obs']).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--iterations', type=int, default=7500)
    iterations, returns = parser.parse_args().iterations, discounted_returns()
    for name, speed in (('paper', TABLE_4), ('bundled', BUNDLED_SPEEDS)):
        value = train(iterations, speed)
        correlation = np.corrcoef(value, returns)[0, 1]
        print(
            f'{name}: mean V {value.mean():.1f}, mean discounted return {returns.mean():.1f}, '
            f'correlation {correlation:.2f} after {iterations} iterations', flush=True
        )


if __name__ == '__main__':
    main()

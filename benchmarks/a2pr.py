"""Compare iterations of a2pr with those of the authors' code, on equal weights, rows and noise, in float64.

    git clone https://github.com/ltlhuuu/A2PR
    python benchmarks/a2pr.py --code A2PR [--iterations 20] [--out benchmarks/results/a2pr_released.json]

Both begin with the same networks, on random rows of hopper's widths. Before each iteration the authors' ``train`` gets
the rows and the noise that ours has drawn. The result is the largest difference of any parameter of any network and
target after the last iteration, for each of the published settings.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.a2pr.model import A2PRModel
from ding_cawr.algorithms.a2pr.presets import KEYS, PUBLISHED
from ding_cawr.algorithms.a2pr.settings import A2PRSettings
from ding_cawr.algorithms.a2pr.update import A2PR
from ding_cawr.data.buffer import PriorityBuffer, join_columns
from ding_cawr.training.loop import Training

OBS, ACT, ROWS, BATCH = 11, 3, 1_000, 256


def pairs(ours: A2PR, theirs: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each parameter of ours, and the same one of theirs."""
    model, target = ours.models[0], ours.target_modules[0]
    nets = [(model.actor.net, theirs.actor), (target['actor'].net, theirs.actor_target),
            (model.critics, theirs.critic), (target['critics'], theirs.critic_target), (model.value, theirs.value)]
    for mine, their in nets:
        yield from zip(mine.parameters(), their.parameters(), strict=True)
    encoder, mean, log_std = model.encoder, theirs.vae.mean, theirs.vae.log_std
    layers = [theirs.vae.e1, theirs.vae.e2, *(getattr(theirs.vae, f'd{number}') for number in (1, 2, 3))]
    own = [layer for net in (encoder[:-1], model.decoder) for layer in net if isinstance(layer, nn.Linear)]
    for mine, their in zip(own, layers, strict=True):
        yield from zip(mine.parameters(), their.parameters(), strict=True)
    for name in ('weight', 'bias'):  # ours has mean and log std side by side
        yield from zip(getattr(encoder[-1], name).chunk(2), (getattr(mean, name), getattr(log_std, name)))


def compare(code: Any, settings: dict[str, float], iterations: int) -> float:
    """Return the largest difference of any parameter after so many iterations of ours and of the authors' module."""
    torch.manual_seed(0)
    ours = A2PR(A2PRModel(OBS, ACT), A2PRSettings.read(settings))
    theirs = code.A2PR(OBS, ACT, 1.0, 'cpu', settings['discount_factor'], alpha=settings['alpha'],
                       mask=settings['mask'], vae_weight=settings['vae_weight'])
    with torch.no_grad():
        for mine, their in pairs(ours, theirs):
            their.copy_(mine)
    training = Training(ours, PriorityBuffer(seed=0), BATCH)
    training.attach(join_columns(dict(
        obs=torch.randn(ROWS, OBS), action=torch.randn(ROWS, ACT).tanh(), reward=torch.randn(ROWS),
        next_obs=torch.randn(ROWS, OBS), done=torch.rand(ROWS) < 0.1
    )))
    draw, step, noise, batches = ours._noise, ours.step, [], []
    ours._noise = lambda like: noise.append(draw(like)) or noise[-1]
    ours.step = lambda draws: batches.append(draws['uniform'].batch) or step(draws)
    for _ in range(iterations):
        noise.clear()
        training.iterate()
        batch, drawn = batches[-1], iter(noise)
        obs, action, reward, next_obs, done = (
            batch[name].reshape(BATCH, -1) for name in ('obs', 'action', 'reward', 'next_obs', 'done')
        )
        rows = mock.Mock()
        rows.sample.return_value = obs, action, reward, next_obs, 1 - done.double()
        with mock.patch('torch.randn_like', lambda like, drawn=drawn: next(drawn)[0]):
            theirs.train(rows, BATCH)
        assert next(drawn, None) is None, 'the authors draw less noise'
    return max((mine - their).abs().max().item() for mine, their in pairs(ours, theirs))


def commit_of(folder: Path) -> str:
    """Return the commit of a git repository."""
    command = ['git', '-C', folder, 'rev-parse', 'HEAD']
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--code', type=Path, required=True, help="a clone of the authors' repository")
    parser.add_argument('--iterations', type=int, default=20)
    parser.add_argument('--out', type=Path, help='a JSON file for the result')
    options = parser.parse_args()
    if not (options.code / 'A2PR.py').is_file():
        parser.error(f'--code is {options.code}, which has no A2PR.py; it must be a clone of github ltlhuuu/A2PR')
    sys.path.insert(0, str(options.code))
    import A2PR as code
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    found = {
        name: compare(code, dict(zip(KEYS, settings)), options.iterations) for name, settings in PUBLISHED.items()
    }
    result = dict(
        code='github ltlhuuu/A2PR', commit=commit_of(options.code), ding_cawr=commit_of(Path(__file__).parent),
        iterations=options.iterations, dtype='float64', torch=torch.__version__, largest_difference=found
    )
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

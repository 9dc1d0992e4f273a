"""``cawr eval``: what the policy of a checkpoint reaches."""
from __future__ import annotations

from typing import TYPE_CHECKING

import click
import numpy as np

import ding_cawr
from ding_cawr.cli.output import json_option, write_json

if TYPE_CHECKING:
    from ding_cawr.evaluation.episodes import Evaluation


@click.command('eval')
@click.argument('checkpoint')
@click.option('--episodes', default=50, show_default=True, type=click.IntRange(min=1), help='Start states.')
@click.option('--env-id', metavar='ID', help="D4RL or gymnasium id.  [default: the checkpoint's]")
@click.option('--seed', default=0, show_default=True, type=click.IntRange(min=0), help='Of the start states.')
@click.option('--video', metavar='FILE.mp4', help='Film the first episode; the file must not exist.')
@json_option
def eval_(checkpoint: str, episodes: int, env_id: str | None, seed: int, video: str | None, as_json: bool) -> None:
    """Evaluate the policy of CHECKPOINT from start states that all differ.

    They are those of the first evaluation of a training run with this seed and so many episodes.
    """
    policy = ding_cawr.load_policy(checkpoint)  # before DI-engine is imported, which takes seconds
    ding_cawr.register()
    from ding_cawr.evaluation.episodes import evaluate
    from ding_cawr.evaluation.video import Camera

    camera = Camera(video) if video else None
    result = evaluate(policy, env_id, episodes, seed)
    description = {'checkpoint': checkpoint, 'iteration': policy.iteration, **_describe(result)}
    if as_json:
        write_json({**description, **_each(result)})
    else:
        for name, value in description.items():
            click.echo(f'{name.replace("_", " "):20}{_text(value)}')
    if camera:
        click.echo(f'video: {camera.film(result)}', err=True)


def _describe(result: Evaluation) -> dict:
    """Return an evaluation in short; no score where none is defined."""
    return {
        'env_id': result.env_id,
        'seed': result.seed,
        'episodes': len(result.returns),
        'normalized_score': None if result.scores is None else _spread(result.scores),
        'return': _spread(result.returns),
    }


def _each(result: Evaluation) -> dict:
    """Return every episode, in columns."""
    return {'returns': result.returns, 'normalized_scores': result.scores, 'lengths': result.lengths}


def _spread(values: np.ndarray) -> dict[str, float]:
    return {name: float(getattr(values, name)()) for name in ('mean', 'std', 'min', 'max')}


def _text(value) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {number:.1f}' for name, number in value.items())
    return 'not defined' if value is None else str(value)

"""``cawr eval``: what the policy of a checkpoint reaches."""
from __future__ import annotations

import click

import ding_cawr
from ding_cawr.cli.output import json_option, write_json


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
    description = {
        'checkpoint': checkpoint, 'iteration': policy.iteration, 'env_id': result.env_id, 'seed': result.seed,
        'episodes': len(result.returns), 'normalized_score': _spread(result.scores), 'return': _spread(result.returns),
    }
    if as_json:
        write_json({**description, 'returns': result.returns, 'normalized_scores': result.scores,
                    'lengths': result.lengths})
    else:
        for name, value in description.items():
            if isinstance(value, dict):
                value = ', '.join(f'{statistic} {number:.1f}' for statistic, number in value.items())
            click.echo(f'{name.replace("_", " "):20}{"not defined" if value is None else value}')
    if camera:
        click.echo(f'video: {camera.film(result)}', err=True)


def _spread(values) -> dict[str, float] | None:
    """Return the statistics of the episodes, None where no score is defined."""
    if values is not None:
        return {name: float(getattr(values, name)()) for name in ('mean', 'std', 'min', 'max')}

"""``cawr resume``, ``cawr eval`` and ``cawr export``: what is done with runs and their checkpoints."""
from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

import ding_cawr
from ding_cawr.checks import SEED
from ding_cawr.cli.output import json_option, register, write_json


def _from_here(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Let modules of the current folder be imported."""
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return names


import_option = click.option(
    '--import', 'import_names', metavar='MODULE', multiple=True, callback=_from_here,
    help='Module that registers the environment; it is imported first. May be repeated.'
)


@click.command()
@click.argument('exp_dir', type=click.Path(path_type=Path))
@click.option('--train-iter', type=click.IntRange(min=1), help='Iterations in all.  [default: those of the run]')
@click.option(
    '--data', 'data_paths', metavar='PATH', multiple=True,
    help="Where the run's data lie now; once for each of several files.  [default: where they were]"
)
@import_option
@json_option
def resume(
    exp_dir: Path, train_iter: int | None, data_paths: tuple[str, ...], import_names: tuple[str, ...], as_json: bool
) -> None:
    """Continue the run in EXP_DIR, in the same folder, from its last whole checkpoint.

    It ends with what it would have ended with if it had not been stopped. A run whose configuration names modules of
    your own goes on where each is confirmed by --import.
    """
    register()
    from ding_cawr.engine import resume as runs

    # DI-engine and the run say on stdout how it goes.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        checkpoint = runs.resume(exp_dir, train_iter, data_paths, import_names)
    if as_json:
        write_json({'exp_dir': exp_dir, 'checkpoint': checkpoint})


@click.command('eval')
@click.argument('checkpoint')
@click.option('--episodes', default=50, show_default=True, type=click.IntRange(min=1),
              help='Number of episodes, each from a start state of its own.')
@click.option('--env-id', metavar='ID', help="D4RL or gymnasium id.  [default: the checkpoint's]")
@click.option('--seed', default=0, show_default=True, type=click.IntRange(SEED.low, SEED.high),
              help='Seed of the start states.')
@click.option('--video', metavar='FILE.mp4', help='Film the first episode; the file must not exist.')
@import_option
@json_option
def eval_(
    checkpoint: str, episodes: int, env_id: str | None, seed: int, video: str | None, import_names: tuple[str, ...],
    as_json: bool
) -> None:
    """Evaluate the policy of CHECKPOINT from start states that all differ.

    They are those of the first evaluation of a training run with this seed and number of episodes.
    """
    from ding_cawr.evaluation.episodes import evaluate
    from ding_cawr.evaluation.video import Camera

    policy = ding_cawr.load_policy(checkpoint)
    camera = Camera(video) if video else None
    result = evaluate(policy, env_id, episodes, seed, import_names=import_names)
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


@click.command()
@click.argument('checkpoint')
@click.argument('path', metavar='OUT.onnx|OUT.pt')
@json_option
def export(checkpoint: str, path: str, as_json: bool) -> None:
    """Write the policy of CHECKPOINT for programs without this package: as ONNX or as TorchScript.

    It takes raw observations and gives actions within [-1, 1], or the numbers of discrete ones; the file must not
    exist.
    """
    from ding_cawr.evaluation.export import export_policy

    policy = ding_cawr.load_policy(checkpoint)
    out = export_policy(policy, path)
    if as_json:
        shapes = {'obs_shape': policy.obs_shape, 'action_shape': policy.action_shape}
        return write_json({'path': out, **shapes, 'env_id': policy.env_id, 'iteration': policy.iteration})
    action = f'(batch,), from 0 to {policy.action_shape - 1}' if policy.discrete else f'(batch, {policy.action_shape})'
    click.echo(f'{out}: obs (batch, {policy.obs_shape}) to action {action}')

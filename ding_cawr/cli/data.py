"""``cawr data``: list, inspect, fetch and collect datasets."""
from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ding_cawr.checks import SEED, nearest
from ding_cawr.choice import AUTO, NEAR, choose
from ding_cawr.cli.output import json_option, jsonable, register, write_json
from ding_cawr.data import bundled, d4rl, minari
from ding_cawr.data.load import KINDS, find_file, load_transitions, whole_name
from ding_cawr.data.quality import Quality, quality_of
from ding_cawr.files import sha256
from ding_cawr.score import score_or_none
from ding_cawr.tasks import D4RL_IDS, d4rl_id_of, find_task, is_d4rl_id


@click.group()
def data() -> None:
    """List, inspect, fetch and collect datasets."""


@data.command('list')
@json_option
def list_sets(as_json: bool) -> None:
    """List the datasets that can be had by name: D4RL's, the package's own, and those of Minari's cache."""
    d4rl_sets = [
        {'name': name, 'cached': d4rl.cached(name) is not None, 'path': d4rl.cache_dir() / d4rl.file_name(name)}
        for name in D4RL_IDS
    ]
    paths = {f'{bundled.SCHEME}:{name}': bundled.path(name) for name in bundled.names()}
    bundled_sets = [{'name': name, 'path': path, 'bytes': path.stat().st_size} for name, path in paths.items()]
    minari_sets = [{'name': f'{minari.SCHEME}:{name}', 'path': minari.cached(name)} for name in minari.names()]
    if as_json:
        return write_json({'d4rl': d4rl_sets, 'bundled': bundled_sets, 'minari': minari_sets})
    for item in d4rl_sets:
        click.echo(f'{item["name"]:32}{"cached" if item["cached"] else "not cached":14}{item["path"]}')
    for item in bundled_sets:
        click.echo(f'{item["name"]:32}{item["bytes"] / 1e6:.1f} MB{"":7}{item["path"]}')
    for item in minari_sets:
        click.echo(f'{item["name"]:32}{"cached":14}{item["path"]}')


@data.command()
@click.argument('names', metavar='NAME_OR_PATH...', nargs=-1, required=True)
@json_option
def info(names: tuple[str, ...], as_json: bool) -> None:
    """Describe a dataset: its size, its episodes, the score of the policy behind it, how it was made, and which
    algorithm make_config(..., algorithm='auto') takes for it and why.

    NAME_OR_PATH is a D4RL id (hopper-medium-v2) or minari:NAME, from their caches only, bundled:NAME, or a .hdf5 or
    .npz file. Several are one dataset, rows one after the other.
    """
    names = tuple(map(whole_name, names))
    paths = [find_file(name, _in_the_cache, {**KINDS, minari.SCHEME: _in_minaris_cache}) for name in names]
    d4rl_id = next(filter(is_d4rl_id, names), None)
    transitions = load_transitions(paths, d4rl_id, unit_actions=False)
    env_id = d4rl_id or transitions.env_id or next(filter(None, map(d4rl_id_of, paths)), None)
    if env_id != d4rl_id and find_task(env_id) is not None:  # which says how its rows are to be read
        transitions = load_transitions(paths, env_id, unit_actions=False)
    returns = transitions.episode_returns
    known = returns is not None and len(returns) > 0
    mean = float(returns.mean()) if known else None
    description = {
        'name': _one_or_all(names),
        'path': _one_or_all(paths),
        'bytes': sum(path.stat().st_size for path in paths),
        'sha256': _one_or_all([sha256(path) for path in paths]),
        'env_id': env_id,
        'transitions': len(transitions),
        'obs_shape': transitions.obs_shape,
        'action_shape': transitions.action_shape,
        'action_min': float(transitions.action.min()),
        'action_max': float(transitions.action.max()),
        'advantages': transitions.table.advantage is not None,
        'episodes': None if returns is None else len(returns),
        'episode_return_mean': mean,
        'episode_return_min': float(returns.min()) if known else None,
        'episode_return_max': float(returns.max()) if known else None,
        'normalized_score_mean': score_or_none(env_id, mean) if known else None,
    }
    quality = quality_of(transitions, env_id)
    choice = None if transitions.discrete else choose(quality)
    if as_json:
        return write_json({
            **description, 'quality': quality and _numbers(quality), AUTO: choice and choice._asdict(),
            'attributes': transitions.attributes,
        })
    lines = [(name.replace('_', ' '), value) for name, value in description.items()]
    lines += _lines(quality) if quality else []
    lines.append((f"algorithm='{AUTO}'", ': '.join(choice) if choice else 'takes no discrete actions'))
    lines += [(f'attribute {name}', value) for name, value in transitions.attributes.items()]
    for name, value in lines:
        click.echo(f'{name:32}{_text(value)}')


def _numbers(quality: Quality) -> dict[str, Any]:
    """Return what the episodes look like, for JSON."""
    return {
        'unit': quality.unit,
        'std': float(quality.values.std()),
        'quantiles': quality.quantiles(),
        'near_best': quality.near_best(NEAR),
        'terminations': quality.terminations,
        'histogram': [dict(zip(('from', 'to', 'episodes'), each)) for each in quality.histogram()],
    }


def _lines(quality: Quality) -> list[tuple[str, Any]]:
    """Return what the episodes look like, as names and values; the last are the bars of a histogram."""
    unit, parts, ending = quality.unit, quality.histogram(), quality.terminations
    longest, width = max(count for _, _, count in parts), parts[0][1] - parts[0][0]
    decimals = f'.{min(6, max(0, 1 - math.floor(math.log10(width or 1))))}f'
    return [
        (f'episode {unit} quantiles',
         ', '.join(f'{name} {value:{decimals}}' for name, value in quality.quantiles().items())),
        (f'episode {unit} std', float(quality.values.std())),
        (f'within {NEAR:.0%} of the best return', f'{quality.near_best(NEAR):.1%} of the episodes'),
        ('ended by a termination', None if ending is None else f'{ending:.1%}'),
        *((f'{unit} {low:{decimals}} to {high:{decimals}}', f'{"#" * round(40 * count / longest)} {count}'.strip())
          for low, high, count in parts),
    ]


def _in_the_cache(env_id: str) -> Path:
    """Return the file of a D4RL dataset; nothing is downloaded."""
    path = d4rl.cached(env_id)
    if path is None:
        raise FileNotFoundError(
            f'{env_id} is not in the cache ({d4rl.cache_dir() / d4rl.file_name(env_id)}); `cawr data download '
            f'{env_id}` fetches it'
        )
    return path


def _in_minaris_cache(name: str) -> Path:
    """Return the file of a Minari dataset; nothing is downloaded."""
    path = minari.cached(name)
    if path is None:
        raise FileNotFoundError(
            f"no Minari dataset {name!r} in {minari.folder()}; after pip install 'minari[hf]', `minari download "
            f'{name}` fetches it{nearest(name, minari.names())}'
        )
    return path


def _one_or_all(values: Sequence) -> Any:
    """Return the only value, or all as a list."""
    return values[0] if len(values) == 1 else list(values)


def _text(value) -> str:
    if isinstance(value, list):
        return ', '.join(map(_text, value))
    if isinstance(value, float):
        return f'{value:.6g}'
    return 'unknown' if value is None else str(value if isinstance(value, (str, int, Path)) else jsonable(value))


@data.command()
@click.argument('env_ids', metavar='ENV_ID...', nargs=-1, required=True)
@click.option('--mirror', metavar='URL', default=d4rl.BASE_URL, show_default=True, help="Folder with D4RL's files.")
@json_option
def download(env_ids: tuple[str, ...], mirror: str, as_json: bool) -> None:
    """Download D4RL datasets into the cache, $D4RL_DATASET_DIR or else ~/.d4rl/datasets.

    A file that is already there is kept; a download that was cut short is continued.
    """
    for env_id in env_ids:  # a misspelt id is an error before the first download, not after it
        d4rl.url(env_id, mirror)
    results = []
    for env_id in env_ids:
        had = d4rl.cached(env_id) is not None
        path = d4rl.download(env_id, mirror)
        results.append({'name': env_id, 'path': path, 'already_cached': had})
        if not as_json:
            click.echo(f'{env_id}: {path}{" (already in the cache)" if had else ""}')
    if as_json:
        write_json(results)


@data.command()
@click.option('--config', required=True, metavar='FILE', help='DI-engine config of the policy and its environment.')
@click.option('--checkpoint', 'checkpoints', required=True, multiple=True, metavar='CKPT',
              help='A checkpoint of the policy; may be repeated.')
@click.option('--steps', required=True, type=click.IntRange(min=1), help='Transitions in all, rounded up to episodes.')
@click.option('--seed', required=True, type=click.IntRange(SEED.low, SEED.high),
              help='Seed of start states and of noise.')
@click.option('--out', required=True, metavar='FILE.hdf5', help='File to write; it must not exist.')
@json_option
def collect(config: str, checkpoints: tuple[str, ...], steps: int, seed: int, out: str, as_json: bool) -> None:
    """Roll DI-engine checkpoints out and write a dataset of whole episodes in D4RL's layout.

    The policies explore as they do in training. Several checkpoints of one config give equal shares of the
    transitions, in the order given. The file's attributes say how it was made.
    """
    register()
    from ding_cawr.engine.collect import collect_dataset

    result = collect_dataset(config, checkpoints, steps, seed, out)
    if as_json:
        return write_json(result)
    for part in result['parts']:
        click.echo(f'{part["checkpoint"]}: {_made(part)}  sha256 {part["sha256"]}')
    click.echo(f'{result["path"]}: {_made(result)}  sha256 {result["sha256"]}')


def _made(summary: dict) -> str:
    score = f', score {summary["normalized_score"]:.1f}' if 'normalized_score' in summary else ''
    size = f'{summary["transitions"]} transitions, {summary["episodes"]} episodes'
    return f'{size}, return {summary["mean_return"]:.1f}{score}'

"""``cawr compare``: policies on equal terms."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ding_cawr.checks import SEED, one_of
from ding_cawr.cli.output import json_option, register, write_json


class Parsed(click.ParamType):
    """A text that a function reads, which raises a ValueError where the text is not what it must be."""

    def __init__(self, name: str, parse: Callable[[str], Any], needed: str) -> None:
        self.name, self._parse, self._needed = name, parse, needed

    def convert(self, value, param, ctx):
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError:
            self.fail(f'{value!r}; it must be {self._needed}', param, ctx)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(',') if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(text)
    return names


def _seeds(text: str) -> list[int]:
    seeds = [SEED.check('a seed', int(name)) for name in _names(text)]
    if len(set(seeds)) < len(seeds):
        raise ValueError(text)
    return seeds


def _column_and_rate(text: str) -> tuple[str, float]:
    column, _, rate = text.partition(':')
    return column, float(rate)


NAMES = Parsed('A,B,...', _names, 'one or more names, all different, separated by commas')
SEEDS = Parsed('0,1,...', _seeds, f'seeds that differ ({SEED}), separated by commas')
CORRUPTION = Parsed('COLUMN:RATE', _column_and_rate, 'COLUMN:RATE, such as action:0.3')


@click.command()
@click.option('--data', type=NAMES, help='D4RL ids, bundled:NAME, minari:NAME, .hdf5 or .npz files.')
@click.option('--policies', type=NAMES, help="ding_cawr's algorithms, auto, policies of DI-engine (NAME, NAME@MODULE), "
              '.py configurations.')
@click.option('--seeds', type=SEEDS, help='[default: 0,1,2]')
@click.option('--iterations', type=click.IntRange(min=1), help="Updates of every run.")
@click.option('--eval-freq', type=click.IntRange(min=1), help='Iterations between evaluations.  [default: a '
              'twentieth of --iterations, or the nearest share that divides them]')
@click.option('--episodes', default=10, show_default=True, type=click.IntRange(min=1),
              help='Episodes of each evaluation.')
@click.option('--corrupt', 'corruptions', multiple=True, type=CORRUPTION, help='Also on data of which this share of '
              'a column (action, reward, obs, next_obs) is corrupted; may be repeated.')
@click.option('--corruption-scale', default=1.0, show_default=True,
              help='Scale of the noise, or of the rewards that are put in.')
@click.option('--preset', help='paper-table1, paper-table2 or corruption; other options override it.')
@click.option('--env-id', help='Environment of files that do not name theirs.')
@click.option('--out', default='comparison', show_default=True, type=click.Path(path_type=Path), help='Output folder.')
@click.option('--jobs', type=click.IntRange(min=1), help='Runs at once.  [default: the cores]')
@click.option('--threads', type=click.IntRange(min=1), help='Threads of each run.  [default: cores / jobs]')
@click.option('--replicas', is_flag=True, help="Train all seeds of ding_cawr's algorithms at once, as one program.")
@click.option('--cuda', is_flag=True, help='Train on the GPU.')
@click.option('--launcher', default='local', show_default=True, type=click.Choice(['local', 'ray']), help='Where runs '
              'go: processes here, or the Ray cluster that $RAY_ADDRESS names, else one that is started here.')
@json_option
def compare(as_json: bool, out: Path, jobs: int | None, threads: int | None, launcher: str, **options) -> None:
    """Train policies on the same data, budget and evaluations, through DI-engine's own offline pipeline.

    Results are appended to OUT/results.jsonl, which `cawr report OUT` reads; each run has a folder in OUT/runs. Runs
    that failed are reported and do not stop the others. The same command again runs what is missing.
    """
    register()
    from ding_cawr.compare.launchers import LocalLauncher, RayLauncher
    from ding_cawr.compare.run import Comparison
    from ding_cawr.machine import cores

    if options['cuda'] and launcher == 'local':  # with Ray the GPU is elsewhere
        options['cuda'] = _gpu_is_there()
    plan = _plan(**options)
    slots = min(jobs or cores(), len(plan))
    threads = threads or max(1, cores() // slots)
    for source in dict.fromkeys(f'{job.policy.name}: {job.policy.source}' for job in plan):
        click.echo(source, err=True)
    runs_on = RayLauncher(threads, options['cuda']) if launcher == 'ray' else LocalLauncher(slots, threads)
    try:
        outcome = Comparison(out, plan, runs_on).run()
    except KeyboardInterrupt:
        click.echo(f'interrupted; what had finished is in {out}, and the same command goes on from there', err=True)
        raise SystemExit(130) from None
    if as_json:
        write_json(vars(outcome))
    else:
        click.echo(f'{outcome.finished} runs, {outcome.ran} of them new: {outcome.results}; next: cawr report {out}')
    for failure in outcome.failures:
        click.echo(f'{failure["run"]} failed: {failure["error"]}; its log is {failure["log"]}', err=True)
    if outcome.failures:
        raise SystemExit(1)


def _gpu_is_there() -> bool:
    """Return whether torch finds a GPU, after a warning where it does not."""
    import torch

    if not torch.cuda.is_available():
        click.echo(f'warning: --cuda is given, but torch {torch.__version__} finds no GPU: the CPU is used', err=True)
    return torch.cuda.is_available()


def _plan(data, policies, seeds, iterations, eval_freq, episodes, corruptions, corruption_scale, preset, env_id, cuda,
          replicas) -> list:
    """Return the jobs that the options and the preset ask for; all of them are checked before anything runs."""
    from ding_cawr.choice import AUTO
    from ding_cawr.compare.datasets import find_dataset
    from ding_cawr.compare.jobs import make_jobs
    from ding_cawr.compare.policies import Budget, find_policy
    from ding_cawr.compare.presets import COMPARISONS

    if preset is not None:
        one_of('--preset', preset, COMPARISONS)
    chosen = COMPARISONS.get(preset)
    if chosen:
        click.echo(f'{preset}: {chosen.about}', err=True)
    given = {'--data': data, '--policies': policies, '--iterations': iterations}
    missing = [name for name, value in given.items() if not value]
    if chosen is None and missing:
        verb = 'is missing; give it' if len(missing) == 1 else 'are missing; give them'
        raise ValueError(f'{" and ".join(missing)} {verb}, or a --preset ({", ".join(COMPARISONS)})')
    iterations = iterations or chosen.iterations
    # By default a 20th of the iterations, or the least share that they can be divided by.
    parts = next(parts for parts in (20, 10, 5, 4, 3, 2, 1) if iterations % parts == 0)
    budget = Budget(iterations, eval_freq or iterations // parts, episodes, cuda)
    if iterations % budget.eval_freq:
        raise ValueError(
            f'--iterations {iterations} is not a multiple of --eval-freq {budget.eval_freq}; the last evaluation would '
            'miss the end of training'
        )
    specs = [find_policy(name) for name in policies] if policies else chosen.policies()
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ValueError(f'--policies {", ".join(names)}: names must differ; rename a configuration file')
    corruptions = corruptions or (chosen.corruptions if chosen else ())
    if corruption_scale != 1 and not corruptions:
        raise ValueError(f'--corruption-scale is {corruption_scale:g}, but nothing is corrupted; give --corrupt')
    datasets = []
    for name in data or chosen.data:
        clean = find_dataset(name, env_id)
        if any(spec.algorithm == AUTO for spec in specs):
            click.echo(f'{AUTO} on {clean.name} is {clean.choice.algorithm}: {clean.choice.reason}', err=True)
        datasets += [clean, *(clean.corrupted(*each, corruption_scale) for each in corruptions)]
    return make_jobs(datasets, specs, seeds or (chosen.seeds if chosen else (0, 1, 2)), budget, preset, replicas)

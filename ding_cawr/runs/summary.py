"""Write a run's results at its end: ``summary.json``, the learning curve, and the sentences that it prints."""
from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ding_cawr.files import to_json, unfinished
from ding_cawr.runs.checkpoint import BEST
from ding_cawr.runs.progress import Evaluations, score_text

CURVE = 'learning_curve.png'


def write_summary(
    folder: Path, evaluations: Evaluations, behaviour_mean: float | None, episodes: int, iterations: int, seconds: float
) -> dict[str, Any]:
    """Write ``summary.json`` and the learning curve of a run that ended after this number of iterations; return it.

    A file that cannot be written is a warning: the run has its result and its last checkpoint to write.

    A score that is not finite, since the environment gave such numbers, is None there, and never the best. Without
    evaluations all scores are None, and there is no learning curve.

    Arguments:
        behaviour_mean: mean of the dataset's episodes, in the unit of the evaluations; None where it is unknown.
        episodes: number of episodes of an evaluation.
    """
    summary = {
        'unit': evaluations.unit,
        'last': _finite(evaluations.last),
        'mean_last_three': _finite(evaluations.mean_last_three),
        'best': evaluations.best,
        'behaviour_mean': behaviour_mean,
        'episodes': episodes,
        'iterations': iterations,
        'seconds': seconds,
        'evaluated_at': evaluations.iterations,
        'evaluations': [_finite(value) for value in evaluations.values],
        'checkpoint_last': str(folder / 'ckpt' / f'iteration_{iterations}.pth.tar'),
        'checkpoint_best': None if evaluations.best is None else str(folder / 'ckpt' / BEST),
    }
    for name, write in (
        ('summary.json', lambda path: path.write_text(to_json(summary, indent=2) + '\n', encoding='utf-8')),
        *([(CURVE, lambda path: learning_curve(path, summary, title=folder.name))] if evaluations.values else []),
    ):
        try:
            with unfinished(folder / name) as temporary:
                write(temporary)
        except OSError as error:
            warnings.warn(str(error), stacklevel=2)
    return summary


def learning_curve(path: Path, summary: dict, title: str) -> None:
    """Draw the evaluations of one run as a PNG.

    Arguments:
        path: file to write.
        summary: what a run's ``summary.json`` holds: evaluated_at, evaluations, episodes, unit, behaviour_mean.
        title: the run's name.
    """
    figure = Figure(figsize=(7, 4), layout='constrained', dpi=120)
    axes = figure.add_subplot()
    label = f"evaluation (mean of {summary['episodes']} episodes)"
    values = [math.nan if value is None else value for value in summary['evaluations']]
    axes.plot(summary['evaluated_at'], values, marker='o', color='C0', label=label)
    if summary['behaviour_mean'] is not None:
        axes.axhline(summary['behaviour_mean'], color='0.5', linestyle='--', label="behaviour policy's mean")
    axes.set_xlabel('training iteration')
    axes.set_ylabel(summary['unit'])
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc='best', frameon=False)
    figure.savefig(path)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def describe(summary: dict, folder: Path) -> str:
    """Return the summary as the sentences that end a run."""
    if not summary['evaluations']:
        return f"\nno evaluation took place, so there are no scores\ncheckpoint: {summary['checkpoint_last']}"
    behaviour = summary['behaviour_mean']
    beside = 'unknown' if behaviour is None else f'{behaviour:.1f}'
    missing = [str(at) for at, value in zip(summary['evaluated_at'], summary['evaluations']) if value is None]
    not_finite = f'\nnot finite, as warnings above have told, at iteration {", ".join(missing)}' if missing else ''
    last, mean, best = (score_text(summary[key]) for key in ('last', 'mean_last_three', 'best'))
    return (
        f"\n{summary['unit']}: last {last} (at iteration {summary['evaluated_at'][-1]}), mean of the last three "
        f"evaluations {mean}, best so far {best} "
        f"(behaviour policy's mean: {beside}){not_finite}\n"
        f"checkpoint: {summary['checkpoint_last']} (best so far: {summary['checkpoint_best'] or 'none'})\n"
        + (f'learning curve: {folder / CURVE}' if (folder / CURVE).is_file() else '')
    )

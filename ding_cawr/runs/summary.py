"""Write a run's results at its end: ``summary.json``, the learning curve, and the sentences that it prints."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ding_cawr.files import unfinished
from ding_cawr.runs.checkpoint import BEST
from ding_cawr.runs.picture import learning_curve
from ding_cawr.runs.progress import Evaluations


def write_summary(
    folder: Path, evaluations: Evaluations, behaviour_mean: float | None, episodes: int, iterations: int, seconds: float
) -> dict[str, Any]:
    """Write ``summary.json`` and the learning curve of a run that ended after so many iterations; return the summary.

    Without evaluations its scores are None, and there is no learning curve.

    Arguments:
        behaviour_mean: mean of the dataset's episodes, in the unit of the evaluations; None where it is unknown.
        episodes: number of episodes of an evaluation.
    """
    summary = {
        'unit': evaluations.unit,
        'last': evaluations.last,
        'mean_last_three': evaluations.mean_last_three,
        'best': evaluations.best,
        'behaviour_mean': behaviour_mean,
        'episodes': episodes,
        'iterations': iterations,
        'seconds': seconds,
        'evaluated_at': evaluations.iterations,
        'evaluations': evaluations.values,
        'checkpoint_last': str(folder / 'ckpt' / f'iteration_{iterations}.pth.tar'),
        'checkpoint_best': str(folder / 'ckpt' / BEST) if evaluations.values else None,
    }
    with unfinished(folder / 'summary.json') as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + '\n')
    if evaluations.values:
        with unfinished(folder / 'learning_curve.png') as temporary:
            learning_curve(temporary, summary, title=folder.name)
    return summary


def describe(summary: dict, folder: Path) -> str:
    """Return the summary as the sentences that end a run."""
    if not summary['evaluations']:
        return f"\nno evaluation took place, so there are no scores\ncheckpoint: {summary['checkpoint_last']}"
    behaviour = summary['behaviour_mean']
    beside = 'unknown' if behaviour is None else f'{behaviour:.1f}'
    return (
        f"\n{summary['unit']}: last {summary['last']:.1f} (at iteration {summary['evaluated_at'][-1]}), mean of the "
        f"last three evaluations {summary['mean_last_three']:.1f}, best so far {summary['best']:.1f} "
        f"(behaviour policy's mean: {beside})\n"
        f"checkpoint: {summary['checkpoint_last']} (best so far: {summary['checkpoint_best']})\n"
        f"learning curve: {folder / 'learning_curve.png'}"
    )

"""Draw the figure of a run."""
from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure


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

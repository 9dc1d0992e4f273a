"""Draw a report's figures as matplotlib's Figure objects, without a window or a global state."""
from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Okabe and Ito's colours for readers of any colour vision, without their yellow, which is lost on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
LINES = ('-', '--', '-.', ':', (0, (1, 3)))
MARKERS = 'osD^vPX*<>'
#: Lines that one panel can hold and still be read.
LINES_A_PANEL = 10
PANEL = (8.0, 4.2)


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a colour, line and marker for each label; colours change first."""
    looks = [dict(color=colour, linestyle=line) for line, colour in product(LINES, COLOURS)]
    return {
        label: dict(looks[number % len(looks)], marker=MARKERS[number % len(MARKERS)])
        for number, label in enumerate(labels)
    }


def curves(
    title: str, points: pd.DataFrame, looks: Mapping[str, dict], x: str, unit: str, behaviour: float | None
) -> Figure:
    """Draw scores against training: a line a policy, mean over seeds, a band of ± 1 std.

    Arguments:
        points: rows of panel (its heading), policy, iteration, seconds and score (a ``Spread``).
        looks: what ``styles`` gives for the policies.
        x: 'iteration' or 'seconds'.
        unit: of the y axis.
        behaviour: mean of the dataset's episodes, a dashed line; None where it is unknown.
    """
    panels = points.groupby('panel', sort=False)
    figure, all_axes = _panels(len(panels), title, columns=2)
    for axes, (heading, lines) in zip(all_axes, panels):
        for policy, line in lines.groupby('policy', sort=False):
            means = [score.mean for score in line.score]
            axes.plot(line[x], means, label=policy, linewidth=1.6, markersize=4, markevery=max(1, len(means) // 12),
                      **looks[policy])
            if all(score.std is not None for score in line.score):
                low, high = ([score.mean + sign * score.std for score in line.score] for sign in (-1, 1))
                axes.fill_between(line[x], low, high, color=looks[policy]['color'], alpha=0.12, linewidth=0)
        if behaviour is not None:
            axes.axhline(behaviour, color='0.45', linestyle=(0, (6, 3)), linewidth=1.2, label="dataset's episodes")
        axes.set_xlabel({'iteration': 'training iteration', 'seconds': 'training time, s (without evaluations)'}[x])
        axes.set_xlim(left=0)
        axes.locator_params(axis='x', nbins=6)
        if x == 'iteration':
            axes.xaxis.set_major_formatter('{x:,.0f}')
        _finish(axes, heading)
    figure.supylabel(unit, fontsize=10)
    return figure


def intervals(title: str, estimates: pd.DataFrame, looks: Mapping[str, dict]) -> Figure:
    """Draw aggregates of normalized scores: a panel a column (protocol), a row a policy with its 95% interval."""
    figure, all_axes = _panels(estimates.shape[1], title, (4.2, 1.6 + 0.32 * len(estimates)))
    for axes, (protocol, column) in zip(all_axes, estimates.items()):
        for place, (policy, estimate) in enumerate(column.items()):
            colour = looks[policy]['color']
            if estimate.low is not None:
                axes.hlines(place, estimate.low, estimate.high, color=colour, linewidth=7, alpha=0.35)
            axes.plot(estimate.value, place, marker=looks[policy]['marker'], color=colour, markersize=7)
        axes.set_yticks(range(len(estimates)), estimates.index)
        axes.set_ylim(len(estimates) - 0.5, -0.5)
        axes.set_xlabel('normalized score')
        _finish(axes, protocol, legend=False)
    return figure


def corruption(title: str, cells: pd.DataFrame, looks: Mapping[str, dict], unit: str) -> Figure:
    """Draw scores against the share of corrupted rows: a panel a protocol, a line a policy, mean over seeds, bars of
    ± 1 std. Rows of ``cells`` are (protocol, policy), columns are rates, values are ``Spread`` or missing."""
    panels = cells.groupby('protocol', sort=False)
    figure, all_axes = _panels(len(panels), title, (4.6, 4.4))
    for axes, (protocol, lines) in zip(all_axes, panels):
        for (_, policy), line in lines.iterrows():
            line = line.dropna()
            stds = [score.std for score in line]
            axes.errorbar(line.index, [score.mean for score in line], None if None in stds else stds, label=policy,
                          linewidth=1.6, markersize=5, elinewidth=0.8, capsize=2, **looks[policy])
        axes.set_xlabel('share of corrupted rows')
        _finish(axes, protocol, legend=False)
    figure.supylabel(unit, fontsize=10)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc='outside right center', frameon=False, fontsize=9)
    return figure


def _panels(
    number: int, title: str, size: tuple[float, float] = PANEL, columns: int = 3
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure and its panels, which share their y axis, so many in a row."""
    columns = min(number, columns)
    rows = math.ceil(number / columns)
    width, height = size[0] * columns, size[1] * rows
    figure = Figure(figsize=(width, height), layout='constrained')
    figure.suptitle(textwrap.fill(title, int(12 * width)), fontsize=11)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for unused in panels[number:]:
        unused.remove()
    return figure, panels[:number]


def _finish(axes: Axes, heading: str, legend: bool = True) -> None:
    axes.set_title(heading, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    if legend:
        axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def render(figure: Figure) -> dict[str, bytes]:
    """Return a figure as files, {'png': ..., 'svg': ...}, the same bytes for the same figure."""
    files = {}
    with matplotlib.rc_context({'svg.hashsalt': 'cawr'}):
        for kind, options in (('png', dict(dpi=120)), ('svg', dict(metadata={'Date': None}))):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **options)
            files[kind] = buffer.getvalue()
    return files

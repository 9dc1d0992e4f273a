"""Draw a report's figures as matplotlib's Figure objects, without a window or a global state."""
from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

#: Okabe and Ito's colours for readers of any colour vision, without their yellow, which is lost on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
LINES = ('-', '--', '-.', ':', (0, (1, 3)))
MARKERS = 'osD^vPX*<>'
#: Kinds of files that ``render`` gives, and how matplotlib saves each.
KINDS = {'png': dict(dpi=120), 'svg': dict(metadata={'Date': None})}
#: Characters of a title or a legend on an inch.
CHARACTERS = 12
#: Label of the mean score of a dataset's episodes.
EPISODES = "dataset's episodes"
#: Lines that one panel can hold and still be read.
LINES_A_PANEL = 10


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a colour, line and marker for each label; colours change first."""
    looks = [dict(color=colour, linestyle=line) for line, colour in product(LINES, COLOURS)]
    return {label: dict(looks[number % len(looks)], marker=MARKERS[number % len(MARKERS)])
            for number, label in enumerate(labels)}


def lines(
    title: str, points: pd.DataFrame, looks: Mapping[str, dict], x: str, labels: tuple[str, str],
    behaviour: float | None = None
) -> Figure:
    """Draw scores: a line a policy, mean over seeds, a band of ± 1 std; one legend below all panels.

    Arguments:
        points: rows of panel (its heading), policy, ``x`` and score (a ``Spread``).
        looks: what ``styles`` gives for the policies.
        x: the column that runs along the x axis.
        labels: of the two axes.
        behaviour: mean of the dataset's episodes, a dashed line; None where it is unknown.
    """
    panels, drawn = points.groupby('panel', sort=False), {}
    figure, all_axes = _panels([heading for heading, _ in panels], title, 2, (8.0, 4.2), labels[0])
    for axes, (_, panel) in zip(all_axes, panels):
        for policy, line in panel.groupby('policy', sort=False):
            means = np.array([score.mean for score in line.score], float)
            along = line[x].to_numpy(float)
            axes.plot(along, means, label=policy, linewidth=1.6, markersize=4, markevery=max(1, len(means) // 12),
                      **looks[policy])
            if all(score.std is not None for score in line.score):
                std = np.array([score.std for score in line.score], float)
                color = looks[policy]['color']
                axes.fill_between(along, means - std, means + std, color=color, alpha=0.12, linewidth=0)
        if behaviour is not None:
            axes.axhline(behaviour, color='0.45', linestyle=(0, (6, 3)), linewidth=1.2, label=EPISODES)
        axes.set_xlim(left=0)
        axes.locator_params(axis='x', nbins=6)
        if points[x].max() >= 1000:
            axes.xaxis.set_major_formatter('{x:,.0f}')
        drawn.update((line.get_label(), line) for line in axes.get_lines())
    figure.supylabel(labels[1], fontsize=10)
    _legend(figure, {name: drawn[name] for name in (*looks, EPISODES) if name in drawn})
    return figure


def intervals(title: str, estimates: pd.DataFrame, looks: Mapping[str, dict]) -> Figure:
    """Draw aggregates of normalized scores: a panel a column (protocol), a row a policy with its 95% interval."""
    figure, all_axes = _panels(estimates, title, 3, (4.2, 1.6 + 0.32 * len(estimates)), 'normalized score')
    for axes, (_, column) in zip(all_axes, estimates.items()):
        for place, (policy, estimate) in enumerate(column.items()):
            colour = looks[policy]['color']
            if estimate.low is not None:
                axes.hlines(place, estimate.low, estimate.high, color=colour, linewidth=7, alpha=0.35)
            axes.plot(estimate.value, place, marker=looks[policy]['marker'], color=colour, markersize=7)
        axes.set_yticks(range(len(estimates)), estimates.index)
        axes.set_ylim(len(estimates) - 0.5, -0.5)
    return figure


def heat_maps(title: str, grids: Mapping[str, pd.DataFrame], label: str) -> Figure:
    """Draw grids of scores (each ``Spread``, None or NaN) side by side, a row a priority, a column a loss, on one
    scale."""
    figure, all_axes = _panels(grids, title, 3, (4.6, 1.6 + 0.42 * max(map(len, grids.values()))), label, sharey=False)
    means = [grid.map(lambda score: getattr(score, 'mean', math.nan)) for grid in grids.values()]
    values = np.concatenate([mean.to_numpy(float).ravel() for mean in means])
    low, high = np.nanmin(values), np.nanmax(values)
    for axes, mean in zip(all_axes, means):
        image = axes.imshow(mean.to_numpy(float), aspect='auto', cmap='cividis', vmin=low, vmax=high)
        axes.set_xticks(range(mean.shape[1]), mean.columns)
        axes.set_yticks(range(len(mean)), mean.index)
        axes.grid(False)
        for (row, column), value in np.ndenumerate(mean.to_numpy(float)):
            if not math.isnan(value):
                colour = 'white' if value < (low + high) / 2 else 'black'
                axes.text(column, row, f'{value:.0f}', ha='center', va='center', color=colour, fontsize=9)
    figure.colorbar(image, ax=all_axes, label='normalized score')
    return figure


def _panels(
    headings: Iterable[str], title: str, columns: int, size: tuple[float, float], label: str, sharey: bool = True
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure and a panel for each heading, at most the given number in a row."""
    headings = list(headings)
    columns = min(len(headings), columns)
    rows = math.ceil(len(headings) / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout='constrained')
    figure.suptitle(textwrap.fill(title, int(CHARACTERS * size[0] * columns)), fontsize=11)
    panels = list(figure.subplots(rows, columns, sharey=sharey, squeeze=False).flat)
    for axes, heading in zip(panels, headings):
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    for unused in panels[len(headings):]:
        unused.remove()
    return figure, panels[:len(headings)]


def _legend(figure: Figure, drawn: Mapping[str, Line2D]) -> None:
    """Name the lines below the panels, in as many columns as the width has room for."""
    columns = int(CHARACTERS * figure.get_figwidth() / (max(map(len, drawn)) + 8))  # 8: the line before a name
    figure.legend(drawn.values(), drawn, loc='outside lower center', ncols=max(columns, 1), frameon=False, fontsize=9)


def render(figure: Figure) -> dict[str, bytes]:
    """Return a figure as files, {'png': ..., 'svg': ...}, the same bytes for the same figure."""
    files = {}
    with matplotlib.rc_context({'svg.hashsalt': 'cawr'}):
        for kind, options in KINDS.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **options)
            files[kind] = buffer.getvalue()
    return files

"""The report's figures: matplotlib's Figure objects, without a window or a global state."""
from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ding_cawr.compare.statistics import Estimate, Spread

#: Okabe and Ito's colours for readers of any colour vision, without their yellow, which is lost on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
LINES = ('-', '--', '-.', ':', (0, (1, 3)))
MARKERS = 'osD^vPX*<>'
#: Lines that one panel can hold and still be read.
LINES_A_PANEL = 10
PANEL = (8.0, 4.2)


@dataclass(frozen=True)
class Curve:
    """The evaluations of a policy on a dataset, averaged over seeds; lists have an entry an evaluation."""
    label: str
    iterations: list[int]
    seconds: list[float]
    scores: list[Spread]


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour, line and marker for each label: in the order of the labels colours change first."""
    looks = [dict(color=colour, linestyle=line) for line, colour in product(LINES, COLOURS)]
    return {
        label: dict(looks[number % len(looks)], marker=MARKERS[number % len(MARKERS)])
        for number, label in enumerate(labels)
    }


def curves(
    title: str, panels: Mapping[str, Sequence[Curve]], looks: Mapping[str, dict], x: str, unit: str,
    behaviour: float | None,
) -> Figure:
    """Scores against 'iterations' or 'seconds' of training: a line a policy, mean over seeds, a band of ± 1 std.

    Arguments:
        panels: {heading: curves}, with a common y axis.
        looks: what ``styles`` gives for the labels.
        unit: of the y axis.
        behaviour: mean of the dataset's episodes, a dashed line; None where it is unknown.
    """
    figure, all_axes = _panels(len(panels), title, columns=2)
    for axes, (heading, lines) in zip(all_axes, panels.items()):
        for line in lines:
            _curve(axes, line, getattr(line, x), looks[line.label])
        if behaviour is not None:
            axes.axhline(behaviour, color='0.45', linestyle=(0, (6, 3)), linewidth=1.2, label="dataset's episodes")
        axes.set_xlabel({'iterations': 'training iteration', 'seconds': 'training time, s (without evaluations)'}[x])
        axes.set_xlim(left=0)
        axes.locator_params(axis='x', nbins=6)
        if x == 'iterations':
            axes.xaxis.set_major_formatter('{x:,.0f}')
        _finish(axes, heading if len(panels) > 1 else '')
    figure.supylabel(unit, fontsize=10)
    return figure


def _curve(axes: Axes, curve: Curve, at: Sequence[float], look: dict) -> None:
    means = [score.mean for score in curve.scores]
    every = max(1, len(means) // 12)
    axes.plot(at, means, label=curve.label, linewidth=1.6, markersize=4, markevery=every, **look)
    if all(score.std is not None for score in curve.scores):
        low, high = ([score.mean + sign * score.std for score in curve.scores] for sign in (-1, 1))
        axes.fill_between(at, low, high, color=look['color'], alpha=0.12, linewidth=0)


def intervals(title: str, estimates: Mapping[str, Mapping[str, Estimate]], looks: Mapping[str, dict]) -> Figure:
    """Aggregates of normalized scores, {protocol: {label: estimate}}: a panel a protocol, a row a policy with its 95%
    interval."""
    labels = list(next(iter(estimates.values())))
    figure, all_axes = _panels(len(estimates), title, (4.2, 1.6 + 0.32 * len(labels)))
    for axes, (protocol, row) in zip(all_axes, estimates.items()):
        for place, (label, estimate) in enumerate(row.items()):
            colour = looks[label]['color']
            if estimate.low is not None:
                axes.hlines(place, estimate.low, estimate.high, color=colour, linewidth=7, alpha=0.35)
            axes.plot(estimate.value, place, marker=looks[label]['marker'], color=colour, markersize=7)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel('normalized score')
        _finish(axes, protocol, legend=False)
    return figure


def corruption(
    title: str, scores: Mapping[str, Mapping[str, Mapping[float, Spread]]], looks: Mapping[str, dict], unit: str
) -> Figure:
    """Scores against the share of corrupted rows, {protocol: {label: {rate: score}}}: a panel a protocol, a line a
    policy, mean over seeds, bars of ± 1 std."""
    figure, all_axes = _panels(len(scores), title, (4.6, 4.4))
    for axes, (protocol, lines) in zip(all_axes, scores.items()):
        for label, points in lines.items():
            rates = sorted(points)
            means = [points[rate].mean for rate in rates]
            bars = None if any(points[rate].std is None for rate in rates) else [points[rate].std for rate in rates]
            axes.errorbar(rates, means, bars, label=label, linewidth=1.6, markersize=5, elinewidth=0.8, capsize=2,
                          **looks[label])
        axes.set_xlabel('share of corrupted rows')
        _finish(axes, protocol, legend=False)
    figure.supylabel(unit, fontsize=10)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc='outside right center', frameon=False, fontsize=9)
    return figure


def _panels(
    number: int, title: str, size: tuple[float, float] = PANEL, columns: int = 3
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels that share their y axis, so many in a row."""
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
    """A figure as files, {'png': ..., 'svg': ...}, the same bytes for the same figure."""
    files = {}
    with matplotlib.rc_context({'svg.hashsalt': 'cawr'}):
        for kind, options in (('png', dict(dpi=120)), ('svg', dict(metadata={'Date': None}))):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **options)
            files[kind] = buffer.getvalue()
    return files

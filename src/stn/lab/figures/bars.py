"""Two charts of the start page: speed over the whole benchmark, and errors without and with the layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stn.lab.figures.style import COLORS, WIDTH

Row = Mapping[str, Any]
TASKS = {"forward": "forward", "theta": "with theta's gradient", "both": "with both gradients"}

TICKS = (0.25, 0.5, 1, 2, 3, 4, 6, 8, 12)


class Theme(NamedTuple):
    """Colors of text and lines on a transparent background."""

    suffix: str
    ink: str
    faint: str


LIGHT, DARK = Theme("", "#333333", "#33333340"), Theme("-dark", "#dddddd", "#dddddd40")


class Comparison(NamedTuple):
    """Errors in percent of the same network without and with the layer, means over seeds."""

    name: str
    without: float
    with_layer: float


def speedups(rows: Iterable[Row], rivals: Sequence[str], threads: int = 1) -> dict[str, dict[str, list[float]]]:
    """Return suite -> task -> speedup over the fastest rival, one per case. Cases without a rival are left out."""
    cases: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        if "median_ms" in row and row["threads"] == threads:
            cases.setdefault((row["suite"], row["task"], row["case"]), {})[row["contender"]] = row["median_ms"]
    found: dict[str, dict[str, list[float]]] = {}
    for (suite, task, _), times in cases.items():
        theirs = [times[name] for name in rivals if name in times]
        if theirs and "stn" in times:
            found.setdefault(suite, {}).setdefault(task, []).append(min(theirs) / times["stn"])
    return found


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def speed(found: Mapping[str, Mapping[str, Sequence[float]]], theme: Theme = LIGHT) -> Figure:
    """Draw bars for the geometric means over the cases of a suite, and dots for the cases."""
    figure = Figure(figsize=(WIDTH, 0.55 + 0.3 * sum(map(len, found.values())) + 0.12 * len(found)), layout="constrained")
    ax = figure.subplots()
    labels, place = {}, 0.0
    for suite, tasks in found.items():
        first = place
        for task in (task for task in TASKS if task in tasks):
            values, color = tasks[task], COLORS[list(TASKS).index(task)]
            mean = geometric_mean(values)
            ax.barh(place, mean - 1, left=1, height=0.8, color=color, alpha=0.55, label=TASKS[task])
            ax.plot(values, np.full(len(values), place), "o", color=color, markersize=4)
            ax.annotate(f"{mean:.1f}x", (max(values), place), (7, 0), "data", "offset points", va="center", color=theme.ink)
            place += 1
        labels[(first + place - 1) / 2] = suite.replace("_", " ")
        place += 0.4
    ax.axvline(1, color=theme.ink, linewidth=1)
    ax.set(xscale="log", xlabel="times as fast as the fastest way in PyTorch (bar: geometric mean; dots: cases)")
    ax.set_xticks(TICKS, [f"{tick:g}x" for tick in TICKS])
    ax.minorticks_off()
    ax.set_yticks([*labels], [*labels.values()])
    ax.invert_yaxis()
    known = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(known.values(), known.keys(), frameon=False, labelcolor=theme.ink, loc="lower left")
    _themed(figure, ax, theme)
    return figure


def accuracy(comparisons: Sequence[Comparison], theme: Theme = LIGHT) -> Figure:
    """Draw a pair of bars per comparison, in percent."""
    figure = Figure(figsize=(WIDTH, 0.7 + 0.55 * len(comparisons)), layout="constrained")
    ax, at = figure.subplots(), np.arange(len(comparisons))
    sides = (("without the layer", -0.2, "#999999"), ("with it", 0.2, COLORS[2]))
    for (label, shift, color), values in zip(sides, zip(*(c[1:] for c in comparisons), strict=True), strict=True):
        ax.barh(at + shift, values, height=0.38, color=color, label=label)
        for place, value in zip(at + shift, values, strict=True):
            ax.annotate(f"{value:.2f}", (value, place), (5, 0), "data", "offset points", va="center", color=theme.ink)
    ax.set_yticks(at, [c.name for c in comparisons])
    ax.set(xlabel="test error (%)", xlim=(0, 1.12 * max(max(c[1:]) for c in comparisons)))
    ax.invert_yaxis()
    ax.legend(frameon=False, labelcolor=theme.ink, loc="upper right")
    _themed(figure, ax, theme)
    return figure


def _themed(figure: Figure, ax: Axes, theme: Theme) -> None:
    figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    ax.grid(axis="x", color=theme.faint)
    ax.set_axisbelow(True)
    ax.tick_params(colors=theme.ink, length=0)
    ax.xaxis.label.set_color(theme.ink)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)

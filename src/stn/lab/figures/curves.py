"""Errors by epoch, of one run and of several runs with their range over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stn.lab.experiments.folder import Row
from stn.lab.figures.style import COLORS, WIDTH, color

MARKERS = "osD^vP*"
TICKS = (0, 1, 2, 5, 10, 20, 50, 100)


def curves(rows: Sequence[Row], name: str) -> Figure:
    """Draw training and validation error by epoch, with the test error as a line."""
    valid = [row for row in rows if row["split"] == "valid"]
    test = [row["error_percent"] for row in rows if row["split"] == "test"]
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    ax = figure.subplots()
    epochs = [row["epoch"] for row in valid]
    ax.plot(epochs, [row["train_error_percent"] for row in valid], "o-", color=COLORS[1], label="training")
    ax.plot(epochs, [row["error_percent"] for row in valid], "s-", color=COLORS[0], label="validation")
    if test:
        mean = sum(test) / len(test)
        ax.axhline(mean, color="#333333", linestyle="--", label=f"test, {mean:.2f} % over {len(test)} draws")
    ax.set_title(name)
    _error_axes(ax)
    return figure


def errors(groups: Mapping[str, Sequence[Sequence[Row]]]) -> Figure:
    """Draw the validation error by epoch of groups of runs that differ only in their seed: the mean and the range.

    The test errors of each group are at the right, the mean over the draws of every run.
    """
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    ax, beside = figure.subplots(1, 2, width_ratios=(4, 1), sharey=True)
    for k, (name, runs) in enumerate(groups.items()):
        epochs, values = by_epoch(runs)
        seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
        marker = MARKERS[k % len(MARKERS)]
        ax.plot(epochs, values.mean(axis=0), f"{marker}-", color=color(k), label=f"{name}{seeds}")
        ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color(k), alpha=0.25, linewidth=0)
        tests = [np.mean([row["error_percent"] for row in rows if row["split"] == "test"]) for rows in runs if _tested(rows)]
        beside.plot([k] * len(tests), tests, marker, color=color(k), alpha=0.5)
        if tests:
            beside.plot([k - 0.3, k + 0.3], [np.mean(tests)] * 2, "-", color=color(k), linewidth=2)
            beside.annotate(f"{np.mean(tests):.2f}", (k, max(tests)), (0, 6), textcoords="offset points", ha="center")
    ax.set_title("validation, mean and range over seeds")
    _error_axes(ax)
    beside.set(title="test", xticks=[], xlim=(-0.7, len(groups) - 0.3))
    beside.grid(alpha=0.3)
    return figure


def by_epoch(runs: Sequence[Sequence[Row]]) -> tuple[list[int], np.ndarray]:
    """Return the epochs that all runs have completed, and their validation errors: (runs, epochs)."""
    found = [{row["epoch"]: row["error_percent"] for row in rows if row["split"] == "valid"} for rows in runs]
    epochs = sorted(set.intersection(*map(set, found)))
    return epochs, np.array([[one[epoch] for epoch in epochs] for one in found]).reshape(len(found), -1)


def _tested(rows: Sequence[Row]) -> bool:
    return any(row["split"] == "test" for row in rows)


def _error_axes(ax: Axes) -> None:
    ax.set(xlabel="epoch", ylabel="error (%)", yscale="symlog", ylim=(0, 100))
    ax.set_yticks(TICKS, [str(tick) for tick in TICKS])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()

"""Turn rows into the charts of the page: lines in a box, and marks on its axes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from stn.lab.experiments.folder import Row

LEFT, RIGHT, TOP, BOTTOM = 44, 392, 12, 170  # of the box, in units of the 400 x 200 drawing
METRICS = {  # key of a validation row: title, and whether its axis is logarithmic
    "error_percent": ("validation error, %", True),
    "train_error_percent": ("training error, %", True),
    "loss": ("validation loss", True),
    "theta_gradient": ("norm of theta's gradient", True),
    "off_image_share": ("share of the look outside the image", False),
    "mean_scale": ("scale of the look", False),
    "fold_share": ("folded share of the look", False),
}


class Line(NamedTuple):
    run: int
    points: str  # of an SVG polyline
    dots: list[tuple[float, float]]
    values: str  # JSON [[epoch, value], ..]


class Chart(NamedTuple):
    title: str
    lines: list[Line]
    across: list[tuple[float, str]]  # position and label of marks
    up: list[tuple[float, str]]


def charts(runs: Sequence[Sequence[Row]]) -> list[Chart]:
    """Return one chart for each quantity that a run has."""
    made = (_chart(key, *METRICS[key], runs) for key in METRICS)
    return [chart for chart in made if chart]


def _chart(key: str, title: str, powers: bool, runs: Sequence[Sequence[Row]]) -> Chart | None:
    found = [[(row["epoch"], row[key]) for row in rows if row["split"] == "valid" and _finite(row, key)] for rows in runs]
    values = [value for line in found for _, value in line]
    if not values:
        return None
    powers = powers and max(values) > 0
    low, high, marks = _powers(values) if powers else _evenly(values)
    last = max(epoch for line in found for epoch, _ in line)

    def x(epoch: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (epoch / last), 1)

    def y(value: float) -> float:
        share = (_log(value, low) - math.log10(low)) / (math.log10(high / low)) if powers else (value - low) / (high - low)
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)

    lines = []
    for run, line in enumerate(found):
        dots = [(x(epoch), y(value)) for epoch, value in line]
        lines.append(Line(run, " ".join(f"{a},{b}" for a, b in dots), dots, json.dumps(line)))
    step = max(1, math.ceil(last / 6))
    across = [(x(epoch), str(epoch)) for epoch in range(0, last + 1, step)]
    up = [(y(mark), f"{mark:g}") for mark in marks]
    if powers and min(values) <= 0:
        up[0] = (BOTTOM, "0")
    return Chart(title, lines, across, up)


def _finite(row: Row, key: str) -> bool:
    return key in row and math.isfinite(row[key])


def _log(value: float, low: float) -> float:
    return math.log10(max(value, low))


def _powers(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return powers of ten around all positive values, and marks at each, with few of them also at 2 and 5 times each."""
    positive = [value for value in values if value > 0]
    first = math.floor(math.log10(min(positive)) + 1e-9)
    if len(positive) < len(values):
        first -= 1  # zeros lie on the lower edge
    last = max(first + 1, math.ceil(math.log10(max(positive)) - 1e-9))
    each = (1, 2, 5) if last - first <= 2 else (1,)
    marks = [k * 10.0**power for power in range(first, last) for k in each]
    return 10.0**first, 10.0**last, [*marks, 10.0**last]


def _evenly(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the range from 0 to a round number above all values, and four to six marks."""
    most = max(values) if max(values) > 0 else 1.0
    unit = 10.0 ** math.floor(math.log10(most))
    step = next(k * unit for k in (0.2, 0.5, 1, 2) if k * unit * 5 >= most)
    count = math.ceil(most / step - 1e-9)
    low = min(0.0, step * math.floor(min(values) / step))
    return low, step * count, [step * i for i in range(round(low / step), count + 1)]

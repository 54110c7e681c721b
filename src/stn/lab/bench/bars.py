"""The bars that the kernels for GPUs must reach, and the page of `stn bench --device cuda --suites all`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from stn.lab.bench.device import COPY
from stn.lab.bench.markdown import markdown
from stn.lab.bench.on_device import IN_ORDER, suites

Row = dict[str, Any]
Values = Callable[[Sequence[Row]], list[float]]


class Bar(NamedTuple):
    text: str
    values: Values  # of the cases that count
    summary: Callable[[list[float]], float]
    bound: float
    above: bool = True  # the bound is a lower bound

    def verdict(self, rows: Sequence[Row]) -> tuple[str, str]:
        """Return the measured number, and whether it reaches the bound."""
        found = self.values(rows)
        if not found:
            return "", "not measured"
        value = self.summary(found)
        met = value >= self.bound if self.above else value <= self.bound
        return f"{value:.2f} ({len(found)} cases)", "met" if met else "missed"


def mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def ratios(suite: str, rival: str, *tasks: str) -> Values:
    """Return the times of another contender divided by those of stn, in each case that both have."""

    def values(rows: Sequence[Row]) -> list[float]:
        times: dict[tuple[str, str], dict[str, float]] = {}
        for row in rows:
            if row["suite"] == suite and "median_ms" in row and (not tasks or row["task"] in tasks):
                times.setdefault((row["case"], row["task"]), {})[row["contender"]] = row["median_ms"]
        return [found[rival] / found["stn"] for found in times.values() if {rival, "stn"} <= found.keys()]

    return values


def units(rows: Sequence[Row]) -> list[float]:
    return [row["units"] for row in rows if "units" in row]


BARS = (
    Bar("forward over torch eager, geometric mean", ratios("affine", "torch", "forward"), mean, 2.0),
    Bar("forward and backward over torch eager, geometric mean", ratios("affine", "torch", "theta", "both"), mean, 2.5),
    Bar("smallest speedup over torch eager", ratios("affine", "torch"), min, 1.0),
    Bar("smallest speedup over torch eager, small images", ratios("small", "torch"), min, 1.0),
    Bar("over torch.compile, geometric mean", ratios("compiled", "torch.compile"), mean, 1.2),
    Bar("share of copy bandwidth, 3 to 64 channels at 512 pixels and more, smallest", ratios("bandwidth", COPY), min, 0.7),
    Bar(
        "deterministic backward relative to atomics, largest ratio of times",
        ratios("deterministic", IN_ORDER),
        max,
        2.0,
        above=False,
    ),
    Bar("error of float16 in units in the last place, largest", units, max, 1.0, above=False),
)


def page(header: Row, rows: Sequence[Row]) -> str:
    """Return the page: verdicts, errors, then the tables of the rows."""
    return "\n".join(
        ["# The CUDA kernels on a device", "", *verdicts(rows), *errors(rows), *uses(rows), "", markdown(header, rows)]
    )


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    yield from ("| bar | bound | measured | verdict |", "|---|---:|---:|---|")
    for bar in BARS:
        measured, verdict = bar.verdict(rows)
        yield f"| {bar.text} | {'at least' if bar.above else 'at most'} {bar.bound:g} | {measured} | {verdict} |"


def errors(rows: Sequence[Row]) -> Iterator[str]:
    """Yield one line for each case without a result."""
    failed = [row for row in rows if "error" in row]
    if failed:
        yield from ("", "## Not measured", "", "| suite | case | task | contender | reason |", "|---|---|---|---|---|")
        for suite in suites():
            for row in (row for row in failed if row["suite"] == suite):
                place = suite.replace("_", " "), row["case"], row["task"], row.get("contender", "")
                yield f"| {' | '.join(place)} | {row['error'].replace('|', '/')} |"


def uses(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if "empty_s" in row:
            yield from ("", f"First use, {row['case']}: {row['empty_s']:.2f} s with an empty cache of compiled kernels, ")
            yield f"{row['full_s']:.2f} s with a full one."

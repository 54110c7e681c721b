"""Turn rows into one table per suite. Ratios are against the fastest way of torch; slower cases are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from stn.lab.bench.device import COPY, HOST_COPY
from stn.lab.bench.first_use import SUITE
from stn.lab.bench.quality import prices

Row = dict[str, Any]
TORCH = ("torch", "torch.compile", "torch NCHW")
LEGEND = (
    "Tasks: `forward`; `theta`, forward and backward with the gradient in theta; `both`, with the gradients in theta and in "
    "the image. Times are medians over rounds, ± the interquartile range. A speedup is the time of the fastest way of torch "
    "divided by the time of stn; below 1, stn is slower. The copy moves as many bytes as the call must at least read and "
    "write; the share of its bandwidth is its time divided by the time of stn."
)


def markdown(header: Row, rows: Sequence[Row]) -> str:
    lines = [
        f"## Benchmark of {header['date']}",
        "",
        *(f"- {key}: {value}" for key, value in header.items() if key != "date"),
        "",
        LEGEND,
    ]
    timed = [row for row in rows if "median_ms" in row]
    for suite, threads in dict.fromkeys((row["suite"], row["threads"]) for row in timed):
        form = prices if suite == "quality" else table
        mine = [row for row in timed if row["suite"] == suite and row["threads"] == threads]
        place = mine[0].get("device", f"{threads} thread{'s' if threads > 1 else ''}")
        lines += ["", f"### {suite.replace('_', ' ')}, {place}", "", *form(mine)]
    return "\n".join([*lines, *scaling(timed), *bandwidth(timed), *accuracy(rows), *costs(rows), *first_uses(rows)]) + "\n"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a table: medians and interquartile ranges in milliseconds, then the speedup over the best of torch."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    rivals = [name for name in names if name.startswith("OpenCV")]
    copies = [name for name in names if name in (COPY, HOST_COPY)]
    more = [*(["speedup over OpenCV"] if rivals else []), *(["share of copy"] if copies else [])]
    columns = [*(f"{name} ms" for name in names), "speedup over torch", *more]
    yield f"| case | task | {' | '.join(columns)} |"
    yield "|---|---|" + "---:|" * len(columns)
    ratios: dict[str, list[float]] = {}
    for case, task in dict.fromkeys((row["case"], row["task"]) for row in rows):
        found = {row["contender"]: row for row in rows if (row["case"], row["task"]) == (case, task)}
        cells = [f"{found[n]['median_ms']:.2f} ± {found[n]['spread_ms']:.2f}" if n in found else "" for n in names]
        ratio = faster(found, TORCH)
        if ratio:
            ratios.setdefault(task, []).append(ratio)
        cells.append(f"{ratio:.2f}" if ratio else "")
        if rivals:
            cells.append(f"{faster(found, rivals):.2f}")
        if copies:
            cells.append(f"{100 * share:.0f} %" if (share := faster(found, copies)) else "")
        yield f"| {case} | {task} | {' | '.join(cells)} |"
    for task, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        summary = f"{mean:.2f} (smallest {min(values):.2f})"
        yield f"| geometric mean | {task} | {'| ' * len(names)} {summary} |{' |' * len(more)}"


def faster(found: dict[str, Row], names: Sequence[str]) -> float:
    """Return the least time of these contenders divided by ours; 0 if none was measured."""
    times = [found[name]["median_ms"] for name in names if name in found]
    return float(min(times) / found["stn"]["median_ms"]) if times else 0.0


def scaling(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table that compares several threads with one, for a single image."""
    mine = {(r["case"], r["task"], r["threads"]): r["median_ms"] for r in rows if r["contender"] == "stn"}
    counts = sorted({threads for _, _, threads in mine})
    if len(counts) > 1:
        yield from (
            "",
            f"### Speedup of stn from {counts[0]} to {counts[-1]} threads, one image",
            "",
            "| case | task | speedup |",
            "|---|---|---:|",
        )
        for case, task, threads in mine:
            if threads == counts[0] and case.startswith("1x") and (case, task, counts[-1]) in mine:
                yield f"| {case} | {task} | {mine[case, task, threads] / mine[case, task, counts[-1]]:.2f} |"


def bandwidth(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table of memory bandwidth on a device, beside a copy of as many bytes."""
    found = {(r["case"], r["task"], r["contender"]): r["gigabytes_per_second"] for r in rows if "gigabytes_per_second" in r}
    mine = [key for key in found if key[2] == "stn"]
    if mine:
        yield from ("", "### Memory bandwidth: bytes that a call must read and write, per second", "")
        yield from (f"| case | task | stn, GB/s | {COPY}, GB/s | share |", "|---|---|---:|---:|---:|")
        for case, task, name in mine:
            ours, copy = found[case, task, name], found[case, task, COPY]
            yield f"| {case} | {task} | {ours:.0f} | {copy:.0f} | {100 * ours / copy:.0f} % |"


def accuracy(rows: Sequence[Row]) -> Iterator[str]:
    errors = {row["case"]: row for row in rows if row.get("task") == "accuracy"}
    if errors:
        columns = ("stn_value", "torch_value", "stn_gradient", "torch_gradient")
        yield from ("", "### Accuracy: largest error of float32 against float64, white noise", "")
        yield "| case | stn, value | torch, value | stn, gradient in theta | torch, gradient in theta |"
        yield "|---|---:|---:|---:|---:|"
        for case, row in errors.items():
            yield f"| {case} | {' | '.join(f'{row[column]:.1e}' for column in columns)} |"


def costs(rows: Sequence[Row]) -> Iterator[str]:
    paid = [row for row in rows if row["suite"] == "costs"]
    if paid:
        yield from ("", "### One-time costs, seconds", "")
        for row in paid:
            yield f"- {row['case']}: " + ", ".join(f"{k} {row[k]:.2f}" for k in row if k not in ("suite", "case"))
    memory = [row for row in rows if row["suite"] == "memory"]
    if memory:
        yield from ("", "### Peak temporary memory, as a share of input and output", "", "| case | share |", "|---|---:|")
        for row in memory:
            yield f"| {row['case']} | {100 * row['share']:.1f} % |"


def first_uses(rows: Sequence[Row]) -> Iterator[str]:
    mine = [row for row in rows if row["suite"] == SUITE]
    if mine:
        yield from ("", "### First use in a process, seconds beyond `import torch`", "")
        yield from ("| use | empty cache | full cache |", "|---|---:|---:|")
        for row in mine:
            yield f"| {row['case']} | {row['empty_s']:.2f} | {row['full_s']:.2f} |"

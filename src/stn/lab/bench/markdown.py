"""Rows -> one readable table for each suite. Ratios are against the faster of torch's ways; losses stay in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from stn.lab.bench.device import COPY
from stn.lab.bench.quality import prices

Row = dict[str, Any]
TORCH = ("torch", "torch.compile", "torch NCHW")


def markdown(header: Row, rows: Sequence[Row]) -> str:
    lines = [
        f"# Benchmark of {header['date']}",
        "",
        *(f"- {key}: {value}" for key, value in header.items() if key != "date"),
    ]
    timed = [row for row in rows if "median_ms" in row]
    for suite, threads in dict.fromkeys((row["suite"], row["threads"]) for row in timed):
        form = prices if suite == "quality" else table
        mine = [row for row in timed if row["suite"] == suite and row["threads"] == threads]
        place = mine[0].get("device", f"{threads} thread{'s' if threads > 1 else ''}")
        lines += ["", f"## {suite.replace('_', ' ')}, {place}", "", *form(mine)]
    return "\n".join([*lines, *scaling(timed), *bandwidth(timed), *accuracy(rows), *costs(rows)]) + "\n"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Milliseconds, median and spread between quartiles; then how many times faster ours is than the best of torch."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    rivals = [name for name in names if name.startswith("OpenCV")]
    columns = [*(f"{name} ms" for name in names), "ours against torch", *(["against OpenCV"] if rivals else [])]
    yield f"| case | task | {' | '.join(columns)} |"
    yield "|---|---|" + "---:|" * (len(names) + 1 + bool(rivals))
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
        yield f"| {case} | {task} | {' | '.join(cells)} |"
    for task, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        yield f"| geometric mean | {task} | {'| ' * len(names)} {mean:.2f} (least {min(values):.2f}) |{' |' * bool(rivals)}"


def faster(found: dict[str, Row], names: Sequence[str]) -> float:
    """The least time of these contenders over ours; 0 if none was measured."""
    times = [found[name]["median_ms"] for name in names if name in found]
    return float(min(times) / found["stn"]["median_ms"]) if times else 0.0


def scaling(rows: Sequence[Row]) -> Iterator[str]:
    """One image on several threads against one."""
    mine = {(r["case"], r["task"], r["threads"]): r["median_ms"] for r in rows if r["contender"] == "stn"}
    counts = sorted({threads for _, _, threads in mine})
    if len(counts) > 1:
        yield from (
            "",
            f"## {counts[-1]} threads against {counts[0]}: our own time",
            "",
            "| case | task | ratio |",
            "|---|---|---:|",
        )
        for case, task, threads in mine:
            if threads == counts[0] and case.startswith("1x") and (case, task, counts[-1]) in mine:
                yield f"| {case} | {task} | {mine[case, task, threads] / mine[case, task, counts[-1]]:.2f} |"


def bandwidth(rows: Sequence[Row]) -> Iterator[str]:
    """On a device: bytes that a call must move, a second, beside a copy of as many."""
    found = {(r["case"], r["task"], r["contender"]): r["gigabytes_per_second"] for r in rows if "gigabytes_per_second" in r}
    mine = [key for key in found if key[2] == "stn"]
    if mine:
        yield from ("", "## Bytes that a call must move, a second", "")
        yield from (f"| case | task | ours, GB/s | {COPY}, GB/s | share |", "|---|---|---:|---:|---:|")
        for case, task, name in mine:
            ours, copy = found[case, task, name], found[case, task, COPY]
            yield f"| {case} | {task} | {ours:.0f} | {copy:.0f} | {100 * ours / copy:.0f} % |"


def accuracy(rows: Sequence[Row]) -> Iterator[str]:
    errors = {row["case"]: row for row in rows if row.get("task") == "accuracy"}
    if errors:
        columns = ("stn_value", "torch_value", "stn_gradient", "torch_gradient")
        yield from ("", "## Accuracy: float32 against float64, white noise", "")
        yield "| case | our value | torch's value | our gradient in theta | torch's gradient in theta |"
        yield "|---|---:|---:|---:|---:|"
        for case, row in errors.items():
            yield f"| {case} | {' | '.join(f'{row[column]:.1e}' for column in columns)} |"


def costs(rows: Sequence[Row]) -> Iterator[str]:
    paid = [row for row in rows if row["suite"] == "costs"]
    if paid:
        yield from ("", "## Costs beside the call, seconds", "")
        for row in paid:
            yield f"- {row['case']}: " + ", ".join(f"{k} {row[k]:.2f}" for k in row if k not in ("suite", "case"))
    memory = [row for row in rows if row["suite"] == "memory"]
    if memory:
        yield from ("", "## Peak memory beyond input and output, as a share of them", "", "| case | share |", "|---|---:|")
        for row in memory:
            yield f"| {row['case']} | {100 * row['share']:.1f} % |"

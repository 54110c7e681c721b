"""What the machine code of the CUDA kernels says about their speed, without a GPU.

    python -m stn.lab.studies.gpu_static [--all] [--out benchmarks/results/gpu_static]

It compiles each kernel for sm_80 (A100), sm_90 (H100, H200) and sm_120 (RTX 5090), and reads registers, stack, shared memory
and instructions from the machine code. Then it predicts the time of cases of the benchmark: the largest of bytes over
bandwidth, and of the instructions over the rate of their unit. Rates are those of the vendor's data sheets, at boost clock.
A prediction is a lower bound of the time on the device: it has no latency, no cache misses, no atomics and no launches. The
RTX 4090 runs the code of sm_80. The study takes four minutes; Triton keeps compiled kernels on disk.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from stn.io.files import write_rows
from stn.lab.bench.cards import CARDS, Card, occupancy, per_pixel, total
from stn.lab.bench.cases import SUITES, Case, traffic
from stn.lab.bench.compiled import LATTICES, NVIDIA, Launch, Target, code, launches
from stn.lab.bench.machine_code import Code, read

Row = dict[str, Any]
SUMS = ("add_up", "add_rows")  # kernels that have no pixels
IMAGES, FEATURES, VOLUMES = (16, 3, 512, 512), (8, 64, 128, 128), (2, 1, 96, 96, 96)
HALF, DOUBLE = torch.float16, torch.float64
KERNELS = (
    *(Case("static", IMAGES, "both", dtype=dtype) for dtype in (torch.float32, HALF, DOUBLE)),
    *(Case("static", IMAGES, "both", rule) for rule in ("projective", "thin_plate", "grid")),
    *(Case("static", IMAGES, "both", family=family) for family in LATTICES),
    Case("static", FEATURES, "both", channels_last=True),
    Case("static", VOLUMES, "both"),
    Case("static", VOLUMES, "both", family="bspline"),
    Case("static", IMAGES, "both", mode="bicubic"),
    Case("static", (64, 1, 28, 28), "both"),
)
BENCHMARK = (
    "affine",
    "small",
    "channels_last",
    "thin_plate",
    "grids",
    "one_image",
)  # suites of which --all predicts each case


@cache
def _read(key: tuple[Any, ...], hold: _Held, target: Target) -> Code:
    return read(code(hold.launch, target))


class _Held:
    """A launch in the key of a cache, where it counts as equal to every other: the rest of the key tells them apart."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


def compiled(launch: Launch, target: Target) -> Code:
    """Return the machine code of a launch, once for launches that differ only in sizes that the code does not know."""
    words = [str(getattr(value, "dtype", value)) for value in launch.arguments]
    return _read((launch.name, tuple(words), str(launch.constants)), _Held(launch), target)


def static_rows() -> Iterator[Row]:
    """Yield a row for each kernel, dtype and target."""
    for target in NVIDIA:
        for case in KERNELS:
            kernels = (launch for launch in launches(case) if launch.name not in SUMS)
            yield from (static_row(case, launch, target) for launch in kernels)
        print(target.name, flush=True)


def static_row(case: Case, launch: Launch, target: Target) -> Row:
    found = compiled(launch, target)
    mine = {kind: n / 1000 for kind, n in per_pixel(found, launch).items()}
    return {
        "target": target.name,
        "kernel": launch.name,
        "case": case.name,
        "registers": found.registers,
        "stack": found.stack,
        "shared": found.shared,
        "occupancy": occupancy(found, target),
        "instructions": mine["all"],
        "float64": mine.get("float64", 0.0),
        "conversions": mine.get("conversion", 0.0),
        "atomics": mine.get("atomic", 0.0),
        "loads": {str(width): n for width, n in sorted(found.widths["load"].items())},
        "stores": {str(width): n for width, n in sorted(found.widths["store"].items())},
        "bytes": sum(width * n for width, n in found.widths["load"].items())
        + sum(w * n for w, n in found.widths["store"].items()),
    }


def predicted_rows(every: bool) -> Iterator[Row]:
    """Yield a row for each case and card. every: also of the benchmark's suites."""
    cases = [replace(case, task=task) for case in KERNELS for task in ("forward", "both")]
    cases += [case for name in BENCHMARK if every for case in SUITES[name]]
    for card in CARDS:
        for case in cases:
            yield {"card": card.name, "suite": case.suite, "case": case.name, "task": case.task, **prediction(card, case)}
        print(card.name, flush=True)


def prediction(card: Card, case: Case) -> Row:
    """Return the least milliseconds of a case, the unit that takes longest, and the time of the memory alone."""
    forward = traffic(replace(case, task="forward"))
    passes = [(launches(case)[:1], forward)]
    if case.task != "forward":
        passes.append((launches(case)[1:], traffic(case) - forward))
    seconds, memory = 0.0, 0.0
    units: list[str] = []
    for found, nbytes in passes:
        work: Counter[str] = Counter()
        for launch in found:
            work += total(compiled(launch, card.target), launch)
        times = card.seconds(work, nbytes)
        unit = max(times, key=times.__getitem__)
        seconds, memory, units = seconds + times[unit], memory + times["memory"], [*units, unit]
    return {"ms": 1e3 * seconds, "memory_ms": 1e3 * memory, "bound_by": units}


def markdown(rows: list[Row], version: str) -> str:
    lines = ["# The machine code of the CUDA kernels", "", (__doc__ or "").split("\n\n")[2].strip(), ""]
    lines += [f"Compiled by triton {version}. No number on this page was measured on a GPU.", "", "## Kernels", ""]
    lines += [
        "Instructions, float64 operations, conversions from and to 64 bits, and atomics are per output pixel, all channels "
        "together. Loads and stores are counted in the machine code, by bytes per thread. Occupancy is the share of the "
        "warps of a processor that its registers allow.",
        "",
        "| target | kernel | case | registers | stack | shared | occupancy | instructions | float64 | conversions | "
        "atomics | loads | stores |",
        "|---|---|---|" + "---:|" * 8 + "---|---|",
    ]
    for row in (row for row in rows if "kernel" in row):
        memory = [", ".join(f"{n} x {width} B" for width, n in row[kind].items()) for kind in ("loads", "stores")]
        numbers = [f"{row[kind]:.0f}" for kind in ("instructions", "float64", "conversions", "atomics")]
        lines.append(
            f"| {row['target']} | {row['kernel']} | {row['case']} | {row['registers']} | {row['stack']} | {row['shared']} | "
            f"{100 * row['occupancy']:.0f} % | {' | '.join(numbers)} | {' | '.join(memory)} |"
        )
    return "\n".join([*lines, *predictions([row for row in rows if "card" in row])]) + "\n"


def predictions(rows: list[Row]) -> Iterator[str]:
    yield from ("", "## Predicted times", "")
    yield "Least milliseconds, the unit that takes longest in each pass, and the share of the bandwidth that this allows."
    yield from ("", "| card | bandwidth, GB/s | float64, operations per clock and processor |", "|---|---:|---:|")
    yield from (f"| {card.name} | {card.gigabytes_per_second:g} | {card.float64} |" for card in CARDS)
    names = [card.name for card in CARDS]
    yield from ("", f"| case | task | {' | '.join(names)} |", "|---|---|" + "---|" * len(names))
    for suite, case, task in dict.fromkeys((row["suite"], row["case"], row["task"]) for row in rows):
        found = {row["card"]: row for row in rows if (row["suite"], row["case"], row["task"]) == (suite, case, task)}
        cells = []
        for name in names:
            row = found[name]
            share = 100 * row["memory_ms"] / row["ms"]
            cells.append(f"{row['ms']:.3g} {', '.join(dict.fromkeys(row['bound_by']))}, {share:.0f} %")
        yield f"| {case} | {task} | {' | '.join(cells)} |"


def main(out: Path, every: bool) -> None:
    import triton

    rows = [*static_rows(), *predicted_rows(every)]
    write_rows(out, {"triton": triton.__version__, "rows": rows}, markdown(rows, triton.__version__))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu_static"), help="without its suffix")
    parser.add_argument(
        "--all", action="store_true", help="also predict each case of the benchmark, which compiles for an hour"
    )
    arguments = parser.parse_args()
    main(arguments.out, arguments.all)

"""The whole benchmark: measure what is missing, keep every row as it comes, write the table."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stn import _check
from stn.bench.cases import SUITES, quick
from stn.bench.costs import costs
from stn.bench.measure import accuracy, describe, measure_case, measure_on_device
from stn.bench.report import markdown
from stn.experiments.folder import write_atomically
from stn.experiments.machine import processor

Row = dict[str, Any]
PACKAGES = {name: name for name in ("torch", "numba", "numpy", "triton", "kornia")}  # name -> module
PACKAGES |= {"torch-stn": "stn", "opencv-python-headless": "cv2"}


def bench(
    out: Path,  # without its suffix: .json and .md are written
    *,
    suites: Sequence[str] = (),
    threads: Sequence[int] = (1, 2),
    device: str = "cpu",
    rounds: int = 11,
    trial: bool = False,
    resume: bool = False,
    progress: Callable[[str], None] = print,
) -> list[Row]:
    """Measure suites (all: none named), each case with each number of threads. Killed, `resume` goes on where it was.

    device: cpu, or cuda, where threads do not matter and what only a processor has (opencv, costs) is left out.

    Raises: InputError for a suite or a device that does not exist, or fewer than two rounds.
    """
    _check.device("device", device)
    _check.unknown("suites", suites, [*SUITES, "costs"])
    _check.at_least("rounds", rounds, 2)
    file = out.with_suffix(".json")
    header, rows = machine(device), []
    if resume and file.is_file():
        kept = json.loads(file.read_text())
        header, rows = kept["machine"], kept["rows"]
    done = {(row["suite"], row["case"], row["task"], row["threads"]) for row in rows if "threads" in row}

    def keep(more: Sequence[Row]) -> None:
        rows.extend(more)
        text = json.dumps({"machine": header, "rows": rows}, indent=1)
        write_atomically(file, lambda stream: stream.write(text.encode()))
        write_atomically(out.with_suffix(".md"), lambda stream: stream.write(markdown(header, rows).encode()))

    on_host = device == "cpu"
    for case in [c for name in suites or SUITES for c in SUITES.get(name, ()) if on_host or name != "opencv"]:
        case = replace(quick(case) if trial else case, device=device)
        for count in threads if on_host else (1,):
            if (*describe(case).values(), count) not in done:
                place = f"{count} thread{'s' if count > 1 else ''}" if on_host else device
                progress(f"{case.suite}: {case.name}, {case.task}, {place}")
                keep(measure_case(case, count, rounds) if on_host else measure_on_device(case, rounds))
        known = [row["case"] for row in rows if row.get("task") == "accuracy"]
        if case.suite == "affine" and case.name not in known:
            keep([accuracy(case)])
    if on_host and (not suites or "costs" in suites) and not any(row["suite"] == "costs" for row in rows):
        progress("costs: import, first call, memory")
        keep(list(costs()))
    return rows


def machine(device: str) -> Row:
    found = {} if device == "cpu" else {"device": f"{device}, {torch.cuda.get_device_name(device)}"}
    names = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module)]
    return {
        "date": datetime.date.today().isoformat(),
        **found,
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
        "torch threads": torch.get_num_threads(),
    }

"""The whole benchmark: measure missing cases, keep every row, write the tables."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stn import _check
from stn.io.files import aside, beside, write_text
from stn.lab import _check as lab_check
from stn.lab.bench.bars import page
from stn.lab.bench.campaign import MISSING, campaign, present
from stn.lab.bench.cases import NAMES, SUITES, quick
from stn.lab.bench.costs import costs
from stn.lab.bench.first_use import SUITE, first_use
from stn.lab.bench.markdown import markdown
from stn.lab.bench.measure import accuracy, describe, measure_case, measure_on_device
from stn.lab.experiments.machine import keep_memory, processor

Row = dict[str, Any]
PACKAGES = {name: name for name in ("torch", "numba", "numpy", "triton", "kornia")}  # name -> module
PACKAGES |= {"torch-stn": "stn", "opencv-python-headless": "cv2"}


ON_HOST = ("opencv", "bytes", "attention")  # beside OpenCV, which runs there, or for kernels of the CPU


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
    """Measure suites (default: all), each case with each number of threads. `resume` continues an interrupted call.

    device: cpu, or cuda, which ignores threads and has no suites opencv, bytes, attention, costs and first_use.

    Raises: InputError for a suite or a device that does not exist, or fewer than two rounds.
    """
    lab_check.device("device", device)
    _check.unknown("suites", suites, NAMES)
    _check.at_least("rounds", rounds, 2)
    for count in threads:
        _check.at_least("threads", count, 1)
    file, document = beside(out, ".json"), beside(out, ".md")
    for path in (file, document):
        _check.writable("out", path)
    header, rows = begun(file, document, resume) or (machine(device), [])
    done = {(row["suite"], row["case"], row["task"], row["threads"]) for row in rows if "threads" in row}

    def keep(more: Sequence[Row]) -> None:
        rows.extend(more)
        text = json.dumps({"machine": header, "rows": rows}, indent=1)
        write_text(file, text)
        write_text(document, markdown(header, rows))

    on_host = device == "cpu"
    if on_host:
        keep_memory()
    for case in [c for name in suites or SUITES for c in SUITES.get(name, ()) if on_host or name not in ON_HOST]:
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
    if on_host and (not suites or SUITE in suites):
        for row in first_use([row["case"] for row in rows if row["suite"] == SUITE], 1 if trial else 5):
            progress(f"{SUITE}: {row['case']}")
            keep([row])
    return rows


def bench_everything(
    out: Path, device: str, *, minutes: float, rounds: int, trial: bool = False, progress: Callable[[str], None] = print
) -> list[Row]:
    """Run all suites of a device, each in its own process, and write rows and page after each row.

    A device that is missing is no error: each row then says so. Raises: InputError for other devices than cuda.
    """
    lab_check.device_name("device", device)
    _check.at_least("rounds", rounds, 2)
    _check.positive("minutes", minutes)
    file, document = beside(out, ".json"), beside(out, ".md")
    for path in (file, document):
        _check.writable("out", path)
    begun(file, document, resume=False)
    header: Row = machine(device) if present(device) else machine("cpu") | {"device": f"{device}, {MISSING}"}
    rows: list[Row] = []
    for row in campaign(device, minutes, rounds=rounds, trial=trial, progress=progress):
        rows.append(row)
        write_text(file, json.dumps({"machine": header, "rows": rows}, indent=1))
        write_text(document, page(header, rows))
    return rows


def begun(file: Path, document: Path, resume: bool) -> tuple[Row, list[Row]] | None:
    """Return the rows to continue with; otherwise rename existing files and print a line."""
    if resume and file.exists():
        with lab_check.reading(file):
            text = file.read_bytes()
        try:
            kept = json.loads(text)
            header, rows = kept["machine"], kept["rows"]
            markdown(header, rows)
            return header, rows
        except Exception as error:  # rows of another form can raise anything
            _check.fail(f"{file} must hold rows of stn bench; reading them raised {type(error).__name__}")
    for path in (file, document):
        if path.exists():
            print(f"stn: {path} is kept as {aside(path)}", file=sys.stderr)
    return None


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

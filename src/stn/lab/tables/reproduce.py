"""Reproduce a table of a paper: train its cells, one row per cell and seed, and continue after an interruption."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stn import _check
from stn.io.files import write_text
from stn.lab.experiments.evaluate import mean_and_spread, mistakes, trained_network
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.machine import arithmetic, keep_memory, machine
from stn.lab.experiments.runs import Run
from stn.lab.experiments.tasks import TASKS
from stn.lab.experiments.train import train
from stn.lab.experiments.workers import begin_work
from stn.lab.networks import num_parameters
from stn.lab.tables.cells import TABLES, Cell, Table
from stn.lab.tables.markdown import markdown
from stn.lab.tables.results import Results

BUDGETS = ("quick", "full")


class Job(NamedTuple):
    """The work of one worker: a cell with one seed."""

    cell: Cell
    budget: str
    folder: Path
    threads: int  # 0: unchanged
    quiet: bool


def reproduce(
    name: str,
    *,
    root: Path | None,
    out: Path,  # without a suffix: rows go to .jsonl, the table to .md
    runs: Path,  # folder of the run folders
    seeds: int = 1,
    budget: str = "full",
    cells: Sequence[str] = (),  # patterns; (): all
    workers: int = 1,
    download: bool = False,
) -> list[Row]:
    """Train the missing cells of a table, and write rows and table after each. Returns all rows.

    Cells with a row of the same settings are kept; interrupted cells continue from their last epoch. Several workers train
    as many cells at once and share the processor cores.

    Raises: InputError, which names the argument, or says which cell failed.
    """
    _check.choice("table", name, TABLES)
    _check.choice("budget", budget, BUDGETS)
    for argument, value in (("seeds", seeds), ("workers", workers)):
        _check.at_least(argument, value, 1)
    table = TABLES[name]
    results = results_of(table, out)
    threads = max(1, torch.get_num_threads() // workers) if workers > 1 else 0
    chosen = [
        Job(cell, budget, runs / cell.run.name, threads, workers > 1)
        for cell in planned(table, root=root, seeds=seeds, budget=budget, patterns=cells, download=download)
    ]
    results.begin()
    rows, console = results.rows(), Console()

    def document(rows: Sequence[Row]) -> str:
        return markdown(name, table, rows, budget, results.picture.name)

    with closing(_trained([job for job in chosen if not _known(job, rows)], workers, console)) as trained:
        for row in trained:
            results.add(row, _key, document)
            paper = "" if row["paper"] is None else f", the paper {row['paper']} %"
            console.print(f"{row['cell']}, seed {row['seed']}: {row['error_percent']:.2f} %{paper}")
    rows = results.rows()
    write_text(results.document, document(rows))
    return rows


def results_of(table: Table, out: Path) -> Results:
    return Results(out, is_row, lambda row: _current(row, table))


NUMBERS = ("error_percent", "draws_spread", "valid_error_percent", "seconds", "images_per_second")
COUNTS = ("seed", "parameters", "step", "threads")
TEXTS = ("cell", "machine", "precision", "torch")


def is_row(row: object) -> bool:
    """Whether it has all values that a document prints of a row."""
    if not isinstance(row, dict) or row.get("budget") not in BUDGETS or not isinstance(row.get("warnings"), list):
        return False
    kinds = [(TEXTS, str), (COUNTS, int), (NUMBERS, int | float), (("run",), dict)]
    if not all(isinstance(row.get(name), kind) for names, kind in kinds for name in names) or "paper" not in row:
        return False
    return row["seed"] >= 0 and {"optimizer", "epochs", "batch_size", "held_out"} <= set(row["run"])


def planned(
    table: Table, *, root: Path | None, seeds: int, budget: str, patterns: Sequence[str] = (), download: bool = False
) -> list[Cell]:
    """Return the chosen cells with their runs, in the order of the patterns: first all with seed 0, then seed 1, ..

    Raises: InputError for a pattern without a match.
    """
    names = [cell.name for cell in table.cells]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            _check.fail(f"cells must be names or patterns among {', '.join(names)}; got {pattern!r}")
    chosen = dict.fromkeys(c for pattern in patterns or ["*"] for c in table.cells if fnmatch(c.name, pattern))
    found = [_planned(cell, table, root, seed, budget) for seed in range(seeds) for cell in chosen]
    return [dataclasses.replace(cell, run=dataclasses.replace(cell.run, download=download)) for cell in found]


def _planned(cell: Cell, table: Table, root: Path | None, seed: int, budget: str) -> Cell:
    epochs = cell.run.epochs if budget == "full" else max(1, cell.run.epochs // table.quick)
    return dataclasses.replace(cell, run=dataclasses.replace(cell.run, root=root, seed=seed, epochs=epochs))


def _trained(jobs: Sequence[Job], workers: int, console: Console) -> Generator[Row, None, None]:
    if workers == 1 or not jobs:
        yield from map(cell_row, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork does not work with OpenMP
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    strangers = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin_work)
    with pool, Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"epochs of {len(jobs)} cells", total=sum(job.cell.run.epochs for job in jobs))
        waiting: set[Future[Row]] = set()
        complete = False
        try:
            waiting.update(_submitted(job, pool) for job in jobs)
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
                bar.update(task, completed=sum(map(_epochs_done, jobs)))
            complete = True
        except BrokenProcessPool:
            _check.fail("a worker process was killed, perhaps because memory ran out; the same command continues from there")
        finally:  # also after Ctrl-C: a broken pool may wait forever for a worker that is starting
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children() if not complete else []:  # their results are in their folders
                if worker not in strangers:
                    worker.terminate()


def _submitted(job: Job, pool: ProcessPoolExecutor) -> Future[Row]:
    """Submit a job, for which a worker may start. When another worker dies at this moment, the pool closes its pipes."""
    try:
        return pool.submit(cell_row, job)
    except (OSError, ValueError) as reason:
        if isinstance(reason, OSError) and reason.errno not in (None, errno.EBADF):
            raise
        raise BrokenProcessPool("a worker died while another one started") from reason


def _epochs_done(job: Job) -> int:
    return sum(row["split"] == "valid" for row in RunFolder(job.folder).rows())


def cell_row(job: Job) -> Row:
    """Train a cell, or the rest of it, and return its row."""
    keep_memory()
    if job.threads:
        torch.set_num_threads(job.threads)
    cell, folder = job.cell, RunFolder(job.folder)
    try:
        rows = train(cell.run, folder, resume=True, quiet=job.quiet)
    except _check.InputError as reason:
        _check.fail(f"cell {cell.name}, seed {cell.run.seed}: {reason}")
    valid = [row for row in rows if row["split"] == "valid"]
    mean, spread = mean_and_spread(rows)
    last = {key: value for key, value in valid[-1].items() if key not in ("epoch", "split", "loss", "error_percent")}
    measured = {
        "error_percent": round(mean, 4),
        "draws_spread": round(spread, 4),
        "valid_error_percent": valid[-1]["error_percent"],
        "parameters": num_parameters(trained_network(folder)),
        "warnings": [row["warning"] for row in valid if "warning" in row],
    }
    if "both_found" in last:  # a test result, like the error; other diagnostics are from the last epoch
        last["both_found"] = round(mean_and_spread(rows, "both_found")[0], 5)
    if TASKS[cell.run.distortion].names:
        measured |= mistakes(folder)
    precision = arithmetic(cell.run.precision, cell.run.accelerator)
    where = {"threads": torch.get_num_threads(), "precision": precision, "machine": machine(), "torch": torch.__version__}
    return _identity(cell, job.budget) | {"paper": cell.paper} | measured | last | where


def _identity(cell: Cell, budget: str) -> Row:
    """Return the identity of a row, and its settings."""
    return {"cell": cell.name, "seed": cell.run.seed, "budget": budget, "run": _settings(cell.run)}


def _settings(run: Run) -> Row:
    """Return all settings except the location of the data."""
    return {key: value for key, value in run.to_json().items() if key not in ("root", "download")}


def _key(row: Row) -> tuple[str, int, str]:
    return row["cell"], row["seed"], row["budget"]


def _known(job: Job, rows: Sequence[Row]) -> bool:
    identity = _identity(job.cell, job.budget)
    return any({key: row[key] for key in identity} == identity for row in rows)


def _current(row: Row, table: Table) -> bool:
    """Whether the row has the recipe of this version, because a table must not mix recipes."""
    cells = [cell for cell in table.cells if cell.name == row["cell"]]
    return any(_settings(_planned(cell, table, None, row["seed"], row["budget"]).run) == row["run"] for cell in cells)

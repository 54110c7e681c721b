"""Reproduce the table of hippocampi: pairs of held-out cases, registered by stn, by a trained network and by others."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import stn
from stn import _check
from stn.io.files import write_text
from stn.lab.bench.deformable import PROGRAMS
from stn.lab.bench.rivals import Array, Move, moved, seconds_of_cpu
from stn.lab.data.hippocampus import Hippocampi, Pair, load_hippocampus, pairs
from stn.lab.experiments.machine import machine
from stn.lab.experiments.registration import Learning, placed, train_registration
from stn.lab.experiments.rows import Row
from stn.lab.networks.registration import RegistrationNetwork
from stn.lab.tables.hippocampus import CELLS, PAIRS, STEPS_AFTER, finer, is_row, markdown, velocity, velocity_loss
from stn.lab.tables.results import Results

QUICK = 10  # a trial has so many times fewer pairs, and steps of training


@dataclass(frozen=True)
class Found:
    """A map of voxels (P, 3), x first, from the fixed volume to the moving one; its inverse, if there is one."""

    move: Move
    back: Move | None = None


Find = Callable[[Pair], Found]


def reproduce_hippocampus(
    *,
    root: Path | None,
    out: Path,  # without a suffix: rows go to .jsonl, the table to .md
    runs: Path,  # folder of the trainings
    seeds: int = 1,  # trainings of the network
    budget: str = "full",
    cells: Sequence[str] = (),  # patterns; (): all
    download: bool = False,
) -> list[Row]:
    """Register the pairs that have no row yet, one row per pair, method and seed. Returns all rows.

    Raises: InputError, which names the argument.
    """
    _check.at_least("seeds", seeds, 1)
    chosen = _chosen(cells)
    if root is None:
        _check.fail("root must name the folder of the volumes; got None")
    if download:
        _check.fail("download must be False for hippocampus, whose files cannot be downloaded automatically; got True")
    results = results_of(out)
    results.begin()
    data = load_hippocampus(root)
    drawn = pairs(data.test, PAIRS if budget == "full" else PAIRS // QUICK)
    for name in chosen:
        for seed in range(seeds if name.startswith("learned") else 1):
            missing = [pair for pair in drawn if not _known(results.rows(), name, seed, budget, pair)]
            if missing:
                _run(name, seed, budget, missing, data, runs, results)
    rows = results.rows()
    write_text(results.document, markdown(rows))
    return rows


def results_of(out: Path) -> Results:
    return Results(out, is_row, lambda row: row["cell"] in CELLS and row["settings"] == settings(row["cell"], row["budget"]))


def settings(cell: str, budget: str) -> Row:
    """Return what the rows of a cell depend on, beside pair and seed."""
    given = dict(CELLS[cell].settings)
    if cell.startswith("learned"):
        learning = dataclasses.asdict(_learning(0, budget)).items()
        given |= {f"training {key}": value for key, value in learning if key != "seed"}
    return given


def _learning(seed: int, budget: str) -> Learning:
    full = Learning(seed=seed)
    return full if budget == "full" else dataclasses.replace(full, steps=full.steps // QUICK)


def _chosen(patterns: Sequence[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in CELLS):
            _check.fail(f"cells must be names or patterns among {', '.join(CELLS)}; got {pattern!r}")
    return [name for name in CELLS if any(fnmatch(name, pattern) for pattern in patterns or ["*"])]


def _known(rows: Sequence[Row], cell: str, seed: int, budget: str, pair: Pair) -> bool:
    wanted = _identity(cell, seed, budget, pair)
    return any({key: row[key] for key in wanted} == wanted for row in rows)


def _identity(cell: str, seed: int, budget: str, pair: Pair) -> Row:
    return {"cell": cell, "seed": seed, "budget": budget, "moving": pair[0].name, "fixed": pair[1].name}


def _run(cell: str, seed: int, budget: str, wanted: Sequence[Pair], data: Hippocampi, runs: Path, results: Results) -> None:
    """Register pairs by one method, and write a row after each."""
    module = CELLS[cell].module
    if importlib.util.find_spec(module) is None:
        Console().print(f"{cell} is not installed (package {module}) and has no rows.")
        return
    find, more = _method(cell, seed, budget, data, runs)
    find(pairs(data.train, 1)[0])  # compile, and load what is loaded once
    for pair in wanted:
        row = _identity(cell, seed, budget, pair) | {"settings": settings(cell, budget)} | measured(find, pair) | more
        row |= {"threads": torch.get_num_threads(), "machine": machine(), "torch": str(torch.__version__)}
        results.add(row, lambda row: (*_key(row),), markdown)
    mine = [row["dice"] for row in results.rows() if row["cell"] == cell and row["seed"] == seed and "dice" in row]
    Console().print(f"{cell}, seed {seed}: mean Dice {np.mean(mine) if mine else float('nan'):.3f} of {len(mine)} pairs")


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("cell", "seed", "budget", "moving", "fixed"))


def _method(cell: str, seed: int, budget: str, data: Hippocampi, runs: Path) -> tuple[Find, Row]:
    """Return the method of a cell, and what all of its rows hold."""
    if cell.startswith("learned"):
        learning = _learning(seed, budget)
        network, last = train_registration(data.train, runs / f"learned-seed{seed}", learning)
        return _learned(network, refine=cell != "learned"), {"training_seconds": last["seconds"], "loss": last["loss"]}
    if cell in PROGRAMS:
        return _by_program(PROGRAMS[cell][1]), {}
    return {"centers": _centers, "affine": _affine, "velocity": _velocity}[cell], {}


# ---- methods ----


def _centers(pair: Pair) -> Found:
    return _of_warp(pair[0].centered(pair[1].size), pair)


def _affine(pair: Pair) -> Found:
    moving, fixed = pair
    return _of_warp(stn.register(moving.image, fixed.image, "affine", start=moving.centered(fixed.size)).warp, pair)


def _velocity(pair: Pair) -> Found:
    moving, fixed = pair
    start = moving.centered(fixed.size)
    found = stn.register(moving.image, fixed.image, **velocity(), start=start)
    return _of_warp(finely(start, found), pair)


def finely(start: stn.Warp, found: stn.Registration) -> stn.Warp:
    """Return the warp of a registration, whose flow is computed on a finer lattice."""
    for stage in found.stages:
        start = start @ finer(stage.family)(stage.theta)
    return start


def _learned(network: RegistrationNetwork, *, refine: bool) -> Find:
    network.transformer.family = finer(network.transformer.family)

    @torch.no_grad()
    def find(pair: Pair) -> Found:
        moving, fixed = (placed(case, network.template) for case in pair)
        _, warp = network(moving.image, fixed.image)
        warp = moving.warp @ warp @ fixed.warp.inverse()
        if refine:
            options = velocity() | {"transform": velocity()["transform"][-1], "loss": velocity_loss(), "steps": STEPS_AFTER}
            found = stn.register(pair[0].image, pair[1].image, start=warp, levels=1, **options)
            warp = finely(warp, found)
        return _of_warp(warp, pair)

    return find


def _of_warp(warp: stn.Warp, pair: Pair) -> Found:
    sizes = pair[0].size, pair[1].size
    return Found(moved(warp, *sizes), moved(warp.inverse(), *sizes[::-1]))


def _by_program(find: Callable[[Array, Array], Move]) -> Find:
    return lambda pair: Found(find(*(case.image[0, 0].numpy() for case in pair)))


# ---- measures ----


def measured(find: Find, pair: Pair) -> Row:
    """Register a pair, and return a row: time, Dice of both labels, folds, error of the inverse."""
    start, cpu = time.perf_counter(), seconds_of_cpu()
    try:
        found = find(pair)
        taken = {"seconds": time.perf_counter() - start, "cpu_seconds": seconds_of_cpu() - cpu}
        scores = {key: np.round(value, 5).tolist() for key, value in dict(_scores(found, pair)).items()}
    except Exception as error:  # a failure is a result
        return {"exception": f"{type(error).__name__}: {error}"[:200]}
    return {key: round(value, 3) for key, value in taken.items()} | scores


def _scores(found: Found, pair: Pair) -> Iterator[tuple[str, Any]]:
    moving, fixed = pair
    points = voxels(fixed.size)
    there = found.move(points)
    yield "dice", dice(at(moving.labels[0, 0].numpy(), there), fixed.labels[0, 0].numpy().ravel())
    yield "fold_share", fold_share(there.reshape(*fixed.size, 3))
    if found.back is not None:
        limit = np.array(moving.size[::-1]) - 0.5
        inside = ((there >= -0.5) & (there <= limit)).all(axis=-1)
        away = np.linalg.norm(found.back(there[inside]) - points[inside], axis=-1)
        yield "inverse_voxels", [away.mean(), away.max()]


def voxels(size: Sequence[int]) -> Array:  # (P, 3), x first
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")[::-1], axis=-1).reshape(-1, 3).astype(np.float64)


def at(labels: Array, points: Array) -> Array:  # (D, H, W), (P, 3) -> (P,): the label of the nearest voxel, 0 outside
    index = np.rint(points[:, ::-1]).astype(int)
    inside = ((index >= 0) & (index < labels.shape)).all(axis=-1)
    return np.where(inside, labels[tuple(np.where(inside[:, None], index, 0).T)], 0)


def dice(a: Array, b: Array) -> list[float]:
    """Return 2 |A and B| / (|A| + |B|) of both labels."""
    return [2.0 * ((a == k) & (b == k)).sum() / max(1, (a == k).sum() + (b == k).sum()) for k in (1, 2)]


def fold_share(there: Array) -> float:  # (D, H, W, 3), x first
    """Return the share of voxels at which the determinant of central differences is not positive."""
    slopes = np.stack([np.gradient(there, axis=axis) for axis in (2, 1, 0)], axis=-1)
    return float((np.linalg.det(slopes) <= 0).mean())

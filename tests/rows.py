"""Numbers from committed rows, in the form in which the pages quote them."""

import functools
import importlib
import json
import re
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
import torch

import stn
from stn.lab.bench.markdown import TORCH
from stn.lab.figures.bars import geometric_mean, speedups

ROOT = Path(__file__).parents[1]
ROWS = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["rows"]


def errors(table: str, cell: str) -> float:
    rows = [json.loads(line) for line in (ROOT / "results" / f"{table}.jsonl").read_text().splitlines()]
    found = [row["error_percent"] for row in rows if row["cell"] == cell]
    return sum(found) / len(found)


def speedup(task: str, suite: str = "affine", case: str | None = None, rivals: tuple[str, ...] = TORCH) -> float:
    rows = [row for row in ROWS if case is None or row.get("case") == case]
    return geometric_mean(speedups(rows, rivals)[suite][task])


def kornias(suite: str = "affine", case: str | None = None) -> float:
    """Return our speed relative to the best of PyTorch, over the cases that kornia has."""
    rows = [row for row in ROWS if case is None or row.get("case") == case]
    cases = {row["case"] for row in rows if row.get("contender") == "kornia"}
    rows = [row for row in rows if row.get("case") in cases]
    against_torch, against_kornia = (speedups(rows, names)[suite]["forward"] for names in (TORCH, ("kornia",)))
    return geometric_mean([a / b for a, b in zip(against_torch, against_kornia, strict=True)])


def costs(option: str, *tasks: str) -> list[float]:
    """Return our time with an option over that of plain sampling, for each task and number of threads."""
    rows = [row for row in ROWS if row["suite"] == "quality" and row["task"] in (tasks or ("forward", "theta", "both"))]
    times = {(row["task"], row["threads"], row["contender"]): row["median_ms"] for row in rows}
    return [time / times[(*key, "plain bilinear")] for (*key, name), time in times.items() if name == option]


def found(scene: str) -> float:
    rows = [json.loads(line) for line in (ROOT / "results" / "colocalization.jsonl").read_text().splitlines()]
    shares = [row["found_percent"] for row in rows if row["cell"].startswith(scene)]
    return sum(shares) / len(shares)


def overlaps(cell: str) -> tuple[float, ...]:
    """Return the Dice, pairs, pairs with folds and seconds of processor time of a method of hippocampi."""
    rows = [json.loads(line) for line in (ROOT / "results" / "hippocampus.jsonl").read_text().splitlines()]
    own = [row for row in rows if row["cell"] == cell and "dice" in row]
    dice = mean(x for row in own for x in row["dice"])
    return dice, len(own), sum(row["fold_share"] > 0 for row in own), median(row["cpu_seconds"] for row in own)


def missed(cell: str) -> float:
    """Return by how many voxels the inverse misses on average."""
    rows = [json.loads(line) for line in (ROOT / "results" / "hippocampus.jsonl").read_text().splitlines()]
    return mean(row["inverse_voxels"][0] for row in rows if row["cell"] == cell and "inverse_voxels" in row)


def minutes_of_training() -> float:
    rows = [json.loads(line) for line in (ROOT / "results" / "hippocampus.jsonl").read_text().splitlines()]
    return mean(row["training_seconds"] for row in rows if row["cell"] == "learned") / 60


def worst(key: str) -> float:
    return max(row[key] for row in ROWS if row.get("task") == "accuracy")


def row_of(table: str, **wanted: object) -> float:
    """Return the error of the only row with these settings."""
    rows = [json.loads(line) for line in (ROOT / "results" / f"{table}.jsonl").read_text().splitlines()]
    (found,) = [row["error_percent"] for row in rows if wanted.items() <= {**row["run"], "cell": row["cell"]}.items()]
    return float(found)


def from_rows(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def registered(contender: str, motion: str) -> tuple[float, float, float]:
    rows = [row for row in from_rows("registration") if (row["contender"], row["motion"]) == (contender, motion)]
    pixels = [row["pixels"] for row in rows]
    share = 100 * sum(error < 0.5 for error in pixels) / len(rows)
    return share, median(pixels), median(row["seconds"] for row in rows)


def recovered(method: str, distance: int) -> float:
    return float(100 * from_rows("recovery")[method][str(distance)])


def reach(method: str) -> int:
    """Return the largest distance from which at least half of the registrations succeed."""
    return max(int(distance) for distance, share in from_rows("recovery")[method].items() if share >= 0.5)


def first_call(key: str, case: str = "first call, compiling") -> float:
    (seconds,) = [row[key] for row in ROWS if row["suite"] == "costs" and row["case"] == case]
    return float(seconds)


def fewer(column: str) -> float:
    """Return by how many percent the layer reduces the errors."""
    return 100 * (1 - errors("seeds", f"st-cnn/{column}") / errors("seeds", f"cnn/{column}"))


def seeds_better() -> tuple[int, int]:
    rows = [json.loads(line) for line in (ROOT / "results" / "seeds.jsonl").read_text().splitlines()]
    found = {(row["cell"], row["seed"]): row["error_percent"] for row in rows}
    seeds = {seed for _, seed in found}
    better = [seed for seed in seeds if all(found[f"st-cnn/{c}", seed] < found[f"cnn/{c}", seed] for c in ("r", "rts"))]
    return len(better), len(seeds)


def looks_at_birds(cell: str) -> tuple[float, float]:
    """Return the mean test error and the mean IoU with the boxes over seeds."""
    rows = [json.loads(line) for line in (ROOT / "results" / "birds.jsonl").read_text().splitlines()]
    own = [row for row in rows if row["cell"] == cell and row["split"] == "test"]
    return mean(row["error_percent"] for row in own), mean(row["iou"] for row in own)


def boxes_of_birds() -> tuple[float, ...]:
    """Return the IoU of square looks at the true centers, with the size of the center crop and with the true area."""
    rows = [json.loads(line) for line in (ROOT / "results" / "birds.jsonl").read_text().splitlines()]
    found = {row["cell"]: row["iou"] for row in rows if row["split"] == "boxes"}
    return found["true center, size of the center crop"], found["true center and area"]


def both_found() -> float:
    rows = [json.loads(line) for line in (ROOT / "results" / "parts.jsonl").read_text().splitlines()]
    return float(100 * next(row["both_found"] for row in rows if row["cell"] == "2xlook/84"))


def option_costs(option: str, *tasks: str) -> tuple[float, ...]:
    """Return the cost on one thread, forward and with the gradient in theta, relative to plain sampling."""
    rows = [row for row in ROWS if row["suite"] == "quality" and row["threads"] == 1]
    times = {(row["task"], row["contender"]): row["median_ms"] for row in rows}
    return tuple(times[task, option] / times[task, "plain bilinear"] for task in tasks or ("forward", "theta"))


@functools.cache
def shrunk(antialias: bool) -> list[float]:
    """Return the RMS difference in percent from an area resize, for photographs reduced by 4."""
    pytest.importorskip("skimage")
    recovery = importlib.import_module("stn.lab.studies.recovery")
    images = torch.stack([recovery.photograph(name) for name in recovery.PHOTOGRAPHS]).unsqueeze(1)
    small = stn.affine_sample(images, torch.eye(2, 3), (100, 100), antialias=antialias)
    area = torch.nn.functional.interpolate(images, (100, 100), mode="area")
    return (100 * (small - area).square().mean(dim=(1, 2, 3)).sqrt()).tolist()


def moved_by_the_identity() -> tuple[float, float]:
    noise = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 3, 224, 224], align_corners=False)
    theirs = torch.nn.functional.grid_sample(noise, grid, align_corners=False)
    return (theirs - noise).abs().max().item(), (stn.affine_sample(noise, torch.eye(2, 3)) - noise).abs().max().item()


@functools.cache
def refined() -> dict[str, float]:
    """Return the errors of the code on the registration page, and of other calls that the page mentions."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "registration.md").read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    error, family, moving = names["error"], names["family"], names["moving"]
    affine = names["true"].sample(moving, padding_mode="border")
    first = stn.register(moving, affine, "affine")
    again = stn.register(moving, affine, family, start=first.warp)
    found = {"coarse": (names["coarse"], "curved"), "fine": (names["fine"], "curved")}
    found |= {"first": (first, "true"), "again": (again, "true")}
    return {name: float(error(one.warp, names[true])) for name, (one, true) in found.items()}


def changed(cell: str, **settings: object) -> tuple[float, float]:
    return row_of("table1-history", cell=cell, **settings), errors("table1", cell)

"""`stn reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from stn import _check
from stn.cli.options import Download

TableName = Literal[
    "table1",
    "seeds",
    "addition",
    "alignment",
    "strings",
    "svhn",
    "cub",
    "gtsrb",
    "parts",
    "volumes",
    "text",
    "colocalization",
    "hippocampus",
]
OF_THEIR_OWN = ("colocalization", "hippocampus")  # which train no cells of a table


def reproduce(
    table: Annotated[Positional[TableName], tyro.conf.arg(metavar="TABLE")],
    root: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None,
    download: Download = False,
    seeds: int = 3,
    budget: Literal["quick", "full"] = "full",
    cells: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[CELL ..]", help_behavior_hint="(default: all)")] = (),
    workers: int = 1,
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: results/ and the table's name)")
    ] = None,
    runs: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/ and the table's name)")
    ] = None,
    names: Annotated[bool, tyro.conf.arg(name="list", help_behavior_hint="")] = False,
) -> None:
    """Reproduce a table of the paper: train its networks, and compare our errors with those of the paper.

    Rows, the table and a figure are updated after each result. After an interruption the same command continues.

    Args:
        table: table1: distorted MNIST, 8 networks and 4 distortions, and cluttered digits. seeds: two networks with several
            seeds, few epochs. addition: the sum of two digits. alignment: one or several steps under large perturbation.
            strings: house numbers made of digits. svhn: house numbers. cub: birds. gtsrb: traffic signs. parts: two
            sampled regions in parallel. volumes: 3-D. text: rectified curved strings. colocalization: the object that images
            share. hippocampus: pairs of MR volumes, registered by stn, a trained network and other programs.
        root: Folder of the data files.
        download: Download data files that are missing in --root.
        seeds: Number of trainings per cell.
        budget: full: as in the published table. quick: a fraction of the epochs, as a test.
        cells: Names or patterns of cells, such as st-cnn-affine/rts or cnn/*, in the order of training.
        workers: Number of cells to train at the same time; they share the processor cores.
        out: Output path of rows (.jsonl), table (.md) and figure (.png), without the suffix. Existing rows of other settings
            are renamed and kept.
        runs: Folder for the run folders.
        names: Print the names of the cells of the table, and exit.
    """
    if names:
        print("\n".join(_names(table)))
        return
    name = table if budget == "full" else f"{table}-{budget}"
    out, runs = out or Path("results") / name, runs or Path("runs") / name
    _check.writable_folder("runs", runs)
    if table in OF_THEIR_OWN:
        _check.alone(table, {"budget quick": budget == "quick" and table == "colocalization", "workers": workers - 1})
    options: dict[str, Any] = {"root": root, "download": download, "seeds": seeds, "cells": cells}
    for path in _written(table, budget, workers, out=out, runs=runs, **options):
        print(path)


def _names(table: str) -> list[str]:
    from stn.lab.tables import TABLES
    from stn.lab.tables.colocalization import searches

    if table == "hippocampus":
        from stn.lab.tables.hippocampus import CELLS

        return list(CELLS)
    return [search.name for search in searches(1)] if table == "colocalization" else [c.name for c in TABLES[table].cells]


def _written(table: str, budget: str, workers: int, *, out: Path, runs: Path, **options: Any) -> list[Path]:
    from stn.io.files import beside
    from stn.lab.figures import draw_corrected, draw_found, draw_table
    from stn.lab.tables import TABLES
    from stn.lab.tables.colocalization import reproduce_colocalization
    from stn.lab.tables.reproduce import reproduce as build

    if table == "hippocampus":
        from stn.lab.bench.hippocampus import reproduce_hippocampus

        reproduce_hippocampus(out=out, runs=runs, budget=budget, **options)
        return [beside(out, ".jsonl"), beside(out, ".md")]
    if table == "colocalization":
        reproduce_colocalization(out=out, runs=runs, **options)
        picture = draw_found(runs, beside(out, ".png"))
        more = []
    else:
        rows = build(table, budget=budget, workers=workers, out=out, runs=runs, **options)
        picture = draw_table(TABLES[table], runs, beside(out, ".png"))
        more = draw_corrected(TABLES[table], [row for row in rows if row["budget"] == budget], runs, root=options["root"])
    return [path for path in (beside(out, ".jsonl"), beside(out, ".md"), picture, *more) if path]

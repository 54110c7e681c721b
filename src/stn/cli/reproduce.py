"""`stn reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from stn import _check
from stn.cli.options import Download

TableName = Literal[
    "table1", "seeds", "addition", "alignment", "strings", "svhn", "cub", "parts", "volumes", "text", "colocalization"
]


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
    """Reproduce a table of the paper: train its networks, and set our errors beside the paper's.

    Rows, the table and a figure are written as results come. Stopped at any moment, the same command goes on where it was.

    Args:
        table: table1: distorted MNIST, 8 networks and 4 distortions, and cluttered digits. seeds: two of them from several
            starts, in few passes. addition: the sum of two digits. alignment: one step or several under large perturbation.
            strings: house numbers made of digits. svhn: house numbers. cub: birds. parts: two looks in parallel. volumes:
            3-D looks. text: curved strings, rectified. colocalization: what images have in common.
        root: Folder of the data files.
        download: Fetch data files that are missing from --root.
        seeds: How often to train each cell.
        budget: full, as in the published table, or quick: a part of the epochs, to see that all runs.
        cells: Names or patterns of cells, such as st-cnn-affine/rts or cnn/*, in the order to train them.
        workers: How many cells to train at once, each on its share of the processor's cores.
        out: Where to write rows (.jsonl), table (.md) and figure (.png), without a suffix. Rows of other settings that are
            there are kept aside.
        runs: Folder of the run folders.
        names: Print the names of the table's cells, and train nothing.
    """
    if names:
        print("\n".join(_names(table)))
        return
    name = table if budget == "full" else f"{table}-{budget}"
    out, runs = out or Path("results") / name, runs or Path("runs") / name
    _check.writable_folder("runs", runs)
    if table == "colocalization":
        _check.alone("colocalization", {"budget quick": budget == "quick", "workers": workers - 1})
    options: dict[str, Any] = {"root": root, "download": download, "seeds": seeds, "cells": cells}
    for path in _written(table, budget, workers, out=out, runs=runs, **options):
        print(path)


def _names(table: str) -> list[str]:
    from stn.lab.tables import TABLES
    from stn.lab.tables.colocalization import searches

    return [search.name for search in searches(1)] if table == "colocalization" else [c.name for c in TABLES[table].cells]


def _written(table: str, budget: str, workers: int, *, out: Path, runs: Path, **options: Any) -> list[Path]:
    from stn.io.files import beside
    from stn.lab.figures import draw_found, draw_table
    from stn.lab.tables import TABLES
    from stn.lab.tables.colocalization import reproduce_colocalization
    from stn.lab.tables.reproduce import reproduce as build

    if table == "colocalization":
        reproduce_colocalization(out=out, runs=runs, **options)
        picture = draw_found(runs, beside(out, ".png"))
    else:
        build(table, budget=budget, workers=workers, out=out, runs=runs, **options)
        picture = draw_table(TABLES[table], runs, beside(out, ".png"))
    return [path for path in (beside(out, ".jsonl"), beside(out, ".md"), picture) if path]

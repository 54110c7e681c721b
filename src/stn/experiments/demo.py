"""The demonstration: the same CNN with and without a spatial transformer, on real handwriting, distorted."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stn.experiments.evaluate import mean_and_spread, trained_network
from stn.experiments.folder import RunFolder
from stn.experiments.runs import Run
from stn.experiments.train import train
from stn.models import num_parameters

RUNS = (Run(model="cnn"), Run(model="st-cnn"))


def demo(out: Path, *, seed: int = 0, quiet: bool = False) -> RunFolder:
    """Train both networks, print the table, return the folder of the one with the transformer."""
    console = Console(quiet=quiet)
    table = Table("model", title="Digits, rotated, scaled and placed at random in 42x42 (three draws of 397 test digits)")
    for column in ("error", "parameters", "seconds"):
        table.add_column(column, justify="right")
    for setting in RUNS:
        run = dataclasses.replace(setting, seed=seed)
        folder = RunFolder(out / run.name)
        if folder.exists():
            shutil.rmtree(folder.path)  # a run of an earlier demonstration
        console.print(f"[bold]{run.model}[/bold], {run.epochs} epochs of 12,600 images")
        rows = train(run, folder, quiet=quiet)
        mean, spread = mean_and_spread(rows)
        count = num_parameters(trained_network(folder))
        table.add_row(run.model.upper(), f"{mean:.2f} ± {spread:.2f} %", f"{count:,}", f"{rows[-1]['seconds']:.0f}")
    console.print(table)
    return folder

"""The demonstration: the same CNN with and without a spatial transformer, on real handwriting, distorted."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stn import _check
from stn.io.files import LOCK, write_text
from stn.lab import _check as lab_check
from stn.lab.experiments.evaluate import mean_and_spread, trained_network
from stn.lab.experiments.folder import MARK, RunFolder
from stn.lab.experiments.runs import Run
from stn.lab.experiments.train import train
from stn.lab.networks import num_parameters

RUNS = (Run(model="cnn"), Run(model="st-cnn"))
MADE = {MARK, LOCK, "config.json", "rows.jsonl", "checkpoints", "figures", "tensorboard"}  # in each folder


def replaceable(folder: RunFolder) -> None:
    """Raises: InputError if the folder exists, is not empty, and was not created by an earlier demonstration."""
    if not folder.path.exists():
        return
    if not folder.path.is_dir():
        _check.fail(f"out must be a folder for the demonstration's runs; {folder.path} is a file")
    there = {path.name for path in folder.path.iterdir() if path.suffix != ".partial"}
    if there and MARK not in there:
        _check.fail(
            f"out must be a folder for the demonstration's runs; {folder.path} exists, and stn demo did not create it"
        )
    if strange := sorted(there - MADE):
        _check.fail(f"out must be a folder for the demonstration's runs; {folder.path} also holds {strange[0]}")


def make_room(folder: RunFolder) -> None:
    """Remove the files of an earlier demonstration, and mark the folder."""
    replaceable(folder)
    if folder.path.exists():
        with folder.lock(), _check.writing(folder.path):
            for path in folder.path.iterdir():
                if path.name in MADE - {LOCK, MARK}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_text(folder.path / MARK, "stn demo replaces this folder when it runs again.\n")


def demo(out: Path, *, seed: int = 0, quiet: bool = False) -> RunFolder:
    """Train both networks, print the table, return the folder of the one with the transformer.

    Raises: InputError if one of their folders contains files of something else.
    """
    lab_check.seed("seed", seed)
    _check.writable_folder("out", out)
    for setting in RUNS:
        replaceable(RunFolder(out / dataclasses.replace(setting, seed=seed).name))
    console = Console(quiet=quiet)
    table = Table("model", title="Digits, rotated, scaled and placed at random in 42x42 (three draws of 397 test digits)")
    for column in ("error", "parameters", "seconds"):
        table.add_column(column, justify="right")
    for setting in RUNS:
        run = dataclasses.replace(setting, seed=seed)
        folder = RunFolder(out / run.name)
        make_room(folder)
        console.print(f"[bold]{run.model}[/bold], {run.epochs} epochs of 12,600 images")
        rows = train(run, folder, quiet=quiet)
        mean, spread = mean_and_spread(rows)
        count = num_parameters(trained_network(folder))
        table.add_row(run.model.upper(), f"{mean:.2f} ± {spread:.2f} %", f"{count:,}", f"{rows[-1]['seconds']:.0f}")
    console.print(table)
    return folder

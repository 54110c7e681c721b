"""`stn train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro

from stn.lab.experiments.runs import Run


def train(
    run: Annotated[Run, tyro.conf.arg(name="")],
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/ and a name from the settings)"),
    ] = None,
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """Train one of the paper's networks on distorted digits, and measure its test error.

    The folder of the run contains config.json, rows.jsonl, checkpoints/ and tensorboard/. After an interruption the same
    command with --resume continues and gives the same result.

    Args:
        run: The settings of the run.
        out: Folder of the run.
        resume: Continue the run in --out after its last complete epoch, or start it if there is none. The folder of the data
            and the device may differ from before.
    """
    import torch

    from stn.lab.experiments.evaluate import mean_and_spread
    from stn.lab.experiments.folder import RunFolder
    from stn.lab.experiments.machine import keep_memory
    from stn.lab.experiments.train import train as fit

    keep_memory()
    folder = RunFolder(out or Path("runs") / run.name)
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # only one of several processes prints
    if is_first:
        count = torch.get_num_threads()
        print(f"{run.label}: {count} thread{'s' if count > 1 else ''} (OMP_NUM_THREADS sets them)")
    rows = fit(run, folder, resume=resume)
    mean, spread = mean_and_spread(rows)
    if is_first:
        print(f"{run.label}: test error {mean:.2f} ± {spread:.2f} % ({run.draws} draws). Run: {folder.path}")

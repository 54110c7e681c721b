"""`stn demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def demo(out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo"), seed: int = 0) -> None:
    """Train a CNN without and with a spatial transformer, and compare them (about two minutes on two cores).

    Args:
        out: Folder for the two runs. Runs of an earlier demonstration are replaced; nothing else is overwritten.
        seed: Seed of the initial weights, the order of the images and their distortions.
    """
    from stn.lab.experiments.demo import demo as show
    from stn.lab.experiments.machine import keep_memory
    from stn.lab.figures import draw_run

    keep_memory()
    for path in draw_run(show(out, seed=seed)):
        print(f"wrote {path}")

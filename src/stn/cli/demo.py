"""`stn demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def demo(out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo"), seed: int = 0) -> None:
    """Watch a CNN with a spatial transformer beat the same CNN without one (about two minutes on two cores).

    Args:
        out: Folder of the two runs; those of an earlier demonstration are replaced, and no others.
        seed: Of the initial weights, the order of the images and their distortions.
    """
    from stn.lab.experiments.demo import demo as show
    from stn.lab.experiments.machine import keep_memory
    from stn.lab.figures import draw_run

    keep_memory()
    for path in draw_run(show(out, seed=seed)):
        print(f"wrote {path}")

"""`stn report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from stn import _check
from stn.cli.options import Download, Folders, Root


def report(
    runs: Folders,
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.html")] = Path("runs/report.html"),
    root: Root = None,
    download: Download = False,
) -> None:
    """Write one HTML page about one or several runs: results, diagnosis, curves, sampled regions, settings and rows.

    The page is a single file and loads nothing from the network. Missing pictures of a run are drawn first.

    Args:
        runs: Folders of runs.
        out: The HTML file to write.
        root: Folder of the data files.
        download: Download data files that are missing in --root.
    """
    from stn.lab.experiments.folder import RunFolder
    from stn.lab.page import write_report

    _check.some("RUN", runs)
    _check.outputs({"out": out}, endings={"out": (".html", ".htm")})
    print(write_report([RunFolder(run) for run in runs], out, root=root, download=download))

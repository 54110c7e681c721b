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
    """Write one page about a run, or about several side by side: results, diagnosis in words, curves, looks, settings, rows.

    The page is one file, and needs no network. Pictures that a run does not have yet are drawn first.

    Args:
        runs: Folders of runs.
        out: The HTML file to write.
        root: Folder of the data files.
        download: Fetch data files that are missing from --root.
    """
    from stn.lab.experiments.folder import RunFolder
    from stn.lab.page import write_report

    _check.some("RUN", runs)
    _check.outputs({"out": out}, endings={"out": (".html", ".htm")})
    print(write_report([RunFolder(run) for run in runs], out, root=root, download=download))

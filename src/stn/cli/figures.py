"""`stn figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from stn import _check
from stn.cli.options import Download, Folders, Root


def figures(
    runs: Folders = (),
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None,
    count: int = 8,
    out: Path = Path("runs/figures"),
    root: Root = None,
    download: Download = False,
) -> None:
    """Draw runs: error by epoch, sampled regions, mean images, folds, control points, and a film of the training.

    Without a RUN: draw the weights of the interpolation kernels, as a picture and as a film.

    Args:
        runs: Folders of runs. The pictures of a run are written to its folder figures/.
        model: Draw the sampled regions of a trained network of the package instead, such as st-cnn-affine/rts; `stn read`
            lists them.
        count: Number of test images to show.
        out: Folder for pictures that do not belong to a single run, such as the errors of several runs.
        root: Folder of the data files. With --model: of MNIST, whose digits are drawn then.
        download: Download data files that are missing in --root.
    """
    from stn.lab.experiments.folder import RunFolder
    from stn.lab.figures import draw_kernels, draw_model, draw_run, draw_runs

    _check.at_least("count", count, 1)
    if model is not None:
        _check.alone("model", {"RUN": len(runs)})
        _check.writable_folder("out", out)
        print("\n".join(str(path) for path in draw_model(model, out, count=count, root=root, download=download)))
        return
    folders = [RunFolder(run) for run in runs]
    for folder in folders:
        folder.run()
        _check.writable_folder("RUN", folder.figures)
    if len(folders) != 1:
        _check.writable_folder("out", out)
    for folder in folders:
        for path in draw_run(folder, count=count, root=root, download=download):
            print(path)
    if len(folders) > 1:
        print(draw_runs(folders, out / "errors.png"))
    for path in [] if folders else draw_kernels(out):
        print(path)

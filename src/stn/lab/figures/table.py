"""The picture of a reproduced table: the looks of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.data import load
from stn.lab.experiments.batches import TEST, evaluation_batches
from stn.lab.experiments.evaluate import trained_network
from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.tasks import TASKS
from stn.lab.figures.lines import box, draw, outline
from stn.lab.figures.style import ROOM, save, show
from stn.lab.tables import Table


def draw_table(table: Table, runs: Path, out: Path) -> Path | None:
    """Draw two rows per family (input with the look, output) and some test digits per distortion, as in the paper.

    It shows the runs of seed 0 below `runs` with a checkpoint; None if there are none.
    """
    pictured = [cell for cell in table.cells if cell.run.model in table.pictured]
    shown = [cell for cell in pictured if RunFolder(runs / cell.run.name).checkpoint.exists()]
    if not shown:
        return None
    labels = list(dict.fromkeys(cell.row for cell in shown))
    columns = list(dict.fromkeys(cell.column for cell in table.cells if cell.column in {cell.column for cell in shown}))
    each = max(2, 8 // len(columns))
    seen = {cell: list(_seen(RunFolder(runs / cell.run.name), each)) for cell in shown}
    tallest = max(image.shape[-2] / image.shape[-1] for triples in seen.values() for x, _, y in triples for image in (x, y))
    height = (1.9 * tallest + 0.1) * len(labels) + 0.3
    figure = Figure(figsize=(0.95 * each * len(columns) + 0.5, height), layout="constrained")
    axes = figure.subplots(2 * len(labels), each * len(columns), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for cell, triples in seen.items():
        top, left = 2 * labels.index(cell.row), each * columns.index(cell.column)
        for n, (x, line, y) in enumerate(triples):
            above, below = axes[top : top + 2, left + n]
            show(above, x, room=ROOM)
            draw(above, line, 1.6)
            show(below, y)
            above.set_title(f"{cell.row.split()[-1]}, {cell.column}", fontsize=6)
    return save(figure, out)


def _seen(folder: RunFolder, count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return test images of a run, the outlines of the looks in pixels, and the outputs. Volumes are projected along their
    depth by the maximum."""
    run, network = folder.run(), trained_network(folder)
    test = load(run.data, run.root).test[:count]
    x, *_ = next(evaluation_batches(test, TASKS[run.distortion].evaluated, seed=0, stream=TEST))
    with torch.inference_mode():
        output, warp = network.get_submodule("transformer")(x, return_warp=True)
    size = tuple(x.shape[2:])
    if len(size) == 3:
        yield from zip(x.amax(dim=2), box(warp, size), output.amax(dim=-3), strict=True)
        return
    seen = output.unsqueeze(1) if output.ndim == 4 else output
    beside = torch.cat(seen.unbind(dim=1), dim=-1)  # K looks in a row, (N, C, h, K w)
    yield from zip(x, outline(warp, size), beside, strict=True)

"""The picture of a reproduced table: the looks of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.data import load
from stn.lab.experiments.batches import TEST, evaluation_batches
from stn.lab.experiments.evaluate import trained_network
from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.tasks import TASKS
from stn.lab.figures.lines import box, draw, outline
from stn.lab.figures.looks import framed
from stn.lab.figures.style import WIDTH, color, save, show
from stn.lab.tables import Cell, Table

MOST, MOST_STRINGS = 8, 3  # images in a row: a string is read when it is large
GAP, TITLE = 0.06, 0.26  # inches between pictures, and for the title of a run


class Look(NamedTuple):
    """A test image, the edges of its looks in pixels, and the outputs."""

    image: Tensor  # (C, H, W)
    edges: Tensor  # (K, L, P, 2)
    outputs: Tensor  # (K, C, h, w)


def draw_table(table: Table, runs: Path, out: Path) -> Path | None:
    """Draw a group of rows per family (input with the looks, outputs) and some test images per distortion, as in the paper.

    It shows the runs of seed 0 below `runs` with a checkpoint; None if there are none.
    """
    pictured = [cell for cell in table.cells if cell.run.model in table.pictured]
    shown = [cell for cell in pictured if RunFolder(runs / cell.run.name).checkpoint.exists()]
    if not shown:
        return None
    columns = list(dict.fromkeys(cell.column for cell in table.cells if cell.column in {cell.column for cell in shown}))
    seen = {cell: list(_seen(RunFolder(runs / cell.run.name), max(2, MOST // len(columns)))) for cell in shown}
    return save(picture(seen, columns), out)


def picture(seen: Mapping[Cell, list[Look]], columns: list[str]) -> Figure:
    """Draw the looks of each cell side by side. Its title stands above the first, and has the room above all of them."""
    each = max(map(len, seen.values()))
    across = (WIDTH - GAP) / (each * len(columns)) - GAP
    groups = {label: [c for c in seen if c.row == label] for label in dict.fromkeys(cell.row for cell in seen)}
    heights = {label: _heights([look for cell in cells for look in seen[cell]], across) for label, cells in groups.items()}
    tall = sum(TITLE + sum(rows) + GAP * len(rows) for rows in heights.values()) + GAP
    figure, top = Figure(figsize=(WIDTH, tall)), tall
    for label, cells in groups.items():
        top -= TITLE
        for row, height in enumerate(heights[label]):
            top -= height
            for cell in cells:
                for n, look in enumerate(seen[cell]):
                    left = GAP + (columns.index(cell.column) * each + n) * (across + GAP)
                    if row <= len(look.outputs):
                        place = (left / WIDTH, top / tall, across / WIDTH, height / tall)
                        title = f"{cell.row.split()[-1]}, {cell.column}" if row == n == 0 else ""
                        _draw(figure, place, look, row, title)
            top -= GAP
    return figure


def _heights(looks: list[Look], across: float) -> list[float]:
    """Return the height of each row of pictures of this width: of the inputs, then of the outputs of each look."""
    most = max(len(look.outputs) for look in looks)
    return [across * max(_part(look, row).shape[1] / _part(look, row).shape[2] for look in looks) for row in range(1 + most)]


def _part(look: Look, row: int) -> Tensor:
    return look.image if row == 0 else look.outputs[min(row, len(look.outputs)) - 1]


def _draw(figure: Figure, place: tuple[float, float, float, float], look: Look, row: int, title: str) -> None:
    ax = figure.add_axes(place, xticks=[], yticks=[])
    show(ax, _part(look, row), around=None if row else look.edges)
    ax.set_title(title, fontsize=9, loc="left", pad=3)
    if row == 0:
        draw(ax, look.edges, 1.6)
    if row and len(look.outputs) > 1:
        framed(ax, color(row - 1))


def _seen(folder: RunFolder, count: int) -> Iterator[Look]:
    """Return the looks of a run at test images. Volumes are projected along their depth by the maximum."""
    run, network = folder.run(), trained_network(folder)
    test = load(run.data, run.root).test[:count]
    x, y, _ = next(evaluation_batches(test, TASKS[run.distortion].evaluated, seed=0, stream=TEST))
    x = x[:MOST_STRINGS] if y.ndim > 1 else x
    with torch.inference_mode():
        output, warp = network.get_submodule("transformer")(x, return_warp=True)
    size = tuple(x.shape[2:])
    if len(size) == 3:
        yield from map(Look, x.amax(dim=2), box(warp, size), output.amax(dim=-3).unsqueeze(1))
        return
    yield from map(Look, x, outline(warp, size), output.unsqueeze(1) if output.ndim == 4 else output)

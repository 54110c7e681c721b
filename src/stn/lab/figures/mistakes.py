"""Images that a network reads wrongly without the layer and rightly with it, and where the layer looks in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from stn.lab.data import as_float, load
from stn.lab.experiments.evaluate import trained_network
from stn.lab.experiments.film import first_layer
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.tasks import TASKS
from stn.lab.figures.looks import looks
from stn.lab.figures.style import save
from stn.lab.tables import Cell, Table

MOST = 6  # images in a picture


def draw_corrected(table: Table, rows: Sequence[Row], runs: Path, *, root: Path | None = None) -> list[Path]:
    """Draw a picture into the folder of each run of seed 0 with a layer whose row, and whose baseline's row, has mistakes.

    The pictures are of test images, and stay with the runs: the licence of photographs may forbid to publish them.
    """
    mistakes = {row["cell"]: _wrong(row) for row in rows if row["seed"] == 0 and "mistakes" in row}
    return [_drawn(*found, runs, root) for found in _corrected(table, mistakes) if (runs / found[0].run.name).is_dir()]


def _wrong(row: Row) -> dict[int, int]:
    """Return the class that was read, by the place in the test set."""
    return {place: read for place, _, read in row["mistakes"]}


def _corrected(table: Table, mistakes: Mapping[str, Mapping[int, int]]) -> Iterator[tuple[Cell, dict[int, int]]]:
    for cell in table.cells:
        if cell.name in mistakes and cell.baseline in mistakes:
            before, after = mistakes[cell.baseline], mistakes[cell.name]
            places = [place for place in sorted(before) if place not in after][:MOST]
            if places:
                yield cell, {place: before[place] for place in places}


def _drawn(cell: Cell, places: Mapping[int, int], runs: Path, root: Path | None) -> Path:
    folder = RunFolder(runs / cell.run.name)
    run, layer = folder.run(), first_layer(trained_network(folder))
    assert layer is not None  # a cell with a baseline has one
    test = load(run.data, root or run.root).test[torch.tensor(list(places))]
    x, names = as_float(test.images), TASKS[run.distortion].names
    with torch.inference_mode():
        outputs, warp = layer(x, return_warp=True)
    pairs = zip(test.labels.tolist(), places.values(), strict=True)
    titles = [f"{names[truth]}\nnot: {names[read]}" for truth, read in pairs]
    return save(looks(x, warp, outputs, titles), folder.figures / "corrected.png")

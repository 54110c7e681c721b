"""Results of co-localization: some images of each digit, the frame of the digit, and the look."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from stn.grid import normalized_to_pixel
from stn.lab.experiments.search import FEATURES, Search
from stn.lab.figures.style import bare, color, save, show
from stn.lab.tables.colocalization import found_in, found_name


def draw_found(runs: Path, out: Path, *, each: int = 2) -> Path | None:
    """Draw one column per digit and `each` images per scene, with the frame dashed and the look solid, for the searches of
    seed 0 below `runs`; None if there are none."""
    shown = {s: [runs / found_name(Search(s, digit)) for digit in range(10)] for s in FEATURES}
    scenes = [scene for scene, files in shown.items() if any(file.exists() for file in files)]
    if not scenes:
        return None
    figure, axes = bare(each * len(scenes), 10, height=0.85 * each * len(scenes) + 0.3)
    for row, scene in enumerate(scenes):
        for digit, file in enumerate(shown[scene]):
            for n, ax in enumerate(axes[each * row : each * (row + 1), digit]):
                if file.exists():
                    _draw(ax, file, n)
    figure.suptitle("found without labels: the frame of the digit (dashed) and the look (solid)", fontsize=9)
    return save(figure, out)


def _draw(ax: Axes, file: Path, n: int) -> None:
    example, looks = found_in(file)
    assert example.boxes is not None
    show(ax, example.x[n])
    size = tuple(example.x.shape[2:])
    for box, line, k in ((example.boxes[n, 0], "--", 1), (looks[n], "-", 0)):
        ax.plot(*normalized_to_pixel(_outline(box), size).T.numpy(), line, color=color(k), linewidth=1.2)


def _outline(box: Tensor) -> Tensor:  # (4,) -> (5, 2)
    left, top, right, bottom = box.tolist()
    return torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])

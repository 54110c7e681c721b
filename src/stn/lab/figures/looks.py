"""The looks of the layer, and its outputs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.figures.lines import draw, mesh, outline
from stn.lab.figures.style import WIDTH, WRONG, bare, color, show
from stn.transforms import Warp

WIDE, MOST_WIDE = 2, 3  # images of this aspect, such as lines of text, are drawn so many in a row
CHARACTERS = 13  # of a title in an inch


def looks(
    images: Tensor,  # (N, C, H, W)
    warp: Warp,
    outputs: Tensor,  # (N, C, h, w), or (N, K, C, h, w)
    titles: Sequence[str],
    *,
    wrong: Sequence[bool] = (),  # images with a highlighted title
) -> Figure:
    """Draw one column per image: the input with the outline of the look, the input with its grid, the output. Lines of text
    are drawn three in a row, to be read.

    K looks are drawn over one another in different colors, and their outputs below one another.
    """
    outputs = outputs if outputs.ndim == 5 else outputs.unsqueeze(1)
    size, shown = tuple(images.shape[2:]), outputs.shape[1]
    each = min(len(images), MOST_WIDE) if size[1] >= WIDE * size[0] else len(images)
    blocks, across = math.ceil(len(images) / each), WIDTH / each
    tall = (2 * size[0] / size[1] + shown * outputs.shape[3] / outputs.shape[4]) * across
    figure, axes = bare(blocks * (2 + shown), each, height=blocks * (max(1.5, tall) + 0.4))
    edges, grid = outline(warp, size), mesh(warp, size)
    names = ["input\nand look", "grid", *(["output"] if shown == 1 else [f"look {k + 1}" for k in range(shown)])]
    for block in axes.reshape(blocks, 2 + shown, each):
        for ax, name in zip(block[:, 0], names, strict=True):
            ax.set_ylabel(name, fontsize=9)
    for ax in axes.reshape(blocks, 2 + shown, each).swapaxes(1, 2).reshape(-1, 2 + shown)[len(images) :].flat:
        ax.remove()
    for n in range(len(images)):
        column = axes[n // each * (2 + shown) :, n % each]
        title_color = WRONG if wrong and wrong[n] else "black"
        column[0].set_title(wrapped(titles[n], across), fontsize=9, color=title_color)
        for ax in column[:2]:
            show(ax, images[n], around=grid[n])
        draw(column[0], edges[n], 1.8, tint=0.2 if shown > 1 else 0.0)
        draw(column[1], grid[n], 0.7)
        for k in range(shown):
            show(column[2 + k], outputs[n, k])
            if shown > 1:
                framed(column[2 + k], color(k))
    return figure


def wrapped(title: str, across: float) -> str:
    """Break the lines of a title so that it stays above its picture, `across` inches wide."""
    most = max(8, int(across * CHARACTERS))
    return "\n".join(textwrap.fill(line, most) for line in title.splitlines())


def framed(ax: Axes, edge: str) -> None:
    for spine in ax.spines.values():
        spine.set(color=edge, linewidth=2)

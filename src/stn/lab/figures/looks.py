"""The looks of the layer, and its outputs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.figures.lines import draw, mesh, outline
from stn.lab.figures.style import WIDTH, WRONG, bare, color, show
from stn.transforms import Warp


def looks(
    images: Tensor,  # (N, C, H, W)
    warp: Warp,
    outputs: Tensor,  # (N, C, h, w), or (N, K, C, h, w)
    titles: Sequence[str],
    *,
    wrong: Sequence[bool] = (),  # images with a highlighted title
) -> Figure:
    """Draw one column per image: the input with the outline of the look, the input with its grid, the output.

    K looks are drawn over one another in different colors, and their outputs below one another.
    """
    outputs = outputs if outputs.ndim == 5 else outputs.unsqueeze(1)
    size, shown = tuple(images.shape[2:]), outputs.shape[1]
    across = WIDTH / len(images)
    tall = (2 * size[0] / size[1] + shown * outputs.shape[3] / outputs.shape[4]) * across
    figure, axes = bare(2 + shown, len(images), height=max(1.5, tall) + 0.4)
    edges, grid = outline(warp, size), mesh(warp, size)
    for n in range(len(images)):
        title_color = WRONG if wrong and wrong[n] else "black"
        axes[0, n].set_title(titles[n], fontsize=9, color=title_color)
        for ax in axes[:2, n]:
            show(ax, images[n], around=grid[n])
        draw(axes[0, n], edges[n], 1.8, tint=0.2 if shown > 1 else 0.0)
        draw(axes[1, n], grid[n], 0.7)
        for k in range(shown):
            show(axes[2 + k, n], outputs[n, k])
            if shown > 1:
                framed(axes[2 + k, n], color(k))
    names = ["input\nand look", "grid", *(["output"] if shown == 1 else [f"look {k + 1}" for k in range(shown)])]
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, fontsize=9)
    return figure


def framed(ax: Axes, edge: str) -> None:
    for spine in ax.spines.values():
        spine.set(color=edge, linewidth=2)

"""Maps of the determinant of the Jacobian: the covered area, and folds."""

from __future__ import annotations

from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.figures.lines import draw, mesh
from stn.lab.figures.style import WIDTH, WRONG, bare, show
from stn.transforms import Warp

SIDE = 64  # points along the longer axis of a map
MOST = 1.0  # range of the color scale: 2^-MOST to 2^MOST


def determinants(images: Tensor, warp: Warp) -> Figure:  # (N, C, H, W)
    """One column an image: the input with the grid of the look; the determinant of the warp's Jacobian over the output,
    as an area of the input per area of the output, both in shares of their image. One row a look. Folds are marked."""
    size = tuple(images.shape[2:])
    within = tuple(max(2, SIDE * n // max(size)) for n in size)
    found = warp.jacobian_determinant(within)
    found = found if found.ndim == 4 else found.unsqueeze(1)  # (N, K, h, w)
    rows, across = 1 + found.shape[1], (WIDTH - 0.8) / len(images)
    figure, axes = bare(rows, len(images), height=across * size[0] / size[1] * rows + 0.45)
    grid = mesh(warp, size)
    for n in range(len(images)):
        show(axes[0, n], images[n], around=grid[n])
        draw(axes[0, n], grid[n], 0.7)
        for k in range(found.shape[1]):
            area = found[n, k]
            heat = axes[1 + k, n].imshow(area.abs().log2().numpy(), cmap="cividis", vmin=-MOST, vmax=MOST)
            if (area <= 0).any():
                folded = area.new_full(area.shape, float("nan")).masked_fill(area <= 0, 1.0)
                axes[1 + k, n].imshow(folded.numpy(), cmap=ListedColormap([WRONG]))
    bar = figure.colorbar(heat, ax=axes.ravel().tolist(), ticks=[-1, 0, 1], shrink=0.8, extend="both")
    bar.ax.set_yticklabels(["1/2", "1", "2"], fontsize=9)
    axes[0, 0].set_ylabel("grid", fontsize=9)
    axes[1, 0].set_ylabel("area covered", fontsize=9)
    share = 100 * (found <= 0).float().mean().item()
    label = f"folded: {share:.1f} % of the output" if share else "nothing is folded"
    axes[0, 0].set_title(label, loc="left", fontsize=9, color=WRONG if share else "black")
    return figure

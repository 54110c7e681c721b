"""Control points: their places in the output, their sampling positions, and their paths during training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from stn.grid import lattice, normalized_to_pixel
from stn.lab.figures.lines import draw, mesh
from stn.lab.figures.style import WIDTH, bare, color, show
from stn.transforms import CPAB, Bounded, BSpline, Displacement, Family, MovedCorners, ThinPlateSpline, Velocity, Warp
from stn.transforms.bspline import BSplineWarp

MOST, FAR = 3, 0.2  # magnification of paths, limited to this share of the image


def handles(family: Family) -> Tensor | None:
    """Return the control points of a 2-D family in the output, normalized: (P, 2); None for families without."""
    if isinstance(family, Bounded):
        return handles(family.family)
    if isinstance(family, ThinPlateSpline):
        return family.control_points.float()
    if isinstance(family, BSpline | Velocity):  # the image spans the inner n - 3 intervals of n points
        y, x = (2 * (torch.arange(n) - 1) / (n - 3) - 1 for n in family.shape)
        return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)
    if isinstance(family, Displacement):
        return lattice(family.shape, align_corners=family.align_corners).flatten(0, 1)
    if isinstance(family, CPAB):
        return lattice(tuple(n + 1 for n in family.cells), align_corners=True).flatten(0, 1)
    return lattice((2, 2), align_corners=True).flatten(0, 1) if isinstance(family, MovedCorners) else None


def moved(warp: Warp, places: Tensor) -> Tensor:  # (P, 2) -> (N, K, P, 2)
    """Return the sampling positions of control points. Those of a B-spline are drawn at their displaced position."""
    if isinstance(warp, BSplineWarp):
        points = places + warp.coefficients.flatten(-3, -2)
    else:
        points = warp.points(places)
    return points if points.ndim == 4 else points.unsqueeze(1)


def control_points(
    images: Tensor,  # (N, C, H, W)
    places: Tensor,  # (P, 2) normalized
    warps: Sequence[Warp],  # warps of these images during training; the last one is drawn
) -> Figure:
    """Draw one column per image: the input with the grid of the look, and its control points with lines from their places
    in the output; with several warps also the magnified paths of the points, from dark to light."""
    size = tuple(images.shape[2:])
    ways = torch.stack([normalized_to_pixel(moved(warp, places), size) for warp in warps])  # (T, N, K, P, 2)
    rows, across = 1 + (len(warps) > 1), WIDTH / len(images)
    figure, axes = bare(rows, len(images), height=across * size[0] / size[1] * rows + 0.25)
    start, grid = normalized_to_pixel(places, size).expand_as(ways[-1]), mesh(warps[-1], size)
    longest = (ways - start).norm(dim=-1).max().item()
    times = min(MOST, max(1, int(FAR * max(size) / max(longest, 1e-6))))
    for n in range(len(images)):
        far = start[n] + times * (ways[:, n] - start[n])  # (T, K, P, 2)
        around = torch.cat([part.flatten(0, -2) for part in (grid[n], start[n], ways[-1, n], far)])
        for ax in axes[:, n]:
            show(ax, images[n], around=around)
        draw(axes[0, n], grid[n], 0.6)
        for k in range(ways.shape[2]):
            end = ways[-1, n, k]
            arrows = LineCollection(list(torch.stack([start[n, k], end], dim=1).numpy()), colors="white", linewidths=0.9)
            axes[0, n].add_collection(arrows)
            axes[0, n].plot(*end.T.numpy(), "o", color="white", markersize=3.5, markeredgecolor=color(k))
            if rows > 1:
                axes[1, n].add_collection(_trails(far[:, k]))
                axes[1, n].plot(*far[-1, k].T.numpy(), "o", color="#fde725", markersize=2.5)
    for ax, name in zip(
        axes[:, 0], ("control points", f"motion in training, ×{times}" if times > 1 else "motion in training"), strict=False
    ):
        ax.set_ylabel(name, fontsize=9)
    return figure


def _trails(ways: Tensor) -> LineCollection:  # (T, P, 2)
    """Draw a segment for each step of each point, colored by time."""
    pieces = torch.stack([ways[:-1], ways[1:]], dim=2)  # (T - 1, P, 2, 2)
    when = torch.arange(len(pieces)).repeat_interleave(ways.shape[1])
    trails = LineCollection(list(pieces.flatten(0, 1).numpy()), cmap="viridis", linewidths=1.5)
    trails.set_array(when.numpy())
    return trails

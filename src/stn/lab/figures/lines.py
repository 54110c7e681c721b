"""Lines of the output, mapped to the input by a warp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from stn.grid import normalized_to_pixel
from stn.lab.experiments.film import border
from stn.lab.figures.style import color
from stn.transforms import Warp

FINE = 33  # points along a drawn line, which a spline may bend


def outline(warp: Warp, size: Sequence[int]) -> Tensor:
    """Return the edges of the look, in pixels of an input of this size: (N, K, 4, FINE, 2)."""
    return bent(warp, border(FINE), size)


def box(warp: Warp, size: Sequence[int]) -> Tensor:
    """The twelve edges of a 3-D look, seen along depth, in pixels of a volume (D, H, W): (N, K, 12, FINE, 2)."""
    ends = torch.tensor([-1.0, 1.0])
    fixed = torch.cartesian_prod(ends, ends)  # of the two axes that an edge does not follow
    along = torch.linspace(-1, 1, FINE)
    edges = []
    for axis in range(3):
        rest = [other for other in range(3) if other != axis]
        edge = torch.empty(len(fixed), FINE, 3)
        edge[..., axis], edge[..., rest] = along, fixed.unsqueeze(1)
        edges.append(edge)
    return bent(warp, torch.cat(edges), size)[..., :2]


def mesh(warp: Warp, size: Sequence[int], lines: int = 8) -> Tensor:
    """Lines across the output, its edges among them, in input pixels: (N, K, 2 (lines + 1), FINE, 2)."""
    along, at = torch.meshgrid(torch.linspace(-1, 1, FINE), torch.linspace(-1, 1, lines + 1), indexing="ij")
    return bent(warp, torch.cat([torch.stack([along.T, at.T], dim=-1), torch.stack([at.T, along.T], dim=-1)]), size)


def bent(warp: Warp, lines: Tensor, size: Sequence[int]) -> Tensor:
    """Map lines (L, P, 2) of the output to input pixels: (N, K, L, P, 2)."""
    points = warp.points(lines.flatten(0, 1))  # (N[, K], L P, 2)
    if points.ndim == 3:
        points = points.unsqueeze(1)
    return normalized_to_pixel(points, size).unflatten(2, lines.shape[:2])


def draw(ax: Axes, lines: Tensor, width: float, *, tint: float = 0.0) -> None:
    """Draw lines (K, L, P, 2) of K looks, one color per look; `tint` fills the enclosed area."""
    for k, look in enumerate(lines):
        ax.plot(*look.permute(2, 1, 0).numpy(), color=color(k), linewidth=width, solid_capstyle="round")
        if tint:
            top, right, bottom, left = look
            around = torch.cat([top, right, bottom.flip(0), left.flip(0)])
            ax.fill(*around.T.numpy(), color=color(k), alpha=tint, linewidth=0)

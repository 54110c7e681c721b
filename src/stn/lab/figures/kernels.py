"""The weights of pixels in a sample, computed with the operators as the derivative of a sample in its image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.figures.film import save_gif
from stn.lab.figures.style import DPI, WIDTH, save
from stn.ops import affine_sample

SIDE = 65  # pixels of the image, whose edges have no influence even through the prefilter of the B-spline
SEEN = 4  # pixels shown on each side of the middle one
SHRUNK = 3  # input pixels per output pixel, for a look that downscales
PANELS: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest"},
    "bilinear": {"mode": "bilinear"},
    "bicubic": {"mode": "bicubic"},
    "B-spline": {"mode": "bspline"},
    "Lanczos-3": {"mode": "lanczos3"},
    "bilinear,\n3 times smaller": {"mode": "bilinear", "shrunk": SHRUNK},
    "antialiased,\n3 times smaller": {"mode": "bilinear", "shrunk": SHRUNK, "antialias": True},
}
POINTS = ((0.0, 0.0), (0.25, 0.1), (0.5, 0.5))  # pixels from the middle one
TURN = 32  # frames of the moving picture


def weights(point: tuple[float, float], *, shrunk: float = 1.0, **options: Any) -> Tensor:  # (SIDE, SIDE)
    """Return the weight of each pixel in a sample at `point` (x, y) pixels from the center, with samples `shrunk` apart."""
    image = torch.zeros(1, 1, SIDE, SIDE, requires_grad=True)
    scale = 3 * shrunk / SIDE
    theta = torch.tensor([[scale, 0, 2 * point[0] / SIDE], [0, scale, 2 * point[1] / SIDE]])
    sample = affine_sample(image, theta, (3, 3), **options)[0, 0, 1, 1]
    return torch.autograd.grad(sample, image)[0][0, 0]


def kernels(points: Sequence[tuple[float, float]] = POINTS) -> Figure:
    """Draw the weight of each pixel: one column per kernel, one row per point, marked by a ring."""
    columns = len(PANELS)
    figure = Figure(figsize=(WIDTH, (len(points) + 0.35) * WIDTH / columns + 0.45), layout="constrained")
    axes = figure.subplots(len(points), columns, squeeze=False)
    for row, point in enumerate(points):
        for ax, (name, options) in zip(axes[row], PANELS.items(), strict=True):
            _panel(ax, weights(point, **options), point)
            if row == 0:
                ax.set_title(name, fontsize=8)
        axes[row, 0].set_ylabel(f"({point[0]:g}, {point[1]:g})", fontsize=8)
    scale = axes[0, 0].images[0]
    bar = figure.colorbar(scale, ax=axes.ravel().tolist(), ticks=[-0.5, -0.2, 0, 0.2, 0.5, 1], orientation="horizontal",
                          shrink=0.5, aspect=40)  # fmt: skip
    bar.ax.set_xticklabels(["−0.25", "−0.04", "0", "0.04", "0.25", "1"], fontsize=8)
    return figure


def _panel(ax: Axes, weight: Tensor, point: tuple[float, float]) -> None:
    """Color by the root of a weight, so that small weights are visible."""
    middle = SIDE // 2
    seen = weight[middle - SEEN : middle + SEEN + 1, middle - SEEN : middle + SEEN + 1]
    root = seen.sign() * seen.abs().sqrt()
    reach = SEEN + 0.5
    ax.imshow(root.numpy(), cmap="PuOr", vmin=-1, vmax=1, extent=(-reach, reach, reach, -reach))
    for edge, thick in (("black", 2.4), ("white", 1.0)):  # visible on any color
        ax.plot(*point, "o", markersize=6, markerfacecolor="none", markeredgecolor=edge, markeredgewidth=thick)
    edges = np.arange(-SEEN, SEEN) + 0.5
    ax.set(xticks=[], yticks=[])
    ax.hlines(edges, -reach, reach, color="#cccccc", linewidth=0.3)
    ax.vlines(edges, -reach, reach, color="#cccccc", linewidth=0.3)


def kernels_in_motion() -> Iterator[np.ndarray]:
    """Yield frames of the same panels while the point moves once around the middle pixel."""
    columns = len(PANELS)
    figure = Figure(figsize=(WIDTH, WIDTH / columns + 0.5), dpi=DPI, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots(1, columns)
    for step in range(TURN):
        angle = 2 * math.pi * step / TURN
        point = (1.2 * math.cos(angle), 1.2 * math.sin(angle))
        for ax, (name, options) in zip(axes, PANELS.items(), strict=True):
            ax.clear()
            _panel(ax, weights(point, **options), point)
            ax.set_title(name, fontsize=8)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_kernels(out: Path) -> list[Path]:
    """Write kernels.png and kernels.gif to this folder."""
    return [save(kernels(), out / "kernels.png"), save_gif(list(kernels_in_motion()), out / "kernels.gif")]

"""Common style of the pictures: colors safe for color-blind readers, bare axes, and images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stn.io.files import write_atomically

# Okabe & Ito 2008, first those visible on black and on white. One per look, or run.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442")
WRONG = "#d55e00"
WIDTH, DPI = 8.0, 100  # inches and pixels per inch, for the width of a page
EDGE = 0.04  # margin around an image and its look, as a share of both, for the width of lines
FAR = 1.0  # how far from the image a look is still drawn, in sides of the image: a projective one may reach infinity
CHANNELS = torch.tensor([[1.0, 1.0, 1.0], [0.25, 0.55, 1.0]])  # colors of two channels in one picture: white and blue


def bare(rows: int, columns: int, *, width: float = WIDTH, height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure with (rows, columns) axes without ticks."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure, axes


def color(k: int) -> str:
    return COLORS[k % len(COLORS)]


def rgb(image: Tensor) -> np.ndarray:  # (C, H, W) -> (H, W, 3)
    """Return a picture: one channel in gray, two in white and blue, three as colors, more as their maximum."""
    if len(image) == 2:
        mixed = torch.einsum("chw,cr->hwr", image, CHANNELS.to(image.dtype))
    else:
        grey = image if len(image) == 3 else image.amax(dim=0, keepdim=True)
        mixed = grey.expand(3, -1, -1).movedim(0, -1)
    pixels: np.ndarray = mixed.clamp(0, 1).numpy()
    return pixels


def show(ax: Axes, image: Tensor, *, around: Tensor | None = None) -> None:
    """Draw an image (C, H, W), with room for these points (.., 2) in its pixels, such as the edges of a look."""
    height, width = image.shape[1:]
    ax.imshow(rgb(image))
    left, top, right, bottom = (-0.5, -0.5, width - 0.5, height - 0.5) if around is None else hull((height, width), around)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set_facecolor("#333333")


def hull(size: Sequence[int], points: Tensor) -> tuple[float, float, float, float]:
    """Return the smallest window with an image and points (.., 2), left, top, right, bottom in pixels.

    It has the aspect of the image, so that all pictures of a row are equally large. Points without a finite place are
    left out, and distant ones are brought nearer.
    """
    sides = torch.tensor([float(n) for n in reversed(size)])
    points = points.flatten(0, -2).to(sides)
    points = points[points.isfinite().all(dim=-1)]
    points = torch.cat([points, torch.stack([sides.new_full((2,), -0.5), sides - 0.5])])
    points = points.maximum(-FAR * sides - 0.5).minimum((1 + FAR) * sides - 0.5)
    low, high = points.amin(dim=0), points.amax(dim=0)
    middle, half = (low + high) / 2, sides / 2 * ((high - low) / sides).max() * (1 + EDGE)
    left, top, right, bottom = torch.cat([middle - half, middle + half]).tolist()
    return left, top, right, bottom


def save(figure: Figure, path: Path) -> Path:
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=DPI))
    return path

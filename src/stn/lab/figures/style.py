"""Common style of the pictures: colors safe for color-blind readers, bare axes, and images."""

from __future__ import annotations

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
ROOM = 0.15  # margin around an image, as a share of it, for looks that leave it
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


def show(ax: Axes, image: Tensor, *, room: float = 0.0) -> None:
    """Draw an image (C, H, W) with a margin of `room`."""
    height, width = image.shape[1:]
    ax.imshow(rgb(image))
    ax.set_xlim(-room * width - 0.5, (1 + room) * width - 0.5)
    ax.set_ylim((1 + room) * height - 0.5, -room * height - 0.5)
    ax.set_facecolor("#333333")


def save(figure: Figure, path: Path) -> Path:
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=DPI))
    return path

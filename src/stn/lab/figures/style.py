"""What all pictures share: colors that everybody can tell apart, bare axes, and how an image is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stn.io.files import write_atomically

# Okabe & Ito 2008, those that stand out from black and from white first. One a look, or a run.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442")
WRONG = "#d55e00"
WIDTH, DPI = 8.0, 100  # inches, and their pixels: as wide as a page shows a picture
ROOM = 0.15  # around an image, for looks that leave it, as a share of it
CHANNELS = torch.tensor([[1.0, 1.0, 1.0], [0.25, 0.55, 1.0]])  # what two channels look like in one picture: white and blue


def bare(rows: int, columns: int, *, width: float = WIDTH, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of axes without ticks: (rows, columns) of them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure, axes


def color(k: int) -> str:
    return COLORS[k % len(COLORS)]


def rgb(image: Tensor) -> np.ndarray:  # (C, H, W) -> (H, W, 3)
    """One channel is grey, two are white and blue, three are colors; of more, the brightest is seen."""
    if len(image) == 2:
        mixed = torch.einsum("chw,cr->hwr", image, CHANNELS.to(image.dtype))
    else:
        grey = image if len(image) == 3 else image.amax(dim=0, keepdim=True)
        mixed = grey.expand(3, -1, -1).movedim(0, -1)
    pixels: np.ndarray = mixed.clamp(0, 1).numpy()
    return pixels


def show(ax: Axes, image: Tensor, *, room: float = 0.0) -> None:
    """An image (C, H, W) with `room` around it."""
    height, width = image.shape[1:]
    ax.imshow(rgb(image))
    ax.set_xlim(-room * width - 0.5, (1 + room) * width - 0.5)
    ax.set_ylim((1 + room) * height - 0.5, -room * height - 0.5)
    ax.set_facecolor("#333333")


def save(figure: Figure, path: Path) -> Path:
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=DPI))
    return path

"""The figure of a registration."""

from __future__ import annotations

import base64
import io

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stn.grid import normalized_to_pixel
from stn.transforms import MatrixWarp, Warp

SQUARES = 8  # of the checkerboard along each axis
LINES = 17  # of the grid along each axis
DPI = 60  # of the picture in a notebook: 600 pixels wide


def drawn(moving: Tensor, fixed: Tensor, warp: Warp, before: Warp | None, sample: int) -> Figure:
    """Draw four panels of one sample of (N, C, *size)."""
    size, d = tuple(fixed.shape[2:]), fixed.ndim - 2
    first = (
        MatrixWarp(torch.eye(d, d + 1, dtype=torch.float32, device=fixed.device).unsqueeze(0)) if before is None else before
    )
    with torch.no_grad():
        old, new = (_slice(one.sample(moving, size), sample) for one in (first, warp))
        goal, lines = _slice(fixed, sample), _lines(warp, size, tuple(moving.shape[2:]), sample)
    figure = Figure(figsize=(10, 10 * goal.shape[0] / goal.shape[1]), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    for axes, title in zip(panels, ("before", "after", "checkerboard", "grid"), strict=True):
        axes.set_title(title)
        axes.set_axis_off()
    panels[0].imshow(torch.stack([old, goal, goal], dim=-1).numpy())
    panels[1].imshow(torch.stack([new, goal, goal], dim=-1).numpy())
    panels[2].imshow(torch.where(_board(goal), new, goal).numpy(), cmap="gray", vmin=0, vmax=1)
    _draw_grid(panels[3], _slice(moving, sample), lines)
    return figure


def as_html(figure: Figure) -> str:
    """Return an image element that contains the figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _draw_grid(axes: Axes, image: Tensor, lines: Tensor) -> None:
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
    for family in (lines, lines.transpose(0, 1)):
        for line in family:
            axes.plot(line[:, 0].numpy(), line[:, 1].numpy(), color="tab:orange", linewidth=0.8)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)


def _slice(images: Tensor, sample: int) -> Tensor:  # (N, C, *size) -> (H, W)
    """Return the mean of the channels, of a volume the middle slice, between 0 and 1."""
    image = images[sample].detach().float().mean(dim=0).cpu()
    image = image[image.shape[0] // 2] if image.ndim == 3 else image
    least, most = image.aminmax()
    return (image - least) / (most - least).clamp_min(1e-12)


def _board(like: Tensor) -> Tensor:
    rows, columns = (torch.arange(n, device=like.device) * SQUARES // n for n in like.shape)
    return (rows[:, None] + columns) % 2 == 0


def _lines(warp: Warp, size: tuple[int, ...], in_size: tuple[int, ...], sample: int) -> Tensor:  # (LINES, LINES, 2)
    """Return where a grid of the fixed image lies in the moving one, in pixels; of a volume in its middle slice."""
    ticks = torch.linspace(-1, 1, LINES, dtype=warp.working_dtype, device=warp.device)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    points = torch.stack([x, y, *[torch.zeros_like(x)] * (len(size) - 2)], dim=-1)
    found = warp.points(points.flatten(0, 1))[sample if warp.batch[0] > 1 else 0]
    return normalized_to_pixel(found, in_size)[:, :2].unflatten(0, (LINES, LINES)).cpu()

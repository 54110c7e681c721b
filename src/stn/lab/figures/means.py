"""Mean images before and after the layer: aligned images have a sharp mean."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor

from stn.lab.figures.style import WIDTH, bare, show

MOST = 10  # classes with separate columns


def means(
    images: Tensor,  # (N, C, H, W)
    outputs: Tensor,  # (N, C, h, w), or (N, K, C, h, w)
    classes: Tensor,  # (N,), or (N, L), which are not told apart
) -> Figure:
    """Draw the mean of all images and of each class, above the mean of the outputs, each scaled to full brightness.

    Digits in all positions have a blurred mean. The layer aligns them, so the mean of its outputs is sharp.
    """
    outputs = outputs if outputs.ndim == 5 else outputs.unsqueeze(1)
    found = classes.unique().tolist()[:MOST] if classes.ndim == 1 else []
    groups = {"all": classes.new_ones(len(classes)).bool()} | {str(one): classes == one for one in found}
    rows, ratio = 1 + outputs.shape[1], max(part.shape[-2] / part.shape[-1] for part in (images, outputs))
    across = min(2.0 / ratio, WIDTH / len(groups))
    figure, axes = bare(rows, len(groups), width=max(3.0, across * len(groups)), height=across * ratio * rows + 0.35)
    for column, (name, chosen) in enumerate(groups.items()):
        axes[0, column].set_title(name, fontsize=9)
        for ax, pictures in zip(axes[:, column], (images, *outputs.unbind(dim=1)), strict=True):
            mean = pictures[chosen].mean(dim=0)
            show(ax, mean / mean.amax().clamp_min(1e-6))
    names = ["mean\ninput", *(["mean\noutput"] if rows == 2 else [f"mean\nlook {k}" for k in range(1, rows)])]
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, fontsize=9)
    return figure

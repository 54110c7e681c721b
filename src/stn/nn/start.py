"""A warning where the sampled regions have left the image, or shrunk to a point: the network cannot learn from them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from stn.nn.losses import LATTICE
from stn.transforms import Warp

MOST = 0.5  # share of points outside the image, or of looks that are points, from which on the warning is due
POINT = 0.5  # pixels of the image: the longest side of a look that is a point


@torch.no_grad()
def warn_if_lost(warp: Warp, initial: Warp, image: Tensor) -> bool:
    """Warn if most sampling points lie outside the image, or most looks are smaller than a pixel. Return whether it did.

    initial: the warp with which the layer starts. A layer that starts beyond the image may stay there: the limit is then
    half of the way from its share of points outside to all points.
    """
    size = (LATTICE,) * warp.ndim  # of cell centers: most corners of cells of a volume lie on its border
    points = warp.grid(size).flatten(-warp.ndim - 1, -2)  # (N[, K], P, d)
    if not points.numel():
        return False
    outside, at_first = _share_outside(points), _share_outside(initial.grid(size))
    pixels = points.new_tensor([n / 2 for n in reversed(image.shape[2:])])
    extent = ((points.amax(dim=-2) - points.amin(dim=-2)) * pixels).amax(dim=-1)
    small = float((extent < POINT * (1 - 1 / LATTICE)).to(points.dtype).mean())
    if outside > at_first + MOST * (1 - at_first):
        found = f"{100 * outside:.0f} % of the sampling points of a spatial transformer lie outside the image"
    elif small > MOST:
        found = f"{100 * small:.0f} % of the looks of a spatial transformer are smaller than one pixel of the image"
    else:
        return False
    advice = "call reset_parameters() of its `regression`, lower its learning rate, or add stn.off_image_loss"
    warnings.warn(f"{found}, so it learns little or nothing; {advice}", stacklevel=4)
    return True


def _share_outside(points: Tensor) -> float:
    """NaN counts as outside."""
    return float((~(points.abs() <= 1)).any(dim=-1).to(points.dtype).mean())

"""What keeps a look where it can learn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stn import _check
from stn.transforms import Warp


def off_image_loss(warp: Warp, size: Sequence[int] | None = None, *, align_corners: bool = False) -> Tensor:
    """How far a warp looks beyond the image, to be pulled back: (), 0 where every look lies inside.

    The mean over looks, and over a lattice of `size` points (None: 8 along each axis), of the squared distance, normalised,
    of each point to the image. A look with no pixel on the image gets no gradient from its pixels, and one from this.
    """
    size = (8,) * warp.ndim if size is None else _check.lengths("size", size, warp.ndim)
    beyond = (warp.grid(size, align_corners=align_corners).abs() - 1).clamp_min(0)
    return beyond.square().sum(dim=-1).mean()

"""What to know about a look while it is being learned, and the pull that keeps it near the identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn.grid import lattice
from stn.nn.losses import points_of, restrained, within_reach
from stn.transforms import Warp


def look_diagnostics(
    warp: Warp, size: int | Sequence[int] | None = None, *, align_corners: bool = False
) -> dict[str, Tensor]:
    """How a batch of looks lies, at a lattice of `size` points (None: 8 along each axis). Each value is (), a mean.

    off_image_share: points that lie outside the image. mean_scale: source length a target length, the d-th root of the
    Jacobian's absolute determinant; 1 for the identity, 0 for a look at one point; the mean is over the points where it is
    finite, that is, not on the horizon of a homography. fold_share: points where it folds.
    """
    size = points_of(warp, size)
    points = warp.grid(size, align_corners=align_corners)
    determinant = warp.jacobian_determinant(size, align_corners=align_corners)
    known = determinant.isfinite() | points.isnan().any(dim=-1)  # NaN in theta is to be seen
    scale = torch.where(known, determinant, 0).abs().pow(1 / warp.ndim)
    return {
        "off_image_share": (~(points.abs() <= 1)).any(dim=-1).to(warp.working_dtype).mean(),
        "mean_scale": scale.sum() / known.sum().clamp_min(1),
        "fold_share": (determinant <= 0).to(warp.working_dtype).mean(),
    }


def identity_loss(warp: Warp, size: int | Sequence[int] | None = None, *, align_corners: bool = False) -> Tensor:
    """How far a warp moves points, to be held back: (), 0 for the identity of any family.

    The mean over looks, and over a lattice of `size` points (None: 8 along each axis), of the squared distance, normalised,
    of each point to where the warp takes it; beyond 8 half widths as in `off_image_loss`.
    """
    size = points_of(warp, size)
    stay = lattice(size, align_corners=align_corners, dtype=warp.dtype, device=warp.device)
    moved = within_reach(warp.grid(size, align_corners=align_corners) - stay)
    return restrained(moved.square().sum(dim=-1)).mean()

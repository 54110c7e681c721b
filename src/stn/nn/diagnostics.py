"""Diagnostics of a look during training, and a loss that keeps it near the identity."""

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
    """Summarize a batch of looks at a lattice of points, to watch a training.

    Args:
        warp: The looks.
        size: Lattice (H, W) or (D, H, W) on which to measure, or one length for all axes. None: 8 points along each
            axis.
        align_corners: Whether the lattice reaches the edges of the output (True) or the centers of its outer cells
            (False).

    Returns:
        Three means over looks and points, each a scalar (). off_image_share: share of the points that lie outside the
            image. mean_scale: source length per target length, the d-th root of the Jacobian's absolute determinant: 1
            for the identity, 0 for a look at one point. Points on the horizon of a homography, where it is infinite,
            are left out. fold_share: share of the points where the warp folds.

    Raises:
        InputError: size has a wrong shape or value.

    Example:
        >>> warp = stn.Attention()(torch.tensor([[0.5, 0.0, 0.0]]))  # the middle, magnified twice
        >>> {name: round(value.item(), 3) for name, value in stn.nn.look_diagnostics(warp).items()}
        {'off_image_share': 0.0, 'mean_scale': 0.5, 'fold_share': 0.0}
    """
    size = points_of(warp, size)
    points = warp.grid(size, align_corners=align_corners)
    determinant = warp.jacobian_determinant(size, align_corners=align_corners)
    known = determinant.isfinite() | points.isnan().any(dim=-1)  # keep NaN in theta visible
    scale = torch.where(known, determinant, 0).abs().pow(1 / warp.ndim)
    return {
        "off_image_share": (~(points.abs() <= 1)).any(dim=-1).to(warp.working_dtype).mean(),
        "mean_scale": scale.sum() / known.sum().clamp_min(1),
        "fold_share": (determinant <= 0).to(warp.working_dtype).mean(),
    }


def identity_loss(warp: Warp, size: int | Sequence[int] | None = None, *, align_corners: bool = False) -> Tensor:
    """Measure how far a warp moves points, as a loss: 0 for the identity of any family.

    It is the mean, over looks and a lattice of points, of the squared normalized distance between each point and its
    image under the warp. Beyond 8 half widths it is limited as in `off_image_loss`.

    Args:
        warp: The looks.
        size: Lattice (H, W) or (D, H, W) on which to measure, or one length for all axes. None: 8 points along each
            axis.
        align_corners: Whether the lattice reaches the edges of the output (True) or the centers of its outer cells
            (False).

    Returns:
        A scalar (), in squared half widths of the image.

    Raises:
        InputError: size has a wrong shape or value.

    Example:
        >>> warp = stn.Translation()(torch.tensor([[0.5, 0.0]]))
        >>> round(stn.nn.identity_loss(warp).item(), 3)
        0.25
    """
    size = points_of(warp, size)
    stay = lattice(size, align_corners=align_corners, dtype=warp.dtype, device=warp.device)
    moved = within_reach(warp.grid(size, align_corners=align_corners) - stay)
    return restrained(moved.square().sum(dim=-1)).mean()

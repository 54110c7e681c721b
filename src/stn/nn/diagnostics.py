"""What to know about a look while it is being learned, and the pull that keeps it near the identity."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stn import _check
from stn.grid import lattice
from stn.transforms import Warp

LATTICE = 8  # points along each axis


def look_diagnostics(warp: Warp, size: Sequence[int] | None = None, *, align_corners: bool = False) -> dict[str, Tensor]:
    """How a batch of looks lies, at a lattice of `size` points (None: 8 along each axis). Each value is (), a mean.

    off_image_share: points that lie outside the image. mean_scale: source length a target length, the d-th root of the
    Jacobian's absolute determinant; 1 for the identity, 0 for a look at one point. fold_share: points where it folds.
    """
    size = _lengths(warp, size)
    outside = (warp.grid(size, align_corners=align_corners).abs() > 1).any(dim=-1)
    determinant = warp.jacobian_determinant(size, align_corners=align_corners)
    return {
        "off_image_share": outside.to(warp.working_dtype).mean(),
        "mean_scale": determinant.abs().pow(1 / warp.ndim).mean(),
        "fold_share": (determinant <= 0).to(warp.working_dtype).mean(),
    }


def identity_loss(warp: Warp, size: Sequence[int] | None = None, *, align_corners: bool = False) -> Tensor:
    """How far a warp moves points, to be held back: (), 0 for the identity of any family.

    The mean over looks, and over a lattice of `size` points (None: 8 along each axis), of the squared distance, normalised,
    of each point to where the warp takes it.
    """
    size = _lengths(warp, size)
    stay = lattice(size, align_corners=align_corners, dtype=warp.dtype, device=warp.device)
    return (warp.grid(size, align_corners=align_corners) - stay).square().sum(dim=-1).mean()


def _lengths(warp: Warp, size: Sequence[int] | None) -> tuple[int, ...]:
    return (LATTICE,) * warp.ndim if size is None else _check.lengths("size", size, warp.ndim)

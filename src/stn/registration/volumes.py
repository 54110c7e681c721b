"""Pairs of volumes with a place in the world: from voxels to millimeters before `register`, and back after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn import _check
from stn.space import Space, Volume
from stn.transforms import MatrixWarp, Warp


class Placed(NamedTuple):
    """A pair in tensors, and the warp between the voxels of both from which the search begins."""

    moving: Tensor
    fixed: Tensor
    start: Warp | None
    spacing: Sequence[float]


def placed(moving: Any, fixed: Any, start: Warp | None, spacing: Sequence[float] | None) -> Placed | None:
    """Return a pair of volumes in tensors; None for other images."""
    kinds = [isinstance(image, Volume) for image in (moving, fixed)]
    if not any(kinds):
        return None
    if not all(kinds):
        other = moving if kinds[1] else fixed
        _check.fail(f"moving and fixed must both be stn.Volume, or neither; got one and a {type(other).__name__}")
    if start is None:
        start = shared_place(fixed.space, moving.space)
    return Placed(floating(moving.values), floating(fixed.values), start, spacing or fixed.space.spacing)


def shared_place(fixed: Space, moving: Space) -> MatrixWarp:
    """Return the warp between points at the same place of the world; if the images do not meet there, with centers at the
    same place, as ITK's geometric initializer has them."""
    warp = fixed.to(moving)
    center = torch.zeros(1, fixed.ndim, dtype=torch.float64, device="cpu")
    if bool((warp.points(center).abs() <= 1).all()):
        return MatrixWarp(warp.matrix.float())
    matrix = warp.matrix.clone()
    matrix[..., -1] = 0
    return MatrixWarp(matrix.float())


def floating(values: Tensor) -> Tensor:
    """Return the numbers in a precision that holds all of them."""
    narrow = values.dtype in (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.float32)
    return values.to(torch.float32 if narrow else torch.float64)


def in_volume(found: Tensor, moving: Volume, fixed: Volume) -> Volume:
    """Return warped numbers in the dtype of the moving volume, at the place of the fixed one. Integers are rounded."""
    dtype = moving.values.dtype
    if not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        found = found.double().round().clamp(limits.min, limits.max)
    return Volume(found.detach().to(dtype), fixed.space, moving.header)

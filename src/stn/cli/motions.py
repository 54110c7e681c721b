"""Warps of pictures, described by the motion of their content in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.grid import pixel_to_normalized
from stn.transforms.homographies import corners_to_matrix


def motion_to_theta(
    size: Sequence[int],  # (H, W) of the picture
    *,
    rotate: float = 0.0,  # degrees, counterclockwise
    scale: float = 1.0,
    shear: float = 0.0,  # degrees
    translate: tuple[float, float] = (0.0, 0.0),  # pixels, right and down
) -> Tensor:  # (2, 3)
    """Return the theta that shears, scales and rotates the content about the center, and then translates it.

    Rotations are in pixels, also for pictures that are not square: with half extents H = diag(W, H) / 2, the content moves
    by F = (A, t) in centered pixels, and theta = (H^-1 A^-1 H, -H^-1 A^-1 t), the normalized inverse.
    """
    for name, given in (("rotate", rotate), ("scale", scale), ("shear", shear)):
        _check.finite_number(name, given)
    _check.finite_number("translate", *translate)
    _check.positive("scale", scale)
    _check.angle("shear", shear)
    angle = math.radians(rotate)
    c, s, k = math.cos(angle), math.sin(angle), math.tan(math.radians(shear))
    turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)  # counterclockwise, because y points down
    lean = torch.tensor([[1, -k], [0, 1]], dtype=torch.float64)  # a positive shear leans to the right
    inverse = torch.linalg.inv(scale * turn @ lean)
    half = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    moved = -inverse @ torch.tensor(translate, dtype=torch.float64)
    theta = torch.cat([inverse * half, moved[:, None]], dim=1) / half[:, None]
    if not theta.isfinite().all() or not inverse.any():
        _check.fail(f"scale must leave a visible image; got {scale!r}")
    return theta


def corners_to_homography(size: Sequence[int], corners: Sequence[float]) -> Tensor:
    """Return the homography (3, 3) of the look with these corners, in pixels (x y, clockwise from the top left)."""
    _check.finite_number("corners", *corners)
    pixels = torch.tensor(corners, dtype=torch.float64).view(4, 2)
    _check_convex(pixels)
    return corners_to_matrix(pixel_to_normalized(pixels, size))


def _check_convex(corners: Tensor) -> None:  # (4, 2)
    """Check that corners go around a convex quadrilateral: the edges turn in the same direction at every corner."""
    edges = corners.roll(-1, 0) - corners
    following = edges.roll(-1, 0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    lengths = edges.norm(dim=1) * following.norm(dim=1)
    if not ((turns > 1e-9 * lengths).all() or (turns < -1e-9 * lengths).all()):
        given = tuple(corners.flatten().tolist())
        _check.fail(f"corners must form a convex quadrilateral, in order around it; got {given}")

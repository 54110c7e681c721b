"""Lattices of control points from coarse to fine, with the levels of the images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stn.transforms import BSpline, Family, Velocity
from stn.transforms.bspline import cubic_weights

DEGREE = 3  # n control points have n - DEGREE cells
FEWEST_POINTS = 24  # of the lattice of a flow, along each axis


def coarser(family: Family, level: int) -> Family:
    """Return the family with 2^-level times the cells along each axis, and at least one; other families as they are."""
    if level == 0 or not isinstance(family, BSpline | Velocity):
        return family
    shape = [math.ceil((n - DEGREE) / 2**level) + DEGREE for n in family.shape]
    if isinstance(family, BSpline):
        return BSpline(family.ndim, shape=shape)
    points = min(family.resolution, max(FEWEST_POINTS, math.ceil(family.resolution / 2**level)))
    return Velocity(family.ndim, shape=shape, resolution=points, squarings=family.squarings)


def refined(theta: Tensor, old: Family, new: Family) -> Tensor:  # (.., P) -> (.., P')
    """Return the control points of `new` whose spline is nearest to that of `old`: equal if its cells divide those of it."""
    if old == new:
        return theta
    assert isinstance(old, BSpline | Velocity) and isinstance(new, BSpline | Velocity)
    control = theta.unflatten(-1, (*old.shape, old.ndim))
    for i, (few, many) in enumerate(zip(old.shape, new.shape, strict=True)):
        place = i - old.ndim - 1
        control = (control.movedim(place, -1) @ _between(few, many).to(theta).mT).movedim(-1, place)
    return control.flatten(-old.ndim - 1)


def _between(few: int, many: int) -> Tensor:  # (many, few)
    x = torch.linspace(-1, 1, 4 * many + 1, dtype=torch.float64, device="cpu")
    coarse, fine = (cubic_weights(x, n) for n in (few, many))
    found: Tensor = torch.linalg.pinv(fine) @ coarse
    return found

"""The shape of the image that a family turns.

Normalized coordinates stretch every image to a square. With the half sides E = diag(e_x, e_y[, e_z]) of the image in any one
unit, a linear map A of lengths is E^-1 A E in normalized coordinates: entry i, j of A times e_j / e_i. Rotations and shears
need this on an image that is not square; scales along the axes do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.transforms.base import Constants

Aspect = float | Sequence[float]  # width / height; or (H, W) or (D, H, W) in any unit


def parsed(aspect: Aspect | None, ndim: int) -> Aspect | None:
    """Return width / height in 2-D, and the sides (D, H, W) divided by D in 3-D, which are equal for equal shapes."""
    if aspect is None:
        return None
    sides = _check.aspect("aspect", aspect, ndim)
    return sides[1] / sides[0] if ndim == 2 else tuple(side / sides[0] for side in sides)


def ratios(aspect: Aspect | None, ndim: int) -> list[list[float]] | None:
    """Return e_j / e_i at row i and column j, x first; None for a square."""
    if aspect is None:
        return None
    sides = list(reversed(_check.aspect("aspect", aspect, ndim)))
    return None if len(set(sides)) == 1 else [[across / down for across in sides] for down in sides]


def constants(aspect: Aspect | None, ndim: int) -> Constants | None:
    found = ratios(aspect, ndim)
    return None if found is None else Constants(torch.tensor(found, dtype=torch.float64, device="cpu"))


def in_shape(linear: Tensor, constants: Constants | None) -> Tensor:  # (.., d, d)
    """Return a map of lengths in normalized coordinates. Its diagonal, and the identity, are unchanged, bit for bit."""
    if constants is None:
        return linear
    (factors,) = constants.on(linear.device)
    return linear * factors.to(linear.dtype)


def of_part(sides: Sequence[float], start: Tensor | None) -> tuple[float, ...]:
    """Return the sides of the part of an image that an affine matrix (.., d, d+1) cuts out; the mean over several."""
    if start is None:
        return tuple(sides)
    half = start.new_tensor(list(reversed(sides)))
    lengths = (start[..., :-1].detach() * half.unsqueeze(-1)).norm(dim=-2)  # of the images of the axes
    return tuple(reversed(lengths.reshape(-1, len(sides)).mean(dim=0).tolist()))

"""What keeps a look where it can learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import readable
from stn.transforms import Warp

LATTICE = 8  # points along each axis
NEAR = 8.0  # half widths: squared distances are what they are up to here


def off_image_loss(warp: Warp, size: int | Sequence[int] | None = None, *, align_corners: bool = False) -> Tensor:
    """How far a warp looks beyond the image, to be pulled back: (), 0 where every look lies inside.

    The mean over looks, and over a lattice of `size` points (None: 8 along each axis), of the squared distance, normalised,
    of each point to the image. A look with no pixel on the image gets no gradient from its pixels, and one from this.
    Beyond 8 half widths the square rises no more than to three times what it is there: the horizon of a homography is
    infinitely far.
    """
    beyond = within_reach(warp.grid(points_of(warp, size), align_corners=align_corners).abs() - 1, least=0)
    return restrained(beyond.square().sum(dim=-1)).mean()


def points_of(warp: Warp, size: int | Sequence[int] | None) -> tuple[int, ...]:
    """The lattice at which a warp is judged."""
    return (LATTICE,) * warp.ndim if size is None else _check.lengths("size", size, warp.ndim)


def within_reach(distance: Tensor, least: float | None = None) -> Tensor:
    """Distances whose square is finite in their dtype. Further off, and at infinity, they are constants."""
    most = torch.finfo(distance.dtype).max ** (3 / 8)  # 64 in float16
    return distance.clamp(-most if least is None else least, most)


def restrained(square: Tensor) -> Tensor:
    """A squared distance s^2 up to s = NEAR = r, and 3 r^2 - 2 r^3 / s beyond, which has the same slope there.

    Points near a horizon are at s = |x / w|. The slope in w is at most 2 r^3 / |x| then, however near they are. A logarithm
    would leave 1 / w: one point at 1e-6 from the horizon, and the step is a million times too long.
    """
    if square.numel() and readable(square) and square.detach().amax() <= NEAR**2:
        return square
    far = square > NEAR**2
    distance = torch.where(far, square, 1).sqrt()
    return torch.where(far, 3 * NEAR**2 - 2 * NEAR**3 / distance, square)

"""Losses that keep a look where it gets a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import readable
from stn.transforms import Warp

LATTICE = 8  # points along each axis
NEAR = 8.0  # half widths up to which squared distances are unchanged


def off_image_loss(warp: Warp, size: int | Sequence[int] | None = None, *, align_corners: bool = False) -> Tensor:
    """Measure how far looks extend beyond the image, as a loss: 0 if every look lies inside.

    A look with no pixel on the image gets no gradient from its pixels, but one from this loss. It is the mean, over
    looks and a lattice of points, of the squared normalized distance of each point to the image. Beyond 8 half widths
    the square rises to at most three times its value there, because the horizon of a homography is infinitely far.

    Args:
        warp: The looks.
        size: Lattice (H, W) or (D, H, W) on which to measure, or one length for all axes. None: 8 points along each
            axis.
        align_corners: Whether the lattice reaches the edges of the output (True) or the centers of its outer cells
            (False).

    Returns:
        A scalar (), in squared half widths of the image.

    Raises:
        InputError: size has a wrong shape or value. TypeError: `warp` is no warp.

    Example:
        >>> inside, outside = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.5, 2.5, 0.0]])  # scale, x, y
        >>> stn.off_image_loss(stn.Attention()(inside)), stn.off_image_loss(stn.Attention()(outside)) > 2
        (tensor(0.), tensor(True))
    """
    _check.made("warp", warp, Warp, "stn.Affine()(theta)")
    beyond = within_reach(warp.grid(points_of(warp, size), align_corners=align_corners).abs() - 1, least=0)
    return restrained(beyond.square().sum(dim=-1)).mean()


def points_of(warp: Warp, size: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the size of the lattice on which a warp is measured."""
    return (LATTICE,) * warp.ndim if size is None else _check.lengths("size", size, warp.ndim)


def within_reach(distance: Tensor, least: float | None = None) -> Tensor:
    """Clamp distances so that their square is finite in their dtype. Beyond, and at infinity, they are constants."""
    most = torch.finfo(distance.dtype).max ** (3 / 8)  # 64 in float16
    return distance.clamp(-most if least is None else least, most)


def restrained(square: Tensor) -> Tensor:
    """Limit a squared distance: s^2 up to s = NEAR = r, and 3 r^2 - 2 r^3 / s beyond, which has the same slope there.

    Points near a horizon are at s = |x / w|. The slope in w is then at most 2 r^3 / |x|, at any distance from the
    horizon. A logarithm would leave 1 / w: one point at 1e-6 from the horizon would make the step a million times too
    long.
    """
    if square.numel() and readable(square) and square.detach().amax() <= NEAR**2:
        return square
    far = square > NEAR**2
    distance = torch.where(far, square, 1).sqrt()
    return torch.where(far, 3 * NEAR**2 - 2 * NEAR**3 / distance, square)

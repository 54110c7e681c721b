"""How much of the image a pixel of the output covers: the local Jacobian of a look, and what follows from it.

A pixel that lies s source pixels from its neighbors is to be the average under a triangle of half width s, as when an image
is resized; along one axis its variance is s^2 / 6. A level of a pyramid whose pixels are r apart has blurred by
(r^2 - 1) / 4, and bilinear sampling adds r^2 / 6 in the mean over all places. Both agree if r^2 = 1 + (s^2 - 1) 2 / 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stn.grid import Axes
from stn.ops.rules import Rule

MOST_TAPS_AHEAD = 8  # of the longer axis over the others, at most: hardware stops at 8 or 16
SQUARINGS = 6
FAR = 2.0**20  # pixels between neighbors


def jacobian(rule: Rule, data: Tensor, axes: Axes) -> Tensor:
    """d source pixel_i / d output pixel_j: (d, d, N, K, *size), or (d, d, N, K, 1, ..) of an affine map. NaN is 0."""
    found = rule.jacobian(data, axes)
    return found.nan_to_num(nan=0.0, posinf=2 * FAR, neginf=-2 * FAR).clamp(-FAR, FAR)


def level_of(square: Tensor) -> Tensor:
    """The level, 0 or more, for a squared distance s^2 between neighbors."""
    return torch.where(square > 1, 0.5 * torch.log2(0.6 + 0.4 * square), 0.0)


def squared_distance(jacobian: Tensor) -> Tensor:  # (d, d, ..) -> (..)
    """s^2, at least 1: the mean of the fourth powers of the singular values, rooted. Not their maximum, which has no
    derivative where all axes shrink alike."""
    products = (jacobian.unsqueeze(2) * jacobian.unsqueeze(1)).sum(dim=0)  # of its columns with each other
    return (products.square().sum(dim=(0, 1)) / len(jacobian)).clamp_min(1).sqrt()


def longer_axis(jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (d, d, ..)
    """s^2 across the longer axis of the footprint, the step along it (.., d), s long, and the taps ahead, n >= 1.

    Taps at steps j with weights in proportion to 1 - |j| / n blur as a triangle of n s does beyond one of s.
    """
    rows = jacobian.movedim((0, 1), (-2, -1))
    product = rows @ rows.mT
    direction = main_axis(product)
    along = (direction.unsqueeze(-2) @ product @ direction.unsqueeze(-1)).flatten(-3)
    d = product.shape[-1]
    across = ((product.square().sum(dim=(-2, -1)) - along.square()) / (d - 1)).clamp_min(1).sqrt()
    across = torch.maximum(across, along / MOST_TAPS_AHEAD**2)
    ahead = (along / across).clamp_min(1).sqrt()
    return across, direction * across.sqrt().unsqueeze(-1), ahead


def main_axis(product: Tensor) -> Tensor:  # (.., d, d) symmetric, positive -> (.., d), of length 1
    """The eigenvector of the largest eigenvalue, by squaring the matrix again and again. Unlike `eigh` it has a
    derivative also where other eigenvalues are equal; where the largest are, there is no longer axis."""
    identity = torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)
    power = product + 1e-6 * identity
    for _ in range(SQUARINGS):
        power = power / power.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
        power = power @ power
    column = power.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None].expand(*power.shape[:-1], 1)
    direction = power.gather(-1, column).squeeze(-1)
    return direction / direction.norm(dim=-1, keepdim=True)

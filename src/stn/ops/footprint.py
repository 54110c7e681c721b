"""The footprint of an output pixel in the image: the local Jacobian of a look, and the pyramid level for it.

An output pixel that lies s source pixels from its neighbors shall be the average under a triangle of half width s, as in
resizing; its variance along one axis is s^2 / 6. A pyramid level with pixels r apart has a variance of (r^2 - 1) / 4, and
bilinear sampling adds r^2 / 6 on average. The two variances are equal for r^2 = 1 + (s^2 - 1) 2 / 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stn.grid import Axes
from stn.ops.rules import Rule

MOST_TAPS_AHEAD = 8  # largest ratio of the longer axis to the others; hardware uses 8 or 16
SQUARINGS = 6
FAR = 2.0**20  # pixels between neighbors


def jacobian(rule: Rule, data: Tensor, axes: Axes) -> Tensor:
    """Return d source pixel_i / d output pixel_j: (d, d, N, K, *size), or (d, d, N, K, 1, ..) for affine maps; 0 for NaN."""
    found = rule.jacobian(data, axes)
    return found.nan_to_num(nan=0.0, posinf=2 * FAR, neginf=-2 * FAR).clamp(-FAR, FAR)


def level_of(square: Tensor) -> Tensor:
    """Return the level, at least 0, for a squared distance s^2 between neighbors."""
    return torch.where(square > 1, 0.5 * torch.log2(0.6 + 0.4 * square), 0.0)


def squared_distance(jacobian: Tensor) -> Tensor:  # (d, d, ..) -> (..)
    """Return s^2, at least 1: the root of the mean fourth power of the singular values. Their maximum would have no
    derivative where all axes are downscaled equally."""
    products = (jacobian.unsqueeze(2) * jacobian.unsqueeze(1)).sum(dim=0)  # products of its columns
    return (products.square().sum(dim=(0, 1)) / len(jacobian)).clamp_min(1).sqrt()


def longer_axis(jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (d, d, ..)
    """Return s^2 across the longer axis of the footprint, the step along it (.., d), of length s, and the taps n >= 1.

    Samples at steps j, weighted by 1 - |j| / n, extend the blur of a triangle of s to that of a triangle of n s.
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
    """Return the eigenvector of the largest eigenvalue, by repeated squaring. Unlike `eigh`, it has a derivative also where
    other eigenvalues are equal; if the largest are equal, no axis is longer."""
    identity = torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)
    power = product + 1e-6 * identity
    for _ in range(SQUARINGS):
        power = power / power.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
        power = power @ power
    column = power.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None].expand(*power.shape[:-1], 1)
    direction = power.gather(-1, column).squeeze(-1)
    return direction / direction.norm(dim=-1, keepdim=True)

"""Rotations of the plane and of space, by their angle."""

from __future__ import annotations

import torch
from torch import Tensor

from stn.ops.context import unrounded
from stn.ops.interpolation import sine_quotient


def rotation(angle: Tensor) -> Tensor:
    """(.., 1) radians -> ((cos, -sin), (sin, cos)), (.., 2, 2); or (.., 3) an axis times its angle -> (.., 3, 3)."""
    if angle.shape[-1] == 1:
        cos, sin = angle[..., 0].cos(), angle[..., 0].sin()
        return torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)
    return about_axis(angle)


def about_axis(w: Tensor) -> Tensor:  # (.., 3) -> (.., 3, 3)
    """Rodrigues' formula: R = I + sin t / t K + (1 - cos t) / t^2 K^2, with t = |w| and K v = w x v."""
    x, y, z = w.unbind(dim=-1)
    zero = torch.zeros_like(x)
    rows = [(zero, -z, y), (z, zero, -x), (-y, x, zero)]
    k = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    square = w.square().sum(dim=-1)[..., None, None]
    first, second = sine_quotient(square), sine_quotient(square / 4) ** 2 / 2  # 1 - cos t = 2 sin^2 (t / 2)
    with unrounded(w.device):
        return torch.eye(3, dtype=w.dtype, device=w.device) + first * k + second * (k @ k)


def rotation_vector(matrix: Tensor) -> Tensor:  # (.., 3, 3) -> (.., 3)
    """Return the axis times the angle, 0 to pi, of a rotation: the inverse of `about_axis`, through a quaternion.

    Each of four rows is the quaternion (w, x, y, z) times four times one of its components; the largest is accurate.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(dim=-1) for row in matrix.unbind(dim=-2))
    rows = [
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    ]
    every = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # (.., 4, 4)
    largest = every.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None]
    found = every.gather(-2, largest.expand(*largest.shape[:-1], 4)).squeeze(-2)
    found = found / found.norm(dim=-1, keepdim=True)
    found = torch.where(found[..., :1] < 0, -found, found)
    cos, axis = found[..., :1], found[..., 1:]  # of half the angle, and times the sine of it
    square = axis.square().sum(dim=-1, keepdim=True)
    tiny = square < 1e-16  # the angle is twice the sine there, to rounding
    sin = torch.where(tiny, 1, square).sqrt()
    return axis * torch.where(tiny, 2.0, 2 * torch.atan2(sin, cos) / sin)

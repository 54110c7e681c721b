"""Families of homographies: theta -> a matrix with a last row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stn import _check
from stn.transforms.fitting import Frame, Pairs, homography
from stn.transforms.linear import Linear, rows_of


@dataclass(frozen=True)
class Projective(Linear):
    """x' = (A x + t) / (v x + 1). theta = the matrix ((A, t), (v, 1)) row by row without its last 1: 8 or 15 numbers.

    Args:
        ndim: 1, 2 or 3; other values raise InputError.

    Example:
        >>> stn.Projective()(torch.tensor([[1.0, 0, 0, 0, 1, 0, 0.25, 0]])).points(torch.ones(2))  # v = (0.25, 0)
        tensor([[0.8000, 0.8000]])
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {**rows_of(self.ndim), "perspective": range(self.ndim * (self.ndim + 1), (self.ndim + 1) ** 2 - 1)}

    def identity(self) -> Tensor:
        return torch.eye(self.ndim + 1).flatten()[:-1]

    def _fewest(self) -> int:
        return self.ndim + 2

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        return homography(pairs)

    def _theta(self, matrix: Tensor) -> Tensor:
        return (matrix / matrix[..., -1:, -1:]).flatten(-2)[..., :-1]

    def _matrix(self, theta: Tensor) -> Tensor:
        one = torch.ones_like(theta[..., :1])
        return torch.cat([theta, one], dim=-1).unflatten(-1, (self.ndim + 1, self.ndim + 1))


@dataclass(frozen=True)
class MovedCorners(Linear):
    """The homography that moves the image's corners by theta: 8 numbers, zeros for the identity.

    theta = (dx, dy) of the top left, top right, bottom right and bottom left corner, normalized. Corners on one line
    make a matrix that is finite but singular.

    Args:
        ndim: 2; other values raise InputError.

    Example:
        >>> stn.MovedCorners()(torch.tensor([[0.5, 0.25, 0, 0, 0, 0, 0, 0]])).points(-torch.ones(2))  # top left
        tensor([[-0.5000, -0.7500]])
    """

    _dimensions: ClassVar[tuple[int, ...]] = (2,)

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {"offsets": range(8)}

    def identity(self) -> Tensor:
        return torch.zeros(8)

    def _matrix(self, theta: Tensor) -> Tensor:
        return corners_to_matrix(theta.unflatten(-1, (4, 2)) + _corners(theta))

    def _fewest(self) -> int:
        return 4

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        return homography(pairs)

    def _theta(self, matrix: Tensor) -> Tensor:
        corners = _corners(matrix)
        lifted = torch.cat([corners, torch.ones_like(corners[..., :1])], dim=-1) @ matrix.mT
        return (lifted[..., :-1] / lifted[..., -1:] - corners).flatten(-2)


def _corners(like: Tensor) -> Tensor:  # (4, 2)
    """Return the corners of the image, clockwise from the top left."""
    i = torch.arange(4, device=like.device)  # indexing with a list would wait for the device
    return (torch.stack([(i + 1) // 2 % 2, i // 2], dim=-1) * 2 - 1).to(like.dtype)


LEAST_AREA = 1e-6  # of the triangle at a homography's third corner: no division by zero for one sample of a batch


def corners_to_matrix(corners: Tensor) -> Tensor:  # (.., 4, 2) -> (.., 3, 3)
    """Return the homography that maps the corners of [-1, 1]^2 (order as in `MovedCorners`) to `corners`.

    Closed form by way of the unit square: Heckbert 1989, Fundamentals of Texture Mapping, section 2.2.3.
    """
    _check.corners("corners", corners)
    p0, p1, p2, p3 = corners.unbind(dim=-2)
    e1, e2, skew = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    area = _cross(e1, e2)
    area = torch.where(area.abs() < LEAST_AREA, LEAST_AREA, area)
    g = (_cross(skew, e2) / area).unsqueeze(-1)
    h = (_cross(e1, skew) / area).unsqueeze(-1)
    top = torch.stack([p1 - p0 + g * p1, p3 - p0 + h * p3, p0], dim=-1)  # (.., 2, 3)
    bottom = torch.stack([g, h, torch.ones_like(g)], dim=-1)  # (.., 1, 3)
    right, down, origin = torch.cat([top, bottom], dim=-2).unbind(dim=-1)  # of the unit square
    return torch.stack([right / 2, down / 2, (right + down) / 2 + origin], dim=-1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

"""Linear families: theta -> one small matrix. Each contains the one before it:

    Translation < Rigid < Similarity < Affine < Projective,    Translation < Attention < Similarity

Angles and scales act in normalised coordinates: on an image that is not square, the pixels of a rotated look are sheared.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stn import _check
from stn.transforms.base import Family, eye
from stn.transforms.warp import MatrixWarp, Warp


@dataclass(frozen=True)
class Linear(Family):
    """A family whose transforms are matrices."""

    ndim: int = 2
    _dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def __post_init__(self) -> None:
        _check.dimension(self.ndim, self._dimensions, type(self).__name__)

    @abstractmethod
    def matrix(self, theta: Tensor) -> Tensor:
        """(.., P) -> (.., d, d+1) affine, or (.., d+1, d+1) projective."""

    def _warp(self, theta: Tensor) -> Warp:
        return MatrixWarp(self.matrix(theta))


@dataclass(frozen=True)
class Translation(Linear):
    """x' = x + t. theta = t: 2 or 3 numbers, in half image widths."""

    @property
    def num_params(self) -> int:
        return self.ndim

    def identity(self) -> Tensor:
        return torch.zeros(self.ndim)

    def matrix(self, theta: Tensor) -> Tensor:
        a = torch.eye(self.ndim, dtype=theta.dtype, device=theta.device).expand(*theta.shape[:-1], -1, -1)
        return torch.cat([a, theta.unsqueeze(-1)], dim=-1)


@dataclass(frozen=True)
class Rigid(Linear):
    """x' = R x + t. theta = (angle, tx, ty): radians, from the x axis towards the y axis, so clockwise to the eye."""

    _dimensions: ClassVar[tuple[int, ...]] = (2,)

    @property
    def num_params(self) -> int:
        return 3

    def identity(self) -> Tensor:
        return torch.zeros(3)

    def matrix(self, theta: Tensor) -> Tensor:
        return torch.cat([rotation(theta[..., 0]), theta[..., 1:, None]], dim=-1)


@dataclass(frozen=True)
class Similarity(Linear):
    """x' = s R x + t. theta = (s, angle, tx, ty), angle as in Rigid; s < 1 looks closer."""

    _dimensions: ClassVar[tuple[int, ...]] = (2,)

    @property
    def num_params(self) -> int:
        return 4

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0])

    def matrix(self, theta: Tensor) -> Tensor:
        scaled = theta[..., 0, None, None] * rotation(theta[..., 1])
        return torch.cat([scaled, theta[..., 2:, None]], dim=-1)


@dataclass(frozen=True)
class Attention(Linear):
    """x' = s x + t: an upright crop. theta = (s, tx, ty[, tz]). Jaderberg et al. 2015, eq. 2."""

    @property
    def num_params(self) -> int:
        return 1 + self.ndim

    def identity(self) -> Tensor:
        return torch.tensor([1.0] + [0.0] * self.ndim)

    def matrix(self, theta: Tensor) -> Tensor:
        scaled = theta[..., 0, None, None] * torch.eye(self.ndim, dtype=theta.dtype, device=theta.device)
        return torch.cat([scaled, theta[..., 1:, None]], dim=-1)


@dataclass(frozen=True)
class Affine(Linear):
    """x' = A x + t. theta = the matrix (A | t) row by row: 6 or 12 numbers. Jaderberg et al. 2015, eq. 1."""

    @property
    def num_params(self) -> int:
        return self.ndim * (self.ndim + 1)

    def identity(self) -> Tensor:
        return eye(self.ndim).flatten()

    def matrix(self, theta: Tensor) -> Tensor:
        return theta.unflatten(-1, (self.ndim, self.ndim + 1))


@dataclass(frozen=True)
class Projective(Linear):
    """x' = (A x + t) / (v x + 1). theta = the matrix ((A, t), (v, 1)) row by row without its last 1: 8 or 15 numbers."""

    @property
    def num_params(self) -> int:
        return (self.ndim + 1) ** 2 - 1

    def identity(self) -> Tensor:
        return torch.eye(self.ndim + 1).flatten()[:-1]

    def matrix(self, theta: Tensor) -> Tensor:
        one = torch.ones_like(theta[..., :1])
        return torch.cat([theta, one], dim=-1).unflatten(-1, (self.ndim + 1, self.ndim + 1))


def corners_to_matrix(corners: Tensor) -> Tensor:  # (.., 4, 2) -> (.., 3, 3)
    """The homography that maps the corners of [-1, 1]^2 (top left, top right, bottom right, bottom left) to `corners`.

    Closed form by way of the unit square: Heckbert 1989, Fundamentals of Texture Mapping, section 2.2.3.
    """
    _check.corners("corners", corners)
    p0, p1, p2, p3 = corners.unbind(dim=-2)
    e1, e2, skew = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    area = _cross(e1, e2)
    g = (_cross(skew, e2) / area).unsqueeze(-1)
    h = (_cross(e1, skew) / area).unsqueeze(-1)
    top = torch.stack([p1 - p0 + g * p1, p3 - p0 + h * p3, p0], dim=-1)  # (.., 2, 3)
    bottom = torch.stack([g, h, torch.ones_like(g)], dim=-1)  # (.., 1, 3)
    to_unit_square = corners.new_tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    return torch.cat([top, bottom], dim=-2) @ to_unit_square


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def rotation(angle: Tensor) -> Tensor:
    """((cos, -sin), (sin, cos)): (..) -> (.., 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)

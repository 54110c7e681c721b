"""Linear families: theta -> one small matrix. Each contains the one before it:

    Translation < Rigid < Similarity < Affine < Projective,    Translation < Attention < AnisotropicScale < Affine

Rigid and Similarity are in `turned.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stn import _check
from stn.transforms.aspect import Aspect
from stn.transforms.base import Family, eye
from stn.transforms.matrix import MatrixWarp
from stn.transforms.parts import Number, affine_parts, matrix_exponential


@dataclass(frozen=True)
class Linear(Family[MatrixWarp]):
    """A family whose transforms are matrices."""

    ndim: int = 2
    _dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __post_init__(self) -> None:
        self._set(ndim=_check.dimension(self.ndim, self._dimensions, type(self).__name__))  # numpy's integers as Python's

    @abstractmethod
    def matrix(self, theta: Tensor) -> Tensor:
        """(.., P) -> (.., d, d+1) affine, or (.., d+1, d+1) projective."""

    def _warp(self, theta: Tensor) -> MatrixWarp:
        return MatrixWarp(self.matrix(theta))


@dataclass(frozen=True)
class Translation(Linear):
    """x' = x + t. theta = t: one number for each axis, in half image widths.

    Args:
        ndim: 1, 2 or 3; other values raise InputError.

    Example:
        >>> image = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
        >>> stn.Translation()(torch.tensor([[0.5, 0.0]])).sample(image).flatten()  # reads one pixel further right
        tensor([2., 3., 4., 0.])
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {"translation": range(self.ndim)}

    def identity(self) -> Tensor:
        return torch.zeros(self.ndim)

    def matrix(self, theta: Tensor) -> Tensor:
        a = torch.eye(self.ndim, dtype=theta.dtype, device=theta.device).expand(*theta.shape[:-1], -1, -1)
        return torch.cat([a, theta.unsqueeze(-1)], dim=-1)


@dataclass(frozen=True)
class Attention(Linear):
    """x' = s x + t: an upright crop. theta = (s, tx, ty[, tz]). Jaderberg et al. 2015, eq. 2.

    Args:
        ndim: 1, 2 or 3; other values raise InputError.
        scale: Fixed s, the size of the look as a share of the image; positive. theta is then t alone, and `identity()`
            is the look at the middle. None: s is part of theta.

    Example:
        >>> stn.Attention(scale=0.5)(torch.tensor([[0.5, -0.5]])).points(torch.zeros(2))  # the top right quarter
        tensor([[ 0.5000, -0.5000]])
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            _check.positive("scale", self.scale)

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        if self.scale is not None:
            return {"translation": range(self.ndim)}
        return {"scale": [0], "translation": range(1, 1 + self.ndim)}

    def identity(self) -> Tensor:
        return torch.tensor([1.0] * (self.scale is None) + [0.0] * self.ndim)

    def matrix(self, theta: Tensor) -> Tensor:
        s = theta[..., 0, None, None] if self.scale is None else torch.full_like(theta[..., :1, None], self.scale)
        scaled = s * torch.eye(self.ndim, dtype=theta.dtype, device=theta.device)
        return torch.cat([scaled, theta[..., -self.ndim :, None]], dim=-1)


@dataclass(frozen=True)
class AnisotropicScale(Linear):
    """x' = diag(s) x + t: an upright crop of any aspect. theta = (sx, sy[, sz], tx, ty[, tz]).

    Args:
        ndim: 1, 2 or 3; other values raise InputError.

    Example:
        >>> stn.AnisotropicScale()(torch.tensor([[0.5, 0.25, 0.0, 0.0]])).points(torch.tensor([1.0, 1.0]))
        tensor([[0.5000, 0.2500]])
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {"scale": range(self.ndim), "translation": range(self.ndim, 2 * self.ndim)}

    def identity(self) -> Tensor:
        return torch.tensor([1.0] * self.ndim + [0.0] * self.ndim)

    def matrix(self, theta: Tensor) -> Tensor:
        return torch.cat([torch.diag_embed(theta[..., : self.ndim]), theta[..., self.ndim :, None]], dim=-1)


@dataclass(frozen=True)
class Affine(Linear):
    """x' = A x + t. theta = the matrix (A | t) row by row: 6 numbers, 12 in 3-D, 2 in 1-D. Jaderberg et al. 2015, eq. 1.

    Args:
        ndim: 1, 2 or 3; other values raise InputError.

    Example:
        >>> stn.Affine()(torch.tensor([[0.5, 0.1, 0.2, 0.0, 0.5, 0.0]])).points(torch.tensor([1.0, 1.0]))
        tensor([[0.8000, 0.5000]])
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return rows_of(self.ndim)

    def identity(self) -> Tensor:
        return eye(self.ndim).flatten()

    def matrix(self, theta: Tensor) -> Tensor:
        return theta.unflatten(-1, (self.ndim, self.ndim + 1))

    @staticmethod
    def from_parts(
        *,
        angle: Number = 0.0,  # (..), or (.., 3) in 3-D, as in Rigid
        scale: Number = 1.0,  # (..), or (.., d)
        shear: Number = 0.0,  # (..): of x by y; in 3-D (.., 3): of x by y, of x by z, of y by z
        translation: Number = 0.0,  # (.., d)
        center: Number = 0.0,  # (.., d): the point that stays where it is but for the translation
        ndim: int = 2,
        aspect: Aspect | None = None,
    ) -> MatrixWarp:
        """Make the warp x' = R S D (x - c) + c + t: scale, then shear and rotation, about a center, then a translation.

        Each part is a number, or a tensor whose leading shape .., the batch (N,) or (N, K), broadcasts with the
        others'.

        Args:
            angle: (..) radians, or (.., 3) in 3-D, as in `Rigid`.
            scale: (..), or (.., d): with one axis more than the batch of the other parts, one number for each image
                axis.
            shear: (..): of x by y; in 3-D (.., 3): of x by y, of x by z, of y by z.
            translation: t, (.., d) normalized.
            center: c, (.., d) normalized: the point that only the translation moves.
            ndim: 2 or 3.
            aspect: Shape of the image, as in `Rigid`: R and S act on lengths, not on normalized coordinates.

        Raises:
            InputError: A part has a wrong shape, or ndim is not 2 or 3. TypeError: a part is not floating point.

        Example:
            >>> stn.Affine.from_parts(scale=0.5, center=1.0).points(torch.tensor([1.0, -1.0]))
            tensor([[1., 0.]])
        """
        ndim = _check.dimension(ndim, (2, 3), "Affine.from_parts")
        return MatrixWarp(affine_parts(ndim, angle, scale, shear, translation, center, aspect))


@dataclass(frozen=True)
class ExponentialAffine(Linear):
    """The affine map exp(L), L = ((A, t), (0, 0)): always invertible, orientation kept, theta and -theta inverse.

    theta = (A | t) row by row: 6 numbers, 12 in 3-D, 2 in 1-D, zeros for the identity.

    Args:
        ndim: 1, 2 or 3; other values raise InputError.

    Example:
        >>> family, theta = stn.ExponentialAffine(), torch.randn(8, 6)
        >>> (family(theta) @ family(-theta)).matrix.allclose(torch.eye(2, 3), atol=1e-3)
        True
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return rows_of(self.ndim)

    def identity(self) -> Tensor:
        return torch.zeros(self.num_params)

    def matrix(self, theta: Tensor) -> Tensor:
        rows = theta.unflatten(-1, (self.ndim, self.ndim + 1))
        generator = torch.cat([rows, torch.zeros_like(rows[..., :1, :])], dim=-2)
        return matrix_exponential(generator)[..., : self.ndim, :]


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

    def matrix(self, theta: Tensor) -> Tensor:
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

    def matrix(self, theta: Tensor) -> Tensor:
        i = torch.arange(4, device=theta.device)  # of the corners; indexing with a list would wait for the device
        corners = torch.stack([(i + 1) // 2 % 2, i // 2], dim=-1) * 2 - 1
        return corners_to_matrix(theta.unflatten(-1, (4, 2)) + corners)


LEAST_AREA = 1e-6  # of the triangle at a homography's third corner: no division by zero for one sample of a batch


def rows_of(ndim: int) -> dict[str, Sequence[int]]:
    """Return which numbers of (A | t), row by row, are A and which are t."""
    places = range(ndim * (ndim + 1))  # by remainders, because torch.compile(dynamic=True) cannot look up a symbol in a list
    linear = [i for i in places if i % (ndim + 1) != ndim]
    return {"matrix": linear, "translation": [i for i in places if i % (ndim + 1) == ndim]}


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

"""Linear families: theta -> one small matrix. Each contains the one before it:

    Translation < Rigid < Similarity < Affine < Projective,    Translation < Attention < AnisotropicScale < Affine

Rigid and Similarity are in `turned.py`, Projective and MovedCorners in `homographies.py`.
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
from stn.transforms.fitting import Frame, Pairs, affine, any_weight, joined, one_scale, scale_of_each_axis
from stn.transforms.matrix import MatrixWarp, from_pixel_matrix
from stn.transforms.parts import Number, affine_parts, matrix_exponential


@dataclass(frozen=True)
class Linear(Family[MatrixWarp]):
    """A family whose transforms are matrices."""

    ndim: int = 2
    _dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __post_init__(self) -> None:
        self._set(ndim=_check.dimension(self.ndim, self._dimensions, type(self).__name__))  # numpy's integers as Python's

    @abstractmethod
    def _matrix(self, theta: Tensor) -> Tensor:
        """(.., P) -> (.., d, d+1) affine, or (.., d+1, d+1) projective."""

    def matrix(self, theta: Tensor) -> Tensor:
        """Return the matrices of theta: (.., P) -> (.., d, d+1) affine, or (.., d+1, d+1) projective.

        Args:
            theta: (.., P) parameters.
        """
        _check.rows_of_theta(theta, self.num_params, type(self).__name__)
        return self._matrix(theta)

    def make(self, theta: Tensor) -> MatrixWarp:
        return MatrixWarp(self._matrix(theta))

    def _fit(self, pairs: Pairs, frame: Frame | None, dtype: torch.dtype) -> tuple[MatrixWarp, Tensor]:
        matrix, regular = self._nearest(pairs, frame)
        if frame is None:
            return self(self._theta(matrix).to(dtype)), regular
        sizes = frame.in_size, frame.out_size
        warp = from_pixel_matrix(matrix, *sizes, convention="opencv-inverse", align_corners=frame.align_corners)
        if self._has_pixels(frame):
            return self(self._theta(warp.matrix).to(dtype)), regular
        return MatrixWarp(warp.matrix.to(dtype)), regular

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        """Return the matrix of the least squares, (*batch, d, d+1) or (*batch, d+1, d+1), and where it is determined."""
        _check.no_fit(type(self).__name__)

    def _theta(self, matrix: Tensor) -> Tensor:
        """Return the theta of a matrix of this family: it undoes `matrix`."""
        _check.no_fit(type(self).__name__)

    def _has_pixels(self, frame: Frame) -> bool:
        """Return True if a warp of this family in pixels is one in normalized coordinates too."""
        return True


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

    def _matrix(self, theta: Tensor) -> Tensor:
        a = torch.eye(self.ndim, dtype=theta.dtype, device=theta.device).expand(*theta.shape[:-1], -1, -1)
        return torch.cat([a, theta.unsqueeze(-1)], dim=-1)

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.ndim, dtype=pairs.x.dtype, device=pairs.x.device)
        return joined(eye.expand(*pairs.w.shape[:-1], -1, -1), pairs), any_weight(pairs)

    def _theta(self, matrix: Tensor) -> Tensor:
        return matrix[..., -1]

    def _has_pixels(self, frame: Frame) -> bool:
        return frame.shared_scale() == 1


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

    def _matrix(self, theta: Tensor) -> Tensor:
        s = theta[..., 0, None, None] if self.scale is None else torch.full_like(theta[..., :1, None], self.scale)
        scaled = s * torch.eye(self.ndim, dtype=theta.dtype, device=theta.device)
        return torch.cat([scaled, theta[..., -self.ndim :, None]], dim=-1)

    def _fewest(self) -> int:
        return 1 if self.scale is not None else 2

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        if self.scale is None:
            s, regular = one_scale(pairs)
        else:
            s, regular = torch.full_like(pairs.w[..., 0], self.scale), any_weight(pairs)
        return joined(torch.diag_embed(s.unsqueeze(-1).expand(*s.shape, self.ndim)), pairs), regular

    def _theta(self, matrix: Tensor) -> Tensor:
        return matrix[..., -1] if self.scale is not None else torch.cat([matrix[..., 0, :1], matrix[..., -1]], dim=-1)

    def _has_pixels(self, frame: Frame) -> bool:
        return frame.shared_scale() == 1 if self.scale is not None else frame.shared_scale() is not None


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

    def _matrix(self, theta: Tensor) -> Tensor:
        return torch.cat([torch.diag_embed(theta[..., : self.ndim]), theta[..., self.ndim :, None]], dim=-1)

    def _fewest(self) -> int:
        return 2

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        s, regular = scale_of_each_axis(pairs)
        return joined(torch.diag_embed(s), pairs), regular

    def _theta(self, matrix: Tensor) -> Tensor:
        return torch.cat([matrix.diagonal(dim1=-2, dim2=-1), matrix[..., -1]], dim=-1)


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

    def _matrix(self, theta: Tensor) -> Tensor:
        return theta.unflatten(-1, (self.ndim, self.ndim + 1))

    def _fewest(self) -> int:
        return self.ndim + 1

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        linear, regular = affine(pairs)
        return joined(linear, pairs), regular

    def _theta(self, matrix: Tensor) -> Tensor:
        return matrix.flatten(-2)

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

    def _matrix(self, theta: Tensor) -> Tensor:
        rows = theta.unflatten(-1, (self.ndim, self.ndim + 1))
        generator = torch.cat([rows, torch.zeros_like(rows[..., :1, :])], dim=-2)
        return matrix_exponential(generator)[..., : self.ndim, :]


def rows_of(ndim: int) -> dict[str, Sequence[int]]:
    """Return which numbers of (A | t), row by row, are A and which are t."""
    places = range(ndim * (ndim + 1))  # by remainders, because torch.compile(dynamic=True) cannot look up a symbol in a list
    linear = [i for i in places if i % (ndim + 1) != ndim]
    return {"matrix": linear, "translation": [i for i in places if i % (ndim + 1) == ndim]}

"""Warp: one geometric transform for each image of a batch. It maps target points to source points (`stn.grid`)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice
from stn.ops.reference import coordinate_dtype
from stn.ops.sample import SamplingOptions, affine_sample, grid_sample, projective_sample

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Warp(ABC):
    """A batch of maps from target to source points. Laws, which the tests hold every warp to:

    - `sample(image)` at a pixel is the image at `points` of that pixel's centre;
    - `grid(size)` is `points` of the lattice of that size.
    """

    batch: tuple[int, ...]  # (N,), or (N, K): K looks at each image
    ndim: int
    dtype: torch.dtype
    device: torch.device

    def points(self, xy: Tensor) -> Tensor:
        """Map normalised points: (d,) or (P, d) for all the batch, or (N[, K], .., d) with lengths of 1 broadcast.

        Returns (N[, K], .., d).
        """
        _check.points("xy", xy, self.ndim)
        shape = xy.shape[:-1]
        if xy.ndim > 2:
            shape = _check.batched_points("xy", xy, self.batch)
        flat = xy.expand(*self.batch, *shape, self.ndim).reshape(*self.batch, math.prod(shape), self.ndim)
        return self._map(flat).reshape(*self.batch, *shape, self.ndim)

    def grid(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """The source point of every pixel of an output of this size: (N[, K], *size, d), as `grid_sample` takes it."""
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        return self.points(xy.flatten(0, -2)).unflatten(-2, size)

    def sample(self, image: Tensor, size: Sequence[int] | None = None, **options: Unpack[SamplingOptions]) -> Tensor:
        """Sample image (N, C, *in) at the warp's points: (N[, K], C, *size). size None: as image.

        options: mode, padding_mode, fill_value, align_corners, as in `stn.affine_sample`.
        """
        _check.image("image", image)
        _check.warp_fits(self.batch, image, self.ndim)
        size = tuple(image.shape[2:]) if size is None else _check.lengths("size", size, self.ndim)
        return self._sample(image, size, **options)

    @abstractmethod
    def _map(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d)."""

    @abstractmethod
    def _sample(self, image: Tensor, size: tuple[int, ...], **options: Unpack[SamplingOptions]) -> Tensor: ...


class MatrixWarp(Warp):
    """x' = A x + t, or a homography (A x + t) / w: all linear families."""

    def __init__(self, matrix: Tensor) -> None:  # (N[, K], d, d+1) affine, or (N[, K], d+1, d+1) projective
        self.matrix = matrix
        self.batch = tuple(matrix.shape[:-2])
        self.ndim = matrix.shape[-1] - 1
        self.dtype, self.device = matrix.dtype, matrix.device

    def _map(self, xy: Tensor) -> Tensor:
        dtype = torch.promote_types(self.dtype, xy.dtype)
        matrix = self.matrix.to(dtype)
        mapped = xy.to(dtype) @ matrix[..., :-1].mT + matrix[..., None, :, -1]
        if matrix.shape[-2] == self.ndim:
            return mapped
        return mapped[..., :-1] / mapped[..., -1:]

    def _sample(self, image: Tensor, size: tuple[int, ...], **options: Unpack[SamplingOptions]) -> Tensor:
        op = affine_sample if self.matrix.shape[-2] == self.ndim else projective_sample
        return op(image, self.matrix, size, **options)


class BasisWarp(Warp):
    """x' = x + sum_j b_j(x) c_j: offsets c_j blended by functions b_j that all the batch shares."""

    def __init__(self, basis: Basis, offsets: Tensor) -> None:  # offsets: (N[, K], J, d)
        self.basis = basis
        self.offsets = offsets
        self.batch = tuple(offsets.shape[:-2])
        self.ndim = offsets.shape[-1]
        self.dtype, self.device = offsets.dtype, offsets.device

    def displacement(self, xy: Tensor) -> Tensor:  # (.., P, d) -> (*batch, P, d)
        """sum_j b_j(x) c_j, in float64: the values of b are large against their sum."""
        return self.basis(xy.to(coordinate_dtype(self.device))) @ self.offsets.to(coordinate_dtype(self.device))

    def _map(self, xy: Tensor) -> Tensor:
        dtype = torch.promote_types(self.dtype, xy.dtype)
        return (xy + self.displacement(xy)).to(dtype)

    def _sample(self, image: Tensor, size: tuple[int, ...], **options: Unpack[SamplingOptions]) -> Tensor:
        align_corners = options.get("align_corners", False)
        dtype = coordinate_dtype(self.device)
        xy = lattice(size, align_corners=align_corners, dtype=dtype, device=self.device).flatten(0, -2)
        field = self.displacement(xy).unflatten(-2, size)
        return grid_sample(image, field, relative=True, **options)


class Basis(ABC):
    """Functions b_1 .. b_J on the plane."""

    @abstractmethod
    def __call__(self, xy: Tensor) -> Tensor:
        """Values at points: (.., d) -> (.., J)."""

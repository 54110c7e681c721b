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
from stn.ops.reference import radial_and_linear
from stn.ops.sample import SamplingOptions, affine_sample, projective_sample, thin_plate_sample

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


class ThinPlateWarp(Warp):
    """x' = x + (U_1(x), .., U_T(x), 1, x, y) w: radial functions about control points that all the batch shares."""

    def __init__(self, control_points: Tensor, coefficients: Tensor, dtype: torch.dtype) -> None:
        self.control_points = control_points  # (T, 2)
        self.coefficients = coefficients  # w: (N[, K], T+3, 2), float64: the terms are large against their sum
        self.batch = tuple(coefficients.shape[:-2])
        self.ndim = coefficients.shape[-1]
        self.dtype, self.device = dtype, coefficients.device

    def _map(self, xy: Tensor) -> Tensor:
        precise = xy.to(self.coefficients.dtype)
        moved = radial_and_linear(precise, self.control_points.to(precise.dtype)) @ self.coefficients
        return (precise + moved).to(torch.promote_types(self.dtype, xy.dtype))

    def _sample(self, image: Tensor, size: tuple[int, ...], **options: Unpack[SamplingOptions]) -> Tensor:
        return thin_plate_sample(image, self.coefficients, self.control_points, size, **options)

"""Warp: one geometric transform for each image of a batch. It maps target points to source points (`stn.grid`)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice, normalized_to_pixel
from stn.ops.precision import unrounded
from stn.ops.sample import CallOptions, grid_sample

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from stn.transforms.matrix import MatrixWarp


class Warp(ABC):
    """A batch of maps from target to source points. Laws, which the tests hold every warp to:

    - `sample(image)` at a pixel is the image at `points` of that pixel's centre;
    - `grid(size)` is `points` of the lattice of that size;
    - `(a @ b).points(x)` is `a.points(b.points(x))`, and `w.inverse() @ w` leaves points where they are;
    - `jacobian` is the derivative of `points`;
    - under autocast all of this is the same, to the last bit.
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
        with unrounded(self.device):
            return self._map(flat).reshape(*self.batch, *shape, self.ndim)

    def grid(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """The source point of every pixel of an output of this size: (N[, K], *size, d), as `grid_sample` takes it."""
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        return self.points(xy.flatten(0, -2)).unflatten(-2, size)

    def sample(self, image: Tensor, size: Sequence[int] | None = None, **options: Unpack[CallOptions]) -> Any:
        """Sample image (N, C, *in) at the warp's points: (N[, K], C, *size). size None: as image.

        options: mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid, return_mask, as in
        `stn.affine_sample`.
        """
        _check.image("image", image)
        _check.warp_fits(self.batch, image, self.ndim)
        size = tuple(image.shape[2:]) if size is None else _check.lengths("size", size, self.ndim)
        with unrounded(self.device):
            return self._sample(image, size, **options)

    def inverse(self) -> Warp:
        """The warp from source to target points. Where no formula is known it is found by iteration: `InverseWarp`."""
        return InverseWarp(self)

    def __matmul__(self, other: Warp) -> Warp:
        """First `other`, then this: `(a @ b).points(x) == a.points(b.points(x))`. An image is sampled once."""
        return self.after(other)

    def after(self, inner: Warp) -> Warp:
        """`self @ inner`, for torch.compile, which does not know the operator of classes that are not tensors."""
        return ComposedWarp(self, inner)

    def before(self, outer: MatrixWarp) -> Warp:
        """`outer @ self`. A warp that is of the same kind then, and sampled as quickly, overrides this."""
        return ComposedWarp(outer, self)

    def jacobian(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """d source_i / d target_j at every pixel of an output of this size, normalised: (N[, K], *size, d, d)."""
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        with unrounded(self.device):
            return self._jacobian(xy.expand(*self.batch, *xy.shape)).unflatten(-3, size)

    def jacobian_determinant(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """How much source a piece of target covers: (N[, K], *size). Where it is not positive, the warp folds."""
        return determinant(self.jacobian(size, align_corners=align_corners))

    def fold_share(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """The share of the pixels of an output of this size at which the warp folds: (N[, K]), 0 to 1."""
        folds = self.jacobian_determinant(size, align_corners=align_corners) <= 0
        return folds.to(self.working_dtype).flatten(len(self.batch)).mean(dim=-1)

    @property
    def working_dtype(self) -> torch.dtype:
        """In which coordinates are computed: float32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    @abstractmethod
    def _map(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d)."""

    def _jacobian(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d, d). One pass backward an axis, for no point depends on another."""
        mapped, pull = torch.func.vjp(self._map, xy)[:2]
        axes = torch.eye(self.ndim, dtype=mapped.dtype, device=mapped.device)
        return torch.stack([pull(axis.expand_as(mapped))[0] for axis in axes], dim=-2)

    def _displacements(self, size: tuple[int, ...], align_corners: bool) -> Tensor:
        """Source minus target of every pixel: (*batch, *size, d). Zeros for the identity, exactly."""
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        return (self._map(xy.expand(*self.batch, *xy.shape)) - xy).unflatten(-2, size)

    def _sample(self, image: Tensor, size: tuple[int, ...], **options: Unpack[CallOptions]) -> Any:
        displacements = self._displacements(size, options.get("align_corners", False))
        return grid_sample(image, displacements, relative=True, **options)


class ComposedWarp(Warp):
    """outer after inner."""

    def __init__(self, outer: Warp, inner: Warp) -> None:
        _check.composable(outer.batch, inner.batch, outer.ndim, inner.ndim)
        self.outer, self.inner = outer, inner
        self.batch = max(outer.batch, inner.batch, key=len)
        self.ndim, self.device = outer.ndim, outer.device
        self.dtype = torch.promote_types(outer.dtype, inner.dtype)

    def inverse(self) -> Warp:
        return self.inner.inverse().after(self.outer.inverse())

    def _map(self, xy: Tensor) -> Tensor:
        return _over_looks(self.outer, self.outer._map, _over_looks(self.inner, self.inner._map, xy))

    def _jacobian(self, xy: Tensor) -> Tensor:
        between = _over_looks(self.inner, self.inner._map, xy)
        outer = _over_looks(self.outer, self.outer._jacobian, between)
        return outer @ _over_looks(self.inner, self.inner._jacobian, xy)


class InverseWarp(Warp):
    """The x that `warp` takes to y, found by iteration: x <- x + (y - warp(x)) with a step that halves where it does not
    help, then Newton's. `residual` says how near that comes; where the warp folds there may be no x, or several.

    Derivatives are those of the implicit function, to second order: two steps of Newton's from the solution.
    """

    STEPS, NEWTON_STEPS = 12, 4
    FLAT = 1e-4  # a Jacobian's determinant below which no step of Newton's is taken

    def __init__(self, warp: Warp) -> None:
        self.warp = warp
        self.batch, self.ndim, self.dtype, self.device = warp.batch, warp.ndim, warp.dtype, warp.device

    def inverse(self) -> Warp:
        return self.warp

    def residual(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """How far `warp` of the solution lies from y at most, in pixels of an image of this size: (N[, K])."""
        size = _check.lengths("size", size, self.ndim)
        y = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        found = self.warp.points(self.points(y).detach()).detach()
        off = [normalized_to_pixel(p, size, align_corners=align_corners) for p in (found, y)]
        return (off[0] - off[1]).norm(dim=-1).amax(dim=-1)

    def _map(self, xy: Tensor) -> Tensor:
        y = xy.to(torch.promote_types(self.working_dtype, xy.dtype))
        with torch.no_grad():
            x = self._search(y)
        for _ in range(2):
            x = x + self._newton_step(x, y - self.warp._map(x))
        return x.to(torch.promote_types(self.dtype, xy.dtype))

    def _search(self, y: Tensor) -> Tensor:
        x, rest = y, y - self.warp._map(y)
        step = torch.ones_like(rest[..., :1])
        for k in range(self.STEPS + self.NEWTON_STEPS):
            trial = x + (step * rest if k < self.STEPS else self._newton_step(x, rest))
            left = y - self.warp._map(trial)
            better = left.norm(dim=-1, keepdim=True) < rest.norm(dim=-1, keepdim=True)
            x, rest, step = (
                torch.where(better, trial, x),
                torch.where(better, left, rest),
                torch.where(better, step, step / 2),
            )
        return x

    def _newton_step(self, x: Tensor, rest: Tensor) -> Tensor:
        jacobian = self.warp._jacobian(x)
        flat = (determinant(jacobian).abs() < self.FLAT)[..., None, None]
        eye = torch.eye(self.ndim, dtype=x.dtype, device=x.device)
        solution: Tensor = torch.linalg.solve_ex(torch.where(flat, eye, jacobian), rest.unsqueeze(-1))[0]
        return solution.squeeze(-1)


def determinant(matrix: Tensor) -> Tensor:  # (.., d, d), d = 2 or 3 -> (..)
    """Written out: torch's factorises each matrix, and has no second derivative where one is singular."""
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    a, b, c = matrix.unbind(dim=-2)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1)


def _over_looks(warp: Warp, function: Callable[[Tensor], Tensor], xy: Tensor) -> Tensor:
    """Apply a warp's function of points (*batch, P, d) to points (N, P, d) or (N, K, P, d), whether it has looks or not."""
    if len(warp.batch) == xy.ndim - 2:
        return function(xy)
    if len(warp.batch) == 1:
        return function(xy.flatten(1, 2)).unflatten(1, xy.shape[1:3])
    return function(xy.unsqueeze(1).expand(*warp.batch, *xy.shape[1:]))

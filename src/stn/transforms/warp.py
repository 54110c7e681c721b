"""Warp: one geometric transform for each image of a batch. It maps target points to source points (`stn.grid`)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice
from stn.ops.context import unrounded
from stn.ops.sample import Sampled, displaced_sample
from stn.ops.sampling import CallOptions

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
        """Map normalised points: (d,) or (P, d) for all the batch, or (N[, K], .., d), with lengths of 1 broadcast.

        Returns (N[, K], .., d). A warp of one sample maps the points of any batch.
        """
        _check.points("xy", xy, self.ndim)
        batch, shape = self.batch, xy.shape[:-1]
        if xy.ndim > 2:
            shape = _check.batched_points("xy", xy, self.batch)
            batch = joint_batch(self.batch, xy.shape[: len(self.batch)])
        flat = xy.expand(*batch, *shape, self.ndim).reshape(*batch, math.prod(shape), self.ndim)
        with unrounded(self.device):
            return over_batch(self, self._map, flat).reshape(*batch, *shape, self.ndim)

    def grid(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """The source point of every pixel of an output of this size: (N[, K], *size, d), as `grid_sample` takes it."""
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        return self.points(xy.flatten(0, -2)).unflatten(-2, size)

    @overload
    def sample(
        self,
        image: Tensor,
        size: Sequence[int] | None = None,
        *,
        return_mask: Literal[False] = False,
        **options: Unpack[CallOptions],
    ) -> Tensor: ...
    @overload
    def sample(
        self,
        image: Tensor,
        size: Sequence[int] | None = None,
        *,
        return_mask: Literal[True],
        **options: Unpack[CallOptions],
    ) -> tuple[Tensor, Tensor]: ...
    def sample(
        self,
        image: Tensor,
        size: Sequence[int] | None = None,
        *,
        return_mask: bool = False,
        **options: Unpack[CallOptions],
    ) -> Sampled:
        """Sample image (N, C, *in) at the warp's points: (N[, K], C, *size). size None: as image. A warp of one sample
        is that of every image.

        return_mask, and options (mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid): as in
        `stn.affine_sample`.
        """
        _check.image("image", image)
        _check.warp_fits(self.batch, image, self.ndim)
        size = tuple(image.shape[2:]) if size is None else _check.lengths("size", size, self.ndim)
        with unrounded(self.device):
            return self._sample(image, size, return_mask, options)

    def inverse(self) -> Warp:
        """The warp from source to target points. Where no formula is known it is found by iteration: `InverseWarp`."""
        from stn.transforms.inverse import InverseWarp  # which is a Warp, and so imports this file

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
        """How much source a piece of target covers: (N[, K], *size). Where it is not positive, the warp folds.

        On the horizon of a homography it is infinite.
        """
        jacobian = self.jacobian(size, align_corners=align_corners)
        return torch.where(jacobian.isinf().any(dim=-1).any(dim=-1), torch.inf, determinant(jacobian))

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
        """(*batch, P, d) -> (*batch, P, d, d)."""
        return self._linearized(xy)[1]

    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """`_map` and `_jacobian` of the same points. One pass backward an axis, for no point depends on another."""
        mapped, pull = torch.func.vjp(self._map, xy)[:2]
        axes = torch.eye(self.ndim, dtype=mapped.dtype, device=mapped.device)
        return mapped, torch.stack([pull(axis.expand_as(mapped))[0] for axis in axes], dim=-2)

    def _displacements(self, size: tuple[int, ...], align_corners: bool) -> Tensor:
        """Source minus target of every pixel: (*batch, *size, d). Zeros for the identity, exactly."""
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        return (self._map(xy.expand(*self.batch, *xy.shape)) - xy).unflatten(-2, size)

    def _sample(self, image: Tensor, size: tuple[int, ...], return_mask: bool, options: CallOptions) -> Sampled:
        displacements = self._displacements(size, options.get("align_corners", False))
        return displaced_sample(image, displacements, return_mask, options)


class ComposedWarp(Warp):
    """outer after inner."""

    def __init__(self, outer: Warp, inner: Warp) -> None:
        _check.composable(outer.batch, inner.batch, outer.ndim, inner.ndim)
        self.outer, self.inner = outer, inner
        self.batch = joint_batch(outer.batch, inner.batch)
        self.ndim, self.device = outer.ndim, outer.device
        self.dtype = torch.promote_types(outer.dtype, inner.dtype)

    def inverse(self) -> Warp:
        return self.inner.inverse().after(self.outer.inverse())

    def _map(self, xy: Tensor) -> Tensor:
        between, lost = self._between(xy)
        found = over_batch(self.outer, self.outer._map, between)
        return torch.where(lost, torch.inf, found)

    def _jacobian(self, xy: Tensor) -> Tensor:
        between, lost = self._between(xy)
        outer = over_batch(self.outer, self.outer._jacobian, between)
        inner = over_batch(self.inner, self.inner._jacobian, xy)
        lost = (lost | outer.isinf().any(dim=-1).any(dim=-1, keepdim=True)).unsqueeze(-1)
        return torch.where(lost, torch.inf, torch.where(lost, 0, outer) @ torch.where(lost, 0, inner))

    def _between(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """What the outer warp maps, and where the inner one has a horizon: no outer warp brings such a point back.

        The middle stands for it: infinity times zero would make the whole gradient of both warps NaN.
        """
        between = over_batch(self.inner, self.inner._map, xy)
        lost = between.isinf().any(dim=-1, keepdim=True)
        return torch.where(lost, 0, between), lost


def determinant(matrix: Tensor) -> Tensor:  # (.., d, d), d = 2 or 3 -> (..)
    """Written out: torch's factorises each matrix, and has no second derivative where one is singular."""
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    a, b, c = matrix.unbind(dim=-2)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1)


def joint_batch(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The batch of both: (N,) or (N, K), where lengths of 1, and looks that one has not, are the other's."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = (*shorter, *(1,) * (len(longer) - len(shorter)))
    return tuple(m if n == 1 else n for n, m in zip(longer, padded, strict=True))


def over_batch(warp: Warp, function: Callable[[Tensor], Tensor], xy: Tensor) -> Tensor:
    """Apply a warp's function of points (*batch, P, d) to points (*lead, P, d) of a larger batch, which the warp's
    broadcasts to: samples and looks that share a map are points of one set to it, and the map is not repeated."""
    lead = xy.shape[:-2]
    own = (*warp.batch, *(0,) * (len(lead) - len(warp.batch)))  # 0: it has no such dimension
    shared = [i for i, (n, m) in enumerate(zip(own, lead, strict=True)) if n == 0 or (n == 1 and m != 1)]
    if not shared:
        return function(xy)
    order = [i for i in range(len(lead)) if i not in shared] + shared
    back = [order.index(i) for i in range(len(lead))]
    sets = xy.permute(*order, -2, -1)
    count = math.prod(sets.shape[len(lead) - len(shared) : -1])
    out = function(sets.reshape(*warp.batch, count, xy.shape[-1]))
    out = out.reshape(*sets.shape[:-1], *out.shape[len(warp.batch) + 1 :])
    return out.permute(*back, *range(len(lead), out.ndim))

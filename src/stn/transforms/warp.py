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
    """A batch of maps from target to source points. Families make warps, and `a @ b` composes them: first b, then a.

    `batch` is (N,), or (N, K): K looks at each image. The tests hold every warp to these laws:

    - `sample(image)` at a pixel is the image at `points` of that pixel's center;
    - `grid(size)` is `points` of the lattice of that size;
    - `(a @ b).points(x)` is `a.points(b.points(x))`, and `w.inverse() @ w` leaves points where they are;
    - `jacobian` is the derivative of `points`;
    - under autocast all of this is the same, to the last bit.

    Example:
        >>> half = stn.Attention()(torch.tensor([[0.5, 0.0, 0.0]]))
        >>> shift = stn.Translation()(torch.tensor([[0.2, 0.0]]))
        >>> (half @ shift).points(torch.tensor([1.0, 0.0]))  # (1 + 0.2) / 2
        tensor([[0.6000, 0.0000]])
        >>> (half @ shift).sample(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    batch: tuple[int, ...]  # (N,), or (N, K): K looks at each image
    ndim: int
    dtype: torch.dtype
    device: torch.device

    def points(self, xy: Tensor) -> Tensor:
        """Map normalized points. A warp of one sample maps the points of any batch.

        Args:
            xy: (d,) or (P, d) for all the batch, or (N, .., d) or (N, K, .., d), where lengths of 1 broadcast.

        Returns:
            (N, .., d) or (N, K, .., d).

        Raises:
            InputError: xy has a wrong shape. TypeError: it is not a floating-point tensor.
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
        """Return the source point of every pixel of an output, as `grid_sample` takes it.

        Args:
            size: Size of the output in pixels, (H, W) or (D, H, W).
            align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).

        Returns:
            (N, *size, d) or (N, K, *size, d), normalized.
        """
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
        """Sample an image at the points of the warp. A warp of one sample is applied to every image.

        Args:
            image: (N, C, H, W) or (N, C, D, H, W).
            size: Output size (H, W) or (D, H, W) in pixels. None: as image.
            return_mask: Also return the fraction of the kernel that lay inside the image.
            **options: mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid: see
                `stn.affine_sample`.

        Returns:
            (N, C, *size) or (N, K, C, *size); with return_mask a pair of it and the mask, where C = 1.

        Raises:
            InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.
        """
        _check.image("image", image)
        _check.warp_fits(self.batch, image, self.ndim)
        size = tuple(image.shape[2:]) if size is None else _check.lengths("size", size, self.ndim)
        with unrounded(self.device):
            return self._sample(image, size, return_mask, options)

    def inverse(self) -> Warp:
        """Return the warp from source to target points, by iteration (`InverseWarp`) where no formula is known."""
        from stn.transforms.inverse import InverseWarp  # which is a Warp, and so imports this file

        return InverseWarp(self)

    def __matmul__(self, other: Warp) -> Warp:
        """Compose: first `other`, then this, `(a @ b).points(x) == a.points(b.points(x))`. An image is sampled once."""
        return self.after(other)

    def after(self, inner: Warp) -> Warp:
        """Return `self @ inner`, for torch.compile, which supports this operator only for tensors."""
        return ComposedWarp(self, inner)

    def before(self, outer: MatrixWarp) -> Warp:
        """Return `outer @ self`. Warps whose result is of the same kind, and as quick to sample, override this."""
        return ComposedWarp(outer, self)

    def jacobian(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """Return d source_i / d target_j, normalized, at every pixel of an output: (N[, K], *size, d, d).

        `size` and `align_corners` describe the output, as in `grid`.
        """
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        with unrounded(self.device):
            return self._jacobian(xy.expand(*self.batch, *xy.shape)).unflatten(-3, size)

    def jacobian_determinant(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """Return the source area (volume) per target area at every pixel. Where it is not positive, the warp folds.

        `size` and `align_corners` describe the output, as in `grid`. The result is (N[, K], *size), and infinite on the
        horizon of a homography.
        """
        jacobian = self.jacobian(size, align_corners=align_corners)
        return torch.where(jacobian.isinf().any(dim=-1).any(dim=-1), torch.inf, determinant(jacobian))

    def fold_share(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """Return the share of an output's pixels, 0 to 1, at which the warp folds: (N,) or (N, K).

        `size` and `align_corners` describe the output, as in `grid`.
        """
        folds = self.jacobian_determinant(size, align_corners=align_corners) <= 0
        return folds.to(self.working_dtype).flatten(len(self.batch)).mean(dim=-1)

    @property
    def working_dtype(self) -> torch.dtype:
        """The dtype in which coordinates are computed: float32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    @abstractmethod
    def _map(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d)."""

    def _jacobian(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d, d)."""
        return self._linearized(xy)[1]

    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Return `_map` and `_jacobian` of the same points. Points are independent: one backward pass for each axis."""
        mapped, pull = torch.func.vjp(self._map, xy)[:2]
        axes = torch.eye(self.ndim, dtype=mapped.dtype, device=mapped.device)
        return mapped, torch.stack([pull(axis.expand_as(mapped))[0] for axis in axes], dim=-2)

    def _displacements(self, size: tuple[int, ...], align_corners: bool) -> Tensor:
        """Return source minus target for every pixel: (*batch, *size, d). Exact zeros for the identity."""
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        return (self._map(xy.expand(*self.batch, *xy.shape)) - xy).unflatten(-2, size)

    def _sample(self, image: Tensor, size: tuple[int, ...], return_mask: bool, options: CallOptions) -> Sampled:
        displacements = self._displacements(size, options.get("align_corners", False))
        return displaced_sample(image, displacements, return_mask, options)


class ComposedWarp(Warp):
    """The composition of two warps: `outer` after `inner`."""

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
        """Return the points that the outer warp maps, and whether the inner warp lost them on a horizon.

        No outer warp brings a lost point back. The middle replaces it: infinity times zero would make the whole
        gradient of both warps NaN.
        """
        between = over_batch(self.inner, self.inner._map, xy)
        lost = between.isinf().any(dim=-1, keepdim=True)
        return torch.where(lost, 0, between), lost


def determinant(matrix: Tensor) -> Tensor:  # (.., d, d), d = 2 or 3 -> (..)
    """Return the determinant by its formula: torch's factorizes, and has no second derivative at singular matrices."""
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    a, b, c = matrix.unbind(dim=-2)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1)


def joint_batch(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Return the batch of both, (N,) or (N, K). A length of 1, or a missing K, is taken from the other."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = (*shorter, *(1,) * (len(longer) - len(shorter)))
    return tuple(m if n == 1 else n for n, m in zip(longer, padded, strict=True))


def over_batch(warp: Warp, function: Callable[[Tensor], Tensor], xy: Tensor) -> Tensor:
    """Apply a warp's function of points (*batch, P, d) to points (*lead, P, d) of a larger batch.

    The warp's batch broadcasts to the larger one. Samples and looks that share a map are joined into one set of points,
    and the map is not repeated.
    """
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

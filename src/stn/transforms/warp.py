"""Warp: one geometric transform for each image of a batch. It maps target points to source points (`stn.grid`).

Compositions and inverses of warps are warps, and so are here too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice, normalized_to_pixel
from stn.ops.context import unrounded
from stn.ops.sample import Sampled, displaced_sample
from stn.ops.sampling import CallOptions
from stn.ops.torch_private import is_transformed
from stn.transforms.search import FLAT, SOLVED, determinant, follow, is_traced, scale, search, solve

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
        return InverseWarp(self)

    def __matmul__(self, other: Warp) -> Warp:
        """First `other`, then this: `(a @ b).points(x) == a.points(b.points(x))`. An image is sampled once."""
        return self.after(other)

    def after(self, inner: Warp) -> Warp:
        """`self @ inner`, for torch.compile, which does not know the operator of classes that are not tensors."""
        return ComposedWarp(self, inner)

    def before(self, outer: Warp) -> Warp:
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


class InverseWarp(Warp):
    """The x that `warp` takes to y, found point by point: by Newton's method with a step that halves where it does not
    help, and for a point that this does not solve, again from the nearest of a lattice of mapped points.

    Where `warp` does not fold this finds the x; where it folds there may be none, or several. `solved` says at which
    points there is one, `residual` how far off the worst is. Derivatives are those of the implicit function, to second
    order, and zero at a point without a solution. While torch.compile or torch.func traces, which see no numbers, all
    points take the same few steps from one start.
    """

    def __init__(self, warp: Warp) -> None:
        self.warp = warp
        self.batch, self.ndim, self.dtype, self.device = warp.batch, warp.ndim, warp.dtype, warp.device

    def inverse(self) -> Warp:
        return self.warp

    def residual(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """How far `warp` of the solution lies from y at most, in pixels of an image of this size: (N[, K])."""
        return self._distances(size, align_corners).flatten(len(self.batch)).amax(dim=-1)

    def solved(self, size: Sequence[int], *, align_corners: bool = False, tolerance: float = 0.01) -> Tensor:
        """Whether the pixel has a source point, up to `tolerance` pixels, for each of this size: bool (N[, K], *size)."""
        _check.positive("tolerance", tolerance)
        return self._distances(size, align_corners) <= tolerance

    def _distances(self, size: Sequence[int], align_corners: bool) -> Tensor:
        """From `warp` of the solution to y, in pixels of an image of this size: (N[, K], *size)."""
        size = _check.lengths("size", size, self.ndim)
        y = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device)
        with torch.no_grad():
            found = self.warp.points(self.points(y.flatten(0, -2))).unflatten(-2, size)
        off = [normalized_to_pixel(p, size, align_corners=align_corners) for p in (found, y)]
        return (off[0] - off[1]).norm(dim=-1)

    def _map(self, xy: Tensor) -> Tensor:
        return self._solution(xy)[0].to(torch.promote_types(self.dtype, xy.dtype))

    def _jacobian(self, xy: Tensor) -> Tensor:
        """The inverse of the warp's own at the solution; zeros where there is none."""
        x, sound = self._solution(xy)
        jacobian, sound = self.warp._jacobian(x), sound[..., None, None]
        eye = torch.eye(self.ndim, dtype=x.dtype, device=x.device)
        jacobian = torch.where(sound, jacobian, eye)
        columns = [solve(jacobian, column.expand_as(x)) for column in eye]
        return torch.where(sound, torch.stack(columns, dim=-1), 0)

    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(xy), self._jacobian(xy)

    def _solution(self, xy: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, P, d) -> as it is, and (*batch, P)
        """The solution, with its derivatives, and whether it is one that has derivatives."""
        y = xy.to(torch.promote_types(self.working_dtype, xy.dtype))
        with torch.no_grad():
            found = (follow if is_traced(y) else search)(self.warp, y.detach())
        x, jacobian = found.x.detach(), found.jacobian.detach()
        sound = (found.off.detach() <= SOLVED * scale(y.detach())) & (determinant(jacobian).abs() > FLAT)
        if is_transformed() or y.requires_grad or self.warp._map(x[..., :1, :]).requires_grad:
            x = self._with_derivatives(x, y, jacobian, sound)
        return x, sound

    def _with_derivatives(self, x: Tensor, y: Tensor, jacobian: Tensor, sound: Tensor) -> Tensor:
        """x as it is, with the derivatives of the implicit function warp(x) = y.

        One step x + J^-1 (y - warp(x)) brings the first derivative, one more the second. J is a constant in both: at the
        solution y - warp(x) is zero, so J's derivative has no part in the first; in the second step the first derivative
        of y - warp(x) is zero too, so that it has none in the second.
        """
        for _ in range(2):
            step = solve(jacobian, torch.where(sound.unsqueeze(-1), y - self.warp._map(x), 0))
            x = x + (step - step.detach())
        return x


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

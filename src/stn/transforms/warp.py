"""Warp: one geometric transform for each image of a batch. It maps target points to source points (`stn.grid`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice, normalized_to_pixel, pixel_to_normalized
from stn.ops.context import unrounded
from stn.ops.options import CallOptions
from stn.ops.rules import Rule
from stn.ops.sample import DISPLACED, Sampled, displaced_sample
from stn.transforms.batches import joint_batch, over_batch
from stn.transforms.carrying import Carrying
from stn.transforms.cramer import determinant, solve
from stn.transforms.saved import write_warp
from stn.transforms.search import solution
from stn.transforms.writing import sample_each

if TYPE_CHECKING:
    from typing_extensions import Unpack

Size = int | Sequence[int]  # (H, W) or (D, H, W) in pixels, or one length for all axes


class Warp(Carrying):
    """A batch of maps from target to source points. Families make warps, and `a @ b` composes them: first b, then a.

    `batch` is (N,), or (N, K): K looks at each image. `theta` is what the family was given, None for other warps.
    `warp[i]` and `warp[:, k]` are parts of a batch. Every warp satisfies these laws, which the tests check:

    - `sample(image)` at a pixel is the image at `points` of that pixel's center;
    - `grid(size)` is `points` of the lattice of that size;
    - `(a @ b).points(x)` is `a.points(b.points(x))`, and `w.inverse() @ w` leaves points where they are;
    - `jacobian` is the derivative of `points`;
    - under autocast all of this is the same, to the last bit.

    A subclass sets `batch`, `ndim`, `dtype` and `device`, and defines `map`; the rest follows.

    Example:
        >>> half = stn.Attention()(torch.tensor([[0.5, 0.0, 0.0]]))
        >>> shift = stn.Translation()(torch.tensor([[0.2, 0.0]]))
        >>> (half @ shift).points(torch.tensor([1.0, 0.0]))  # (1 + 0.2) / 2
        tensor([[0.6000, 0.0000]])
    """

    def points(
        self, xy: Tensor, *, pixels: tuple[Sequence[int], Sequence[int]] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map points of the output to points of the image. A warp of one sample maps the points of any batch.

        Args:
            xy: (d,) or (P, d) for all the batch, or (N, .., d) or (N, K, .., d), where lengths of 1 broadcast. Normalized.
            pixels: (in_size, out_size): xy are pixels of an output of `out_size`, and the result is in pixels of an
                image of `in_size`, 0 at the center of the first. For points of the image use the inverse:
                `warp.inverse().points(xy, pixels=(out_size, in_size))`.
            align_corners: Of the normalized coordinates, if `pixels` is given.

        Returns:
            (N, .., d) or (N, K, .., d).
        """
        _check.points("xy", xy, self.ndim)
        if pixels is not None:
            in_size, out_size = _check.two_sizes("pixels", pixels, self.ndim)
            found = self.points(pixel_to_normalized(xy, out_size, align_corners=align_corners))
            return normalized_to_pixel(found, in_size, align_corners=align_corners)
        batch, shape = self.batch, xy.shape[:-1]
        if xy.ndim > 2:
            shape = _check.batched_points("xy", xy, self.batch)
            batch = joint_batch(self.batch, xy.shape[: len(self.batch)])
        flat = xy.expand(*batch, *shape, self.ndim).reshape(*batch, math.prod(shape), self.ndim)
        with unrounded(self.device):
            return over_batch(self, self.map, flat).reshape(*batch, *shape, self.ndim)

    def grid(self, size: Size, *, align_corners: bool = False) -> Tensor:
        """Return the source point of every pixel of an output, as `grid_sample` takes it.

        Args:
            size: Size of the output in pixels, (H, W) or (D, H, W), or one length for all axes.
            align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).

        Returns:
            (N, *size, d) or (N, K, *size, d), normalized.
        """
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        return self.points(xy.flatten(0, -2)).unflatten(-2, size)

    @overload  # type: ignore[override]  # mypy does not see that the three cover it
    def sample(
        self, image: Tensor, size: Size | None = None, *, return_mask: Literal[False] = False, **options: Unpack[CallOptions]
    ) -> Tensor: ...
    @overload
    def sample(
        self, image: Tensor, size: Size | None = None, *, return_mask: Literal[True], **options: Unpack[CallOptions]
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def sample(
        self, image: Tensor, size: Size | None = None, *, return_mask: bool, **options: Unpack[CallOptions]
    ) -> Sampled: ...
    def sample(
        self,
        image: Tensor,
        size: Size | None = None,
        *,
        return_mask: bool = False,
        **options: Unpack[CallOptions],
    ) -> Sampled:
        """Sample an image at the points of the warp. A warp of one sample is applied to every image.

        Args:
            image: (N, C, H, W) or (N, C, D, H, W); or (N, K, C, ..), an image for each of K looks.
            size: Output size (H, W) or (D, H, W) in pixels, or one length for all axes. None: as image.
            return_mask: Also return the fraction of the kernel that lay inside the image.
            **options: mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid: see
                `stn.affine_sample`.

        Returns:
            (N, C, *size) or (N, K, C, *size); with return_mask a pair of it and the mask, where C = 1.

        Raises:
            InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.
        """
        if len(self.batch) == 2 and isinstance(image, Tensor) and image.ndim == self.ndim + 3:
            return sample_each(self, image, size, return_mask, options)
        _check.image("image", image)
        self._check_image(image)
        size = _check.lengths("size", tuple(image.shape[2:]) if size is None else size, self.ndim)
        with unrounded(self.device):
            return self._sample(image, size, return_mask, options)

    def inverse(self) -> Warp:
        """Return the warp from source to target points, by iteration (`InverseWarp`) where no formula is known."""
        return InverseWarp(self)

    def __matmul__(self, other: Warp) -> Warp:
        """Compose: first `other`, then this, `(a @ b).points(x) == a.points(b.points(x))`. An image is sampled once."""
        return self.after(other)

    def after(self, inner: Warp) -> Warp:
        """Return `self @ inner`, for torch.compile, which supports this operator only for tensors."""
        return _check.made("the other", inner, Warp, "stn.Affine()(theta)").before(self)

    def before(self, outer: Warp) -> Warp:
        """Return `outer @ self`. Warps whose result is of the same kind, and as quick to sample, override this."""
        return ComposedWarp(outer, self)

    def jacobian(self, size: Size, *, align_corners: bool = False) -> Tensor:
        """Return d source_i / d target_j, normalized, at every pixel of an output: (N[, K], *size, d, d).

        `size` and `align_corners` describe the output, as in `grid`.
        """
        size = _check.lengths("size", size, self.ndim)
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        with unrounded(self.device):
            return self._jacobian(xy.expand(*self.batch, *xy.shape)).unflatten(-3, size)

    def jacobian_determinant(self, size: Size, *, align_corners: bool = False) -> Tensor:
        """Return the source area (volume) per target area at every pixel. Where it is not positive, the warp folds.

        `size` and `align_corners` describe the output, as in `grid`. The result is (N[, K], *size), and infinite on the
        horizon of a homography.
        """
        jacobian = self.jacobian(size, align_corners=align_corners)
        return torch.where(jacobian.isinf().any(dim=-1).any(dim=-1), torch.inf, determinant(jacobian))

    def fold_share(self, size: Size, *, align_corners: bool = False) -> Tensor:
        """Return the share of an output's pixels, 0 to 1, at which the warp folds: (N,) or (N, K).

        `size` and `align_corners` describe the output, as in `grid`.
        """
        folds = self.jacobian_determinant(size, align_corners=align_corners) <= 0
        return folds.to(self.working_dtype).flatten(len(self.batch)).mean(dim=-1)

    def save(self, path: str | Path) -> None:
        """Write the warp to a file for `stn.load_warp`. An existing file is replaced. Gradients are not kept.

        Args:
            path: File to write, such as "warp.pt". It holds tensors and plain values: `torch.load` reads it too.

        Raises:
            InputError: The file cannot be written, or the class of the warp is not one of this library.
        """
        write_warp(self, _check.path_of("path", path))

    def __repr__(self) -> str:
        details = [*self._details(), f"batch={self.batch}", f"ndim={self.ndim}", f"dtype={self.dtype}"]
        return f"{type(self).__name__}({', '.join([*details, f'device={str(self.device)!r}'])})"

    def _details(self) -> Sequence[str]:
        """Return what `repr` says besides the batch, the dimensions, the dtype and the device."""
        return ()

    @property
    def working_dtype(self) -> torch.dtype:
        """The dtype in which coordinates are computed: float32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    def _check_image(self, image: Tensor) -> None:
        _check.warp_fits(self.batch, image, self.ndim)

    def _jacobian(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d, d)."""
        return self._linearized(xy)[1]

    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Return `map` and `_jacobian` of the same points. Points are independent: one backward pass for each axis."""
        mapped, pull = torch.func.vjp(self.map, xy)[:2]
        axes = torch.eye(self.ndim, dtype=mapped.dtype, device=mapped.device)
        return mapped, torch.stack([pull(axis.expand_as(mapped))[0] for axis in axes], dim=-2)

    def _displacements(self, size: tuple[int, ...], align_corners: bool) -> Tensor:
        """Return source minus target for every pixel: (*batch, *size, d). Exact zeros for the identity."""
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device).flatten(0, -2)
        return (self.map(xy.expand(*self.batch, *xy.shape)) - xy).unflatten(-2, size)

    def _rule(self, size: tuple[int, ...], align_corners: bool) -> tuple[Rule, Tensor]:
        """Return the points of every pixel of an output as operators take them: a coordinate rule, and its data."""
        return DISPLACED, self._displacements(size, align_corners)

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

    def __repr__(self) -> str:
        return f"{self.outer!r} @ {self.inner!r}"

    def inverse(self) -> Warp:
        return self.inner.inverse().after(self.outer.inverse())

    def map(self, xy: Tensor) -> Tensor:
        between, lost = self._between(xy)
        found = over_batch(self.outer, self.outer.map, between)
        return torch.where(lost, torch.inf, found)

    def _jacobian(self, xy: Tensor) -> Tensor:
        between, lost = self._between(xy)
        outer = over_batch(self.outer, self.outer._jacobian, between)
        inner = over_batch(self.inner, self.inner._jacobian, xy)
        lost = (lost | outer.isinf().any(dim=-1).any(dim=-1, keepdim=True)).unsqueeze(-1)
        return torch.where(lost, torch.inf, torch.where(lost, 0, outer) @ torch.where(lost, 0, inner))

    def _between(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points for the outer warp, and whether the inner warp mapped them to infinity.

        Such a point stays infinite. The center replaces it, because infinity times zero would make the whole gradient of
        both warps NaN.
        """
        between = over_batch(self.inner, self.inner.map, xy)
        lost = between.isinf().any(dim=-1, keepdim=True)
        return torch.where(lost, 0, between), lost


class InverseWarp(Warp):
    """The inverse of any warp, computed point by point: the x that `warp` takes to y.

    It uses Newton's method, with a step that halves where it does not help. A point that this does not solve starts
    again in each cell of a lattice whose image contains y, and the best point is kept. If there are several solutions
    it returns one. `solved` says at which points there is one, `residual` how far off the worst is. Derivatives are
    those of the implicit function, to second order, and zero at a point without a solution. While torch.compile or
    torch.func traces, values cannot be read: all points take the same few steps from one start.

    Args:
        warp: The warp to invert. `warp.inverse()` uses a formula where there is one, and otherwise this class.

    Example:
        >>> warp = stn.BSpline()(0.05 * torch.randn(1, 98))
        >>> inverse = stn.InverseWarp(warp)
        >>> inverse.solved((16, 16)).all().item(), inverse.residual((16, 16)).item() < 0.01
        (True, True)
    """

    _is_search = True

    def __init__(self, warp: Warp) -> None:
        self.warp = _check.made("warp", warp, Warp, "stn.Affine()(theta)")
        self.batch, self.ndim, self.dtype, self.device = warp.batch, warp.ndim, warp.dtype, warp.device

    def __repr__(self) -> str:
        return f"InverseWarp({self.warp!r})"

    def inverse(self) -> Warp:
        """Return the warp of which this is the inverse."""
        return self.warp

    def residual(self, size: Size, *, align_corners: bool = False) -> Tensor:
        """Return the largest distance between `warp` of the solution and y, in pixels: (N,) or (N, K).

        `size` and `align_corners` describe an image, as in `grid`: y is each of its pixels.
        """
        return self._distances(size, align_corners).flatten(len(self.batch)).amax(dim=-1)

    def solved(self, size: Size, *, align_corners: bool = False, tolerance: float = 0.01) -> Tensor:
        """Return which pixels of an image have a source point, up to `tolerance` > 0 pixels: bool (N[, K], *size).

        `size` and `align_corners` describe the image, as in `grid`.
        """
        _check.positive("tolerance", tolerance)
        return self._distances(size, align_corners) <= tolerance

    def solved_points(self, xy: Tensor, *, tolerance: float = 1e-3) -> Tensor:
        """Return which points (as in `points`) have a source point, up to `tolerance` > 0 half widths: bool (N[, K], ..)."""
        _check.positive("tolerance", tolerance)
        with torch.no_grad():
            return (self.warp.points(self.points(xy)) - xy).norm(dim=-1) <= tolerance

    def _distances(self, size: Size, align_corners: bool) -> Tensor:
        """Return the distances from `warp` of the solution to y, in pixels of an image: (N[, K], *size)."""
        size = _check.lengths("size", size, self.ndim)
        y = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device)
        with torch.no_grad():
            found = self.warp.points(self.points(y.flatten(0, -2))).unflatten(-2, size)
        off = [normalized_to_pixel(p, size, align_corners=align_corners) for p in (found, y)]
        return (off[0] - off[1]).norm(dim=-1)

    def map(self, xy: Tensor) -> Tensor:
        return self._solution(xy)[0].to(torch.promote_types(self.dtype, xy.dtype))

    def _jacobian(self, xy: Tensor) -> Tensor:
        """Return the inverse of the warp's own Jacobian at the solution; zeros where there is none."""
        x, sound = self._solution(xy)
        jacobian, sound = self.warp._jacobian(x), sound[..., None, None]
        eye = torch.eye(self.ndim, dtype=x.dtype, device=x.device)
        jacobian = torch.where(sound, jacobian, eye)
        columns = [solve(jacobian, column.expand_as(x)) for column in eye]
        return torch.where(sound, torch.stack(columns, dim=-1), 0)

    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        return self.map(xy), self._jacobian(xy)

    def _solution(self, xy: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, P, d) -> as it is, and (*batch, P)
        return solution(self.warp, xy.to(torch.promote_types(self.working_dtype, xy.dtype)))

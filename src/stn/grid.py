"""The convention. Every coordinate in this library is as this file says; everything else refers to it.

Order:   a point is (x, y) or (x, y, z); x runs along the last axis of an image, y along the one before, z before that.
         Sizes keep torch's order: (H, W) or (D, H, W).
Range:   normalized coordinates span the image by [-1, 1]. With `align_corners=False` (the default) -1 and 1 are the outer
         edges of the outer pixels, with `align_corners=True` their centres.
Pixels:  pixel coordinates are 0 at the centre of the first pixel and n - 1 at the centre of the last.
Motion:  a transform maps target (output) points to source (input) points: it says where to look.

All formulas go through *centred* pixel coordinates u = i - (n - 1) / 2, which are exact half-integers, and the half extent
h, the number of pixels in one normalized unit: pixel = h x + (n - 1) / 2. The identity between equal sizes is then
exact in floating point, bit for bit, which ((x + 1) n - 1) / 2 is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn import _check


def half_extent(n: int, align_corners: bool) -> float:
    """Pixels per normalized unit along an axis of n pixels."""
    return (n - 1) / 2 if align_corners else n / 2


class Axes(NamedTuple):
    """How an output's axes lie over an image's, one entry an axis in (x, y, ..) order: all arithmetic of extents."""

    half: tuple[float, ...]  # h: pixels of the image in one normalized unit, 0 of a single pixel whose corners are aligned
    center: tuple[float, ...]  # c: the middle of the image, in pixels
    unit: tuple[float, ...]  # g: pixels of the output in one normalized unit, 1 where that would be 0


def axes(in_size: Sequence[int], out_size: Sequence[int], align_corners: bool) -> Axes:
    """Of an image and an output of these sizes: u / g is a target point, and h x + c a source pixel."""
    half = tuple(half_extent(n, align_corners) for n in reversed(in_size))
    unit = tuple(half_extent(n, align_corners) or 1.0 for n in reversed(out_size))
    return Axes(half, tuple((n - 1) / 2 for n in reversed(in_size)), unit)


def centred(n: int, *, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """Centred pixel coordinates i - (n - 1) / 2 of an axis of n pixels: (n,), exact."""
    return torch.arange(n, dtype=dtype, device=device) - (n - 1) / 2


def axis(n: int, *, align_corners: bool = False, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """Normalised coordinates of the n pixel centres of an axis: (n,). A single pixel lies at 0."""
    return centred(n, dtype=dtype, device=device) / (half_extent(n, align_corners) or 1.0)


def lattice(
    size: Sequence[int],  # (H, W) or (D, H, W)
    *,
    align_corners: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:  # (*size, d)
    """Normalised coordinates of every pixel centre of an image of this size: the grid of the identity."""
    size = _check.lengths("size", size)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    axes = [axis(n, align_corners=align_corners, dtype=dtype, device=device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


def normalized_to_pixel(
    points: Tensor,  # (..., d) normalized
    size: int | Sequence[int],
    *,
    align_corners: bool = False,
) -> Tensor:  # (..., d) pixels
    """Pixel coordinates of normalized points in an image of this size."""
    size = _checked(points, size)
    half, middle = _per_axis(size, align_corners, points)
    return points * half + middle


def pixel_to_normalized(
    points: Tensor,  # (..., d) pixels
    size: int | Sequence[int],
    *,
    align_corners: bool = False,
) -> Tensor:  # (..., d) normalized
    """Normalised coordinates of pixel points in an image of this size. An axis of one pixel has no extent when corners
    are aligned: all its points lie at 0."""
    size = _checked(points, size)
    half, middle = _per_axis(size, align_corners, points)
    return torch.where(half > 0, (points - middle) / half.clamp_min(0.5), 0.0)


def open_lattice(size: Sequence[int], like: Tensor) -> list[Tensor]:
    """Centred pixel coordinates of each axis, shaped to broadcast over (.., *size), in (x, y, ..) order."""
    found = []
    for j, n in enumerate(reversed(size)):
        shape = [1] * len(size)
        shape[len(size) - 1 - j] = n
        found.append(centred(n, dtype=like.dtype, device=like.device).view(shape))
    return found


def _checked(points: Tensor, size: int | Sequence[int]) -> tuple[int, ...]:
    _check.floating("points", points)
    d = points.shape[-1] if points.ndim else 0
    size = _check.lengths("size", size, d if d in (2, 3) else None)
    _check.points("points", points, len(size))
    return size


def _per_axis(size: Sequence[int], align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Half extent and middle of each axis in (x, y, ..) order: (d,), (d,)."""
    half = [half_extent(n, align_corners) for n in reversed(size)]
    middle = [(n - 1) / 2 for n in reversed(size)]
    return like.new_tensor(half), like.new_tensor(middle)

"""The coordinate convention of the whole library. All other files refer to this one.

Order:   a point is (x, y) or (x, y, z); x runs along the last axis of an image, y along the one before, z before that. A
         point of a signal is (x,). Sizes keep torch's order: (L,), (H, W) or (D, H, W).
Range:   normalized coordinates span the image by [-1, 1]. With `align_corners=False` (the default) -1 and 1 are the
         outer edges of the outer pixels, with `align_corners=True` their centers.
Pixels:  pixel coordinates are 0 at the center of the first pixel and n - 1 at the center of the last.
Motion:  a transform maps target (output) points to source (input) points: it gives the sampling point of each output pixel.

All formulas use *centered* pixel coordinates u = i - (n - 1) / 2, which are exact half-integers, and the half extent
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
    """Return the pixels per normalized unit along an axis of n pixels."""
    return (n - 1) / 2 if align_corners else n / 2


class Axes(NamedTuple):
    """The extents of an image and an output, one entry per axis in (x, y, ..) order."""

    half: tuple[float, ...]  # h: pixels of the image per normalized unit, 0 for a single pixel with aligned corners
    center: tuple[float, ...]  # c: the center of the image, in pixels
    unit: tuple[float, ...]  # g: pixels of the output per normalized unit, 1 instead of 0


def axes(in_size: Sequence[int], out_size: Sequence[int], align_corners: bool) -> Axes:
    """Build the extents of an image and an output of these sizes: u / g is a target point, h x + c a source pixel."""
    half = tuple(half_extent(n, align_corners) for n in reversed(in_size))
    unit = tuple(half_extent(n, align_corners) or 1.0 for n in reversed(out_size))
    return Axes(half, tuple((n - 1) / 2 for n in reversed(in_size)), unit)


def centered(n: int, *, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """Return the centered pixel coordinates i - (n - 1) / 2 of an axis of n pixels: (n,), exact."""
    return torch.arange(n, dtype=dtype, device=device) - (n - 1) / 2


def axis(n: int, *, align_corners: bool = False, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """Return the normalized coordinates of the n pixel centers of an axis: (n,). A single pixel lies at 0."""
    return centered(n, dtype=dtype, device=device) / (half_extent(n, align_corners) or 1.0)


def lattice(
    size: Sequence[int],  # (H, W) or (D, H, W)
    *,
    align_corners: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:  # (*size, d)
    """Return the normalized coordinates of every pixel center of an image of this size: the grid of the identity.

    Args:
        size: (H, W) or (D, H, W), or (L,) of a signal, in pixels.
        align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).
        dtype: Of the result. None: torch's default dtype.
        device: Of the result. None: torch's default device.

    Returns:
        Points (x, y[, z]) of shape (*size, d). A single pixel along an axis lies at 0.

    Raises:
        InputError: size is not one, two or three positive integers.

    Example:
        >>> stn.grid.lattice((2, 4))[0, :, 0]  # x of the first row
        tensor([-0.7500, -0.2500,  0.2500,  0.7500])
    """
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
    """Convert normalized points of an image to pixel coordinates, 0 at the center of the first pixel.

    Args:
        points: (..., d) normalized, floating point.
        size: Size of the image in pixels, (H, W) or (D, H, W), or one length for all axes.
        align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).

    Returns:
        (..., d) pixels.

    Raises:
        InputError: points or size has a wrong shape. TypeError: points is not a floating-point tensor.

    Example:
        >>> stn.grid.normalized_to_pixel(torch.tensor([-1.0, 0.0]), (32, 64))  # left edge, middle
        tensor([-0.5000, 15.5000])
    """
    size = _checked(points, size)
    half, middle = _per_axis(size, align_corners, points)
    return points * half + middle


def pixel_to_normalized(
    points: Tensor,  # (..., d) pixels
    size: int | Sequence[int],
    *,
    align_corners: bool = False,
) -> Tensor:  # (..., d) normalized
    """Convert pixel coordinates of an image, 0 at the center of the first pixel, to normalized points.

    Args:
        points: (..., d) pixels, floating point.
        size: Size of the image in pixels, (H, W) or (D, H, W), or one length for all axes.
        align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False). With
            True an axis of one pixel has no extent: all its points lie at 0.

    Returns:
        (..., d) normalized.

    Raises:
        InputError: points or size has a wrong shape. TypeError: points is not a floating-point tensor.

    Example:
        >>> stn.grid.pixel_to_normalized(torch.tensor([0.0, 15.5]), (32, 64))  # first column, middle
        tensor([-0.9844,  0.0000])
    """
    size = _checked(points, size)
    half, middle = _per_axis(size, align_corners, points)
    return torch.where(half > 0, (points - middle) / half.clamp_min(0.5), 0.0)


def open_lattice(size: Sequence[int], like: Tensor) -> list[Tensor]:
    """Return the centered pixel coordinates of each axis, shaped to broadcast over (.., *size), in (x, y, ..) order."""
    found = []
    for j, n in enumerate(reversed(size)):
        shape = [1] * len(size)
        shape[len(size) - 1 - j] = n
        found.append(centered(n, dtype=like.dtype, device=like.device).view(shape))
    return found


def _checked(points: Tensor, size: int | Sequence[int]) -> tuple[int, ...]:
    _check.floating("points", points)
    d = points.shape[-1] if points.ndim else 0
    size = _check.lengths("size", size, d if d in (1, 2, 3) else None)
    _check.points("points", points, len(size))
    return size


def _per_axis(size: Sequence[int], align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the half extent and the center of each axis in (x, y, ..) order: (d,), (d,)."""
    half = [half_extent(n, align_corners) for n in reversed(size)]
    middle = [(n - 1) / 2 for n in reversed(size)]
    return like.new_tensor(half), like.new_tensor(middle)

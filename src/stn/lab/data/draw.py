"""Tools to draw synthetic images: random numbers, digits on a canvas, clutter.

Numbers are drawn on the generator's device, so that a CPU generator gives the same images on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from stn.ops import affine_sample
from stn.transforms.rotations import rotation

PATCH = 6  # pixels a side of a patch of clutter


class Example(NamedTuple):
    """A batch of a synthetic task."""

    x: Tensor  # (N, C, *size)
    y: Tensor  # (N,) classes, or (N, L) strings that end in NONE (`stn.lab.data.strings`); int64
    boxes: Tensor | None = None  # (N, K, 4): the frame (x0, y0, x1, y1) of each of K digits, normalized (`stn.grid`)


def place(
    images: Tensor,  # (N, C, h, w)
    size: Sequence[int],  # (H, W) of the canvas
    angle: Tensor,  # (N,) radians, clockwise to the eye
    scale: Tensor,  # (N,)
    offset: Tensor,  # (N, 2) pixels
    *,
    antialias: bool = False,
) -> Tensor:  # (N, C, H, W)
    """Rotate and scale images about their center, which is placed at `offset` from the center of the canvas.

    With half extents h of the image and r of the canvas in pixels, a canvas point x samples the image point
    R^-1 (r x - offset) / (scale h).
    """
    inside, outside = half_extents(images, images.shape[2:]), half_extents(images, size)
    linear = rotation(-angle.unsqueeze(-1)) / (scale[:, None, None] * inside[:, None])  # (N, 2, 2), image units a pixel
    theta = torch.cat([linear * outside, -linear @ offset.unsqueeze(-1)], dim=-1)
    placed: Tensor = affine_sample(images, theta, size, antialias=antialias)
    return placed


def anywhere(images: Tensor, size: Sequence[int], scale: Tensor, generator: Generator) -> Tensor:
    """Draw offsets (N, 2) in pixels that keep the frame of an upright, scaled image inside the canvas."""
    reach = half_extents(images, size) - scale[:, None] * half_extents(images, images.shape[2:])
    xy = torch.stack([uniform(images, -1, 1, generator) for _ in range(2)], dim=-1)
    return xy * reach


def frames(offset: Tensor, scale: Tensor, side: int) -> Tensor:  # (N, 2), (N,) -> (N, 4)
    """Return the boxes of upright 28x28 digits at these offsets on a square canvas, normalized."""
    middle, half = offset * (2 / side), scale[:, None] * (28 / side)
    return torch.cat([middle - half, middle + half], dim=-1)


def half_extents(like: Tensor, size: Sequence[int]) -> Tensor:
    """Return the pixels per normalized unit along each axis, x first."""
    return onto(torch.tensor([n / 2 for n in reversed(size)]), like)


def clutter(images: Tensor, side: int, patches: int, generator: Generator) -> Tensor:  # (N, C, side, side)
    """Paste patches from the middle 20x20 of other images of the batch at random; the brighter pixel is kept."""
    n, channels = images.shape[:2]
    if n == 0:
        return images.new_zeros(0, channels, side, side)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return integers(images, low, high, generator, patches, *shape)

    another = (torch.arange(n, device=images.device)[:, None] + draw(min(1, n - 1), n - 1)) % n
    cut = _patch(draw(4, 24 - PATCH, 2), 28)
    paste = _patch(draw(0, side - PATCH, 2), side)
    sources = images.flatten(2)[another]  # (N, patches, C, 28 * 28)
    pixels = sources.gather(3, cut.unsqueeze(2).expand(-1, -1, channels, -1))
    canvas = images.new_zeros(n, channels, side * side)
    index = paste.flatten(1).unsqueeze(1).expand(-1, channels, -1)
    canvas = canvas.scatter_reduce(2, index, pixels.transpose(1, 2).flatten(2), "amax")
    return canvas.unflatten(2, (side, side))


def _patch(corner: Tensor, width: int) -> Tensor:
    """Flat indices, in images of this width, of the patches with these top left pixels: (.., 2) -> (.., PATCH^2)."""
    step = torch.arange(PATCH, device=corner.device)
    rows, columns = corner[..., 1, None, None] + step[:, None], corner[..., 0, None, None] + step
    return (rows * width + columns).flatten(-2)


def partners(images: Tensor, count: int, generator: Generator) -> Tensor:
    """Return groups of images of the batch: (N, count). The first is the image itself; each other place follows a separate
    random order of the batch, so that every image is used `count` times."""
    n = len(images)
    orders = [torch.arange(n)] + [torch.randperm(n, generator=generator, device=generator.device) for _ in range(count - 1)]
    return torch.stack([onto(order, images, dtype=order.dtype) for order in orders], dim=1)


def uniform(images: Tensor, low: float, high: float, generator: Generator, *shape: int) -> Tensor:
    """(N, *shape)"""
    draw = torch.rand(len(images), *shape, generator=generator, device=generator.device)
    return onto(low + (high - low) * draw, images)


def normal(images: Tensor, scale: float, generator: Generator, *shape: int) -> Tensor:
    """(N, *shape)"""
    draw = torch.randn(len(images), *shape, generator=generator, device=generator.device)
    return onto(scale * draw, images)


def integers(images: Tensor, low: int, high: int, generator: Generator, *shape: int) -> Tensor:
    """(N, *shape) of low .. high."""
    draw = torch.randint(low, high + 1, (len(images), *shape), generator=generator, device=generator.device)
    return onto(draw, images, dtype=draw.dtype)


def onto(numbers: Tensor, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Move to the device of the images, in their dtype or this one; to a GPU from pinned memory, without blocking."""
    pinned = numbers.pin_memory() if images.is_cuda and not numbers.is_cuda else numbers
    return pinned.to(images.device, dtype or images.dtype, non_blocking=True)

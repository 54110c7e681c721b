"""The paper's distorted digits (Jaderberg et al. 2015, section 4.1 and appendix A.4), drawn with the library's own ops.

Each distortion is a pure function (images, generator) -> images: (N, C, 28, 28) floats -> (N, C, side, side). Numbers are
drawn on the generator's device, so that a CPU generator gives the same images on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from stn.grid import lattice
from stn.ops import affine_sample, projective_sample
from stn.transforms import ThinPlateSpline
from stn.transforms.linear import corners_to_matrix, rotation

RADIUS = 14  # pixels in one normalised unit of a 28x28 digit
PATCH, PATCHES = 6, 6  # clutter: this many patches of this many pixels a side
_corners = lattice((2, 2), align_corners=True).flatten(0, 1)[[0, 1, 3, 2]]  # around the square: (4, 2)
_spline = ThinPlateSpline()


def unchanged(images: Tensor, generator: Generator) -> Tensor:
    return images


def rotated(images: Tensor, generator: Generator) -> Tensor:
    """R: rotated by up to 90 degrees either way."""
    angle = _uniform(images, -math.pi / 2, math.pi / 2, generator)
    return _place(images, 28, angle, torch.ones_like(angle), angle.new_zeros(len(angle), 2))


def rotated_scaled_translated(images: Tensor, generator: Generator) -> Tensor:
    """RTS: rotated by up to 45 degrees, scaled by 0.7 to 1.2, placed at random in 42x42."""
    angle = _uniform(images, -math.pi / 4, math.pi / 4, generator)
    scale = _uniform(images, 0.7, 1.2, generator)
    return _place(images, 42, angle, scale, _anywhere(images, 42, scale, generator))


def projected(images: Tensor, generator: Generator) -> Tensor:
    """P: scaled by 0.75 to 1, each corner then moved by a normal of 5 pixels."""
    corners = _onto(_corners, images) / _uniform(images, 0.75, 1.0, generator)[:, None, None]
    moved = corners + _normal(images, 4, 5.0, generator)
    return projective_sample(images, corners_to_matrix(moved))


def elastic(images: Tensor, generator: Generator) -> Tensor:
    """E: scaled by 0.75 to 1 and bent by a thin-plate spline whose 16 points move by a normal of 1.5 pixels."""
    points = _onto(_spline.control_points, images)  # (16, 2)
    shrink = 1 / _uniform(images, 0.75, 1.0, generator)[:, None, None] - 1
    offsets = shrink * points + _normal(images, len(points), 1.5, generator)
    return _spline(offsets.flatten(1)).sample(images)


def translated_cluttered(images: Tensor, generator: Generator) -> Tensor:
    """TC: placed at random in 60x60 among 6 patches of 6x6 pixels cut from other digits of the batch."""
    one = torch.ones(len(images), device=images.device)
    digit = _place(images, 60, torch.zeros_like(one), one, _anywhere(images, 60, one, generator))
    return torch.maximum(digit, _clutter(images, 60, generator))


class Distortion(NamedTuple):
    apply: Callable[[Tensor, Generator], Tensor]
    side: int  # of its images


DISTORTIONS = {
    "none": Distortion(unchanged, 28),
    "r": Distortion(rotated, 28),
    "rts": Distortion(rotated_scaled_translated, 42),
    "p": Distortion(projected, 28),
    "e": Distortion(elastic, 28),
    "tc": Distortion(translated_cluttered, 60),
}


def _place(images: Tensor, side: int, angle: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Digits turned and scaled about their middle, which comes to lie `offset` (N, 2) pixels from that of the canvas.

    With canvas radius r = side / 2, a canvas point x looks at digit point R^-1 (r x - offset) / (scale RADIUS).
    """
    linear = rotation(-angle.unsqueeze(-1)) / (scale * RADIUS)[:, None, None]  # (N, 2, 2), digit units a canvas pixel
    theta = torch.cat([linear * (side / 2), -linear @ offset.unsqueeze(-1)], dim=-1)
    return affine_sample(images, theta, (side, side))


def _anywhere(images: Tensor, side: int, scale: Tensor, generator: Generator) -> Tensor:
    """Offsets (N, 2) in pixels that keep the digit's scaled 28x28 frame inside the canvas."""
    reach = side / 2 - scale * RADIUS
    xy = torch.stack([_uniform(images, -1, 1, generator) for _ in range(2)], dim=-1)
    return xy * reach.unsqueeze(-1)


def _clutter(images: Tensor, side: int, generator: Generator) -> Tensor:
    """Patches cut from the middle 20x20 of other images, pasted at random: (N, C, side, side). The brightest wins."""
    n, channels = images.shape[:2]
    if n == 0:
        return images.new_zeros(0, channels, side, side)

    def draw(low: int, high: int, *shape: int) -> Tensor:  # low .. high
        numbers = torch.randint(low, high + 1, (n, PATCHES, *shape), generator=generator, device=generator.device)
        return _onto(numbers, images, dtype=numbers.dtype)

    another = (torch.arange(n, device=images.device)[:, None] + draw(min(1, n - 1), n - 1)) % n
    cut = _patch(draw(4, 24 - PATCH, 2), 28)
    paste = _patch(draw(0, side - PATCH, 2), side)
    sources = images.flatten(2)[another]  # (N, PATCHES, C, 28 * 28)
    patches = sources.gather(3, cut.unsqueeze(2).expand(-1, -1, channels, -1))
    canvas = images.new_zeros(n, channels, side * side)
    index = paste.flatten(1).unsqueeze(1).expand(-1, channels, -1)
    canvas = canvas.scatter_reduce(2, index, patches.transpose(1, 2).flatten(2), "amax")
    return canvas.unflatten(2, (side, side))


def _patch(corner: Tensor, width: int) -> Tensor:
    """Flat indices, in images of this width, of the patches with these top left pixels: (.., 2) -> (.., PATCH^2)."""
    step = torch.arange(PATCH, device=corner.device)
    rows, columns = corner[..., 1, None, None] + step[:, None], corner[..., 0, None, None] + step
    return (rows * width + columns).flatten(-2)


def _uniform(images: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    draw = torch.rand(len(images), generator=generator, device=generator.device)
    return _onto(low + (high - low) * draw, images)


def _normal(images: Tensor, points: int, pixels: float, generator: Generator) -> Tensor:
    """Moves of points in normalised units of the digit: (N, points, 2)."""
    draw = torch.randn(len(images), points, 2, generator=generator, device=generator.device)
    return _onto(pixels / RADIUS * draw, images)


def _onto(numbers: Tensor, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """On the images' device, in their dtype or this one. To a GPU from pinned memory, which the host does not wait for."""
    pinned = numbers.pin_memory() if images.is_cuda and not numbers.is_cuda else numbers
    return pinned.to(images.device, dtype or images.dtype, non_blocking=True)

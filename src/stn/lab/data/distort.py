"""The paper's distorted digits (Jaderberg et al. 2015, section 4.1 and appendix A.4), drawn with the operators of the
library.

Each distortion is a pure function (images, generator) -> images: (N, C, 28, 28) floats -> (N, C, side, side). Numbers are
drawn on the generator's device, so that a CPU generator gives the same images on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from stn.grid import lattice
from stn.lab.data.draw import anywhere, clutter, normal, onto, place, uniform
from stn.ops import projective_sample
from stn.transforms import ThinPlateSpline
from stn.transforms.homographies import corners_to_matrix

RADIUS = 14  # pixels in one normalized unit of a 28x28 digit
PATCHES = 6  # of clutter
_corners = lattice((2, 2), align_corners=True).flatten(0, 1)[[0, 1, 3, 2]]  # around the square: (4, 2)
_spline = ThinPlateSpline()


def unchanged(images: Tensor, generator: Generator) -> Tensor:
    return images


def rotated(images: Tensor, generator: Generator) -> Tensor:
    """R: rotated by -90 to 90 degrees."""
    angle = uniform(images, -math.pi / 2, math.pi / 2, generator)
    return place(images, (28, 28), angle, torch.ones_like(angle), angle.new_zeros(len(angle), 2))


def rotated_scaled_translated(images: Tensor, generator: Generator) -> Tensor:
    """RTS: rotated by -45 to 45 degrees, scaled by 0.7 to 1.2, placed at random in 42x42."""
    angle = uniform(images, -math.pi / 4, math.pi / 4, generator)
    scale = uniform(images, 0.7, 1.2, generator)
    return place(images, (42, 42), angle, scale, anywhere(images, (42, 42), scale, generator))


def projected(images: Tensor, generator: Generator) -> Tensor:
    """P: scaled by 0.75 to 1, each corner then moved by a normal offset of 5 pixels."""
    corners = onto(_corners, images) / uniform(images, 0.75, 1.0, generator)[:, None, None]
    moved = corners + normal(images, 5.0 / RADIUS, generator, 4, 2)
    return projective_sample(images, corners_to_matrix(moved))


def elastic(images: Tensor, generator: Generator) -> Tensor:
    """E: scaled by 0.75 to 1 and bent by a thin-plate spline whose 16 points move by normal offsets of 1.5 pixels."""
    points = onto(_spline.control_points, images)  # (16, 2)
    shrink = 1 / uniform(images, 0.75, 1.0, generator)[:, None, None] - 1
    offsets = shrink * points + normal(images, 1.5 / RADIUS, generator, len(points), 2)
    return _spline(offsets.flatten(1)).sample(images)


def translated_cluttered(images: Tensor, generator: Generator) -> Tensor:
    """TC: placed at random in 60x60 among 6 patches of 6x6 pixels cut from other digits of the batch."""
    one = torch.ones(len(images), device=images.device)
    digit = place(images, (60, 60), torch.zeros_like(one), one, anywhere(images, (60, 60), one, generator))
    return torch.maximum(digit, clutter(images, 60, PATCHES, generator))


def moved(images: Tensor, generator: Generator, *, patches: int = 0) -> Tensor:
    """A digit translated by up to 4 pixels and scaled by 0.7 to 1.2, among patches of clutter, like the output of a nearly
    correct look. The features for co-localization are learned from these."""
    scale = uniform(images, 0.7, 1.2, generator)
    offset = 4 * torch.stack([uniform(images, -1, 1, generator) for _ in range(2)], dim=-1)
    digit = place(images, (28, 28), torch.zeros_like(scale), scale, offset)
    return torch.maximum(digit, clutter(images, 28, patches, generator)) if patches else digit


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
    "moved": Distortion(moved, 28),
    "moved_cluttered": Distortion(partial(moved, patches=2), 28),
}

"""Digits as extruded solids in a volume."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from stn.lab.data.draw import Example, onto, uniform
from stn.ops import affine_sample
from stn.transforms.rotations import rotation

THICKNESS = 8  # pixels of a 28x28 digit; strokes in MNIST are 2 to 4 wide
STROKES = 15  # pixels from the center of a digit to the corners of its box of 20 x 20 x THICKNESS


def extruded(images: Tensor, labels: Tensor, generator: Generator, *, side: int) -> Example:
    """Draw digits extruded to solids, rotated about any axis, scaled and placed at random in side^3, with their class.

    Each component of the rotation vector is at most 45 degrees, because a digit from behind is another digit. The scale is
    0.7 to 1.2 in 60^3, and 0.6 to 0.9 in a smaller volume. All strokes lie inside.
    Source: Jaderberg et al. 2015, appendix (3-D), with other ranges.
    """
    low, high = (0.7, 1.2) if side >= 60 else (0.6, 0.9)
    scale = uniform(images, low, high, generator)
    turn = rotation(uniform(images, -math.pi / 4, math.pi / 4, generator, 3))  # (N, 3, 3), body to volume
    offset = (side / 2 - scale * STROKES)[:, None] * uniform(images, -1, 1, generator, 3)
    bodies = images.unsqueeze(2).expand(-1, -1, THICKNESS, -1, -1)
    half = onto(torch.tensor([14.0, 14.0, THICKNESS / 2]), images)
    linear = turn.mT / (scale[:, None, None] * half[:, None])  # body units per voxel: x samples R^-1 (r x - offset) / (s h)
    theta = torch.cat([linear * (side / 2), -linear @ offset.unsqueeze(-1)], dim=-1)
    return Example(affine_sample(bodies, theta, (side, side, side)), labels)

"""Digits as solid bodies in a volume."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from stn.lab.data.draw import Example, onto, uniform
from stn.ops import affine_sample
from stn.transforms.linear import rotation

THICKNESS = 8  # pixels of a digit of 28x28; the strokes of MNIST's are 2 to 4 wide
STROKES = 15  # pixels from a digit's middle to the corners of its strokes' box, 20 x 20 x THICKNESS


def extruded(images: Tensor, labels: Tensor, generator: Generator, *, side: int) -> Example:
    """Digits extruded to bodies, turned about an axis of any direction, scaled, placed at random in side^3; the class.

    The rotation vector's parts are each up to 45 degrees either way: a body seen from behind is another digit. The scale is
    0.7 to 1.2 in 60^3, and 0.6 to 0.9 in a smaller volume. All strokes lie inside.
    Source: Jaderberg et al. 2015, appendix (3-D); the ranges are ours.
    """
    low, high = (0.7, 1.2) if side >= 60 else (0.6, 0.9)
    scale = uniform(images, low, high, generator)
    turn = rotation(uniform(images, -math.pi / 4, math.pi / 4, generator, 3))  # (N, 3, 3), body to volume
    offset = (side / 2 - scale * STROKES)[:, None] * uniform(images, -1, 1, generator, 3)
    bodies = images.unsqueeze(2).expand(-1, -1, THICKNESS, -1, -1)
    half = onto(torch.tensor([14.0, 14.0, THICKNESS / 2]), images)
    linear = turn.mT / (scale[:, None, None] * half[:, None])  # body units a voxel: x looks at R^-1 (r x - offset) / (s h)
    theta = torch.cat([linear * (side / 2), -linear @ offset.unsqueeze(-1)], dim=-1)
    return Example(affine_sample(bodies, theta, (side, side, side)), labels)

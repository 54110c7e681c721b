"""Training views of traffic signs: small rotations, zooms, shifts and slants, and other exposures.

They are never mirrored, because a sign that points left and one that points right are two classes.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from stn.lab.data.draw import Example, onto, uniform
from stn.ops import affine_sample
from stn.transforms.rotations import rotation

ANGLE, ZOOM, SLANT = 0.17, 0.16, 0.1  # largest: radians, logarithm of the scale, shear
SHIFT = 0.12  # largest, normalized: 2 pixels of 32
GAMMA = 0.5  # largest logarithm of the exponent of the brightness


def sign_views(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """Draw one view of each image (N, 3, H, W) in [0, 1], padded with its border."""
    linear = rotation(uniform(images, -ANGLE, ANGLE, generator, 1)) * uniform(images, -ZOOM, ZOOM, generator, 1, 1).exp()
    slant = torch.eye(2, dtype=images.dtype, device=images.device).repeat(len(images), 1, 1)
    slant[:, 0, 1] = uniform(images, -SLANT, SLANT, generator)
    theta = torch.cat([linear @ slant, uniform(images, -SHIFT, SHIFT, generator, 2, 1)], dim=-1)
    views: Tensor = affine_sample(images, theta, padding_mode="border")
    gamma = onto(uniform(images, -GAMMA, GAMMA, generator, 1, 1, 1).exp(), images)
    return Example(views.clamp_min(0).pow(gamma), labels)

"""Crops of photographs: all, the middle, or a part at random. Pure functions (images, labels, generator) -> `Example`."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from stn.lab.data.draw import Example, integers
from stn.ops import affine_sample

CROP = 224  # pixels a side


def as_they_are(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    return Example(images, labels)


def middle_crops(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """The middle 224x224 pixels."""
    top, left = ((length - CROP) // 2 for length in images.shape[2:])
    return Example(images[..., top : top + CROP, left : left + CROP], labels)


def random_crops(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """224x224 whole pixels at a random place, half of them mirrored: each the library's own affine look."""
    shares = [CROP / length for length in reversed(images.shape[2:])]  # of width and height
    offsets = []
    for length in reversed(images.shape[2:]):
        room = length - CROP
        offsets.append((2 * integers(images, 0, room, generator) - room) / length)
    mirror = 2 * integers(images, 0, 1, generator) - 1
    theta = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = mirror * shares[0], shares[1]
    theta[:, :, 2] = torch.stack(offsets, dim=-1)
    return Example(affine_sample(images, theta, (CROP, CROP), mode="nearest"), labels)

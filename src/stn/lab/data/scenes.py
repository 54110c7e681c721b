"""Synthetic tasks made of real digits. Each is a pure function (images, labels, generator) -> `Example`: a batch of N
digits, float (N, 1, 28, 28) in [0, 1] with labels (N,), gives N examples. Where an example holds several digits they are
those of the batch: the first is the image's own, the others follow random orders of the batch (`partners`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from stn.grid import lattice
from stn.lab.data.distort import rotated_scaled_translated
from stn.lab.data.draw import Example, anywhere, clutter, frames, normal, onto, partners, place, uniform
from stn.lab.data.strings import curved, strings
from stn.lab.data.volumes import extruded
from stn.ops import projective_sample
from stn.transforms.homographies import corners_to_matrix

_corners = lattice((2, 2), align_corners=True).flatten(0, 1)[[0, 1, 3, 2]]  # around the square: (4, 2)


def addition(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """Two digits in two channels of 42x42, each rotated, scaled and translated on its own; the class is their sum.

    Source: Jaderberg et al. 2015, appendix (MNIST addition).
    """
    other = partners(images, 2, generator)[:, 1]
    channels = [rotated_scaled_translated(digits, generator) for digits in (images, images[other])]
    return Example(torch.cat(channels, dim=1), labels + labels[other])


def pairs(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """Two digits far apart on 84x84 among 4 patches of clutter; the class is 10 left + right. Boxes: the left one's first.

    Sideways the digits lie 16 to 28 pixels from the middle, up or down anywhere. So they never overlap, and no look of
    half the image's size holds the strokes of both.
    """
    side = 84
    other = partners(images, 2, generator)[:, 1]
    upright = torch.zeros(len(images), device=images.device)
    canvas, boxes = clutter(images, side, 4, generator), []
    for digits, sign in ((images, -1), (images[other], 1)):
        scale = uniform(images, 0.8, 1.0, generator)
        sideways = sign * uniform(images, 16.0, 28.0, generator)
        offset = torch.stack([sideways, uniform(images, -28.0, 28.0, generator)], dim=-1)
        canvas = torch.maximum(canvas, place(digits, (side, side), upright, scale, offset))
        boxes.append(frames(offset, scale, side))
    return Example(canvas, 10 * labels + labels[other], torch.stack(boxes, dim=1))


def co_localization(images: Tensor, labels: Tensor, generator: Generator, *, patches: int) -> Example:
    """A digit anywhere on 84x84, among patches of clutter; its class, and its box of 28x28 pixels.

    Source: Jaderberg et al. 2015, appendix (co-localization).
    """
    side = 84
    one = torch.ones(len(images), dtype=images.dtype, device=images.device)
    offset = anywhere(images, (side, side), one, generator)
    canvas = place(images, (side, side), torch.zeros_like(one), one, offset)
    if patches:
        canvas = torch.maximum(canvas, clutter(images, side, patches, generator))
    return Example(canvas, labels, frames(offset, one, side).unsqueeze(1))


def perturbed(images: Tensor, labels: Tensor, generator: Generator, *, side: int) -> Example:
    """A digit under a large homography: each corner of its 28x28 frame, and all four together, move by a normal of 12.5 %
    of the frame, 3.5 pixels, along each axis. side: of the image around the frame's middle. 28 pixels may lose a part of the
    digit, for good; in 56 it is there, and the 28 in the middle are the same.

    Source: Lin & Lucey 2017 (IC-STN), section 5.1, with the settings of the authors' code: 0.25 of half the frame. Their
    plain transformer sees the frame, while the recurrent one samples the image that it was cut from.
    """
    moves = normal(images, 0.25, generator, 4, 2) + normal(images, 0.25, generator, 1, 2)
    matrix = corners_to_matrix(onto(_corners, images) + moves)
    share = side / images.shape[-1]
    wide = matrix * matrix.new_tensor([share, share, 1.0])  # what the image shows, in units of the frame
    return Example(projective_sample(images, wide, (side, side)), labels)


class Scene(NamedTuple):
    """A synthetic task, and the sizes for its networks."""

    draw: Callable[[Tensor, Tensor, Generator], Example]
    shape: tuple[int, ...]  # of one x: (C, H, W) or (C, D, H, W)
    classes: int  # of y, or of each place of a string, where the last one, NONE = 10, is no digit
    length: int = 0  # of a string: y is (N, length). 0: y is one class (N,)
    boxes: int = 0  # number of digits per example


SCENES: dict[str, Scene] = {
    "addition": Scene(addition, (2, 42, 42), 19),
    "pairs": Scene(pairs, (1, 84, 84), 100, boxes=2),
    "strings": Scene(strings, (1, 64, 64), 11, length=5),
    "curved": Scene(curved, (1, 64, 200), 11, length=6),
    "extruded": Scene(partial(extruded, side=60), (1, 60, 60, 60), 10),
    "extruded_32": Scene(partial(extruded, side=32), (1, 32, 32, 32), 10),
    "translated_84": Scene(partial(co_localization, patches=0), (1, 84, 84), 10, boxes=1),
    "cluttered_84": Scene(partial(co_localization, patches=16), (1, 84, 84), 10, boxes=1),
    "perturbed": Scene(partial(perturbed, side=28), (1, 28, 28), 10),
    "perturbed_56": Scene(partial(perturbed, side=56), (1, 56, 56), 10),
}

"""Strings of digits: like house numbers, and like lines of text, bent and in perspective."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from stn.grid import axis
from stn.lab.data.draw import Example, integers, partners, place, uniform
from stn.ops import grid_sample
from stn.transforms.rotations import rotation

NONE = 10  # no digit: the end of strings, and the blank of CTC
PITCH = 20  # pixels between digits of a straight string; strokes in MNIST fill 20 of 28 pixels


class Straight(NamedTuple):
    """Strings in one line, from the left end of images that would hold the longest."""

    images: Tensor  # (N, 1, 28, PITCH longest + 8)
    half: Tensor  # (N,) half the length of each string's strokes, pixels
    shift: Tensor  # (N,) from the middle of the image to that of the string, pixels
    y: Tensor  # (N, longest) digits, then NONE


def straight(images: Tensor, labels: Tensor, shortest: int, longest: int, generator: Generator) -> Straight:
    """Strings of `shortest` to `longest` digits, all lengths equally likely. String i begins with image i."""
    length = integers(images, shortest, longest, generator)
    digits = partners(images, longest, generator)  # (N, longest)
    present = torch.arange(longest, device=images.device) < length[:, None]
    strip = images.new_zeros(len(images), 1, 28, PITCH * longest + 8)
    for k in range(longest):
        window = strip[..., PITCH * k : PITCH * k + 28]
        window.copy_(torch.maximum(window, images[digits[:, k]] * present[:, k, None, None, None]))
    half = (PITCH / 2) * length.to(images.dtype)
    return Straight(strip, half, half - (PITCH / 2) * longest, torch.where(present, labels[digits], NONE))


def strings(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """Strings of 1 to 5 digits on 64x64, as house numbers: turned by up to 15 degrees, as large as the canvas allows or by
    up to 40 % smaller (30 pixels a digit at most), placed at random. y (N, 5) ends in NONE."""
    side, margin = 64, 2
    line = straight(images, labels, 1, 5, generator)
    angle = uniform(images, -math.pi / 12, math.pi / 12, generator)
    turn = rotation(angle.unsqueeze(-1))  # (N, 2, 2)
    half = torch.stack([line.half, torch.full_like(line.half, PITCH / 2)], dim=-1)
    extent = (turn.abs() @ half.unsqueeze(-1)).squeeze(-1)  # (N, 2), of the turned string's box
    largest = ((side / 2 - margin) / extent).amin(dim=-1).clamp_max(1.5)
    scale = largest * uniform(images, 0.6, 1.0, generator)
    middle = (side / 2 - margin - scale[:, None] * extent) * uniform(images, -1, 1, generator, 2)
    offset = middle - scale[:, None] * line.shift[:, None] * turn[..., 0]
    return Example(place(line.images, (side, side), angle, scale, offset, antialias=True), line.y)


def curved(images: Tensor, labels: Tensor, generator: Generator) -> Example:
    """Strings of 3 to 6 digits along an arc and in perspective, cut out and stretched to 64x200 as word images are.

    The arc turns by up to 150 degrees, up or down; then the line is turned by up to 15 degrees and seen in perspective, one
    end up to 1.9 times as large as the other. Its box fills 85 to 100 % of the canvas along each axis. y (N, 6): digits,
    then NONE, which is also the blank of CTC (`stn.models.lines`).
    """
    size = (64, 200)
    line = straight(images, labels, 3, 6, generator)
    bend = Bend(
        curvature=uniform(images, -5 * math.pi / 12, 5 * math.pi / 12, generator, 1, 1) / line.half[:, None, None],
        angle=uniform(images, -math.pi / 12, math.pi / 12, generator, 1, 1),
        slant=uniform(images, -0.3, 0.3, generator, 2, 1, 1) / line.half[:, None, None, None],
    )
    low, high = bend.box(line.half)  # (N, 2)
    half, share = (high - low) / 2, uniform(images, 0.85, 1.0, generator, 2)
    middle = (low + high) / 2 + half * (1 / share - 1) * uniform(images, -1, 1, generator, 2)
    x, y = (
        middle[:, i, None] + half[:, i, None] / share[:, i, None] * axis(n, dtype=images.dtype, device=images.device)
        for i, n in enumerate(reversed(size))
    )
    along, down = bend.inverse(x.unsqueeze(1), y.unsqueeze(2))
    h, w = line.images.shape[2:]
    grid = torch.stack([(along + line.shift[:, None, None]) * (2 / w), down * (2 / h)], dim=-1)
    return Example(grid_sample(line.images, grid), line.y)


class Bend(NamedTuple):
    """How a straight string comes to lie in a plane: along an arc, then turned, then seen in perspective.

    Points are (x, y), two tensors that broadcast to (N, rows, columns), in the string's pixels from its middle.
    """

    curvature: Tensor  # (N, 1, 1), 1 / radius; positive: the string's middle is highest
    angle: Tensor  # (N, 1, 1) radians, clockwise to the eye
    slant: Tensor  # v (N, 2, 1, 1): the point p of the turned arc is seen at p / (1 + v . p)

    def forward(self, along: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        radius = self._radius()
        out = radius - down
        x, y = _turned(out * (along / radius).sin(), radius - out * (along / radius).cos(), self.angle)
        depth = 1 + self.slant[:, 0] * x + self.slant[:, 1] * y
        return x / depth, y / depth

    def inverse(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # q = p / (1 + v . p) gives 1 / (1 - v . q) = 1 + v . p. What lies beyond the horizon is far from the string.
        depth = 1 / ((1 - self.slant[:, 0] * x) - self.slant[:, 1] * y).clamp_min(0.05)
        x, y = _turned(x, y, -self.angle)
        radius = self._radius()
        side = radius.sign()
        x, y = side * (x * depth), side * (radius - y * depth)  # from the arc's center, towards the string
        return radius * torch.atan2(x, y), radius - side * torch.hypot(x, y)

    def box(self, half: Tensor) -> tuple[Tensor, Tensor]:
        """The low and the high corner (N, 2) of the box around a bent string of this half length (N,)."""
        along = axis(33, align_corners=True, dtype=half.dtype, device=half.device) * half[:, None, None]
        down = (PITCH / 2) * axis(2, align_corners=True, dtype=half.dtype, device=half.device)[:, None]
        corners = [(p.amin(dim=(1, 2)), p.amax(dim=(1, 2))) for p in self.forward(along, down)]
        low, high = zip(*corners, strict=True)
        return torch.stack(low, dim=-1), torch.stack(high, dim=-1)

    def _radius(self) -> Tensor:
        """That of a line is 30,000 pixels, which moves the ends of the longest string by 0.06."""
        return 1 / torch.where(self.curvature.abs() < 1 / 30_000, 1 / 30_000, self.curvature)


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    c, s = angle.cos(), angle.sin()
    return c * x - s * y, s * x + c * y

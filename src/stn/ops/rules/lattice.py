"""Displacements at a coarse lattice of control points, interpolated between them: linear, or cubic B-splines."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn.grid import Axes, half_extent, open_lattice
from stn.ops.context import coordinate_dtype
from stn.ops.interpolation import BOTH
from stn.ops.rules.base import Numbers, Rule

BLOCK = 16  # neighboring pixels of a row that share their control points
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Lattice(Rule):
    """x' = x + f(x), data (N, K, *shape, d): f at the control points, normalized. Beyond the outer ones f is constant.

    degree: 1 is linear, with the control points at the pixels of an image of `shape` that is `extent` times as wide as
    the output. 3 is a cubic B-spline: the output spans the inner n - 3 intervals of n control points.
    """

    size: tuple[int, ...]  # of the output
    degree: int
    align_corners: bool = False  # of the control points
    extent: float = 1.0

    name = "lattice"
    schema = "SymInt[] size, int degree, bool align_corners, float extent"
    kernels = BOTH
    per_point = True

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.size, self.degree, self.align_corners, self.extent

    @property
    def key(self) -> Hashable:
        return self.arguments

    def out_size(self, data: Tensor) -> tuple[int, ...]:
        return self.size

    def weights(self, data: Tensor, axes: Axes, device: torch.device) -> list[Tensor]:
        """Return the weights of the control points of each axis x, y, ..: (pixels, n)."""
        empty = torch.empty(0, dtype=coordinate_dtype(device), device=device)
        counts, found = reversed(data.shape[2:-1]), []
        for u, g, n in zip(open_lattice(self.size, empty), axes.unit, counts, strict=True):
            x = u.flatten() / (g * self.extent)
            found.append(cubic_weights(x, n) if self.degree == 3 else linear_weights(x, n, self.align_corners))
        return found

    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        moved = data.to(coordinate_dtype(data.device))
        for i, weights in enumerate(self.weights(data, axes, data.device)):
            moved = (moved.movedim(-2 - i, -1) @ weights.mT).movedim(-1, -2 - i)
        u = open_lattice(self.size, moved)
        terms = zip(moved.unbind(dim=-1), u, *axes, strict=True)
        return [f * h + (v * (h / g) + c) for f, v, h, c, g in terms]

    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        """p = scale f + step u + shift on each axis, as of a field; then the weights of control points, in bands."""
        by = np.zeros((3, 3))
        for i, (h, c, g) in enumerate(zip(*axes, strict=True)):
            by[i] = h, h / g, c
        across, *others = (weights.numpy() for weights in self.weights(data, axes, CPU))
        down, deep = (banded(weights) for weights in (*others, np.ones((1, 1)))[:2])
        counts = *data.shape[-2:1:-1], 1
        sides = np.array([*self.size[::-1], 1][:2] + [counts[0], counts[1], counts[2]], np.float64)
        first, blocks = blocked(across)
        return Numbers("lattice", {"axes": by, "first": first, "across": blocks, "down": down, "deep": deep, "sides": sides})


def linear_weights(x: Tensor, count: int, align_corners: bool) -> Tensor:  # (..) normalized -> (.., count)
    """The weights of the pixels of an axis of an image of `count`, constant beyond the outer ones."""
    at = (x * half_extent(count, align_corners) + (count - 1) / 2).clamp(0, count - 1)
    return (1 - (at.unsqueeze(-1) - torch.arange(count, dtype=x.dtype, device=x.device)).abs()).clamp_min(0)


def cubic_weights(x: Tensor, count: int) -> Tensor:  # (..) normalized -> (.., count)
    """B(u - i) for each control point i of an axis, with u = (x + 1) / 2 (count - 3) + 1."""
    u = (x.clamp(-1, 1) + 1) * ((count - 3) / 2) + 1
    t = (u.unsqueeze(-1) - torch.arange(count, dtype=x.dtype, device=x.device)).abs()
    return ((2 - t).clamp_min(0) ** 3 - 4 * (1 - t).clamp_min(0) ** 3) / 6


# ---- for the kernels: few of the weights of a pixel are not zero ----


def banded(weights: Any) -> Any:  # (pixels, n) -> (pixels, 1 + taps)
    """The number of the first control point with a weight, then the weights from there on."""
    first, taps = windows(weights != 0)
    at = first[:, None] + np.arange(taps)
    return np.concatenate([first[:, None], np.take_along_axis(weights, at, axis=1)], axis=1)


def blocked(weights: Any) -> tuple[Any, Any]:  # (pixels, n) -> (blocks,), (blocks, taps, BLOCK)
    """The same for each BLOCK of pixels at once, so that their weights of one control point are neighbors."""
    pixels, n = weights.shape
    padded = np.zeros((-(-pixels // BLOCK), BLOCK, n))
    padded.reshape(-1, n)[:pixels] = weights
    first, taps = windows((padded != 0).any(axis=1))
    at = first[:, None, None] + np.arange(taps)
    return first, np.take_along_axis(padded, at, axis=2).swapaxes(1, 2)


def windows(used: Any) -> tuple[Any, int]:  # (rows, n) -> (rows,)
    """Where the used columns of each row begin, and how many columns hold all of them; no window reaches beyond n."""
    n = used.shape[1]
    first, last = used.argmax(axis=1), n - 1 - used[:, ::-1].argmax(axis=1)
    taps = int((last - first).max()) + 1
    return np.minimum(first, n - taps), taps


def is_served(image: Tensor, shape: Sequence[int], size: Sequence[int]) -> bool:
    """Return True if `Lattice` is faster than a stored field: there are kernels, and no more control points than pixels.

    Signals and exports keep the stored field; the size of an exported output may be dynamic."""
    if len(size) == 1 or image.device.type not in Lattice.kernels or torch.compiler.is_exporting():
        return False
    return all(n <= m for n, m in zip(shape, size, strict=True))

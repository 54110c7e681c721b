"""The flow of a velocity that is affine on each simplex of a lattice of boxes, in plain PyTorch.

Each box is cut along the paths from its lowest to its highest corner (Kuhn's triangulation, which matches at common faces).
A point lies in the simplex whose path follows the axes in the order of the point's fractions, the largest first. The code of
the simplex has one binary digit per pair of axes, (x, y)[, (x, z), (y, z)]: the comparison of their fractions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stn.ops.flows.base import Flow, runge_kutta


@dataclass(frozen=True)
class Simplices(Flow):
    """Data: (N, S, d (d+1)), the maps v = A x + b of the simplices, rows of (A | b), box by box."""

    cells: tuple[int, ...]  # boxes along x, y[, z]
    steps: int

    name = "simplices"
    schema = "int[] cells, int steps"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.cells, self.steps

    def velocity(self, data: Tensor, xy: Tensor) -> Tensor:
        """Return v at points (N, P, d). Beyond the image it is that of the nearest point of its border."""
        x, d = xy.clamp(-1, 1), len(self.cells)
        place = simplices_of(x.detach(), self.cells)
        own = data.gather(-2, place.unsqueeze(-1).expand(*place.shape, data.shape[-1])).unflatten(-1, (d, d + 1))
        return (own[..., :-1] * x.unsqueeze(-2)).sum(dim=-1) + own[..., -1]

    def displacements(self, data: Tensor, xy: Tensor) -> Tensor:
        return runge_kutta(lambda x: self.velocity(data, x), xy.expand(data.shape[0], *xy.shape[1:]), self.steps)


def order_of_axes(code: int, ndim: int) -> list[int]:
    """Return the order of the axes on the path of simplex `code` of a box. Some codes in 3-D have no simplex."""
    wins = [0] * ndim
    for bit, (i, j) in enumerate(itertools.combinations(range(ndim), 2)):
        wins[i if code >> bit & 1 else j] += 1
    return sorted(range(ndim), key=lambda axis: -wins[axis])


def simplices_of(xy: Tensor, cells: Sequence[int]) -> Tensor:  # (.., d) within [-1, 1] -> (..)
    """Return the index of the simplex around each point; cells: boxes along x, y[, z]."""
    place = torch.zeros_like(xy[..., 0], dtype=torch.int64)
    fractions: list[Tensor] = []
    for axis, n in reversed(list(enumerate(cells))):  # the slowest first
        at = (xy[..., axis] + 1) * (n / 2)
        base = at.floor().clamp_max(n - 1)
        fractions.insert(0, at - base)
        place = place * n + base.long()
    pairs = list(itertools.combinations(fractions, 2))
    place = place * 2 ** len(pairs)
    for bit, (f, g) in enumerate(pairs):
        place = place + (f >= g) * 2**bit
    return place

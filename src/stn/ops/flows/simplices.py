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
    """Data: (N, *nodes, d), v at the corners of the boxes, d in the order x, y[, z]; affine on each simplex in between."""

    steps: int

    name = "simplices"
    schema = "int steps"
    least = 2

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.steps,)

    def velocity(self, data: Tensor, xy: Tensor) -> Tensor:
        """Return v at points (N, P, d). Beyond the image it is that of the nearest point of its border."""
        return velocity(affine_maps(data), [n - 1 for n in reversed(data.shape[1:-1])], xy)

    def displacements(self, data: Tensor, xy: Tensor) -> Tensor:
        maps, cells = affine_maps(data), [n - 1 for n in reversed(data.shape[1:-1])]
        return runge_kutta(lambda x: velocity(maps, cells, x), xy.expand(data.shape[0], *xy.shape[1:]), self.steps)


def velocity(maps: Tensor, cells: Sequence[int], xy: Tensor) -> Tensor:
    x, d = xy.clamp(-1, 1), len(cells)
    place = simplices_of(x.detach(), cells)
    own = maps.gather(-2, place.unsqueeze(-1).expand(*place.shape, maps.shape[-1])).unflatten(-1, (d, d + 1))
    return (own[..., :-1] * x.unsqueeze(-2)).sum(dim=-1) + own[..., -1]


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


def affine_maps(nodes: Tensor) -> Tensor:  # (.., *nodes, d) -> (.., simplices, d (d+1))
    """Return v = A x + b of each simplex, rows of (A | b), box by box.

    The column of an axis is the difference along the simplex's edge.
    """
    d = nodes.shape[-1]
    cells = [n - 1 for n in nodes.shape[-d - 1 : -1]]
    corner = [torch.arange(n, dtype=nodes.dtype, device=nodes.device) * (2 / n) - 1 for n in cells]
    lowest = torch.stack(torch.meshgrid(*corner, indexing="ij")[::-1], dim=-1)  # (*cells, d)
    maps = []
    for code in range(2 ** (d * (d - 1) // 2)):
        at, columns = (0,) * d, [nodes] * d
        for axis in order_of_axes(code, d):
            ahead = tuple(offset + (i == axis) for i, offset in enumerate(at))
            edge = at_corner(nodes, ahead) - at_corner(nodes, at)
            columns[axis], at = edge * (cells[d - 1 - axis] / 2), ahead
        a = torch.stack(columns, dim=-1)
        b = at_corner(nodes, (0,) * d) - (a * lowest.unsqueeze(-2)).sum(dim=-1)
        maps.append(torch.cat([a, b.unsqueeze(-1)], dim=-1).flatten(-2))
    return torch.stack(maps, dim=-2).flatten(-d - 2, -2)


def at_corner(nodes: Tensor, offset: Sequence[int]) -> Tensor:  # (.., *nodes, d) -> (.., *cells, d)
    """Return the node at this corner, (0 or 1) in x, y[, z], of each box."""
    for i, o in enumerate(offset):
        nodes = nodes.narrow(-2 - i, o, nodes.shape[-2 - i] - 1)
    return nodes

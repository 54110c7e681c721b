"""CPAB: diffeomorphisms whose velocity is continuous and affine on each cell of a tessellation (Freifeld et al. 2017)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from stn import _check
from stn.transforms.base import Family, numbers_of_lattice
from stn.transforms.batches import by
from stn.transforms.warp import Warp


@dataclass(frozen=True, init=False)
class CPAB(Family["CPABWarp"]):
    """x' = exp(v)(x), v continuous and affine on each simplex of `cells` boxes an axis, each cut into d! simplices.

    theta = the values of v at the corners of the boxes, node by node, normalized; they determine v. Zeros are the
    identity exactly, -theta is the inverse, and nothing folds. (The paper finds the same space as the null space of the
    continuity constraints.) Each point is followed for one unit of time.

    Args:
        ndim: 2 or 3.
        cells: Number of boxes along each axis, (rows, columns) or (slices, rows, columns); at least 1, with a fixed
            boundary 2. None: 4.
        boundary: "fixed": v = 0 on the border of the image, and theta has the inner corners only. Or "free".
        steps: Runge-Kutta steps that each point takes, at least 1. 8 steps are within 5e-4 half widths of 400 for theta
            of a standard deviation of 0.2; at 0.4, an error of 1e-3 takes 16.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names.

    Source: Freifeld et al. 2017.

    Example:
        >>> warp = stn.CPAB(cells=(2, 2))(torch.tensor([[0.5, 0.0]]))  # the velocity of the one inner corner
        >>> warp.points(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).round(decimals=3)  # 1 - exp(-0.5), and the border
        tensor([[[0.3930, 0.0000],
                 [1.0000, 0.0000]]])
    """

    ndim: int
    cells: tuple[int, ...]
    boundary: str
    steps: int

    def __init__(
        self, ndim: int = 2, *, cells: Sequence[int] | None = None, boundary: str = "fixed", steps: int = 8
    ) -> None:
        ndim = _check.dimension(ndim, (2, 3), "CPAB")
        cells = _check.lattice_of("cells", (4,) * ndim if cells is None else cells, ndim, least=1)
        _check.choice("boundary", boundary, ("fixed", "free"))
        _check.inner_nodes("cells", cells, boundary)
        self._set(ndim=ndim, cells=cells, boundary=boundary, steps=_check.at_least("steps", steps, 1))

    @property
    def nodes(self) -> tuple[int, ...]:
        """Return the number of movable nodes along each axis."""
        return tuple(n - 1 if self.boundary == "fixed" else n + 1 for n in self.cells)

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {"velocity": numbers_of_lattice(self.nodes)}

    def identity(self) -> Tensor:
        return torch.zeros(self.num_params)

    def _warp(self, theta: Tensor) -> CPABWarp:
        nodes = theta.unflatten(-1, (*self.nodes, self.ndim))
        if self.boundary == "fixed":
            nodes = pad(nodes, (0, 0, *(1, 1) * self.ndim))
        return CPABWarp(nodes, self.steps)


class CPABWarp(Warp):
    """The flow, after one unit of time, of a velocity that is continuous, and affine on each simplex."""

    def __init__(self, nodes: Tensor, steps: int) -> None:  # (N[, K], *nodes, d): velocities
        self.nodes, self.steps = nodes, steps
        self.ndim = nodes.shape[-1]
        self.batch = tuple(nodes.shape[: -self.ndim - 1])
        self.dtype, self.device = nodes.dtype, nodes.device

    def _details(self) -> Sequence[str]:
        cells = [n - 1 for n in self.nodes.shape[len(self.batch) : -1]]
        return (f"{by(cells)} cells", f"steps={self.steps}")

    def inverse(self) -> CPABWarp:
        """Return the flow of the negated velocity."""
        return CPABWarp(-self.nodes, self.steps)

    def velocity(self, xy: Tensor) -> Tensor:
        """Return v at points. Beyond the image it is that of the nearest point of its border.

        Args:
            xy: (*batch, P, d), normalized.

        Returns:
            (*batch, P, d).
        """
        return self._velocity(affine_maps(self.nodes.to(xy.dtype)), xy)

    def _velocity(self, maps: Tensor, xy: Tensor) -> Tensor:
        x = xy.clamp(-1, 1)
        place = simplices_of(x.detach(), self.nodes.shape[len(self.batch) : -1])
        own = maps.gather(-2, place.unsqueeze(-1).expand(*place.shape, maps.shape[-1]))
        own = own.unflatten(-1, (self.ndim, self.ndim + 1))  # (*batch, P, d, d+1)
        return (own[..., :-1] * x.unsqueeze(-2)).sum(dim=-1) + own[..., -1]

    def _map(self, xy: Tensor) -> Tensor:
        x, h = xy.to(torch.promote_types(self.working_dtype, xy.dtype)), 1 / self.steps
        maps = affine_maps(self.nodes.to(x.dtype))
        for _ in range(self.steps):
            k1 = self._velocity(maps, x)
            k2 = self._velocity(maps, x + h / 2 * k1)
            k3 = self._velocity(maps, x + h / 2 * k2)
            x = x + h / 6 * (k1 + 2 * (k2 + k3) + self._velocity(maps, x + h * k3))
        return x.to(torch.promote_types(self.dtype, xy.dtype))


# Each box is cut along the paths from its lowest to its highest corner (Kuhn's triangulation, which matches at common
# faces). A point lies in the simplex whose path follows the axes in the order of the point's fractions, the largest first.
# The code of the simplex has one binary digit per pair of axes, (x, y)[, (x, z), (y, z)]: the comparison of their fractions.


def path(code: int, ndim: int) -> list[int]:
    """Return the order of the axes on the path of simplex `code` of a box. Some codes in 3-D have no simplex."""
    pairs = list(itertools.combinations(range(ndim), 2))
    wins = [0] * ndim
    for bit, (i, j) in enumerate(pairs):
        wins[i if code >> bit & 1 else j] += 1
    return sorted(range(ndim), key=lambda axis: -wins[axis])


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
        for axis in path(code, d):
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


def simplices_of(xy: Tensor, nodes: Sequence[int]) -> Tensor:  # (.., d) within [-1, 1] -> (..)
    """Return the index in `affine_maps` of the simplex around each point."""
    place = torch.zeros_like(xy[..., 0], dtype=torch.int64)
    fractions: list[Tensor] = []
    for axis, n in reversed(list(enumerate(reversed(nodes)))):  # the slowest first
        at = (xy[..., axis] + 1) * ((n - 1) / 2)
        base = at.floor().clamp_max(n - 2)
        fractions.insert(0, at - base)
        place = place * (n - 1) + base.long()
    pairs = list(itertools.combinations(fractions, 2))
    place = place * 2 ** len(pairs)
    for bit, (f, g) in enumerate(pairs):
        place = place + (f >= g) * 2**bit
    return place

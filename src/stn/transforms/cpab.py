"""CPAB: diffeomorphisms whose velocity is continuous and affine on each cell of a tessellation (Freifeld et al. 2017)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from stn import _check
from stn.transforms.base import Family, numbers_of_lattice
from stn.transforms.warp import Warp


class CPAB(Family["CPABWarp"]):
    """x' = exp(v)(x), v continuous and affine on each simplex of `cells` boxes an axis, each cut into d! simplices.

    Such a v is given by its values at the corners of the boxes: they are theta, node by node, normalised; zeros are the
    identity exactly. (The paper finds the same space as the null space of the continuity constraints.) -theta is the
    inverse, and nothing folds. boundary: "fixed", v = 0 on the border of the image, or "free".
    steps: of Runge and Kutta's, which each point takes by itself: 8 are within 5e-4 half widths of 400 for theta of a
    standard deviation of 0.2, and 1e-3 takes 16 at 0.4.
    """

    def __init__(
        self, ndim: int = 2, *, cells: Sequence[int] | None = None, boundary: str = "fixed", steps: int = 8
    ) -> None:
        self.ndim = _check.dimension(ndim, (2, 3), "CPAB")
        self.cells = _check.lattice_of("cells", (4,) * ndim if cells is None else cells, ndim, least=1)
        _check.choice("boundary", boundary, ("fixed", "free"))
        _check.inner_nodes("cells", self.cells, boundary)
        _check.at_least("steps", steps, 1)
        self.boundary, self.steps = boundary, steps

    def __repr__(self) -> str:
        return f"CPAB(ndim={self.ndim}, cells={self.cells}, boundary={self.boundary!r}, steps={self.steps})"

    @property
    def nodes(self) -> tuple[int, ...]:
        """How many nodes move along each axis."""
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
    def __init__(self, nodes: Tensor, steps: int) -> None:  # (N[, K], *nodes, d): velocities
        self.nodes, self.steps = nodes, steps
        self.ndim = nodes.shape[-1]
        self.batch = tuple(nodes.shape[: -self.ndim - 1])
        self.dtype, self.device = nodes.dtype, nodes.device

    def inverse(self) -> CPABWarp:
        """The flow of the negated velocity."""
        return CPABWarp(-self.nodes, self.steps)

    def velocity(self, xy: Tensor) -> Tensor:
        """v at normalised points (*batch, P, d); beyond the image it is that of the nearest point of its border."""
        shape = self.nodes.shape[len(self.batch) : -1]
        values, velocity = self.nodes.to(xy.dtype).flatten(len(self.batch), -2), torch.zeros_like(xy)
        for place, weight in corners_of(xy, shape):
            at = place.unsqueeze(-1).expand(*place.shape, self.ndim)
            velocity = velocity + weight.unsqueeze(-1) * values.gather(-2, at)
        return velocity

    def _map(self, xy: Tensor) -> Tensor:
        start = xy.to(torch.promote_types(self.working_dtype, xy.dtype))
        x, h = start, 1 / self.steps
        for _ in range(self.steps):
            k1 = self.velocity(x)
            k2 = self.velocity(x + h / 2 * k1)
            k3 = self.velocity(x + h / 2 * k2)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + self.velocity(x + h * k3))
        return x.to(torch.promote_types(self.dtype, xy.dtype))


def corners_of(xy: Tensor, nodes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:  # (.., d) -> d+1 times (..), (..)
    """The nodes of the simplex around each point, as places in the flat lattice, and its barycentric coordinates there.

    Each box is cut along the paths from its lowest to its highest corner (Kuhn's triangulation, which fits its neighbours'):
    with the point's fractions sorted, f_1 >= .. >= f_d, the path goes along the axes in that order, and the weights of its
    nodes are 1 - f_1, f_1 - f_2, .., f_d.
    """
    fractions, place = [], torch.zeros((), dtype=torch.int64, device=xy.device)
    strides = list(itertools.accumulate(nodes[:0:-1], lambda a, b: a * b, initial=1))  # in x, y, z order
    for x, n, stride in zip(xy.unbind(dim=-1), reversed(nodes), strides, strict=True):
        at = (x.clamp(-1, 1) + 1) * ((n - 1) / 2)
        base = at.detach().floor().clamp_max(n - 2)
        fractions.append(at - base)
        place = place + base.long() * stride
    corners, before = [], torch.ones_like(fractions[0])
    for fraction, step in descending(fractions, strides):
        corners.append((place, before - fraction))
        place, before = place + step, fraction
    return [*corners, (place, before)]


def descending(fractions: Sequence[Tensor], strides: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Fractions of two or three axes from the largest to the smallest, each with its axis's stride."""
    pairs = [
        (fraction, torch.full_like(fraction, stride, dtype=torch.int64))
        for fraction, stride in zip(fractions, strides, strict=True)
    ]
    for i in (0,) if len(pairs) == 2 else (0, 1, 0):  # bubble sort, as arithmetic
        (f, s), (g, t) = pairs[i], pairs[i + 1]
        swap = f < g
        pairs[i : i + 2] = [
            (torch.where(swap, g, f), torch.where(swap, t, s)),
            (torch.where(swap, f, g), torch.where(swap, s, t)),
        ]
    return pairs

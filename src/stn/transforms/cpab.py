"""CPAB: diffeomorphisms whose velocity is continuous and affine on each cell of a tessellation (Freifeld et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from stn import _check
from stn.grid import lattice
from stn.ops.flows.dispatch import displacements
from stn.ops.flows.simplices import Simplices
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
        ndim: 1, 2 or 3.
        cells: Number of boxes along each axis, (rows, columns) or (slices, rows, columns); at least 1, with a fixed
            boundary 2. None: 4.
        boundary: "fixed": v = 0 on the border of the image, and theta has the inner corners only. Or "free".
        steps: Runge-Kutta steps that each point takes, at least 1. 8 steps are within 5e-4 half widths of 128 for theta
            of a standard deviation of 0.2; at 0.4 within 7e-3, and 16 steps within 2e-3.

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
        self, ndim: int = 2, *, cells: int | Sequence[int] | None = None, boundary: str = "fixed", steps: int = 8
    ) -> None:
        ndim = _check.dimension(ndim, (1, 2, 3), "CPAB")
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

    def make(self, theta: Tensor) -> CPABWarp:
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
        points = xy.flatten(0, -3)
        return Simplices(self.steps).velocity(self._flat(xy.dtype), points).reshape(xy.shape)

    def _flat(self, dtype: torch.dtype) -> Tensor:  # (N * K, *nodes, d)
        return self.nodes.to(dtype).flatten(0, len(self.batch) - 1)

    def map(self, xy: Tensor) -> Tensor:
        x = xy.to(torch.promote_types(self.working_dtype, xy.dtype))
        moved = displacements(Simplices(self.steps), self._flat(x.dtype), x.flatten(0, -3))
        return (x + moved.reshape(x.shape)).to(torch.promote_types(self.dtype, xy.dtype))

    def _displacements(self, size: tuple[int, ...], align_corners: bool) -> Tensor:
        """All images share the points, which are not copied."""
        xy = lattice(size, align_corners=align_corners, dtype=self.working_dtype, device=self.device)
        moved = displacements(Simplices(self.steps), self._flat(xy.dtype), xy.flatten(0, -2).unsqueeze(0))
        return moved.reshape(*self.batch, *size, self.ndim)

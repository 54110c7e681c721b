"""Every transform family as a user would write it in plain PyTorch: tables made beforehand, then `grid_sample`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from stn.grid import axis, lattice
from stn.ops.rules.lattice import cubic_weights
from stn.ops.rules.spline import radial_and_linear
from stn.transforms import FAMILIES, Family
from stn.transforms.spline import coefficients_of_offsets

Grid = Callable[[Tensor], Tensor]  # theta -> (N, *size, d)
PLANAR = ("corners",)  # families of images alone
SQUARINGS = 7
SPREAD = {"displacement": 0.05, "bspline": 0.05, "velocity": 0.2, "cpab": 0.2}  # standard deviation of theta; 0.1 of others


def family_of(name: str, ndim: int) -> Family:
    return FAMILIES[name](ndim)


def theta_of(name: str, n: int, ndim: int) -> Tensor:
    """Return the identity plus normal noise."""
    start = family_of(name, ndim).identity()
    noise = torch.randn(n, len(start), generator=torch.Generator().manual_seed(1))
    return start + SPREAD.get(name, 0.1) * noise


def sampled_by(name: str, size: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return (image, theta) -> image, of images of this size."""
    family = family_of(name, len(size))
    grid = GRIDS.get(name, matrix)(family, tuple(size))

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        return grid_sample(image, grid(theta), align_corners=False)

    return sample


def pixels(size: Sequence[int]) -> Tensor:
    return lattice(size, dtype=torch.float32)


def matrix(family: Any, size: tuple[int, ...]) -> Grid:
    return lambda theta: affine_grid(family(theta).matrix, [len(theta), 1, *size], align_corners=False)


def homography(family: Any, size: tuple[int, ...]) -> Grid:
    xy = pixels(size).flatten(0, -2)
    points = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)

    def grid(theta: Tensor) -> Tensor:
        moved = points @ family(theta).matrix.mT
        return (moved[..., :-1] / moved[..., -1:]).unflatten(1, size)

    return grid


def thin_plate(family: Any, size: tuple[int, ...]) -> Grid:
    device = torch.get_default_device()
    with torch.device("cpu"):  # of the control points
        xy = lattice(size, dtype=torch.float64).flatten(0, -2)
        solution = coefficients_of_offsets(family.control_points, family.smoothing)  # (T+d+1, T)
        basis = (radial_and_linear(xy, family.control_points) @ solution).float().to(device)
    base = xy.float().to(device)
    return lambda theta: (base + basis @ theta.unflatten(1, (-1, len(size)))).unflatten(1, size)


def displacement(family: Any, size: tuple[int, ...]) -> Grid:
    base, mode = pixels(size), "bilinear" if len(size) == 2 else "trilinear"

    def grid(theta: Tensor) -> Tensor:
        field = theta.unflatten(1, (*family.shape, len(size))).movedim(-1, 1)
        return base + interpolate(field, size=size, mode=mode, align_corners=False).movedim(1, -1)

    return grid


def spline_values(shape: Sequence[int], size: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return theta -> (N, *size, d): matrices along each axis, the last first."""
    places = zip(size, shape, strict=True)
    weights = [cubic_weights(axis(m, dtype=torch.float64), n).float() for m, n in places]

    def values(theta: Tensor) -> Tensor:
        found = theta.unflatten(1, (*shape, len(size)))
        for place, matrix in enumerate(reversed(weights)):
            found = (found.movedim(-2 - place, -1) @ matrix.mT).movedim(-1, -2 - place)
        return found

    return values


def bspline(family: Any, size: tuple[int, ...]) -> Grid:
    base, values = pixels(size), spline_values(family.shape, size)
    return lambda theta: base + values(theta)


def velocity(family: Any, size: tuple[int, ...]) -> Grid:
    return flow(spline_values(family.shape, size), size)


def cpab(family: Any, size: tuple[int, ...]) -> Grid:
    """The velocity of a pixel is a mean of d + 1 nodes, whose numbers and weights are known beforehand."""
    nodes, weights = corners(family.cells, size)

    def values(theta: Tensor) -> Tensor:
        flat = family(theta).nodes.flatten(1, -2)
        return (flat[:, nodes] * weights.unsqueeze(-1)).sum(dim=-2).unflatten(1, size)

    return flow(values, size)


def corners(cells: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:  # (Q, d + 1) each
    """Return the nodes around each pixel in its simplex, and their weights: the differences of its sorted fractions."""
    counts = torch.tensor(list(reversed(cells)))
    at = (pixels(size).flatten(0, -2) + 1) * (counts / 2)
    base = at.floor().minimum(counts - 1.0)
    fractions, order = (at - base).sort(dim=1, descending=True)
    strides = torch.tensor([math.prod(n + 1 for n in reversed(cells[len(cells) - i :])) for i in range(len(cells))])
    first = (base.long() * strides).sum(dim=1, keepdim=True)
    nodes = torch.cat([first, first + strides[order].cumsum(dim=1)], dim=1)
    ends = torch.ones_like(fractions[:, :1])
    return nodes, torch.cat([ends, fractions], dim=1) - torch.cat([fractions, 0 * ends], dim=1)


def flow(values: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> Grid:
    """Scaling and squaring of a velocity at every pixel, as in VoxelMorph."""
    base = pixels(size)

    def grid(theta: Tensor) -> Tensor:
        moved = values(theta) / 2**SQUARINGS
        for _ in range(SQUARINGS):
            image = moved.movedim(-1, 1)
            moved = moved + grid_sample(image, base + moved, padding_mode="border", align_corners=False).movedim(1, -1)
        return base + moved

    return grid


GRIDS: dict[str, Callable[[Any, tuple[int, ...]], Grid]] = {
    "projective": homography, "corners": homography, "tps": thin_plate, "displacement": displacement, "bspline": bspline,
    "velocity": velocity, "cpab": cpab,
}  # fmt: skip  # of families that are no affine matrices

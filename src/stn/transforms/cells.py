"""Cells of a lattice whose images may contain a point: where a search for its inverse can begin.

A solution of warp(x) = y lies in some cell. Between the values of a stored field the map is linear along each axis, so the
image of a cell lies in the bounding box of its mapped corners. For a smooth map the box grows by the distance that second
differences allow. Points whose y lies in no box have no solution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stn.transforms.cramer import solve

COUNT = 8  # cells that are tried for each point, those first whose linear map has the solution inside
SMOOTH = {1: 513, 2: 129, 3: 33}  # nodes along each axis of the image, for a map without a lattice of its own
BLOCK = {1: 32, 2: 8, 3: 4}  # cells along each axis of a block, which is tested before its cells
PAIRS = 2**21  # pairs of a point and a block at once: 2 MB for each test
BEYOND = (1.1, 1.4)  # nodes outside the image, half widths; then each twice as far as the last
FURTHER = 16  # how far, in twice the largest displacement in the image: that of a thin-plate spline grows outside


class Cells(NamedTuple):
    """The cells to try for each point, the best first: (*batch, Q, COUNT, d). A missing one repeats the point itself."""

    low: Tensor
    high: Tensor


class PointMap(Protocol):
    """The part of a warp that the search for an inverse uses."""

    batch: tuple[int, ...]
    ndim: int

    def map(self, xy: Tensor) -> Tensor: ...  # (*batch, P, d) -> (*batch, P, d)
    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]: ...  # map, and its Jacobian (*batch, P, d, d)
    def flatten(self) -> PointMap: ...
    def __getitem__(self, index: Tensor) -> PointMap: ...
    def _kinks(self) -> tuple[Tensor, ...] | None: ...  # coordinates of a stored lattice along x, y[, z]


def cells_around(warp: PointMap, y: Tensor, wanted: Tensor) -> Cells:  # (*batch, Q, d), (*batch, Q) bool
    """Find the cells that may hold the solution for each wanted point."""
    d, chosen = warp.ndim, wanted.reshape(-1, wanted.shape[-1])
    flat = y.reshape(*chosen.shape, d)
    low, high = (flat.unsqueeze(-2).repeat(1, 1, COUNT, 1) for _ in range(2))
    rows = chosen.any(dim=-1).nonzero()[:, 0]
    warp = warp.flatten()[rows]
    axes, smooth = _nodes(warp, y[wanted])
    xs = torch.stack(torch.meshgrid(*reversed(axes), indexing="ij")[::-1], dim=-1)  # (*nodes, d)
    mapped = warp.map(xs.flatten(0, -2).expand(len(rows), -1, -1)).unflatten(-2, xs.shape[:-1])
    for row, images in zip(rows.tolist(), mapped, strict=True):
        points = chosen[row].nonzero()[:, 0]
        low[row, points], high[row, points] = _Boxes.of(xs, images, smooth).best(flat[row, points])
    return Cells(low.view(*y.shape[:-1], COUNT, d), high.view(*y.shape[:-1], COUNT, d))


def _nodes(warp: PointMap, y: Tensor) -> tuple[list[Tensor], bool]:  # (Q, d)
    """Return the coordinates of the lattice's nodes along x, y[, z], up to where solutions end, and whether it is smooth."""
    kinks = warp._kinks()
    if kinks is None:
        inner = [torch.linspace(-1, 1, SMOOTH[warp.ndim], dtype=y.dtype, device=y.device)] * warp.ndim
    else:
        inner = [_divided(axis.to(y), SMOOTH[warp.ndim]) for axis in kinks]
    some = [axis[:: max(1, len(axis) // 32)] for axis in inner]
    xs = torch.stack(torch.meshgrid(*some, indexing="ij"), dim=-1).flatten(0, -2)
    moved = (warp.map(xs.expand(*warp.batch, -1, -1)) - xs).abs()
    known = torch.cat([torch.where(t.isfinite(), t.abs(), 0).flatten() for t in (y, moved)])
    reach = 2 * float(known.amax()) + 2 if len(known) else 2.0
    ends = [reach] if kinks is not None else [*BEYOND]
    while ends[-1] < reach * FURTHER and kinks is None:
        ends.append(2 * ends[-1])
    outer = y.new_tensor(ends)
    return [torch.cat([-outer.flip(0), axis, outer]) for axis in inner], kinks is None


def _divided(axis: Tensor, least: int) -> Tensor:  # (n,) -> (m (n - 1) + 1,)
    """Divide the cells of a stored lattice until there are about as many as of a smooth map."""
    count = max(1, least // len(axis))
    if count == 1 or len(axis) == 1:
        return axis
    shares = torch.arange(count, dtype=axis.dtype, device=axis.device) / count
    return torch.cat([torch.lerp(axis[:-1, None], axis[1:, None], shares).flatten(), axis[-1:]])


class _Boxes(NamedTuple):
    """The boxes around the images of all cells, of one sample."""

    below: Tensor  # lower corner of each cell (*cells, d)
    above: Tensor  # upper corner
    least: Tensor  # lower corner of the box around its image
    most: Tensor
    mean: Tensor  # mean of the mapped corners
    slopes: Tensor  # Jacobian of the linear map through them (*cells, d, d)

    @classmethod
    def of(cls, xs: Tensor, images: Tensor, smooth: bool) -> _Boxes:  # (*nodes, d) each
        d = xs.shape[-1]
        corners = _corners(d)
        stack = torch.stack([images[place] for place in corners])
        least, most = stack.amin(dim=0), stack.amax(dim=0)
        room = _bend(images, d) if smooth else 8 * torch.finfo(xs.dtype).eps * stack.abs().amax(dim=0)
        below, above = xs[corners[0]], xs[corners[-1]]
        halves = stack.unflatten(0, (2,) * d)
        steps = [halves.select(d - 1 - i, 1) - halves.select(d - 1 - i, 0) for i in range(d)]
        rises = [step.flatten(0, -d - 2).mean(dim=0) if d > 1 else step for step in steps]
        slopes = torch.stack(rises, dim=-1) / (above - below).unsqueeze(-2)
        least, most = (least - room).nan_to_num(nan=-torch.inf), (most + room).nan_to_num(nan=torch.inf)
        return cls(below, above, least, most, stack.mean(dim=0), slopes)

    def best(self, y: Tensor) -> tuple[Tensor, Tensor]:  # (Q, d) -> (Q, COUNT, d) twice
        """Return the cells whose boxes contain y, by how far outside them their own linear map has its solution."""
        d = y.shape[-1]
        low, high = (y.unsqueeze(1).repeat(1, COUNT, 1) for _ in range(2))
        below, above, _, _, mean, slopes = (tensor.flatten(0, d - 1) for tensor in self)
        for point, cell in self._pairs(y):
            step = solve(slopes[cell], y[point] - mean[cell])  # from the center
            outside = (2 * step / (above[cell] - below[cell])).abs().amax(dim=-1).nan_to_num(nan=torch.inf)
            order = outside.argsort(stable=True)
            order = order[point[order].argsort(stable=True)]  # by point, then by the distance outside
            point, cell = point[order], cell[order]
            rank = torch.arange(len(point), device=y.device) - torch.searchsorted(point, point)
            point, cell, rank = (tensor[rank < COUNT] for tensor in (point, cell, rank))
            low[point, rank], high[point, rank] = below[cell], above[cell]
        return low, high

    def _pairs(self, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of a point and a cell whose box contains it, all of some points at once."""
        d, side = y.shape[-1], BLOCK[y.shape[-1]]
        most, least = (_pooled(tensor, side) for tensor in (self.most, -self.least))
        blocks, most, least = most.shape[:-1], most.flatten(0, d - 1), -least.flatten(0, d - 1)
        flat_least, flat_most = self.least.flatten(0, d - 1), self.most.flatten(0, d - 1)
        limits = torch.tensor(self.least.shape[:-1], device=y.device)
        strides = limits.new_tensor([math.prod(self.least.shape[i + 1 : -1]) for i in range(d)])
        within = torch.cartesian_prod(*[torch.arange(side, device=y.device)] * d).view(-1, d)
        for points in torch.arange(len(y), device=y.device).split(max(1, PAIRS // len(most))):
            hit = ((y[points, None] >= least) & (y[points, None] <= most)).all(dim=-1).nonzero()
            found = []
            for point, block in (part.unbind(dim=-1) for part in hit.split(max(1, PAIRS // len(within)))):
                at = side * torch.stack(torch.unravel_index(block, blocks), dim=-1).unsqueeze(1) + within
                cell = (at.minimum(limits - 1) * strides).sum(dim=-1)
                wanted = y[points[point], None]
                chosen = ((wanted >= flat_least[cell]) & (wanted <= flat_most[cell])).all(dim=-1) & (at < limits).all(dim=-1)
                found.append((points[point].unsqueeze(-1).expand(cell.shape)[chosen], cell[chosen]))
            if found:
                yield torch.cat([point for point, _ in found]), torch.cat([cell for _, cell in found])


def _pooled(values: Tensor, side: int) -> Tensor:  # (*cells, d) -> (*blocks, d)
    """Return the largest values in blocks of `side` cells along each axis."""
    pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)
    return pool[values.shape[-1] - 1](values.movedim(-1, 0)[None], side, ceil_mode=True)[0].movedim(0, -1)


def _corners(d: int) -> list[tuple[slice, ...]]:
    """Return the places of the corners of all cells in a lattice, z before y before x, the lower one first."""
    return list(itertools.product((slice(None, -1), slice(1, None)), repeat=d))


def _bend(images: Tensor, d: int) -> Tensor:  # (*nodes, d) -> (*cells, d)
    """Return the distance of a smooth map from the linear one of a cell: second differences / 8, twice for safety."""
    room = torch.zeros_like(images)
    for axis in range(d):
        bent = images.diff(n=2, dim=axis).abs()
        first, last = bent.narrow(axis, 0, 1), bent.narrow(axis, bent.shape[axis] - 1, 1)
        room = room + torch.cat([first, bent, last], dim=axis)
    return torch.stack([room[place] for place in _corners(d)]).amax(dim=0) / 4

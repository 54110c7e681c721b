"""Interpolation kernels as tables: the weights of any kernel k(distance), for the kernels of a device.

The weights of all taps are functions of t = x - floor(x) in [0, 1). A table divides [0, 1) into cells. In each cell a cubic
in u = cells t - floor(cells t) passes through the weights of each tap at four points. If the support is not a whole number,
the outermost taps end within a cell, which is divided there.

A table is used if it has the weights to within ERRORS. A kernel with a corner inside a cell has none, and one whose weights
need a gradient has none: the reference samples with these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn.ops.interpolation import Interpolation

CELLS = {torch.float32: 128, torch.float64: 4096}  # Lanczos: errors of 1e-10 and 2e-16, of slopes 2e-7 and 6e-12
ERRORS = {torch.float32: 3e-8, torch.float64: 1e-12}  # of a weight, as a share of the largest
MOST_TAPS = 64  # of an axis
LANES = 8  # a row of numbers has a multiple of it
NODES = (1e-6, 0.25, 0.75, 1 - 1e-6)  # of a cell: not its ends, where a weight may jump
NARROW = 1e-3  # of a cell: a narrower part has a line, of which two points are enough


class Table:
    """The weights of a kernel. Two tables are equal if they are one."""

    def __init__(self, numbers: Any, taps: int, cells: int, support: float) -> None:
        self.numbers = numbers  # (cells + 2, 4, span) float64: of each cell the four coefficients, for each tap
        self.taps, self.cells, self.support = taps, cells, support
        self.sums_to_one = bool(np.abs(numbers[1:-1].sum(axis=2) - np.array([1.0, 0, 0, 0])).max() < 1e-9)

    @property
    def span(self) -> int:
        return int(self.numbers.shape[2])


class Tables:
    """The tables of a kernel, for as long as it has these weights."""

    def __init__(self, seen: Tensor | None) -> None:
        self.seen = seen  # its weights at some distances
        self.found: dict[torch.dtype, Table | None] = {}


def readable(interpolation: Interpolation, dtype: torch.dtype) -> bool:
    """Return True if there is a table for images of this dtype. Looks whether a user's kernel is still the same."""
    now = current(interpolation)
    return now is not None and _table(interpolation, now, real_of(dtype)) is not None


def table_of(interpolation: Interpolation, dtype: torch.dtype) -> Table:
    """Return the table that `readable` has found."""
    now = interpolation.tables.get("now") or current(interpolation)
    found = None if now is None else _table(interpolation, now, real_of(dtype))
    assert found is not None
    return found


def real_of(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def current(interpolation: Interpolation) -> Tables | None:
    """Return the tables of the kernel, new ones if it has changed; None if its weights need a gradient."""
    tables, seen = interpolation.tables, None
    if interpolation.probe is not None:
        seen = interpolation.probe()
        if seen.requires_grad:
            return None
    now: Tables | None = tables.get("now")
    if now is None or not (seen is now.seen or (seen is not None and now.seen is not None and _same(seen, now.seen))):
        now = tables["now"] = Tables(seen)
    return now


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


def _table(interpolation: Interpolation, now: Tables, real: torch.dtype) -> Table | None:
    if real not in now.found:
        now.found[real] = tabulated(interpolation, CELLS[real], ERRORS[real])
    return now.found[real]


# ---- a table ----


def tabulated(interpolation: Interpolation, cells: int, error: float) -> Table | None:
    """Make a table; return None if it is not as accurate as that."""
    taps, support = len(interpolation.offsets), interpolation.support
    assert support is not None
    if taps > MOST_TAPS:
        return None
    splits = [s for s in (support % 1.0, (1 - support % 1.0)) if 0 < s < 1]
    ends = np.unique(np.concatenate([np.arange(cells + 1) / cells, splits]))
    low, width = ends[:-1], np.diff(ends)
    rows = row_of((low + ends[1:]) / 2, taps, cells, support)
    numbers = np.zeros((cells + 2, 4, -(-taps // LANES) * LANES))
    nodes = low[:, None] + width[:, None] * np.array(NODES)  # (parts, 4)
    numbers[rows, :, :taps] = _polynomials(nodes, weights_at(interpolation, nodes), cells, width)
    for split in splits:  # a point of its own, if it is the end of a cell
        row = row_of(np.array([split]), taps, cells, support)
        if row[0] not in rows:
            numbers[row[0], 0, :taps] = weights_at(interpolation, np.array([split]))[0]
    table = Table(numbers, taps, cells, support)
    at = np.concatenate([ends[:-1], *(low + width * share for share in (0.1, 0.5, 0.9))])
    wanted = weights_at(interpolation, at)
    found = evaluated(table, at)
    good = np.abs(found - wanted).max() <= error * np.abs(wanted).max()  # NaN is not
    return table if good else None


def weights_at(interpolation: Interpolation, t: Any) -> Any:
    """(..) -> (.., taps), float64."""
    found = interpolation.weights(torch.from_numpy(t))
    return torch.stack([weight.detach().double().expand(t.shape) for weight in found], dim=-1).numpy()


def row_of(t: Any, taps: int, cells: int, support: float) -> Any:
    """Return the row of a table: the cell, and which of the outermost taps have a weight."""
    return np.floor(t * cells).astype(np.int64) + (t + (taps // 2 - 1) > support) + (taps // 2 - t <= support)


def evaluated(table: Table, t: Any) -> Any:  # (n,) -> (n, taps)
    u = t * table.cells - np.floor(t * table.cells)
    rows = table.numbers[row_of(t, table.taps, table.cells, table.support)][:, :, : table.taps]
    return (rows * (u[:, None] ** np.arange(4))[:, :, None]).sum(axis=1)


def _polynomials(nodes: Any, weights: Any, cells: int, width: Any) -> Any:
    """(parts, 4), (parts, 4, taps) -> coefficients (parts, 4, taps)."""
    u = nodes * cells - np.floor(nodes.mean(axis=1) * cells)[:, None]
    found = np.zeros_like(weights)
    wide = width * cells > NARROW
    found[wide] = np.linalg.solve(u[wide][:, :, None] ** np.arange(4), weights[wide])
    for part in np.flatnonzero(~wide):
        (a, b), (v, w) = u[part, [0, 3]], weights[part, [0, 3]]
        slope = (w - v) / (b - a) if b > a and math.isfinite(1 / (b - a)) else 0 * v
        found[part, 0], found[part, 1] = v - a * slope, slope
    return found

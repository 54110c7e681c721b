"""The numbers of a coordinate rule that depend on its data: written before a kernel, and the data's gradient after it.

Two small functions a rule, compiled, because the same in NumPy takes ten calls: of a matrix 12 us and 25, and 0.3 so. They
follow the formulas of `Rule.coordinates`. Stored points are read where they are, and need none.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from stn.ops.cpu.compiling import loop, merged
from stn.ops.cpu.points import KINDS
from stn.ops.cpu.words import NOWHERE, WORDS, Array, Record


class Data(NamedTuple):
    """What belongs to a rule."""

    grid: Any  # its numbers, to be written
    sums: Any  # of a kernel: of each tile, or the gradient of a field
    bends: Any
    scale: Any  # of a matrix: `scale` in rules/matrix.py
    given: Any  # (looks, rows, columns), the data: of N * K looks, or of K that are for all images
    knots: Any  # (T, ndim), control points
    gradient: Any  # as given, to be written


GRIDS = {
    "affine": {"coef": 3, "center": 1}, "projective": {"coef": 3, "center": 1}, "field": {"field": 3, "axes": 2},
    "basis": {"coef": 3, "center": 1, "bend": 3, "knots": 2, "step": 1},
    "lattice": {"nodes": 1, "axes": 2, "first": 1, "across": 3, "down": 2, "deep": 2, "sides": 1},
}  # fmt: skip  # the dimensions of each array


@cache
def data_record(kind: str, number: str) -> Record:
    """number: the precision of the data."""
    given, arrays = Array(number, 3, NOWHERE), {name: Array("f8", ndim, WORDS) for name, ndim in GRIDS[kind].items()}
    sums = Array("f8", 4, WORDS)
    if kind == "field":
        arrays["field"] = sums = Array(number, 3, NOWHERE)
    if kind == "lattice":
        arrays["nodes"] = Array(number, 1, NOWHERE)
    fields = {"grid": Record(KINDS[kind], arrays), "sums": sums, "bends": Array("f8", 4, WORDS), "given": given}
    return Record(Data, fields | {"scale": Array("f8", 2, WORDS), "knots": Array("f8", 2, NOWHERE), "gradient": given})


# ---- what is compiled ----


@merged
def matrix_numbers(data):
    grid, scale, given = data.grid, data.scale, data.given
    rows, d = scale.shape[0], scale.shape[1] - 1
    for look in range(len(grid.coef)):
        i = look % len(given)
        clear_coef(grid.coef, look)
        for r in range(rows):
            row = r if r < d else 3
            for k in range(d):
                grid.coef[look, row, k] = given[i, r, k] * scale[r, k]
            grid.coef[look, row, 3] = given[i, r, d] * scale[r, d]


@merged
def matrix_gradient(data):
    scale, gradient = data.scale, data.gradient
    rows, d = scale.shape[0], scale.shape[1] - 1
    for i in range(len(gradient)):
        for r in range(rows):
            for k in range(d + 1):
                gradient[i, r, k] = scale[r, k] * total_of(data.sums, i, len(gradient), r if r < d else 3, k if k < d else 3)


@merged
def spline_numbers(data):
    """The bends come first, then a matrix; knots that bend nothing make their number a multiple of GROUP."""
    grid, scale, given, count, d = data.grid, data.scale, data.given, len(data.knots), data.scale.shape[0]
    for look in range(len(grid.coef)):
        w = given[look % len(given)]
        clear_coef(grid.coef, look)
        for i in range(d):
            for t in range(grid.bend.shape[2]):
                grid.bend[look, i, t] = w[t, i] * scale[i, d] if t < count else 0.0
            grid.coef[look, i, 3] = w[count, i] * scale[i, d]
            for j in range(d):
                grid.coef[look, i, j] = ((1.0 if i == j else 0.0) + w[count + 1 + j, i]) * scale[i, j]
    for t in range(len(grid.knots)):
        for i in range(d):
            grid.knots[t, i] = data.knots[t, i] if t < count else 0.0


@merged
def spline_gradient(data):
    scale, gradient, count, d = data.scale, data.gradient, len(data.knots), data.scale.shape[0]
    for k in range(len(gradient)):
        for i in range(d):
            for t in range(count):
                gradient[k, t, i] = scale[i, d] * total_of(data.bends, k, len(gradient), i, t)
            gradient[k, count, i] = scale[i, d] * total_of(data.sums, k, len(gradient), i, 3)
            for j in range(d):
                gradient[k, count + 1 + j, i] = scale[i, j] * total_of(data.sums, k, len(gradient), i, j)


@merged
def lattice_gradient(data):
    for k in range(len(data.gradient)):
        for node in range(data.gradient.shape[1]):
            for i in range(data.gradient.shape[2]):
                data.gradient[k, node, i] = data.grid.axes[i, 0] * total_of(data.sums, k, len(data.gradient), node, i)


@merged
def clear_coef(coef, look):
    for r in range(4):
        for k in range(4):
            coef[look, r, k] = 0


@loop
def total_of(sums, start, step, r, k):
    """Over the tiles, in order, of each look that has these data: every `step`th."""
    found = 0.0
    for look in range(start, sums.shape[0], step):
        for tile in range(sums.shape[1]):
            found += sums[look, tile, r, k]
    return found


STAGES: dict[str, tuple[Any, ...]] = {
    "affine": (matrix_numbers, matrix_gradient),
    "projective": (matrix_numbers, matrix_gradient),
    "basis": (spline_numbers, spline_gradient),
    "lattice": (None, lattice_gradient),  # a lattice is read where it lies
}

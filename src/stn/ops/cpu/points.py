"""Coordinate rules as small Numba functions: where the pixels of a row look.

A sampling grid is given by a named tuple of arrays, the numbers of its rule. Axes are in x, y, z order; u are centered
target pixels; coef_i . u stands for coef_i . (u, 1). What calls them, row by row, is in `kernels.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.compiling import NDIM, inline, loop, loop_fused
from stn.ops.cpu.lattices import contract, move_plane, move_volume
from stn.ops.cpu.radial import fill_table
from stn.ops.cpu.taps import COLUMNS
from stn.ops.cpu.tile import AT_HEIGHT, AT_LOOK, AT_NUMBER, AT_TABLE, AT_WIDTH, row_start
from stn.ops.cpu.words import flat
from stn.ops.rules.matrix import HORIZON
from stn.ops.rules.spline import GROUP


class Affine(NamedTuple):
    """p_i = coef_i . u + center_i."""

    coef: Any  # (N * K, 4, 4)
    center: Any  # (3,)


class Projective(NamedTuple):
    """p_i = (coef_i . u) / (coef_3 . u) + center_i."""

    coef: Any
    center: Any


class Field(NamedTuple):
    """p_i = axes_i0 field_i + axes_i1 u_i + axes_i2."""

    field: Any  # (N * K, Q, ndim)
    axes: Any  # (3, 3)


class Basis(NamedTuple):
    """p_i = coef_i . u + center_i + sum_t bend_it U_t, with U_t(x) = U(|x - knot_t|) and x_i = step_i u_i."""

    coef: Any
    center: Any
    bend: Any  # (N * K, ndim, T), T a multiple of GROUP
    knots: Any  # (T, ndim) normalized
    step: Any  # (ndim,)


class Lattice(NamedTuple):
    """p_i = axes_i0 f_i + axes_i1 u_i + axes_i2, f interpolated between control points: `rules/lattice.py`."""

    nodes: Any  # flat: (looks with data of their own, *shape, ndim)
    axes: Any  # (3, 3)
    first: Any  # (blocks,), the first control point of each block of a row
    across: Any  # (blocks, taps, BLOCK)
    down: Any  # (H, 1 + taps): the first control point of each row, then weights
    deep: Any  # (D, 1 + taps)
    sides: Any  # (5,): width and height of the output, numbers of control points in x, y, z


# of `Rule.numbers`
KINDS: dict[str, Any] = {
    "affine": Affine, "projective": Projective, "field": Field, "basis": Basis, "lattice": Lattice,
}  # fmt: skip


# ---- points[i, j] = source pixels, float64, of row r of a tile ----


@inline
def affine_points(grid, sizes, r, at, points, table):
    _, u0, u1, u2 = row_start(sizes, at, r)
    for i in range(NDIM):
        straight_row(grid.coef, grid.center, at[AT_LOOK], u0, u1, u2, at[AT_WIDTH], i, points)


@inline
def projective_points(grid, sizes, r, at, points, table):
    _, u0, u1, u2 = row_start(sizes, at, r)
    for i in range(NDIM):
        divided_row(grid.coef, grid.center, at[AT_LOOK], u0, u1, u2, at[AT_WIDTH], i, points)


@inline
def field_points(grid, sizes, r, at, points, table):
    start, u0, u1, u2 = row_start(sizes, at, r)
    if NDIM == 2:
        plane_row(grid.field, grid.axes, at[AT_LOOK], start, u0, u1, at[AT_WIDTH], points)
    else:
        volume_row(grid.field, grid.axes, at[AT_LOOK], start, u0, u1, u2, at[AT_WIDTH], points)


@inline
def basis_points(grid, sizes, r, at, points, table):
    """The table of radial functions is that of the whole tile, unless it is still that of the look before."""
    _, u0, u1, u2 = row_start(sizes, at, r)
    if at[AT_TABLE] != at[AT_NUMBER]:
        _, v0, v1, v2 = row_start(sizes, at, 0)
        fill_table(grid.knots, grid.step, v0, v1, v2, at[AT_WIDTH], at[AT_HEIGHT], COLUMNS, table)
        at[AT_TABLE] = at[AT_NUMBER]
    for i in range(NDIM):
        straight_row(grid.coef, grid.center, at[AT_LOOK], u0, u1, u2, at[AT_WIDTH], i, points)
    if NDIM == 2:
        bend_row(grid.bend, at[AT_LOOK], table, r * COLUMNS, at[AT_WIDTH], points[0], points[1])
    else:
        bend_volume(grid.bend, at[AT_LOOK], table, r * COLUMNS, at[AT_WIDTH], points[0], points[1], points[2])


@inline
def lattice_points(grid, sizes, r, at, points, table):
    (start, u0, u1, u2), look, width = row_start(sizes, at, r), at[AT_LOOK], at[AT_WIDTH]
    row = contract(grid.nodes, grid.first, grid.across, grid.down, grid.deep, grid.sides, look, start, width, table)
    if NDIM == 2:
        move_plane(grid.axes, grid.first, grid.across, row, u0, u1, width, table, points)
    else:
        move_volume(grid.axes, grid.first, grid.across, row, u0, u1, u2, width, table, points)


POINTS = {
    "affine": affine_points, "projective": projective_points, "field": field_points, "basis": basis_points,
    "lattice": lattice_points,
}  # fmt: skip


@loop
def straight_row(coef, center, look, u0, u1, u2, width, i, points):
    a, c = coef[look, i, 0], center[i]
    rest = coef[look, i, 1] * u1 + coef[look, i, 2] * u2 + coef[look, i, 3]
    for j in range(np.uint64(width)):
        points[i, j] = a * (u0 + np.float64(np.int64(j))) + rest + c


@loop
def divided_row(coef, center, look, u0, u1, u2, width, i, points):
    a, b, c = coef[look, i, 0], coef[look, 3, 0], center[i]
    rest = coef[look, i, 1] * u1 + coef[look, i, 2] * u2 + coef[look, i, 3]
    rest_w = coef[look, 3, 1] * u1 + coef[look, 3, 2] * u2 + coef[look, 3, 3]
    for j in range(np.uint64(width)):
        u = u0 + np.float64(np.int64(j))
        points[i, j] = (a * u + rest) / off_horizon(b * u + rest_w) + c


@inline
def off_horizon(w):
    """The divisor of a homography, kept off zero."""
    return HORIZON if abs(w) < HORIZON else w


@loop
def plane_row(field, axes, look, start, u0, u1, width, points):
    """Compute both axes in one loop over flat numbers, so that LLVM loads vectors: 0.3 ns per pixel instead of 1.1."""
    x_scale, step, x_rest = axes[0, 0], axes[0, 1], axes[0, 1] * u0 + axes[0, 2]
    y_scale, y_rest = axes[1, 0], axes[1, 1] * u1 + axes[1, 2]
    numbers, one, two = flat(field), np.uint64(1), np.uint64(2)
    first = np.uint64(look * field.shape[1]) + start
    for j in range(np.uint64(width)):
        k = (first + j) * two
        points[0, j] = x_scale * numbers[k] + (step * np.float64(np.int64(j)) + x_rest)
        points[1, j] = y_scale * numbers[k + one] + y_rest


@loop
def volume_row(field, axes, look, start, u0, u1, u2, width, points):
    x_scale, step, x_rest = axes[0, 0], axes[0, 1], axes[0, 1] * u0 + axes[0, 2]
    y_scale, y_rest = axes[1, 0], axes[1, 1] * u1 + axes[1, 2]
    z_scale, z_rest = axes[2, 0], axes[2, 1] * u2 + axes[2, 2]
    numbers, one, two, three = flat(field), np.uint64(1), np.uint64(2), np.uint64(3)
    first = np.uint64(look * field.shape[1]) + start
    for j in range(np.uint64(width)):
        k = (first + j) * three
        points[0, j] = x_scale * numbers[k] + (step * np.float64(np.int64(j)) + x_rest)
        points[1, j] = y_scale * numbers[k + one] + y_rest
        points[2, j] = z_scale * numbers[k + two] + z_rest


@loop_fused
def bend_row(bend, look, table, first, width, x, y):
    """Add the bends of both axes at once, which reads the table once, four knots at a time."""
    for t in range(0, bend.shape[2], GROUP):
        a, b, c, d = bend[look, 0, t], bend[look, 0, t + 1], bend[look, 0, t + 2], bend[look, 0, t + 3]
        e, f, g, h = bend[look, 1, t], bend[look, 1, t + 1], bend[look, 1, t + 2], bend[look, 1, t + 3]
        for j in range(np.uint64(width)):
            k = np.uint64(first) + j
            u, v, w, z = table[t, k], table[t + 1, k], table[t + 2, k], table[t + 3, k]
            x[j] += a * u + b * v + c * w + d * z
            y[j] += e * u + f * v + g * w + h * z


@loop_fused
def bend_volume(bend, look, table, first, width, x, y, z):
    for t in range(0, bend.shape[2], GROUP):
        a, b, c, d = bend[look, 0, t], bend[look, 0, t + 1], bend[look, 0, t + 2], bend[look, 0, t + 3]
        e, f, g, h = bend[look, 1, t], bend[look, 1, t + 1], bend[look, 1, t + 2], bend[look, 1, t + 3]
        k, o, m, n = bend[look, 2, t], bend[look, 2, t + 1], bend[look, 2, t + 2], bend[look, 2, t + 3]
        for j in range(np.uint64(width)):
            i = np.uint64(first) + j
            u, v, w, r = table[t, i], table[t + 1, i], table[t + 2, i], table[t + 3, i]
            x[j] += a * u + b * v + c * w + d * r
            y[j] += e * u + f * v + g * w + h * r
            z[j] += k * u + o * v + m * w + n * r

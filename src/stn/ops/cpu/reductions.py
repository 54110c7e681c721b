"""From the gradient of each pixel of a tile to that of its rule's numbers: sums over pixels, or a stored field.

Each rule has a function here, of which `kernels.py` makes a kernel that others call at its address.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import NDIM, inline, loop, loop_sum
from stn.ops.cpu.lattices import piece_of, tile_to_nodes
from stn.ops.cpu.points import off_horizon, projective_points
from stn.ops.cpu.taps import COLUMNS, STRIDE
from stn.ops.cpu.tile import AT_HEIGHT, AT_LOOK, AT_NUMBER, AT_WIDTH, AT_X, AT_Y, AT_Z, row_start, tiles_of_a_look
from stn.ops.cpu.words import flat
from stn.ops.rules.spline import GROUP


@loop
def affine_gradient(grid, sizes, at, points, table, gradient, sums, bends):
    area = len(gradient) // 3
    clear_sums(sums, at[AT_LOOK], at[AT_NUMBER])
    for r in range(at[AT_HEIGHT]):
        _, u0, u1, u2 = row_start(sizes, at, r)
        for i in range(NDIM):
            total, moment = sum_row(gradient, i * area + r * STRIDE, at[AT_WIDTH])
            add_point(sums, at[AT_LOOK], at[AT_NUMBER], i, total, u0, u1, u2)
            sums[at[AT_LOOK], at[AT_NUMBER], i, 0] += moment


@loop
def basis_gradient(grid, sizes, at, points, table, gradient, sums, bends):
    affine_gradient(grid, sizes, at, points, table, gradient, sums, bends)
    add_bends(at[AT_LOOK], at[AT_NUMBER], at[AT_WIDTH], at[AT_HEIGHT], len(gradient) // 3, gradient, table, bends)


@loop
def projective_gradient(grid, sizes, at, points, table, gradient, sums, bends):
    """Divide each term by w, and add up the gradient in w."""
    area, coef, look, within = len(gradient) // 3, grid.coef, at[AT_LOOK], at[AT_NUMBER]
    clear_sums(sums, look, within)
    for r in range(at[AT_HEIGHT]):
        _, u0, u1, u2 = row_start(sizes, at, r)
        projective_points(grid, sizes, r, at, points, table)
        rest = coef[look, 3, 1] * u1 + coef[look, 3, 2] * u2 + coef[look, 3, 3]
        for j in range(at[AT_WIDTH]):
            u, slope_w = u0 + j, 0.0
            w = off_horizon(coef[look, 3, 0] * u + rest)
            for i in range(NDIM):
                g = gradient[i * area + r * STRIDE + j] / w
                slope_w += g * (points[i, j] - grid.center[i])
                add_point(sums, look, within, i, g, u, u1, u2)
            add_point(sums, look, within, 3, -slope_w, u, u1, u2)


@loop
def field_gradient(grid, sizes, at, points, table, gradient, sums, bends):
    area = len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        start, _, _, _ = row_start(sizes, at, r)
        if NDIM == 2:
            plane_to_field(sums, grid.axes, at[AT_LOOK], start, at[AT_WIDTH], gradient, r * STRIDE, area)
            continue
        for j in range(at[AT_WIDTH]):
            for i in range(NDIM):
                sums[at[AT_LOOK], start + np.uint64(j), i] = grid.axes[i, 0] * gradient[i * area + r * STRIDE + j]


@loop
def plane_to_field(sums, axes, look, start, width, gradient, first, area):
    """Store both axes of a row in one loop over the flat numbers, which LLVM stores as vectors."""
    numbers, one, two = flat(sums), np.uint64(1), np.uint64(2)
    x, y, begin = axes[0, 0], axes[1, 0], np.uint64(look * sums.shape[1]) + start
    left, right = np.uint64(first), np.uint64(first + area)
    for j in range(np.uint64(width)):
        k = (begin + j) * two
        numbers[k] = x * gradient[left + j]
        numbers[k + one] = y * gradient[right + j]


@loop
def lattice_gradient(grid, sizes, at, points, table, gradient, sums, bends):
    look, (piece, is_first) = at[AT_LOOK], piece_of(at[AT_NUMBER], sums.shape[1], tiles_of_a_look(sizes))
    if is_first:
        clear_nodes(sums, look, piece)
    tile_to_nodes(
        grid.first, grid.across, grid.down, grid.deep, grid.sides, at[AT_X], at[AT_Y], at[AT_Z], at[AT_WIDTH],
        at[AT_HEIGHT], STRIDE, gradient, table, sums, look, piece,
    )  # fmt: skip


REDUCTIONS = {
    "affine": affine_gradient, "projective": projective_gradient, "field": field_gradient, "basis": basis_gradient,
    "lattice": lattice_gradient,
}  # fmt: skip


@loop
def clear_sums(sums, look, within):
    for i in range(4):
        for k in range(4):
            sums[look, within, i, k] = 0


@loop
def clear_nodes(sums, look, piece):
    for k in range(sums.shape[2]):
        for i in range(sums.shape[3]):
            sums[look, piece, k, i] = 0


@loop_sum
def sum_row(g, first, width):
    """Sum of g, and of j g, over pixels j of a row."""
    total = moment = 0.0
    for j in range(np.uint64(width)):
        value = np.float64(g[np.uint64(first) + j])
        total += value
        moment += value * np.float64(np.int64(j))
    return total, moment


@loop
def add_bends(look, within, width, height, area, gradient, table, bends):
    for i in range(NDIM):
        for t in range(bends.shape[3]):
            bends[look, within, i, t] = 0
    for r in range(height):
        first, start = np.uint64(r * STRIDE), np.uint64(r * COLUMNS)
        for t in range(0, bends.shape[3], GROUP):
            x, y = dot_rows(gradient, first, first + np.uint64(area), table, t, start, width)
            for k in range(GROUP):
                bends[look, within, 0, t + k] += x[k]
                bends[look, within, 1, t + k] += y[k]
            if NDIM == 3:
                z = dot_row(gradient, first + np.uint64(2 * area), table, t, start, width)
                for k in range(GROUP):
                    bends[look, within, 2, t + k] += z[k]


@loop_sum
def dot_rows(gradient, first, second, table, t, start, width):
    """Return the dot products of both axes of a row with four knots, reading the table once."""
    a = b = c = d = e = f = g = h = 0.0
    for j in range(np.uint64(width)):
        x, y, k = np.float64(gradient[first + j]), np.float64(gradient[second + j]), start + j
        u, v, w, z = table[t, k], table[t + 1, k], table[t + 2, k], table[t + 3, k]
        a, b, c, d = a + x * u, b + x * v, c + x * w, d + x * z
        e, f, g, h = e + y * u, f + y * v, g + y * w, h + y * z
    return (a, b, c, d), (e, f, g, h)


@loop_sum
def dot_row(gradient, first, table, t, start, width):
    a = b = c = d = 0.0
    for j in range(np.uint64(width)):
        x, k = np.float64(gradient[first + j]), start + j
        a, b = a + x * table[t, k], b + x * table[t + 1, k]
        c, d = c + x * table[t + 2, k], d + x * table[t + 3, k]
    return a, b, c, d


@inline
def add_point(sums, look, within, i, g, u0, u1, u2):
    sums[look, within, i, 0] += g * u0
    sums[look, within, i, 1] += g * u1
    sums[look, within, i, 2] += g * u2
    sums[look, within, i, 3] += g

"""Points moved by a lattice of control points, one row of the output at a time, and the gradient in the control points.

Control points are first combined along the slower axes: their row that a row of the output needs is short. Along x, the
pixels of a block share few control points, whose weights for them are neighbors in a table.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import NDIM, inline, loop, loop_fused, loop_sum
from stn.ops.cpu.taps import COLUMNS
from stn.ops.rules.lattice import BLOCK

TAPS = 4  # rows of control points that a row of the output reads
ROW_AT = 3 * TAPS * COLUMNS  # in a tile's table, of FEW_ROWS * COLUMNS numbers: behind the sums of gradients


@loop
def contract(nodes, first, across, down, deep, sides, look, start, width, table):
    """Combine the control points for the row of the output that begins at pixel `start`. Returns its first block."""
    w, h, nx, ny, nz = np.int64(sides[0]), np.int64(sides[1]), np.int64(sides[2]), np.int64(sides[3]), np.int64(sides[4])
    at = np.int64(start)
    x, y, z = at % w, at // w % h, at // (w * h)
    block, end = x // BLOCK, (x + width - 1) // BLOCK
    begin = np.int64(first[block])
    count = np.uint64((np.int64(first[end]) + across.shape[1] - begin) * NDIM)
    images = len(nodes) // (nx * ny * nz * NDIM)
    volume = look % images * nz + np.int64(deep[z, 0])
    for k in range(count):
        table[0, ROW_AT + k] = 0
    for p in range(deep.shape[1] - 1):
        for q in range(down.shape[1] - 1):
            weight = deep[z, 1 + p] * down[y, 1 + q]
            row = np.uint64((((volume + p) * ny + np.int64(down[y, 0]) + q) * nx + begin) * NDIM)
            for k in range(count):
                table[0, ROW_AT + k] += weight * nodes[row + k]
    return block


@loop_fused
def move_plane(axes, first, across, block, u0, u1, width, table, points):
    x_scale, step, x_rest = axes[0, 0], axes[0, 1], axes[0, 1] * u0 + axes[0, 2]
    y_scale, y_rest = axes[1, 0], axes[1, 1] * u1 + axes[1, 2]
    for j in range(np.uint64(width)):
        points[0, j] = step * np.float64(np.int64(j)) + x_rest
        points[1, j] = y_rest
    for b in range(-(-width // BLOCK)):
        at, j = ROW_AT + 2 * np.int64(first[block + b] - first[block]), np.uint64(b * BLOCK)
        for t in range(across.shape[1]):
            x, y = x_scale * table[0, at + 2 * t], y_scale * table[0, at + 2 * t + 1]
            for i in range(np.uint64(BLOCK)):
                weight = across[block + b, t, i]
                points[0, j + i] += x * weight
                points[1, j + i] += y * weight


@loop_fused
def move_volume(axes, first, across, block, u0, u1, u2, width, table, points):
    x_scale, step, x_rest = axes[0, 0], axes[0, 1], axes[0, 1] * u0 + axes[0, 2]
    y_scale, y_rest = axes[1, 0], axes[1, 1] * u1 + axes[1, 2]
    z_scale, z_rest = axes[2, 0], axes[2, 1] * u2 + axes[2, 2]
    for j in range(np.uint64(width)):
        points[0, j] = step * np.float64(np.int64(j)) + x_rest
        points[1, j], points[2, j] = y_rest, z_rest
    for b in range(-(-width // BLOCK)):
        at, j = ROW_AT + 3 * np.int64(first[block + b] - first[block]), np.uint64(b * BLOCK)
        for t in range(across.shape[1]):
            x, y, z = table[0, at + 3 * t], table[0, at + 3 * t + 1], table[0, at + 3 * t + 2]
            x, y, z = x_scale * x, y_scale * y, z_scale * z
            for i in range(np.uint64(BLOCK)):
                weight = across[block + b, t, i]
                points[0, j + i] += x * weight
                points[1, j + i] += y * weight
                points[2, j + i] += z * weight


# ---- the gradient: the same backwards ----


@inline
def piece_of(number, pieces, tiles):
    """The piece of a look that a tile belongs to, if `pieces` divide its tiles in order, and whether it is its first."""
    piece = ((number + 1) * pieces - 1) // tiles
    return piece, number == tiles * piece // pieces


@loop
def tile_to_nodes(first, across, down, deep, sides, x, y, z, width, height, stride, gradient, table, sums, look, piece):
    """Add a tile's gradients of pixels, at r stride + j, to sums[look, piece, control point, axis].

    Rows of the output are added to the few rows of control points that they read, pixel by pixel; a row of control points
    that the walk leaves is then added up along x.
    """
    taps, block = down.shape[1] - 1, x // BLOCK
    for k in range(np.uint64(3 * taps * COLUMNS)):
        table[0, k] = 0
    current = np.int64(down[y, 0])
    for r in range(height):
        top = np.int64(down[y + r, 0])
        while current < top:
            row_to_nodes(first, across, deep, sides, block, z, current, width, current % taps, table, sums, look, piece)
            current += 1
        for q in range(taps):
            for i in range(NDIM):
                at = np.uint64(((top + q) % taps * 3 + i) * COLUMNS)
                add_row(down[y + r, 1 + q], gradient, np.uint64(i * (len(gradient) // 3) + r * stride), width, table, at)
    for row in range(current, current + taps):
        row_to_nodes(first, across, deep, sides, block, z, row, width, row % taps, table, sums, look, piece)


@loop_fused
def add_row(weight, gradient, start, width, table, at):
    for j in range(np.uint64(width)):
        table[0, at + j] += weight * gradient[start + j]


@loop
def row_to_nodes(first, across, deep, sides, block, z, row, width, slot, table, sums, look, piece):
    """Add up one row along x, spread it over the slices of control points, and clear it."""
    nx, ny, front = np.int64(sides[2]), np.int64(sides[3]), np.int64(deep[z, 0])
    for b in range(-(-width // BLOCK)):
        for t in range(across.shape[1]):
            column = np.int64(first[block + b]) + t
            for i in range(NDIM):
                value = dot(across, block + b, t, table, np.uint64((slot * 3 + i) * COLUMNS + b * BLOCK))
                for p in range(deep.shape[1] - 1):
                    sums[look, piece, ((front + p) * ny + row) * nx + column, i] += deep[z, 1 + p] * value
    for k in range(np.uint64(3 * COLUMNS)):
        table[0, np.uint64(slot * 3 * COLUMNS) + k] = 0


@loop_sum
def dot(across, block, t, table, at):
    total = 0.0
    for i in range(np.uint64(BLOCK)):
        total += across[block, t, i] * table[0, at + i]
    return total

"""The gradient in the coordinates: to the coefficients of a matrix or a basis, or to a stored field.

With V = sum_t w_t U_t over the taps t of a pixel, dL/dp = sum_c G_c sum_t (dw_t/dp) (U_t - fill). A matrix moves all points,
p_i = coef_i . (u, 1) + c_i, so dL/dcoef_i = sum over pixels of dL/dp_i (u, 1); with a divisor w = coef_3 . (u, 1),
dL/dp_i is divided by w, and dL/dcoef_3 = - sum dL/dp_i (p_i - c_i) / w (u, 1). A radial function U_t adds bend_it U_t to
p_i, so dL/dbend_it = sum dL/dp_i U_t.

Sums are in float64, one a tile, added up in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.channels import slope_channels_plane, slope_channels_volume
from stn.ops.cpu.compiling import INLINED, inline, loop, loop_sum, merged
from stn.ops.cpu.lanes import LANES, slope_plane, slope_volume
from stn.ops.cpu.lattices import piece_of, tile_to_nodes
from stn.ops.cpu.mixed import mix_slopes_plane, mix_slopes_volume, mixed_channel_slopes_plane, mixed_channel_slopes_volume
from stn.ops.cpu.points import RULES, Affine, Basis, Field, Lattice, Projective, by_rule, off_horizon, row_points
from stn.ops.cpu.taps import BLOCKS, COLUMNS, INSIDE, MIXED, STRIDE, clear, in_pairs
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_LOOK,
    AT_NUMBER,
    AT_WIDTH,
    AT_X,
    AT_Y,
    AT_Z,
    channel_starts,
    fill_tile,
    look_and_tile,
    part_of,
    pixel_starts,
    place_tile,
    planes_at_once,
    prefetch,
    row_start,
    run_from,
    tiles_of_a_look,
)
from stn.ops.rules.spline import GROUP

# ---- the bodies of kernels, see `kernels.py`: they write sums (N * K, tiles, 4, 4), or of fields (N * K, Q, ndim), and
# bends (N * K, tiles, ndim, T) ----


@merged
def coordinates_planes(call, memory, chunk):
    coordinates_chunk(slope_planes, call, memory, chunk)


@merged
def coordinates_pixels(call, memory, chunk):
    coordinates_chunk(slope_pixels, call, memory, chunk)


@merged
def coordinates_chunk(slope_tile, call, memory, chunk):
    tile, ndim, grid, sizes = memory.tile, call.ndim, call.grid, call.sizes
    start, end = tiles_of_chunk(grid, sizes, call.sums, chunk, call.chunks)
    for number in range(start, end):
        look, within = look_and_tile(grid, sizes, number)
        place_tile(sizes, look, within, tile.at)
        fill_tile(ndim, False, True, grid, sizes, 0, sizes.height if ndim == 2 else sizes.depth, tile)
        clear_gradient(ndim, tile.at[AT_HEIGHT], tile.gradient)
        slope_tile(ndim, call.out, call.image, sizes, tile, call.fill)
        reduce_tile(grid, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, call.sums, call.bends)


@inline
def tiles_of_chunk(grid, sizes, sums, chunk, chunks):
    """Return the first tile and the last + 1 of a chunk. A piece, which has sums of its own, belongs to one chunk."""
    tiles, pieces = tiles_of_a_look(sizes), pieces_of_a_look(grid, sizes, sums)
    start, end = part_of(chunk, chunks, sizes.batch * sizes.looks * pieces)
    first, last = tiles * (start % pieces) // pieces, tiles * (end % pieces) // pieces
    return start // pieces * tiles + first, end // pieces * tiles + last


pieces_of_a_look = by_rule(
    """How many sums a look has: one for each tile, or of a lattice, which are long, as few as threads need.""",
    {
        rule: (lambda grid, sizes, sums: sums.shape[1])
        if rule is Lattice
        else (lambda grid, sizes, sums: tiles_of_a_look(sizes))
        for rule in RULES
    },
    INLINED,
)


@loop
def clear_gradient(ndim, height, gradient):
    for i in range(ndim):
        clear(gradient, i * (len(gradient) // 3), i * (len(gradient) // 3) + height * STRIDE)


@inline
def slope_planes(ndim, grad, image, sizes, tile, fill):
    slope_tile_planes(
        ndim, grad, image, sizes, tile.at, tile.box, tile.runs, tile.offset, tile.fraction, tile.near, tile.far,
        tile.weight, tile.slope, fill, tile.gradient, tile.prefetched,
    )  # fmt: skip


@loop
def slope_tile_planes(
    ndim, grad, image, sizes, at, box, runs, offset, fraction, near, far, weight, slope, fill, gradient, prefetched
):
    w, area, across, pairs = sizes.width, sizes.width * sizes.height, sizes.across, in_pairs(sizes.padding, sizes.width)
    apart, spread = area * sizes.depth, across * sizes.down * sizes.deep
    step = planes_at_once(sizes)
    for c in range(0, sizes.channels, step):
        (plane, first), n = channel_starts(sizes, at, c), min(step, sizes.channels - c)
        if ndim == 2:
            prefetched[0] = prefetch(image, plane, w, box[0], box[1], box[2], box[3], n, apart)
        for r in range(at[AT_HEIGHT]):
            to, start = first + r * across, 0
            while start < at[AT_WIDTH]:
                what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
                if what == INSIDE:
                    slope_row(
                        ndim, image, plane, w, area, offset, fraction, r, start, end, grad, to, gradient, n, apart, spread
                    )  # fmt: skip
                elif what == MIXED:
                    mix_row(
                        ndim, image, plane, pairs, near, far, weight, slope, r, start, end, grad, to, gradient, fill, c, n,
                        apart, spread,
                    )  # fmt: skip
                start = end


@loop
def slope_row(ndim, image, plane, w, area, offset, fraction, r, a, b, grad, first, gradient, planes, apart, spread):
    """Add some channels of an interior run."""
    down, deep, size = np.uint64(w), np.uint64(area), len(offset)
    for j in range(a, b, LANES):
        i, at, count = r * STRIDE + j, first + j, b - j
        if ndim == 2:
            slope_plane(
                image, plane, down, deep, offset, fraction, i, size, grad, at, count, gradient, planes, apart, spread
            )  # fmt: skip
        else:
            slope_volume(
                image, plane, down, deep, offset, fraction, i, size, grad, at, count, gradient, planes, apart, spread
            )  # fmt: skip


@loop
def mix_row(
    ndim, image, plane, pairs, near, far, weight, slope, r, a, b, grad, first, gradient, fill, c, planes, apart, spread
):
    """Add some channels of the mixed blocks a .. b."""
    size = len(near) // 3
    for j in range(a, b, LANES):
        i, at, count = r * STRIDE + j, first + j, b - j
        if ndim == 2:
            mix_slopes_plane(
                image, plane, pairs, near, far, weight, slope, i, size, grad, at, count, gradient, fill, c, planes, apart,
                spread,
            )  # fmt: skip
        else:
            mix_slopes_volume(
                image, plane, pairs, near, far, weight, slope, i, size, grad, at, count, gradient, fill, c, planes, apart,
                spread,
            )  # fmt: skip


@inline
def slope_pixels(ndim, grad, image, sizes, tile, fill):
    slope_tile_pixels(
        ndim, grad, image, sizes, tile.at, tile.runs, tile.offset, tile.fraction, tile.near, tile.far, tile.weight,
        tile.slope, fill, tile.gradient,
    )  # fmt: skip


@loop
def slope_tile_pixels(ndim, grad, image, sizes, at, runs, offset, fraction, near, far, weight, slope, fill, gradient):
    """With the channels of a pixel side by side: dot products of the gradient with each tap, then their differences."""
    w, plane, across, channels = sizes.width, sizes.width * sizes.height, sizes.across, np.uint64(sizes.channels)
    base, first = pixel_starts(sizes, at)
    for r in range(at[AT_HEIGHT]):
        to, start = first + r * across, 0
        while start < at[AT_WIDTH]:
            what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
            if what == INSIDE:
                slope_run(ndim, grad, to, image, base, channels, w, plane, offset, fraction, r, start, end, gradient)
            elif what == MIXED:
                mix_run(
                    ndim, grad, to, image, base * channels, sizes.channels, near, far, weight, slope, r, start, end,
                    gradient, fill,
                )  # fmt: skip
            start = end


@loop
def mix_run(ndim, grad, first, image, base, n, near, far, weight, slope, r, a, b, gradient, fill):
    """The mixed blocks a .. b of one row, all channels."""
    size = len(near) // 3
    for j in range(a, b):
        i, to = r * STRIDE + j, (first + j) * n
        if ndim == 2:
            gx, gy, _ = mixed_channel_slopes_plane(image, base, n, near, far, weight, slope, i, size, grad, to, fill)
        else:
            gx, gy, gz = mixed_channel_slopes_volume(image, base, n, near, far, weight, slope, i, size, grad, to, fill)
            gradient[i + size + size] = gz
        gradient[i], gradient[i + size] = gx, gy


@loop
def slope_run(ndim, grad, first, image, base, channels, w, plane, offset, fraction, r, a, b, gradient):
    """The interior run of one row, all channels."""
    n, size = np.uint64(channels), np.uint64(len(offset))
    down, deep = np.uint64(w) * n, np.uint64(plane) * n
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * STRIDE) + j
        at, to = (base + np.uint64(offset[i])) * n, (np.uint64(first) + j) * n
        x, y, z = fraction[i], fraction[i + size], fraction[i + size * np.uint64(ndim - 1)]
        if ndim == 2:
            gx, gy, _ = slope_channels_plane(image, at, n, down, deep, x, y, z, grad, to, channels)
        else:
            gx, gy, gz = slope_channels_volume(image, at, n, down, deep, x, y, z, grad, to, channels)
            gradient[i + size + size] = gz
        gradient[i], gradient[i + size] = gx, gy


# ---- from the gradient of each pixel to that of the rule's numbers ----


def affine_gradient(grid, ndim, sizes, at, points, table, gradient, sums, bends):
    area = len(gradient) // 3
    clear_sums(sums, at[AT_LOOK], at[AT_NUMBER])
    for r in range(at[AT_HEIGHT]):
        _, u0, u1, u2 = row_start(sizes, at, r)
        for i in range(ndim):
            total, moment = sum_row(gradient, i * area + r * STRIDE, at[AT_WIDTH])
            add_point(sums, at[AT_LOOK], at[AT_NUMBER], i, total, u0, u1, u2)
            sums[at[AT_LOOK], at[AT_NUMBER], i, 0] += moment


def basis_gradient(grid, ndim, sizes, at, points, table, gradient, sums, bends):
    affine_sums(grid, ndim, sizes, at, points, table, gradient, sums, bends)
    add_bends(ndim, at[AT_LOOK], at[AT_NUMBER], at[AT_WIDTH], at[AT_HEIGHT], len(gradient) // 3, gradient, table, bends)


def projective_gradient(grid, ndim, sizes, at, points, table, gradient, sums, bends):
    """Divide each term by w, and add up the gradient in w."""
    area, coef, look, within = len(gradient) // 3, grid.coef, at[AT_LOOK], at[AT_NUMBER]
    clear_sums(sums, look, within)
    for r in range(at[AT_HEIGHT]):
        start, u0, u1, u2 = row_start(sizes, at, r)
        row_points(grid, ndim, look, start, u0, u1, u2, at[AT_WIDTH], table, 0, points)
        rest = coef[look, 3, 1] * u1 + coef[look, 3, 2] * u2 + coef[look, 3, 3]
        for j in range(at[AT_WIDTH]):
            u, slope_w = u0 + j, 0.0
            w = off_horizon(coef[look, 3, 0] * u + rest)
            for i in range(ndim):
                g = gradient[i * area + r * STRIDE + j] / w
                slope_w += g * (points[i, j] - grid.center[i])
                add_point(sums, look, within, i, g, u, u1, u2)
            add_point(sums, look, within, 3, -slope_w, u, u1, u2)


def field_gradient(grid, ndim, sizes, at, points, table, gradient, sums, bends):
    area = len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        start, _, _, _ = row_start(sizes, at, r)
        for j in range(at[AT_WIDTH]):
            for i in range(ndim):
                sums[at[AT_LOOK], start + np.uint64(j), i] = grid.axes[i, 0] * gradient[i * area + r * STRIDE + j]


def lattice_gradient(grid, ndim, sizes, at, points, table, gradient, sums, bends):
    look, (piece, is_first) = at[AT_LOOK], piece_of(at[AT_NUMBER], sums.shape[1], tiles_of_a_look(sizes))
    if is_first:
        clear_nodes(sums, look, piece)
    tile_to_nodes(
        ndim, grid.first, grid.across, grid.down, grid.deep, grid.sides, at[AT_X], at[AT_Y], at[AT_Z], at[AT_WIDTH],
        at[AT_HEIGHT], STRIDE, gradient, table, sums, look, piece,
    )  # fmt: skip


affine_sums = loop(affine_gradient)
reduce_tile = by_rule(
    """Write sums and bends, or the gradient of a field, from the gradient of each pixel of a tile.""",
    {
        Affine: affine_gradient,
        Projective: projective_gradient,
        Field: field_gradient,
        Basis: basis_gradient,
        Lattice: lattice_gradient,
    },  # fmt: skip
)


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
def add_bends(ndim, look, within, width, height, area, gradient, table, bends):
    for i in range(ndim):
        for t in range(bends.shape[3]):
            bends[look, within, i, t] = 0
    for r in range(height):
        first, start = np.uint64(r * STRIDE), np.uint64(r * COLUMNS)
        for t in range(0, bends.shape[3], GROUP):
            x, y = dot_rows(gradient, first, first + np.uint64(area), table, t, start, width)
            for k in range(GROUP):
                bends[look, within, 0, t + k] += x[k]
                bends[look, within, 1, t + k] += y[k]
            if ndim == 3:
                z = dot_row(gradient, first + np.uint64(2 * area), table, t, start, width)
                for k in range(GROUP):
                    bends[look, within, 2, t + k] += z[k]


@loop_sum
def dot_rows(gradient, first, second, table, t, start, width):
    """Of both axes of a row with four knots, which reads the table once."""
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

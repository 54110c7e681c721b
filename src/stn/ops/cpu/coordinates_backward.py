"""The gradient in the coordinates: to the coefficients of a matrix or a basis, or to a stored field.

With V = sum_t w_t U_t over the taps t of a pixel, dL/dp = sum_c G_c sum_t (dw_t/dp) (U_t - fill). A matrix moves all points,
p_i = coef_i . (u, 1) + c_i, so dL/dcoef_i = sum over pixels of dL/dp_i (u, 1); with a divisor w = coef_3 . (u, 1),
dL/dp_i is divided by w, and dL/dcoef_3 = - sum dL/dp_i (p_i - c_i) / w (u, 1). A radial function U_t adds bend_it U_t to
p_i, so dL/dbend_it = sum dL/dp_i U_t.

Sums are in float64, one a tile, added up in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from stn.ops.cpu.rules import BASIS, FIELD, PROJECTIVE, SOURCES, inline, loop, loop_sum, off_horizon, row_points
from stn.ops.cpu.tile import COLUMNS, STRIDE, clear, fill_tile, new_tile, shape_of, tiles_of_a_look, warm
from stn.ops.cpu.vector import LANES, blend, slope, slope_plane, slope_volume

blend, slope = inline(blend), inline(slope)


@cache
def coordinates_backward_kernel(rule: int, ndim: int, channels_last: bool, parallel: bool) -> Any:
    """kernel(grad, image, coordinates, lengths, fill, one, sums, bends, grad_field, chunks); compiled when first called.

    grad, image: flat. Writes sums (N * K, tiles, 4, 4), bends (N * K, tiles, 2, T), or grad_field (N * K, Q, ndim).
    """

    key = SOURCES, parallel

    def kernel(grad, image, coordinates, lengths, fill, one, sums, bends, grad_field, chunks):
        _ = key  # of the cache on disk
        tiles = lengths.batch * lengths.looks * tiles_of_a_look(lengths)
        high = lengths.height if ndim == 2 else lengths.depth
        for chunk in prange(chunks):
            shape = shape_of(lengths)
            tile = new_tile(rule, ndim, False, True, coordinates.knots.shape[0], shape.rows, fill)
            for number in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
                fill_tile(rule, ndim, False, True, coordinates, shape, number, 0, high, tile)
                differentiate(ndim, channels_last, grad, image, shape, tile, fill, one)
                reduce(rule, ndim, coordinates, shape, tile, sums, bends, grad_field)

    return njit(kernel, nogil=True, parallel=parallel, cache=True, error_model="numpy")


@inline
def differentiate(ndim, channels_last, grad, image, shape, tile, fill, one):
    """tile.gradient = dL/dp."""
    (w, h, d), (across, down, deep) = shape.size, shape.target
    clear(tile.gradient, 0, len(tile.gradient))
    if channels_last:
        slope_tile_last(
            ndim, grad, across, down, deep, image, w, h, d, shape.looks, np.uint64(shape.channels), tile.at, tile.runs,
            tile.offset, tile.fraction, tile.listed, tile.where, tile.slope, fill, one, tile.gradient,
        )  # fmt: skip
    else:
        slope_tile(
            ndim, grad, across, down, deep, image, w, h, d, shape.looks, shape.channels, tile.at, tile.box, tile.runs,
            tile.offset, tile.fraction, tile.listed, tile.where, tile.slope, fill, tile.gradient, tile.sink,
        )  # fmt: skip


@loop
def slope_tile(
    ndim, grad, across, down, deep, image, w, h, d, looks, channels, at, box, runs,
    offset, fraction, listed, where, slopes, fill, gradient, sink,
):  # fmt: skip
    look, x, y, z, height = at[0], at[1], at[2], at[3], at[5]
    for c in range(channels):
        plane = np.uint64((look // looks * channels + c) * w * h * d)
        first = (((look * channels + c) * deep + z) * down + y) * across + x
        if ndim == 2:
            sink[0] = warm(image, plane, w, box[0], box[1], box[2], box[3])
        for r in range(height):
            a, b = runs[r, 1], runs[r, 2]
            slope_row(ndim, image, plane, w, w * h, offset, fraction, r, a, b, grad, first + r * across, gradient)
        for s in range(at[7]):
            i = listed[s]
            g = grad[np.uint64(first + i // STRIDE * across + i % STRIDE)]
            add_slopes(ndim, g, image, plane, np.uint64(1), where, slopes, s, fill[c], i, gradient)


@loop
def slope_row(ndim, image, plane, w, area, offset, fraction, r, a, b, grad, first, gradient):
    """Add one channel of an interior run."""
    down, deep, size = np.uint64(w), np.uint64(area), len(offset)
    for j in range(a, b, LANES):
        i, at, count = r * STRIDE + j, first + j, b - j
        if ndim == 2:
            slope_plane(image, plane, down, deep, offset, fraction, i, size, grad, at, count, gradient)
        else:
            slope_volume(image, plane, down, deep, offset, fraction, i, size, grad, at, count, gradient)


@loop
def add_slopes(ndim, g, image, first, stride, where, slopes, s, fill, i, gradient):
    """Add one channel of listed pixel s, which is pixel i of the tile; its taps are `stride` numbers apart."""
    area = len(gradient) // 3
    for t in range(where.shape[0]):
        v = g * (image[first + np.uint64(where[t, s]) * stride] - fill)
        for axis in range(ndim):
            if slopes[t, axis, s] != 0:  # else it may stand for a pixel outside, whatever is stored there
                gradient[axis * area + i] += slopes[t, axis, s] * v


@loop
def slope_tile_last(
    ndim, grad, across, down, deep, image, w, h, d, looks, channels, at, runs,
    offset, fraction, listed, where, slopes, fill, one, gradient,
):  # fmt: skip
    """With the channels of a pixel side by side: dot products of the gradient with each tap, then their differences."""
    look, x, y, z, height = at[0], at[1], at[2], at[3], at[5]
    area, base = len(offset), np.uint64(look // looks * w * h * d)
    first = ((look * deep + z) * down + y) * across + x
    for r in range(height):
        for j in range(runs[r, 1], runs[r, 2]):
            i = r * STRIDE + j
            tap, to = (base + np.uint64(offset[i])) * channels, np.uint64(first + r * across + j) * channels
            slope_pixel(
                ndim, grad, to, image, tap, channels, np.uint64(w), np.uint64(w * h), fraction, i, area, one, gradient
            )
    for s in range(at[7]):
        i = listed[s]
        to = np.uint64(first + i // STRIDE * across + i % STRIDE) * channels
        for c in range(channels):
            add_slopes(ndim, grad[to + c], image, base * channels + c, channels, where, slopes, s, fill[c], i, gradient)


@inline
def slope_pixel(ndim, grad, to, image, at, channels, w, area_in, fraction, i, area, one, gradient):
    fx, fy = fraction[i], fraction[i + area]
    n = dots(grad, to, image, at, channels, channels * w, one)
    gx, gy = slope(fx, fy, one, n[0], n[1], n[2], n[3])
    if ndim == 3:
        fz = fraction[i + 2 * area]
        f = dots(grad, to, image, at + channels * area_in, channels, channels * w, one)
        far_x, far_y = slope(fx, fy, one, f[0], f[1], f[2], f[3])
        gx, gy = (one - fz) * gx + fz * far_x, (one - fz) * gy + fz * far_y
        gradient[i + 2 * area] = blend(fx, fy, one, f[0], f[1], f[2], f[3]) - blend(fx, fy, one, n[0], n[1], n[2], n[3])
    gradient[i], gradient[i + area] = gx, gy


@loop_sum
def dots(grad, to, image, at, channels, down, one):
    v00 = v01 = v10 = v11 = one - one
    for c in range(channels):
        g, k = grad[to + c], at + c
        v00 += g * image[k]
        v01 += g * image[k + channels]
        v10 += g * image[k + down]
        v11 += g * image[k + down + channels]
    return v00, v01, v10, v11


@inline
def reduce(rule, ndim, coordinates, shape, tile, sums, bends, grad_field):
    c, (across, down, deep) = coordinates, shape.target
    if rule == FIELD:
        store_field(ndim, tile.gradient, c.axes, across, down, tile.at, grad_field)
    else:
        reduce_tile(
            rule, ndim, c.coef, c.field, c.axes, c.bend, tile.table, across, down, deep, tile.at, tile.points, tile.gradient,
            sums, bends,
        )  # fmt: skip


@loop
def store_field(ndim, gradient, axes, across, down, at, grad_field):
    look, x, y, z, width, height = at[0], at[1], at[2], at[3], at[4], at[5]
    area = len(gradient) // 3
    for r in range(height):
        start = (z * down + y + r) * across + x
        for j in range(width):
            for i in range(ndim):
                grad_field[look, start + j, i] = axes[i, 1] * gradient[i * area + r * STRIDE + j]


@loop
def reduce_tile(rule, ndim, coef, field, axes, bend, table, across, down, deep, at, points, gradient, sums, bends):
    look, x, y, z, width, height, within = at[0], at[1], at[2], at[3], at[4], at[5], at[6]
    area = len(gradient) // 3
    u0, u2 = x - (across - 1) / 2, z - (deep - 1) / 2
    for i in range(4):
        for k in range(4):
            sums[look, within, i, k] = 0
    for i in range(bend.shape[1] if rule == BASIS else 0):
        for t in range(bend.shape[2]):
            bends[look, within, i, t] = 0
    for r in range(height):
        u1, start = y + r - (down - 1) / 2, np.uint64((z * down + y + r) * across + x)
        if rule == PROJECTIVE:
            row_points(rule, ndim, coef, field, axes, bend, table, look, start, u0, u1, u2, width, 0, points)
            divide_row(ndim, coef, axes, u0, u1, u2, width, points, look, r * STRIDE, gradient, within, sums)
            continue
        for i in range(ndim):
            total, moment = sum_row(gradient, i * area + r * STRIDE, width)
            add_point(sums, look, within, i, total, u0, u1, u2)
            sums[look, within, i, 0] += moment
            if rule == BASIS:
                for t in range(bend.shape[2]):
                    bends[look, within, i, t] += dot_row(gradient, i * area + r * STRIDE, table, t, r * COLUMNS, width)


@loop_sum
def sum_row(g, first, width):
    """Sum of g, and of j g, over pixels j of a row."""
    total = moment = 0.0
    for j in range(np.uint64(width)):
        value = np.float64(g[np.uint64(first) + j])
        total += value
        moment += value * np.float64(np.int64(j))
    return total, moment


@loop_sum
def dot_row(g, first, table, t, start, width):
    total = 0.0
    for j in range(np.uint64(width)):
        total += np.float64(g[np.uint64(first) + j]) * table[t, np.uint64(start) + j]
    return total


@loop
def divide_row(ndim, coef, axes, u0, u1, u2, width, points, look, first, gradient, within, sums):
    """The same for a homography: each term is divided by w, and w has its own share."""
    area = len(gradient) // 3
    rest = coef[look, 3, 1] * u1 + coef[look, 3, 2] * u2 + coef[look, 3, 3]
    for j in range(width):
        u, share = u0 + j, 0.0
        w = off_horizon(coef[look, 3, 0] * u + rest)
        for i in range(ndim):
            g = gradient[i * area + first + j] / w
            share += g * (points[i, j] - axes[i, 0])
            add_point(sums, look, within, i, g, u, u1, u2)
        add_point(sums, look, within, 3, -share, u, u1, u2)


@inline
def add_point(sums, look, within, i, g, u0, u1, u2):
    sums[look, within, i, 0] += g * u0
    sums[look, within, i, 1] += g * u1
    sums[look, within, i, 2] += g * u2
    sums[look, within, i, 3] += g

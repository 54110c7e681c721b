"""The gradient in the coordinates: to a matrix, summed in float64 tile by tile, or to a stored field.

With V = sum_t w_t U_t over the taps t of a pixel, dL/dp = sum_c G_c sum_t (dw_t/dp) (U_t - fill). A matrix moves all points,
p_i = coef_i . (u, 1) + c_i, so dL/dcoef_i = sum over pixels of dL/dp_i (u, 1); with a divisor w = coef_3 . (u, 1),
dL/dp_i is divided by w, and dL/dcoef_3 = - sum dL/dp_i (p_i - c_i) / w (u, 1).

One partial sum a tile, added up in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from stn.ops.cpu.rules import FIELD, PROJECTIVE, SOURCES, inline, loop, loop_sum, off_horizon, row_points
from stn.ops.cpu.tile import COLUMNS, fill_tile, new_tile, shape_of, tiles_of_a_look, warm


@cache
def coordinates_backward_kernel(rule: int, ndim: int, channels_last: bool, parallel: bool) -> Any:
    """kernel(grad, image, coordinates, lengths, fill, one, partial, grad_field, chunks); compiled when first called.

    grad, image: flat. Writes partial (tiles, 4, 4) float64 for matrices, grad_field (N * K, Q, ndim) for fields.
    """

    key = SOURCES, parallel

    def kernel(grad, image, coordinates, lengths, fill, one, partial, grad_field, chunks):
        _ = key  # of the cache on disk
        tiles = lengths.batch * lengths.looks * tiles_of_a_look(lengths)
        high = lengths.height if ndim == 2 else lengths.depth
        for chunk in prange(chunks):
            shape = shape_of(lengths)
            tile = new_tile(ndim, False, fill)
            for number in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
                fill_tile(rule, ndim, False, False, coordinates, shape, number, 0, high, tile)
                clear(tile.gx, tile.gy, tile.gz)
                if channels_last:
                    slope_pixels(ndim, grad, image, shape, tile, fill, one)
                else:
                    slope_planes(ndim, grad, image, shape, tile, fill, one)
                reduce_tile(rule, ndim, coordinates, shape, tile, partial[number], grad_field)

    return njit(kernel, nogil=True, parallel=parallel, cache=True, error_model="numpy")


@loop
def clear(gx, gy, gz):
    """A loop of its own: gx[:] = 0 within prange becomes a parallel loop of Numba's, which then runs too early."""
    for i in range(gx.shape[0]):
        gx[i] = gy[i] = gz[i] = 0


@inline
def slope_planes(ndim, grad, image, shape, tile, fill, one):
    look, x, y, z, _, height = tile.at
    w, h, d = shape.size
    across, area = shape.target[0], shape.target[0] * shape.target[1] * shape.target[2]
    corner = (z * shape.target[1] + y) * across + x
    for c in range(shape.channels):
        plane = np.uint64((look // shape.looks * shape.channels + c) * w * h * d)
        first = (look * shape.channels + c) * area + corner
        if ndim == 2:
            tile.sink[0] = warm(image, plane, w, tile.box[0], tile.box[1], tile.box[2], tile.box[3])
        for r in range(height):
            a, b = tile.runs[r]
            slope_row(
                ndim, grad, first + r * across, image, plane, w, h, tile.offset, tile.wx, tile.wy, tile.wz, r, a, b,
                tile.gx, tile.gy, tile.gz, one,
            )  # fmt: skip
        slope_edges(ndim, grad, first - corner, image, np.int64(plane), 1, corner, across, tile, fill[c])


@loop
def slope_row(ndim, grad, first, image, plane, w, h, offset, wx, wy, wz, r, a, b, gx, gy, gz, one):
    """Add one channel of an interior run."""
    right, down, deep = np.uint64(1), np.uint64(w), np.uint64(w * h)
    start, to = np.uint64(r * COLUMNS), np.uint64(first)
    for j in range(np.uint64(a), np.uint64(b)):
        i = start + j
        g, x, y = grad[to + j], wx[i], wy[i]
        at = plane + np.uint64(offset[i])
        v00, v01, v10, v11 = image[at], image[at + right], image[at + down], image[at + down + right]
        if ndim == 2:
            gx[i] += g * ((one - y) * (v01 - v00) + y * (v11 - v10))
            gy[i] += g * ((one - x) * (v10 - v00) + x * (v11 - v01))
        else:
            z = wz[i]
            at += deep
            u00, u01, u10, u11 = image[at], image[at + right], image[at + down], image[at + down + right]
            near, far = (one - y) * (v01 - v00) + y * (v11 - v10), (one - y) * (u01 - u00) + y * (u11 - u10)
            gx[i] += g * ((one - z) * near + z * far)
            near, far = (one - x) * (v10 - v00) + x * (v11 - v01), (one - x) * (u10 - u00) + x * (u11 - u01)
            gy[i] += g * ((one - z) * near + z * far)
            near = (one - y) * ((one - x) * v00 + x * v01) + y * ((one - x) * v10 + x * v11)
            far = (one - y) * ((one - x) * u00 + x * u01) + y * ((one - x) * u10 + x * u11)
            gz[i] += g * (far - near)


@inline
def slope_pixels(ndim, grad, image, shape, tile, fill, one):
    """All interior pixels of a tile with their channels side by side, then the listed ones."""
    look, x, y, z, _, height = tile.at
    w, h, d = shape.size
    channels, across = shape.channels, shape.target[0]
    corner = (z * shape.target[1] + y) * across + x
    base = look // shape.looks * w * h * d * channels
    first = look * across * shape.target[1] * shape.target[2] * channels
    for r in range(height):
        a, b = tile.runs[r]
        slope_row_last(
            ndim, grad, first + (corner + r * across) * channels, image, base, channels, w, h, tile.offset,
            tile.wx, tile.wy, tile.wz, r, a, b, tile.gx, tile.gy, tile.gz, one,
        )  # fmt: skip
    for c in range(channels):
        slope_edges(ndim, grad, first + c, image, base + c, channels, corner, across, tile, fill[c])


@loop_sum
def slope_row_last(ndim, grad, first, image, base, channels, w, h, offset, wx, wy, wz, r, a, b, gx, gy, gz, one):
    """An interior run, all channels: dot products of the gradient with each tap, then their differences."""
    c = np.uint64(channels)
    right, down, deep = c, c * np.uint64(w), c * np.uint64(w * h)
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * COLUMNS) + j
        x, y = wx[i], wy[i]
        at, to = np.uint64(base) + np.uint64(offset[i]) * c, np.uint64(first) + j * c
        v00, v01, v10, v11 = dots(grad, to, image, at, right, down, c, one)
        if ndim == 2:
            gx[i] = (one - y) * (v01 - v00) + y * (v11 - v10)
            gy[i] = (one - x) * (v10 - v00) + x * (v11 - v01)
        else:
            z = wz[i]
            u00, u01, u10, u11 = dots(grad, to, image, at + deep, right, down, c, one)
            near, far = (one - y) * (v01 - v00) + y * (v11 - v10), (one - y) * (u01 - u00) + y * (u11 - u10)
            gx[i] = (one - z) * near + z * far
            near, far = (one - x) * (v10 - v00) + x * (v11 - v01), (one - x) * (u10 - u00) + x * (u11 - u01)
            gy[i] = (one - z) * near + z * far
            near = (one - y) * ((one - x) * v00 + x * v01) + y * ((one - x) * v10 + x * v11)
            far = (one - y) * ((one - x) * u00 + x * u01) + y * ((one - x) * u10 + x * u11)
            gz[i] = far - near


@loop_sum
def dots(grad, to, image, at, right, down, channels, one):
    v00 = v01 = v10 = v11 = one - one
    for c in range(channels):
        g, k = grad[to + c], at + c
        v00 += g * image[k]
        v01 += g * image[k + right]
        v10 += g * image[k + down]
        v11 += g * image[k + down + right]
    return v00, v01, v10, v11


@inline
def slope_edges(ndim, grad, first, image, base, stride, corner, across, tile, fill):
    """Add one channel of the listed pixels. Pixels of a channel are `stride` apart, from `first` and `base` on."""
    for s in range(tile.edges[0]):
        i = tile.listed[s]
        g = grad[np.uint64(first + (corner + i // COLUMNS * across + i % COLUMNS) * stride)]
        for t in range(tile.where.shape[0]):
            v = g * (image[np.uint64(base + np.int64(tile.where[t, s]) * stride)] - fill)
            tile.gx[i] += tile.slope[t, 0, s] * v
            tile.gy[i] += tile.slope[t, 1, s] * v
            if ndim == 3:
                tile.gz[i] += tile.slope[t, 2, s] * v


@inline
def reduce_tile(rule, ndim, coordinates, shape, tile, partial, grad_field):
    look, x, y, z, width, height = tile.at
    across = shape.target[0]
    partial[:] = 0
    for r in range(height):
        u = (
            x - (across - 1) / 2,
            y + r - (shape.target[1] - 1) / 2,
            z - (shape.target[2] - 1) / 2,
        )
        start = (z * shape.target[1] + y + r) * across + x
        if rule == PROJECTIVE:
            row_points(rule, ndim, coordinates, look, np.uint64(start), u, width, tile.px, tile.py, tile.pz)
            divide_row(ndim, coordinates.coef[look, 3], coordinates.axes, u, width, r, tile, partial)
        elif rule == FIELD:
            field = grad_field[look]
            for j in range(width):
                i = r * COLUMNS + j
                field[start + j, 0] = coordinates.axes[0, 1] * tile.gx[i]
                field[start + j, 1] = coordinates.axes[1, 1] * tile.gy[i]
                if ndim == 3:
                    field[start + j, 2] = coordinates.axes[2, 1] * tile.gz[i]
        else:
            sum_row(tile.gx, r, width, u, partial[0])
            sum_row(tile.gy, r, width, u, partial[1])
            if ndim == 3:
                sum_row(tile.gz, r, width, u, partial[2])


@loop_sum
def sum_row(g, r, width, u, partial):
    """partial += sum of g (u, 1) over a row, in float64."""
    total = moment = 0.0
    start = np.uint64(r * COLUMNS)
    for j in range(np.uint64(width)):
        value = np.float64(g[start + j])
        total += value
        moment += value * np.float64(j)
    partial[0] += moment + u[0] * total
    partial[1] += u[1] * total
    partial[2] += u[2] * total
    partial[3] += total


@inline
def divide_row(ndim, v, axes, u, width, r, tile, partial):
    """The same for a homography: each term is divided by w, and w has its own share."""
    rest = v[1] * u[1] + v[2] * u[2] + v[3]
    for j in range(width):
        w, at = off_horizon(v[0] * (u[0] + j) + rest), r * COLUMNS + j
        gx, gy = tile.gx[at] / w, tile.gy[at] / w
        gw = gx * (tile.px[j] - axes[0, 0]) + gy * (tile.py[j] - axes[1, 0])
        add_point(partial[0], gx, u, j)
        add_point(partial[1], gy, u, j)
        if ndim == 3:
            gz = tile.gz[at] / w
            gw += gz * (tile.pz[j] - axes[2, 0])
            add_point(partial[2], gz, u, j)
        add_point(partial[3], -gw, u, j)


@inline
def add_point(partial, g, u, j):
    partial[0] += g * (u[0] + j)
    partial[1] += g * u[1]
    partial[2] += g * u[2]
    partial[3] += g

"""Keys' cubic kernel, of four taps an axis: forward, and both gradients, for planes and channels last alike.

Row by row of a tile the taps of each axis are found once for all channels; along the axes their weights multiply, so the
share of a fill value, and all derivatives, are products of sums along single axes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from stn.ops.cpu.coordinates_backward import reduce_tile
from stn.ops.cpu.row import COLUMNS, STRIDE, clear
from stn.ops.cpu.rules import FAR, ZEROS, inline, loop, loop_fused, padded, row_points
from stn.ops.cpu.tile import (
    channel_starts,
    look_and_tile,
    pixel_starts,
    place_tile,
    row_start,
    share_of,
    share_table,
    tile_of,
    tiles_of_a_look,
)  # fmt: skip

KEYS = {"bicubic": -0.75, "catmull_rom": -0.5}  # mode -> a: Keys 1981, eq. 4


class Reach(NamedTuple):
    """The taps of a row of pixels along each axis. One a thread."""

    pixel: Any  # (3, 4, COLUMNS) int64, as offsets in the image's plane or volume
    share: Any  # (2, 3, 4, COLUMNS) float: weights, 0 outside an image with zeros around it; then their derivatives
    total: Any  # (2, 3, COLUMNS) float, the sums of both over the four taps


def new_reaches(count: int, real: Any) -> Reach:
    shape = (3, 4, COLUMNS)
    shares, totals = np.empty((count, 2, *shape), real), np.empty((count, 2, 3, COLUMNS), real)
    return Reach(np.empty((count, *shape), np.int64), shares, totals)


# ---- kernels; `compiled` as serial or parallel ----


def cubic_forward(ndim, last, a, image, out, where, sizes, fill, tiles, reaches):
    for chunk in prange(len(tiles.at)):
        tile = tile_of(tiles, chunk)
        start, end = share_of(chunk, len(tiles.at), sizes.batch * sizes.looks * tiles_of_a_look(sizes))
        for number in range(start, end):
            look, within = look_and_tile(where, sizes, number)
            place_tile(sizes, look, within, tile.at)
            share_table(where, sizes, tile)
            blend_tile(
                ndim, last, a, image, out, where, sizes, fill, tile.at, tile.points, tile.table,
                reaches.pixel[chunk], reaches.share[chunk], reaches.total[chunk],
            )  # fmt: skip


def cubic_coordinates(ndim, last, a, grad, image, where, sizes, fill, sums, bends, tiles, reaches):
    for chunk in prange(len(tiles.at)):
        tile = tile_of(tiles, chunk)
        start, end = share_of(chunk, len(tiles.at), sizes.batch * sizes.looks * tiles_of_a_look(sizes))
        for number in range(start, end):
            look, within = look_and_tile(where, sizes, number)
            place_tile(sizes, look, within, tile.at)
            share_table(where, sizes, tile)
            clear(tile.gradient, 0, len(tile.gradient))
            slope_tile(
                ndim, last, a, grad, image, where, sizes, fill, tile.at, tile.points, tile.table, tile.gradient,
                reaches.pixel[chunk], reaches.share[chunk], reaches.total[chunk],
            )  # fmt: skip
            reduce_tile(where, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, sums, bends)


def cubic_image(ndim, last, a, grad, grad_image, where, sizes, groups, tiles, reaches):
    """Work is divided by what is written, images and groups of channels: no two threads add to the same pixel."""
    for chunk in prange(len(tiles.at)):
        tile, count = tile_of(tiles, chunk), tiles_of_a_look(sizes)
        start, end = share_of(chunk, len(tiles.at), sizes.batch * groups)
        for step in range((end - start) * sizes.looks * count):
            task = start + step // (sizes.looks * count)
            n, group = task // groups, task % groups
            place_tile(sizes, n * sizes.looks + step // count % sizes.looks, step % count, tile.at)
            share_table(where, sizes, tile)
            c0, c1 = sizes.channels * group // groups, sizes.channels * (group + 1) // groups
            scatter_tile(
                ndim, last, a, grad, grad_image, where, sizes, c0, c1, tile.at, tile.points, tile.table,
                reaches.pixel[chunk], reaches.share[chunk], reaches.total[chunk],
            )  # fmt: skip


# ---- one tile ----


@inline
def starts(last, sizes, at, r, c):
    """Of channel c: its first number in the image, the first of row r in the output, and the distance of pixels."""
    if last:
        plane, first = pixel_starts(sizes, at)
        n = sizes.channels
        return np.int64(plane) * n + c, (first + r * sizes.across) * n + c, n
    plane, first = channel_starts(sizes, at, c)
    return np.int64(plane), first + r * sizes.across, 1


@loop
def blend_tile(ndim, last, a, image, out, where, sizes, fill, at, points, table, pixel, share, total):
    for r in range(at[5]):
        start, u0, u1, u2 = row_start(sizes, at, r)
        row_points(where, ndim, at[0], start, u0, u1, u2, at[4], table, r * COLUMNS, points)
        find_taps(ndim, a, sizes, points, at[4], pixel, share, total)
        for c in range(sizes.channels):
            base, to, pitch = starts(last, sizes, at, r, c)
            blend_row(ndim, image, base, pitch, pixel, share, total, fill[c], sizes.padding == ZEROS, out, to, at[4])


@loop
def slope_tile(ndim, last, a, grad, image, where, sizes, fill, at, points, table, gradient, pixel, share, total):
    for r in range(at[5]):
        start, u0, u1, u2 = row_start(sizes, at, r)
        row_points(where, ndim, at[0], start, u0, u1, u2, at[4], table, r * COLUMNS, points)
        find_taps(ndim, a, sizes, points, at[4], pixel, share, total)
        for c in range(sizes.channels):
            base, to, pitch = starts(last, sizes, at, r, c)
            for axis in range(ndim):
                slope_row(
                    ndim, axis, image, base, pitch, pixel, share, total, fill[c], sizes.padding == ZEROS, grad, to,
                    gradient, axis * (len(gradient) // 3) + r * STRIDE, at[4],
                )  # fmt: skip


@loop
def scatter_tile(ndim, last, a, grad, grad_image, where, sizes, c0, c1, at, points, table, pixel, share, total):
    for r in range(at[5]):
        start, u0, u1, u2 = row_start(sizes, at, r)
        row_points(where, ndim, at[0], start, u0, u1, u2, at[4], table, r * COLUMNS, points)
        find_taps(ndim, a, sizes, points, at[4], pixel, share, total)
        for c in range(c0, c1):
            base, to, pitch = starts(last, sizes, at, r, c)
            scatter_row(ndim, grad_image, base, pitch, pixel, share, grad, to, at[4])


# ---- one row ----


@loop
def find_taps(ndim, a, sizes, points, width, pixel, share, total):
    pitch = 1
    for i in range(ndim):
        n = sizes.width if i == 0 else (sizes.height if i == 1 else sizes.depth)
        for j in range(width):
            x = points[i, j]
            far = (x < -FAR) | (x > FAR)
            known = min(max(x, -FAR), FAR) if x == x else 0.0
            first = int(math.floor(known))
            t = known - first if x == x else x  # NaN reaches the result through the weights
            s, moving = 1.0 - t, 0.0 if far else 1.0
            w = (outer(a, 1.0 + t), inner(a, t), inner(a, s), outer(a, 1.0 + s))
            v = (outer_slope(a, 1.0 + t), inner_slope(a, t), -inner_slope(a, s), -outer_slope(a, 1.0 + s))
            total[0, i, j] = total[1, i, j] = 0
            for k in range(4):
                at = first + k - 1
                inside = sizes.padding != ZEROS or 0 <= at < n
                pixel[i, k, j] = padded(sizes.padding, sizes.align_corners, at, n) * pitch
                share[0, i, k, j] = w[k] if inside else 0.0
                share[1, i, k, j] = moving * v[k] if inside else 0.0
                total[0, i, j] += share[0, i, k, j]
                total[1, i, j] += share[1, i, k, j]
        pitch *= n


@inline
def inner(a, s):  # |s| <= 1
    return ((a + 2) * s - (a + 3)) * s * s + 1


@inline
def outer(a, s):  # 1 <= |s| <= 2
    return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a


@inline
def inner_slope(a, s):
    return (3 * (a + 2) * s - 2 * (a + 3)) * s


@inline
def outer_slope(a, s):
    return (3 * a * s - 10 * a) * s + 8 * a


@inline
def counts(weight, zeros):
    """What has no weight may stand for a pixel outside, whatever is stored there."""
    return (weight != 0) | (not zeros)


@inline
def plane_sum(image, first, pitch, pixel, share, sx, sy, zeros, j):
    """Over the taps of pixel j in x and y. sx, sy: 0 for weights, 1 for their derivatives."""
    value = share[0, 0, 0, j] * 0
    for q in range(4):
        line, row = first + pixel[1, q, j] * pitch, value * 0
        for k in range(4):
            w, number = share[sx, 0, k, j], image[np.uint64(line + pixel[0, k, j] * pitch)]
            row += w * number if counts(w, zeros) else 0
        w = share[sy, 1, q, j]
        value += w * row if counts(w, zeros) else 0
    return value


@inline
def tap_sum(ndim, image, first, pitch, pixel, share, sx, sy, sz, zeros, j):
    if ndim == 2:
        return plane_sum(image, first, pitch, pixel, share, sx, sy, zeros, j)
    value = share[0, 0, 0, j] * 0
    for p in range(4):
        w = share[sz, 2, p, j]
        if counts(w, zeros):
            value += w * plane_sum(image, first + pixel[2, p, j] * pitch, pitch, pixel, share, sx, sy, zeros, j)
    return value


@inline
def share_inside(ndim, total, sx, sy, sz, j):
    return total[sx, 0, j] * total[sy, 1, j] * (total[sz, 2, j] if ndim == 3 else 1)


@loop_fused
def blend_row(ndim, image, base, pitch, pixel, share, total, fill, zeros, out, to, width):
    for j in range(np.uint64(width)):
        value = tap_sum(ndim, image, base, pitch, pixel, share, 0, 0, 0, zeros, j)
        if zeros:
            value += fill * (1 - share_inside(ndim, total, 0, 0, 0, j))
        out[np.uint64(to) + j * np.uint64(pitch)] = value


@loop_fused
def slope_row(ndim, axis, image, base, pitch, pixel, share, total, fill, zeros, grad, to, gradient, at, width):
    """Add one channel. The slopes of all taps add up to 0, inside and outside: what fill has is the rest."""
    x, y, z = int(axis == 0), int(axis == 1), int(axis == 2)
    for j in range(np.uint64(width)):
        value = tap_sum(ndim, image, base, pitch, pixel, share, x, y, z, zeros, j)
        if zeros:
            value -= fill * share_inside(ndim, total, x, y, z, j)
        gradient[np.uint64(at) + j] += grad[np.uint64(to) + j * np.uint64(pitch)] * value


@loop
def scatter_row(ndim, grad_image, base, pitch, pixel, share, grad, to, width):
    for j in range(width):
        g = grad[np.uint64(to + j * pitch)]
        for p in range(1 if ndim == 2 else 4):
            deep, gz = (base, g) if ndim == 2 else (base + pixel[2, p, j] * pitch, g * share[0, 2, p, j])
            for q in range(4):
                line, gy = deep + pixel[1, q, j] * pitch, gz * share[0, 1, q, j]
                if gy != 0:
                    for k in range(4):
                        grad_image[np.uint64(line + pixel[0, k, j] * pitch)] += gy * share[0, 0, k, j]

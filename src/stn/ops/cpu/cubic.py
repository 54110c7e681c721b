"""Cubic kernels, of four taps an axis: forward, and both gradients, for planes and channels last alike.

Row by row of a tile the taps of each axis are found once for all channels; along the axes their weights multiply, so the
share of a fill value, and all derivatives, are products of sums along single axes.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from stn.ops.cpu.compiling import inline, loop, loop_fused
from stn.ops.cpu.coordinates_backward import reduce_tile
from stn.ops.cpu.cubic_taps import find_run, find_taps
from stn.ops.cpu.points import row_points
from stn.ops.cpu.taps import COLUMNS, STRIDE, clear
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_LOOK,
    AT_WIDTH,
    channel_starts,
    look_and_tile,
    pixel_starts,
    place_tile,
    row_start,
    share_of,
    share_table,
    tile_of,
    tiles_of_a_look,
)
from stn.ops.padding import ZEROS

# ---- kernels; `compiled` as serial or parallel ----


def cubic_forward(ndim, last, careful, cubic, image, out, where, sizes, fill, tiles, reaches):
    for chunk in prange(len(tiles.at)):
        tile = tile_of(tiles, chunk)
        start, end = share_of(chunk, len(tiles.at), sizes.batch * sizes.looks * tiles_of_a_look(sizes))
        for number in range(start, end):
            begin_tile(where, sizes, tile, number)
            blend_tile(
                ndim, last, careful, cubic, image, out, where, sizes, fill, tile.at, tile.points, tile.table,
                reaches.pixel[chunk], reaches.share[chunk], reaches.total[chunk],
            )  # fmt: skip


def cubic_coordinates(ndim, last, cubic, grad, image, where, sizes, fill, sums, bends, tiles, reaches):
    for chunk in prange(len(tiles.at)):
        tile = tile_of(tiles, chunk)
        start, end = share_of(chunk, len(tiles.at), sizes.batch * sizes.looks * tiles_of_a_look(sizes))
        for number in range(start, end):
            begin_tile(where, sizes, tile, number)
            clear(tile.gradient, 0, len(tile.gradient))
            slope_tile(
                ndim, last, cubic, grad, image, where, sizes, fill, tile.at, tile.points, tile.table, tile.gradient,
                reaches.pixel[chunk], reaches.share[chunk], reaches.total[chunk],
            )  # fmt: skip
            reduce_tile(where, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, sums, bends)


def cubic_image(ndim, last, cubic, grad, grad_image, where, sizes, groups, tiles, reaches):
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
                ndim, last, cubic, grad, grad_image, where, sizes, c0, c1, tile.at, tile.points, tile.table,
                reaches.pixel[chunk], reaches.share[chunk], reaches.total[chunk],
            )  # fmt: skip


# ---- one tile ----


@inline
def begin_tile(where, sizes, tile, number):
    look, within = look_and_tile(where, sizes, number)
    place_tile(sizes, look, within, tile.at)
    share_table(where, sizes, tile)


@inline
def starts(last, sizes, at, r, c):
    """Of channel c: its first number in the image, the first of row r in the output, and the distance of pixels."""
    if last:
        plane, first = pixel_starts(sizes, at)
        n = sizes.channels
        return np.int64(plane) * n + c, (first + r * sizes.across) * n + c, n
    plane, first = channel_starts(sizes, at, c)
    return np.int64(plane), first + r * sizes.across, 1


@inline
def taps_of_row(ndim, last, cubic, slopes, where, sizes, r, at, points, table, pixel, share, total):
    """The first run of interior pixels of a row, whose taps lie side by side: empty for channels last."""
    start, u0, u1, u2 = row_start(sizes, at, r)
    row_points(where, ndim, at[AT_LOOK], start, u0, u1, u2, at[AT_WIDTH], table, r * COLUMNS, points)
    find_taps(ndim, cubic, slopes, sizes, points, at[AT_WIDTH], pixel, share, total)
    return (0, 0) if last else find_run(ndim, sizes.width, sizes.height, pixel, at[AT_WIDTH])


@loop
def blend_tile(ndim, last, careful, cubic, image, out, where, sizes, fill, at, points, table, pixel, share, total):
    """careful: the image holds NaN or infinity, times which no weight is 0. A run of pixels asks for no weight."""
    zeros = sizes.padding == ZEROS
    for r in range(at[AT_HEIGHT]):
        a, b = taps_of_row(ndim, last | careful, cubic, False, where, sizes, r, at, points, table, pixel, share, total)
        for c in range(sizes.channels):
            base, to, pitch = starts(last, sizes, at, r, c)
            blend_run(ndim, image, base, sizes.width, pixel, share, out, to, a, b)
            some = ndim, image, base, pitch, pixel, share, total, fill[c], zeros, careful, out, to
            blend_row(*some, 0, a)
            blend_row(*some, b, at[AT_WIDTH])


@loop
def slope_tile(ndim, last, cubic, grad, image, where, sizes, fill, at, points, table, gradient, pixel, share, total):
    zeros, area = sizes.padding == ZEROS, len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        a, b = taps_of_row(ndim, last, cubic, True, where, sizes, r, at, points, table, pixel, share, total)
        for c in range(sizes.channels):
            base, to, pitch = starts(last, sizes, at, r, c)
            slope_run(ndim, image, base, sizes.width, pixel, share, grad, to, gradient, r * STRIDE, area, a, b)
            for axis in range(ndim):
                i = axis * area + r * STRIDE
                some = image, base, pitch, pixel, share, total, fill[c], zeros, grad, to, gradient, i
                slope_row(ndim, axis, *some, 0, a)
                slope_row(ndim, axis, *some, b, at[AT_WIDTH])


@loop
def scatter_tile(ndim, last, cubic, grad, grad_image, where, sizes, c0, c1, at, points, table, pixel, share, total):
    for r in range(at[AT_HEIGHT]):
        a, b = taps_of_row(ndim, last, cubic, False, where, sizes, r, at, points, table, pixel, share, total)
        for c in range(c0, c1):
            base, to, pitch = starts(last, sizes, at, r, c)
            scatter_run(ndim, grad_image, base, sizes.width, pixel, share, grad, to, a, b)
            scatter_row(ndim, grad_image, base, pitch, pixel, share, grad, to, 0, a)
            scatter_row(ndim, grad_image, base, pitch, pixel, share, grad, to, b, at[AT_WIDTH])


# ---- one row ----


@inline
def counts(weight, guarded):
    """What has no weight may stand for a pixel outside, whatever is stored there, or be NaN itself."""
    return (weight != 0) | (not guarded)


@inline
def plane_sum(image, first, pitch, pixel, share, sx, sy, guarded, j):
    """Over the taps of pixel j in x and y. sx, sy: 0 for weights, 1 for their derivatives."""
    value = share[0, 0, 0, j] * 0
    for q in range(4):
        line, row = first + pixel[1, j, q] * pitch, value * 0
        for k in range(4):
            w, number = share[sx, 0, j, k], image[np.uint64(line + pixel[0, j, k] * pitch)]
            row += w * number if counts(w, guarded) else 0
        w = share[sy, 1, j, q]
        value += w * row if counts(w, guarded) else 0
    return value


@inline
def tap_sum(ndim, image, first, pitch, pixel, share, sx, sy, sz, guarded, j):
    if ndim == 2:
        return plane_sum(image, first, pitch, pixel, share, sx, sy, guarded, j)
    value = share[0, 0, 0, j] * 0
    for p in range(4):
        w = share[sz, 2, j, p]
        if counts(w, guarded):
            value += w * plane_sum(image, first + pixel[2, j, p] * pitch, pitch, pixel, share, sx, sy, guarded, j)
    return value


@inline
def share_inside(ndim, total, sx, sy, sz, j):
    return total[sx, 0, j] * total[sy, 1, j] * (total[sz, 2, j] if ndim == 3 else 1)


@loop_fused
def blend_row(ndim, image, base, pitch, pixel, share, total, fill, zeros, careful, out, to, start, end):
    for j in range(np.uint64(start), np.uint64(end)):
        value = tap_sum(ndim, image, base, pitch, pixel, share, 0, 0, 0, zeros | careful, j)
        rest = 1 - share_inside(ndim, total, 0, 0, 0, j)
        if zeros & (rest != 0):
            value += fill * rest
        out[np.uint64(to) + j * np.uint64(pitch)] = value


@loop_fused
def slope_row(ndim, axis, image, base, pitch, pixel, share, total, fill, zeros, grad, to, gradient, at, start, end):
    """Add one channel. The slopes of all taps add up to 0, inside and outside: what fill has is the rest."""
    x, y, z = int(axis == 0), int(axis == 1), int(axis == 2)
    for j in range(np.uint64(start), np.uint64(end)):
        value = tap_sum(ndim, image, base, pitch, pixel, share, x, y, z, zeros, j)
        slope = share_inside(ndim, total, x, y, z, j)
        if zeros & (slope != 0):
            value -= fill * slope
        gradient[np.uint64(at) + j] += grad[np.uint64(to) + j * np.uint64(pitch)] * value


@loop
def scatter_row(ndim, grad_image, base, pitch, pixel, share, grad, to, start, end):
    for j in range(start, end):
        g = grad[np.uint64(to + j * pitch)]
        for p in range(1 if ndim == 2 else 4):
            deep, gz = (base, g) if ndim == 2 else (base + pixel[2, j, p] * pitch, g * share[0, 2, j, p])
            for q in range(4):
                line, gy = deep + pixel[1, j, q] * pitch, gz * share[0, 1, j, q]
                if gy != 0:
                    for k in range(4):
                        grad_image[np.uint64(line + pixel[0, j, k] * pitch)] += gy * share[0, 0, j, k]


# ---- the interior run of one row of planes ----


@inline
def columns_of(image, i, down, share, s, j):
    """The four columns of a pixel's taps in one plane, the first at i, each summed over its rows."""
    a, b, c, d = share[s, 1, j, 0], share[s, 1, j, 1], share[s, 1, j, 2], share[s, 1, j, 3]
    one, k, m, n = np.uint64(1), i + down, i + down + down, i + down + down + down
    two, three = one + one, one + one + one
    return (
        (a * image[i] + b * image[k]) + (c * image[m] + d * image[n]),
        (a * image[i + one] + b * image[k + one]) + (c * image[m + one] + d * image[n + one]),
        (a * image[i + two] + b * image[k + two]) + (c * image[m + two] + d * image[n + two]),
        (a * image[i + three] + b * image[k + three]) + (c * image[m + three] + d * image[n + three]),
    )


@inline
def across(share, s, j, columns):
    near = share[s, 0, j, 0] * columns[0] + share[s, 0, j, 1] * columns[1]
    return near + (share[s, 0, j, 2] * columns[2] + share[s, 0, j, 3] * columns[3])


@loop_fused
def blend_run(ndim, image, base, w, pixel, share, out, to, start, end):
    down = np.uint64(w)
    for j in range(np.uint64(start), np.uint64(end)):
        i = np.uint64(base + pixel[0, j, 0] + pixel[1, j, 0])
        if ndim == 2:
            out[np.uint64(to) + j] = across(share, 0, j, columns_of(image, i, down, share, 0, j))
        else:
            value = share[0, 2, j, 0] * 0
            for p in range(4):
                deep = i + np.uint64(pixel[2, j, p])
                value += share[0, 2, j, p] * across(share, 0, j, columns_of(image, deep, down, share, 0, j))
            out[np.uint64(to) + j] = value


@loop_fused
def slope_run(ndim, image, base, w, pixel, share, grad, to, gradient, at, area, start, end):
    """Add one channel, all axes."""
    down, y, z = np.uint64(w), np.uint64(at + area), np.uint64(at + area + area)
    for j in range(np.uint64(start), np.uint64(end)):
        i, g = np.uint64(base + pixel[0, j, 0] + pixel[1, j, 0]), grad[np.uint64(to) + j]
        for p in range(1 if ndim == 2 else 4):
            deep = i if ndim == 2 else i + np.uint64(pixel[2, j, p])
            h = g if ndim == 2 else g * share[0, 2, j, p]
            columns = columns_of(image, deep, down, share, 0, j)
            gradient[np.uint64(at) + j] += h * across(share, 1, j, columns)
            gradient[y + j] += h * across(share, 0, j, columns_of(image, deep, down, share, 1, j))
            if ndim == 3:
                gradient[z + j] += g * share[1, 2, j, p] * across(share, 0, j, columns)


@loop_fused
def scatter_run(ndim, grad_image, base, w, pixel, share, grad, to, start, end):
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(np.uint64(start), np.uint64(end)):
        i, g = np.uint64(base + pixel[0, j, 0] + pixel[1, j, 0]), grad[np.uint64(to) + j]
        a, b, c, d = share[0, 0, j, 0], share[0, 0, j, 1], share[0, 0, j, 2], share[0, 0, j, 3]
        for p in range(1 if ndim == 2 else 4):
            k = i if ndim == 2 else i + np.uint64(pixel[2, j, p])
            deep = g if ndim == 2 else g * share[0, 2, j, p]
            for q in range(4):
                h = deep * share[0, 1, j, q]
                u, v = grad_image[k] + h * a, grad_image[k + one] + h * b
                x, y = grad_image[k + two] + h * c, grad_image[k + three] + h * d
                grad_image[k], grad_image[k + one], grad_image[k + two], grad_image[k + three] = u, v, x, y
                k += np.uint64(w)

"""Cubic kernels, of four taps an axis: forward, and both gradients, for planes and channels last alike.

For each row of a tile, the taps along each axis are found once for all channels. The weight of a tap is the product of its
weights along the axes, so the weight of the fill value, and all derivatives, are products of sums along single axes.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused, merged
from stn.ops.cpu.coordinates_backward import clear_gradient, reduce_tile
from stn.ops.cpu.cubic_taps import find_run, find_taps
from stn.ops.cpu.points import row_points
from stn.ops.cpu.taps import COLUMNS, STRIDE
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_LOOK,
    AT_WIDTH,
    channel_starts,
    fill_radial_table,
    look_and_tile,
    part_of,
    pixel_starts,
    place_tile,
    row_start,
    tiles_of_a_look,
)
from stn.ops.padding import ZEROS

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def cubic_forward(call, memory, chunk):
    tile, taps, grid, sizes = memory.tile, memory.taps, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        blend_tile(
            call.ndim, call.last, call.careful, call.cubic, call.image, call.out, grid, sizes, call.fill, tile.at,
            tile.points, tile.table, taps.pixel, taps.weight, taps.total,
        )  # fmt: skip


@merged
def cubic_coordinates(call, memory, chunk):
    tile, taps, ndim, grid, sizes = memory.tile, memory.taps, call.ndim, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        clear_gradient(ndim, tile.at[AT_HEIGHT], tile.gradient)
        slope_tile(
            ndim, call.last, call.cubic, call.out, call.image, grid, sizes, call.fill, tile.at, tile.points, tile.table,
            tile.gradient, taps.pixel, taps.weight, taps.total,
        )  # fmt: skip
        reduce_tile(grid, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, call.sums, call.bends)


@merged
def cubic_image(call, memory, chunk):
    """Work is divided by what is written, images and groups of channels: no two threads add to the same pixel."""
    tile, taps, grid, sizes, groups = memory.tile, memory.taps, call.grid, call.sizes, call.groups
    count = tiles_of_a_look(sizes)
    start, end = part_of(chunk, call.chunks, sizes.batch * groups)
    for step in range((end - start) * sizes.looks * count):
        task = start + step // (sizes.looks * count)
        n, group = task // groups, task % groups
        place_tile(sizes, n * sizes.looks + step // count % sizes.looks, step % count, tile.at)
        fill_radial_table(grid, sizes, tile)
        c0, c1 = sizes.channels * group // groups, sizes.channels * (group + 1) // groups
        scatter_tile(
            call.ndim, call.last, call.cubic, call.out, call.image, grid, sizes, c0, c1, tile.at, tile.points, tile.table,
            taps.pixel, taps.weight, taps.total,
        )  # fmt: skip


# ---- one tile ----


@inline
def begin_tile(grid, sizes, tile, number):
    look, within = look_and_tile(grid, sizes, number)
    place_tile(sizes, look, within, tile.at)
    fill_radial_table(grid, sizes, tile)


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
def taps_of_row(ndim, last, cubic, slopes, grid, sizes, r, at, points, table, pixel, weight, total):
    """The first run of interior pixels of a row, whose taps lie side by side: empty for channels last."""
    start, u0, u1, u2 = row_start(sizes, at, r)
    row_points(grid, ndim, at[AT_LOOK], start, u0, u1, u2, at[AT_WIDTH], table, r * COLUMNS, points)
    find_taps(ndim, cubic, slopes, sizes, points, at[AT_WIDTH], pixel, weight, total)
    return (0, 0) if last else find_run(ndim, sizes.width, sizes.height, pixel, at[AT_WIDTH])


@loop
def blend_tile(ndim, last, careful, cubic, image, out, grid, sizes, fill, at, points, table, pixel, weight, total):
    """careful: the image holds NaN or infinity, whose product with a weight of 0 is NaN. Runs do not test weights."""
    zeros = sizes.padding == ZEROS
    for r in range(at[AT_HEIGHT]):
        a, b = taps_of_row(ndim, last | careful, cubic, False, grid, sizes, r, at, points, table, pixel, weight, total)
        for c in range(sizes.channels):
            base, to, pitch = starts(last, sizes, at, r, c)
            blend_run(ndim, image, base, sizes.width, pixel, weight, out, to, a, b)
            common = ndim, image, base, pitch, pixel, weight, total, fill[c], zeros, careful, out, to
            blend_row(*common, 0, a)
            blend_row(*common, b, at[AT_WIDTH])


@loop
def slope_tile(ndim, last, cubic, grad, image, grid, sizes, fill, at, points, table, gradient, pixel, weight, total):
    zeros, area = sizes.padding == ZEROS, len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        a, b = taps_of_row(ndim, last, cubic, True, grid, sizes, r, at, points, table, pixel, weight, total)
        for c in range(sizes.channels):
            base, to, pitch = starts(last, sizes, at, r, c)
            slope_run(ndim, image, base, sizes.width, pixel, weight, grad, to, gradient, r * STRIDE, area, a, b)
            for axis in range(ndim):
                i = axis * area + r * STRIDE
                common = image, base, pitch, pixel, weight, total, fill[c], zeros, grad, to, gradient, i
                slope_row(ndim, axis, *common, 0, a)
                slope_row(ndim, axis, *common, b, at[AT_WIDTH])


@loop
def scatter_tile(ndim, last, cubic, grad, grad_image, grid, sizes, c0, c1, at, points, table, pixel, weight, total):
    for r in range(at[AT_HEIGHT]):
        a, b = taps_of_row(ndim, last, cubic, False, grid, sizes, r, at, points, table, pixel, weight, total)
        for c in range(c0, c1):
            base, to, pitch = starts(last, sizes, at, r, c)
            scatter_run(ndim, grad_image, base, sizes.width, pixel, weight, grad, to, a, b)
            scatter_row(ndim, grad_image, base, pitch, pixel, weight, grad, to, 0, a)
            scatter_row(ndim, grad_image, base, pitch, pixel, weight, grad, to, b, at[AT_WIDTH])


# ---- one row ----


@inline
def counts(weight, guarded):
    """Whether a tap is added. One without weight may stand for a pixel outside, or be NaN, which times 0 is NaN."""
    return (weight != 0) | (not guarded)


@inline
def plane_sum(image, first, pitch, pixel, weight, sx, sy, guarded, j):
    """Sum over the taps of pixel j in x and y. sx, sy: 0 for weights, 1 for their derivatives."""
    value = weight[0, 0, j, 0] * 0
    for q in range(4):
        line, row = first + pixel[1, j, q] * pitch, value * 0
        for k in range(4):
            w, number = weight[sx, 0, j, k], image[np.uint64(line + pixel[0, j, k] * pitch)]
            row += w * number if counts(w, guarded) else 0
        w = weight[sy, 1, j, q]
        value += w * row if counts(w, guarded) else 0
    return value


@inline
def tap_sum(ndim, image, first, pitch, pixel, weight, sx, sy, sz, guarded, j):
    if ndim == 2:
        return plane_sum(image, first, pitch, pixel, weight, sx, sy, guarded, j)
    value = weight[0, 0, j, 0] * 0
    for p in range(4):
        w = weight[sz, 2, j, p]
        if counts(w, guarded):
            value += w * plane_sum(image, first + pixel[2, j, p] * pitch, pitch, pixel, weight, sx, sy, guarded, j)
    return value


@inline
def weight_inside(ndim, total, sx, sy, sz, j):
    return total[sx, 0, j] * total[sy, 1, j] * (total[sz, 2, j] if ndim == 3 else 1)


@loop_fused
def blend_row(ndim, image, base, pitch, pixel, weight, total, fill, zeros, careful, out, to, start, end):
    for j in range(np.uint64(start), np.uint64(end)):
        value = tap_sum(ndim, image, base, pitch, pixel, weight, 0, 0, 0, zeros | careful, j)
        rest = 1 - weight_inside(ndim, total, 0, 0, 0, j)
        if zeros & (rest != 0):
            value += fill * rest
        out[np.uint64(to) + j * np.uint64(pitch)] = value


@loop_fused
def slope_row(ndim, axis, image, base, pitch, pixel, weight, total, fill, zeros, grad, to, gradient, at, start, end):
    """Add one channel. The slopes of all taps add up to 0, so the slope of the fill value is minus that of taps inside."""
    x, y, z = int(axis == 0), int(axis == 1), int(axis == 2)
    for j in range(np.uint64(start), np.uint64(end)):
        value = tap_sum(ndim, image, base, pitch, pixel, weight, x, y, z, zeros, j)
        slope = weight_inside(ndim, total, x, y, z, j)
        if zeros & (slope != 0):
            value -= fill * slope
        gradient[np.uint64(at) + j] += grad[np.uint64(to) + j * np.uint64(pitch)] * value


@loop
def scatter_row(ndim, grad_image, base, pitch, pixel, weight, grad, to, start, end):
    for j in range(start, end):
        g = grad[np.uint64(to + j * pitch)]
        for p in range(1 if ndim == 2 else 4):
            deep, gz = (base, g) if ndim == 2 else (base + pixel[2, j, p] * pitch, g * weight[0, 2, j, p])
            for q in range(4):
                line, gy = deep + pixel[1, j, q] * pitch, gz * weight[0, 1, j, q]
                if gy != 0:
                    for k in range(4):
                        grad_image[np.uint64(line + pixel[0, j, k] * pitch)] += gy * weight[0, 0, j, k]


# ---- the interior run of one row of planes ----


@inline
def columns_of(image, i, down, weight, s, j):
    """The four columns of a pixel's taps in one plane, the first at i, each summed over its rows."""
    a, b, c, d = weight[s, 1, j, 0], weight[s, 1, j, 1], weight[s, 1, j, 2], weight[s, 1, j, 3]
    one, k, m, n = np.uint64(1), i + down, i + down + down, i + down + down + down
    two, three = one + one, one + one + one
    return (
        (a * image[i] + b * image[k]) + (c * image[m] + d * image[n]),
        (a * image[i + one] + b * image[k + one]) + (c * image[m + one] + d * image[n + one]),
        (a * image[i + two] + b * image[k + two]) + (c * image[m + two] + d * image[n + two]),
        (a * image[i + three] + b * image[k + three]) + (c * image[m + three] + d * image[n + three]),
    )


@inline
def across(weight, s, j, columns):
    near = weight[s, 0, j, 0] * columns[0] + weight[s, 0, j, 1] * columns[1]
    return near + (weight[s, 0, j, 2] * columns[2] + weight[s, 0, j, 3] * columns[3])


@loop_fused
def blend_run(ndim, image, base, w, pixel, weight, out, to, start, end):
    down = np.uint64(w)
    for j in range(np.uint64(start), np.uint64(end)):
        i = np.uint64(base + pixel[0, j, 0] + pixel[1, j, 0])
        if ndim == 2:
            out[np.uint64(to) + j] = across(weight, 0, j, columns_of(image, i, down, weight, 0, j))
        else:
            value = weight[0, 2, j, 0] * 0
            for p in range(4):
                deep = i + np.uint64(pixel[2, j, p])
                value += weight[0, 2, j, p] * across(weight, 0, j, columns_of(image, deep, down, weight, 0, j))
            out[np.uint64(to) + j] = value


@loop_fused
def slope_run(ndim, image, base, w, pixel, weight, grad, to, gradient, at, area, start, end):
    """Add one channel, all axes."""
    down, y, z = np.uint64(w), np.uint64(at + area), np.uint64(at + area + area)
    for j in range(np.uint64(start), np.uint64(end)):
        i, g = np.uint64(base + pixel[0, j, 0] + pixel[1, j, 0]), grad[np.uint64(to) + j]
        for p in range(1 if ndim == 2 else 4):
            deep = i if ndim == 2 else i + np.uint64(pixel[2, j, p])
            h = g if ndim == 2 else g * weight[0, 2, j, p]
            columns = columns_of(image, deep, down, weight, 0, j)
            gradient[np.uint64(at) + j] += h * across(weight, 1, j, columns)
            gradient[y + j] += h * across(weight, 0, j, columns_of(image, deep, down, weight, 1, j))
            if ndim == 3:
                gradient[z + j] += g * weight[1, 2, j, p] * across(weight, 0, j, columns)


@loop_fused
def scatter_run(ndim, grad_image, base, w, pixel, weight, grad, to, start, end):
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(np.uint64(start), np.uint64(end)):
        i, g = np.uint64(base + pixel[0, j, 0] + pixel[1, j, 0]), grad[np.uint64(to) + j]
        a, b, c, d = weight[0, 0, j, 0], weight[0, 0, j, 1], weight[0, 0, j, 2], weight[0, 0, j, 3]
        for p in range(1 if ndim == 2 else 4):
            k = i if ndim == 2 else i + np.uint64(pixel[2, j, p])
            deep = g if ndim == 2 else g * weight[0, 2, j, p]
            for q in range(4):
                h = deep * weight[0, 1, j, q]
                u, v = grad_image[k] + h * a, grad_image[k + one] + h * b
                x, y = grad_image[k + two] + h * c, grad_image[k + three] + h * d
                grad_image[k], grad_image[k + one], grad_image[k + two], grad_image[k + three] = u, v, x, y
                k += np.uint64(w)

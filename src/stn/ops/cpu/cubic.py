"""Cubic kernels, of four taps an axis: forward, and both gradients.

For each row of a tile, the taps along each axis are found once for all channels. The weight of a tap is the product of its
weights along the axes, so the weight of the fill value, and all derivatives, are products of sums along single axes.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused, merged
from stn.ops.cpu.coordinates_backward import clear_gradient, reduce_tile
from stn.ops.cpu.cubic_taps import are_joined, find_taps
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.points import row_points
from stn.ops.cpu.quads import (
    add_channels_of_plane,
    add_channels_to_plane,
    blend_plane,
    blend_volume,
    channel_slopes_of_plane,
    slopes_plane,
    slopes_volume,
)
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

ALL = (1 << LANES) - 1  # bits of the pixels of a block

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def cubic_forward_planes(call, memory, chunk):
    cubic_forward(blend_tile_planes, call, memory, chunk)


@merged
def cubic_forward_pixels(call, memory, chunk):
    cubic_forward(blend_tile_pixels, call, memory, chunk)


@merged
def cubic_forward(blend_tile, call, memory, chunk):
    tile, taps, grid, sizes = memory.tile, memory.taps, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        blend_tile(
            call.ndim, call.cubic, call.image, call.out, grid, sizes, call.fill, tile.at, tile.points, tile.table,
            taps.place, taps.weight, taps.total, taps.rest,
        )  # fmt: skip


@merged
def cubic_coordinates_planes(call, memory, chunk):
    cubic_coordinates(slope_tile_planes, call, memory, chunk)


@merged
def cubic_coordinates_pixels(call, memory, chunk):
    cubic_coordinates(slope_tile_pixels, call, memory, chunk)


@merged
def cubic_coordinates(slope_tile, call, memory, chunk):
    tile, taps, ndim, grid, sizes = memory.tile, memory.taps, call.ndim, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        clear_gradient(ndim, tile.at[AT_HEIGHT], tile.gradient)
        slope_tile(
            ndim, call.cubic, call.out, call.image, grid, sizes, call.fill, tile.at, tile.points, tile.table,
            tile.gradient, taps.place, taps.weight, taps.total, taps.rest,
        )  # fmt: skip
        reduce_tile(grid, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, call.sums, call.bends)


@merged
def cubic_image_planes(call, memory, chunk):
    cubic_image(scatter_tile_planes, call, memory, chunk)


@merged
def cubic_image_pixels(call, memory, chunk):
    cubic_image(scatter_tile_pixels, call, memory, chunk)


@merged
def cubic_image(scatter_tile, call, memory, chunk):
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
            call.ndim, call.cubic, call.out, call.image, grid, sizes, c0, c1, tile.at, tile.points, tile.table, taps.place,
            taps.weight, taps.total, taps.rest,
        )  # fmt: skip


# ---- one row ----


@inline
def begin_tile(grid, sizes, tile, number):
    look, within = look_and_tile(grid, sizes, number)
    place_tile(sizes, look, within, tile.at)
    fill_radial_table(grid, sizes, tile)


@inline
def taps_of_row(ndim, cubic, slopes, grid, sizes, r, at, points, table, place, weight, total, rest):
    start, u0, u1, u2 = row_start(sizes, at, r)
    row_points(grid, ndim, at[AT_LOOK], start, u0, u1, u2, at[AT_WIDTH], table, r * COLUMNS, points)
    find_taps(ndim, cubic, slopes, sizes, points, at[AT_WIDTH], place, weight, total, rest)


# ---- planes ----


@loop
def blend_tile_planes(ndim, cubic, image, out, grid, sizes, fill, at, points, table, place, weight, total, rest):
    joined = are_joined(sizes)
    for r in range(at[AT_HEIGHT]):
        taps_of_row(ndim, cubic, False, grid, sizes, r, at, points, table, place, weight, total, rest)
        for c in range(sizes.channels):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            blend_row(ndim, image, np.int64(base), joined, place, weight, rest, fill[c], out, to, at[AT_WIDTH])


@loop
def blend_row(ndim, image, base, joined, place, weight, rest, fill, out, to, width):
    for j in range(0, width, LANES):
        count, again = min(LANES, width - j), ALL
        if joined & (ndim == 2):
            again = blend_plane(image, base, place, weight, rest, j, fill, out, to + j, count)
        elif joined:
            again = blend_volume(image, base, place, weight, rest, j, fill, out, to + j, count)
        for k in range(count if again else 0):
            if again >> k & 1:
                value = tap_sum(ndim, image, base, place, weight, 0, 0, 0, j + k)
                out[np.uint64(to + j + k)] = value + with_fill(rest[j + k], fill)


@inline
def with_fill(weight, fill):
    return weight * fill if weight != 0 else weight


@inline
def deep_of(ndim, place, weight, s, j, p):
    """The plane of tap p in z as an offset, and its weight (s = 0) or slope."""
    if ndim == 2:
        return np.uint32(0), weight.dtype.type(1)
    return place[(8 + p) * COLUMNS + j], weight[(12 * s + 8 + p) * COLUMNS + j]


@loop
def tap_sum(ndim, image, base, place, weight, sx, sy, sz, j):
    """The sum over the taps of one pixel that have weight. sx, sy, sz: 0 for weights, 1 for their derivatives."""
    value = weight[j] * 0
    for p in range(1 if ndim == 2 else 4):
        deep, wz = deep_of(ndim, place, weight, sz, j, p)
        for q in range(4):
            line, wy = base + deep + place[(4 + q) * COLUMNS + j], wz * weight[(12 * sy + 4 + q) * COLUMNS + j]
            for k in range(4):
                w = wy * weight[(12 * sx + k) * COLUMNS + j]
                value += w * image[np.uint64(line + place[k * COLUMNS + j])] if w != 0 else 0
    return value


@loop
def slope_tile_planes(
    ndim, cubic, grad, image, grid, sizes, fill, at, points, table, gradient, place, weight, total, rest
):  # fmt: skip
    joined, area = are_joined(sizes), len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        taps_of_row(ndim, cubic, True, grid, sizes, r, at, points, table, place, weight, total, rest)
        for c in range(sizes.channels):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            slope_row(
                ndim, image, np.int64(base), joined, place, weight, rest, fill[c], grad, to, gradient, r * STRIDE, area,
                at[AT_WIDTH],
            )  # fmt: skip


@loop
def slope_row(ndim, image, base, joined, place, weight, rest, fill, grad, to, gradient, first, area, width):
    """Add one channel."""
    for j in range(0, width, LANES):
        count, again = min(LANES, width - j), ALL
        if joined & (ndim == 2):
            again = slopes_plane(
                image, base, place, weight, rest, j, fill, grad, to + j, count, gradient, first + j, area
            )  # fmt: skip
        elif joined:
            again = slopes_volume(
                image, base, place, weight, rest, j, fill, grad, to + j, count, gradient, first + j, area
            )  # fmt: skip
        for k in range(count if again else 0):
            if again >> k & 1:
                for axis in range(ndim):
                    x, y, z = int(axis == 0), int(axis == 1), int(axis == 2)
                    value = tap_sum(ndim, image, base, place, weight, x, y, z, j + k)
                    value += with_fill(rest[(1 + axis) * COLUMNS + j + k], fill)
                    gradient[np.uint64(axis * area + first + j + k)] += grad[np.uint64(to + j + k)] * value


@loop
def scatter_tile_planes(
    ndim, cubic, grad, grad_image, grid, sizes, c0, c1, at, points, table, place, weight, total, rest
):  # fmt: skip
    joined = are_joined(sizes)
    for r in range(at[AT_HEIGHT]):
        taps_of_row(ndim, cubic, False, grid, sizes, r, at, points, table, place, weight, total, rest)
        for c in range(c0, c1):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            if joined:
                scatter_joined(ndim, grad_image, np.int64(base), place, weight, grad, to, at[AT_WIDTH])
            else:
                scatter_apart(ndim, grad_image, np.int64(base), place, weight, grad, to, at[AT_WIDTH])


@loop_fused
def scatter_joined(ndim, grad_image, base, place, weight, grad, to, width):
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(np.uint64(width)):
        i, g = np.uint64(base) + place[j], grad[np.uint64(to) + j]
        a, b, c, d = weight[j], weight[COLUMNS + j], weight[2 * COLUMNS + j], weight[3 * COLUMNS + j]
        for p in range(1 if ndim == 2 else 4):
            first = i if ndim == 2 else i + place[(8 + p) * COLUMNS + j]
            deep = g if ndim == 2 else g * weight[(8 + p) * COLUMNS + j]
            for q in range(4):
                k, h = first + place[(4 + q) * COLUMNS + j], deep * weight[(4 + q) * COLUMNS + j]
                u, v = grad_image[k] + h * a, grad_image[k + one] + h * b
                x, y = grad_image[k + two] + h * c, grad_image[k + three] + h * d
                grad_image[k], grad_image[k + one], grad_image[k + two], grad_image[k + three] = u, v, x, y


@loop
def scatter_apart(ndim, grad_image, base, place, weight, grad, to, width):
    for j in range(width):
        g = grad[np.uint64(to + j)]
        for p in range(1 if ndim == 2 else 4):
            deep, gz = (base, g) if ndim == 2 else (base + place[(8 + p) * COLUMNS + j], g * weight[(8 + p) * COLUMNS + j])
            for q in range(4):
                line, gy = deep + place[(4 + q) * COLUMNS + j], gz * weight[(4 + q) * COLUMNS + j]
                for k in range(4):
                    grad_image[np.uint64(line + place[k * COLUMNS + j])] += gy * weight[k * COLUMNS + j]


# ---- channels last ----


@loop
def blend_tile_pixels(ndim, cubic, image, out, grid, sizes, fill, at, points, table, place, weight, total, rest):
    n = sizes.channels
    for r in range(at[AT_HEIGHT]):
        taps_of_row(ndim, cubic, False, grid, sizes, r, at, points, table, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to = (first + r * sizes.across + j) * n
            for c in range(np.uint64(n)):
                out[np.uint64(to) + c] = with_fill(rest[j], fill[c])
            for p in range(1 if ndim == 2 else 4):
                deep, w = deep_of(ndim, place, weight, 0, j, p)
                if w != 0:
                    add_channels_of_plane(image, (np.int64(plane) + deep) * n, n, place, weight, j, w, out, to)


@loop
def slope_tile_pixels(
    ndim, cubic, grad, image, grid, sizes, fill, at, points, table, gradient, place, weight, total, rest
):  # fmt: skip
    n, area = sizes.channels, len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        taps_of_row(ndim, cubic, True, grid, sizes, r, at, points, table, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to, i = (first + r * sizes.across + j) * n, r * STRIDE + j
            for p in range(1 if ndim == 2 else 4):
                deep, w = deep_of(ndim, place, weight, 0, j, p)
                _, slope = deep_of(ndim, place, weight, 1, j, p)
                if (w != 0) | (slope != 0):
                    start = (np.int64(plane) + deep) * n
                    x, y, value = channel_slopes_of_plane(image, start, n, place, weight, j, grad, to)
                    add_slopes(ndim, gradient, i, area, with_fill(w, x), with_fill(w, y), with_fill(slope, value))
            x, y, z = rest[COLUMNS + j], rest[2 * COLUMNS + j], rest[3 * COLUMNS + j]
            if (x != 0) | (y != 0) | (z != 0):
                g = rest[j] * 0
                for c in range(n):
                    g += grad[np.uint64(to + c)] * fill[c]
                add_slopes(ndim, gradient, i, area, with_fill(x, g), with_fill(y, g), with_fill(z, g))


@inline
def add_slopes(ndim, gradient, i, area, x, y, z):
    gradient[np.uint64(i)] += x
    gradient[np.uint64(i + area)] += y
    if ndim == 3:
        gradient[np.uint64(i + 2 * area)] += z


@loop
def scatter_tile_pixels(
    ndim, cubic, grad, grad_image, grid, sizes, c0, c1, at, points, table, place, weight, total, rest
):  # fmt: skip
    n = sizes.channels
    for r in range(at[AT_HEIGHT]):
        taps_of_row(ndim, cubic, False, grid, sizes, r, at, points, table, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to = (first + r * sizes.across + j) * n + c0
            for p in range(1 if ndim == 2 else 4):
                deep, w = deep_of(ndim, place, weight, 0, j, p)
                start = (np.int64(plane) + deep) * n + c0
                if c1 - c0 >= LANES:
                    add_channels_to_plane(grad_image, start, n, c1 - c0, place, weight, j, w, grad, to)
                else:  # a masked store is slow on half of the CPUs
                    scatter_few(grad_image, start, n, c1 - c0, place, weight, j, w, grad, to)


@inline
def scatter_few(grad_image, start, n, count, place, weight, j, scale, grad, to):
    for q in range(4):
        line, wy = start + np.int64(place[(4 + q) * COLUMNS + j]) * n, scale * weight[(4 + q) * COLUMNS + j]
        for k in range(4):
            at, w = np.uint64(line + np.int64(place[k * COLUMNS + j]) * n), wy * weight[k * COLUMNS + j]
            for c in range(np.uint64(count)):
                grad_image[at + c] += w * grad[np.uint64(to) + c]

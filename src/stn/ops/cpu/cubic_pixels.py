"""One tile of a channels-last image by a cubic kernel: all channels of a pixel at once."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import NDIM, inline, loop
from stn.ops.cpu.cubic_taps import deep_of, taps_of_row, with_fill
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.quads import (
    add_channels_of_plane,
    add_channels_to_plane,
    blend_channels_of_plane,
    channel_slopes_of_plane,
)
from stn.ops.cpu.storing import stored
from stn.ops.cpu.taps import COLUMNS, STRIDE
from stn.ops.cpu.tile import AT_HEIGHT, AT_WIDTH, pixel_starts


@loop
def blend_tile_pixels(cubic, image, out, sizes, fill, at, points, taps):
    place, weight, total, rest = taps
    n = sizes.channels
    for r in range(at[AT_HEIGHT]):
        taps_of_row(cubic, False, sizes, r, at, points, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to = (first + r * sizes.across + j) * n
            if NDIM == 2:
                blend_channels_of_plane(image, np.int64(plane) * n, n, place, weight, j, rest[j], fill, out, to)
                continue
            for c in range(np.uint64(n)):
                out[np.uint64(to) + c] = stored(with_fill(rest[j], fill[c]), fill[c], out)
            for p in range(4):
                deep, w = deep_of(place, weight, 0, j, p)
                if w != 0:
                    add_channels_of_plane(image, (np.int64(plane) + deep) * n, n, place, weight, j, w, out, to)


@loop
def slope_tile_pixels(cubic, grad, image, sizes, fill, at, points, gradient, taps):
    place, weight, total, rest = taps
    n, area = sizes.channels, len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        taps_of_row(cubic, True, sizes, r, at, points, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to, i = (first + r * sizes.across + j) * n, r * STRIDE + j
            for p in range(1 if NDIM == 2 else 4):
                deep, w = deep_of(place, weight, 0, j, p)
                _, slope = deep_of(place, weight, 1, j, p)
                if (w != 0) | (slope != 0):
                    start = (np.int64(plane) + deep) * n
                    x, y, value = channel_slopes_of_plane(image, start, n, place, weight, j, grad, to)
                    add_slopes(gradient, i, area, with_fill(w, x), with_fill(w, y), with_fill(slope, value))
            x, y, z = rest[COLUMNS + j], rest[2 * COLUMNS + j], rest[3 * COLUMNS + j]
            if (x != 0) | (y != 0) | (z != 0):
                g = rest[j] * 0
                for c in range(n):
                    g += grad[np.uint64(to + c)] * fill[c]
                add_slopes(gradient, i, area, with_fill(x, g), with_fill(y, g), with_fill(z, g))


@inline
def add_slopes(gradient, i, area, x, y, z):
    gradient[np.uint64(i)] += x
    gradient[np.uint64(i + area)] += y
    if NDIM == 3:
        gradient[np.uint64(i + 2 * area)] += z


@loop
def scatter_tile_pixels(cubic, grad, grad_image, sizes, c0, c1, at, points, taps):
    place, weight, total, rest = taps
    n = sizes.channels
    for r in range(at[AT_HEIGHT]):
        taps_of_row(cubic, False, sizes, r, at, points, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to = (first + r * sizes.across + j) * n + c0
            for p in range(1 if NDIM == 2 else 4):
                deep, w = deep_of(place, weight, 0, j, p)
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

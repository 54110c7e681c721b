"""The gradient in the image: each pixel's gradient goes to the pixels it read, by their weights.

Work is divided by what is written, (image, channels, band of rows), so no two threads add to the same pixel. The division
depends on shapes alone and each pixel gathers its terms in the order of the output: the result does not depend on the
number of threads, bit for bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from stn.ops.cpu.rules import SOURCES, inline, loop
from stn.ops.cpu.tile import COLUMNS, fill_tile, new_tile, shape_of, tiles_of_a_look


@cache
def image_backward_kernel(rule: int, ndim: int, nearest: bool, channels_last: bool, parallel: bool) -> Any:
    """kernel(grad, grad_image, coordinates, lengths, fill, one, groups, bands, chunks); compiled when first called.

    grad, grad_image: flat, grad_image zeros. groups and bands divide the channels and the slowest axis of the image.
    """

    key = SOURCES, parallel

    def kernel(grad, grad_image, coordinates, lengths, fill, one, groups, bands, chunks):
        _ = key  # of the cache on disk
        tasks, tiles = lengths.batch * groups * bands, tiles_of_a_look(lengths)
        rows = lengths.height if ndim == 2 else lengths.depth
        for chunk in prange(chunks):
            shape = shape_of(lengths)
            tile = new_tile(ndim, nearest, fill)
            for task in range(tasks * chunk // chunks, tasks * (chunk + 1) // chunks):
                band, group, n = task % bands, task // bands % groups, task // (bands * groups)
                low, high = rows * band // bands, rows * (band + 1) // bands
                c0, c1 = shape.channels * group // groups, shape.channels * (group + 1) // groups
                for number in range(n * shape.looks * tiles, (n + 1) * shape.looks * tiles):
                    fill_tile(rule, ndim, nearest, True, coordinates, shape, number, low, high, tile)
                    if channels_last:
                        scatter_pixels(ndim, nearest, grad, grad_image, shape, tile, c0, c1, one)
                    else:
                        scatter_planes(ndim, nearest, grad, grad_image, shape, tile, c0, c1, one)

    return njit(kernel, nogil=True, parallel=parallel, cache=True, error_model="numpy")


@inline
def scatter_planes(ndim, nearest, grad, grad_image, shape, tile, c0, c1, one):
    look, x, y, z, _, height = tile.at
    w, h, d = shape.size
    across, area = shape.target[0], shape.target[0] * shape.target[1] * shape.target[2]
    corner = (z * shape.target[1] + y) * across + x
    for c in range(c0, c1):
        plane = (look // shape.looks * shape.channels + c) * w * h * d
        first = (look * shape.channels + c) * area
        for r in range(height):
            a, b = tile.runs[r]
            scatter_row(
                ndim, nearest, grad, first + corner + r * across, grad_image, np.uint64(plane), w, h, tile.offset,
                tile.wx, tile.wy, tile.wz, r, a, b, one,
            )  # fmt: skip
        scatter_edges(grad, first, grad_image, plane, 1, corner, across, tile)


@loop
def scatter_row(ndim, nearest, grad, first, grad_image, plane, w, h, offset, wx, wy, wz, r, a, b, one):
    right, down, deep = np.uint64(1), np.uint64(w), np.uint64(w * h)
    start, to = np.uint64(r * COLUMNS), np.uint64(first)
    for j in range(np.uint64(a), np.uint64(b)):
        i = start + j
        g, at = grad[to + j], plane + np.uint64(offset[i])
        if nearest:
            grad_image[at] += g
            continue
        x, y = wx[i], wy[i]
        if ndim == 3:
            z = wz[i]
            spread(grad_image, at + deep, right, down, z * g, x, y, one)
            g = (one - z) * g
        spread(grad_image, at, right, down, g, x, y, one)


@inline
def spread(grad_image, at, right, down, g, x, y, one):
    grad_image[at] += (one - y) * ((one - x) * g)
    grad_image[at + right] += (one - y) * (x * g)
    grad_image[at + down] += y * ((one - x) * g)
    grad_image[at + down + right] += y * (x * g)


@inline
def scatter_edges(grad, first, grad_image, base, stride, corner, across, tile):
    """The listed pixels of one channel, whose pixels are `stride` apart from `first` and `base` on."""
    for s in range(tile.edges[0]):
        i = tile.listed[s]
        g = grad[np.uint64(first + (corner + i // COLUMNS * across + i % COLUMNS) * stride)]
        for t in range(tile.where.shape[0]):
            weight = tile.value[t, s]
            if weight != 0:
                grad_image[np.uint64(base + np.int64(tile.where[t, s]) * stride)] += weight * g


@inline
def scatter_pixels(ndim, nearest, grad, grad_image, shape, tile, c0, c1, one):
    look, x, y, z, _, height = tile.at
    w, h, d = shape.size
    channels, across = shape.channels, shape.target[0]
    corner = (z * shape.target[1] + y) * across + x
    base = look // shape.looks * w * h * d * channels
    first = look * across * shape.target[1] * shape.target[2] * channels
    for r in range(height):
        a, b = tile.runs[r]
        scatter_row_last(
            ndim, nearest, grad, first + (corner + r * across) * channels, grad_image, base, channels, c0, c1, w, h,
            tile.offset, tile.wx, tile.wy, tile.wz, r, a, b, one,
        )  # fmt: skip
    for c in range(c0, c1):
        scatter_edges(grad, first + c, grad_image, base + c, channels, corner, across, tile)


@loop
def scatter_row_last(ndim, nearest, grad, first, grad_image, base, channels, c0, c1, w, h, offset, wx, wy, wz, r, a, b, one):
    c = np.uint64(channels)
    right, down, deep = c, c * np.uint64(w), c * np.uint64(w * h)
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * COLUMNS) + j
        at, to = np.uint64(base) + np.uint64(offset[i]) * c, np.uint64(first) + j * c
        if nearest:
            add_scaled(grad, to, grad_image, at, c0, c1, one)
            continue
        x, y = wx[i], wy[i]
        for k in range(2 if ndim == 3 else 1):
            z = one if ndim == 2 else (wz[i] if k else one - wz[i])
            add_scaled(grad, to, grad_image, at, c0, c1, z * ((one - y) * (one - x)))
            add_scaled(grad, to, grad_image, at + right, c0, c1, z * ((one - y) * x))
            add_scaled(grad, to, grad_image, at + down, c0, c1, z * (y * (one - x)))
            add_scaled(grad, to, grad_image, at + down + right, c0, c1, z * (y * x))
            at += deep


@loop
def add_scaled(grad, to, grad_image, at, c0, c1, weight):
    for c in range(np.uint64(c0), np.uint64(c1)):
        grad_image[at + c] += weight * grad[to + c]

"""The forward kernel. Coordinates are computed once a pixel for all channels; nothing but the output is stored."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from stn.ops.cpu.rules import SOURCES, inline, loop
from stn.ops.cpu.tile import STRIDE, fill_tile, new_tile, shape_of, tiles_of_a_look, warm
from stn.ops.cpu.vector import LANES, blend, blend_channels, blend_plane, blend_volume

blend = inline(blend)


@cache
def forward_kernel(rule: int, ndim: int, nearest: bool, channels_last: bool, parallel: bool) -> Any:
    """kernel(image, out, coordinates, lengths, fill (C,), one, chunks) image and out flat. Compiled when first called."""

    key = SOURCES, parallel

    def kernel(image, out, coordinates, lengths, fill, one, chunks):
        _ = key  # of the cache on disk
        tiles = lengths.batch * lengths.looks * tiles_of_a_look(lengths)
        high = lengths.height if ndim == 2 else lengths.depth
        for chunk in prange(chunks):
            shape = shape_of(lengths)
            tile = new_tile(rule, ndim, nearest, False, coordinates.knots.shape[0], shape.rows, fill)
            for number in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
                fill_tile(rule, ndim, nearest, False, coordinates, shape, number, 0, high, tile)
                if channels_last:
                    blend_pixels(ndim, nearest, image, out, shape, tile, fill, one)
                else:
                    blend_planes(ndim, nearest, image, out, shape, tile, fill)

    return njit(kernel, nogil=True, parallel=parallel, cache=True, error_model="numpy")


@inline
def blend_planes(ndim, nearest, image, out, shape, tile, fill):
    (w, h, d), (across, down, deep) = shape.size, shape.target
    blend_tile(
        ndim, nearest, image, w, h, d, out, across, down, deep, shape.looks, shape.channels, tile.at, tile.box, tile.runs,
        tile.offset, tile.fraction, tile.listed, tile.where, tile.weight, fill, tile.sink,
    )  # fmt: skip


@loop
def blend_tile(
    ndim, nearest, image, w, h, d, out, across, down, deep, looks, channels, at, box, runs,
    offset, fraction, listed, where, weight, fill, sink,
):  # fmt: skip
    """All channels of a tile, one plane after another: NCHW."""
    look, x, y, z, width, height = at[0], at[1], at[2], at[3], at[4], at[5]
    for c in range(channels):
        plane = np.uint64((look // looks * channels + c) * w * h * d)
        first = (((look * channels + c) * deep + z) * down + y) * across + x
        if ndim == 2:
            sink[0] = warm(image, plane, w, box[0], box[1], box[2], box[3])
        for r in range(height):
            left, a, b, right, to = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], first + r * across
            if nearest:
                copy_row(image, plane, offset, r, a, b, out, to)
            else:
                blend_row(ndim, image, plane, w, w * h, offset, fraction, r, a, b, out, to)
            fill_row(out, to, to + left, fill[c])
            fill_row(out, to + right, to + width, fill[c])
        for s in range(at[7]):
            i = listed[s]
            to = np.uint64(first + i // STRIDE * across + i % STRIDE)
            out[to] = weighted(image, plane, np.uint64(1), where, weight, s, fill[c])


@loop
def copy_row(image, plane, offset, r, a, b, out, first):
    for j in range(np.uint64(a), np.uint64(b)):
        out[np.uint64(first) + j] = image[plane + np.uint64(offset[np.uint64(r * STRIDE) + j])]


@loop
def blend_row(ndim, image, plane, w, area, offset, fraction, r, a, b, out, first):
    """The interior run of one row and channel."""
    down, deep, size = np.uint64(w), np.uint64(area), len(offset)
    for j in range(a, b, LANES):
        i, to, count = r * STRIDE + j, first + j, b - j
        if ndim == 2:
            blend_plane(image, plane, down, deep, offset, fraction, i, size, out, to, count)
        else:
            blend_volume(image, plane, down, deep, offset, fraction, i, size, out, to, count)


@loop
def fill_row(out, start, end, value):
    for i in range(np.uint64(start), np.uint64(end)):
        out[i] = value


@loop
def weighted(image, first, stride, where, weight, s, fill):
    """A listed pixel: the sum of its taps, `stride` numbers apart, and of its share of the fill value."""
    taps = where.shape[0]
    total = weight[taps, s] * fill
    for t in range(taps):
        if weight[t, s] != 0:  # else it may stand for a pixel outside, whatever is stored there
            total += weight[t, s] * image[first + np.uint64(where[t, s]) * stride]
    return total


@inline
def blend_pixels(ndim, nearest, image, out, shape, tile, fill, one):
    (w, h, d), (across, down, deep) = shape.size, shape.target
    blend_tile_last(
        ndim, nearest, image, w, h, d, out, across, down, deep, shape.looks, np.uint64(shape.channels), tile.at, tile.box,
        tile.runs, tile.offset, tile.fraction, tile.listed, tile.where, tile.weight, fill, one, tile.sink,
    )  # fmt: skip


@loop
def blend_tile_last(
    ndim, nearest, image, w, h, d, out, across, down, deep, looks, channels, at, box, runs,
    offset, fraction, listed, where, weight, fill, one, sink,
):  # fmt: skip
    """All pixels of a tile, each with its channels side by side: channels last."""
    look, x, y, z, width, height = at[0], at[1], at[2], at[3], at[4], at[5]
    plane = np.uint64(look // looks * w * h * d)
    first, area = ((look * deep + z) * down + y) * across + x, len(offset)
    if ndim == 2:
        c = np.int64(channels)
        sink[0] = warm(image, plane * channels, w * c, box[0] * c, box[1] * c, box[2], box[3])
    for r in range(height):
        left, a, b, right = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3]
        for j in range(width):
            i, to = np.uint64(r * STRIDE + j), np.uint64(first + r * across + j) * channels
            at_pixel = (plane + np.uint64(offset[i])) * channels
            if j < left or j >= right:
                fill_pixel(out, to, channels, fill)
            elif j < a or j >= b:
                continue
            elif nearest:
                copy_pixel(image, at_pixel, out, to, channels)
            else:
                blend_pixel(ndim, image, at_pixel, np.uint64(w), np.uint64(w * h), fraction, i, area, out, to, channels, one)
    for s in range(at[7]):
        i = listed[s]
        to = np.uint64(first + i // STRIDE * across + i % STRIDE) * channels
        for c in range(channels):
            out[to + c] = weighted(image, plane * channels + c, channels, where, weight, s, fill[c])


@inline
def fill_pixel(out, to, channels, fill):
    for c in range(channels):
        out[to + c] = fill[c]


@inline
def copy_pixel(image, at, out, to, channels):
    for c in range(channels):
        out[to + c] = image[at + c]


@inline
def blend_pixel(ndim, image, at, w, plane, fraction, i, area, out, to, channels, one):
    x, y, down = fraction[i], fraction[i + np.uint64(area)], channels * w
    for c in range(np.int64(0), np.int64(channels), LANES):
        blend_channels(image, at + np.uint64(c), channels, down, x, y, out, to + np.uint64(c), np.int64(channels) - c)
    if ndim == 3:
        z = fraction[i + np.uint64(2 * area)]
        for c in range(channels):
            k = at + channels * plane + c
            far = blend(x, y, one, image[k], image[k + channels], image[k + down], image[k + down + channels])
            out[to + c] = (one - z) * out[to + c] + z * far

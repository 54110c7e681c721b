"""The forward kernel. Coordinates are computed once a pixel for all channels; nothing but the output is stored."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from stn.ops.cpu.rules import SOURCES, inline, loop
from stn.ops.cpu.tile import COLUMNS, fill_tile, new_tile, shape_of, tiles_of_a_look, warm


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
            tile = new_tile(ndim, nearest, fill)
            for number in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
                fill_tile(rule, ndim, nearest, True, coordinates, shape, number, 0, high, tile)
                if channels_last:
                    blend_pixels(ndim, nearest, image, out, shape, tile, fill, one)
                else:
                    blend_planes(ndim, nearest, image, out, shape, tile, fill, one)

    return njit(kernel, nogil=True, parallel=parallel, cache=True, error_model="numpy")


@inline
def blend_planes(ndim, nearest, image, out, shape, tile, fill, one):
    """All channels of a tile, one plane after another: NCHW."""
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
            blend_row(
                ndim,
                nearest,
                image,
                plane,
                w,
                h,
                tile.offset,
                tile.wx,
                tile.wy,
                tile.wz,
                r,
                a,
                b,
                out,
                first + r * across,
                one,
            )
        blend_edges(image, plane, tile, out, first, across, fill[c])


@loop
def blend_row(ndim, nearest, image, plane, w, h, offset, wx, wy, wz, r, a, b, out, first, one):
    """The interior run of one row and channel. Written (1 - x) a + x b, which is exact at x = 0 and x = 1."""
    right, down, deep = np.uint64(1), np.uint64(w), np.uint64(w * h)
    to = np.uint64(first)
    start = np.uint64(r * COLUMNS)
    for j in range(np.uint64(a), np.uint64(b)):
        i = start + j
        at = plane + np.uint64(offset[i])
        if nearest:
            out[to + j] = image[at]
            continue
        x, y = wx[i], wy[i]
        top = (one - x) * image[at] + x * image[at + right]
        bottom = (one - x) * image[at + down] + x * image[at + down + right]
        value = (one - y) * top + y * bottom
        if ndim == 3:
            z = wz[i]
            at += deep
            top = (one - x) * image[at] + x * image[at + right]
            bottom = (one - x) * image[at + down] + x * image[at + down + right]
            value = (one - z) * value + z * ((one - y) * top + y * bottom)
        out[to + j] = value


@inline
def blend_edges(image, plane, tile, out, first, across, fill):
    """The listed pixels of one channel."""
    listed, where, value, rest = tile.listed, tile.where, tile.value, tile.rest
    for s in range(tile.edges[0]):
        total = rest[s] * fill
        for t in range(where.shape[0]):
            total += value[t, s] * image[plane + np.uint64(where[t, s])]
        i = listed[s]
        out[np.uint64(first + i // COLUMNS * across + i % COLUMNS)] = total


@inline
def blend_pixels(ndim, nearest, image, out, shape, tile, fill, one):
    """All pixels of a tile, each with its channels side by side: channels last."""
    look, x, y, z, width, height = tile.at
    w, h, d = shape.size
    channels = np.uint64(shape.channels)
    plane = np.uint64(look // shape.looks * w * h * d)
    across = shape.target[0]
    first = ((look * shape.target[2] + z) * shape.target[1] + y) * across + x
    offset, wx, wy, wz = tile.offset, tile.wx, tile.wy, tile.wz
    right, down, deep = channels, channels * np.uint64(w), channels * np.uint64(w * h)
    for r in range(height):
        for j in range(tile.runs[r, 0], tile.runs[r, 1]):
            i = np.uint64(r * COLUMNS + j)
            at, to = (plane + np.uint64(offset[i])) * channels, np.uint64(first + r * across + j) * channels
            x, y, z = wx[i], wy[i], wz[i]
            v00, v01, v10, v11 = (one - x) * (one - y), x * (one - y), (one - x) * y, x * y
            for c in range(channels):
                k = at + c
                if nearest:
                    out[to + c] = image[k]
                elif ndim == 2:
                    out[to + c] = (
                        v00 * image[k] + v01 * image[k + right] + v10 * image[k + down] + v11 * image[k + down + right]
                    )
                else:
                    near = v00 * image[k] + v01 * image[k + right] + v10 * image[k + down] + v11 * image[k + down + right]
                    k += deep
                    far = v00 * image[k] + v01 * image[k + right] + v10 * image[k + down] + v11 * image[k + down + right]
                    out[to + c] = (one - z) * near + z * far
    listed, where, value, rest = tile.listed, tile.where, tile.value, tile.rest
    for s in range(tile.edges[0]):
        i = listed[s]
        to = np.uint64(first + i // COLUMNS * across + i % COLUMNS) * channels
        for c in range(channels):
            total = rest[s] * fill[c]
            for t in range(where.shape[0]):
                total += value[t, s] * image[(plane + np.uint64(where[t, s])) * channels + c]
            out[to + c] = total

"""The forward kernel. Coordinates are computed once a pixel for all channels; nothing but the output is stored."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, merged
from stn.ops.cpu.lanes import LANES, blend_channels_plane, blend_channels_volume, blend_plane, blend_volume
from stn.ops.cpu.taps import STRIDE
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_LISTED,
    AT_WIDTH,
    channel_starts,
    fill_tile,
    in_output,
    look_and_tile,
    part_of,
    pixel_starts,
    place_tile,
    prefetch,
    tiles_of_a_look,
)

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def forward_planes(call, memory, chunk):
    forward_chunk(blend_planes, call, memory, chunk)


@merged
def forward_pixels(call, memory, chunk):
    forward_chunk(blend_pixels, call, memory, chunk)


@merged
def forward_chunk(blend_tile, call, memory, chunk):
    tile, ndim, grid, sizes = memory.tile, call.ndim, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        look, within = look_and_tile(grid, sizes, number)
        place_tile(sizes, look, within, tile.at)
        fill_tile(ndim, call.nearest, False, grid, sizes, 0, sizes.height if ndim == 2 else sizes.depth, tile)
        blend_tile(ndim, call.nearest, call.image, call.out, sizes, tile, call.fill)


@inline
def blend_planes(ndim, nearest, image, out, sizes, tile, fill):
    blend_tile_planes(
        ndim, nearest, image, out, sizes, tile.at, tile.box, tile.runs, tile.offset, tile.fraction, tile.listed, tile.tap,
        tile.weight, fill, tile.prefetched,
    )  # fmt: skip


@loop
def blend_tile_planes(
    ndim, nearest, image, out, sizes, at, box, runs, offset, fraction, listed, tap, weight, fill, prefetched
):
    """All channels of a tile, one plane after another: NCHW."""
    w, area, across, width = sizes.width, sizes.width * sizes.height, sizes.across, at[AT_WIDTH]
    for c in range(sizes.channels):
        plane, first = channel_starts(sizes, at, c)
        if ndim == 2:
            prefetched[0] = prefetch(image, plane, w, box[0], box[1], box[2], box[3])
        for r in range(at[AT_HEIGHT]):
            left, a, b, right, to = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], first + r * across
            if nearest:
                copy_row(image, plane, offset, r, a, b, out, to)
            else:
                blend_row(ndim, image, plane, w, area, offset, fraction, r, a, b, out, to)
            fill_row(out, to, to + left, fill[c])
            fill_row(out, to + right, to + width, fill[c])
        for s in range(at[AT_LISTED]):
            to = np.uint64(first + in_output(listed[s], across))
            out[to] = weighted(image, plane, np.uint64(1), tap, weight, s, fill[c])


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
def weighted(image, first, stride, tap, weight, s, fill):
    """Return a listed pixel: the weighted sum of its taps, which are `stride` numbers apart, and of the fill value."""
    taps = tap.shape[0]
    total = weight[taps, s] * fill
    for t in range(taps):
        if weight[t, s] != 0:  # else it may stand for a pixel outside, whatever is stored there
            total += weight[t, s] * image[first + np.uint64(tap[t, s]) * stride]
    return total


@inline
def blend_pixels(ndim, nearest, image, out, sizes, tile, fill):
    blend_tile_pixels(
        ndim, nearest, image, out, sizes, tile.at, tile.box, tile.runs, tile.offset, tile.fraction, tile.listed, tile.tap,
        tile.weight, fill, tile.prefetched,
    )  # fmt: skip


@loop
def blend_tile_pixels(
    ndim, nearest, image, out, sizes, at, box, runs, offset, fraction, listed, tap, weight, fill, prefetched
):
    """All pixels of a tile, each with its channels side by side: channels last."""
    w, plane_in, across, n = sizes.width, sizes.width * sizes.height, sizes.across, sizes.channels
    (plane, first), channels = pixel_starts(sizes, at), np.uint64(n)
    if ndim == 2:
        prefetched[0] = prefetch(image, plane * channels, w * n, box[0] * n, box[1] * n, box[2], box[3])
    for r in range(at[AT_HEIGHT]):
        left, a, b, right, to = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], first + r * across
        fill_pixels(out, to * n, (to + left) * n, n, fill)
        fill_pixels(out, (to + right) * n, (to + at[AT_WIDTH]) * n, n, fill)
        if nearest:
            copy_pixels(image, plane, offset, r, a, b, out, to, n)
        else:
            blend_run(ndim, image, plane, w, plane_in, offset, fraction, r, a, b, out, to, n)
    for s in range(at[AT_LISTED]):
        to = np.uint64(first + in_output(listed[s], across)) * channels
        for c in range(channels):
            out[to + c] = weighted(image, plane * channels + c, channels, tap, weight, s, fill[c])


@loop
def fill_pixels(out, start, end, channels, fill):
    for i in range(np.uint64(start), np.uint64(end), np.uint64(channels)):
        for c in range(np.uint64(channels)):
            out[i + c] = fill[c]


@loop
def copy_pixels(image, plane, offset, r, a, b, out, first, channels):
    n = np.uint64(channels)
    for j in range(np.uint64(a), np.uint64(b)):
        at, to = (plane + np.uint64(offset[np.uint64(r * STRIDE) + j])) * n, (np.uint64(first) + j) * n
        for c in range(n):
            out[to + c] = image[at + c]


@loop
def blend_run(ndim, image, plane, w, area, offset, fraction, r, a, b, out, first, channels):
    """The interior run of one row, all channels."""
    n, size = np.uint64(channels), np.uint64(len(offset))
    down, deep = np.uint64(w) * n, np.uint64(area) * n
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * STRIDE) + j
        at, to = (plane + np.uint64(offset[i])) * n, (np.uint64(first) + j) * n
        x, y, z = fraction[i], fraction[i + size], fraction[i + size * np.uint64(ndim - 1)]
        for c in range(0, channels, LANES):
            k, m = at + np.uint64(c), to + np.uint64(c)
            if ndim == 2:
                blend_channels_plane(image, k, n, down, deep, x, y, z, out, m, channels - c)
            else:
                blend_channels_volume(image, k, n, down, deep, x, y, z, out, m, channels - c)

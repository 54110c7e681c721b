"""The forward kernel. Coordinates are computed once a pixel for all channels; nothing but the output is stored."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.channels import FEW, blend_channels_plane, blend_channels_volume, blend_few_plane, blend_few_volume
from stn.ops.cpu.compiling import NDIM, NEAREST, loop, merged
from stn.ops.cpu.inside import blend_plane, blend_volume
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.mixed import mix_channels_plane, mix_channels_volume, mix_plane, mix_volume
from stn.ops.cpu.picked import copy_block
from stn.ops.cpu.storing import stored
from stn.ops.cpu.taps import BLOCKS, INSIDE, MIXED, STRIDE, in_pairs
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_WIDTH,
    channel_starts,
    fill_tile,
    look_and_tile,
    part_of,
    pixel_starts,
    place_tile,
    planes_at_once,
    prefetch,
    run_from,
    tiles_of_a_look,
)

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def forward_planes(call, memory, chunk):
    forward_chunk(blend_tile_planes, call, memory, chunk)


@merged
def forward_pixels(call, memory, chunk):
    forward_chunk(blend_tile_pixels, call, memory, chunk)


@merged
def forward_chunk(blend_tile, call, memory, chunk):
    tile, sizes, at = memory.tile, call.sizes, memory.tile.at
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        look, within = look_and_tile(call.shared, sizes, number)
        place_tile(sizes, look, within, at)
        fill_tile(False, 0, sizes.height if NDIM == 2 else sizes.depth, at)
        blend_tile(
            call.image, call.out, sizes, at, tile.box, tile.runs, tile.offset, tile.fraction, tile.near, tile.far,
            tile.weight, call.fill, tile.prefetched,
        )  # fmt: skip


@loop
def blend_tile_planes(image, out, sizes, at, box, runs, offset, fraction, near, far, weight, fill, prefetched):
    """Sample all channels of a tile, some planes at a time (NCHW)."""
    w, area, across, width = sizes.width, sizes.width * sizes.height, sizes.across, at[AT_WIDTH]
    pairs, apart, spread = in_pairs(sizes.padding, w), area * sizes.depth, across * sizes.down * sizes.deep
    step = planes_at_once(sizes)
    for c in range(0, sizes.channels, step):
        (plane, first), n = channel_starts(sizes, at, c), min(step, sizes.channels - c)
        if NDIM == 2:
            prefetched[0] = prefetch(image, plane, w, box[0], box[1], box[2], box[3], n, apart)
        for r in range(at[AT_HEIGHT]):
            to, start = first + r * across, 0
            while start < width:
                what, end = run_from(runs, r * BLOCKS, start, width)
                if what == INSIDE and NEAREST:
                    copy_row(image, plane, offset, r, start, end, out, to, n, apart, spread)
                elif what == INSIDE:
                    blend_row(image, plane, w, area, offset, fraction, r, start, end, out, to, n, apart, spread)
                elif what == MIXED and NEAREST:
                    pick_row(image, plane, near, weight, r, start, end, out, to, fill, c, n, apart, spread)
                elif what == MIXED:
                    mix_row(
                        image, plane, pairs, near, far, weight, r, start, end, out, to, fill, c, n, apart, spread
                    )  # fmt: skip
                else:
                    fill_row(out, to + start, to + end, fill, c, n, spread)
                start = end


@loop
def copy_row(image, plane, offset, r, a, b, out, first, planes, apart, spread):
    end = a + (b - a) // LANES * LANES
    for j in range(a, end, LANES):
        copy_block(image, plane, offset, r * STRIDE + j, out, first + j, planes, apart, spread)
    for c in range(planes):
        at, to = plane + np.uint64(c * apart), np.uint64(first + c * spread)
        for j in range(np.uint64(end), np.uint64(b)):
            out[to + j] = image[at + np.uint64(offset[np.uint64(r * STRIDE) + j])]


@loop
def blend_row(image, plane, w, area, offset, fraction, r, a, b, out, first, planes, apart, spread):
    """The interior run of one row."""
    down, deep, size = np.uint64(w), np.uint64(area), len(offset)
    for j in range(a, b, LANES):
        i, to, count = r * STRIDE + j, first + j, b - j
        if NDIM == 2:
            blend_plane(image, plane, down, deep, offset, fraction, i, size, out, to, count, planes, apart, spread)
        else:
            blend_volume(image, plane, down, deep, offset, fraction, i, size, out, to, count, planes, apart, spread)


@loop
def fill_row(out, start, end, fill, first, planes, spread):
    for c in range(planes):
        value = stored(fill[first + c], fill[first + c], out)
        for i in range(np.uint64(start + c * spread), np.uint64(end + c * spread)):
            out[i] = value


@loop
def mix_row(image, plane, pairs, near, far, weight, r, a, b, out, first, fill, c, planes, apart, spread):
    """The mixed blocks a .. b of one row."""
    size = len(near) // 3
    for j in range(a, b, LANES):
        i, to, count = r * STRIDE + j, first + j, b - j
        if NDIM == 2:
            mix_plane(image, plane, pairs, near, far, weight, i, size, out, to, count, fill, c, planes, apart, spread)
        else:
            mix_volume(image, plane, pairs, near, far, weight, i, size, out, to, count, fill, c, planes, apart, spread)


@loop
def pick_row(image, plane, near, weight, r, a, b, out, first, fill, c, planes, apart, spread):
    """Do the same with one tap per pixel, whose weight is 1, 0 or NaN."""
    for k in range(planes):
        at, to, nothing = plane + np.uint64(k * apart), np.uint64(first + k * spread), fill[c + k]
        for j in range(np.uint64(a), np.uint64(b)):
            i = np.uint64(r * STRIDE) + j
            value, w = image[at + np.uint64(near[i])], weight[i]
            out[to + j] = stored(value if w == 1 else (nothing if w == 0 else w), nothing, out)


@loop
def blend_tile_pixels(image, out, sizes, at, box, runs, offset, fraction, near, far, weight, fill, prefetched):
    """Sample all pixels of a tile, whose channels lie side by side (channels last)."""
    w, plane_in, across, n = sizes.width, sizes.width * sizes.height, sizes.across, sizes.channels
    (plane, first), channels = pixel_starts(sizes, at), np.uint64(n)
    if NDIM == 2:
        prefetched[0] = prefetch(image, plane * channels, w * n, box[0] * n, box[1] * n, box[2], box[3], 1, 0)
    for r in range(at[AT_HEIGHT]):
        to, start = first + r * across, 0
        while start < at[AT_WIDTH]:
            what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
            if what == INSIDE and NEAREST:
                copy_pixels(image, plane, offset, r, start, end, out, to, n)
            elif what == INSIDE:
                blend_run(image, plane, w, plane_in, offset, fraction, r, start, end, out, to, n)
            elif what == MIXED and NEAREST:
                pick_pixels(image, plane, near, weight, r, start, end, out, to, n, fill)
            elif what == MIXED:
                mix_pixels(image, plane * channels, n, near, far, weight, r, start, end, out, to, fill)
            else:
                fill_pixels(out, (to + start) * n, (to + end) * n, n, fill)
            start = end


@loop
def mix_pixels(image, base, n, near, far, weight, r, a, b, out, first, fill):
    """The mixed blocks a .. b of one row, all channels."""
    size = len(near) // 3
    for j in range(a, b):
        i, to = r * STRIDE + j, (first + j) * n
        if NDIM == 2:
            mix_channels_plane(image, base, n, near, far, weight, i, size, out, to, fill)
        else:
            mix_channels_volume(image, base, n, near, far, weight, i, size, out, to, fill)


@loop
def pick_pixels(image, plane, near, weight, r, a, b, out, first, channels, fill):
    n = np.uint64(channels)
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * STRIDE) + j
        w = weight[i]
        at, to = (plane + np.uint64(near[i])) * n, (np.uint64(first) + j) * n
        for c in range(n):
            out[to + c] = stored(image[at + c] if w == 1 else (fill[c] if w == 0 else w), fill[c], out)


@loop
def fill_pixels(out, start, end, channels, fill):
    for i in range(np.uint64(start), np.uint64(end), np.uint64(channels)):
        for c in range(np.uint64(channels)):
            out[i + c] = stored(fill[c], fill[c], out)


@loop
def copy_pixels(image, plane, offset, r, a, b, out, first, channels):
    n = np.uint64(channels)
    for j in range(np.uint64(a), np.uint64(b)):
        at, to = (plane + np.uint64(offset[np.uint64(r * STRIDE) + j])) * n, (np.uint64(first) + j) * n
        for c in range(n):
            out[to + c] = image[at + c]


@loop
def blend_run(image, plane, w, area, offset, fraction, r, a, b, out, first, channels):
    """The interior run of one row, all channels."""
    n, size = np.uint64(channels), np.uint64(len(offset))
    down, deep = np.uint64(w) * n, np.uint64(area) * n
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * STRIDE) + j
        at, to = (plane + np.uint64(offset[i])) * n, (np.uint64(first) + j) * n
        x, y, z = fraction[i], fraction[i + size], fraction[i + size * np.uint64(NDIM - 1)]
        if channels <= FEW:
            is_last = j + np.uint64(1) == np.uint64(b)
            if NDIM == 2:
                blend_few_plane(image, at, n, down, deep, x, y, z, out, to, n, is_last)
            else:
                blend_few_volume(image, at, n, down, deep, x, y, z, out, to, n, is_last)
            continue
        for c in range(0, channels, LANES):
            k, m = at + np.uint64(c), to + np.uint64(c)
            if NDIM == 2:
                blend_channels_plane(image, k, n, down, deep, x, y, z, out, m, channels - c)
            else:
                blend_channels_volume(image, k, n, down, deep, x, y, z, out, m, channels - c)

"""The gradient in the coordinates: to the coefficients of a matrix or a basis, or to a stored field.

With V = sum_t w_t U_t over the taps t of a pixel, dL/dp = sum_c G_c sum_t (dw_t/dp) (U_t - fill). A matrix moves all points,
p_i = coef_i . (u, 1) + c_i, so dL/dcoef_i = sum over pixels of dL/dp_i (u, 1); with a divisor w = coef_3 . (u, 1),
dL/dp_i is divided by w, and dL/dcoef_3 = - sum dL/dp_i (p_i - c_i) / w (u, 1). A radial function U_t adds bend_it U_t to
p_i, so dL/dbend_it = sum dL/dp_i U_t.

Sums are in float64, one a tile, added up in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.channels import slope_channels_plane, slope_channels_volume
from stn.ops.cpu.compiling import NDIM, inline, loop, merged
from stn.ops.cpu.inside import slope_plane, slope_volume
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.mixed import mix_slopes_plane, mix_slopes_volume, mixed_channel_slopes_plane, mixed_channel_slopes_volume
from stn.ops.cpu.taps import BLOCKS, INSIDE, MIXED, STRIDE, clear, in_pairs
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
    reduce_tile,
    run_from,
    tiles_of_a_look,
)

# ---- the bodies of kernels, see `kernels.py`: they write sums (N * K, tiles, 4, 4), or of fields (N * K, Q, ndim), and
# bends (N * K, tiles, ndim, T) ----


@merged
def coordinates_planes(call, memory, chunk):
    coordinates_chunk(slope_tile_planes, call, memory, chunk)


@merged
def coordinates_pixels(call, memory, chunk):
    coordinates_chunk(slope_tile_pixels, call, memory, chunk)


@merged
def coordinates_chunk(slope_tile, call, memory, chunk):
    tile, sizes, at = memory.tile, call.sizes, memory.tile.at
    start, end = tiles_of_chunk(sizes, call.pieces, chunk, call.chunks)
    for number in range(start, end):
        look, within = look_and_tile(call.shared, sizes, number)
        place_tile(sizes, look, within, at)
        fill_tile(True, 0, sizes.height if NDIM == 2 else sizes.depth, at)
        clear_gradient(at[AT_HEIGHT], tile.gradient)
        slope_tile(
            call.out, call.image, sizes, at, tile.box, tile.runs, tile.offset, tile.fraction, tile.near, tile.far,
            tile.weight, tile.slope, call.fill, tile.gradient, tile.prefetched,
        )  # fmt: skip
        reduce_tile(call.reduction, at)


@inline
def tiles_of_chunk(sizes, pieces, chunk, chunks):
    """Return the first tile and the last + 1 of a chunk. A piece, which has sums of its own, belongs to one chunk."""
    tiles = tiles_of_a_look(sizes)
    start, end = part_of(chunk, chunks, sizes.batch * sizes.looks * pieces)
    first, last = tiles * (start % pieces) // pieces, tiles * (end % pieces) // pieces
    return start // pieces * tiles + first, end // pieces * tiles + last


@loop
def clear_gradient(height, gradient):
    for i in range(NDIM):
        clear(gradient, i * (len(gradient) // 3), i * (len(gradient) // 3) + height * STRIDE)


@loop
def slope_tile_planes(
    grad, image, sizes, at, box, runs, offset, fraction, near, far, weight, slope, fill, gradient, prefetched
):
    w, area, across, pairs = sizes.width, sizes.width * sizes.height, sizes.across, in_pairs(sizes.padding, sizes.width)
    apart, spread = area * sizes.depth, across * sizes.down * sizes.deep
    step = planes_at_once(sizes)
    for c in range(0, sizes.channels, step):
        (plane, first), n = channel_starts(sizes, at, c), min(step, sizes.channels - c)
        if NDIM == 2:
            prefetched[0] = prefetch(image, plane, w, box[0], box[1], box[2], box[3], n, apart)
        for r in range(at[AT_HEIGHT]):
            to, start = first + r * across, 0
            while start < at[AT_WIDTH]:
                what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
                if what == INSIDE:
                    slope_row(
                        image, plane, w, area, offset, fraction, r, start, end, grad, to, gradient, n, apart, spread
                    )  # fmt: skip
                elif what == MIXED:
                    mix_row(
                        image, plane, pairs, near, far, weight, slope, r, start, end, grad, to, gradient, fill, c, n,
                        apart, spread,
                    )  # fmt: skip
                start = end


@loop
def slope_row(image, plane, w, area, offset, fraction, r, a, b, grad, first, gradient, planes, apart, spread):
    """Add some channels of an interior run."""
    down, deep, size = np.uint64(w), np.uint64(area), len(offset)
    for j in range(a, b, LANES):
        i, at, count = r * STRIDE + j, first + j, b - j
        if NDIM == 2:
            slope_plane(
                image, plane, down, deep, offset, fraction, i, size, grad, at, count, gradient, planes, apart, spread
            )  # fmt: skip
        else:
            slope_volume(
                image, plane, down, deep, offset, fraction, i, size, grad, at, count, gradient, planes, apart, spread
            )  # fmt: skip


@loop
def mix_row(image, plane, pairs, near, far, weight, slope, r, a, b, grad, first, gradient, fill, c, planes, apart, spread):
    """Add some channels of the mixed blocks a .. b."""
    size = len(near) // 3
    for j in range(a, b, LANES):
        i, at, count = r * STRIDE + j, first + j, b - j
        if NDIM == 2:
            mix_slopes_plane(
                image, plane, pairs, near, far, weight, slope, i, size, grad, at, count, gradient, fill, c, planes, apart,
                spread,
            )  # fmt: skip
        else:
            mix_slopes_volume(
                image, plane, pairs, near, far, weight, slope, i, size, grad, at, count, gradient, fill, c, planes, apart,
                spread,
            )  # fmt: skip


@loop
def slope_tile_pixels(
    grad, image, sizes, at, box, runs, offset, fraction, near, far, weight, slope, fill, gradient, prefetched
):
    """Do the same for channels last: dot products of the gradient with each tap, then differences of these."""
    w, plane, across, channels = sizes.width, sizes.width * sizes.height, sizes.across, np.uint64(sizes.channels)
    base, first = pixel_starts(sizes, at)
    for r in range(at[AT_HEIGHT]):
        to, start = first + r * across, 0
        while start < at[AT_WIDTH]:
            what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
            if what == INSIDE:
                slope_run(grad, to, image, base, channels, w, plane, offset, fraction, r, start, end, gradient)
            elif what == MIXED:
                mix_run(
                    grad, to, image, base * channels, sizes.channels, near, far, weight, slope, r, start, end,
                    gradient, fill,
                )  # fmt: skip
            start = end


@loop
def mix_run(grad, first, image, base, n, near, far, weight, slope, r, a, b, gradient, fill):
    """The mixed blocks a .. b of one row, all channels."""
    size = len(near) // 3
    for j in range(a, b):
        i, to = r * STRIDE + j, (first + j) * n
        if NDIM == 2:
            gx, gy, _ = mixed_channel_slopes_plane(image, base, n, near, far, weight, slope, i, size, grad, to, fill)
        else:
            gx, gy, gz = mixed_channel_slopes_volume(image, base, n, near, far, weight, slope, i, size, grad, to, fill)
            gradient[i + size + size] = gz
        gradient[i], gradient[i + size] = gx, gy


@loop
def slope_run(grad, first, image, base, channels, w, plane, offset, fraction, r, a, b, gradient):
    """The interior run of one row, all channels."""
    n, size = np.uint64(channels), np.uint64(len(offset))
    down, deep = np.uint64(w) * n, np.uint64(plane) * n
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * STRIDE) + j
        at, to = (base + np.uint64(offset[i])) * n, (np.uint64(first) + j) * n
        x, y, z = fraction[i], fraction[i + size], fraction[i + size * np.uint64(NDIM - 1)]
        if NDIM == 2:
            gx, gy, _ = slope_channels_plane(image, at, n, down, deep, x, y, z, grad, to, channels)
        else:
            gx, gy, gz = slope_channels_volume(image, at, n, down, deep, x, y, z, grad, to, channels)
            gradient[i + size + size] = gz
        gradient[i], gradient[i + size] = gx, gy

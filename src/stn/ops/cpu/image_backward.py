"""The gradient in the image: each output pixel adds its gradient to the pixels that it read, by their weights.

Work is divided by the pixels that are written, (image, channels, band of rows), so no two threads add to the same pixel.
Each pixel gathers its terms in the order of the output, and a term has the same bits in any division: the result does not
depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stn.ops.cpu.channels import add_channels
from stn.ops.cpu.compiling import NDIM, NEAREST, inline, loop, merged
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.taps import BLOCKS, INSIDE, MIXED, STRIDE
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_WIDTH,
    channel_starts,
    fill_tile,
    misses_band,
    part_of,
    pixel_starts,
    place_tile,
    prefetch,
    run_from,
    tiles_of_a_look,
)

# Channels of a pixel that are scattered together. A pixel adds to what its neighbor has just stored, and waits for it;
# other channels fill the time. 64 channels of 56x56: 2.3 ns a pixel and channel one by one, 1.25 by fours.
GROUP = 4


# ---- the bodies of kernels, see `kernels.py`: of the image there is the gradient, zeros at first; groups and bands divide
# the channels and the slowest axis of the image ----


@merged
def image_planes(call, memory, chunk):
    image_chunk(scatter_tile_planes, call, memory, chunk)


@merged
def image_pixels(call, memory, chunk):
    image_chunk(scatter_tile_pixels, call, memory, chunk)


@merged
def image_chunk(scatter_tile, call, memory, chunk):
    tile, sizes, at, groups, bands = memory.tile, call.sizes, memory.tile.at, call.groups, call.bands
    slowest, looks, count = sizes.height if NDIM == 2 else sizes.depth, sizes.looks, tiles_of_a_look(sizes)
    start, end = part_of(chunk, call.chunks, sizes.batch * groups * bands)
    for step in range((end - start) * looks * count):
        task, look, within = order(call.shared, step, end - start, looks, count)
        task += start
        band, group, n = task % bands, task // bands % groups, task // (bands * groups)
        low, high = slowest * band // bands, slowest * (band + 1) // bands
        c0, c1 = sizes.channels * group // groups, sizes.channels * (group + 1) // groups
        place_tile(sizes, n * looks + look, within, at)
        if call.straight and misses_band(at, tile.points, NDIM - 1, slowest, low, high):
            continue
        fill_tile(False, low, high, at)
        scatter_tile(
            call.out, call.image, sizes, c0, c1, at, tile.box, tile.runs, tile.offset, tile.fraction, tile.near, tile.far,
            tile.weight, call.one, tile.prefetched,
        )  # fmt: skip


@inline
def order(shared, step, tasks, looks, tiles):
    """Return the next task, look and tile: all tiles of one task after each other, or (`shared`) all tasks at one tile."""
    if shared:
        return step // looks % tasks, step % looks, step // (tasks * looks)
    return step // (looks * tiles), step // tiles % looks, step % tiles


@loop
def scatter_tile_planes(
    grad, grad_image, sizes, c0, c1, at, box, runs, offset, fraction, near, far, weight, one, prefetched
):
    w, area, across = sizes.width, sizes.width * sizes.height, sizes.across
    plane_in, plane_out = np.uint64(area * sizes.depth), np.uint64(across * sizes.down * sizes.deep)
    start = c0
    while start < c1:
        left = c1 - start
        count = GROUP if left >= GROUP else (3 if left == 3 and NDIM == 2 else 1)
        plane, first = channel_starts(sizes, at, start)
        for c in range(np.uint64(count if NDIM == 2 else 0)):
            prefetched[0] = prefetch(grad_image, plane + c * plane_in, w, box[0], box[1], box[2], box[3], 1, 0)
        for r in range(at[AT_HEIGHT]):
            to, a = np.uint64(first + r * across), 0
            while a < at[AT_WIDTH]:
                what, b = run_from(runs, r * BLOCKS, a, at[AT_WIDTH])
                if what == INSIDE:
                    scatter_row(
                        count, grad, to, plane_out, grad_image, plane, plane_in, np.uint64(1), w, area,
                        offset, fraction, r * STRIDE, a, b, one,
                    )  # fmt: skip
                elif what == MIXED:
                    scatter_mixed(
                        count, grad, to, plane_out, grad_image, plane, plane_in, np.uint64(1), near, far,
                        weight, r * STRIDE, a, b,
                    )  # fmt: skip
                a = b
        start += count


@loop
def scatter_row(count, grad, to, step, grad_image, plane, stride, pitch, w, area, offset, fraction, first, a, b, one):
    """The run of a row for `count` channels, which are `step` apart in the gradient and `stride` in the image.

    Pixels are `pitch` numbers apart.
    """
    if NEAREST:
        scatter_nearest(grad, to, step, grad_image, plane, stride, pitch, count, offset, first, a, b)
    elif count == 1:
        scatter_1(grad, to, step, grad_image, plane, stride, pitch, w, area, offset, fraction, first, a, b, one)
    elif NDIM == 2 and count == 3:
        scatter_3(grad, to, step, grad_image, plane, stride, pitch, w, area, offset, fraction, first, a, b, one)
    else:
        scatter_4(grad, to, step, grad_image, plane, stride, pitch, w, area, offset, fraction, first, a, b, one)


@loop
def scatter_nearest(grad, to, step, grad_image, plane, stride, pitch, count, offset, first, a, b):
    for j in range(np.uint64(a), np.uint64(b)):
        k = plane + np.uint64(offset[np.uint64(first) + j]) * pitch
        for c in range(np.uint64(count)):
            grad_image[k + c * stride] += grad[to + j * pitch + c * step]


def scatter_channels(count: int) -> Any:
    """LLVM unrolls a loop over a constant number of channels."""

    @loop
    def scatter_group(grad, to, step, grad_image, plane, stride, pitch, w, area, offset, fraction, first, a, b, one):
        for j in range(np.uint64(a), np.uint64(b)):
            i, n = np.uint64(first) + j, np.uint64(count)
            k, m = plane + np.uint64(offset[i]) * pitch, to + j * pitch
            scatter_pixel(grad, m, step, grad_image, k, stride, n, pitch, w, area, fraction, i, len(offset), one)

    return scatter_group


scatter_1, scatter_3, scatter_4 = scatter_channels(1), scatter_channels(3), scatter_channels(GROUP)


@inline
def scatter_pixel(grad, to, step, grad_image, k, stride, count, pitch, w, plane, fraction, i, area, one):
    """Add `count` channels of a pixel, `step` apart in the gradient and `stride` in the image."""
    x, y = fraction[i], fraction[i + np.uint64(area)]
    right, down = pitch, np.uint64(w) * pitch
    v00, v01, v10, v11 = (one - y) * (one - x), (one - y) * x, y * (one - x), y * x
    if NDIM == 3:
        z = fraction[i + np.uint64(2 * area)]
        far = k + np.uint64(plane) * pitch
        scatter_taps(grad, to, step, grad_image, far, stride, count, right, down, z * v00, z * v01, z * v10, z * v11)
        z = one - z
        v00, v01, v10, v11 = z * v00, z * v01, z * v10, z * v11
    scatter_taps(grad, to, step, grad_image, k, stride, count, right, down, v00, v01, v10, v11)


@inline
def scatter_taps(grad, to, step, grad_image, tap, stride, count, right, down, v00, v01, v10, v11):
    for c in range(count):
        g, k = grad[to + c * step], tap + c * stride
        grad_image[k] += v00 * g
        grad_image[k + right] += v01 * g
        grad_image[k + down] += v10 * g
        grad_image[k + down + right] += v11 * g


@loop
def scatter_mixed(count, grad, to, step, grad_image, plane, stride, pitch, near, far, weight, first, a, b):
    """The mixed pixels a .. b of a row, as `scatter_row`. A tap without weight may stand for a pixel outside."""
    size = np.uint64(len(near) // 3)
    two, four = np.uint64(2), np.uint64(4)
    for j in range(np.uint64(a), np.uint64(b)):
        i, m = np.uint64(first) + j, to + j * pitch
        for t in range(1 if NEAREST else 1 << NDIM):
            x, y, z = np.uint64(t & 1), np.uint64((t >> 1) & 1), np.uint64((t >> 2) & 1)
            k, w = np.uint64(near[i]), weight[i]
            if not NEAREST:
                k = np.uint64((far if x else near)[i]) + np.uint64((far if y else near)[i + size])
                w = weight[i + x * size] * weight[i + (two + y) * size]
            if NDIM == 3 and not NEAREST:
                k, w = k + np.uint64((far if z else near)[i + two * size]), w * weight[i + (four + z) * size]
            if w != 0 and count == GROUP:  # a number of channels that is known: LLVM unrolls the loop
                add_tap(GROUP, w, grad, m, step, grad_image, plane + k * pitch, stride)
            elif w != 0:
                add_tap(count, w, grad, m, step, grad_image, plane + k * pitch, stride)


@inline
def add_tap(count, w, grad, to, step, grad_image, k, stride):
    for c in range(np.uint64(count)):
        grad_image[k + c * stride] += w * grad[to + c * step]


@loop
def scatter_tile_pixels(
    grad, grad_image, sizes, c0, c1, at, box, runs, offset, fraction, near, far, weight, one, prefetched
):
    """Channels by vectors as long as whole ones are left, then as planes do."""
    w, area, across, n = sizes.width, sizes.width * sizes.height, sizes.across, np.uint64(sizes.channels)
    (base, first), near_by = pixel_starts(sizes, at), np.uint64(1)
    for r in range(at[AT_HEIGHT]):
        plane, to, a = base * n + np.uint64(c0), np.uint64(first + r * across) * n + np.uint64(c0), 0
        while a < at[AT_WIDTH]:
            what, b = run_from(runs, r * BLOCKS, a, at[AT_WIDTH])
            if what == INSIDE:
                scatter_run(
                    c1 - c0, grad, to, grad_image, plane, n, w, area, offset, fraction, r * STRIDE, a, b, one
                )  # fmt: skip
            elif what == MIXED:
                scatter_mixed(
                    c1 - c0, grad, to, near_by, grad_image, plane, near_by, n, near, far, weight, r * STRIDE,
                    a, b,
                )  # fmt: skip
            a = b


@loop
def scatter_run(channels, grad, to, grad_image, plane, n, w, area, offset, fraction, first, a, b, one):
    start, near_by = 0, np.uint64(1)
    while start < channels:
        left, k, m = channels - start, plane + np.uint64(start), to + np.uint64(start)
        if left >= LANES and not NEAREST:
            count = left - left % LANES
            scatter_lanes(grad, m, grad_image, k, count, n, w, area, offset, fraction, first, a, b, one)
        else:
            count = left if NEAREST else (GROUP if left >= GROUP else (3 if left == 3 and NDIM == 2 else 1))
            scatter_row(
                count, grad, m, near_by, grad_image, k, near_by, n, w, area, offset, fraction, first, a, b,
                one,
            )  # fmt: skip
        start += count


@loop
def scatter_lanes(grad, to, grad_image, plane, count, pitch, w, area, offset, fraction, first, a, b, one):
    """The run of a row for `count` channels side by side, a multiple of LANES."""
    size, down = np.uint64(len(offset)), np.uint64(w) * pitch
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(first) + j
        x, y, z = fraction[i], fraction[i + size], fraction[i + size * np.uint64(NDIM - 1)]
        for deep in range(NDIM - 1):
            k = plane + (np.uint64(offset[i]) + np.uint64(deep * area)) * pitch
            weight = one if NDIM == 2 else (z if deep else one - z)
            v00, v01, v10, v11 = (one - y) * (one - x), (one - y) * x, y * (one - x), y * x
            v00, v01, v10, v11 = weight * v00, weight * v01, weight * v10, weight * v11  # in the order of `scatter_pixel`
            for c in range(np.uint64(0), np.uint64(count), np.uint64(LANES)):
                m = to + j * pitch + c
                add_channels(grad_image, k + c, v00, grad, m)
                add_channels(grad_image, k + c + pitch, v01, grad, m)
                add_channels(grad_image, k + c + down, v10, grad, m)
                add_channels(grad_image, k + c + down + pitch, v11, grad, m)

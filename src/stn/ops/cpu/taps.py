"""One row of a tile: which of its blocks lie inside the image, and the taps of their pixels.

A block is LANES neighbors of a row. In one that lies INSIDE, all taps of a pixel are neighbors within the image: an offset
and a fraction an axis say all. In a MIXED one, each axis has two taps with a weight each, and padding is resolved in them.
A BLANK one sees nothing of the image. Each is handled by vector code, wherever its points lie.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.blocks import lanes_within, nearest_plane, nearest_volume, place_hats, place_plane, place_volume
from stn.ops.cpu.compiling import NDIM, NEAREST, inline, loop
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.mixed import REST
from stn.ops.cpu.words import call_with
from stn.ops.padding import REFLECTION, WRAP, ZEROS

# Forward, ns a pixel and channel at 32x3x224x224, 1x64x256x256, 1x3x2048x2048: 64x128 2.4, 1.6, 2.5; 16x128 2.7, 1.8, 2.7;
# 64x64 2.8, 1.9, 2.6; 128x128 2.4, 1.9, 2.5.
ROWS, COLUMNS = 64, 128
BLOCKS = COLUMNS // LANES
NEARLY_ALL = 1 - 1e-12  # of the weight, in float64: the rest is rounding
STRIDE = COLUMNS + LANES  # of a row: vectors reach beyond its end
INSIDE, MIXED, BLANK = range(3)
KINDS = 4


# ---- blocks ----


@loop
def sort_blocks(closed, padding, points, w, h, d, low, high, width, block, runs, first, offset, fraction):
    """Write the runs of a row's blocks of one kind, and offsets and fractions of those inside.

    closed: the last pixel is inside, see `fill_tile`; so for low, high.
    """
    n, zeros = h if NDIM == 2 else d, padding == ZEROS
    part, area = (low > 0) | (high < n), len(offset)
    x0, x1 = bounds(0, w, closed)
    y0, y1 = bounds(0 if NDIM == 3 else low, h if NDIM == 3 else high, closed)
    z0, z1 = bounds(low, high, closed)
    taps = 1.0 if NEAREST else 2.0
    most, pitch, ends = (w - taps, h - taps, d - taps), (1.0, 1.0 * w, 1.0 * w * h), (x0, x1, y0, y1, z0, z1)
    for b in range(-(-width // LANES)):
        j, count = b * LANES, min(LANES, width - b * LANES)
        i, real = first + j, (1 << count) - 1
        if NDIM == 2:
            inside = place_plane(points, COLUMNS, j, NEAREST, ends, most, pitch, count, offset, fraction, i, area)
        else:
            inside = place_volume(points, COLUMNS, j, NEAREST, ends, most, pitch, count, offset, fraction, i, area)
        if real & ~inside == 0:
            runs[block + b] = INSIDE
        elif (zeros and sees_nothing(points, j, w, h, d, real)) or (
            part and real & ~misses_band(points, (NDIM - 1) * COLUMNS + j, n, low, high) == 0
        ):
            runs[block + b] = BLANK
        else:
            runs[block + b] = MIXED
    join_runs(runs, block, block + -(-width // LANES))


@inline
def join_runs(runs, start, end):
    """Join neighboring blocks of one kind to runs, from the last to the first. All channels then go from run to run."""
    length, following = 0, -1
    for b in range(end - 1, start - 1, -1):
        length = length + 1 if runs[b] == following else 1
        following = runs[b]
        runs[b] += KINDS * length


@inline
def bounds(low, high, closed):
    """Between which numbers all taps lie in low .. high - 1: none if that has one pixel, and two are needed."""
    last = high - 1.0
    if NEAREST:
        return np.float64(low), last
    return np.float64(low), low - 1.0 if last <= low else (last if closed else np.nextafter(last, -1.0))


@inline
def sees_nothing(points, j, w, h, d, real):
    """Return True if no point has a tap in the image, and none is NaN: with zeros padding all are the fill value."""
    seen, known = within(points, j, w) & within(points, COLUMNS + j, h), is_known(points, j) & is_known(points, COLUMNS + j)
    if NDIM == 3:
        seen, known = seen & within(points, 2 * COLUMNS + j, d), known & is_known(points, 2 * COLUMNS + j)
    return real & ~(known & ~seen) == 0


@inline
def within(points, at, n):
    """Return the points that have a tap. At exactly -1 the first pixel has weight 0, but its weight has a slope."""
    return lanes_within(points, at, -1.0, np.nextafter(np.float64(n), 0.0))


@inline
def is_known(points, at):
    return lanes_within(points, at, -np.inf, np.inf)


@inline
def misses_band(points, at, n, low, high):
    """Bits of the points inside the image that have no tap in the band low .. high of this axis, whatever the padding."""
    last = n - 1.0
    before = lanes_within(points, at, 0.0, min(last, np.nextafter(low - 1.0, -1.0)))
    return before | lanes_within(points, at, np.float64(high), last)


@loop
def clear(array, start, end):
    """Set numbers to 0. `numbers[start:end] = 0` within prange would become a parallel loop of Numba that runs too early."""
    for i in range(np.uint64(start), np.uint64(end)):
        array[i] = 0


# ---- pixels of mixed blocks ----


@inline
def in_pairs(padding, w):
    """Return True if both taps in x of every pixel lie side by side, so that one load reads both."""
    return (padding != WRAP) & (w > 1)


@loop
def store_mixed(derivative, sizes, points, start, end, low, high, first, near, far, weight, slope, other):
    """Store both taps of each axis for pixels of a row, padding resolved: places, weights and, if `derivative`, slopes.

    other: the address of a kernel of `axis_taps.py`, and of what it reads.
    """
    area, w, h, d = len(near) // 3, sizes.width, sizes.height, sizes.depth
    zeros, padding = sizes.padding == ZEROS, sizes.padding
    reaches_far = (padding == REFLECTION) | (padding == WRAP)
    if NEAREST and not reaches_far:
        lengths, pitch, ends = (1.0 * w, 1.0 * h, 1.0 * d), (1.0, 1.0 * w, 1.0 * w * h), (1.0 * low, 1.0 * high)
        for j in range(start, end, LANES):
            if NDIM == 2:
                nearest_plane(points, j, COLUMNS, zeros, lengths, pitch, ends[0], ends[1], near, weight, first + j)
            else:
                nearest_volume(points, j, COLUMNS, zeros, lengths, pitch, ends[0], ends[1], near, weight, first + j)
        return
    for i in range(NDIM):
        n, pitch = (w, 1) if i == 0 else ((h, w) if i == 1 else (d, w * h))
        lower, upper = (low, high) if i == NDIM - 1 else (0, n)
        if NEAREST or reaches_far or n == 1:
            paired = np.int64((i == 0) and not NEAREST and in_pairs(padding, n))
            where = other[1], other[2], i, first, start, end, n, pitch, lower, upper, sizes.align_corners
            call_with(other[0], where + (np.int64(NEAREST), np.int64(derivative), paired, np.int64(zeros)))
        else:
            for j in range(start, end, LANES):
                place_hats(
                    points, j, COLUMNS, i, zeros, 1.0 * n, 1.0 * pitch, 1.0 * lower, 1.0 * upper, near, far, weight,
                    first + j, area, slope, derivative,
                )  # fmt: skip
    if zeros:
        store_rest(points, start, end, REST * area + first, weight)
    else:
        clear(weight, REST * area + first + start, REST * area + first + end)
    if NEAREST:
        join_axes(start, end, first, near, weight)


@loop
def join_axes(start, end, first, near, weight):
    """Nearest neighbor: the place and the weight of a pixel's only tap, in the rows of x."""
    area = np.uint64(len(near) // 3)
    for i in range(1, NDIM):
        beyond, above = np.uint64(i) * area, np.uint64(2 * i) * area
        for j in range(np.uint64(start), np.uint64(end)):
            k = np.uint64(first) + j
            near[k] += near[k + beyond]
            weight[k] *= weight[k + above]


@loop
def store_rest(points, start, end, at, weight):
    """The fill value's weight: what those of the taps leave, and 0 rather than rounding, since the fill may be NaN."""
    for j in range(np.uint64(start), np.uint64(end)):
        total = points[3, j]
        weight[np.uint64(at) + j] = 1.0 - total if total < NEARLY_ALL else 0.0

"""One row of a tile: which of its blocks lie inside the image, and the taps of their pixels.

A block is LANES neighbors of a row. In one that lies INSIDE, all taps of a pixel are neighbors within the image: an offset
and a fraction an axis say all. In a MIXED one, each axis has two taps with a weight each, and padding is resolved in them.
A BLANK one sees nothing of the image. Each is handled by vector code, wherever its points lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stn.ops.cpu.compiling import inline, loop
from stn.ops.cpu.lanes import LANES
from stn.ops.padding import REFLECTION, WRAP, ZEROS
from stn.ops.reference import FAR

# Forward, ns a pixel and channel at 32x3x224x224, 1x64x256x256, 1x3x2048x2048: 64x128 2.4, 1.6, 2.5; 16x128 2.7, 1.8, 2.7;
# 64x64 2.8, 1.9, 2.6; 128x128 2.4, 1.9, 2.5.
ROWS, COLUMNS = 64, 128
BLOCKS = COLUMNS // LANES
NEARLY_ALL = 1 - 1e-12  # of the weight, in float64: the rest is rounding
STRIDE = COLUMNS + LANES  # of a row: vectors reach beyond its end
INSIDE, MIXED, BLANK = range(3)
REST = 6  # of `weight`: two for each of three axes come before


# ---- blocks ----


@loop
def sort_blocks(ndim, nearest, closed, padding, points, w, h, d, low, high, width, first, kind):
    """Write the kinds of a row's blocks; return how many are INSIDE, and how many MIXED. low, high: see `fill_tile`."""
    blocks, n = -(-width // LANES), h if ndim == 2 else d
    if count_outside_axes(ndim, nearest, closed, points, 0, width, w, h, d, low, high) == 0:
        for b in range(blocks):
            kind[first + b] = INSIDE
        return blocks, 0
    blank, whole = padding == ZEROS, (low == 0) & (high == n)
    inside = mixed = 0
    for b in range(blocks):
        start, end = b * LANES, min(width, b * LANES + LANES)
        if count_outside_axes(ndim, nearest, closed, points, start, end, w, h, d, low, high) == 0:
            kind[first + b] = INSIDE
            inside += 1
        elif (blank and count_blank(ndim, points, start, end, w, h, d) == end - start) or (
            not whole and count_missing(points, ndim - 1, start, end, n, low, high) == end - start
        ):
            kind[first + b] = BLANK
        else:
            kind[first + b] = MIXED
            mixed += 1
    return inside, mixed


@inline
def count_outside_axes(ndim, nearest, closed, points, start, end, w, h, d, low, high):
    outside = 0
    for i in range(ndim):
        slowest = i == ndim - 1
        least, n = low if slowest else 0, high if slowest else (w if i == 0 else h)
        outside += count_outside(points, i, start, end, least, n - 1, nearest, closed)
    return outside


@loop
def count_outside(points, i, start, end, low, high, nearest, closed):
    """How many points are not low <= p <= high (< high unless closed), or have no neighbor between. NaN is not."""
    least, most, outside = np.float64(low), np.float64(high), 0
    if nearest:
        for j in range(np.uint64(start), np.uint64(end)):
            p = np.rint(points[i, j])
            outside += 0 if (p >= least) & (p <= most) else 1
        return outside
    most = low - 1.0 if high <= low else (most if closed else np.nextafter(most, -1.0))
    for j in range(np.uint64(start), np.uint64(end)):
        p = points[i, j]
        outside += 0 if (p >= least) & (p <= most) else 1
    return outside


@loop
def count_blank(ndim, points, start, end, w, h, d):
    """How many points have no tap in the image, and are known: under zeros padding they are the fill value."""
    blank = 0
    for j in range(np.uint64(start), np.uint64(end)):
        x, y, z = points[0, j], points[1, j], points[2, j] if ndim == 3 else 0.0
        beyond = (x <= -1) | (x >= w) | (y <= -1) | (y >= h) | (z <= -1) | (z >= d)
        blank += 1 if beyond & (x == x) & (y == y) & (z == z) else 0
    return blank


@loop
def count_missing(points, i, start, end, n, low, high):
    """How many points inside the image have no tap in the band low .. high of axis i, whatever the padding."""
    missing = 0
    for j in range(np.uint64(start), np.uint64(end)):
        p = points[i, j]
        missing += 1 if (p >= 0) & (p <= n - 1) & ((p + 1 < low) | (p >= high)) else 0
    return missing


# ---- pixels of blocks inside ----


@loop
def store_inside(ndim, nearest, points, width, w, h, d, first, offset, fraction):
    """Offsets and fractions of a row. Offsets beyond it are 0, which a vector may read."""
    area = len(offset)
    clear(offset, first, first + width + LANES)
    for i in range(ndim):
        n, pitch = (w, 1.0) if i == 0 else ((h, 1.0 * w) if i == 1 else (d, 1.0 * w * h))
        if nearest:
            add_nearest(points, i, width, n - 1.0, pitch, first, offset)
        else:
            add_floor(points, i, width, n - 2.0, pitch, first, offset, i * area + first, fraction)


@loop
def clear(array, start, end):
    """Not `numbers[start:end] = 0`: within prange that becomes a parallel loop of Numba's, which then runs too early."""
    for i in range(np.uint64(start), np.uint64(end)):
        array[i] = 0


@loop
def add_nearest(points, i, width, most, pitch, first, offset):
    for j in range(np.uint64(width)):
        offset[np.uint64(first) + j] += np.uint32(pitch * between(np.rint(points[i, j]), 0.0, most))


@loop
def add_floor(points, i, width, most, pitch, first, offset, into, fraction):
    """floor(p) is at most n - 2: the last pixel is the end of the one before it, with fraction 1."""
    for j in range(np.uint64(width)):
        base = between(np.floor(points[i, j]), 0.0, most)
        fraction[np.uint64(into) + j] = points[i, j] - base
        offset[np.uint64(first) + j] += np.uint32(pitch * base)


@inline
def between(x, low, high):
    """NaN is low. Two choices, which become vector code, where `min` and `max` do not."""
    x = x if x >= low else low
    return x if x <= high else high


# ---- pixels of mixed blocks ----


@loop
def store_mixed(ndim, nearest, derivative, sizes, points, width, low, high, first, near, far, weight, slope):
    """Both taps of each axis for a row, padding resolved: places, weights, and if `derivative` the weights' slopes."""
    area, w, h, d = len(near) // 3, sizes.width, sizes.height, sizes.depth
    set_ones(points, width)
    for i in range(ndim):
        n, pitch = (w, 1.0) if i == 0 else ((h, 1.0 * w) if i == 1 else (d, 1.0 * w * h))
        at, slowest = i * area + first, i == ndim - 1
        clear(near, at + width, at + width + LANES)
        clear(far, at + width, at + width + LANES)
        ends = (low, high) if slowest else (0, n)
        if sizes.padding == REFLECTION:
            by_reflection(nearest, sizes, points, i, width, n, pitch, ends, at, i * area, near, far, weight)
        elif sizes.padding == WRAP:
            by_wrapping(nearest, sizes, points, i, width, n, pitch, ends, at, i * area, near, far, weight)
        else:
            by_clamping(nearest, sizes, points, i, width, n, pitch, ends, at, i * area, near, far, weight)
        if derivative:
            store_slopes(sizes.padding == ZEROS, points, i, width, n, at, i * area, slope)
    store_rest(points, width, REST * area + first, weight)


@inline
def clamped(sizes, i, n):
    return between(i, 0.0, n - 1.0)


@inline
def reflected(sizes, i, n):
    """i and n are whole numbers below 2^31, whose quotient float64 rounds to no other whole number."""
    period = max(2.0 * n - 2.0, 1.0) if sizes.align_corners else 2.0 * n
    i = i - period * np.floor(i / period)
    back = (period if sizes.align_corners else period - 1.0) - i
    return i if i < back else back


@inline
def wrapped(sizes, i, n):
    return i - n * np.floor(i / n)


@inline
def base_of(nearest, x):
    """The lower tap, and how far x lies beyond it: NaN of NaN, which reaches the output through the weights."""
    p = between(x, -FAR, FAR)
    base = np.rint(p) if nearest else np.floor(p)
    return base, (0.0 if nearest else p - base) if x == x else x


def taps_by(padded: Any) -> Any:
    """padded: the pixel of the image that stands in for a pixel of the plane."""

    @loop
    def store_taps(nearest, sizes, points, i, width, n, pitch, ends, at, before, near, far, weight):
        zeros, (low, high), last = sizes.padding == ZEROS, ends, n - 1.0
        for j in range(np.uint64(width)):
            base, t = base_of(nearest, points[i, j])
            a, b = padded(sizes, base, n), padded(sizes, base + 1.0, n)
            # A pixel outside has no weight if zeros are around the image, nor has one outside the band.
            keeps_a = 1.0 if ((not zeros) | (base >= 0.0) & (base <= last)) & (a >= low) & (a < high) else 0.0
            keeps_b = 1.0 if ((not zeros) | (base >= -1.0) & (base < last)) & (b >= low) & (b < high) else 0.0
            first, second = keeps_a * (1.0 - t), keeps_b * t
            k = np.uint64(at) + j
            near[k], far[k] = np.uint32(pitch * a), np.uint32(pitch * b)
            weight[k + np.uint64(before)] = first
            weight[k + np.uint64(before) + np.uint64(len(near) // 3)] = second
            points[3, j] *= first + second

    return store_taps


by_clamping, by_reflection, by_wrapping = taps_by(clamped), taps_by(reflected), taps_by(wrapped)


@loop
def store_slopes(zeros, points, i, width, n, at, before, slope):
    """Derivatives of both weights of an axis: 0 where the coordinate is clamped, and of taps without weight."""
    last, area = n - 1.0, np.uint64(len(slope) // 6)
    for j in range(np.uint64(width)):
        x = points[i, j]
        base, _ = base_of(False, x)
        moves = (0.0 if (x < -FAR) | (x > FAR) else 1.0) if x == x else x
        k = np.uint64(at + before) + j
        slope[k] = -moves if (not zeros) | (base >= 0.0) & (base <= last) else 0.0 * moves
        slope[k + area] = moves if (not zeros) | (base >= -1.0) & (base < last) else 0.0 * moves


@loop
def set_ones(points, width):
    for j in range(np.uint64(width)):
        points[3, j] = 1.0


@loop
def store_rest(points, width, at, weight):
    """The fill value's weight: what those of the taps leave, and 0 rather than rounding, since the fill may be NaN."""
    for j in range(np.uint64(width)):
        total = points[3, j]
        weight[np.uint64(at) + j] = 1.0 - total if total < NEARLY_ALL else 0.0

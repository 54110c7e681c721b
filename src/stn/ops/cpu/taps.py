"""One row of a tile: its interior run, its blank ends, and the taps of the pixels between."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.padding import axis_taps, is_blank
from stn.ops.padding import ZEROS

# Forward, ns a pixel and channel at 32x3x224x224, 1x64x256x256, 1x3x2048x2048: 64x128 2.4, 1.6, 2.5; 16x128 2.7, 1.8, 2.7;
# 64x64 2.8, 1.9, 2.6; 128x128 2.4, 1.9, 2.5.
ROWS, COLUMNS = 64, 128
NEARLY_ALL = 1 - 1e-12  # of the weight, in float64: the rest is rounding
STRIDE = COLUMNS + LANES  # of a row: vectors reach beyond its end


@inline
def misses_band(slow, n, low, high):
    """Whether a point inside the image has no tap in the band low .. high of its slowest axis, whatever the padding."""
    return (slow >= 0) & (slow <= n - 1) & ((slow + 1 < low) | (slow >= high))


@loop
def find_run(straight, ndim, nearest, closed, points, w, h, d, low, high, width):
    """The first run of interior pixels of a row: its start and its end."""
    y_low, y_high, z_low, z_high = (low, high - 1, 0, 0) if ndim == 2 else (0, h - 1, low, high - 1)
    start = 0
    if not straight and not nearest and ndim == 2 and w > 1 and y_high > y_low:
        beyond = count_outside(points, 0, width, 0, w - 1, closed) + count_outside(points, 1, width, y_low, y_high, closed)
        if beyond == 0:
            return 0, width
    while start < width and not interior(ndim, nearest, closed, points, start, w - 1, y_low, y_high, z_low, z_high):
        start += 1
    if straight:  # the run ends where it ends seen from behind
        end = width
        while end > start and not interior(ndim, nearest, closed, points, end - 1, w - 1, y_low, y_high, z_low, z_high):
            end -= 1
    else:
        end = start
        while end < width and interior(ndim, nearest, closed, points, end, w - 1, y_low, y_high, z_low, z_high):
            end += 1
    return start, end


@loop
def count_outside(points, i, width, low, high, closed):
    """How many points of a row are not low <= p <= high (or < high) on axis i. Eight at a time: nearly always none is."""
    end, outside = np.float64(high) if closed else np.nextafter(np.float64(high), -1.0), 0
    for j in range(np.uint64(width)):
        p = points[i, j]
        outside += 0 if (p >= low) & (p <= end) else 1
    return outside


@inline
def interior(ndim, nearest, closed, points, j, x_high, y_low, y_high, z_low, z_high):
    """Whether all taps of a pixel lie in x 0 .. x_high and so on. NaN is not."""
    x, y, z = points[0, j], points[1, j], points[2, j] if ndim == 3 else 0.0
    if nearest:
        x, y, z = np.rint(x), np.rint(y), np.rint(z)
    if nearest or closed:
        inside = (x >= 0) & (x <= x_high) & (y >= y_low) & (y <= y_high)
        inside &= nearest or ((x_high > 0) & (y_high > y_low))
        if ndim == 3:
            inside &= (z >= z_low) & (z <= z_high) & (nearest or z_high > z_low)
    else:
        inside = (x >= 0) & (x < x_high) & (y >= y_low) & (y < y_high)
        if ndim == 3:
            inside &= (z >= z_low) & (z < z_high)
    return inside


@loop
def find_blank(ndim, padding, points, w, h, d, start, end, width):
    """Where the blank pixels at both ends of a row end and begin: those that see nothing of the image."""
    left, right = 0, width
    if padding == ZEROS:
        while left < start and is_blank(ndim, points, left, w, h, d):
            left += 1
        while right > max(left, end) and is_blank(ndim, points, right - 1, w, h, d):
            right -= 1
    return left, right


@loop
def store_run(ndim, nearest, points, a, b, w, h, d, r, offset, fraction):
    """Offsets and fractions of the interior run of row r. Offsets beyond it are 0, which a vector may read."""
    first, area = r * STRIDE, len(offset)
    clear(offset, first + a, first + b + LANES)
    for i in range(ndim):
        n, stride = (w, 1.0) if i == 0 else ((h, 1.0 * w) if i == 1 else (d, 1.0 * w * h))
        if nearest:
            add_nearest(points, i, a, b, stride, first, offset)
        else:
            add_floor(points, i, a, b, n - 2.0, stride, first, offset, i * area + first, fraction)


@loop
def clear(array, start, end):
    """Not `numbers[start:end] = 0`: within prange that becomes a parallel loop of Numba's, which then runs too early."""
    for i in range(np.uint64(start), np.uint64(end)):
        array[i] = 0


@loop
def add_nearest(points, i, start, end, stride, first, offset):
    for j in range(np.uint64(start), np.uint64(end)):
        offset[np.uint64(first) + j] += np.uint32(stride * np.rint(points[i, j]))


@loop
def add_floor(points, i, start, end, most, stride, first, offset, into, fraction):
    """floor(p) is at most n - 2: the last pixel is the end of the one before it, with fraction 1."""
    for j in range(np.uint64(start), np.uint64(end)):
        base = np.floor(points[i, j])
        base = most if base > most else base
        fraction[np.uint64(into) + j] = points[i, j] - base
        offset[np.uint64(first) + j] += np.uint32(stride * base)


@loop
def store_taps(ndim, nearest, derivative, sizes, points, j, low, high, s, tap, weight, slope):
    """Taps of point j of a row, as number s of the list."""
    taps, padding, align_corners = 1 if nearest else 1 << ndim, sizes.padding, sizes.align_corners
    w, h, d = sizes.width, sizes.height, sizes.depth
    x0, x1, wx0, wx1, dx0, dx1 = axis_taps(nearest, padding, align_corners, points[0, j], w)
    y0, y1, wy0, wy1, dy0, dy1 = axis_taps(nearest, padding, align_corners, points[1, j], h)
    z0, z1, wz0, wz1, dz0, dz1 = 0, 0, 1.0, 0.0, 0.0, 0.0
    if ndim == 3:
        z0, z1, wz0, wz1, dz0, dz1 = axis_taps(nearest, padding, align_corners, points[2, j], d)
    total = 0.0
    for t in range(taps):
        x, wx, dx = (x1, wx1, dx1) if t & 1 else (x0, wx0, dx0)
        y, wy, dy = (y1, wy1, dy1) if t & 2 else (y0, wy0, dy0)
        z, wz, dz = (z1, wz1, dz1) if t & 4 else (z0, wz0, dz0)
        slowest = z if ndim == 3 else y
        total += wz * wy * wx
        tap[t, s] = np.uint32((z * h + y) * w + x)
        weight[t, s] = wz * wy * wx if low <= slowest < high else 0.0
        if derivative:
            slope[t, 0, s], slope[t, 1, s], slope[t, 2, s] = wz * wy * dx, wz * dy * wx, dz * wy * wx
    weight[taps, s] = 1.0 - total if total < NEARLY_ALL else 0.0  # else a fill value of NaN would spoil what lies inside

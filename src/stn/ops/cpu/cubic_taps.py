"""The four taps of a cubic kernel along each axis, for a row of pixels, and which of them lie side by side."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused
from stn.ops.cpu.padding import padded
from stn.ops.cpu.taps import COLUMNS
from stn.ops.padding import ZEROS
from stn.ops.reference import FAR


class CubicTaps(NamedTuple):
    """The taps of a row of pixels along each axis. One a thread."""

    pixel: Any  # (3, COLUMNS, 4) int64, as offsets in the image's plane or volume
    weight: Any  # (2, 3, COLUMNS, 4) float: weights, 0 outside an image with zeros around it; then their derivatives
    total: Any  # (2, 3, COLUMNS) float, the sums of both over the four taps


def cubic_arrays(real: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The shape and the dtype of each."""
    shape = (3, COLUMNS, 4)
    return {"pixel": (shape, np.int64), "weight": ((2, *shape), real), "total": ((2, 3, COLUMNS), real)}


@loop
def find_taps(ndim, cubic, slopes, sizes, points, width, pixel, weight, total):
    pitch = 1
    for i in range(ndim):
        n = sizes.width if i == 0 else (sizes.height if i == 1 else sizes.depth)
        if count_outside(points, i, width, 1, n - 2) == 0:
            taps_inside(cubic, points, i, width, pitch, pixel, weight, total)
            if slopes:
                slopes_inside(cubic, points, i, width, weight)
        else:
            for j in range(width):
                taps_anywhere(cubic, sizes, points[i, j], i, j, n, pitch, pixel, weight, total)
        pitch *= n


@loop
def count_outside(points, i, width, low, high):
    """How many points of a row are not low <= p < high on axis i."""
    end, outside = np.nextafter(np.float64(high), -1.0), 0
    for j in range(np.uint64(width)):
        p = points[i, j]
        outside += 0 if (p >= low) & (p <= end) else 1
    return outside


@loop_fused
def taps_inside(cubic, points, i, width, pitch, pixel, weight, total):
    for j in range(np.uint64(width)):
        base = np.floor(points[i, j])
        t, first = points[i, j] - base, (np.int64(base) - 1) * pitch
        pixel[i, j, 0], pixel[i, j, 1], pixel[i, j, 2] = first, first + pitch, first + pitch + pitch
        pixel[i, j, 3] = first + pitch + pitch + pitch
        weight[0, i, j, 0], weight[0, i, j, 1] = outer(cubic, 1.0 + t), inner(cubic, t)
        weight[0, i, j, 2], weight[0, i, j, 3] = inner(cubic, 1.0 - t), outer(cubic, 2.0 - t)
        total[0, i, j], total[1, i, j] = 1, 0


@loop_fused
def slopes_inside(cubic, points, i, width, weight):
    for j in range(np.uint64(width)):
        t = points[i, j] - np.floor(points[i, j])
        weight[1, i, j, 0], weight[1, i, j, 1] = outer_slope(cubic, 1.0 + t), inner_slope(cubic, t)
        weight[1, i, j, 2], weight[1, i, j, 3] = -inner_slope(cubic, 1.0 - t), -outer_slope(cubic, 2.0 - t)


@loop
def taps_anywhere(cubic, sizes, x, i, j, n, pitch, pixel, weight, total):
    far = (x < -FAR) | (x > FAR)
    known = min(max(x, -FAR), FAR) if x == x else 0.0
    first = int(math.floor(known))
    t = known - first if x == x else x  # NaN reaches the result through the weights
    s, moving = 1.0 - t, 0.0 if far else 1.0
    weights = outer(cubic, 1.0 + t), inner(cubic, t), inner(cubic, s), outer(cubic, 1.0 + s)
    slopes = outer_slope(cubic, 1.0 + t), inner_slope(cubic, t), -inner_slope(cubic, s), -outer_slope(cubic, 1.0 + s)
    total[0, i, j], total[1, i, j] = 0, 0
    all_inside = True
    for k in range(4):
        at = first + k - 1
        inside = sizes.padding != ZEROS or 0 <= at < n
        pixel[i, j, k] = np.int64(padded(sizes.padding, sizes.align_corners, np.float64(at), n)) * pitch
        weight[0, i, j, k] = weights[k] if inside else 0.0
        weight[1, i, j, k] = moving * slopes[k] if inside else 0.0
        all_inside &= inside
        total[0, i, j] += weight[0, i, j, k]
        total[1, i, j] += weight[1, i, j, k]
    if all_inside:  # exactly
        total[0, i, j], total[1, i, j] = 1, 0


@loop
def find_run(ndim, w, h, pixel, width):
    """Find the first run of pixels whose taps lie side by side. Padding never puts taps side by side outside the image."""
    start = 0
    while start < width and not adjacent(ndim, w, h, pixel, start):
        start += 1
    end = start
    while end < width and adjacent(ndim, w, h, pixel, end):
        end += 1
    return start, end


@inline
def adjacent(ndim, w, h, pixel, j):
    plane = (pixel[0, j, 3] - pixel[0, j, 0] == 3) & (pixel[1, j, 3] - pixel[1, j, 0] == 3 * w)
    return plane & (ndim == 2 or pixel[2, j, 3] - pixel[2, j, 0] == 3 * w * h)


@inline
def inner(cubic, s):  # |s| <= 1
    return (cubic.inner_3 * s + cubic.inner_2) * s * s + cubic.inner_0


@inline
def outer(cubic, s):  # 1 <= |s| <= 2
    return ((cubic.outer_3 * s + cubic.outer_2) * s + cubic.outer_1) * s + cubic.outer_0


@inline
def inner_slope(cubic, s):
    return (3 * cubic.inner_3 * s + 2 * cubic.inner_2) * s


@inline
def outer_slope(cubic, s):
    return (3 * cubic.outer_3 * s + 2 * cubic.outer_2) * s + cubic.outer_1

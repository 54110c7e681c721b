"""The four taps of a cubic kernel along each axis, for a row of pixels, padding resolved.

The taps in x lie side by side, so that one load brings them: those of a pixel near an edge are the four outermost of the
image, and each of them has the weights of all taps that padding puts there. Not so if padding wraps, or the image has fewer
than four columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.blocks import lanes_within
from stn.ops.cpu.compiling import NDIM, inline, loop, loop_fused
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.padding import between, clamped, reflected, wrapped
from stn.ops.cpu.taps import COLUMNS
from stn.ops.cpu.tile import AT_WIDTH, find_points
from stn.ops.padding import REFLECTION, WRAP, ZEROS
from stn.ops.reference import FAR

Y, Z, DX, DY, DZ = (np.uint64(k * COLUMNS) for k in range(1, 6))  # rows of `total`, behind that of x
ONE, TWO, THREE = Y, Z, DX  # rows of an axis, behind its first


class CubicTaps(NamedTuple):
    """The taps of a row of pixels along each axis. One a thread."""

    place: Any  # (12 * COLUMNS,) uint32, of four taps an axis, as offsets in the image's plane or volume
    weight: Any  # (24 * COLUMNS,) float: their weights, 0 outside an image with zeros around it, then their derivatives
    total: Any  # (6 * COLUMNS,) float64, the sums of both over the four taps: 1 and 0 exactly if all are inside
    rest: Any  # (4 * COLUMNS,) float, the weight of the fill value, and its derivatives in x, y, z


def cubic_arrays(real: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The shape and the dtype of each."""
    return {
        "place": ((12 * COLUMNS,), np.uint32), "weight": ((24 * COLUMNS,), real), "total": ((6 * COLUMNS,), np.float64),
        "rest": ((4 * COLUMNS,), real),
    }  # fmt: skip


@inline
def are_joined(sizes):
    """Return True if the taps in x of every pixel lie side by side."""
    return (sizes.padding != WRAP) & (sizes.width > 3)


@inline
def taps_of_row(cubic, slopes, sizes, r, at, points, place, weight, total, rest):
    find_points(at, r)
    find_taps(cubic, slopes, sizes, points, at[AT_WIDTH], place, weight, total, rest)


@loop
def find_taps(cubic, slopes, sizes, points, width, place, weight, total, rest):
    pitch, joined, padding, align_corners = 1, are_joined(sizes), sizes.padding, sizes.align_corners
    for i in range(NDIM):
        n = sizes.width if i == 0 else (sizes.height if i == 1 else sizes.depth)
        taps_inside(cubic, slopes, points, i, width, pitch, place, weight, total)
        least, most, start = 1.0, np.nextafter(n - 2.0, -1.0), 0
        while start < width:
            end = start
            while end < width and not are_inside(points, i, end, width, least, most):
                end += LANES
            if end == start:
                start += LANES
                continue
            end = min(end, width)
            common = cubic, slopes, points, i, start, end, 1.0 * n, 1.0 * pitch, place, weight, total
            if padding == REFLECTION:
                taps_by_reflection(align_corners, False, joined & (i == 0), *common)
            elif padding == WRAP:
                taps_by_wrapping(align_corners, False, False, *common)
            else:
                taps_by_clamping(align_corners, padding == ZEROS, joined & (i == 0), *common)
            start = -(-end // LANES) * LANES
        for j in range(width, -(-width // LANES) * LANES):  # vectors read them
            for t in range(4):
                place[(4 * i + t) * COLUMNS + j] = 0
        pitch *= n
    find_rest(slopes, padding == ZEROS, width, total, rest)


@loop
def find_rest(slopes, zeros, width, total, rest):
    """The weights of all taps and of the fill value add up to 1, so their slopes add up to 0."""
    for j in range(np.uint64(width)):
        z = total[Z + j] if NDIM == 3 else 1.0
        rest[j] = 1.0 - total[j] * total[Y + j] * z if zeros else 0.0
    if slopes:
        for j in range(np.uint64(width)):
            x, y, z = total[j], total[Y + j], total[Z + j] if NDIM == 3 else 1.0
            rest[Y + j] = -total[DX + j] * y * z if zeros else 0.0
            rest[Z + j] = -x * total[DY + j] * z if zeros else 0.0
            rest[DX + j] = -x * y * total[DZ + j] if zeros & (NDIM == 3) else 0.0


@inline
def are_inside(points, i, j, width, least, most):
    """Return True if all taps of the pixels of a block lie inside the image on axis i."""
    real = (1 << min(LANES, width - j)) - 1
    return real & ~lanes_within(points, i * COLUMNS + j, least, most) == 0


@inline
def weights_at(cubic, t):
    s = 1.0 - t
    return outer(cubic, 1.0 + t), inner(cubic, t), inner(cubic, s), outer(cubic, 1.0 + s)


@inline
def slopes_at(cubic, t):
    s = 1.0 - t
    return outer_slope(cubic, 1.0 + t), inner_slope(cubic, t), -inner_slope(cubic, s), -outer_slope(cubic, 1.0 + s)


@loop_fused
def taps_inside(cubic, slopes, points, i, width, pitch, place, weight, total):
    """Store the taps of all pixels as if they were inside the image."""
    first_row, slope_row, step = np.uint64(4 * i * COLUMNS), np.uint64((4 * i + 12) * COLUMNS), 1.0 * pitch
    row = np.uint64(i * COLUMNS)
    for j in range(np.uint64(width)):
        base = np.floor(points[i, j])
        t, first = points[i, j] - base, (base - 1.0) * step
        k = first_row + j
        place[k], place[k + ONE] = np.uint32(first), np.uint32(first + step)
        place[k + TWO], place[k + THREE] = np.uint32(first + 2.0 * step), np.uint32(first + 3.0 * step)
        weight[k], weight[k + ONE], weight[k + TWO], weight[k + THREE] = weights_at(cubic, t)
        total[row + j], total[row + DX + j] = 1.0, 0.0
    if slopes:
        for j in range(np.uint64(width)):
            t, k = points[i, j] - np.floor(points[i, j]), slope_row + j
            weight[k], weight[k + ONE], weight[k + TWO], weight[k + THREE] = slopes_at(cubic, t)


def taps_by(padded: Any) -> Any:
    """padded: the pixel of the image that stands in for a pixel of the plane."""

    @loop_fused
    def store_taps(align_corners, zeros, folded, cubic, slopes, points, i, start, end, n, pitch, place, weight, total):
        last, far, row = n - 1.0, np.float64(FAR), np.uint64(i * COLUMNS)
        first_row, slope_row = np.uint64(4 * i * COLUMNS), np.uint64((4 * i + 12) * COLUMNS)
        for j in range(np.uint64(start), np.uint64(end)):
            x = points[i, j]
            p = between(x, -far, far) if x == x else 0.0
            base = np.floor(p)
            t = p - base if x == x else x  # NaN reaches the result through the weights
            inside = (
                (not zeros) | (base >= 1.0) & (base <= n), (not zeros) | (base >= 0.0) & (base <= last),
                (not zeros) | (base >= -1.0) & (base < last), (not zeros) | (base >= -2.0) & (base < last - 1.0),
            )  # fmt: skip
            whole = inside[0] & inside[1] & inside[2] & inside[3]
            at = (
                padded(align_corners, base - 1.0, n), padded(align_corners, base, n),
                padded(align_corners, base + 1.0, n), padded(align_corners, base + 2.0, n),
            )  # fmt: skip
            first = lowest(at, n) if folded else 0.0
            w = only(inside, weights_at(cubic, t))
            total[row + j] = 1.0 if whole else (w[0] + w[1]) + (w[2] + w[3])
            k, m = first_row + j, slope_row + j
            weight[k], weight[k + ONE], weight[k + TWO], weight[k + THREE] = fold(w, at, first) if folded else w
            if slopes:
                moving = 1.0 if (x >= -far) & (x <= far) else 0.0
                s = only(inside, slopes_at(cubic, t))
                s = s[0] * moving, s[1] * moving, s[2] * moving, s[3] * moving
                total[row + DX + j] = 0.0 if whole else (s[0] + s[1]) + (s[2] + s[3])
                weight[m], weight[m + ONE], weight[m + TWO], weight[m + THREE] = fold(s, at, first) if folded else s
            if folded:
                at = first, first + 1.0, first + 2.0, first + 3.0
            place[k], place[k + ONE] = np.uint32(at[0] * pitch), np.uint32(at[1] * pitch)
            place[k + TWO], place[k + THREE] = np.uint32(at[2] * pitch), np.uint32(at[3] * pitch)

    return store_taps


@inline
def only(inside, numbers):
    return (
        numbers[0] if inside[0] else 0.0, numbers[1] if inside[1] else 0.0,
        numbers[2] if inside[2] else 0.0, numbers[3] if inside[3] else 0.0,
    )  # fmt: skip


taps_by_clamping, taps_by_reflection, taps_by_wrapping = taps_by(clamped), taps_by(reflected), taps_by(wrapped)


@inline
def lowest(places, n):
    """The first of four neighbors within the image that have all these places: no two taps are more than three apart."""
    a, b = places[0] if places[0] < places[1] else places[1], places[2] if places[2] < places[3] else places[3]
    return between(a if a < b else b, 0.0, n - 4.0)


@inline
def fold(numbers, places, first):
    """Add numbers at these places to the pixels first .. first + 3."""
    return (
        sum_at(numbers, places, first), sum_at(numbers, places, first + 1.0),
        sum_at(numbers, places, first + 2.0), sum_at(numbers, places, first + 3.0),
    )  # fmt: skip


@inline
def sum_at(numbers, places, place):
    a = (numbers[0] if places[0] == place else 0.0) + (numbers[1] if places[1] == place else 0.0)
    return a + ((numbers[2] if places[2] == place else 0.0) + (numbers[3] if places[3] == place else 0.0))


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


# ---- what is read of them ----


@inline
def deep_of(place, weight, s, j, p):
    """The plane of tap p in z as an offset, and its weight (s = 0) or slope."""
    if NDIM == 2:
        return np.uint32(0), weight.dtype.type(1)
    return place[(8 + p) * COLUMNS + j], weight[(12 * s + 8 + p) * COLUMNS + j]


@inline
def with_fill(weight, fill):
    return weight * fill if weight != 0 else weight

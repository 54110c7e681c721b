"""Tiles: what a kernel needs to know of a patch of the output, once for all channels.

A pixel is *interior* if all its taps lie inside the image: its taps are then neighbours, and one offset with a fraction an
axis says all. A row of a tile has one run of such pixels, nearly always. Towards its ends lie pixels that see nothing of
the image (under zeros padding), and what is between goes on a list of taps with weights, where padding is resolved.
Kernels are thus two loops without a branch, whatever the rule and the padding.

Offsets are unsigned: signed ones make Numba emit branches for wrap-around.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.rules import ZEROS, axis_taps, inline, is_blank, loop, row_points
from stn.ops.cpu.table import fill_table
from stn.ops.cpu.vector import LANES

# Forward, ns a pixel and channel at 32x3x224x224, 1x64x256x256, 1x3x2048x2048: 64x128 2.4, 1.6, 2.5; 16x128 2.7, 1.8, 2.7;
# 64x64 2.8, 1.9, 2.6; 128x128 2.4, 1.9, 2.5.
ROWS, COLUMNS = 64, 128
STRIDE = COLUMNS + LANES  # of a row: vectors reach beyond its end
LINE = np.uint64(16)  # float32 numbers in 64 bytes


class Sizes(NamedTuple):
    """Of one call; 2-D has a depth of 1. All integers."""

    batch: Any
    looks: Any
    channels: Any
    width: Any  # of the image
    height: Any
    depth: Any
    across: Any  # of the output
    down: Any
    deep: Any
    rows: Any  # of a tile
    padding: Any
    align_corners: Any


class Tile(NamedTuple):
    """One tile: where it lies, then its pixels, at r * STRIDE + j. One a thread, filled again for each tile."""

    at: Any  # (9,) int64: look, x, y, z, width, height, number within its look, count of listed, number of the table
    box: Any  # (4,) int64: first and last + 1 column, first and last + 1 row that its interior pixels read
    points: Any  # (3, COLUMNS) float64, source pixels of a row
    table: Any  # (T, rows * COLUMNS) float64, the radial functions
    runs: Any  # (rows, 4) int64: where the first blank run ends, the interior run begins and ends, the last blank run begins
    offset: Any  # (area,) uint32, of interior pixels
    fraction: Any  # (3 * area,) float, theirs on each axis
    listed: Any  # (area,) int64, which pixels are listed
    tap: Any  # (taps, area) uint32, offsets of their taps
    weight: Any  # (taps + 1, area) float, weights of their taps, then 1 - their sum, which is the fill value's
    slope: Any  # (taps, 3, area) float, derivatives of the weights in x, y, z
    gradient: Any  # (3 * area,) float, the loss's derivative in the source pixel
    sink: Any  # (1,) float, where what must not be optimised away goes


def new_tiles(count: int, rows: int, taps: int, derivative: bool, knots: int, real: Any) -> Tile:
    """The memory of `count` tiles, made here rather than in a kernel: for Numba each np.empty is a function to compile."""
    area, slopes = rows * STRIDE, rows * STRIDE if derivative else 0
    shapes = {
        "at": ((9,), np.int64), "box": ((4,), np.int64), "points": ((3, COLUMNS), np.float64),
        "table": ((knots, rows * COLUMNS), np.float64), "runs": ((rows, 4), np.int64), "offset": ((area,), np.uint32),
        "fraction": ((3 * area,), real), "listed": ((area,), np.int64), "tap": ((taps, area), np.uint32),
        "weight": ((taps + 1, area), real), "slope": ((taps, 3, slopes), real), "gradient": ((3 * slopes,), real),
        "sink": ((1,), real),
    }  # fmt: skip
    return Tile(**{name: np.empty((count, *shape), dtype) for name, (shape, dtype) in shapes.items()})


@inline
def tile_of(tiles, k):
    t = tiles
    return Tile(
        t.at[k], t.box[k], t.points[k], t.table[k], t.runs[k], t.offset[k], t.fraction[k], t.listed[k], t.tap[k],
        t.weight[k], t.slope[k], t.gradient[k], t.sink[k],
    )  # fmt: skip


@inline
def tiles_of_a_look(sizes):
    return -(-sizes.across // COLUMNS) * -(-sizes.down // sizes.rows) * sizes.deep


@loop
def warm(image, plane, width, left, right, top, bottom):
    """Read a box once in memory order, a number a cache line: rotated rows alone would wait for memory at every step.

    Forward at 1x64x256x256: 1.8 ns a pixel with it, 4.9 without.
    """
    total = image[plane]
    for y in range(np.uint64(top), np.uint64(bottom)):
        first = plane + y * np.uint64(width)
        for x in range(np.uint64(left), np.uint64(right), LINE):
            total += image[first + x]
    return total


@loop
def place_tile(sizes, shared, number, at):
    """Tiles of a look follow each other; under a basis (`shared`) the looks at a tile do, since they share its table."""
    columns, lines = -(-sizes.across // COLUMNS), -(-sizes.down // sizes.rows)
    tiles, looks = columns * lines * sizes.deep, sizes.batch * sizes.looks
    within, look = (number // looks, number % looks) if shared else (number % tiles, number // tiles)
    at[0], at[6], at[7] = look, within, 0
    at[1], at[2], at[3] = within % columns * COLUMNS, within // columns % lines * sizes.rows, within // (columns * lines)
    at[4], at[5] = min(COLUMNS, sizes.across - at[1]), min(sizes.rows, sizes.down - at[2])


@inline
def row_start(sizes, at, r):
    """The first pixel of row r of a tile: its flat index in the output, and its centred coordinates."""
    x, y, z = at[1], at[2] + r, at[3]
    start = np.uint64((z * sizes.down + y) * sizes.across + x)
    return start, x - (sizes.across - 1) / 2, y - (sizes.down - 1) / 2, z - (sizes.deep - 1) / 2


@inline
def share_table(where, sizes, tile):
    """Make the table of a tile's radial functions, unless the look before has."""
    if tile.at[8] != tile.at[6]:
        _, u0, u1, _ = row_start(sizes, tile.at, 0)
        fill_table(where.knots, where.step, u0, u1, tile.at[4], tile.at[5], COLUMNS, tile.table)
        tile.at[8] = tile.at[6]


@inline
def fill_tile(straight, ndim, nearest, derivative, where, sizes, low, high, tile):
    """Say all of the tile that has been placed. Taps outside low .. high on the slowest axis are left out.

    straight: source rows are straight lines. derivative: also of the taps' weights. The last pixel, x = n - 1, is then no
    interior one, because as the end of the pixel before it, with fraction 1, it would have the derivative to the left.
    """
    fill_rows(
        straight, ndim, nearest, derivative, where, sizes, low, high, tile.at, tile.box, tile.points, tile.table, tile.runs,
        tile.offset, tile.fraction, tile.listed, tile.tap, tile.weight, tile.slope,
    )  # fmt: skip


@loop
def fill_rows(
    straight, ndim, nearest, derivative, where, sizes, low, high, at, box, points, table, runs,
    offset, fraction, listed, tap, weight, slope,
):  # fmt: skip
    w, h, d, width = sizes.width, sizes.height, sizes.depth, at[4]
    box[0], box[1], box[2], box[3] = w, 0, h, 0
    for r in range(at[5]):
        start, u0, u1, u2 = row_start(sizes, at, r)
        row_points(where, ndim, at[0], start, u0, u1, u2, width, table, r * COLUMNS, points)
        a, b = find_run(straight, ndim, nearest, not derivative, points, w, h, d, low, high, width)
        left, right = find_blank(ndim, sizes.padding, points, w, h, d, a, b, width)
        runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3] = left, a, b, right
        store_run(ndim, nearest, points, a, b, w, h, d, r, offset, fraction)
        if a < b:
            widen_box(box, points[0, a], points[1, a], w, h)
            widen_box(box, points[0, b - 1], points[1, b - 1], w, h)
        for k in range(left, right - (b - a)):
            j = k if k < a else k + (b - a)  # before the run and after it
            if not elsewhere(points[ndim - 1, j], h if ndim == 2 else d, low, high):
                s, at[7] = at[7], at[7] + 1
                listed[s] = r * STRIDE + j
                store_taps(ndim, nearest, derivative, sizes, points, j, low, high, s, tap, weight, slope)


@inline
def elsewhere(slow, n, low, high):
    """Whether a point inside the image has no tap in the band low .. high of its slowest axis, whatever the padding."""
    return (slow >= 0) & (slow <= n - 1) & ((slow + 1 < low) | (slow >= high))


@inline
def tile_is_elsewhere(where, sizes, i, n, low, high, at):
    """The same for a whole tile under an affine map, on its slowest axis i: for its corners."""
    if low == 0 and high == n:
        return False
    _, u0, u1, u2 = row_start(sizes, at, 0)
    coef, look = where.coef, at[0]
    corner = coef[look, i, 0] * u0 + coef[look, i, 1] * u1 + coef[look, i, 2] * u2 + coef[look, i, 3] + where.centre[i]
    across, down = coef[look, i, 0] * (at[4] - 1), coef[look, i, 1] * (at[5] - 1)
    least, most = corner + min(across, 0.0) + min(down, 0.0), corner + max(across, 0.0) + max(down, 0.0)
    return (least >= 0) & (most <= n - 1) & ((most + 1 < low - 1) | (least >= high + 1))


@inline
def widen_box(box, x, y, w, h):
    box[0], box[1] = min(box[0], int(x)), max(box[1], min(int(x) + 2, w))
    box[2], box[3] = min(box[2], int(y)), max(box[3], min(int(y) + 2, h))


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
def clear(numbers, start, end):
    """Not `numbers[start:end] = 0`: within prange that becomes a parallel loop of Numba's, which then runs too early."""
    for i in range(np.uint64(start), np.uint64(end)):
        numbers[i] = 0


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
    weight[taps, s] = 1.0 - total

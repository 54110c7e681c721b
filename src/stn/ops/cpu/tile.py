"""Tiles: what a kernel needs to know of a patch of the output, once for all channels.

A pixel is *interior* if all its taps lie inside the image: its taps are then neighbours, and one offset with a fraction an
axis says all. Rows of a tile have one run of such pixels, nearly always; the rest go on a list of taps with weights, where
padding is resolved. Kernels are thus two loops without a branch, whatever the rule and the padding.

Offsets are unsigned: signed ones make Numba emit branches for wrap-around.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.rules import AFFINE, ZEROS, axis_taps, inline, is_blank, loop, row_points

# Forward, ns a pixel and channel at 32x3x224x224, 1x64x256x256, 1x3x2048x2048: 64x128 2.4, 1.6, 2.5; 16x128 2.7, 1.8, 2.7;
# 64x64 2.8, 1.9, 2.6; 128x128 2.4, 1.9, 2.5.
ROWS, COLUMNS = 64, 128
AREA = ROWS * COLUMNS
LINE = np.uint64(16)  # float32 numbers in 64 bytes


class Lengths(NamedTuple):
    """Of one call, D = 1 in 2-D. Flat, because a parallel loop of Numba takes no tuple within a tuple."""

    batch: Any
    looks: Any
    channels: Any
    width: Any
    height: Any
    depth: Any
    target_width: Any
    target_height: Any
    target_depth: Any


class Shape(NamedTuple):
    """The same inside a thread, with sizes (W, H, D) of the image and of the output."""

    batch: Any
    looks: Any
    channels: Any
    size: Any
    target: Any


@inline
def shape_of(lengths):
    return Shape(
        lengths.batch,
        lengths.looks,
        lengths.channels,
        (lengths.width, lengths.height, lengths.depth),
        (lengths.target_width, lengths.target_height, lengths.target_depth),
    )


class Tile(NamedTuple):
    """One tile: where it lies, then its pixels. Made once a thread, filled again for each tile."""

    at: Any  # (6,) int64: look, x, y, z, width, height
    box: Any  # (4,) int64: first and last + 1 column, first and last + 1 row that its interior pixels read
    px: Any  # (COLUMNS,) float64, source pixels of a row
    py: Any
    pz: Any
    runs: Any  # (ROWS, 2) int64, start and end of each row's interior run
    offset: Any  # (AREA,) uint32, of interior pixels
    wx: Any  # (AREA,) float, their fractions
    wy: Any
    wz: Any
    edges: Any  # (1,) int64, how many pixels are listed
    listed: Any  # (AREA,) int64, which pixels of the tile
    where: Any  # (taps, AREA) uint32, offsets of their taps
    value: Any  # (taps, AREA) float, weights of their taps
    slope: Any  # (taps, 3, AREA) float, derivatives of the weights in x, y, z
    rest: Any  # (AREA,) float, 1 - the sum of the weights: the fill value's
    sink: Any  # (1,) float, where what must not be optimised away goes
    gx: Any  # (AREA,) float, the loss's derivative in the source pixel
    gy: Any
    gz: Any


@inline
def new_tile(ndim, nearest, fill):
    taps = 1 if nearest else 1 << ndim
    return Tile(
        np.empty(6, np.int64),
        np.empty(4, np.int64),
        np.empty(COLUMNS),
        np.empty(COLUMNS),
        np.zeros(COLUMNS),
        np.empty((ROWS, 2), np.int64),
        np.empty(AREA, np.uint32),
        np.empty(AREA, fill.dtype),
        np.empty(AREA, fill.dtype),
        np.empty(AREA, fill.dtype),
        np.empty(1, np.int64),
        np.empty(AREA, np.int64),
        np.empty((taps, AREA), np.uint32),
        np.empty((taps, AREA), fill.dtype),
        np.empty((taps, 3, AREA), fill.dtype),
        np.empty(AREA, fill.dtype),
        np.empty(1, fill.dtype),
        np.empty(AREA, fill.dtype),
        np.empty(AREA, fill.dtype),
        np.empty(AREA, fill.dtype),
    )


@inline
def tiles_of_a_look(lengths):
    return -(-lengths.target_width // COLUMNS) * -(-lengths.target_height // ROWS) * lengths.target_depth


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


@inline
def fill_tile(rule, ndim, nearest, closed, coordinates, shape, number, low, high, tile):
    """Make `tile` tile `number` of all looks. Taps outside low .. high on the slowest axis are left out.

    closed: x = n - 1 is interior, with fraction 1. Weights are the same either way; the derivative of x is
    then the one to the left, so the kernel that takes it leaves the end open.
    """
    across, down = -(-shape.target[0] // COLUMNS), -(-shape.target[1] // ROWS)
    x, y = number % across * COLUMNS, number // across % down * ROWS
    z, look = number // (across * down) % shape.target[2], number // (across * down) // shape.target[2]
    width, height = min(COLUMNS, shape.target[0] - x), min(ROWS, shape.target[1] - y)
    tile.at[0], tile.at[1], tile.at[2], tile.at[3], tile.at[4], tile.at[5] = look, x, y, z, width, height
    tile.edges[0] = 0
    if rule == AFFINE and tile_is_elsewhere(ndim, coordinates, look, shape, x, y, z, width, height, low, high):
        tile.at[5] = 0
        return
    tile.box[0], tile.box[1], tile.box[2], tile.box[3] = shape.size[0], 0, shape.size[1], 0
    for r in range(height):
        start = np.uint64((z * shape.target[1] + y + r) * shape.target[0] + x)
        u = (
            x - (shape.target[0] - 1) / 2,
            y + r - (shape.target[1] - 1) / 2,
            z - (shape.target[2] - 1) / 2,
        )
        row_points(rule, ndim, coordinates, look, start, u, width, tile.px, tile.py, tile.pz)
        a, b = find_run(
            rule,
            ndim,
            nearest,
            closed,
            shape.size,
            low,
            high,
            r,
            tile.px,
            tile.py,
            tile.pz,
            width,
            tile.offset,
            tile.wx,
            tile.wy,
            tile.wz,
        )
        tile.runs[r, 0], tile.runs[r, 1] = a, b
        slow = tile.py if ndim == 2 else tile.pz
        if a < b:
            widen_box(tile, tile.px[a], tile.py[a], shape.size)
            widen_box(tile, tile.px[b - 1], tile.py[b - 1], shape.size)
        for j in range(width):
            if (j < a or j >= b) and not elsewhere(slow[j], shape.size[ndim - 1], low, high):
                list_taps(ndim, nearest, coordinates.padding, coordinates.align_corners, shape.size, low, high, r, j, tile)


@inline
def elsewhere(slow, n, low, high):
    """Whether a point inside the image has no tap in the band low .. high of its slowest axis, whatever the padding."""
    return (slow >= 0) & (slow <= n - 1) & ((slow + 1 < low) | (slow >= high))


@inline
def tile_is_elsewhere(ndim, coordinates, look, shape, x, y, z, width, height, low, high):
    """The same for a whole tile under an affine map: for its corners."""
    n, a = shape.size[ndim - 1], coordinates.coef[look, ndim - 1]
    if low == 0 and high == n:
        return False
    u, v, w = x - (shape.target[0] - 1) / 2, y - (shape.target[1] - 1) / 2, z - (shape.target[2] - 1) / 2
    corner = a[0] * u + a[1] * v + a[2] * w + a[3] + coordinates.axes[ndim - 1, 0]
    across, down = a[0] * (width - 1), a[1] * (height - 1)
    least, most = corner + min(across, 0.0) + min(down, 0.0), corner + max(across, 0.0) + max(down, 0.0)
    return (least >= 0) & (most <= n - 1) & ((most + 1 < low - 1) | (least >= high + 1))


@inline
def widen_box(tile, x, y, size):
    tile.box[0] = min(tile.box[0], int(x))
    tile.box[1] = max(tile.box[1], min(int(x) + 2, size[0]))
    tile.box[2] = min(tile.box[2], int(y))
    tile.box[3] = max(tile.box[3], min(int(y) + 2, size[1]))


@inline
def find_run(rule, ndim, nearest, closed, size, low, high, r, px, py, pz, width, offset, wx, wy, wz):
    """The first run of interior pixels of row r: its start and end. Stores their offsets and fractions."""
    w, h, d = size
    y_low, y_high, z_low, z_high = (low, high - 1, 0, 0) if ndim == 2 else (0, h - 1, low, high - 1)
    start = 0
    while start < width and not interior(
        ndim, nearest, closed, px[start], py[start], pz[start], w - 1, y_low, y_high, z_low, z_high
    ):
        start += 1
    end = width if rule == AFFINE else start
    if rule == AFFINE:  # source rows are straight: the run ends where it ends seen from behind
        while end > start and not interior(
            ndim, nearest, closed, px[end - 1], py[end - 1], pz[end - 1], w - 1, y_low, y_high, z_low, z_high
        ):
            end -= 1
    else:
        while end < width and interior(
            ndim, nearest, closed, px[end], py[end], pz[end], w - 1, y_low, y_high, z_low, z_high
        ):
            end += 1
    first = np.uint64(r * COLUMNS)
    for j in range(np.uint64(start), np.uint64(end)):
        if nearest:
            k = int(np.rint(px[j])) + w * int(np.rint(py[j]))
            if ndim == 3:
                k += w * h * int(np.rint(pz[j]))
        else:
            x, y = min(int(px[j]), w - 2), min(int(py[j]), h - 2)
            k = x + w * y
            wx[first + j], wy[first + j] = px[j] - x, py[j] - y
            if ndim == 3:
                z = min(int(pz[j]), d - 2)
                k += w * h * z
                wz[first + j] = pz[j] - z
        offset[first + j] = np.uint32(k)
    return start, end


@inline
def interior(ndim, nearest, closed, x, y, z, x_high, y_low, y_high, z_low, z_high):
    """Whether all taps of a pixel lie in x 0 .. x_high and so on. NaN is not."""
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


@inline
def list_taps(ndim, nearest, padding, align_corners, size, low, high, r, j, tile):
    """Append pixel j of row r to the list."""
    s, taps = tile.edges[0], 1 if nearest else 1 << ndim
    tile.edges[0] = s + 1
    tile.listed[s] = r * COLUMNS + j
    px, py, pz = tile.px[j], tile.py[j], tile.pz[j]
    if padding == ZEROS and is_blank(ndim, px, py, pz, size):
        tile.rest[s] = 1
        for t in range(taps):
            tile.where[t, s], tile.value[t, s] = np.uint32(0), 0
            tile.slope[t, 0, s] = tile.slope[t, 1, s] = tile.slope[t, 2, s] = 0
        return
    x0, x1, wx0, wx1, dx0, dx1 = axis_taps(nearest, padding, align_corners, px, size[0])
    y0, y1, wy0, wy1, dy0, dy1 = axis_taps(nearest, padding, align_corners, py, size[1])
    z0, z1, wz0, wz1, dz0, dz1 = 0, 0, 1.0, 0.0, 0.0, 0.0
    if ndim == 3:
        z0, z1, wz0, wz1, dz0, dz1 = axis_taps(nearest, padding, align_corners, pz, size[2])
    total = 0.0
    for t in range(taps):
        x, wx, dx = (x1, wx1, dx1) if t & 1 else (x0, wx0, dx0)
        y, wy, dy = (y1, wy1, dy1) if t & 2 else (y0, wy0, dy0)
        z, wz, dz = (z1, wz1, dz1) if t & 4 else (z0, wz0, dz0)
        slowest = z if ndim == 3 else y
        w = wz * wy * wx
        total += w
        mine = (slowest >= low) & (slowest < high)
        tile.where[t, s] = np.uint32((z * size[1] + y) * size[0] + x)
        tile.value[t, s] = w if mine else 0.0
        tile.slope[t, 0, s], tile.slope[t, 1, s], tile.slope[t, 2, s] = wz * wy * dx, wz * dy * wx, dz * wy * wx
    tile.rest[s] = 1.0 - total

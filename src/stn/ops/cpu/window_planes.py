"""One tile of planes by a kernel with a table: eight pixels at a time, or one by one where their taps are no neighbors."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.channels import add_channels
from stn.ops.cpu.compiling import NDIM, loop
from stn.ops.cpu.cubic_taps import with_fill
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.storing import stored
from stn.ops.cpu.taps import COLUMNS, STRIDE
from stn.ops.cpu.tile import AT_HEIGHT, AT_WIDTH, channel_starts
from stn.ops.cpu.window_lanes import (
    blend_windows_plane,
    blend_windows_volume,
    slope_windows_plane,
    slope_windows_volume,
)
from stn.ops.cpu.window_taps import windows_of_row

EACH = (1 << LANES) - 1  # bits of the pixels of a block


@loop
def blend_window_planes(curve, image, out, sizes, fill, at, points, windows):
    start, apart, place, weight, total, rest = windows
    vectors = sizes.width >= curve.span
    for r in range(at[AT_HEIGHT]):
        windows_of_row(curve, False, False, sizes, r, at, points, start, apart, place, weight, total, rest)
        for c in range(sizes.channels):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            blend_row(
                curve.taps, curve.span, image, np.int64(base), vectors, start, apart, place, weight, rest, fill[c],
                out, to, at[AT_WIDTH],
            )  # fmt: skip


@loop
def blend_row(taps, span, image, base, vectors, start, apart, place, weight, rest, fill, out, to, width):
    for j in range(0, width, LANES):
        count, again = min(LANES, width - j), EACH
        if vectors:
            blend = blend_windows_plane if NDIM == 2 else blend_windows_volume
            again = blend(image, base, start, place, weight, rest, j, taps, span, fill, out, to + j, count)
            again |= apart[j // LANES]
        for k in range(count if again else 0):
            if again >> k & 1:
                joined = vectors and not (apart[j // LANES] >> k) & 1
                value = window_sum(taps, span, image, base, joined, start, place, weight, -1, j + k)
                out[np.uint64(to + j + k)] = stored(value + with_fill(rest[j + k], fill), fill, out)


@loop
def window_sum(taps, span, image, base, joined, start, place, weight, slope, j):
    """The sum over the taps of one pixel that have weight, by the slopes along the axis `slope`, by weights along others."""
    value, half = weight.dtype.type(0), 3 * COLUMNS * span
    x, y, z = j * span, (COLUMNS + j) * span, (2 * COLUMNS + j) * span
    sx, sy, sz = (half if slope == 0 else 0), (half if slope == 1 else 0), (half if slope == 2 else 0)
    for p in range(1 if NDIM == 2 else taps):
        deep, wz = base, weight.dtype.type(1)
        if NDIM == 3:
            deep, wz = base + place[z + p], weight[sz + z + p]
        for q in range(taps):
            line, wy = deep + place[y + q], wz * weight[sy + y + q]
            for k in range(span if wy != 0 else 0):
                w = wy * weight[sx + x + k]
                value += w * image[np.uint64(line + (start[j] + k if joined else place[x + k]))] if w != 0 else 0
    return value


@loop
def slope_window_planes(curve, grad, image, sizes, fill, at, points, gradient, windows):
    start, apart, place, weight, total, rest = windows
    vectors, area = sizes.width >= curve.span, len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        windows_of_row(curve, True, False, sizes, r, at, points, start, apart, place, weight, total, rest)
        for c in range(sizes.channels):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            slope_row(
                curve.taps, curve.span, image, np.int64(base), vectors, start, apart, place, weight, rest, fill[c],
                grad, to, gradient, r * STRIDE, area, at[AT_WIDTH],
            )  # fmt: skip


@loop
def slope_row(
    taps, span, image, base, vectors, start, apart, place, weight, rest, fill, grad, to, gradient, first, area, width
):
    """Add one channel."""
    for j in range(0, width, LANES):
        count, again = min(LANES, width - j), EACH
        if vectors:
            slopes = slope_windows_plane if NDIM == 2 else slope_windows_volume
            again = slopes(
                image, base, start, place, weight, rest, j, taps, span, fill, grad, to + j, count, apart[j // LANES],
                gradient, first + j, area,
            )  # fmt: skip
        for k in range(count if again else 0):
            if again >> k & 1:
                joined = vectors and not (apart[j // LANES] >> k) & 1
                for axis in range(NDIM):
                    value = window_sum(taps, span, image, base, joined, start, place, weight, axis, j + k)
                    value += with_fill(rest[(1 + axis) * COLUMNS + j + k], fill)
                    gradient[np.uint64(axis * area + first + j + k)] += grad[np.uint64(to + j + k)] * value


@loop
def scatter_window_planes(curve, grad, grad_image, sizes, c0, c1, at, points, windows):
    start, apart, place, weight, total, rest = windows
    vectors = sizes.width >= curve.span
    for r in range(at[AT_HEIGHT]):
        windows_of_row(curve, False, False, sizes, r, at, points, start, apart, place, weight, total, rest)
        for c in range(c0, c1):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            scatter_row(
                curve.taps, curve.span, grad_image, np.int64(base), vectors, start, apart, place, weight, grad, to,
                at[AT_WIDTH],
            )  # fmt: skip


@loop
def scatter_row(taps, span, grad_image, base, vectors, start, apart, place, weight, grad, to, width):
    for j in range(width):
        joined, g = vectors and not (apart[j // LANES] >> (j % LANES)) & 1, grad[np.uint64(to + j)]
        x, y, z = j * span, (COLUMNS + j) * span, (2 * COLUMNS + j) * span
        for p in range(1 if NDIM == 2 else taps):
            deep, gz = base, g
            if NDIM == 3:
                deep, gz = base + place[z + p], g * weight[z + p]
            for q in range(taps):
                line, gy = deep + place[y + q], gz * weight[y + q]
                if joined:
                    for k in range(0, span, LANES):
                        add_channels(grad_image, line + start[j] + k, gy, weight, x + k)
                else:
                    for k in range(span):
                        if weight[x + k] != 0:
                            grad_image[np.uint64(line + place[x + k])] += gy * weight[x + k]

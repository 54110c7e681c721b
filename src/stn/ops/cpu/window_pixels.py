"""One tile of a channels-last image by a kernel with a table: all channels of a pixel at once."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import NDIM, inline, loop
from stn.ops.cpu.cubic_pixels import add_slopes
from stn.ops.cpu.cubic_taps import with_fill
from stn.ops.cpu.storing import stored
from stn.ops.cpu.taps import COLUMNS, STRIDE
from stn.ops.cpu.tile import AT_HEIGHT, AT_WIDTH, pixel_starts
from stn.ops.cpu.window_lanes import add_windows, blend_channels, window_slopes
from stn.ops.cpu.window_taps import windows_of_row


@inline
def plane_of(taps, span, place, weight, slope, j, p):
    """The plane of tap p in z as an offset, and its weight (slope = 0) or slope."""
    if NDIM == 2:
        return np.uint32(0), weight.dtype.type(1)
    at = (2 * COLUMNS + j) * span + p
    return place[at], weight[at + slope * 3 * COLUMNS * span]


@loop
def blend_window_pixels(curve, image, out, sizes, fill, at, points, windows):
    n, taps, span = sizes.channels, curve.taps, curve.span
    start, apart, place, weight, total, rest = windows
    for r in range(at[AT_HEIGHT]):
        windows_of_row(curve, False, True, sizes, r, at, points, start, apart, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to = (first + r * sizes.across + j) * n
            if NDIM == 2:
                blend_channels(image, np.int64(plane) * n, n, place, weight, j, taps, span, rest[j], fill, out, to)
                continue
            for c in range(np.uint64(n)):
                out[np.uint64(to) + c] = stored(with_fill(rest[j], fill[c]), fill[c], out)
            for p in range(taps):
                deep, w = plane_of(taps, span, place, weight, 0, j, p)
                if w != 0:
                    add_windows(image, (np.int64(plane) + deep) * n, n, place, weight, j, taps, span, w, out, to)


@loop
def slope_window_pixels(curve, grad, image, sizes, fill, at, points, gradient, windows):
    n, taps, span, area = sizes.channels, curve.taps, curve.span, len(gradient) // 3
    start, apart, place, weight, total, rest = windows
    for r in range(at[AT_HEIGHT]):
        windows_of_row(curve, True, True, sizes, r, at, points, start, apart, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to, i = (first + r * sizes.across + j) * n, r * STRIDE + j
            for p in range(1 if NDIM == 2 else taps):
                deep, w = plane_of(taps, span, place, weight, 0, j, p)
                _, slope = plane_of(taps, span, place, weight, 1, j, p)
                if (w != 0) | (slope != 0):
                    base = (np.int64(plane) + deep) * n
                    x, y, value = window_slopes(image, base, n, place, weight, j, taps, span, grad, to)
                    add_slopes(gradient, i, area, with_fill(w, x), with_fill(w, y), with_fill(slope, value))
            x, y, z = rest[COLUMNS + j], rest[2 * COLUMNS + j], rest[3 * COLUMNS + j]
            if (x != 0) | (y != 0) | (z != 0):
                g = rest[j] * 0
                for c in range(n):
                    g += grad[np.uint64(to + c)] * fill[c]
                add_slopes(gradient, i, area, with_fill(x, g), with_fill(y, g), with_fill(z, g))


@loop
def scatter_window_pixels(curve, grad, grad_image, sizes, c0, c1, at, points, windows):
    n, taps, span = sizes.channels, curve.taps, curve.span
    start, apart, place, weight, total, rest = windows
    for r in range(at[AT_HEIGHT]):
        windows_of_row(curve, False, True, sizes, r, at, points, start, apart, place, weight, total, rest)
        plane, first = pixel_starts(sizes, at)
        for j in range(at[AT_WIDTH]):
            to = (first + r * sizes.across + j) * n + c0
            for p in range(1 if NDIM == 2 else taps):
                deep, w = plane_of(taps, span, place, weight, 0, j, p)
                base = (np.int64(plane) + deep) * n + c0
                scatter_plane(grad_image, base, n, c1 - c0, taps, span, place, weight, j, w, grad, to)


@loop
def scatter_plane(grad_image, base, n, count, taps, span, place, weight, j, scale, grad, to):
    for q in range(taps):
        y = (COLUMNS + j) * span + q
        line, wy = base + np.int64(place[y]) * n, scale * weight[y]
        for k in range(span):
            w = wy * weight[j * span + k]
            if w != 0:
                add_tap(grad_image, np.uint64(line + np.int64(place[j * span + k]) * n), count, w, grad, np.uint64(to))


@inline
def add_tap(grad_image, at, count, w, grad, to):
    for c in range(np.uint64(count)):
        grad_image[at + c] += w * grad[to + c]

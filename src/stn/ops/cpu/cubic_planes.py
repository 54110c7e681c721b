"""One tile of planes by a cubic kernel: eight pixels at a time, or one by one where their taps are not neighbors."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import NDIM, loop, loop_fused
from stn.ops.cpu.cubic_taps import are_joined, deep_of, taps_of_row, with_fill
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.quads import blend_plane, blend_volume, slopes_plane, slopes_volume
from stn.ops.cpu.storing import stored
from stn.ops.cpu.taps import COLUMNS, STRIDE
from stn.ops.cpu.tile import AT_HEIGHT, AT_WIDTH, channel_starts

ALL = (1 << LANES) - 1  # bits of the pixels of a block


@loop
def blend_tile_planes(cubic, image, out, sizes, fill, at, points, taps):
    place, weight, total, rest = taps
    joined = are_joined(sizes)
    for r in range(at[AT_HEIGHT]):
        taps_of_row(cubic, False, sizes, r, at, points, place, weight, total, rest)
        for c in range(sizes.channels):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            blend_row(image, np.int64(base), joined, place, weight, rest, fill[c], out, to, at[AT_WIDTH])


@loop
def blend_row(image, base, joined, place, weight, rest, fill, out, to, width):
    for j in range(0, width, LANES):
        count, again = min(LANES, width - j), ALL
        if joined:
            blend = blend_plane if NDIM == 2 else blend_volume
            again = blend(image, base, place, weight, rest, j, fill, out, to + j, count)
        for k in range(count if again else 0):
            if again >> k & 1:
                value = tap_sum(image, base, place, weight, 0, 0, 0, j + k)
                out[np.uint64(to + j + k)] = stored(value + with_fill(rest[j + k], fill), fill, out)


@loop
def tap_sum(image, base, place, weight, sx, sy, sz, j):
    """The sum over the taps of one pixel that have weight. sx, sy, sz: 0 for weights, 1 for their derivatives."""
    value = weight[j] * 0
    for p in range(1 if NDIM == 2 else 4):
        deep, wz = deep_of(place, weight, sz, j, p)
        for q in range(4):
            line, wy = base + deep + place[(4 + q) * COLUMNS + j], wz * weight[(12 * sy + 4 + q) * COLUMNS + j]
            for k in range(4):
                w = wy * weight[(12 * sx + k) * COLUMNS + j]
                value += w * image[np.uint64(line + place[k * COLUMNS + j])] if w != 0 else 0
    return value


@loop
def slope_tile_planes(cubic, grad, image, sizes, fill, at, points, gradient, taps):
    place, weight, total, rest = taps
    joined, area = are_joined(sizes), len(gradient) // 3
    for r in range(at[AT_HEIGHT]):
        taps_of_row(cubic, True, sizes, r, at, points, place, weight, total, rest)
        for c in range(sizes.channels):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            slope_row(
                image, np.int64(base), joined, place, weight, rest, fill[c], grad, to, gradient, r * STRIDE, area,
                at[AT_WIDTH],
            )  # fmt: skip


@loop
def slope_row(image, base, joined, place, weight, rest, fill, grad, to, gradient, first, area, width):
    """Add one channel."""
    for j in range(0, width, LANES):
        count, again = min(LANES, width - j), ALL
        if joined:
            slopes = slopes_plane if NDIM == 2 else slopes_volume
            again = slopes(image, base, place, weight, rest, j, fill, grad, to + j, count, gradient, first + j, area)
        for k in range(count if again else 0):
            if again >> k & 1:
                for axis in range(NDIM):
                    x, y, z = int(axis == 0), int(axis == 1), int(axis == 2)
                    value = tap_sum(image, base, place, weight, x, y, z, j + k)
                    value += with_fill(rest[(1 + axis) * COLUMNS + j + k], fill)
                    gradient[np.uint64(axis * area + first + j + k)] += grad[np.uint64(to + j + k)] * value


@loop
def scatter_tile_planes(cubic, grad, grad_image, sizes, c0, c1, at, points, taps):
    place, weight, total, rest = taps
    joined = are_joined(sizes)
    for r in range(at[AT_HEIGHT]):
        taps_of_row(cubic, False, sizes, r, at, points, place, weight, total, rest)
        for c in range(c0, c1):
            base, first = channel_starts(sizes, at, c)
            to = first + r * sizes.across
            if joined:
                scatter_joined(grad_image, np.int64(base), place, weight, grad, to, at[AT_WIDTH])
            else:
                scatter_apart(grad_image, np.int64(base), place, weight, grad, to, at[AT_WIDTH])


@loop_fused
def scatter_joined(grad_image, base, place, weight, grad, to, width):
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(np.uint64(width)):
        i, g = np.uint64(base) + place[j], grad[np.uint64(to) + j]
        a, b, c, d = weight[j], weight[COLUMNS + j], weight[2 * COLUMNS + j], weight[3 * COLUMNS + j]
        for p in range(1 if NDIM == 2 else 4):
            first = i if NDIM == 2 else i + place[(8 + p) * COLUMNS + j]
            deep = g if NDIM == 2 else g * weight[(8 + p) * COLUMNS + j]
            for q in range(4):
                k, h = first + place[(4 + q) * COLUMNS + j], deep * weight[(4 + q) * COLUMNS + j]
                u, v = grad_image[k] + h * a, grad_image[k + one] + h * b
                x, y = grad_image[k + two] + h * c, grad_image[k + three] + h * d
                grad_image[k], grad_image[k + one], grad_image[k + two], grad_image[k + three] = u, v, x, y


@loop
def scatter_apart(grad_image, base, place, weight, grad, to, width):
    for j in range(width):
        g = grad[np.uint64(to + j)]
        for p in range(1 if NDIM == 2 else 4):
            deep, gz = (base, g) if NDIM == 2 else (base + place[(8 + p) * COLUMNS + j], g * weight[(8 + p) * COLUMNS + j])
            for q in range(4):
                line, gy = deep + place[(4 + q) * COLUMNS + j], gz * weight[(4 + q) * COLUMNS + j]
                for k in range(4):
                    grad_image[np.uint64(line + place[k * COLUMNS + j])] += gy * weight[k * COLUMNS + j]

"""The taps of pixels along one axis, where the vector code of `taps.py` has none: an image that is reflected or repeated,
and an axis of one pixel.

Few calls need it, and it takes as long to compile as all else that finds taps. So it is a kernel of its own, one for each
way to pad, which other kernels call at its address.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from stn.ops.cpu.compiling import inline, loop
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.padding import between, clamped, reflected, wrapped
from stn.ops.cpu.taps import clear
from stn.ops.padding import BORDER, REFLECTION, WRAP, ZEROS
from stn.ops.reference import FAR

AXIS = types.void(*[types.int64] * 15)  # of `axis_taps`
read_tile: Any = None  # for `axis_taps`, from `kernels.axis_at`
store_taps: Any = None
store_slopes: Any = None


def axis_taps(words, memory, i, first, start, end, n, pitch, low, high, align_corners, nearest, derivative, paired, zeros):
    """Write those of pixels start .. end of a row. words, memory: addresses of the words and of the chunk's memory."""
    tile = read_tile(words, memory)
    points, near, far, weight, slope = tile.points, tile.near, tile.far, tile.weight, tile.slope
    before = i * (len(near) // 3)
    at, taken, ends = before + first, paired != 0, (np.float64(low), np.float64(high))
    if i == 0:
        set_ones(points, start, end)
    clear(near, at + end, at + end + LANES)
    clear(far, at + end, at + end + LANES)
    store_taps(
        nearest != 0, taken, zeros != 0, align_corners, points, i, start, end, n, np.float64(pitch), ends, at, before, near,
        far, weight,
    )  # fmt: skip
    if derivative:
        store_slopes(taken, zeros != 0, align_corners, points, i, start, end, n, at + before, slope)


@loop
def set_ones(points, start, end):
    for j in range(np.uint64(start), np.uint64(end)):
        points[3, j] = 1.0


@inline
def base_of(nearest, x):
    """The lower tap, and how far x lies beyond it: NaN of NaN, which reaches the output through the weights."""
    p = between(x, -FAR, FAR)
    base = np.rint(p) if nearest else np.floor(p)
    return base, (0.0 if nearest else p - base) if x == x else x


@inline
def shared(first, second, a, b, place, paired):
    """Return the weights of the pixels at `place` and next to it, of two taps at a and b that are read as a pair."""
    nothing = first * 0  # in its precision
    lower = (first if a == place else nothing) + (second if b == place else nothing)
    upper = (first if a == place + 1.0 else nothing) + (second if b == place + 1.0 else nothing)
    return (lower, upper) if paired else (first, second)


@inline
def pair_of(a, b, n, paired):
    """The places that are read for taps at a and b: these, or if `paired` two neighbors within the image."""
    lower = a if a < b else b
    lower = lower if lower < n - 2.0 else n - 2.0
    return (lower, lower + 1.0) if paired else (a, b)


def taps_by(padded: Any) -> Any:
    """padded: the pixel of the image that stands in for a pixel of the plane."""

    @loop
    def store(nearest, paired, zeros, align, points, i, start, end, n, pitch, ends, at, before, near, far, weight):
        (low, high), last, real = ends, n - 1.0, weight.dtype.type
        for j in range(np.uint64(start), np.uint64(end)):
            base, t = base_of(nearest, points[i, j])
            a, b = padded(align, base, n), padded(align, base + 1.0, n)
            # A pixel outside has no weight if zeros are around the image, nor has one outside the band.
            keeps_a = 1.0 if ((not zeros) | (base >= 0.0) & (base <= last)) & (a >= low) & (a < high) else 0.0
            keeps_b = 1.0 if ((not zeros) | (base >= -1.0) & (base < last)) & (b >= low) & (b < high) else 0.0
            place, beside = pair_of(a, b, n, paired)
            rounded = real(t)  # before it is subtracted, as in a block inside: a pixel has the same bits in both
            first, second = shared(real(keeps_a) * (real(1) - rounded), real(keeps_b) * rounded, a, b, place, paired)
            k = np.uint64(at) + j
            near[k], far[k] = np.uint32(pitch * place), np.uint32(pitch * beside)
            weight[k + np.uint64(before)] = first
            weight[k + np.uint64(before) + np.uint64(len(near) // 3)] = second
            points[3, j] *= keeps_a * (1.0 - t) + keeps_b * t

    return store


def slopes_by(padded: Any) -> Any:
    @loop
    def store(paired, zeros, align, points, i, start, end, n, at, slope):
        """Derivatives of both weights: 0 where the coordinate is clamped, and of taps without weight."""
        last, area = n - 1.0, np.uint64(len(slope) // 6)
        for j in range(np.uint64(start), np.uint64(end)):
            x = points[i, j]
            base, _ = base_of(False, x)
            moves = (0.0 if (x < -FAR) | (x > FAR) else 1.0) if x == x else x
            a, b = padded(align, base, n), padded(align, base + 1.0, n)
            lower = -moves if (not zeros) | (base >= 0.0) & (base <= last) else 0.0 * moves
            upper = moves if (not zeros) | (base >= -1.0) & (base < last) else 0.0 * moves
            first, second = shared(lower, upper, a, b, pair_of(a, b, n, paired)[0], paired)
            k = np.uint64(at) + j
            slope[k], slope[k + area] = first, second

    return store


PADDED = {ZEROS: clamped, BORDER: clamped, REFLECTION: reflected, WRAP: wrapped}
LOOPS = {padded: {"store_taps": taps_by(padded), "store_slopes": slopes_by(padded)} for padded in PADDED.values()}


def is_needed(padding: int, lengths: tuple[int, ...]) -> bool:
    """Return True if an image of these lengths has pixels whose taps are found here."""
    return padding in (REFLECTION, WRAP) or 1 in lengths

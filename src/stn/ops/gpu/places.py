"""The first source pixel of each output pixel, and the distance to it, in Triton.

Points are in float64 (`coordinates.py`), which is slow: 32 operations a pixel on planes, half of them to round. For images
of float32 and less, an affine map instead computes in integers with FRACTION bits behind the point. Its steps along the axes
are rounded to 2^-41 pixels, so that points are exact to 2^-25 pixels on sides of 2^15 pixels. The integer part is the
pixel. A map that reaches farther than LIMIT pixels, or has NaN, takes float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops.gpu.coordinates import AFFINE, LATTICE, centered, entry, joined, middle, source_points
from stn.ops.gpu.lattices import lattice_points
from stn.ops.gpu.taps import fractions

FRACTION = tl.constexpr(40)
ONE, HALF, BELOW = tl.constexpr(2.0**40), tl.constexpr(2**39), tl.constexpr(2**40 - 1)  # of so many bits
SURPLUS, UNIT = tl.constexpr(40 - 32), tl.constexpr(2.0**-32)  # of t, which keeps 32 bits
LIMIT = tl.constexpr(2.0**22)


@triton.jit
def float_pixels(data, strides, knots, count, scale, pixel, real, size, out_size, REAL: tl.constexpr, HOW: tl.constexpr):
    """From points in float64."""
    u = centered(pixel, out_size, HOW.ndim)
    if HOW.rule == LATTICE:
        points = lattice_points(data, strides, scale, pixel, u, size, out_size, HOW)
    else:
        points = source_points(data, strides, knots, count, scale, pixel, real, u, size, HOW)
    first, rest, moves = (), (), ()
    for i in tl.static_range(HOW.ndim):
        pixels, t, moving = fractions(points[i], REAL, HOW)
        first, rest, moves = first + (pixels,), rest + (t,), moves + (moving,)
    return first, rest, moves


@triton.jit
def fixed(x):
    """Round to an integer with FRACTION bits behind the point."""
    return tl.floor(x * ONE + 0.5).to(tl.int64)


@triton.jit
def affine_start(data, strides, scale, size, out_size, i: tl.constexpr, NDIM: tl.constexpr):
    """Return p_i of the first output pixel, and a bound of |p_i|."""
    start = entry(data, strides, i, NDIM) * joined(scale[i][NDIM])
    reach = tl.abs(start)
    for j in tl.static_range(NDIM):
        step = entry(data, strides, i, j) * joined(scale[i][j])
        start -= step * middle(out_size[j])
        reach += tl.abs(step) * middle(out_size[j])
    return start + middle(size[i]), reach + middle(size[i])


@triton.jit
def is_near(data, strides, scale, size, out_size, NDIM: tl.constexpr):
    """Return whether all points of an affine map fit into integers; False for NaN."""
    near = affine_start(data, strides, scale, size, out_size, 0, NDIM)[1] < LIMIT
    for i in tl.static_range(1, NDIM):
        near = near & (affine_start(data, strides, scale, size, out_size, i, NDIM)[1] < LIMIT)
    return near


@triton.jit
def fixed_pixels(data, strides, scale, pixel, size, out_size, i: tl.constexpr, HOW: tl.constexpr):
    """Return the first pixel along axis i and the distance to it, from p_i = start_i + sum_j step_ij pixel_j."""
    p = fixed(affine_start(data, strides, scale, size, out_size, i, HOW.ndim)[0])
    for j in tl.static_range(HOW.ndim):
        p += fixed(entry(data, strides, i, j) * joined(scale[i][j])) * pixel[j]
    first, rest = (p >> FRACTION).to(tl.int32), p & BELOW
    if HOW.taps == 1:  # halves round to the even pixel
        first += ((rest > HALF) | ((rest == HALF) & ((first & 1) == 1))).to(tl.int32)
    return first, (rest >> SURPLUS).to(tl.uint32).to(tl.float32) * UNIT


@triton.jit
def source_pixels(data, strides, knots, count, scale, pixel, real, size, out_size, REAL: tl.constexpr, HOW: tl.constexpr):
    """For each axis, return the first source pixel, int32 (P,), the distance t to it, and 1, or 0 where p was clamped."""
    if (HOW.rule != AFFINE) | (REAL == tl.float64):
        return float_pixels(data, strides, knots, count, scale, pixel, real, size, out_size, REAL, HOW)
    else:
        if is_near(data, strides, scale, size, out_size, HOW.ndim):
            x, s = fixed_pixels(data, strides, scale, pixel, size, out_size, 0, HOW)
            y, t = fixed_pixels(data, strides, scale, pixel, size, out_size, 1, HOW)
            z, u = fixed_pixels(data, strides, scale, pixel, size, out_size, HOW.ndim - 1, HOW)
            along = tl.full(s.shape, 1.0, REAL)
            beside, beyond = along, along
        else:
            first, rest, moves = float_pixels(data, strides, knots, count, scale, pixel, real, size, out_size, REAL, HOW)
            x, y, z = first[0], first[1], first[HOW.ndim - 1]
            s, t, u = rest[0], rest[1], rest[HOW.ndim - 1]
            along, beside, beyond = moves[0], moves[1], moves[HOW.ndim - 1]
        return (x, y, z), (s, t, u), (along, beside, beyond)

"""Coordinate rules in Triton: the output pixels of a program, and their source points in float64 pixels.

`How` and `Block` define a kernel. Their values are constants of the compilation, so their branches cost nothing at run time.
Axes are in x, y, z order; a plane has two.

Data-center GPUs compute float64 at half the speed of float32, other GPUs at 1/64. A matrix needs about ten such operations
per pixel, which fit into the time of the memory accesses. A thin-plate spline needs forty per knot, which takes time on
other GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from stn.ops.rules import matrix

AFFINE, PROJECTIVE, BASIS, FIELD, LATTICE = (tl.constexpr(i) for i in range(5))
HORIZON = tl.constexpr(matrix.HORIZON)
BITS = tl.constexpr(2**63 - 1)


class How(NamedTuple):
    """The properties for which a kernel is compiled."""

    rule: int
    ndim: int
    taps: int  # along each axis: 1, 2 or 4
    sharpness: float  # Keys's a, for four taps
    padding: int
    align_corners: bool
    in_pixels: bool  # the unit of a field
    relative: bool
    reach: int  # of a control point of a lattice, in control points: 1 linear, 2 cubic; 0 without a lattice
    wide: bool  # offsets within a plane need 64 bits


class Block(NamedTuple):
    """The size of the work that one program does at a time; all lengths are powers of two."""

    flat: bool  # consecutive pixels instead of a tile
    across: int
    down: int
    deep: int
    channels: int
    even: bool  # the number of channels is a multiple, so that no mask of channels keeps loads from being wide


@triton.jit
def divided(i, divider):
    """i // n for i >= 0; see `programs.divider`."""
    high = tl.umulhi(i.to(tl.uint32) * 2, (divider >> 8).to(tl.uint32))
    return (high >> ((divider >> 1) & 31).to(tl.uint32)).to(tl.int32)


@triton.jit
def divmod(i, n, divider):
    quotient = divided(i, divider)
    return quotient, i - quotient * n


@triton.jit
def output_pixels(tile, size, dividers, BLOCK: tl.constexpr):
    """Return the pixels (x, y, z) of an output tile, int32 (P,), and a mask of those inside the output."""
    p = tl.arange(0, BLOCK.across * BLOCK.down * BLOCK.deep)
    if BLOCK.flat:
        row, x = divmod(tile * (BLOCK.across * BLOCK.down * BLOCK.deep) + p, size[0], dividers[3])
        z, y = divmod(row, size[1], dividers[4])
    else:
        row, column = divmod(tile, tl.cdiv(size[0], BLOCK.across), dividers[3])
        deep, down = divmod(row, tl.cdiv(size[1], BLOCK.down), dividers[4])
        x = column * BLOCK.across + p % BLOCK.across
        y = down * BLOCK.down + p // BLOCK.across % BLOCK.down
        z = deep * BLOCK.deep + p // (BLOCK.across * BLOCK.down)
    return (x, y, z), (x < size[0]) & (y < size[1]) & (z < size[2])


@triton.jit
def place(pixel, strides, HOW: tl.constexpr):
    """Return the offsets of pixels in a plane or volume. strides: in z, y, x order."""
    x, y, z = pixel[0], pixel[1], pixel[2]
    if HOW.wide:
        x, y, z = x.to(tl.int64), y.to(tl.int64), z.to(tl.int64)
    at = y * strides[1] + x * strides[2]
    if HOW.ndim == 3:
        at += z * strides[0]
    return at


@triton.jit
def zeros(count: tl.constexpr, shape: tl.constexpr, REAL: tl.constexpr):
    found = ()
    for _ in tl.static_range(count):
        found += (tl.zeros(shape, REAL),)
    return found


@triton.jit
def middle(n):
    return tl.cast(n - 1, tl.float64) * 0.5


@triton.jit
def centered(pixel, size, NDIM: tl.constexpr):
    """u = i - (n - 1) / 2, exact."""
    u = ()
    for i in tl.static_range(NDIM):
        u += (pixel[i].to(tl.float64) - middle(size[i]),)
    return u


@triton.jit
def joined(bits):
    """Return a float64 of the host from `launch.bits`, because Triton passes floats as float32."""
    return ((tl.cast(bits, tl.int64) >> 1) & BITS).to(tl.float64, bitcast=True)


@triton.jit
def to_double(x):
    """Convert to float64. Half precision goes through float32, because Triton has no direct conversion of bfloat16."""
    return x if x.dtype == tl.float64 else x.to(tl.float32).to(tl.float64)


@triton.jit
def rounded(x, KIND: tl.constexpr):
    """Convert to the dtype of a stored tensor. Half precision goes through float32."""
    return x if KIND == tl.float64 else x.to(tl.float32).to(KIND)


@triton.jit
def entry(data, strides, row, column):
    return to_double(tl.load(data + row * strides[0] + column * strides[1]))


@triton.jit
def linear(data, strides, scale, u, i: tl.constexpr, NDIM: tl.constexpr):
    """Row i of a matrix: sum_j (M_ij s_ij) u_j + M_id s_id. M s is exact for the identity."""
    total = entry(data, strides, i, NDIM) * joined(scale[i][NDIM])
    for j in tl.static_range(NDIM):
        total += entry(data, strides, i, j) * joined(scale[i][j]) * u[j]
    return total


@triton.jit
def divisor(data, strides, scale, u, NDIM: tl.constexpr):
    """Return w of a homography, kept away from zero."""
    w = linear(data, strides, scale, u, NDIM, NDIM)
    return tl.where(tl.abs(w) < HORIZON, HORIZON, w)


@triton.jit
def matrix_points(data, strides, scale, u, size, HOW: tl.constexpr):
    """p_i = M_i . (u, 1) + c_i, divided by w for a homography."""
    points = ()
    for i in tl.static_range(HOW.ndim):
        moved = linear(data, strides, scale, u, i, HOW.ndim)
        if HOW.rule == PROJECTIVE:
            moved = moved / divisor(data, strides, scale, u, HOW.ndim)
        points += (moved + middle(size[i]),)
    return points


@triton.jit
def radial(x, y, knots, t):
    """U(r) = r^2 log r of the distance r to knot t, U(0) = 0."""
    across, down = x - tl.load(knots + 2 * t), y - tl.load(knots + 2 * t + 1)
    square = across * across + down * down
    square = tl.where(square == 0.0, 1.0, square)
    return 0.5 * square * tl.log(square)


@triton.jit
def basis_points(data, strides, knots, count, scale, u, size):
    """p_i = s_ii u_i + c_i + h_i (sum_t w_ti U_t + w_Ti + w_(T+1)i x + w_(T+2)i y), h_i = s_i2."""
    x, y = u[0] * joined(scale[2][0]), u[1] * joined(scale[2][1])
    moved = ()
    for i in tl.static_range(2):
        flat = entry(data, strides, count + 1, i) * x + entry(data, strides, count + 2, i) * y
        moved += (entry(data, strides, count, i) + flat,)
    right, down = moved[0], moved[1]
    for t in range(count):
        bend = radial(x, y, knots, t)
        right += entry(data, strides, t, 0) * bend
        down += entry(data, strides, t, 1) * bend
    across = u[0] * joined(scale[0][0]) + middle(size[0]) + joined(scale[0][2]) * right
    return across, u[1] * joined(scale[1][1]) + middle(size[1]) + joined(scale[1][2]) * down


@triton.jit
def field_points(data, strides, scale, pixel, real, u, size, HOW: tl.constexpr):
    """p_i = f_i h_i + s_ii u_i + c_i. A field in pixels has no h_i; an absolute field has no s_ii u_i."""
    at = place(pixel, strides, HOW)
    points = ()
    for i in tl.static_range(HOW.ndim):
        p = to_double(tl.load(data + at + i * strides[3], mask=real, other=0.0))
        if not HOW.in_pixels:
            p = p * joined(scale[i][HOW.ndim])
        if HOW.relative:
            p += u[i] * joined(scale[i][i]) + middle(size[i])
        elif not HOW.in_pixels:
            p += middle(size[i])
        points += (p,)
    return points


@triton.jit
def source_points(data, strides, knots, count, scale, pixel, real, u, size, HOW: tl.constexpr):
    """Return the source points of one look's pixels in an image of this size. strides: of data, from its third axis on."""
    if HOW.rule == FIELD:
        return field_points(data, strides, scale, pixel, real, u, size, HOW)
    elif HOW.rule == BASIS:
        return basis_points(data, strides, knots, count, scale, u, size)
    else:
        return matrix_points(data, strides, scale, u, size, HOW)

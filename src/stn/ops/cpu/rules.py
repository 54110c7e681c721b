"""Coordinate rules and padding as small Numba functions, inlined into every kernel.

`rule`, `ndim` and `nearest` are constants of the kernel that calls, so that LLVM folds the branches on them. The padding is
not: only pixels at the edge ask for it, and a kernel takes seconds to compile.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stn.ops.reference import FAR, HORIZON

# Numba's cache on disk knows a kernel by its file and the constants that it uses. It does not know the files of the
# functions that it calls, nor whether it is parallel: kernels use this constant and that flag, to be told apart by them.
SOURCES = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()

AFFINE, PROJECTIVE, FIELD, BASIS = range(4)
ZEROS, BORDER, REFLECTION, WRAP = range(4)
PADDING = {"zeros": ZEROS, "border": BORDER, "reflection": REFLECTION, "wrap": WRAP}

# What takes tuples of arrays is inlined into its kernel, and there is little of it: Numba takes half a second for each such
# function. All else takes plain arrays and numbers and is compiled alone, once for all kernels: LLVM then keeps pointers in
# registers. Such a loop becomes vector code if it runs over unsigned integers, has few arrays, makes no views, and chooses
# by `a if c else b`, not by min. Coordinates of 256x1x42x42: 0.8 ns a pixel so, 7.3 otherwise.
inline: Any = njit(forceinline=True, nogil=True, error_model="numpy")
loop: Any = njit(nogil=True, error_model="numpy")
loop_sum: Any = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})  # sums in vector order


class Coordinates(NamedTuple):
    """Where to look, ready for the kernels. Axes are in x, y, z order; u are centred target pixels."""

    coef: Any  # (N * K, 4, 4): p_i = coef_i . (u_x, u_y, u_z, 1) [/ coef_3 . (..)] + axes_i0
    field: Any  # (N * K, Q, ndim): p_i = axes_i1 field_i + axes_i2 u_i + axes_i3
    axes: Any  # (3, 4)
    knots: Any  # (T, 2): the centres x_t of the radial functions U_t(x) = U(|x - x_t|), normalised
    bend: Any  # (N * K, 2, T): p_i = affine + sum_t bend_it U_t(x), where x_i = axes_i1 u_i
    align_corners: Any
    padding: Any


@loop
def row_points(rule, ndim, coef, field, axes, bend, table, look, start, u0, u1, u2, width, first, points):
    """points[i] = source pixels, float64, of a row of the output: flat from `start`, centred from u, table from `first`."""
    for i in range(ndim):
        if rule == FIELD:
            u = u0 if i == 0 else (u1 if i == 1 else u2)
            field_row(field, look, start, i, axes[i, 1], axes[i, 2], u, axes[i, 3], width, points)
            continue
        rest = coef[look, i, 1] * u1 + coef[look, i, 2] * u2 + coef[look, i, 3]
        if rule == PROJECTIVE:
            rest_w = coef[look, 3, 1] * u1 + coef[look, 3, 2] * u2 + coef[look, 3, 3]
            divided_row(coef[look, i, 0], rest, coef[look, 3, 0], rest_w, u0, axes[i, 0], width, i, points)
        else:
            straight_row(coef[look, i, 0], rest, u0, axes[i, 0], width, i, points)
        if rule == BASIS:
            bend_row(bend, look, table, first, width, i, points)


@loop
def field_row(field, look, start, i, scale, step, u, shift, width, points):
    along = step if i == 0 else 0.0
    rest = step * u + shift
    for j in range(np.uint64(width)):
        points[i, j] = scale * field[look, start + j, i] + (along * np.float64(np.int64(j)) + rest)


@loop
def straight_row(a, rest, u, c, width, i, points):
    for j in range(np.uint64(width)):
        points[i, j] = a * (u + np.float64(np.int64(j))) + rest + c


@loop
def divided_row(a, rest, v, rest_w, u, c, width, i, points):
    for j in range(np.uint64(width)):
        at = u + np.float64(np.int64(j))
        points[i, j] = (a * at + rest) / off_horizon(v * at + rest_w) + c


@inline
def off_horizon(w):
    """The divisor of a homography, kept off zero."""
    return HORIZON if abs(w) < HORIZON else w


@loop
def bend_row(bend, look, table, first, width, i, points):
    for t in range(bend.shape[2]):
        amount = bend[look, i, t]
        for j in range(np.uint64(width)):
            points[i, j] += amount * table[t, np.uint64(first) + j]


@inline
def padded(padding, align_corners, i, n):
    """The pixel of the image that stands in for pixel i of the plane."""
    if padding == REFLECTION:
        period = max(2 * n - 2, 1) if align_corners else 2 * n
        i = i % period
        return min(i, (period if align_corners else period - 1) - i)
    if padding == WRAP:
        return i % n
    return min(max(i, 0), n - 1)


@inline
def axis_taps(nearest, padding, align_corners, x, n):
    """Both taps of one axis with padding resolved: pixels, weights, and derivatives of the weights."""
    if x != x:
        return 0, 0, x, x, x, x
    far = (x < -FAR) | (x > FAR)
    x = min(max(x, -FAR), FAR)
    base = np.rint(x) if nearest else math.floor(x)
    t, i = x - base, int(base)
    first = second = 1.0
    if padding == ZEROS:
        first = 1.0 if 0 <= i < n else 0.0
        second = 1.0 if 0 <= i + 1 < n else 0.0
    j, k = padded(padding, align_corners, i, n), padded(padding, align_corners, i + 1, n)
    if nearest:
        return j, j, first, 0.0, 0.0, 0.0
    if far:
        return j, k, first * (1.0 - t), second * t, 0.0, 0.0
    return j, k, first * (1.0 - t), second * t, -first, second


@inline
def is_blank(ndim, points, j, w, h, d):
    """Whether no tap of a pixel lies in the image: under zeros padding it is the fill value and has no gradient."""
    x, y = points[0, j], points[1, j]
    blank = (x <= -1) | (x >= w) | (y <= -1) | (y >= h)
    known = (x == x) & (y == y)
    if ndim == 3:
        z = points[2, j]
        blank |= (z <= -1) | (z >= d)
        known &= z == z
    return blank & known

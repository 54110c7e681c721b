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

AFFINE, PROJECTIVE, FIELD = range(3)
ZEROS, BORDER, REFLECTION, WRAP = range(4)
PADDING = {"zeros": ZEROS, "border": BORDER, "reflection": REFLECTION, "wrap": WRAP}

# What handles tuples of arrays is inlined into its kernel. What loops over pixels with plain arrays is not: alone, LLVM
# keeps the pointers in registers. 256x1x42x42 forward: 2.4 ns a pixel so, 4.6 with all inlined, 6.9 with nothing inlined.
inline: Any = njit(forceinline=True, nogil=True, error_model="numpy")
loop: Any = njit(nogil=True, error_model="numpy")
loop_sum: Any = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})  # sums in vector order


class Coordinates(NamedTuple):
    """Where to look, ready for the kernels. Axes are in x, y, z order; u are centred target pixels."""

    coef: Any  # (N * K, 4, 4): p_i = coef_i . (u_x, u_y, u_z, 1) [/ coef_3 . (..)] + axes_i0
    field: Any  # (N * K, Q, ndim): p_i = axes_i1 field_i + axes_i2 u_i + axes_i3
    axes: Any  # (3, 4)
    align_corners: Any
    padding: Any


@inline
def row_points(rule, ndim, coordinates, look, start, u, width, px, py, pz):
    """Source pixels, float64, of a row of the output that begins at flat index start and centred pixel u."""
    axis_points(rule, coordinates, look, 0, start, u, width, px)
    axis_points(rule, coordinates, look, 1, start, u, width, py)
    if ndim == 3:
        axis_points(rule, coordinates, look, 2, start, u, width, pz)


@inline
def axis_points(rule, coordinates, look, i, start, u, width, p):
    c, scale, step, shift = coordinates.axes[i]
    if rule == FIELD:
        field = coordinates.field[look]
        for j in range(width):
            along = u[i] + j if i == 0 else u[i]
            p[j] = scale * field[start + np.uint64(j), i] + (step * along + shift)
        return
    a0, a1, a2, a3 = coordinates.coef[look, i]
    rest = a1 * u[1] + a2 * u[2] + a3
    if rule == AFFINE:
        for j in range(width):
            p[j] = a0 * (u[0] + j) + rest + c
    else:
        v0, v1, v2, v3 = coordinates.coef[look, 3]
        rest_w = v1 * u[1] + v2 * u[2] + v3
        for j in range(width):
            p[j] = (a0 * (u[0] + j) + rest) / off_horizon(v0 * (u[0] + j) + rest_w) + c


@inline
def off_horizon(w):
    """The divisor of a homography, kept off zero."""
    return HORIZON if abs(w) < HORIZON else w


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
def is_blank(ndim, px, py, pz, size):
    """Whether no tap of a pixel lies in the image: under zeros padding it is the fill value and has no gradient."""
    blank = (px <= -1) | (px >= size[0]) | (py <= -1) | (py >= size[1])
    known = (px == px) & (py == py)
    if ndim == 3:
        blank |= (pz <= -1) | (pz >= size[2])
        known &= pz == pz
    return blank & known

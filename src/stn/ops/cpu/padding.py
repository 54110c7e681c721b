"""Padding, and the taps of a pixel along one axis."""

from __future__ import annotations

import math

import numpy as np

from stn.ops.cpu.compiling import inline
from stn.ops.padding import REFLECTION, WRAP, ZEROS
from stn.ops.reference import FAR


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

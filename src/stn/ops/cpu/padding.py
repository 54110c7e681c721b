"""Padding: the pixel of the image that stands in for a whole place of the plane, however far away.

All are floating-point numbers, for vector code has no division of integers. They are below 2^31, so that float64 rounds no
quotient to another whole number.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline
from stn.ops.padding import REFLECTION, WRAP


@inline
def padded(padding, align_corners, i, n):
    if padding == REFLECTION:
        return reflected(align_corners, i, n)
    return wrapped(align_corners, i, n) if padding == WRAP else clamped(align_corners, i, n)


@inline
def clamped(align_corners, i, n):
    return between(i, 0.0, n - 1.0)


@inline
def reflected(align_corners, i, n):
    period = max(2.0 * n - 2.0, 1.0) if align_corners else 2.0 * n
    i = wrapped(align_corners, i, period)
    back = (period if align_corners else period - 1.0) - i
    return i if i < back else back


@inline
def wrapped(align_corners, i, n):
    return i - n * np.floor(i / n)


@inline
def between(x, low, high):
    """Clamp x; NaN becomes low. Written as two choices, because `min` and `max` do not become vector code."""
    x = x if x >= low else low
    return x if x <= high else high

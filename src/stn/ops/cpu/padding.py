"""Padding of whole pixels."""

from __future__ import annotations

from stn.ops.cpu.compiling import inline
from stn.ops.padding import REFLECTION, WRAP


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

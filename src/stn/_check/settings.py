"""Checks of finite numbers and of the largest size."""

from __future__ import annotations

import math

from stn._check.errors import fail


def finite_number(name: str, *values: float) -> None:
    if not all(map(math.isfinite, values)):
        given = ", ".join(map(str, values))
        fail(f"{name} must be finite; got {given}")


def pixels(name: str, size: tuple[int, ...], most: int) -> None:
    """Check that a size has at most the allowed number of pixels."""
    if math.prod(size) > most:
        fail(f"{name} must have at most max_pixels={most} pixels; got {' x '.join(map(str, size))} = {math.prod(size)}")

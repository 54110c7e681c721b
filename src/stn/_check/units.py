"""Warnings of numbers that are very likely in another unit: degrees for radians, pixels for normalized coordinates.

They are warnings, because each of these numbers is a valid one. All of them read values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from stn._check.errors import shown

TURN = 2 * math.pi + 1e-3
FAR = 10  # normalized: five widths of an image from its center


def radians(name: str, values: Iterable[float | None] | Tensor) -> None:
    """Warn of an angle of more than a full turn."""
    if torch.compiler.is_compiling():
        return
    numbers = values.flatten().tolist() if isinstance(values, Tensor) else [n for n in values if n is not None]
    most = max(numbers, key=abs, default=0.0)
    if TURN < abs(most) < math.inf:
        warnings.warn(
            f"{name} must be in radians; got {shown(round(most, 4))}, more than a turn: pass math.radians(..) of degrees",
            stacklevel=4,
        )


def in_pixels(name: str, value: Tensor) -> None:
    """Warn of boxes or corners that all lie within the first pixel."""
    if value.numel() and 0 < value.abs().amax() <= 1:
        warnings.warn(
            f"{name} must be in pixels; got none above {shown(round(value.abs().amax().item(), 4))}: "
            "multiply normalized ones by the width and the height of the image",
            stacklevel=4,
        )


def normalized(name: str, value: Tensor, how: str) -> None:
    """Warn of points that all images end far before."""
    if value.numel() and (most := value.detach().abs().amax().item()) > FAR and most < math.inf:
        warnings.warn(f"{name} must be normalized, an image is [-1, 1]; got {shown(round(most, 2))}: {how}", stacklevel=4)

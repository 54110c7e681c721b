"""Paddings: the pixel of the image that replaces pixel `index` of the plane. A new one is an entry of `KNOWN`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Padding:
    name: str
    code: int  # identifier in the kernels of devices
    pixel: Callable[[Tensor, int, bool], Tensor]  # (index, length, align_corners) -> index within the image
    fills: bool = False  # pixels outside have the fill value, for any index
    wraps: bool = False  # the image continues at the opposite border
    continues: bool = False  # the coefficients of a B-spline continue beyond the border like the pixels
    grid_sample: bool = True  # GridSample of torch and ONNX supports it under this name


def nearest_pixel(index: Tensor, n: int, align_corners: bool) -> Tensor:
    return index.clamp(0, n - 1)


def mirrored_pixel(index: Tensor, n: int, align_corners: bool) -> Tensor:
    """Mirror at the centers (.. 2 1 0 1 2 ..) or at the edges (.. 1 0 0 1 ..) of the outer pixels."""
    period = max(2 * n - 2, 1) if align_corners else 2 * n
    index = index.remainder(period)
    return torch.minimum(index, (period if align_corners else period - 1) - index)


def wrapped_pixel(index: Tensor, n: int, align_corners: bool) -> Tensor:
    return index.remainder(n)


ZEROS, BORDER, REFLECTION, WRAP = range(4)
KNOWN = (
    Padding("zeros", ZEROS, nearest_pixel, fills=True),
    Padding("border", BORDER, nearest_pixel),
    Padding("reflection", REFLECTION, mirrored_pixel, continues=True),
    Padding("wrap", WRAP, wrapped_pixel, wraps=True, continues=True, grid_sample=False),
)
PADDINGS = {padding.name: padding for padding in KNOWN}

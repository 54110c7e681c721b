"""From one level of a pyramid to the next: the pixels that are averaged along each axis, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn.ops.padding import PADDINGS

MOST = 4  # taps


class Averaging(NamedTuple):
    """The rule that computes a level from the finer one."""

    aligned: bool  # whether the outer pixels of both levels coincide
    wraps: bool  # whether the average continues at the opposite border


def averaging(align_corners: bool, padding_mode: str) -> Averaging:
    """Return the rule. Pixels with aligned corners cannot wrap: n pixels have n - 1 steps, one fewer than a period."""
    wraps = PADDINGS[padding_mode].wraps
    return Averaging(align_corners and not wraps, wraps)


def halved(n: int, aligned: bool) -> int:
    """Return the next length. With aligned corners two pixels stay two."""
    return (n // 2 + 1 if n > 2 else n) if aligned else (n + 1) // 2


def taps(n: int, how: Averaging, back: bool) -> tuple[Tensor, Tensor]:
    """Return the fine pixels (m, MOST) of each coarse pixel of an axis, and their weights, 0 for a missing tap.

    back: the same for the gradient of the n fine pixels, (n, MOST).
    """
    m = halved(n, how.aligned)
    step = max((n - 1) / max(m - 1, 1) if how.aligned else n / m, 1.0)
    i = torch.arange(m, dtype=torch.float64, device="cpu")
    centre = i * step if how.aligned else (i + 0.5) * step - 0.5
    pixel = (centre - step).floor().long().unsqueeze(1) + torch.arange(1, 1 + MOST, device="cpu")
    weight = (1 - (pixel - centre.unsqueeze(1)).abs() / step).clamp_min(0)
    if not how.wraps:
        weight = torch.where((pixel >= 0) & (pixel < n), weight, 0.0)
    pixel = pixel.remainder(n) if how.wraps else pixel.clamp(0, n - 1)
    weight = weight / weight.sum(dim=1, keepdim=True)
    return transposed(pixel, weight, n) if back else (pixel, weight)


def transposed(pixel: Tensor, weight: Tensor, n: int) -> tuple[Tensor, Tensor]:
    found: list[dict[int, float]] = [{} for _ in range(n)]
    for i, row in enumerate(zip(pixel.tolist(), weight.tolist(), strict=True)):
        for j, w in zip(*row, strict=True):
            if w > 0:
                found[j][i] = found[j].get(i, 0.0) + w  # a small image wraps more than once
    rows = [[*row.items(), *[(0, 0.0)] * (MOST - len(row))] for row in found]
    weights = [[w for _, w in row] for row in rows]
    pixels = torch.tensor([[i for i, _ in row] for row in rows], device="cpu")
    return pixels, torch.tensor(weights, dtype=torch.float64, device="cpu")


def filled(pixel: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Append taps of weight 0 to (m, taps) each, until there are MOST."""
    missing = (0, MOST - pixel.shape[1])
    return F.pad(pixel, missing), F.pad(weight, missing)


def average(image: Tensor, fine: Sequence[int], how: Averaging, back: bool) -> Tensor:
    """The reference: from images of the size `fine` to the next level. Differentiable to any order."""
    for axis, n in enumerate(fine, start=2):
        pixel, weight = taps(n, how, back)
        read = image.index_select(axis, pixel.flatten().to(image.device)).unflatten(axis, pixel.shape)
        weight = weight.to(image.device, image.dtype).view(*pixel.shape, *(1,) * (image.ndim - 1 - axis))
        image = (read * weight).sum(dim=axis + 1)
    return image

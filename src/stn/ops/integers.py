"""Images of integers: label maps, which pass through unchanged, and bytes, whose results are rounded."""

from __future__ import annotations

import torch
from torch import Tensor

from stn.ops.sampling import Sampling


def has_labels(image: Tensor, sampling: Sampling) -> bool:
    """Return True for integers that are sampled by nearest neighbor, which changes no number."""
    return sampling.interpolation.rounds and not image.is_floating_point() and not image.is_complex()


def whole(labels: Tensor) -> Tensor:
    """Return labels in a dtype that is sampled: int64 for uint16, uint32 and uint64, of which torch has few operations."""
    scarce = labels.dtype in (torch.uint16, torch.uint32, torch.uint64)
    return labels.to(torch.int64) if scarce else labels


def as_integers(values: Tensor, dtype: torch.dtype, fill: Tensor | None = None) -> Tensor:
    """Round and limit numbers to bytes. Others are already what `dtype` holds.

    values: (N, K, C, *size) where there is a fill value, () or (C,), which stands for NaN.
    """
    if dtype != torch.uint8 or not values.is_floating_point():
        return values.to(dtype)
    if fill is not None:
        values = torch.where(values.isnan(), fill.to(values.dtype).view(-1, *(1,) * (values.ndim - 3)), values)
    return values.nan_to_num(nan=0.0).round().clamp(0, 255).to(torch.uint8)

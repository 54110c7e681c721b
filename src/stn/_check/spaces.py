"""Checks of the geometry of images in the world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn._check.errors import fail, shown

PERPENDICULAR = 1e-4  # largest cosine between two axes: files store directions in single precision


def numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    found = _float(value)
    if found is None or found.shape != (count,) or not found.isfinite().all():
        fail(f"{name} must be {count} finite numbers; got {shown(value)}")
    return tuple(found.tolist())


def square_matrix(name: str, value: Any, side: int) -> Tensor:
    """Check a matrix of finite numbers. Returns it in float64."""
    found = _float(value)
    if found is None or found.shape != (side, side) or not found.isfinite().all():
        got = tuple(found.shape) if found is not None and found.shape != (side, side) else value
        fail(f"{name} must be a matrix ({side}, {side}) of finite numbers; got {shown(got)}")
    return found


def directions(name: str, value: Any, d: int) -> tuple[tuple[float, ...], ...]:
    """Check a matrix whose columns are perpendicular and of length 1."""
    found = square_matrix(name, value, d)
    off = (found.mT @ found - torch.eye(d, dtype=found.dtype, device="cpu")).abs().max().item()
    if not off < PERPENDICULAR or math.isnan(off):
        fail(f"{name} must have perpendicular columns of length 1; got {shown(found.tolist())}")
    return tuple(map(tuple, found.tolist()))


def _float(value: Any) -> Tensor | None:
    try:
        kind = torch.float64
        return (
            value.detach().to("cpu", kind)
            if isinstance(value, Tensor)
            else torch.tensor(_lists(value), dtype=kind, device="cpu")
        )
    except (TypeError, ValueError, RuntimeError):
        return None


def _lists(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_lists(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value

"""Checks of what moves along with a warp: patches and their canvas, masks, points and boxes of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stn._check.errors import AXES, fail, samples, shown
from stn._check.tensors import floating, tensor
from stn._check.values import bounds, lengths


def one_or_same(n: int, m: int) -> bool:
    return n == m or n == 1


def patches(name: str, value: Any, batch: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Check patches (N, C, *patch) of a warp of batch (N,), or (N, K, C, *patch). Returns the batch of the patches."""
    floating(name, value)
    lead = ("N", "K")[: len(batch)]
    found = tuple(value.shape[: len(batch)])
    fits = value.ndim == len(batch) + 1 + ndim and all(map(one_or_same, batch, found))
    if not fits or 0 in value.shape[-ndim:]:
        shape = f"({', '.join(lead)}, C, {AXES[ndim]})"
        fail(f"{name} must be {shape} for a warp of batch {tuple(batch)}, or of one; got {tuple(value.shape)}")
    return found


def each_look(name: str, value: Tensor, batch: Sequence[int]) -> tuple[int, ...]:
    """Check an image for each look, (N, K, C, ..). Returns (N, K)."""
    found = tuple(value.shape[:2])
    if not all(map(one_or_same, batch, found)):
        fail(
            f"{name} must begin with (N, K) = {tuple(batch)} like the warp, an image for each look; got {tuple(value.shape)}"
        )
    return found


def plane_boxes(ndim: int) -> None:
    if ndim != 2:
        fail(f"boxes must be those of images; got a warp of {ndim} dimensions")


def canvas(size: Any, onto: Any, patches: Tensor, batch: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Check the canvas (N, C, *size), or its size. Returns the size."""
    if onto is None:
        if isinstance(size, Tensor) and size.ndim > 1:
            fail(f"size must be lengths; got {shown(size)}: pass the canvas by its name, onto=..")
        if size is None:
            fail("size must be given without onto: the size of the canvas; got None")
        return lengths("size", size, ndim)
    floating("onto", onto)
    channels = patches.shape[len(batch)]
    if onto.ndim != ndim + 2 or onto.shape[0] != batch[0] or onto.shape[1] != channels:
        expected = f"(N, C, {AXES[ndim]}) with N = {batch[0]} and C = {channels}, like patches"
        fail(f"onto must be {expected}; got {tuple(onto.shape)}")
    found = tuple(onto.shape[2:])
    if size is not None and lengths("size", size, ndim) != found:
        fail(f"size must be that of onto, {found}, or None; got {shown(size)}")
    return found


def opacity(name: str, value: Any, patches: Tensor, ndim: int) -> None:
    floating(name, value)
    expected = (*patches.shape[: -ndim - 1], 1, *patches.shape[-ndim:])
    if tuple(value.shape) != expected:
        fail(f"{name} must be {expected}, one channel for each of the patches; got {tuple(value.shape)}")


def unfolded(folds: Tensor) -> None:
    """Check flags per sample. This reads values."""
    if folds.any():
        fail(f"the warp must not fold over a patch that is written; it folds at warp {samples(folds)} of {len(folds)}")


def given(inputs: dict[str, Any]) -> None:
    if all(value is None for value in inputs.values()):
        fail(f"one of {', '.join(inputs)} must be given; got none")


def same_size(sizes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the size of the input, which image, mask and in_size must share."""
    if not sizes:
        fail("in_size or size must be given with points or boxes alone; got neither")
    (first, size), *others = sizes.items()
    for name, other in others:
        if other != size:
            fail(f"{name} must have the size {size} of {first}; got {other}")
    return size


def mask(name: str, value: Any, ndim: int) -> None:
    """Check a mask (N, *size) or (N, C, *size), of any real dtype."""
    tensor(name, value)
    if value.is_complex():
        raise TypeError(f"{name} must have a real dtype; got {value.dtype}")
    if value.ndim not in (ndim + 1, ndim + 2) or 0 in value.shape[-ndim:]:
        fail(f"{name} must be (N, {AXES[ndim]}) or (N, C, {AXES[ndim]}); got {tuple(value.shape)}")


def each_image(name: str, value: Any, numbers: int, batch: Sequence[int]) -> None:
    """Check points or boxes of each image: (N, P, numbers), or (P, numbers) for all."""
    floating(name, value)
    fits = value.ndim in (2, 3) and value.shape[-1] == numbers
    n, m = (value.shape[0] if fits and value.ndim == 3 else 1), batch[0]
    if not fits or (n != m and 1 not in (n, m)):
        fail(f"{name} must be (N, P, {numbers}) for N = {m} images, or (P, {numbers}) for all; got {tuple(value.shape)}")


def drawn(name: str, value: Any, count: int) -> list[tuple[float, float] | None]:
    """Check ranges (low, high) of the numbers of a name. Return one for each."""
    found = bounds(name, value, [None] * count)
    for pair in found:
        if pair is not None and not (pair[0] <= pair[1] and all(map(math.isfinite, pair))):
            fail(f"{name} must be a range (low, high), finite and in this order; got {pair}")
    return found

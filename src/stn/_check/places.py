"""Checks of sets of points, of values at points, and of feature maps that are read at points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stn._check.errors import AXES, fail, shown
from stn._check.tensors import floating, same_device, tensor
from stn._check.values import lengths


def point_sets(name: str, value: Any, image: Tensor) -> None:
    """Check points (P, d) for all images, or (N, *shape, d)."""
    floating(name, value)
    same_device(name, value, image)
    d, n = image.ndim - 2, image.shape[0]
    if value.ndim < 2 or value.shape[-1] != d or (value.ndim > 2 and value.shape[0] != 1 and value.shape[0] != n):
        fail(
            f"{name} must be (P, {d}) or (N, P, {d}) with N = {n} like image, or N = 1; got "
            f"{tuple(value.shape)} for an image of {d} spatial dimensions"
        )


def levels(name: str, value: Any) -> list[tuple[int, ...]]:
    """Check the sizes (H, W) of feature maps, a sequence or a tensor (L, 2) of integers."""
    found = value.tolist() if isinstance(value, Tensor) else value
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) == 0:
        fail(f"{name} must be (H, W) for each of at least one level; got {shown(value)}")
    return [lengths(f"{name}[{i}]", size, 2) for i, size in enumerate(found)]


def attention(values: Any, sizes: Sequence[Sequence[int]], locations: Any, weights: Any) -> None:
    """Check the tensors of deformable attention: (N, S, M, D), (N, Q, M, L, P, 2) and (N, Q, M, L, P)."""
    for name, value in (("values", values), ("locations", locations), ("weights", weights)):
        floating(name, value)
        same_device(name, value, values)
    pixels = sum(map(math.prod, sizes))
    if values.ndim != 4 or values.shape[1] != pixels or 0 in values.shape[2:]:
        fail(f"values must be (N, S, M, D) with S = {pixels}, the pixels of all sizes; got {tuple(values.shape)}")
    n, _, heads, _ = values.shape
    shape = tuple(locations.shape)
    if locations.ndim != 6 or shape[0] != n or shape[2] != heads or shape[3] != len(sizes) or shape[5] != 2:
        fail(
            f"locations must be (N, Q, M, L, P, 2) with N = {n} and M = {heads}, like values, and L = {len(sizes)} "
            f"levels; got {shape}"
        )
    if tuple(weights.shape) != shape[:-1]:
        fail(f"weights must be (N, Q, M, L, P) = {shape[:-1]}, like locations; got {tuple(weights.shape)}")


def splat_values(name: str, value: Any, ndim: int) -> bool:
    """Check values (N, C, *out), or (N, K, C, *out) of K looks. Returns whether there are looks."""
    tensor(name, value)
    if not (value.is_floating_point() or value.is_complex()):
        raise TypeError(f"{name} must have a floating-point dtype, or a complex one; got {value.dtype}")
    if value.ndim not in (ndim + 2, ndim + 3):
        axes = AXES[ndim]
        points = f", or (N, C, P) at points (N, P, {ndim})" if ndim > 1 else ""
        fail(f"{name} must be (N, C, {axes}) or (N, K, C, {axes}){points}; got {tuple(value.shape)}")
    return bool(value.ndim == ndim + 3)


def splat_place(name: str, value: Tensor, values: Tensor, looks: bool) -> bool:
    """Check matrices or points, for all images or for each, without or with looks. Returns whether they are points."""
    floating(name, value)
    same_device(name, value, values)
    out = tuple(values.shape[3:] if looks else values.shape[2:])
    ndim, n, k = len(out), values.shape[0], values.shape[1]
    is_matrix = value.ndim > 0 and value.shape[-1] == ndim + 1
    own = 2 if is_matrix else ndim + 1
    core, lead = tuple(value.shape[-own:]), tuple(value.shape[:-own])
    fits = core in ((ndim, ndim + 1), (ndim + 1, ndim + 1)) if is_matrix else core == (*out, ndim)
    if fits and (not lead or lead[0] == 1 or lead[0] == n) and (lead[1:] == (k,) if looks else len(lead) < 2):
        return not is_matrix
    if looks:
        forms = f"(N, K, {ndim}, {ndim + 1}), (N, K, {ndim + 1}, {ndim + 1}) or (N, K, {_joined(out)}, {ndim})"
    else:
        forms = f"(N, {ndim}, {ndim + 1}), (N, {ndim + 1}, {ndim + 1}) or (N, {_joined(out)}, {ndim})"
    wanted = f"N = {n} like values, or N = 1" + (f", and K = {k}" if looks else "")
    fail(f"{name} must be a warp, matrices or points, {forms} with {wanted}; got {tuple(value.shape)}")


def _joined(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def splat_warp(name: str, batch: Sequence[int], warp_ndim: int, values: Tensor, ndim: int, looks: bool) -> None:
    if warp_ndim != ndim:
        fail(f"{name} must be a warp of {ndim} dimensions, like size; got one of {warp_ndim}")
    n, k = values.shape[0], values.shape[1]
    if (batch[0] != 1 and batch[0] != n) or tuple(batch[1:]) != ((k,) if looks else ()):
        expected = f"(N, K) with K = {k} and N = {n}" if looks else f"(N,) with N = {n}"
        fail(f"{name} must be a warp of batch {expected}, like values, or N = 1; got a warp of batch {tuple(batch)}")


def splat_weights(name: str, value: Any, values: Tensor, channel: int) -> None:
    """Check one weight for each pixel of the values: their shape with one channel, at axis `channel`."""
    floating(name, value)
    same_device(name, value, values)
    expected = (*values.shape[:channel], 1, *values.shape[channel + 1 :])
    if tuple(value.shape) != tuple(expected):
        fail(f"{name} must have one channel and otherwise the shape of values, {tuple(expected)}; got {tuple(value.shape)}")
